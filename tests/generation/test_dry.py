"""DRY is the method that text-generation-webui and llama.cpp know by that name: compared with one in plain Python."""

import random
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_gpt2
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from gpt2_korean.cli.generate_options import parse_generate_options
from gpt2_korean.generation.decoder import GPT2Decoder
from gpt2_korean.generation.dry import LONGEST, find_breakers, penalize_continued_repeats
from gpt2_korean.generation.library_decoder import LibraryDecoder
from gpt2_korean.generation.load import load
from gpt2_korean.generation.loop import generate_ids
from gpt2_korean.generation.sampling import Sampling
from gpt2_korean.generation.write import encode, stream_pieces

VOCABULARY = 12
DRY = Sampling(temperature=0, dry_multiplier=5.0, dry_base=2.0)
CPU = torch.device("cpu")


def plainly(logits, tokens, breakers, multiplier, base, allowed_length, last_n=0):
    """The logits of one row, a list, less what DRY takes from them; tokens: a list, breakers: a set."""
    tokens, longest = tokens[-last_n:], {}
    for place, token in list(enumerate(tokens))[1:]:
        repeated = 0
        while repeated < min(place, LONGEST):
            if tokens[place - 1 - repeated] != tokens[-1 - repeated] or tokens[-1 - repeated] in breakers:
                break
            repeated += 1
        if repeated >= allowed_length and token not in breakers:
            longest[token] = max(repeated, longest.get(token, 0))
    return [
        logit - min(multiplier * base ** (longest[token] - allowed_length), 1e30) if token in longest else logit
        for token, logit in enumerate(logits)
    ]


def random_row(rng, longest):
    """Tokens that repeat themselves, by chance and in long stretches."""
    row = [rng.randrange(VOCABULARY) for _ in range(rng.randint(1, 20))]
    while rng.random() < 0.8:
        start = rng.randrange(len(row))
        row += row[start : start + rng.randint(1, 80)] * rng.randint(1, 3)
    return row[-rng.randint(1, longest) :]


def pad(rows, width):
    return torch.tensor([[-1] * (width - len(row)) + row for row in rows])


def as_mask(breakers, size=VOCABULARY):
    return torch.zeros(size, dtype=torch.bool).index_fill(0, torch.tensor(sorted(breakers), dtype=torch.long), True)


def test_scores_equal_those_of_the_plain_method_on_random_histories(rng):
    for _ in range(300):
        rows = [random_row(rng, longest=rng.choice([5, 200])) for _ in range(rng.randint(1, 4))]
        width = max(map(len, rows)) + rng.choice([0, 1, 60])
        breakers = set(rng.sample(range(VOCABULARY), rng.choice([0, 0, 1, 3])))
        logits = torch.randn(len(rows), VOCABULARY)
        logits[rng.randrange(len(rows)), rng.randrange(VOCABULARY)] = -torch.inf
        strength = (rng.uniform(0.01, 5), rng.choice([1.0, 1.75, 4.0, 90.0]), rng.choice([1, 2, 2, 7, 60]))
        last_n = rng.choice([0, 0, 1, rng.randint(2, 100)])
        ours = penalize_continued_repeats(logits, pad(rows, width), as_mask(breakers), *strength, last_n)
        plain = [plainly(*each, breakers, *strength, last_n) for each in zip(logits.tolist(), rows, strict=True)]
        torch.testing.assert_close(ours, torch.tensor(plain), rtol=1e-4, atol=1e-4)
        assert ours.isfinite().equal(logits.isfinite())


def test_by_hand_the_longest_repetition_of_a_token_counts_and_breakers_end_one():
    a, b, c, d = range(4)
    row, logits = [a, b, c, d, b, c, a, a, b, c], torch.zeros(1, 5)

    def penalties(*breakers):
        mask = as_mask(breakers, 5)
        return (-penalize_continued_repeats(logits, torch.tensor([row]), mask, 0.8, 1.75, 2)[0]).tolist()

    assert penalties() == pytest.approx([0.8, 0, 0, 0.8 * 1.75, 0])  # `b c` before a, `a b c` before d
    assert penalties(a) == pytest.approx([0, 0, 0, 0.8, 0])
    assert penalties(b) == penalties(c) == [0] * 5


def test_what_comes_from_a_repetition_of_any_length_is_a_number():
    loop = torch.zeros(1, 400, dtype=torch.long)
    scores = penalize_continued_repeats(torch.zeros(1, 3), loop, as_mask([], 3), 1e9, 1e9, 1)
    assert scores.isfinite().all() and scores[0].tolist()[1:] == [0, 0] and scores[0, 0] < -1e29


@pytest.fixture(scope="module")
def model():
    return tiny_gpt2(VOCABULARY, n_positions=100)


