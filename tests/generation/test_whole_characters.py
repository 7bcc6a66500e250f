"""No broken character is ever written: the automaton against Python's own strict decoder."""

import copy

import pytest
import torch
from conftest import ROOT, tiny_gpt2
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Tokenizer, PreTrainedTokenizerFast

from gpt2_korean.generation import whole_characters
from gpt2_korean.generation.library_decoder import LibraryDecoder
from gpt2_korean.generation.loop import generate_ids
from gpt2_korean.generation.sampling import Sampling
from gpt2_korean.text.vocabulary import token_bytes

GPT2_FILES = ROOT.parent / "shared" / "gpt2-tokenizer"


def random_bytes(rng):
    """Bytes that are often, and often nearly, UTF-8."""
    characters = "".join(
        chr(rng.choice([65, 0xE9, 0x7FF, 0x800, 0xAC00, 0xD7FF, 0xE000, 0xFFFD, 0x10000, 0x10FFFF])) for _ in range(4)
    )
    data = bytearray(characters.encode())
    for _ in range(rng.randint(0, 3)):
        data[rng.randrange(len(data))] = rng.choice(
            [0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xE0, 0xED, 0xEF, 0xF0, 0xF4, 0xF5, 0xFF]
        )
    return bytes(data[: rng.randint(1, len(data))])


COMPLETIONS = [b"", b"\x80", b"\x80\x80", b"\x80\x80\x80", b"\xa0\x80", b"\x90\x80\x80"]


def is_whole(data):
    try:
        return "\ufffd" not in data.decode("utf-8")
    except UnicodeDecodeError:
        return False


def python_says(data):
    """(some bytes make it valid text without U+FFFD, it is that already), by Python's strict decoder.

    Its incremental decoder is no judge: it keeps a surrogate's first two bytes waiting.
    """
    return any(is_whole(data + completion) for completion in COMPLETIONS), is_whole(data)


def test_the_automaton_agrees_with_pythons_decoder(rng):
    table = whole_characters.byte_transitions()
    seen = set()
    for _ in range(20_000):
        data = random_bytes(rng)
        state = whole_characters.START
        for byte in data:
            state = table[state, byte]
        valid, whole = python_says(data)
        seen.add((valid, whole))
        assert (state != whole_characters.INVALID) == valid, data
        assert (state == whole_characters.START) == whole, data
    assert seen == {(False, False), (True, False), (True, True)}


def test_every_state_ends_in_as_many_bytes_as_it_says():
    table = whole_characters.byte_transitions()
    for state in range(whole_characters.STATES):
        distance, reached = 0, {state}
        while whole_characters.START not in reached:
            reached = {int(after) for before in reached for after in table[before]} - {whole_characters.INVALID}
            distance += 1
        assert distance == whole_characters.BYTES_LEFT[state]


def words_and_bytes():
    """A tokenizer as Llama's and Gemma's: tokens of words, and one for each byte of what they lack."""
    tokens = ["</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "가", "나", "▁다"]
    words = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, [], byte_fallback=True))
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    words.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>")


def open_tokenizer(name, byte_tokenizer):
    if name == "own":
        return byte_tokenizer
    if name == "words and bytes":
        return words_and_bytes()
    if not GPT2_FILES.exists():
        pytest.skip("GPT-2's own tokenizer is not here")
    return GPT2Tokenizer.from_pretrained(GPT2_FILES)


@pytest.fixture(params=["own", "gpt2"])
def byte_level(request, byte_tokenizer):
    return open_tokenizer(request.param, byte_tokenizer)


@pytest.fixture(params=["own", "gpt2", "words and bytes"])
def tokenizer(request, byte_tokenizer):
    return open_tokenizer(request.param, byte_tokenizer)


def test_token_bytes_are_those_that_the_tokenizer_writes(byte_level, rng):
    pieces = token_bytes(byte_level)
    for _ in range(200):
        text = "".join(chr(rng.choice([rng.randrange(1, 0xD800), rng.randrange(0xE000, 0x110000)])) for _ in range(10))
        ids = byte_level(text)["input_ids"]
        assert b"".join(pieces[index] for index in ids) == text.encode()


