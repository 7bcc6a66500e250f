"""tiktoken encodes only what it surely encodes as tokenizers does, and each document has the ids that it has alone."""

from itertools import pairwise

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from gpt2_korean.text import tokens
from gpt2_korean.text.chat_template import encode_conversations, encode_texts, prepare_tokenizer
from gpt2_korean.text.encoding import MOST_THREADS, encode_joined, in_threads, same_encoding
from gpt2_korean.text.vocabulary import byte_alphabet, train_tokenizer

END = "<|endoftext|>"
# What stands between words or is part of one by the tables of Unicode; and all of its planes, unassigned ones as well.
ODD = (
    " \t\n\x85\xa0\u180e\u200b\u200d\u2028\u3000\ufeff'sStTdDlLvVeErR01²½٣一가힣각ㄱA.!?…\xad\u0301\ufe0f😀🇰\U000e0101"
)
ANYTHING = st.text(st.one_of(st.sampled_from(ODD), st.characters(exclude_characters="\0", exclude_categories=["Cs"])))


def tokenizer_of(merges, **settings):
    """As GPT-2's, of `merges` in their order. settings: what models.BPE takes."""
    names = [END, *map(chr, byte_alphabet()), *dict.fromkeys(left + right for left, right in merges)]
    backend = Tokenizer(models.BPE(vocab={name: index for index, name in enumerate(names)}, merges=merges, **settings))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END)


def one_by_one(texts, tokenizer):
    return [[*ids, tokenizer.eos_token_id] for ids in encode_texts(texts, tokenizer)]


def documents_of(ids, lengths):
    ends = [0, *np.cumsum(lengths).tolist()]
    return [ids[start:stop].tolist() for start, stop in pairwise(ends)]


def table(texts, turns=None):
    turns = turns or [[]] * len(texts)
    rows = [{"text": text, "length": len(text), "turns": own} for text, own in zip(texts, turns, strict=True)]
    return datasets.Dataset.from_list(rows)


@given(texts=st.lists(ANYTHING, max_size=20))
def test_each_of_many_texts_has_the_ids_that_it_has_by_itself(texts, byte_tokenizer):
    ids, lengths, learnt = encode_joined(texts, same_encoding(byte_tokenizer))
    assert documents_of(ids, lengths) == one_by_one(texts, byte_tokenizer)
    assert ids.dtype == lengths.dtype == np.int32 and learnt is None


def test_text_that_it_learnt_from_has_the_same_ids(sample_texts):
    tokenizer = train_tokenizer(sample_texts, 2048, 32, marks=["<|user|>"])
    ids, lengths, _ = encode_joined(sample_texts, same_encoding(tokenizer))
    assert documents_of(ids, lengths) == one_by_one(sample_texts, tokenizer)


def test_merges_that_are_not_proper_are_left_to_tokenizers(rng):
    refused = accepted = 0
    for _ in range(150):
        names, merges = list("abc"[: rng.randint(1, 3)]), []
        letters = list(names)
        for _ in range(rng.randint(1, 8)):
            left, right = rng.choice(names), rng.choice(names)
            if len(left + right) < 10 and (left + right not in names or not rng.randrange(10)):
                merges.append((left, right))
                names.append(left + right)
        if not rng.randrange(5):
            rng.shuffle(merges)
        tokenizer = tokenizer_of(merges)
        texts = ["".join(rng.choices(letters, k=rng.choice([5, 12, 120]))) for _ in range(20)]
        encoding = same_encoding(tokenizer)
        refused, accepted = refused + (encoding is None), accepted + (encoding is not None)
        if encoding is not None:
            ids, lengths, _ = encode_joined(texts, encoding)
            assert documents_of(ids, lengths) == one_by_one(texts, tokenizer), merges
        (row,) = tokens.token_rows(table(texts), tokenizer, False)
        assert documents_of(row["ids"], row["lengths"]) == one_by_one(texts, tokenizer), merges
    assert refused > 30 and accepted > 30


@pytest.mark.parametrize(
    "merges",
    [
        [("a", "b"), ("b", "c"), ("c", "d"), ("a", "bc"), ("ab", "cd")],  # abc comes down to ab and c
        [("a", "b"), ("ab", "c"), ("b", "c"), ("a", "bc")],  # abc twice
        [("ab", "c"), ("a", "b")],  # before its own part
    ],
)
def test_a_token_that_is_made_in_another_way_than_its_merge_is_refused(merges):
    assert same_encoding(tokenizer_of(merges)) is None
    assert same_encoding(tokenizer_of([("a", "b"), ("ab", "c"), ("c", "d")])) is not None


def test_a_token_that_no_merge_makes_is_refused():
    backend = tokenizer_of([("a", "b")]).backend_tokenizer
    vocabulary = {**backend.get_vocab(), "xyz": 258}
    backend.model = models.BPE(vocab=vocabulary, merges=[("a", "b")])
    assert same_encoding(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END)) is None


