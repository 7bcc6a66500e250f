"""What the end of a run tells."""

import json
import re

from gpt2_korean.training import report


def test_the_end_of_a_run_tells_where_it_came_to():
    log = [{"step": step, "loss": 9.0 - step} for step in (1, 2, 3)]
    log += [{"step": step, "eval_bits_per_character": bits} for step, bits in ((1, 4.5), (2, 4.25), (3, 4.75))]
    end = {"step": 3, "train_runtime": 3725.4, "train_steps_per_second": 1234.5}
    told = report.describe_training([*log, end], 2, "모델 폴더")
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
    assert "1초에 98,765토큰 · MFU 31.5%" in report.describe_training([*log, measured], 2, "x")
    assert "8.0000 → 6.0000" in report.describe_training(log[:3], 3, "x")


def test_tables_stand_in_columns_on_a_terminal():
    assert report.table([("가나", "1"), ("abcde", "22"), ("", "x", "y")]) == "가나   1\nabcde  22\n       x   y"
    assert report.shorten("가나다 라마", 8) == "가나다…" and report.shorten("가나\n다라", 9) == "가나 다라"
    assert [report.duration(seconds) for seconds in (0.2, 59.6, 3600)] == ["0초", "1분", "1시간"]


def test_a_run_ends_with_its_report(evaluated_words, run_main):
    code, out, err = run_main(*evaluated_words, "--report_to=none")
    assert code == 0 and json.loads(out.splitlines()[-1])["loss"] > 0
    assert re.search(r"걸린 시간 .*\n빠르기 .*\n글자당 비트 .*\n모델 .*\n써 보기 +python generate\.py", err)


def test_the_end_of_a_run_tells_how_to_try_its_model_out():
    assert '--prompt="오늘은"' in report.describe_training([], 3, "x")
    told = report.describe_training([], 3, "x", talks=True)
    assert "--interactive" in told and "--prompt" not in told
