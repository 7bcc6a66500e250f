"""Token healing: the last token of a prompt is taken back, and the first new one begins with its letters.

A vocabulary spells a word together with the space before it, and often whole: behind a prompt that ends in that space,
or within a word, the tokens that go on as the texts do that a model has learnt from cannot come any more. What it
writes then begins with a second space, a broken word or another one (benchmarks/RESULTS.md).

As guidance has it (Microsoft 2023), and transformers' `token_healing`, which looks for texts among the tokens as they
are spelled and so finds none in Korean, whose bytes are spelled otherwise. Pure functions over ids.
"""

from bisect import bisect_left
from functools import lru_cache

import torch

from gpt2_korean.generation.whole_characters import ordinary_tokens

BLANKS = {"Ġ", "▁"}  # a space, as vocabularies of bytes and SentencePiece's spell it
LAST = "\U0010ffff"


def heal(ids, tokenizer, always=None):
    """`(ids, again, begun)` for the non-empty ids of a prompt: those to read, perhaps none; the ids of which the first
    new one is to be, int64 [n]; and the text with which it begins, which is the prompt's. Where all is left as it is,
    `(ids, None, "")`.

    tokenizer: of tokenizers; with any other all is left. always: whatever the last token is, True; never, False; where
    it is nothing but spaces, None.
    """
    token = None if always is False or not hasattr(tokenizer, "id_to_token") else tokenizer.id_to_token(ids[-1])
    if not token or not (always or BLANKS.issuperset(token)):
        return ids, None, ""
    near = ids[-6:]  # a character has four bytes at most
    before, whole = (tokenizer.decode(part, skip_special_tokens=True) for part in (near[:-1], near))
    spelled, numbers = _vocabulary(tokenizer)
    again = numbers[bisect_left(spelled, token) : bisect_left(spelled, token + LAST)]
    if len(again) < 2 or before.endswith("\ufffd"):  # no other begins so, or it ends a character
        return ids, None, ""
    return ids[:-1], again, whole[len(before) :]


@lru_cache(maxsize=4)  # each text asks for the same again
def _vocabulary(tokenizer):
    """`(tokens, ids)` in the order of the tokens as they are spelled, less the special ones: list of str, int64 [n]."""
    items = sorted(ordinary_tokens(tokenizer))
    return [token for token, _ in items], torch.tensor([index for _, index in items])
