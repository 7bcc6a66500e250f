"""What a person sees while a model trains: the curve, texts at every evaluation, a report. None moves training."""

import html
import json
import math
import re
import shutil
import warnings
from pathlib import Path

import matplotlib
import pytest
import torch
from conftest import signal_self, tiny_gpt2
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdowns_to_safe_html
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.trainer_utils import unwrap_peft_model

from gpt2_korean.generation.decoder import GPT2Decoder, LibraryDecoder
from gpt2_korean.generation.load import load
from gpt2_korean.model import lora
from gpt2_korean.speed import forward
from gpt2_korean.training import callbacks, curve, report, samples

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def run_words(train_words, small_corpus):
    return ["train.py", *train_words, "--do_train", "--max_steps=6", "--save_steps=2", "--logging_steps=1"]


@pytest.fixture
def evaluated_words(run_words, small_corpus, tmp_path):
    prompts = tmp_path / "앞글.txt"
    prompts.write_text("오늘은\n\n그 사람\n", "utf-8")
    return [
        *run_words, "--do_eval", f"--validation_file={small_corpus}", "--eval_steps=3", f"--sample_prompts={prompts}"
    ]  # fmt: skip


# The curve


def test_the_curve_is_bits_per_character_over_characters(rng):
    characters, tokens = rng.randint(1000, 9000), rng.randint(500, 9000)
    log = []
    for step in range(1, 30):
        log.append({"step": step, "epoch": step / 10, "loss": rng.uniform(1, 9), "learning_rate": rng.random()})
        if step % 7 == 0:
            bits = {"eval_loss": rng.uniform(1, 9), "eval_bits_per_character": rng.uniform(1, 9)}
            log.append({"step": step, "epoch": step / 10, **bits})
    last = {"step": 7, "epoch": 2.9, "eval_loss": 1.0, "eval_bits_per_character": 1.0}  # of the best model, at the end
    found = curve.curve_of(
        [*log, {"step": 29, "epoch": 2.9, "train_runtime": 3.0}, last], curve.Corpus(characters, tokens, 5)
    )
    trained = [entry for entry in log if "loss" in entry]
    # A corpus of so many tokens costs their nats; in bits, and shared out among its characters:
    assert found.training == [
        (
            pytest.approx(entry["step"] / 10 * characters),
            pytest.approx(math.log2(math.e) * entry["loss"] * tokens / characters),
        )
        for entry in trained
    ]
    assert [rate for _, rate in found.learning_rate] == [entry["learning_rate"] for entry in trained]
    evaluated = {entry["step"]: entry["eval_bits_per_character"] for entry in log if "eval_loss" in entry}
    assert [value for _, value in found.evaluation] == list(evaluated.values())
    assert [seen for seen, _ in found.evaluation] == pytest.approx([step / 10 * characters for step in evaluated])
    stream = curve.curve_of(log, curve.Corpus(None, None, 50))
    assert (found.unit, stream.unit) == ("characters", "tokens")
    assert stream.training[3] == (200, pytest.approx(log[3]["loss"] * math.log2(math.e)))


def test_the_curve_is_drawn_at_every_save_and_a_resumed_run_draws_the_whole_of_it(
    evaluated_words, tmp_path, run_main, monkeypatch, at_training_step
):
    drawn, original = [], callbacks.draw
    monkeypatch.setattr(callbacks, "draw", lambda points: drawn.append(points) or original(points))
    resume = "--resume_from_checkpoint=auto"
    at_training_step(5, lambda _: signal_self())
    assert run_main(*evaluated_words, resume)[0] == 75
    picture = tmp_path / "out" / "training_curve.png"
    assert [len(points.training) for points in drawn] == [2, 3, 4, 5]
    before = picture.read_bytes()
    assert run_main(*evaluated_words, resume)[0] == 0
    assert len(drawn[-1].training) == 6 and len(drawn[-1].evaluation) == 2
    assert picture.read_bytes().startswith(PNG) and picture.read_bytes() != before


def test_a_failure_to_draw_is_told_once_and_harms_nothing(run_words, tmp_path, run_main, monkeypatch):
    monkeypatch.setattr(callbacks, "draw", lambda _: 1 / 0)
    code, _, err = run_main(*run_words)
    assert code == 0 and err.count("training_curve.png") == 1
    assert not (tmp_path / "out" / "training_curve.png").exists()
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_an_overwritten_run_takes_its_curve_along_but_not_before_the_new_one_has_saved(run_words, tmp_path, run_main):
    picture = tmp_path / "out" / "training_curve.png"
    assert run_main(*run_words)[0] == 0
    before = picture.read_bytes()
    assert run_main(*run_words, "--overwrite_output_dir", "--learning_rate=1e30")[0] == 1  # the loss is no number
    assert picture.read_bytes() == before
    assert run_main(*run_words, "--overwrite_output_dir", "--max_steps=1")[0] == 0
    assert not picture.exists()


