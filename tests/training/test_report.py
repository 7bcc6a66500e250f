"""What the end of a run tells."""

import json
import re
from unicodedata import normalize

from gpt2_korean.training import report


def test_the_end_of_a_run_tells_where_it_came_to():
    log = [{"step": step, "loss": 9.0 - step} for step in (1, 2, 3)]
    log += [{"step": step, "eval_bits_per_character": bits} for step, bits in ((1, 4.5), (2, 4.25), (3, 4.75))]
    end = {"step": 3, "train_runtime": 3725.4, "train_steps_per_second": 1234.5}
    told = report.describe_training([*log, end], 2, "모델 폴더")
    for words in (
        "1시간 2분",
        "초당 1,234.50스텝",
        "가장 낮음 4.2500 (2스텝)",
        "마지막 4.7500 (3스텝)",
        "모델 폴더 (2스텝)",
    ):
        assert words in told
    assert "python generate.py '--model_name_or_path=모델 폴더'" in told  # as a shell takes it
    measured = {**end, "train_tokens_per_second": 98765.4, "train_mfu": 0.315}
    assert "초당 98,765토큰 · MFU 31.5%" in report.describe_training([*log, measured], 2, "x")
    assert "8.0000 → 6.0000" in report.describe_training(log[:3], 3, "x")
    best_at_last = report.describe_training(log[:5], 2, "x")
    assert "4.2500 (2스텝)" in best_at_last and "가장 낮음" not in best_at_last


def test_the_last_step_is_told_and_not_a_mean_of_weights_that_was_not_left():
    log = [
        {"step": step, "eval_bits_per_character": bits} for step, bits in ((1, 4.25), (2, 4.75), (2, 4.5), (1, 4.25))
    ]
    assert "마지막 4.7500 (2스텝)" in report.describe_training(log, 1, "x")
    averaged = report.describe_training(log, 2, "x", averaged=4)
    assert "마지막 4.5000 (2스텝)" in averaged and "x (마지막 4스텝의 평균)" in averaged
    worse = report.describe_training([log[2], log[1]], 2, "x", averaged=4)
    assert "4.7500 (2스텝)" in worse and "가장 낮음" not in worse  # of the same step


def test_tables_stand_in_columns_on_a_terminal():
    assert report.table([("가나", "1"), ("abcde", "22"), ("", "x", "y")]) == "가나   1\nabcde  22\n       x   y"
    assert report.table([("e\u0301", "1"), ("가", "2")]) == "e\u0301   1\n가  2"
    parts = normalize("NFD", "각가")  # as macOS names files
    assert report.table([(parts, "1"), ("각가", "2")]) == f"{parts}  1\n각가  2" and report.shorten(parts, 4) == parts
    assert report.shorten("가나다 라마", 8) == "가나다…" and report.shorten("가나\n다라", 9) == "가나 다라"
    assert report.shorten("abcdefghij", 8) == "abcdefg…" and report.shorten("가\x1b[2J나", 9) == "가 [2J나"
    durations = [report.duration(seconds) for seconds in (0.2, 59.6, 3600, 3725.4, 125)]
    assert durations == ["0초", "1분", "1시간", "1시간 2분", "2분 5초"]


def test_a_long_text_is_shortened_without_a_look_at_all_of_it_for_each_letter(monkeypatch):
    looked_at, width = [], report.width
    monkeypatch.setattr(report, "width", lambda text: looked_at.append(len(text)) or width(text))
    assert report.shorten("가" * 1000, 100) == "가" * 49 + "…" and report.shorten("각" * 99, 3) == "각…"
    assert sum(looked_at) <= 3000


def test_a_run_ends_with_its_report(evaluated_words, run_main):
    code, out, err = run_main(*evaluated_words, "--report_to=none")
    assert code == 0 and json.loads(out.splitlines()[-1])["loss"] > 0
    assert re.search(r"걸린 시간 .*\n속도 .*\n글자당 비트 .*\n모델 .*\n써 보기 +python generate\.py", err)


def test_the_end_of_a_run_tells_how_to_try_its_model_out():
    assert '--prompt="오늘은"' in report.describe_training([], 3, "x")
    told = report.describe_training([], 3, "x", talks=True)
    assert "--interactive" in told and "--prompt" not in told


def losses(*trained, evaluated=(), epoch=3.0):
    log = [{"step": 10 * n, "epoch": epoch, "loss": loss} for n, loss in enumerate(trained, 1)]
    log += [
        {"step": 10 * n, "eval_loss": loss, "eval_bits_per_character": loss}
        for n, loss in enumerate(evaluated, 1)
        if loss
    ]
    return log


def test_of_a_small_text_that_nobody_evaluated_it_is_told_that_nobody_knows_whether_it_was_learnt_by_heart():
    unknown = "외운 것인지 알 수 없습니다.\n--do_eval"
    assert unknown in report.describe_training(losses(8, 2), 20, "x", characters=70_000)
    # A text that is new, or large, or of unknown size, or evaluated.
    assert unknown not in report.describe_training(losses(8, 2, epoch=1.0), 20, "x", characters=70_000)
    assert unknown not in report.describe_training(losses(8, 2), 20, "x", characters=70_000_000)
    assert unknown not in report.describe_training(losses(8, 2), 20, "x")
    assert unknown not in report.describe_training(losses(8, 2, evaluated=(7, 3)), 20, "x", characters=70_000)


def test_of_a_small_text_whose_loss_hardly_fell_it_is_told_how_to_learn_more_and_not_that_it_may_be_known_by_heart():
    told = report.describe_training(losses(6.7, 5.8), 20, "x", characters=2_600)
    assert "덜 배웠을 수 있습니다" in told and "--num_train_epochs" in told and "외운" not in told
    # From where it fell is unknown; what was taught the text before; what has learnt, though not much yet.
    for other in (losses(6.7), losses(0.8, 0.7), losses(9, 6)):
        assert "외운 것인지" in report.describe_training(other, 20, "x", characters=2_600)
    assert "덜 배웠을" not in report.describe_training(losses(6.7, 5.8), 20, "x", characters=70_000_000)


def test_what_was_learnt_by_heart_is_told_with_the_step_from_which_on():
    log = losses(7, 6, 4, 2, evaluated=(7.5, 7, 7.2, 8))
    told = report.describe_training(log, 40, "x", characters=70_000)
    assert "20스텝부터는 글을 외우기만 했습니다(학습 손실 2.00, 평가 손실 8.00)" in told
    assert "20스텝에서 가장 좋았습니다. --load_best_model_at_end" in told
    assert "그 모델을 남겼습니다" in report.describe_training(log, 20, "x")
    once = losses(7, 2, evaluated=(None, 8))
    assert "--eval_steps" in report.describe_training([*once, once[-1]], 20, "x")
    for log in (
        losses(7, 6, 5, 4, evaluated=(8, 7, 6, 5.9)),  # still learning what holds elsewhere too
        losses(7, 6, 4, 2, evaluated=(8, 4.1, 4.0, 4.03)),  # worse by chance
        losses(7, 6, evaluated=(None, 6.5)),
    ):
        assert "외" not in report.describe_training(log, 40, "x", characters=70_000)


def test_a_model_that_learnt_nonsense_is_measured_too():
    metrics = {"eval_loss": 2000.0, "eval_perplexity": float("inf"), "eval_bits_per_character": 2885.4}
    told = json.loads(report.evaluation_table(metrics).splitlines()[-1])
    assert told == {"loss": 2000, "perplexity": None, "perplexity_per_character": None, "bits_per_character": 2885.4}
