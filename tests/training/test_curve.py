"""The picture of a run: bits per character over what it has read, drawn at every save, without harm where it fails."""

import json
import math
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import pytest
from conftest import ROOT, signal_self

from gpt2_korean.speed.throughput import TokenMeter
from gpt2_korean.training import callbacks, curve

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def no_picture():
    """Here they are drawn."""


@pytest.fixture
def drawn(monkeypatch):
    """The Curves that runs draw from now on."""
    curves, original = [], callbacks.draw
    monkeypatch.setattr(callbacks, "draw", lambda points: curves.append(points) or original(points))
    return curves


@pytest.mark.parametrize("other", [{}, {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}], ids=len)
def test_a_home_that_cannot_be_written_is_not_told_of_in_english_and_a_notebook_draws(tmp_path, other):
    (tmp_path / "file").touch()
    code = """
from gpt2_korean.training.curve import Corpus, curve_of, draw
log = [{"step": step, "epoch": step, "loss": 1.0, "learning_rate": 1.0} for step in (1, 2)]
assert draw(curve_of(log, Corpus(9, 9, 5)))
"""
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "file"), "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=env | other, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def test_the_curve_is_bits_per_character_over_characters(rng):
    characters, tokens = rng.randint(1000, 9000), rng.randint(500, 9000)
    log = []
    for step in range(1, 30):
        log.append({"step": step, "epoch": step / 10, "loss": rng.uniform(1, 9), "learning_rate": rng.random()})
        if step % 7 == 0:
            bits = {"eval_loss": rng.uniform(1, 9), "eval_bits_per_character": rng.uniform(1, 9)}
            log.append({"step": step, "epoch": step / 10, **bits})
    last = {"step": 7, "epoch": 2.9, "eval_loss": 1.0, "eval_bits_per_character": 1.0}  # of the best model, at the end
    log_history = [*log, {"step": 29, "epoch": 2.9, "train_runtime": 3.0}, last]
    found = curve.curve_of(log_history, curve.Corpus(characters, tokens, 5))
    trained = [entry for entry in log if "loss" in entry]
    # A corpus of so many tokens costs their nats; in bits, and shared out among its characters:
    assert found.training == [
        (
            entry["step"],
            pytest.approx(entry["step"] / 10 * characters),
            pytest.approx(math.log2(math.e) * entry["loss"] * tokens / characters),
        )
        for entry in trained
    ]
    assert [point.value for point in found.learning_rate] == [entry["learning_rate"] for entry in trained]
    evaluated = {entry["step"]: entry["eval_bits_per_character"] for entry in log if "eval_loss" in entry}
    assert [point.value for point in found.evaluation] == list(evaluated.values())
    assert [point.seen for point in found.evaluation] == pytest.approx([step / 10 * characters for step in evaluated])
    assert found.lap == ("epochs", characters)
    stream = curve.curve_of(log, curve.Corpus(None, None, 50))
    assert (found.per, found.unit, stream.per, stream.unit) == ("characters", "characters", "tokens", "tokens")
    assert stream.training[3] == (4, 200, pytest.approx(log[3]["loss"] * math.log2(math.e)))
    assert stream.lap == ("steps", 50)


def test_a_model_that_knows_both_texts_alike_has_both_lines_in_one_place(rng):
    """Whatever the vocabulary spends on either: the loss of a token is the same."""
    log = []
    for step in range(1, 20):
        loss, spends = rng.uniform(1, 9), 0.52
        log.append({"step": step, "epoch": step / 7, "loss": loss, "learning_rate": 0.1})
        bits = loss * spends / math.log(2)
        log.append({"step": step, "epoch": step / 7, "eval_loss": loss, "eval_bits_per_character": bits})
    for characters, tokens in ((1000, 440), (1000, 900), (None, None)):
        found = curve.curve_of(log, curve.Corpus(characters, tokens, 64, spends))
        assert found.per == "characters"
        assert [point.value for point in found.training] == pytest.approx([point.value for point in found.evaluation])
        assert found.spent == (characters and (tokens / characters, spends))


