"""Texts → ids, each word encoded once: a corpus has several times as many words as different ones."""

import json
import re
from array import array

import numpy

from gpt2_korean.text.chat_template import encode_texts
from gpt2_korean.text.vocabulary import token_bytes

# GPT-2's own pre-tokenizer cuts at the ends of these: white space but for the space before a word, and that with the
# word. Python alone takes four control characters for white space too, which no text has (normalise.py).
WORD = re.compile(r"\s+(?!\S)| ?\S+|\s")
LINES = 100  # of a text of words
ID = 4  # bytes
MOST_KNOWN = 8_000_000  # characters of the words that are remembered, some 400 MB with their ids


def text_encoder(tokenizer):
    """`encode(texts)`: the ids of each text as encode_texts gives them, in the bytes of an int32 array.

    It remembers words where those of a text are encoded each by itself.
    """
    if not cuts_at_spaces(tokenizer):
        return lambda texts: list(map(id_bytes, encode_texts(texts, tokenizer))) if texts else []
    known, characters = {}, 0

    def encode(texts):
        nonlocal characters
        cut = [WORD.findall(text) for text in texts]
        new = list({word for words in cut for word in words if word not in known})
        known.update(encode_words(new, tokenizer.backend_tokenizer))
        ids = [b"".join(map(known.__getitem__, words)) for words in cut]
        if characters < MOST_KNOWN:
            characters += sum(map(len, new))
        else:  # those that were met first are the most frequent
            for word in new:
                del known[word]
        return ids

    return encode


def encode_words(words, tokenizer):
    """Yield `(word, the bytes of its ids)` of each of `words`, by a `tokenizer` of tokenizers that cuts_at_spaces.

    Most are encoded as the lines of longer texts: each by itself would take twice as long.
    """
    spaces, words = [word for word in words if word.isspace()], [word for word in words if not word.isspace()]
    (line_end,), *ids = encode_texts(["\n", *spaces], tokenizer)
    yield from zip(spaces, map(id_bytes, ids), strict=True)
    parts = [words[start : start + LINES] for start in range(0, len(words), LINES)]
    for part, ids in zip(parts, encode_texts(["\n".join(part) for part in parts], tokenizer), strict=True):
        ids = numpy.array(ids, numpy.int32)
        ends = [*(ID * numpy.flatnonzero(ids == line_end)).tolist(), ID * len(ids)]
        ids, start = ids.tobytes(), 0
        for word, end in zip(part, ends, strict=True):
            yield word, ids[start:end]
            start = end + ID


def id_bytes(ids):
    return array("i", ids).tobytes()


def cuts_at_spaces(tokenizer):
    """Whether the ids of a text are those of its WORDs one after another: whether it cuts texts as GPT-2 does."""
    if token_bytes(tokenizer) is None:  # a word might be unknown, and a line's end too
        return False
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    cut = parts["pre_tokenizer"] or {}
    as_gpt2 = cut.get("type") == "ByteLevel" and cut["use_regex"] and not cut["add_prefix_space"]
    others = parts["normalizer"], parts["truncation"], parts["padding"], parts["model"].get("dropout")
    # The names of special tokens are text in a text; those of others are tokens, wherever they stand.
    return as_gpt2 and not any(others) and all(token["special"] for token in parts["added_tokens"])
