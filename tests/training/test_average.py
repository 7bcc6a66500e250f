"""--average_last: the result is the mean of the weights after each of the last steps, which checkpoints leave alone."""

import json
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import signal_self
from safetensors.torch import load_file, save_file

AVERAGE, WEIGHTS, ADAPTER = "average.safetensors", "model.safetensors", "adapter_model.safetensors"


@pytest.fixture
def words(train_words):
    return [
        "train.py", *train_words, "--do_train", "--max_steps=9", "--save_steps=1", "--report_to=none",
        "--learning_rate=1e-2", "--per_device_train_batch_size=2", "--resume_from_checkpoint=auto",
    ]  # fmt: skip


def mean_of_checkpoints(out, steps, name=WEIGHTS):
    """In float64, of what the steps themselves have left."""
    each = [load_file(out / f"checkpoint-{step}" / name) for step in steps]
    return {key: sum(weights[key].double() for weights in each) / len(each) for key in each[0]}


assert_close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-7, check_dtype=False)
assert_same = partial(torch.testing.assert_close, rtol=0, atol=0)


@pytest.mark.parametrize("last", ["1", "4", "9", "100", "0.3", "0.99"])
def test_the_result_is_the_mean_of_the_weights_after_each_of_the_last_steps(words, tmp_path, run_main, last):
    number, out = float(last), tmp_path / "out"
    steps = min(9, int(number) if number >= 1 else math.ceil(9 * number))
    code, _, err = run_main(*words, f"--average_last={last}")
    assert code == 0 and f"마지막 {steps}스텝의 가중치를 평균한 모델을 남깁니다" in err, err
    assert_close(load_file(out / WEIGHTS), mean_of_checkpoints(out, range(10 - steps, 10)))
    assert {int(path.parent.name[11:]) for path in out.glob(f"checkpoint-*/{AVERAGE}")} == {*range(10 - steps, 10)}
    assert f"({f'마지막 {steps}스텝의 평균'})" in err
    assert json.loads((out / "run.json").read_text("utf-8"))["model"]["averaged"] == steps
    assert f"(모델은 마지막 {steps}스텝의 가중치를 평균한 것)" in (out / "README.md").read_text("utf-8")


def test_the_steps_themselves_are_those_of_a_run_without_it(words, tmp_path, run_main):
    plain, averaged = tmp_path / "plain", tmp_path / "averaged"
    assert run_main(*words, f"--output_dir={plain}", "--average_last=0")[0] == 0
    assert run_main(*words, f"--output_dir={averaged}", "--average_last=3")[0] == 0
    for step in (6, 7, 9):
        assert_same(*(load_file(out / f"checkpoint-{step}" / WEIGHTS) for out in (plain, averaged)))
    assert not list(plain.glob(f"**/{AVERAGE}")) and not (averaged / AVERAGE).exists()


@pytest.mark.parametrize("at", [2, 6, 8])
def test_a_run_that_is_stopped_and_goes_on_ends_with_the_same_mean(words, tmp_path, run_main, at_training_step, at):
    words = [*words, "--save_steps=100", "--average_last=4"]
    assert run_main(*words, f"--output_dir={tmp_path / 'unbroken'}")[0] == 0
    at_training_step(at, lambda _: signal_self())
    assert run_main(*words)[0] == 75
    assert not (tmp_path / "out" / WEIGHTS).exists()
    assert run_main(*words)[0] == 0
    assert_same(*(load_file(tmp_path / folder / WEIGHTS) for folder in ("out", "unbroken")))


def test_a_finished_run_that_lacks_its_model_saves_the_mean_again_and_another_mean_is_another_run(
    words, tmp_path, run_main
):
    out = tmp_path / "out"
    assert run_main(*words, "--average_last=4")[0] == 0
    before = load_file(out / WEIGHTS)
    for name in ("trainer_state.json", WEIGHTS, "config.json"):
        (out / name).unlink()
    code, _, err = run_main(*words)  # left open it is the checkpoint's own
    assert code == 0 and "이미 끝난 학습" in err
    assert_same(load_file(out / WEIGHTS), before)
    for other in ("0", "5", "0.4"):
        code, _, err = run_main(*words, f"--average_last={other}")
        assert code == 1 and "--average_last: 체크포인트는 4" in err, err


def test_a_longer_run_takes_its_own_last_steps(words, tmp_path, run_main):
    assert run_main(*words, "--average_last=4", "--max_steps=5")[0] == 0
    code, _, err = run_main(*words, "--average_last=4")
    assert code == 0, err
    assert_close(load_file(tmp_path / "out" / WEIGHTS), mean_of_checkpoints(tmp_path / "out", range(6, 10)))