def test_a_stream_is_drawn_over_the_tokens_that_its_steps_learn(train_words, sample_texts, tmp_path, run_main, drawn):
    """Each of a block but the first, which nothing tells."""
    (tmp_path / "hub").mkdir()
    rows = [json.dumps({"text": text}) for text in sample_texts[:12]]
    (tmp_path / "hub" / "train.jsonl").write_text("\n".join(rows), "utf-8")
    words = ["--streaming", "--max_steps=3", "--logging_steps=1", "--block_size=16", "--per_device_train_batch_size=4"]
    words += ["--do_train", "--report_to=none", "--gradient_accumulation_steps=2"]
    code, _, err = run_main("train.py", *train_words[1:], f"--dataset_name={tmp_path / 'hub'}", *words)
    assert code == 0, err
    assert (drawn[-1].unit, drawn[-1].lap) == ("tokens", ("steps", 4 * 2 * 15))
    assert [point.seen for point in drawn[-1].training] == [120, 240, 360]


def test_training_is_told_at_what_the_held_out_text_spends(evaluated_words, small_corpus, tmp_path, run_main, drawn):
    """small_corpus is both here, and the answers alone count in a conversation."""
    assert run_main(*evaluated_words)[0] == 0
    own, held_out = drawn[-1].spent
    assert own == held_out and drawn[-1].title == ("tiny", small_corpus.name)
    talks = tmp_path / "대화.csv"
    talks.write_text(
        "질문,답변\n" + "".join(f"아주 긴 질문을 하나 합니다 {n},짧은 답 {n}\n" for n in range(9)), "utf-8"
    )
    words = [*evaluated_words, f"--dataset_path={talks}", "--overwrite_output_dir", "--block_size=32"]
    assert run_main(*words, f"--validation_file={talks}")[0] == 0
    own, held_out = drawn[-1].spent
    assert own == held_out
    epoch = drawn[-1].lap[1]
    assert epoch == sum(len(f"짧은 답 {n}") for n in range(9))


def test_the_curve_is_drawn_at_every_save_and_a_resumed_run_draws_the_whole_of_it(
    evaluated_words, tmp_path, run_main, drawn, at_training_step
):
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


def test_a_picture_that_somebody_looked_at_is_drawn_at_the_next_save(tmp_path, monkeypatch):
    """Windows refuses to replace it meanwhile."""

    def in_use(_):
        monkeypatch.setattr(callbacks, "draw", lambda _: PNG)
        raise PermissionError("in use")

    monkeypatch.setattr(callbacks, "draw", in_use)
    monkeypatch.setattr(callbacks, "is_in_use", lambda error: isinstance(error, PermissionError))
    log = [{"step": step, "epoch": step, "loss": 1.0, "learning_rate": 1.0} for step in (1, 2)]
    state = SimpleNamespace(is_world_process_zero=True, log_history=log)
    trainer = SimpleNamespace(replaces_earlier_run=False, meter=TokenMeter())
    drawing = callbacks.DrawCurve(trainer, curve.Corpus(9, 9, 5))
    for drawn in (b"", PNG):
        drawing.on_save(SimpleNamespace(output_dir=str(tmp_path)), state, None)
        picture = tmp_path / "training_curve.png"
        assert (picture.read_bytes() if picture.exists() else b"") == drawn


def test_an_overwritten_run_takes_its_curve_along_but_not_before_the_new_one_has_saved(run_words, tmp_path, run_main):
    picture = tmp_path / "out" / "training_curve.png"
    assert run_main(*run_words)[0] == 0
    before = picture.read_bytes()
    assert run_main(*run_words, "--overwrite_output_dir", "--learning_rate=1000", "--weight_decay=1e9")[0] == 1
    assert picture.read_bytes() == before
    assert run_main(*run_words, "--overwrite_output_dir", "--max_steps=1")[0] == 0
    assert not picture.exists()


def figures_drawn(monkeypatch):
    """The figures, in English, of which pictures are made from now on."""
    figures = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, *_, **__: figures.append(self))
    monkeypatch.setattr(curve, "find_hangul_font", lambda: None)
    return figures


