"""Stopped, killed, started again: the same command goes on, and ends where an unbroken run does, bit for bit."""

import json
import os
import signal
import time

import pytest
import torch
from conftest import signal_self
from safetensors.torch import load_file


@pytest.fixture
def long_run(train_words):
    """A run of 3 epochs of 12 steps with all that could disturb a resumed one: dropout, accumulation, evaluation."""
    return [
        "train.py", *train_words, "--do_train", "--do_eval", "--validation_split_percentage=20", "--eval_steps=4",
        "--per_device_train_batch_size=3", "--gradient_accumulation_steps=2", "--num_train_epochs=3",
        "--learning_rate=3e-3", "--logging_steps=5", "--save_steps=9", "--save_total_limit=1", "--report_to=none",
        "--overwrite_output_dir", "--resume_from_checkpoint=auto",
    ]  # fmt: skip


def result(folder):
    """The weights of a finished run and all it logged but for times."""
    state = json.loads((folder / "trainer_state.json").read_text())
    kept = ("step", "epoch", "loss", "grad_norm", "learning_rate", "eval_loss", "eval_bits_per_character")
    log = [{name: entry[name] for name in kept if name in entry} for entry in state["log_history"]]
    return load_file(folder / "model.safetensors"), [entry for entry in log if {"loss", "eval_loss"} & entry.keys()]


def assert_same(one, other):
    assert one[1] == other[1]
    torch.testing.assert_close(one[0], other[0], rtol=0, atol=0)


def test_a_run_stopped_at_random_steps_and_in_an_evaluation_ends_as_one_never_stopped(
    long_run, tmp_path, run_main, at_training_step, at_evaluation, rng
):
    unbroken = [*long_run, f"--output_dir={tmp_path / 'unbroken'}"]
    assert run_main(*unbroken)[0] == 0
    steps = json.loads((tmp_path / "unbroken" / "trainer_state.json").read_text())["max_steps"]
    assert steps % 3 == 0 and steps >= 24

    def stopped():
        code, _, err = run_main(*long_run)
        assert code == 75 and "--resume_from_checkpoint=auto" in err, err
        assert not (tmp_path / "out" / "config.json").exists()
        return err

    # Calls of training_step, two for each step, from where the last run stopped; the second evaluation is at step 8.
    assert at_training_step(rng.randint(1, 14), lambda _: signal_self(signal.SIGTERM)) == []
    assert "SIGTERM" in stopped()
    at_evaluation(8, lambda _: signal_self())
    assert "8스텝에서 멈추고" in stopped()
    assert at_training_step(rng.randint(1, 2 * (steps - 9)), lambda _: signal_self(signal.SIGUSR1)) == []
    assert "SIGUSR1" in stopped()
    code, _, err = run_main(*long_run)
    assert code == 0 and "이어서 학습합니다" in err and "missing keys" not in err
    assert_same(result(tmp_path / "out"), result(tmp_path / "unbroken"))
    assert not list((tmp_path / "out").glob("_*"))


def test_a_finished_run_says_so_and_one_killed_before_its_model_was_saved_saves_it(train_words, tmp_path, run_main):
    run = ["train.py", *train_words, "--do_train", "--max_steps=4", "--resume_from_checkpoint=auto"]
    assert run_main(*run)[0] == 0
    out = tmp_path / "out"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    code, _, err = run_main(*run)
    assert code == 0 and "이미 끝난 학습" in err
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    weights = load_file(out / "model.safetensors")
    for name in ("trainer_state.json", "model.safetensors", "config.json", "README.md"):
        (out / name).unlink()
    assert run_main(*run)[0] == 0
    assert all(torch.equal(weights[name], tensor) for name, tensor in load_file(out / "model.safetensors").items())
    assert (out / "config.json").exists() and (out / "README.md").exists()


