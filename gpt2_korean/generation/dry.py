"""DRY, "don't repeat yourself": what would carry on a repetition costs the more, the longer that has lasted.

By p-e-w (text-generation-webui, pull request 5677, 2024), with the meaning that its flags have in llama.cpp and
koboldcpp. Pure functions as those of sampling.py.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F

from gpt2_korean.text.chat_template import encode_texts
from gpt2_korean.text.vocabulary import token_bytes

LONGEST = 50  # tokens: a repetition that has lasted longer costs no more, as in text-generation-webui
NO_BREAKERS = ["none"]  # as llama.cpp calls it
MOST = 1e30  # of a penalty: no finite score becomes an infinite one by it


def penalize_continued_repeats(logits, history, breakers, multiplier, base, allowed_length, last_n=0):
    """Lower the logits of the tokens that would carry on what stands in `history` [batch, width] before.

    Where the last n tokens of a row stand in it a second time, the token that followed them there loses
    multiplier * base ** (n - allowed_length) if n is `allowed_length` or more; of several n the largest counts, and
    none is more than LONGEST. Repetitions do not reach over one of `breakers`, bool [vocab], which lose nothing
    themselves. last_n: how many of the newest tokens count, 0 for all.
    """
    history = history[:, -last_n:]  # -0: all
    longest = min(LONGEST, history.shape[1] - 1)
    if longest < allowed_length:
        return logits
    newest, following = history[:, -longest:], history[:, 1:].clamp(min=0)
    newest = newest.masked_fill((newest < 0) | breakers[newest.clamp(min=0)], -2)  # which nothing equals
    places = history.shape[1] - 1
    before = F.pad(history[:, :-1], (longest - 1, 0), value=-1).unfold(1, places, 1)  # [batch, longest, places]
    back = torch.arange(longest - 1, -1, -1, device=logits.device, dtype=torch.uint8)[:, None]
    # How many of the newest tokens stand before each of `following`: as far back as the first that differs.
    repeated = back.where(before != newest[:, :, None], longest).amin(1).float()
    penalties = (multiplier * base ** (repeated - allowed_length)).clamp(max=MOST)
    penalties = penalties.where((repeated >= allowed_length) & ~breakers[following], 0)
    return logits.scatter_reduce(1, following, logits.gather(1, following) - penalties, "amin")


@lru_cache(maxsize=4)  # a session asks for the same again and again
def find_breakers(tokenizer, texts, vocab_size):
    """The tokens at which repetitions end, bool [vocab]: those with one of `texts` in them, a tuple of str, and where a
    text is several tokens its last; special tokens too, so that a turn can end and begin as the one before did.

    tokenizer: of transformers or of tokenizers.
    """
    texts = () if list(texts) == NO_BREAKERS else texts
    pieces = token_bytes(tokenizer)
    if pieces is None:  # not byte-level
        pieces = [tokenizer.decode([index], skip_special_tokens=True).encode() or None for index in range(vocab_size)]
    wanted = [text.encode() for text in texts]
    found = {index for index, piece in enumerate(pieces) if piece is None or any(each in piece for each in wanted)}
    # As it stands behind a letter: at the beginning of a text some tokenizers put a blank before it.
    found |= {ids[-1] for text in texts for ids in encode_texts([f"a{text}"], tokenizer)}
    breakers = torch.zeros(vocab_size, dtype=torch.bool)
    breakers[sorted(found)] = True
    return breakers
