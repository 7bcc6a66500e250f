"""What is trained here begins texts with the end-of-text token, as its documents do, whoever reads its tokenizer."""

import json
from types import SimpleNamespace

import pytest
import torch
from conftest import read_to_write, save_kogpt2, save_tiny_gpt2
from datasets import Dataset
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer, pipeline

from gpt2_korean.generation.loop import generate_ids
from gpt2_korean.generation.sampling import Sampling
from gpt2_korean.model.load import load_pretrained
from gpt2_korean.model.prepare import prepare_model
from gpt2_korean.text.chat_template import encode_turns, prepare_tokenizer
from gpt2_korean.text.prompts import encode_prompt
from gpt2_korean.text.tokens import vocabulary_of
from gpt2_korean.text.vocabulary import train_tokenizer

PLAIN = Dataset.from_list([{"text": "가"}])
CHATS = Dataset.from_list([{"turns": [{"role": "user", "content": "가"}]}])
TURNS = [{"role": "user", "content": "오늘은 어때?"}, {"role": "assistant", "content": "좋아"}]
TEXTS = ["오늘은 날씨가", "", "<|endoftext|>가", "\n가나다 😀"]
START = SimpleNamespace(checkpoint=None)


def ours(folder, texts):
    save_tiny_gpt2(folder, train_tokenizer(texts[:40], 640, 32))


def gpt2_from_elsewhere(folder, texts):
    """Whose tokenizer transformers rebuilds by the class that its config names."""
    ours(folder, texts)
    (folder / "tokenizer_config.json").unlink()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(params=[ours, gpt2_from_elsewhere, save_kogpt2])
def source(request, tmp_path, sample_texts):
    folder = tmp_path / "source"
    folder.mkdir()
    request.param(folder, sample_texts)
    return folder


@pytest.fixture(params=[PLAIN, CHATS], ids=["texts", "conversations"])
def trained(request, source, tmp_path):
    """`(tokenizer, folder)` as train.py leaves them, saved a second time from what was read the first time."""
    model, tokenizer = load_pretrained(source, torch.float32)
    added = prepare_tokenizer(tokenizer, request.param)
    model = prepare_model(model, tokenizer, tokenizer, added, None, None, START, SimpleNamespace(lora_rank=0))
    for folder in (tmp_path / "once", tmp_path / "twice"):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        model, tokenizer = load_pretrained(folder, torch.float32)
        assert prepare_tokenizer(tokenizer, request.param) == []
    once, twice = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.name != "tokenizer_config.json"}
        for name in ("once", "twice")
    )
    assert once == twice
    return tokenizer, folder


def test_every_reader_of_its_files_begins_with_the_end_of_text(trained):
    tokenizer, folder = trained
    auto, raw = AutoTokenizer.from_pretrained(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    settings, config = (json.loads((folder / f"{name}.json").read_text()) for name in ("tokenizer_config", "config"))
    end = tokenizer.eos_token_id
    assert settings["bos_token"] == settings["eos_token"] == tokenizer.eos_token
    assert config["bos_token_id"] == config["eos_token_id"] == end == auto.bos_token_id == auto.eos_token_id
    for text in TEXTS:
        plain = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        for encoder in (tokenizer, auto, raw):
            assert encode_prompt(text, encoder, end) == [end, *plain]
            assert encoder.decode([end, *plain], skip_special_tokens=True) == encoder.decode(
                plain, skip_special_tokens=True
            )
        if "<|" not in text:
            assert auto(text)["input_ids"] == [end, *plain]
    assert vocabulary_of(auto) == vocabulary_of(tokenizer)


def write(folder, prompts):
    """What our writer writes greedily after each of `prompts`."""
    model, _ = load_pretrained(folder, torch.float32)
    read = read_to_write(folder, allow_invalid_utf8=True)
    for prompt in prompts:
        ids = encode_prompt(prompt, read.tokenizer, read.eos_token_id)
        (new,) = generate_ids(read.decoder, [ids], 8, Sampling(temperature=0.0), read.eos_token_id)
        reference = model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)[0, len(ids) :].tolist()
        assert new == reference[: len(new)]
        yield read.tokenizer.decode(new, skip_special_tokens=True)


def test_a_pipeline_writes_what_our_writer_does_and_takes_messages(trained):
    tokenizer, folder = trained
    prompts = ["오늘은", "나무 그늘"]
    pipe = pipeline("text-generation", model=str(folder), dtype=torch.float32, device="cpu")
    greedy = {"max_new_tokens": 8, "do_sample": False, "return_full_text": False}
    for prompt, text in zip(prompts, write(folder, prompts), strict=True):
        assert pipe(prompt, **greedy)[0]["generated_text"] == text
    if tokenizer.chat_template is None:
        return
    ids = [tokenizer.bos_token_id, *encode_turns(TURNS[:1], tokenizer, opens_answer=True)[0]]
    answer = pipe.model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)[0, len(ids) :]
    assert pipe(TURNS[:1], **greedy)[0]["generated_text"] == tokenizer.decode(answer, skip_special_tokens=True)


def test_measuring_a_model_and_loading_it_change_nothing(source):
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    _, tokenizer = load_pretrained(source, torch.float32)
    assert tokenizer("오늘")["input_ids"] == tokenizer("오늘", add_special_tokens=False)["input_ids"]
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before


def test_a_vocabulary_is_told_apart_by_its_words_alone(byte_tokenizer, sample_texts):
    tokenizer, other = (train_tokenizer(sample_texts[:40], size, 32) for size in (640, 512))
    same = vocabulary_of(byte_tokenizer)
    assert vocabulary_of(tokenizer) == same != vocabulary_of(other)
    prepare_tokenizer(tokenizer, PLAIN)
    assert vocabulary_of(tokenizer) == same
    prepare_tokenizer(tokenizer, CHATS)
    assert vocabulary_of(tokenizer) != same
