"""The texts that a model writes at every evaluation: what these weights write, and training does not feel them."""

import html
import re
from types import SimpleNamespace

import pytest
import torch
from conftest import read_to_write, tiny_gpt2
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdowns_to_safe_html
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.trainer_utils import unwrap_peft_model

from gpt2_korean.generation.decoder import GPT2Decoder
from gpt2_korean.generation.library_decoder import LibraryDecoder
from gpt2_korean.model import lora
from gpt2_korean.speed import forward
from gpt2_korean.training import callbacks, samples


def panels(folder):
    """Tag → {step: text as a browser would show it} of the texts in an event file."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    texts = {}
    for tag in events.Tags()["tensors"]:
        if "sample" in tag:
            shown = {
                event.step: markdowns_to_safe_html([event.tensor_proto.string_val[0]], "".join)
                for event in events.Tensors(tag)
            }
            texts[tag] = {step: as_shown(page) for step, page in shown.items()}
    return texts, events.Tags()["scalars"]


def letters(text):
    """`text` less white space and control characters, for which TensorBoard puts question marks."""
    return [letter for letter in text if letter.isprintable() and letter not in " ?"]


def as_shown(page):
    return html.unescape(re.sub("<.*?>", "", page.replace("<br>", "\n"))).strip("\n")


def test_what_was_written_to_a_long_prompt_is_shown_too(monkeypatch, capsys):
    monkeypatch.setattr(callbacks, "write_samples", lambda _, prompts: [" 이어 쓴 글" for _ in prompts])
    trainer = SimpleNamespace(
        processing_class=SimpleNamespace(chat_template=None), callback_handler=SimpleNamespace(callbacks=[])
    )
    prompts = ["오늘은", "긴 앞글이라 한 줄에 다 보이지 않는 것을 " * 9]
    callbacks.WriteSamples(trainer, prompts).on_evaluate(None, SimpleNamespace(is_world_process_zero=True), None)
    short, long = capsys.readouterr().err.splitlines()
    assert short == "  오늘은 | 이어 쓴 글" and long.startswith("  긴 앞글이라") and long.endswith("… | 이어 쓴 글")


def test_the_event_file_has_the_numbers_and_the_texts_of_every_evaluation(evaluated_words, tmp_path, run_main):
    code, _, err = run_main(*evaluated_words)
    assert code == 0, err
    texts, scalars = panels(next((tmp_path / "logs").iterdir()))
    for tag in ("train/loss", "train/learning_rate", "train/grad_norm", "eval/loss", "eval/bits_per_character"):
        assert tag in scalars
    assert [sorted(steps) for steps in texts.values()] == [[3, 6], [3, 6]]
    # What stands there is what these very weights write, whatever the random numbers were before.
    torch.manual_seed(99)
    out = tmp_path / "out"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    with samples.writing(model, tokenizer) as loaded:
        again = samples.continue_prompts(loaded, ["오늘은", "그 사람"])
    for prompt, more, steps in zip(["오늘은", "그 사람"], again, texts.values(), strict=True):
        assert letters(steps[6]) == letters(prompt + more) and "\ufffd" not in more
        assert err.count(f"\n  {prompt} | ") == 2


@pytest.mark.parametrize("words", [["--gradient_checkpointing"], ["--bf16"], ["--bf16", "--lora_rank=4"]])
def test_training_is_the_same_to_the_last_bit_with_and_without_texts(
    run_words, evaluated_words, tmp_path, run_main, words
):
    code, _, err = run_main(*evaluated_words, *words)
    assert code == 0 and "  오늘은 | " in err, err
    assert run_main(*run_words, *words, f"--output_dir={tmp_path / 'blind'}")[0] == 0
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "blind"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_model_that_cannot_write_still_trains(evaluated_words, tmp_path, run_main, monkeypatch):
    monkeypatch.setattr(samples, "gpt2_decoder", lambda *_, **__: 1 / 0)
    code, _, err = run_main(*evaluated_words)
    assert code == 0 and err.count("ZeroDivisionError") == 1
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_prompts_that_cannot_be_had_are_refused_at_once(evaluated_words, tmp_path, run_main):
    (tmp_path / "빈.txt").write_text("\n \n")
    for name in ("없음.txt", "빈.txt"):
        code, out, err = run_main(*evaluated_words, f"--sample_prompts={tmp_path / name}")
        message = err[err.index("오류:") :].strip()
        assert (code, out) == (2, "") and "--sample_prompts" in message and len(message.splitlines()) <= 2


def test_a_text_panel_shows_a_text_as_it_is(rng):
    letters = [chr(code) for code in range(33, 127)] + ["\n", "한", "글"] * 10
    for _ in range(200):
        prompt, text = ("가" + "".join(rng.choices(letters, k=rng.randint(0, 30))) + "나" for _ in range(2))
        assert as_shown(markdowns_to_safe_html([samples.as_markdown(prompt, text)], "".join)) == prompt + text


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rank", [0, 4])
def test_writing_leaves_a_model_and_the_random_numbers_as_they_were(byte_tokenizer, training, dtype, rank):
    model = tiny_gpt2(len(byte_tokenizer))
    if rank:
        model = unwrap_peft_model(lora.adapt(model, rank))
    model.train(training)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    before = torch.get_rng_state()
    with samples.writing(model, byte_tokenizer, dtype) as loaded:
        assert not model.training
        samples.continue_prompts(loaded, ["오늘은", "가"])
    assert model.training is training and torch.equal(torch.get_rng_state(), before)
    after = model.state_dict()
    assert after.keys() == weights.keys() and all(torch.equal(after[name], weights[name]) for name in weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_in_training_writes_by_the_decoder_of_generate(tiny_model_folder, dtype):
    model, tokenizer = (each.from_pretrained(tiny_model_folder) for each in (AutoModelForCausalLM, AutoTokenizer))
    forward.use_fast_forward(model)
    saved = read_to_write(tiny_model_folder, dtype=str(dtype).removeprefix("torch."), engine="torch").decoder
    ids = torch.tensor([[5, 6, 7]])
    with samples.writing(model.train(), tokenizer, dtype) as loaded, torch.inference_mode():
        assert type(loaded.decoder) is type(saved) is GPT2Decoder
        assert torch.equal(*(each.start(ids, torch.ones_like(ids), 0) for each in (loaded.decoder, saved)))


def test_without_memory_for_a_second_copy_the_model_itself_writes_the_same(byte_tokenizer, monkeypatch):
    def is_full(*_, **__):
        raise torch.OutOfMemoryError

    texts, model = [], tiny_gpt2(len(byte_tokenizer))
    for decoder in (GPT2Decoder, LibraryDecoder):
        with samples.writing(model, byte_tokenizer) as loaded:
            assert type(loaded.decoder) is decoder
            texts.append(samples.continue_prompts(loaded, ["오늘은", "가"]))
        monkeypatch.setattr(samples, "gpt2_decoder", is_full)
    assert texts[0] == texts[1] and all(texts[0])


def test_a_model_that_our_decoder_does_not_compute_writes_itself(byte_tokenizer):
    model = tiny_gpt2(len(byte_tokenizer), scale_attn_by_inverse_layer_idx=True)
    with samples.writing(model, byte_tokenizer) as loaded:
        assert type(loaded.decoder) is LibraryDecoder and loaded.decoder.model is model