def test_evaluations_are_drawn_though_no_loss_has_been_logged_yet(monkeypatch):
    """By the defaults that comes after 500 steps."""
    figures, evaluation = figures_drawn(monkeypatch), [curve.Point(step, 3e6 * step, 5.0) for step in (1, 2)]
    log = [{"step": step, "epoch": step, "eval_loss": 1.0, "eval_bits_per_character": 5.0} for step in (1, 2)]
    drawing = curve.curve_of(log, curve.Corpus(3_000_000, 1_500_000, 5, 0.5))
    assert curve.is_worth_drawing(drawing) and drawing.evaluation == evaluation
    curve.draw(drawing)
    upper, lower = figures[0].axes
    assert list(upper.lines[0].get_xdata()) == [3, 6] and "millions" in lower.get_xlabel()
    assert figures[0].get_supxlabel() == ""  # of two texts that spend alike nothing needs to be said


@pytest.mark.parametrize(
    ("best", "start", "place"), [(1, 9, ("left", "top")), (20, 9, ("center", "top")), (39, 7, ("right", "bottom"))]
)
def test_the_picture_shows_both_lines_the_best_step_and_the_learning_rate(monkeypatch, best, start, place):
    figures = figures_drawn(monkeypatch)
    training = [curve.Point(step, 3e6 * step, start - step / 10) for step in range(1, 41)]
    evaluation = [curve.Point(step, 3e6 * step, 4.5 if step == best else 4.75) for step in (1, 20, 39, 40)]
    rates = [curve.Point(step, 3e6 * step, step / 1e4) for step in range(1, 41)]
    curve.draw(
        curve.Curve("characters", "characters", ("epochs", 1e7), training, evaluation, rates, (0.44, 0.52), ("a", "글"))
    )
    (figure,) = figures
    upper, lower = figure.axes
    best_point = next(point for point in evaluation if point.step == best)
    for line, points in zip([*upper.lines, *lower.lines], (training, evaluation, [best_point], rates), strict=True):
        assert list(line.get_xdata()) == [point.seen / 1e6 for point in points]
        assert list(line.get_ydata()) == [point.value for point in points]
    told = [text.get_text() for text in upper.get_legend().get_texts()]
    assert told == [f"training (last {start - 4:.3f})", "evaluation (last 4.750)"]
    (words,) = upper.texts
    assert words.get_text() == f"4.500 (step {best})"
    assert (words.get_ha(), words.get_va()) == place  # within the picture, off the line of training
    assert words.xyann[1] == (-10 if place[1] == "top" else 10)  # and of the point
    assert (upper.get_ylabel(), lower.get_ylabel()) == ("bits per character", "learning rate")
    assert lower.get_xlabel() == "characters trained on (millions)" and lower.get_ylim()[0] == 0
    (top,) = upper.child_axes
    figure.draw_without_rendering()
    assert list(top.get_xlim()) == pytest.approx([millions / 10 for millions in upper.get_xlim()])  # an epoch has ten
    assert top.get_xlabel() == "epochs" and figure.get_suptitle() == "a"  # no font here has the rest
    assert "0.52" in figure.get_supxlabel() and "0.44" in figure.get_supxlabel()


def test_no_picture_has_empty_boxes(monkeypatch, tmp_path):
    """matplotlib warns of each glyph that a font lacks; with this machine's fonts, and with none that has Hangul."""
    points = [curve.Point(step, 100 * step, 9.0 - step) for step in range(5)]
    titles = (("scratch-mini", "글.txt"), ("$a_$", "\U0001f600\udc80한글 𐤀.csv"), ("", "\n"))
    latin = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    shutil.copy(latin, tmp_path / "NanumGothic.ttf")  # a name promises nothing
    (tmp_path / "gothic.ttf").write_bytes(b"no font")
    fakes = [str(tmp_path / name) for name in ("gothic.ttf", "NanumGothic.ttf")]
    found = curve.find_hangul_font()
    for fonts in (fakes + ([found] if found else []), fakes):
        monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda fonts=fonts: fonts)
        curve.find_hangul_font.cache_clear()
        assert curve.find_hangul_font() == (found if found in fonts else None)
        for unit, lap, title in zip(
            ("characters", "tokens", "tokens"), ("epochs", "steps", "steps"), titles, strict=True
        ):
            drawing = curve.Curve(unit, unit, (lap, 70), points, points[:2], points, (0.44, 0.52), title)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert curve.draw(drawing).startswith(PNG)
    curve.find_hangul_font.cache_clear()
