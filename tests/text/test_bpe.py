"""Our BPE learns what tokenizers' trainer learns: the same words, the same merges, in the same order."""

import json
import random
from collections import Counter
from itertools import pairwise
from math import log2

import pytest
from conftest import ROOT
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from gpt2_korean.text import bpe
from gpt2_korean.text.vocabulary import END_OF_TEXT, TILE, byte_alphabet, train_tokenizer, wrap

STAND_INS = {byte: chr(point) for point, byte in byte_alphabet().items()}
BYTES = sorted(STAND_INS, key=STAND_INS.get)  # by their ids

# Few letters, so that there are ties and runs; white space of Unicode, of Python alone, and what is neither.
ALPHABETS = [
    "ab",
    "abc ",
    "ㅋㅎ ",
    "가나다 .",
    "it's we're 'll ",
    "a \n\t",
    "a \x1c\x1f\x85\xa0\u3000\0b1",
    "é한😀語٣ \u2028",
]


def by_tokenizers(texts, size, marks=()):
    """The independent reference."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT, *marks],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        continuing_subword_prefix="",
        end_of_word_suffix="",
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def parts(tokenizer):
    """The vocabulary, token → id, and the merges, pairs of tokens."""
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], list(map(tuple, model["merges"]))


def slowly(words, most, least=2):
    """All pairs counted anew for each merge, also where tokenizers miscounts them."""
    tokens = [bytes([byte]) for byte in BYTES]
    spelt, merges = {word: [BYTES.index(byte) for byte in word] for word in words}, []
    while len(tokens) < 256 + most:
        counts = Counter()
        for word, ids in spelt.items():
            for pair in pairwise(ids):
                counts[pair] += words[word]
        pair, count = min(counts.items(), key=lambda item: (-item[1], item[0]), default=((), 0))
        if count < least:
            break
        token = tokens[pair[0]] + tokens[pair[1]]
        merges.append((tokens[pair[0]], tokens[pair[1]]))
        assert token not in tokens  # none is made of two pairs
        tokens.append(token)
        for ids in spelt.values():
            for place in range(len(ids)):
                if tuple(ids[place : place + 2]) == pair:
                    ids[place : place + 2] = [len(tokens) - 1]
    return merges


def random_texts(rng, alphabet):
    return ["".join(rng.choices(alphabet, k=rng.randint(0, 30))) for _ in range(rng.randint(1, 40))]


@pytest.mark.parametrize(("size", "marks"), [(384, ()), (1024, ("<|user|>", "<|bot|>")), (2048, ())])
def test_the_vocabulary_of_the_sample_is_that_of_tokenizers(size, marks):
    texts = (ROOT / "data" / "korean_texts.txt").read_text("utf-8").split("\n\n")
    expected = wrap(64, tokenizer_object=by_tokenizers(texts, size, marks))
    assert train_tokenizer(texts, size, 64, marks).backend_tokenizer.to_str() == expected.backend_tokenizer.to_str()


def test_a_short_text_gives_the_whole_tiles_of_the_tokens_that_tokenizers_finds_in_it():
    rng = random.Random(0)
    texts = ["".join(rng.choices("가나다라마바사 ", k=60)) for _ in range(100)]
    found = by_tokenizers(texts, 4096).get_vocab_size()
    learnt = train_tokenizer(texts, 4096, 64)
    assert 384 < len(learnt) == found // TILE * TILE < found
    assert parts(learnt.backend_tokenizer) == parts(by_tokenizers(texts, len(learnt)))


@pytest.mark.parametrize("letters", ALPHABETS)
def test_random_texts_give_the_merges_of_tokenizers(letters):
    rng, compared = random.Random(letters), 0
    for _ in range(25):
        texts, most = random_texts(rng, letters), rng.randint(1, 60)
        words = {word.encode(): count for word, count in bpe.count_words(texts).items()}
        merges = bpe.learn_merges(words, most, BYTES)
        assert merges == slowly(words, most), texts
        vocabulary, expected = parts(by_tokenizers(texts, 257 + most))
        if len(vocabulary) == 257 + len(expected):
            assert [tuple("".join(STAND_INS[byte] for byte in half) for half in pair) for pair in merges] == expected
            compared += len(merges) > 5
    assert compared > 10


def test_words_are_cut_as_tokenizers_cuts_them():
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    points = [*range(0x530), *range(0x1100, 0x1200), *range(0x2000, 0x2070), *range(0x3000, 0x3200)]
    for point in [*points, *range(0xAC00, 0xD7A4), *range(0xFF00, 0xFFF0), *range(0x1F300, 0x1F650)]:
        text = "a{0}1{0}{0}! {0} 가{0} \n{0}ㄱ's ".format(chr(point))
        assert bpe.count_words([text]) == Counter(text[begin:end] for _, (begin, end) in cut(text)), hex(point)


def test_a_word_never_reaches_from_one_text_to_the_next():
    assert bpe.count_words(["가 ", " 나", "나"]) == {"가": 1, " ": 1, " 나": 1, "나": 1}


def test_one_endless_word_and_no_word_are_learnt():
    twice = int(log2(300_000 / 2))  # so often can what occurs at least twice be doubled
    assert len(train_tokenizer(["가" * 300_000], 384, 64)) == 257 + 2 + twice
    assert len(train_tokenizer([], 384, 64)) == len(train_tokenizer(["가"], 384, 64)) == 257
