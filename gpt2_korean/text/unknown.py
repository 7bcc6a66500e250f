"""What of texts a vocabulary cannot write: counted where a token stands for it, named, and told."""

from collections import Counter

import numpy as np

from gpt2_korean.messages import particle, warn
from gpt2_korean.text.chat_template import encode_texts
from gpt2_korean.text.corpus import is_stream, sample_texts
from gpt2_korean.text.vocabulary import COUNTED_CHARACTERS

NAMED = 5  # characters, at most


def warn_of_unknown(name, documents, tokens, tokenizer):
    """Say what the vocabulary lacks of `documents`, which are called `name` and were made into Tokens."""
    unknown, lacking = count_unknown(tokens, tokenizer), ()
    if not is_stream(documents):  # which is not read again for it
        lacking = lacking_characters(sample_texts(documents, COUNTED_CHARACTERS), tokenizer)
    such = _name(lacking)
    if unknown:
        stand_in = particle(unknown_token(tokenizer), "으로/로")
        warn(f"{name}: {unknown:,}곳의 글자가 어휘에 없어 {stand_in} 바뀌었습니다{such}.")
    elif lacking:
        warn(f"{name}: 글자가 어휘에 없어 빠졌습니다{such}.")


def describe_unread(prompts, tokenizer):
    """A line on what the vocabulary lacks of `prompts`, a list of str, or None; tokenizer: as of lacking_characters."""
    lacking = lacking_characters(prompts, tokenizer)
    return f"앞글의 글자가 어휘에 없어 모델이 읽지 못합니다{_name(lacking)}." if lacking else None


def count_unknown(tokens, tokenizer):
    """At how many places of Tokens the texts have what the vocabulary does not."""
    unknown = _unknown_id(tokenizer)
    # GPT-2's tokenizer names the end of a text, since no text is unknown to it.
    if unknown in (None, tokenizer.eos_token_id):
        return 0
    return sum(np.count_nonzero(part == unknown) for part in tokens.ids)


def lacking_characters(texts, tokenizer):
    """The most frequent characters of `texts` that the vocabulary lacks: another token stands for them, or none.

    tokenizer: of tokenizers or of transformers.
    """
    found = [character for character, _ in Counter("".join(texts)).most_common()]
    unknown, lacking = _unknown_id(tokenizer), []
    for character, ids in zip(found, encode_texts(found, tokenizer) if found else [], strict=True):
        left_out = not character.isspace() and not tokenizer.decode(ids, skip_special_tokens=False).strip()
        if left_out or unknown in ids:
            lacking.append(character)
    return lacking[:NAMED]


def _name(characters):
    return f"({' '.join(map(repr, characters))} 등)" if characters else ""


def unknown_token(tokenizer):
    """The token that stands for what the vocabulary lacks, None where there is none.

    It need not be named but in tokenizer.json, as in skt/kogpt2-base-v2, and what stands there is what is written.
    """
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    own = getattr(getattr(backend, "model", None), "unk_token", None)
    return own or getattr(tokenizer, "unk_token", None)


def _unknown_id(tokenizer):
    token = unknown_token(tokenizer)
    find = getattr(tokenizer, "token_to_id", None) or tokenizer.convert_tokens_to_ids
    return None if token is None else find(token)