def test_no_picture_has_empty_boxes(monkeypatch, tmp_path):
    """matplotlib warns of each glyph that a font lacks; with this machine's fonts, and with none that has Hangul."""
    points = [(100 * step, 9.0 - step) for step in range(5)]
    latin = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    shutil.copy(latin, tmp_path / "NanumGothic.ttf")  # a name promises nothing
    (tmp_path / "gothic.ttf").write_bytes(b"no font")
    fakes = [str(tmp_path / name) for name in ("gothic.ttf", "NanumGothic.ttf")]
    found = curve.find_hangul_font()
    for fonts in (fakes + ([found] if found else []), fakes):
        monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda fonts=fonts: fonts)
        curve.find_hangul_font.cache_clear()
        assert curve.find_hangul_font() == (found if found in fonts else None)
        for unit in ("characters", "tokens"):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert curve.draw(curve.Curve(unit, points, points[:2], points)).startswith(PNG)
    curve.find_hangul_font.cache_clear()


# The texts


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


def test_the_event_file_has_the_numbers_and_the_texts_of_every_evaluation(evaluated_words, tmp_path, run_main):
    code, _, err = run_main(*evaluated_words)
    assert code == 0, err
    texts, scalars = panels(tmp_path / "logs")
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


def test_prompts_that_cannot_be_had_are_refused_at_once(run_words, evaluated_words, tmp_path, run_main):
    empty = tmp_path / "빈.txt"
    empty.write_text("\n \n")
    file = evaluated_words[-1].partition("=")[2]
    for words in (
        [*evaluated_words, f"--sample_prompts={tmp_path / '없음.txt'}"],
        [*evaluated_words, f"--sample_prompts={empty}"],
        [*run_words, f"--sample_prompts={file}"],
        ["train.py", "--do_eval", f"--validation_file={file}", f"--sample_prompts={file}"],
    ):
        code, out, err = run_main(*words)
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
    saved, ids = load(tiny_model_folder, torch.device("cpu"), dtype).decoder, torch.tensor([[5, 6, 7]])
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


# The report


def test_the_end_of_a_run_tells_where_it_came_to():
    log = [{"step": step, "loss": 9.0 - step} for step in (1, 2, 3)]
    log += [{"step": step, "eval_bits_per_character": bits} for step, bits in ((1, 4.5), (2, 4.25), (3, 4.75))]
    end = {"step": 3, "train_runtime": 3725.4, "train_steps_per_second": 1234.5}
    told = report.describe_run([*log, end], 2, "모델 폴더")
    for words in (
        "1시간 2분",
        "1,234.50스텝",
        "가장 낮음 4.2500 (2스텝)",
        "마지막 4.7500 (3스텝)",
        "모델 폴더 (2스텝)",
    ):
        assert words in told
    assert "python generate.py '--model_name_or_path=모델 폴더'" in told  # as a shell takes it
    measured = {**end, "train_tokens_per_second": 98765.4, "train_mfu": 0.315}
    assert "1초에 98,765토큰 · MFU 31.5%" in report.describe_run([*log, measured], 2, "x")
    assert "8.0000 → 6.0000" in report.describe_run(log[:3], 3, "x")


def test_tables_stand_in_columns_on_a_terminal():
    assert report.table([("가나", "1"), ("abcde", "22"), ("", "x", "y")]) == "가나   1\nabcde  22\n       x   y"
    assert report.shorten("가나다 라마", 8) == "가나다…" and report.shorten("가나\n다라", 9) == "가나 다라"
    assert [report.duration(seconds) for seconds in (0.2, 59.6, 3600)] == ["0초", "1분", "1시간"]


def test_a_run_ends_with_its_report(evaluated_words, run_main):
    code, out, err = run_main(*evaluated_words, "--report_to=none")
    assert code == 0 and json.loads(out.splitlines()[-1])["loss"] > 0
    assert re.search(r"걸린 시간 .*\n빠르기 .*\n글자당 비트 .*\n모델 .*\n써 보기 +python generate\.py", err)