def test_where_memory_did_not_suffice_the_mean_begins_anew_with_the_run(words, tmp_path, run_main, at_training_step):
    def fail(_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    at_training_step(5, fail)
    code, _, err = run_main(*words, "--average_last=100", "--auto_find_batch_size")
    assert code == 0 and "마지막 9스텝의 가중치를 평균한 모델을 남깁니다" in err, err
    assert_close(load_file(tmp_path / "out" / WEIGHTS), mean_of_checkpoints(tmp_path / "out", range(1, 10)))


def test_of_an_adapter_what_is_trained_is_averaged_and_merged(words, tmp_path, run_main, tiny_model_folder):
    out = tmp_path / "out"
    code, _, err = run_main(*words, "--average_last=3", "--lora_rank=2")
    assert code == 0, err
    assert_close(load_file(out / "adapter" / ADAPTER), mean_of_checkpoints(out, (7, 8, 9), ADAPTER))
    names = load_file(out / "checkpoint-9" / AVERAGE).keys()
    assert names and all(".lora_" in name for name in names)
    merged, base = load_file(out / WEIGHTS), load_file(Path(tiny_model_folder) / WEIGHTS)
    assert not torch.equal(*(weights["transformer.h.0.mlp.c_fc.weight"] for weights in (merged, base)))


@pytest.mark.parametrize(("rate", "others"), [("1e-2", ["--bf16_full_eval"]), ("0.3", [])])
def test_the_mean_is_measured_and_beside_the_best_model_the_better_one_stays(words, tmp_path, run_main, rate, others):
    words, out = [*words, *others], tmp_path / "out"
    words += [
        "--do_eval", "--validation_split_percentage=20", "--eval_steps=1", "--average_last=4", f"--learning_rate={rate}"
    ]  # fmt: skip
    code, printed, err = run_main(*words, "--load_best_model_at_end")
    assert code == 0, err
    log = json.loads((out / "trainer_state.json").read_text("utf-8"))["log_history"]
    *along, mean = [entry["eval_bits_per_character"] for entry in log if "eval_bits_per_character" in entry]
    assert len(along) == 9
    best = 1 + along.index(min(along))
    if mean < min(along):
        expected, kept = mean_of_checkpoints(out, range(6, 10)), f"{mean:.4f}).\n"
    else:
        expected, kept = mean_of_checkpoints(out, [best]), f"더 낫지 않아 {best}스텝의 모델을 남깁니다"
    assert kept in err
    assert_close(load_file(out / WEIGHTS), expected)
    shown = json.loads(printed.splitlines()[-1])["bits_per_character"]
    assert shown == pytest.approx(min(mean, *along), rel=1e-6)
    again = run_main(*words, "--load_best_model_at_end")
    assert again[0] == 0 and json.loads(again[1].splitlines()[-1])["bits_per_character"] == pytest.approx(shown)
    # What is printed is of the model that is left.
    code, alone, _ = run_main(
        "train.py", "--do_eval", f"--model_type={out}", *(word for word in words if "dataset" in word), "--device=cpu",
        "--validation_split_percentage=20", "--no_bf16", "--report_to=none", "--no_measure_texts", "--disable_tqdm",
    )  # fmt: skip
    assert json.loads(alone.splitlines()[-1])["bits_per_character"] == pytest.approx(shown, rel=1e-5)


def test_a_run_that_ends_before_its_last_part_says_that_nothing_is_averaged(words, tmp_path, run_main):
    words += ["--do_eval", "--validation_split_percentage=20", "--eval_steps=1", "--learning_rate=1"]
    code, _, err = run_main(*words, "--early_stopping_patience=1", "--max_steps=60", "--average_last=4")
    assert code == 0 and "평균하지 않았습니다" in err, err
    assert json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))["model"]["averaged"] is None


def test_the_mean_of_other_weights_is_refused(words, tmp_path, run_main):
    assert run_main(*words, "--max_steps=8", "--average_last=4")[0] == 0
    path = tmp_path / "out" / "checkpoint-8" / AVERAGE
    for spoilt in ({}, {name: weight[:1].clone() for name, weight in load_file(path).items()}):
        save_file(spoilt, path, {"since": "5"})
        code, _, err = run_main(*words)
        assert code == 1 and AVERAGE in err and "--output_dir" in err and "Traceback" not in err, err
