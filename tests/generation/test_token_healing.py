"""A prompt is gone on with as if its last token had not been settled yet, and what it says stays as it was typed."""

import json
import random
from dataclasses import replace

import pytest
import torch
from conftest import save_kogpt2, save_tiny_gpt2, tiny_gpt2, words_of_kogpt2
from transformers import AutoModelForCausalLM

from generate import main
from gpt2_korean.cli.generate_options import parse_generate_options
from gpt2_korean.generation.library_decoder import LibraryDecoder
from gpt2_korean.generation.load import load
from gpt2_korean.generation.loop import generate_ids
from gpt2_korean.generation.sampling import Sampling
from gpt2_korean.generation.token_healing import heal
from gpt2_korean.generation.write import encode, stream_pieces
from gpt2_korean.text.vocabulary import token_bytes

GREEDY = ["--temperature=0", "--length=8", "--device=cpu", "--dtype=float32", "--engine=torch"]


def read(folder, *words):
    options = parse_generate_options([f"--model_name_or_path={folder}", *GREEDY, *words])
    return load(folder, options.model)[0], options.settings


def written(model, prompts, settings):
    """`(texts, ids)` after each of `prompts`."""
    texts, ids = [""] * len(prompts), [[] for _ in prompts]
    for _, pieces in stream_pieces(model, prompts, settings, 1, lambda _: None):
        texts = [text + piece.text for text, piece in zip(texts, pieces, strict=True)]
        ids = [row + piece.ids for row, piece in zip(ids, pieces, strict=True)]
    return texts, ids


@pytest.fixture(scope="module")
def folder(tmp_path_factory, byte_tokenizer):
    return save_tiny_gpt2(tmp_path_factory.mktemp("models"), byte_tokenizer, n_positions=64)


@pytest.fixture(scope="module")
def vocabulary(byte_tokenizer):
    """The bytes of each token, by id; b"" for one that is special."""
    return [piece or b"" for piece in token_bytes(byte_tokenizer)]


