"""A corpus is encoded word by word; its ids are those of each text as a whole, whatever the tokenizer."""

import json

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from gpt2_korean.text import words
from gpt2_korean.text.chat_template import encode_texts

SPACES = [
    chr(code) for code in (9, 10, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)
]
PIECES = [
    "가",
    "나다",
    "각",
    "영화",
    "don't",
    "'s",
    "'re",
    "...",
    "!?",
    "12",
    "½",
    "Ⅳ",
    "é",
    "😀",
    "\u200b",
    "<|endoftext|>",
]


def texts(rng, sample_texts):
    """Texts of all that a pre-tokenizer may cut at, and people's own."""
    made = ["".join(rng.choice([*PIECES, *SPACES, " ", " ", "  ", "\n\n"]) for _ in range(n)) for n in range(60)]
    return [*made, *rng.sample(sample_texts, 20), "", " ", "\n", "가", " 가"]


def ids(encode, texts):
    return [np.frombuffer(each, np.int32).tolist() for each in encode(texts)]


def test_word_by_word_a_text_has_the_ids_that_it_has_as_a_whole(
    byte_tokenizer, english_tokenizer, sample_texts, rng, monkeypatch
):
    monkeypatch.setattr(words, "MOST_KNOWN", 300)  # what is forgotten is encoded again
    monkeypatch.setattr(words, "LINES", 7)
    for tokenizer in (byte_tokenizer, english_tokenizer):
        assert words.cuts_at_spaces(tokenizer)
        encode = words.text_encoder(tokenizer)
        for _ in range(20):
            some = texts(rng, sample_texts)
            assert ids(encode, some) == encode_texts(some, tokenizer)
        assert ids(encode, []) == []


def changed(tokenizer, change):
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    change(backend)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")


OTHERS = {
    "a space in front": lambda backend: setattr(
        backend, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)
    ),
    "lines are kept": lambda backend: setattr(
        backend, "pre_tokenizer", pre_tokenizers.ByteLevel(use_regex=False, add_prefix_space=False)
    ),
    "two cuts": lambda backend: setattr(
        backend, "pre_tokenizer", pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(False)])
    ),
    "a normalizer": lambda backend: setattr(backend, "normalizer", normalizers.Strip()),
    "an added word": lambda backend: backend.add_tokens([AddedToken("영화 가")]),
    "cut short": lambda backend: backend.enable_truncation(5),
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_a_tokenizer_that_looks_farther_than_a_word_reads_whole_texts(change, byte_tokenizer, sample_texts, rng):
    tokenizer = changed(byte_tokenizer, change)
    assert not words.cuts_at_spaces(tokenizer)
    some = texts(rng, sample_texts)
    assert ids(words.text_encoder(tokenizer), some) == encode_texts(some, tokenizer)


def test_a_tokenizer_that_knows_not_all_bytes_reads_whole_texts(byte_tokenizer):
    file = json.loads(byte_tokenizer.backend_tokenizer.to_str())
    assert file["model"]["vocab"].pop("Ċ") is not None
    file["model"]["merges"] = []
    file["model"]["vocab"] = {
        token: file["model"]["vocab"][token] for token in file["model"]["vocab"] if len(token) == 1
    }
    backend = Tokenizer.from_str(json.dumps(file))
    assert not words.cuts_at_spaces(PreTrainedTokenizerFast(tokenizer_object=backend))