def test_what_is_not_as_gpt2s_is_left_to_tokenizers():
    merges = [("a", "b"), ("ab", "c")]
    assert same_encoding(tokenizer_of(merges)) is not None
    for settings in ({"dropout": 0.1}, {"ignore_merges": True}, {"end_of_word_suffix": "c"}):
        assert same_encoding(tokenizer_of(merges, **settings)) is None
    for change in (
        {"normalizer": normalizers.NFKC()},
        {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True)},
        {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)},
        {"pre_tokenizer": pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(False)])},
        {"pre_tokenizer": pre_tokenizers.Whitespace()},
    ):
        tokenizer = tokenizer_of(merges)
        for name, value in change.items():
            setattr(tokenizer.backend_tokenizer, name, value)
        assert same_encoding(tokenizer) is None
    tokenizer = tokenizer_of(merges)
    tokenizer.add_tokens([AddedToken("서울", special=False)])
    assert same_encoding(tokenizer) is None and same_encoding(ByT5Tokenizer()) is None


def test_texts_that_cannot_be_joined_or_cut_are_left_to_tokenizers(byte_tokenizer):
    encoding = same_encoding(byte_tokenizer)
    for odd in ("가\0나", "\0", " \n" * 550_000 + "가"):
        texts = ["앞", odd, "뒤"]
        assert encode_joined(texts, encoding) is None
        (row,) = tokens.token_rows(table(texts), byte_tokenizer, False)
        assert documents_of(row["ids"], row["lengths"]) == one_by_one(texts, byte_tokenizer)


def test_long_words_are_merged_whole(byte_tokenizer, rng):
    letters = "".join(chr(rng.randrange(0xAC00, 0xD7A4)) for _ in range(50_000))
    texts = [
        "a" * 100_000,
        letters,
        "가" * 50_000,
        "!" * 100_000,
        " " * 100_000,
        "\n" * 100_000 + "a",
        "\u3000" * 99_999,
    ]
    ids, lengths, _ = encode_joined(texts, same_encoding(byte_tokenizer))
    assert documents_of(ids, lengths) == one_by_one(texts, byte_tokenizer)


@pytest.mark.parametrize("all_learnt", [False, True])
def test_texts_and_conversations_stay_in_their_order(all_learnt, sample_texts, rng, monkeypatch):
    texts, turns = rng.sample(sample_texts, 60), [[] for _ in range(60)]
    for number in [*range(20, 25), *rng.sample(range(60), 10)]:
        half = texts[number][:20].strip()
        turns[number] = [{"role": "user", "content": half}, {"role": "assistant", "content": f"{half}?"}]
    documents, tokenizer = table(texts, turns), train_tokenizer(sample_texts[:40], 640, 32)
    prepare_tokenizer(tokenizer, documents)
    assert same_encoding(tokenizer) is not None
    expected, learnt = [], []
    for text, own in zip(texts, turns, strict=True):
        if own:
            ids, flags = encode_conversations([own], tokenizer)[0]
            assert ids[-1] == tokenizer.eos_token_id
        else:
            (ids,) = one_by_one([text], tokenizer)
            flags = [True] * len(ids)
        expected.append(ids)
        learnt.append([1] * len(ids) if all_learnt else list(map(int, flags)))
    monkeypatch.setattr(tokens, "BATCH", 4)
    monkeypatch.setattr(tokens, "ROW", 200)
    rows, at = list(tokens.token_rows(documents, tokenizer, all_learnt)), 0
    assert len(rows) > 5 and sum(len(row["learnt"]) > 0 for row in rows) in ([0] if all_learnt else range(2, len(rows)))
    for row in rows:
        own = documents_of(row["ids"], row["lengths"])
        flags = row["learnt"] if len(row["learnt"]) else np.ones(len(row["ids"]), int)
        assert own == expected[at : at + len(own)]
        assert documents_of(flags, row["lengths"]) == learnt[at : at + len(own)]
        at += len(own)
    assert at == 60


def test_items_come_in_their_order_and_few_are_computed_ahead():
    taken = []
    items = (taken.append(number) or number for number in range(100))
    for count, (number, square) in enumerate(in_threads(lambda number: number**2, items)):
        assert (number, square) == (count, count**2)
        assert len(taken) <= count + 2 * MOST_THREADS + 1
    assert len(taken) == 100 and list(in_threads(str, [])) == []


def test_what_fails_ahead_is_raised_in_its_turn():
    results = in_threads(lambda number: 1 // (number - 3), range(10))
    assert [next(results) for _ in range(3)] == [(0, -1), (1, -1), (2, -1)]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_of_a_stream_nothing_is_read_ahead(byte_tokenizer, monkeypatch):
    def read():
        for number in range(50):
            taken.append(number)
            yield {
                "text": "가나다라",
                "turns": [],
                "blank": 0,
                "composed": 0,
                "line_ends": 0,
                "controls": 0,
                "broken": 0,
            }

    taken = []
    monkeypatch.setattr(tokens, "BATCH", 1)
    monkeypatch.setattr(tokens, "ROW", 1)
    rows = tokens.token_rows(datasets.IterableDataset.from_generator(read), byte_tokenizer, False)
    next(rows)
    assert len(taken) <= 2