def test_of_tokens_that_were_added_those_that_are_written_have_the_bytes_of_their_name(byte_tokenizer):
    tokenizer = copy.deepcopy(byte_tokenizer)
    tokenizer.add_tokens(["ㅋㅋㅋ"])
    tokenizer.add_tokens(["<bot>"], special_tokens=True)
    assert token_bytes(tokenizer)[len(byte_tokenizer) :] == ["ㅋㅋㅋ".encode(), None]


def test_tables_agree_with_pythons_decoder_for_every_token(tokenizer, rng):
    pieces = token_bytes(tokenizer) or whole_characters.fallback_bytes(tokenizer)
    tables = whole_characters.build_tables(tokenizer, len(tokenizer) + 7)
    allowed = tables.allowed.unflatten(0, (4, whole_characters.STATES))
    prefixes = [
        b"",
        b"\xc3",
        b"\xed\x95",
        b"\xf0\x9f\x98",
        b"\xe0",
        b"\xed",
        b"\xef",
        b"\xef\xbf",
        b"\xf0",
        b"\xf4",
        b"\xf1",
    ]
    automaton = whole_characters.byte_transitions()
    for prefix in prefixes:
        state = whole_characters.START
        for byte in prefix:
            state = int(automaton[state, byte])
        for index in rng.sample(range(len(tokenizer)), min(300, len(tokenizer))):
            if pieces[index] is None:
                assert bool(allowed[3, state, index]) == (prefix == b"")
            else:
                valid, whole = python_says(prefix + pieces[index])
                assert bool(allowed[3, state, index]) == valid
                assert bool(allowed[0, state, index]) == whole
    assert not allowed[:, :, len(tokenizer) :].any()
    assert allowed[torch.arange(4), [0, 1, 2, 3]].any(-1).all()


def test_other_tokenizers_pass_through():
    words = Tokenizer(models.BPE(vocab={"▁가": 0, "나": 1}, merges=[]))
    words.pre_tokenizer, words.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    assert whole_characters.build_tables(PreTrainedTokenizerFast(tokenizer_object=words), 2) is None
    few = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    few.decoder = decoders.ByteLevel()
    assert whole_characters.build_tables(PreTrainedTokenizerFast(tokenizer_object=few), 2) is None


@pytest.mark.parametrize("length", [1, 2, 3, 4, 25])
def test_an_untrained_model_writes_whole_characters_alone(tokenizer, length):
    model = tiny_gpt2(len(tokenizer) + 5, initializer_range=0.02)
    tables = whole_characters.build_tables(tokenizer, len(tokenizer) + 5)
    torch.manual_seed(length)
    wild, decoder = Sampling(temperature=1.5), LibraryDecoder(model)
    number = max(80, 600 // length)  # so that without the mask some surely break
    rows = generate_ids(decoder, [[0]] * number, length, wild, tokenizer.eos_token_id, utf8=tables)
    texts = [tokenizer.decode(row, clean_up_tokenization_spaces=False) for row in rows]
    assert not any("\ufffd" in text for text in texts)
    assert sum(map(len, rows)) > 0.75 * number * length  # and it does write
    free = generate_ids(decoder, [[0]] * number, length, wild, tokenizer.eos_token_id)
    assert any("\ufffd" in tokenizer.decode(row) for row in free)


def test_a_model_that_would_write_valid_text_is_left_alone(byte_tokenizer):
    """The mask changes nothing where the likeliest token is allowed: greedy ids stay the same."""
    model = tiny_gpt2(len(byte_tokenizer))
    greedy = Sampling(temperature=0)
    pieces = token_bytes(byte_tokenizer)
    with torch.no_grad():  # leave the model nothing but whole characters to like
        whole = [index for index, piece in enumerate(pieces) if piece and python_says(piece)[1]]
        others = [index for index in range(len(byte_tokenizer)) if index not in whole]
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
        model.lm_head.weight[others] = 0.0
    prompts = [[index] for index in whole[:20]]
    tables = whole_characters.build_tables(byte_tokenizer, len(byte_tokenizer))
    decoder = LibraryDecoder(model)
    assert generate_ids(decoder, prompts, 8, greedy, -1, utf8=tables) == generate_ids(decoder, prompts, 8, greedy, -1)