def test_a_checkpoint_of_another_corpus_vocabulary_or_model_is_refused_by_name(
    train_words, small_corpus, tiny_model_folder, sample_texts, tmp_path, run_main
):
    import shutil

    moved, grown, other = tmp_path / "옮긴 글.txt", tmp_path / "다른 글.txt", tmp_path / "other"
    namesake = tmp_path / "elsewhere" / tiny_model_folder.name
    shutil.copy(small_corpus, moved)
    grown.write_text("\n\n".join(sample_texts[:13]), "utf-8")
    shutil.copytree(tiny_model_folder, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "resid_pdrop": 0.0}))
    shutil.copytree(other, namesake)
    run = ["train.py", *train_words, "--do_train", "--max_steps=2"]
    resume = [*run, "--max_steps=3", "--resume_from_checkpoint=auto", "--overwrite_output_dir"]
    assert run_main(*run)[0] == 0
    for words, named in (
        ([f"--dataset_path={grown}"], ["학습할 글", "토큰"]),
        ([f"--model_type={other}"], ["--model_type", "tiny", "other"]),
        ([f"--model_type={namesake}"], [f"--model_type: {namesake.name}의 파일이 그때와 다름"]),
        ([f"--tokenizer={other}"], ["--tokenizer", "other"]),
        (["--tokenizer=korean", "--vocab_size=512"], ["--tokenizer", "korean", "--vocab_size", "512"]),
        (["--block_size=16"], ["--block_size", "32", "16"]),
        (["--packing=stream"], ["--packing", "documents", "stream"]),
    ):
        code, _, err = run_main(*resume, *words)
        message = err[err.index("오류:") :]
        assert code == 1 and len(message.strip().splitlines()) <= 2
        way_on = f"--model_type={tmp_path / 'out' / 'checkpoint-2'}"  # by which what was learnt is kept
        assert all(word in message for word in [way_on, *named]), message
    assert (tmp_path / "out" / "checkpoint-2").exists()
    # The same text at another place is the same text.
    assert run_main(*resume, f"--dataset_path={moved}")[0] == 0


@pytest.mark.parametrize("configuration", ["plain", "overwriting", "best", "lora", "early", "average", "vocabulary"])
def test_kill_9_at_any_moment_costs_at_most_one_save_interval_and_nothing_else_in_the_end(
    small_corpus, tiny_model_folder, tmp_path, fork_script, run_script, configuration
):
    """GPT2_KOREAN_KILLS=170 for so many kills of each configuration."""
    import shutil

    shutil.copytree(tiny_model_folder, tmp_path / "model")
    harness, kills = "tests/training/crash_harness.py", os.environ.get("GPT2_KOREAN_KILLS")
    if kills:
        finished = run_script(harness, tmp_path, kills, configuration, timeout=None)
    else:
        finished = fork_script(harness, tmp_path, 4, configuration)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert f"{kills or 4}번 죽임" in finished.stdout


@pytest.mark.parametrize("undone", ["killed before the card", "killed before the record", "failed after the model"])
def test_a_run_that_ended_between_its_model_and_what_tells_of_it_makes_that_good(
    train_words, tmp_path, run_main, undone
):
    run = ["train.py", *train_words, "--do_train", "--max_steps=2", "--report_to=none", "--resume_from_checkpoint=auto"]
    assert run_main(*run)[0] == 0
    card, record = tmp_path / "out" / "README.md", tmp_path / "out" / "run.json"
    told = json.loads(record.read_text("utf-8"))
    left = {"end": None, "exit_code": None, "steps": {"done": 1, "of": 2}}
    record.write_text(json.dumps({**told, **({"exit_code": 1} if undone.startswith("failed") else left)}))
    if undone == "killed before the card":
        card.unlink()
    weights = (tmp_path / "out" / "model.safetensors").stat()
    code, _, err = run_main(*run)
    assert code == 0 and "이미 끝난 학습" in err
    again = json.loads(record.read_text("utf-8"))
    for name in ("steps", "losses", "exit_code"):
        assert again[name] == told[name]
    assert again["end"] and "gpt2-korean" in card.read_text("utf-8")
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == weights.st_mtime_ns


def test_each_run_has_a_folder_of_its_own_for_its_events_and_goes_on_in_it(train_words, run_main, tmp_path):
    words = ["train.py", *train_words, "--do_train", "--save_steps=2", "--report_to=tensorboard"]
    assert run_main(*words, "--max_steps=2")[0] == 0
    (folder,) = (tmp_path / "logs").iterdir()
    assert folder.name.startswith("out-") and list(folder.glob("events.out.tfevents.*"))
    # As if it had begun an hour ago.
    path = tmp_path / "out" / "checkpoint-2" / "resume.json"
    resume = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**resume, "started": resume["started"] - 3600}), "utf-8")
    begun = folder.rename(
        folder.with_name(time.strftime("out-%Y%m%d-%H%M%S", time.localtime(resume["started"] - 3600)))
    )
    assert run_main(*words, "--max_steps=4", "--resume_from_checkpoint=auto")[0] == 0
    assert list((tmp_path / "logs").iterdir()) == [begun] and len(list(begun.glob("events.out.tfevents.*"))) >= 2
    assert run_main(*words, "--max_steps=2", "--overwrite_output_dir")[0] == 0
    assert len(list((tmp_path / "logs").iterdir())) == 2
