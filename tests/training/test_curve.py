"""The picture of a run: bits per character over what it has read, drawn at every save, without harm where it fails."""

import math
import shutil
import warnings
from pathlib import Path

import matplotlib
import pytest
from conftest import signal_self

from gpt2_korean.training import callbacks, curve

PNG = b"\x89PNG\r\n\x1a\n"


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
    assert run_main(*run_words, "--overwrite_output_dir", "--learning_rate=1000", "--weight_decay=1e9")[0] == 1
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
