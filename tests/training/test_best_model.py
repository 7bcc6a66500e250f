"""--early_stopping_patience and --load_best_model_at_end: bits per character decides, the best model is the result."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from conftest import signal_self
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState

from gpt2_korean.cli.train_options import parse_train_options
from gpt2_korean.messages import UsageError
from gpt2_korean.training.callbacks import StopEarly


@pytest.fixture
def run_words(train_words, tmp_path):
    """A run that first gets better at the held-out text and then worse, since that is another kind of text."""
    other = tmp_path / "다른 글.txt"
    other.write_text("The quick brown fox.\n\n한국어 다른 글이다. 비가 온다.", "utf-8")
    return [
        "train.py", *train_words, "--do_train", "--do_eval", f"--validation_file={other}", "--eval_steps=3",
        "--save_steps=7", "--max_steps=60", "--warmup_steps=10", "--per_device_train_batch_size=4",
        "--learning_rate=1e-2", "--report_to=none", "--resume_from_checkpoint=auto",
    ]  # fmt: skip


def bits(folder):
    """Step → bits per character in evaluation, of the log in a folder."""
    log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return {entry["step"]: entry["eval_bits_per_character"] for entry in log if "eval_loss" in entry}


def steps_saved(folder):
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))


def same_weights(one, other, name="model.safetensors"):
    one, other = load_file(one / name), load_file(other / name)
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def assert_ended_early(folder, patience):
    """That the run stopped just when `patience` evaluations in a row had not beaten the best; returns its step."""
    measured = bits(folder)
    best = min(measured, key=measured.get)
    assert max(measured) == json.loads((folder / "trainer_state.json").read_text())["global_step"] < 60
    assert len([step for step in measured if step > best]) == patience
    return best


def test_a_run_that_is_asked_to_stop_at_an_evaluation_is_not_said_to_end_early_for_it(capsys):
    early, control = StopEarly(3), TrainerControl(should_training_stop=True)
    asked = SimpleNamespace(metric_for_best_model="eval_loss", greater_is_better=False)
    early.on_evaluate(asked, TrainerState(), control, {"eval_loss": 1.0})
    assert not capsys.readouterr().err and not control.should_save


@pytest.mark.parametrize("limit", [None, 1])
def test_it_stops_where_nothing_gets_better_keeps_the_best_and_counts_as_finished(run_words, tmp_path, run_main, limit):
    run, out = [*run_words, "--early_stopping_patience=3"], tmp_path / "out"
    run += [f"--save_total_limit={limit}"] if limit else []
    code, first, err = run_main(*run)
    assert code == 0, err
    best = assert_ended_early(out, 3)
    last = best + 9
    assert best % 7 and last % 7  # saved although no interval asked for it; an earlier best does not stay
    assert steps_saved(out) == sorted([*([] if limit else range(7, last, 7)), best, last])
    assert same_weights(out, out / f"checkpoint-{best}") and not same_weights(out, out / f"checkpoint-{last}")
    log = json.loads((out / "trainer_state.json").read_text())["log_history"]
    assert any("loss" in entry and entry["step"] == last for entry in log)  # though no interval asked for it either
    # What is printed is of the model that is left, in this run and in one that finds it finished.
    assert json.loads(first.splitlines()[-1])["bits_per_character"] == pytest.approx(bits(out)[best])
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.suffix != ".png"}
    code, second, err = run_main(*run)
    assert code == 0 and "이미 끝난 학습" in err and "--early_stopping_patience" in err
    assert second == first
    assert all(path.stat().st_mtime_ns == time for path, time in before.items() if path.name != "run.json")


def test_a_larger_patience_goes_on_from_there(run_words, tmp_path, run_main):
    out = tmp_path / "out"
    assert run_main(*run_words, "--early_stopping_patience=1")[0] == 0
    last = max(bits(out))
    code, _, err = run_main(*run_words, "--early_stopping_patience=4")
    assert code == 0 and f"checkpoint-{last}" in err
    assert assert_ended_early(out, 4) == last - 3


def test_what_is_better_by_less_than_the_threshold_counts_as_no_better(run_words, tmp_path, run_main):
    words = ["--early_stopping_patience=1", "--early_stopping_threshold=100"]
    code, _, err = run_main(*run_words, *words)
    measured = bits(tmp_path / "out")
    assert code == 0 and list(measured) == [3, 6] and measured[6] < measured[3], err


def test_stopped_and_resumed_it_ends_at_the_same_step_with_the_same_model(
    run_words, tmp_path, run_main, at_training_step, at_evaluation
):
    run = [*run_words, "--early_stopping_patience=3"]
    assert run_main(*run, f"--output_dir={tmp_path / 'unbroken'}")[0] == 0
    best = assert_ended_early(tmp_path / "unbroken", 3)
    at_training_step(best + 5, lambda _: signal_self())  # one evaluation has brought nothing new
    assert run_main(*run)[0] == 75
    at_evaluation(best + 9, lambda _: signal_self())  # the evaluation that is to end the run
    assert run_main(*run)[0] == 75
    code, _, err = run_main(*run)
    assert code == 0 and "일찍 마칩니다" in err
    assert bits(tmp_path / "out") == bits(tmp_path / "unbroken")
    assert steps_saved(tmp_path / "out")[-1] == best + 9
    assert same_weights(tmp_path / "out", tmp_path / "unbroken")


def test_a_run_that_goes_on_ends_early_where_that_is_asked_for_only_then(run_words, tmp_path, run_main):
    out = tmp_path / "out"
    assert run_main(*run_words, "--max_steps=9")[0] == 0
    code, _, err = run_main(*run_words, "--early_stopping_patience=2")
    assert code == 0 and "일찍 마칩니다" in err, err
    assert (last := max(bits(out))) < 60
    # One without it has nothing to count, so that what it learnt is no reason to be finished at once.
    assert run_main(*run_words, f"--max_steps={last + 3}")[0] == 0
    code, _, err = run_main(*run_words, "--early_stopping_patience=2")
    assert code == 0 and max(bits(out)) > last + 3, err


def test_the_best_of_a_finished_run_is_left_where_it_is_asked_for_afterwards(run_words, tmp_path, run_main):
    run, out = [*run_words, "--save_steps=3"], tmp_path / "out"
    assert run_main(*run)[0] == 0
    best = min(bits(out), key=bits(out).get)
    assert same_weights(out, out / "checkpoint-60") and best < 60
    (out / "run.json").unlink()  # so that nothing tells which model is left
    for _ in range(2):
        code, measured, err = run_main(*run, "--load_best_model_at_end")
        assert code == 0 and "이미 끝난 학습" in err and same_weights(out, out / f"checkpoint-{best}"), err
        assert json.loads(measured.splitlines()[-1])["bits_per_character"] == pytest.approx(bits(out)[best])
    code, measured, err = run_main(*run)
    assert code == 0 and same_weights(out, out / f"checkpoint-{best}")
    # What stays is what is measured and told.
    assert json.loads(measured.splitlines()[-1])["bits_per_character"] == pytest.approx(bits(out)[best])
    assert f"({best}스텝)" in err


@pytest.mark.parametrize("adapter", [[], ["--lora_rank=2"]])
def test_the_best_of_a_finished_run_is_told_and_measured_though_its_checkpoint_was_deleted(
    run_words, tmp_path, run_main, adapter
):
    run, out = [*run_words, *adapter], tmp_path / "out"
    assert run_main(*run, "--load_best_model_at_end")[0] == 0
    best = min(bits(out), key=bits(out).get)
    shutil.rmtree(out / f"checkpoint-{best}")
    code, measured, err = run_main(*run)
    assert code == 0 and "마지막 모델을 남깁니다" not in err and f"({best}스텝)" in err.splitlines()[-2], err
    assert json.loads(measured.splitlines()[-1])["bits_per_character"] == pytest.approx(bits(out)[best], abs=1e-3)


def test_a_best_that_stayed_in_another_folder_is_told(run_words, tmp_path, run_main):
    run, first = [*run_words, "--load_best_model_at_end"], tmp_path / "out"
    assert run_main(*run, "--max_steps=30")[0] == 0
    measured = bits(first)
    assert (best := min(measured, key=measured.get)) < 28
    from_there = [f"--resume_from_checkpoint={first / 'checkpoint-28'}", f"--output_dir={tmp_path / 'other'}"]
    code, _, err = run_main(*run, "--max_steps=30", *from_there)
    assert code == 0 and f"{best}스텝의 체크포인트가 {tmp_path / 'other'}에 없어 마지막 모델을 남깁니다" in err
    assert same_weights(tmp_path / "other", tmp_path / "other" / "checkpoint-30")
    assert "남깁니다" not in run_main(*run, "--max_steps=30")[2]
    # What goes back to where it now is to end leaves the model of then, where no better one is asked for.
    back = ["--max_steps=28", f"--resume_from_checkpoint={first / 'checkpoint-28'}"]
    assert "이미 끝난 학습" in run_main(*run_words, *back)[2] and same_weights(first, first / "checkpoint-28")


def test_the_best_adapter_is_what_is_merged(run_words, tmp_path, run_main):
    run, out = [*run_words, "--lora_rank=4", "--learning_rate=0.1", "--early_stopping_patience=2"], tmp_path / "out"
    code, _, err = run_main(*run)
    assert code == 0, err
    best = assert_ended_early(out, 2)
    name = "adapter_model.safetensors"
    assert same_weights(out / "adapter", out / f"checkpoint-{best}", name)
    assert not same_weights(out / "adapter", out / f"checkpoint-{best + 6}", name)


@pytest.mark.parametrize(
    "words",
    [
        ["--metric_for_best_model=loss"],
        ["--save_strategy=epoch", "--eval_strategy=epoch", "--per_device_train_batch_size=16"],
        ["--save_strategy=best", "--save_total_limit=1"],
    ],
)
def test_the_best_model_is_left_whatever_the_intervals(run_words, tmp_path, run_main, words):
    code, _, err = run_main(*run_words, "--max_steps=24", "--load_best_model_at_end", *words)
    assert code == 0, err
    measured = bits(tmp_path / "out")
    best = min(measured, key=measured.get)
    assert best < max(measured)
    assert same_weights(tmp_path / "out", tmp_path / "out" / f"checkpoint-{best}")
    assert steps_saved(tmp_path / "out")[-1] == 24
    assert "이미 끝난" in run_main(*run_words, "--max_steps=24", "--load_best_model_at_end", *words)[2]


DO = ["--do_train", "--dataset_path=x"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--early_stopping_patience=3"], ["--early_stopping_patience", "--do_eval", "--eval_steps"]),
        (["--do_eval", "--eval_steps=9", "--eval_strategy=no", "--load_best_model_at_end"], ["--eval_strategy=no"]),
        (["--do_eval", "--load_best_model_at_end"], ["--load_best_model_at_end", "--eval_steps"]),
        (["--do_eval", "--save_strategy=best"], ["--save_strategy=best", "--eval_steps"]),
        (["--do_eval", "--eval_steps=9", "--early_stopping_threshold=0.1"], ["--early_stopping_patience"]),
        (["--do_eval", "--eval_steps=9", "--load_best_model_at_end", "--save_strategy=no"], ["--save_strategy=no"]),
        (["--do_eval", "--metric_for_best_model=accuracy"], ["--metric_for_best_model", "bits_per_character"]),
    ],
)
def test_what_cannot_work_is_refused_by_name(words, named):
    with pytest.raises(UsageError) as refusal:
        parse_train_options([*DO, *words])
    assert all(word in str(refusal.value) for word in named), refusal.value


def test_lower_is_better_for_every_measure():
    evaluated = [*DO, "--do_eval", "--eval_steps=9"]
    for words in (["--load_best_model_at_end"], ["--early_stopping_patience=2", "--metric_for_best_model=perplexity"]):
        arguments = parse_train_options([*evaluated, *words]).learning.trainer_arguments
        assert arguments["load_best_model_at_end"] and arguments["greater_is_better"] is False
    chosen = parse_train_options([*evaluated, "--early_stopping_patience=2", "--no_load_best_model_at_end"])
    assert chosen.learning.trainer_arguments["load_best_model_at_end"] is False
    assert chosen.learning.trainer_arguments["metric_for_best_model"] == "eval_bits_per_character"


def test_a_new_best_that_the_run_before_owed_leaves_the_random_numbers_as_they_were(
    run_words, tmp_path, run_main, at_evaluation
):
    run = [*run_words, "--max_steps=9", "--load_best_model_at_end", "--dropout=0.3"]
    assert run_main(*run, f"--output_dir={tmp_path / 'unbroken'}")[0] == 0
    measured = bits(tmp_path / "unbroken")
    assert measured[6] < measured[3]
    at_evaluation(6, lambda _: signal_self())
    assert run_main(*run)[0] == 75
    assert run_main(*run)[0] == 0
    assert bits(tmp_path / "out") == measured
    assert same_weights(tmp_path / "out" / "checkpoint-9", tmp_path / "unbroken" / "checkpoint-9")


def test_a_signal_in_the_last_step_within_an_epoch_leaves_its_evaluation_to_the_next_run(
    run_words, tmp_path, run_main, at_training_step
):
    run = [*run_words, "--max_steps=5", "--eval_strategy=epoch", "--load_best_model_at_end"]
    assert run_main(*run, f"--output_dir={tmp_path / 'unbroken'}")[0] == 0
    assert list(bits(tmp_path / "unbroken")) == [5]
    at_training_step(5, lambda _: signal_self())
    assert run_main(*run)[0] == 75
    assert run_main(*run)[0] == 0
    assert bits(tmp_path / "out") == bits(tmp_path / "unbroken")
    assert same_weights(tmp_path / "out", tmp_path / "unbroken")


def test_an_evaluation_that_was_left_to_a_run_that_has_none_is_left_out(
    run_words, tmp_path, run_main, at_training_step
):
    run = [word for word in run_words if not word.startswith(("--do_eval", "--validation_file", "--eval_steps"))]
    at_training_step(2, lambda _: signal_self())
    assert run_main(*run_words, "--max_steps=2", "--eval_strategy=epoch")[0] == 75
    code, _, err = run_main(*run, "--max_steps=2")
    assert code == 0 and "이미 끝난 학습" in err and not bits(tmp_path / "out"), err


def test_a_signal_in_a_step_that_is_evaluated_leaves_its_evaluation_to_the_next_run(
    run_words, tmp_path, run_main, at_training_step
):
    at_training_step(3, lambda _: signal_self())
    assert run_main(*run_words, "--max_steps=6")[0] == 75 and not bits(tmp_path / "out" / "checkpoint-3")
    assert run_main(*run_words, "--max_steps=6")[0] == 0 and list(bits(tmp_path / "out")) == [3, 6]


def test_an_evaluation_that_is_made_up_for_stops_too(run_words, tmp_path, run_main, at_evaluation):
    for _ in range(2):
        at_evaluation(3, lambda _: signal_self())
        code, _, err = run_main(*run_words, "--max_steps=6")
        assert code == 75 and "3스텝에서 멈추고" in err, err
    assert run_main(*run_words, "--max_steps=6")[0] == 0 and list(bits(tmp_path / "out")) == [3, 6]


def test_a_run_that_ends_between_an_epochs_last_step_and_its_evaluation_leaves_it_to_the_next_run(
    run_words, tmp_path, run_main, at_training_step, at_evaluation
):
    run = [*run_words, "--max_steps=-1", "--num_train_epochs=2", "--eval_strategy=epoch", "--load_best_model_at_end"]
    run += ["--learning_rate=1e-3"]  # the second epoch is the best
    assert run_main(*run, f"--output_dir={tmp_path / 'unbroken'}")[0] == 0
    measured = bits(tmp_path / "unbroken")
    first, last = measured
    assert measured[last] < measured[first]
    at_training_step(first, lambda _: signal_self())
    assert run_main(*run)[0] == 75

    def break_down(_):
        raise OSError("killed")

    at_evaluation(last, break_down)
    assert run_main(*run)[0] == 1 and steps_saved(tmp_path / "out")[-1] == last
    assert run_main(*run)[0] == 0
    assert bits(tmp_path / "out") == measured
    assert same_weights(tmp_path / "out", tmp_path / "unbroken")


def test_the_evaluations_before_eval_delay_are_not_made_up_for(run_words, tmp_path, run_main, at_training_step):
    run = [*run_words, "--max_steps=-1", "--num_train_epochs=3", "--eval_strategy=epoch", "--eval_delay=2"]
    run += ["--load_best_model_at_end"]
    assert run_main(*run, f"--output_dir={tmp_path / 'unbroken'}")[0] == 0
    second, third = bits(tmp_path / "unbroken")
    at_training_step(third - second, lambda _: signal_self())
    assert run_main(*run)[0] == 75 and run_main(*run)[0] == 0
    assert bits(tmp_path / "out") == bits(tmp_path / "unbroken")


def test_the_best_is_one_that_was_saved_though_the_model_was_better_before_its_first_step(
    run_words, tmp_path, run_main
):
    run = [*run_words, "--max_steps=9", "--warmup_steps=0", "--learning_rate=1", "--save_steps=1", "--eval_on_start"]
    code, _, err = run_main(*run, "--load_best_model_at_end")
    measured = bits(tmp_path / "out")
    assert code == 0 and min(measured, key=measured.get) == 0 and measured.pop(0), err
    best = min(measured, key=measured.get)
    assert json.loads((tmp_path / "out" / "trainer_state.json").read_text())["best_global_step"] == best
    assert same_weights(tmp_path / "out", tmp_path / "out" / f"checkpoint-{best}")


def test_the_best_so_far_is_compared_by_another_metric_from_where_that_is_asked_for(run_words, tmp_path, run_main):
    run = [*run_words, "--load_best_model_at_end"]
    assert run_main(*run, "--max_steps=30")[0] == 0
    assert (best := min(bits(tmp_path / "out"), key=bits(tmp_path / "out").get)) < 30
    code, _, err = run_main(*run, "--max_steps=36", "--metric_for_best_model=loss")
    assert code == 0 and best == min(bits(tmp_path / "out"), key=bits(tmp_path / "out").get), err
    assert same_weights(tmp_path / "out", tmp_path / "out" / f"checkpoint-{best}")


def test_an_evaluation_before_the_first_step_stops_with_nothing_to_save_and_is_made_once(
    run_words, tmp_path, run_main, at_training_step, at_evaluation
):
    run = [*run_words, "--max_steps=6", "--eval_on_start", "--early_stopping_patience=3"]
    at_evaluation(0, lambda _: signal_self())
    code, _, err = run_main(*run)
    assert code == 75 and "평가를 마치지 않고 멈췄습니다" in err and not steps_saved(tmp_path / "out"), err
    at_training_step(5, lambda _: signal_self())
    assert run_main(*run)[0] == 75
    assert run_main(*run)[0] == 0
    assert list(bits(tmp_path / "out")) == [0, 3, 6]


def test_a_checkpoint_that_an_interval_asked_for_stays_though_its_evaluation_was_owed(
    run_words, tmp_path, run_main, at_evaluation
):
    """Evaluated by the run that goes on, it is the best for a while."""
    words = [*run_words, "--eval_steps=3", "--save_steps=3", "--max_steps=9", "--load_best_model_at_end"]
    words += ["--learning_rate=1e-3"]
    at_evaluation(3, lambda _: signal_self())
    assert run_main(*words)[0] == 75
    assert run_main(*words)[0] == 0
    measured = bits(tmp_path / "out")
    assert measured[9] < measured[3]
    assert steps_saved(tmp_path / "out") == [3, 6, 9]


def test_the_best_is_not_chosen_by_what_was_measured_on_two_texts(run_words, tmp_path, run_main):
    def go_on(steps, *words):
        return run_main(*run_words, "--load_best_model_at_end", f"--max_steps={steps}", *words)

    assert go_on(6)[0] == 0
    (tmp_path / "다른 글.txt").write_text("고친 글이다.", "utf-8")
    code, _, err = go_on(9)
    assert code == 1 and "(평가할 글: " in err
    assert go_on(9, "--load_best_model_at_end=false")[0] == 0
    # Nor by what a run measured that did not ask for the best yet.
    (tmp_path / "다른 글.txt").write_text("또 고친 글이다.", "utf-8")
    code, _, err = go_on(12)
    assert code == 1 and "(평가할 글: " in err