def write_plainly(model, prompt, length, breakers, allowed_length=DRY.dry_allowed_length):
    """Greedy ids with DRY, each by a forward pass over all before it."""
    ids = list(prompt)
    for _ in range(length):
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0, -1].tolist()
        logits = plainly(logits, ids, breakers, DRY.dry_multiplier, DRY.dry_base, allowed_length)
        ids.append(max(range(len(logits)), key=logits.__getitem__))
    return ids[len(prompt) :]


@pytest.fixture(scope="module")
def plain_texts(model):
    """Breakers, prompts and what is written plainly after each prompt: once for all decoders."""
    rng, texts = random.Random(0), []
    for breakers in ({}, {3}, {1, 2, 3}, {}):
        prompts = [[rng.randrange(VOCABULARY) for _ in range(rng.randint(1, 30))] for _ in range(4)]
        texts.append((breakers, prompts, [write_plainly(model, prompt, 60, breakers) for prompt in prompts]))
    return texts


@pytest.mark.parametrize("way", ["library", "gpt2", "captured"])
def test_greedy_texts_are_those_of_the_plain_method_alone_and_in_a_batch(model, plain_texts, monkeypatch, way):
    """A replay stands in for a device's graph."""

    def record(work, device, before):
        return SimpleNamespace(replay=work), None

    monkeypatch.setattr("gpt2_korean.generation.loop.record_graph", record)
    weights = model.config.to_dict(), dict(model.state_dict()), CPU, torch.float32
    decoder = LibraryDecoder(model) if way == "library" else GPT2Decoder(*weights, captures=way == "captured")
    differs = False
    for breakers, prompts, plain in plain_texts:
        mask = as_mask(breakers)
        assert generate_ids(decoder, prompts, 60, DRY, -1, breakers=mask) == plain
        assert [generate_ids(decoder, [prompt], 60, DRY, -1, breakers=mask)[0] for prompt in prompts] == plain
        differs |= plain != generate_ids(decoder, prompts, 60, Sampling(temperature=0), -1)
    assert differs


def test_breakers_are_the_tokens_with_them_inside_and_the_last_of_those_that_write_them(chat_tokenizer):
    size, special = len(chat_tokenizer) + 5, set(chat_tokenizer.added_tokens_decoder)
    for tokenizer in (chat_tokenizer, chat_tokenizer.backend_tokenizer):
        found = find_breakers(tokenizer, ("\n", "다", "힣"), size)
        assert found.shape == (size,) and not found[len(chat_tokenizer) :].any()
        last = chat_tokenizer("a힣", add_special_tokens=False)["input_ids"][-1]
        for index in range(len(chat_tokenizer)):
            token = chat_tokenizer.decode([index])
            expected = "\n" in token or "다" in token or index in special | {last}
            assert found[index] == expected, token
        none = find_breakers(tokenizer, ("none",), size)
        assert none.nonzero()[:, 0].tolist() == sorted(special)


def test_a_vocabulary_that_is_not_byte_level_has_breakers_too():
    words = Tokenizer(models.WordLevel({"<unk>": 0, "가": 1, ":": 2, "a": 3, "<end>": 4}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.add_special_tokens([AddedToken("<end>", special=True)])
    assert find_breakers(words, (":",), 5).tolist() == [False, False, True, False, True]


def test_the_breakers_that_flags_ask_for_are_those_that_texts_are_written_with(tmp_path, byte_tokenizer):
    model, prompts, length = tiny_gpt2(len(byte_tokenizer), n_positions=100), ["오늘은", "나는 그 사람을 "], 30
    model.save_pretrained(tmp_path)
    byte_tokenizer.save_pretrained(tmp_path)
    words = [f"--model_name_or_path={tmp_path}", "--device=cpu", "--dtype=float32", "--engine=torch", "--temperature=0"]
    words += [
        "--allow_invalid_utf8",
        "--token_healing=false",
        f"--length={length}",
        "--dry_multiplier=5",
        "--dry_base=2",
    ]
    loaded, _ = load(tmp_path, parse_generate_options(words).model)
    end, seen = byte_tokenizer.eos_token_id, []
    tokens = {index: byte_tokenizer.decode([index]) for index in range(model.config.vocab_size)}
    for asked in (["none"], ["했"], ["했", "나"]):
        flags = ["--dry_allowed_length=1", *(f"--dry_sequence_breaker={text}" for text in asked)]
        settings = parse_generate_options(words + flags).settings
        steps = [rows for _, rows in stream_pieces(loaded, prompts, settings, 1, print)]
        written = [[index for piece in row for index in piece.ids] for row in zip(*steps, strict=True)]
        breakers = {end} | {index for index, token in tokens.items() if any(text in token for text in asked)}
        plain = [write_plainly(model, encode(loaded, prompt), length, breakers, 1) for prompt in prompts]
        assert written == [ids[: [*ids, end].index(end)] for ids in plain]
        assert written not in seen
        seen.append(written)