@pytest.fixture(scope="module")
def library(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def healed_by_hand(library, tokenizer, vocabulary, prompt, length):
    """`(the prompt's last token, new ids)` of the greedy text by transformers alone: the likeliest of all tokens that
    begin with the bytes of the prompt's last one, read after what stands before it, and then generate()'s."""
    *before, last = tokenizer(prompt)["input_ids"]
    fitting = [index for index, piece in enumerate(vocabulary) if piece.startswith(vocabulary[last])]
    if len(fitting) > 1:  # else it is the prompt's as it is
        before = before or [tokenizer.eos_token_id]
    with torch.inference_mode():
        scores = library(torch.tensor([before or [0]])).logits[0, -1]
        start = torch.tensor([[*before, max(fitting, key=lambda index: scores[index])]])
        ids = library.generate(start, attention_mask=torch.ones_like(start), do_sample=False, max_new_tokens=length)
    ids = ids[0, len(before) :].tolist()
    ids = [*ids, tokenizer.eos_token_id]
    ids = ids[: ids.index(tokenizer.eos_token_id)]
    return last, ids[:length] if len(fitting) > 1 else ids[1:]


def test_a_text_is_what_transformers_writes_after_the_likeliest_token_that_begins_as_the_last_one(
    folder, library, byte_tokenizer, vocabulary, sample_texts
):
    model, settings = read(folder, "--token_healing", "--allow_invalid_utf8")
    rng, prompts = random.Random(1), []
    for text in rng.sample(sample_texts, 25):
        start = rng.randrange(len(text) - 20)
        prompts.append(text[start : start + rng.randint(1, 12)])
    prompts += [f"{prompt.strip()} " for prompt in prompts[:8]]
    _, rows = written(model, prompts, settings)
    changed = 0
    for prompt, row in zip(prompts, rows, strict=True):
        *before, _ = byte_tokenizer(prompt)["input_ids"]
        if not byte_tokenizer.decode(before).endswith("\ufffd"):  # else the last token ends a character
            last, expected = healed_by_hand(library, byte_tokenizer, vocabulary, prompt, settings.length)
            assert row == expected, prompt
            changed += row[:1] not in ([], [last])
    assert changed > 5


def test_behind_a_space_a_word_follows_without_being_asked_for_and_nowhere_else(folder, byte_tokenizer):
    model, settings = read(folder)
    assert settings.token_healing is None
    ending = ["오늘은 ", "그는 학교에 ", " "]
    for other in ("오늘은", "오늘은\n", "끝.", "", "가나다\t"):
        assert written(model, [other], settings) == written(model, [other], replace(settings, token_healing=False))
    _, ids = written(model, ending, settings)
    for row in ids:
        assert byte_tokenizer.convert_ids_to_tokens(row[0]).startswith("Ġ")
    alone = [written(model, [prompt], settings) for prompt in ending]
    assert written(model, ending, settings) == ([text for (text,), _ in alone], [row for _, (row,) in alone])


def test_all_that_may_be_drawn_begins_as_the_prompt_ends_and_is_shown_without_it(folder, vocabulary):
    model, settings = read(folder, "--token_healing", "--temperature=3", "--top_k=0", "--no_repeat_ngram_size=2")
    space = model.tokenizer.encode(" ").ids
    first = set()
    for seed in range(40):
        torch.manual_seed(seed)
        (text,), (row,) = written(model, ["오늘 날씨가 "], settings)
        assert vocabulary[row[0]].startswith(vocabulary[space[0]])
        whole = b"".join(vocabulary[index] for index in row).decode("utf-8", "ignore")
        assert f" {text}" == whole
        first.add(row[0])
    assert len(first) > 5


def test_ids_of_a_request_and_what_is_turned_off_are_gone_on_with_as_they_are(folder, byte_tokenizer):
    model, settings = read(folder, "--token_healing=false")
    ids = byte_tokenizer("오늘은 ")["input_ids"]
    assert written(model, ["오늘은 "], settings) == written(model, [ids], settings)
    assert encode(model, "오늘은 ") == ids  # what is counted and told of


def test_words_marked_by_sentencepiece_are_healed_too_and_special_tokens_never_drawn(sample_texts, tmp_path):
    tokenizer = words_of_kogpt2(sample_texts[:40], also=["▁<mask>"])
    ids = tokenizer.encode("오늘 ").ids
    assert tokenizer.id_to_token(ids[-1]) == "▁"
    kept, again, begun = heal(ids, tokenizer)
    names = {tokenizer.id_to_token(index) for index in again.tolist()}
    assert kept == ids[:-1] and begun == " "
    assert names == {token for token in tokenizer.get_vocab() if token.startswith("▁")} - {"▁<mask>"}

    save_kogpt2(tmp_path, sample_texts[:40])
    model, settings = read(tmp_path)
    (text,), (row,) = written(model, ["오늘 "], settings)
    assert model.tokenizer.id_to_token(row[0]).startswith("▁")
    assert model.tokenizer.decode([*model.tokenizer.encode("오늘").ids, *row]) == f"오늘 {text}"


def test_a_token_that_begins_no_other_and_a_vocabulary_of_another_kind_are_left_alone(byte_tokenizer):
    backend = byte_tokenizer.backend_tokenizer
    lonely = next(
        index
        for token, index in byte_tokenizer.get_vocab().items()
        if sum(other.startswith(token) for other in byte_tokenizer.get_vocab()) == 1 and len(token) > 5
    )
    assert heal([5, lonely], backend, always=True) == ([5, lonely], None, "")
    assert heal([5, 0], backend, always=True) == ([5, 0], None, "")  # the end of a text
    assert heal([5, 7], object(), always=True) == ([5, 7], None, "")


def test_no_character_is_torn_though_other_tokens_begin_as_its_last_byte_does(byte_tokenizer, vocabulary):
    tokenizer = byte_tokenizer.backend_tokenizer
    ids = tokenizer.encode("각").ids
    assert vocabulary[ids[-1]] == "각".encode()[2:]
    assert sum(piece.startswith(vocabulary[ids[-1]]) for piece in vocabulary) > 1
    assert heal(ids, tokenizer, always=True) == (ids, None, "")


def test_an_answer_that_was_begun_is_healed_and_one_that_is_yet_to_begin_is_not(chat_model_folder):
    model, settings = read(chat_model_folder)
    asked = {"role": "user", "content": "안녕 "}
    assert written(model, [[asked]], settings) == written(model, [[asked]], replace(settings, token_healing=False))
    begun = [asked, {"role": "assistant", "content": "네, "}]
    _, (row,) = written(model, [begun], settings)
    assert model.tokenizer.id_to_token(row[0]).startswith("Ġ")


def test_generate_writes_the_prompt_as_it_was_typed_and_records_how(folder, tmp_path, capsys):
    file = tmp_path / "out.jsonl"
    words = [f"--model_name_or_path={folder}", *GREEDY, "--prompt=오늘은 ", f"--output_file={file}"]
    assert main(words) == 0
    record = json.loads(file.read_text("utf-8"))
    assert record["prompt"] == "오늘은 " and record["settings"]["token_healing"] is None
    assert record["text"].startswith("오늘은 ") and not record["text"].startswith("오늘은  ")
    assert capsys.readouterr().out == record["text"] + "\n"


def test_what_the_first_token_is_to_be_rules_nothing_out_of_later_ones_or_other_rows():
    decoder, greedy = LibraryDecoder(tiny_gpt2(300)), Sampling(temperature=0)
    plain = generate_ids(decoder, [[5, 9], [7]], 6, greedy, -1)
    forced = generate_ids(decoder, [[5, 9], [7]], 6, greedy, -1, first=[torch.tensor([11]), None])
    assert forced[1] == plain[1] and forced[0][0] == 11
    assert forced[0][1:] == generate_ids(decoder, [[5, 9, 11]], 5, greedy, -1)[0]
