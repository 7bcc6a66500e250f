"""A checkpoint whose state is of no run, or of another, is passed over in a line, or refused in one or two."""

import json
import shutil

import pytest
import torch


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept") / "out"


@pytest.fixture
def run(train_words, small_corpus, kept, tmp_path, run_main):
    """The words of a run of 3 steps, of which 2 are done and both saved."""
    corpus = kept.parent / small_corpus.name  # the same in each test
    words = ["train.py", *train_words, f"--dataset_path={corpus}", "--do_train", "--report_to=none", "--save_steps=1"]
    words += ["--resume_from_checkpoint=auto", "--logging_steps=1", "--block_size=16"]
    if not kept.exists():
        shutil.copy(small_corpus, corpus)
        assert run_main(*words, f"--output_dir={kept}", "--max_steps=2")[0] == 0
    shutil.copytree(kept, tmp_path / "out")
    return [*words, "--max_steps=3"]


def state(**values):
    return "trainer_state.json", lambda path: {**json.loads(path.read_text()), **values}


def resume(**values):
    return "resume.json", lambda path: {**json.loads(path.read_text()), **values}


def saved(name, content):
    return name, lambda path: content


def shrunk(path):
    content = torch.load(path, weights_only=True)
    for each in content["state"].values():
        each["exp_avg"] = each["exp_avg"][:1]
    return content


def turned(path):
    """Of as many numbers as before, each with another weight."""
    content = torch.load(path, weights_only=True)
    kept = content["state"]
    return {**content, "state": {key: kept[(key + 1) % len(kept)] for key in kept}}


def without_model(path):
    content = json.loads(path.read_text())
    del content["model"]
    return content


DEEP = "[" * 100_000
PASSED_OVER = [
    state(new_key=1), state(log_history=5), state(log_history=[{"loss": "x"}]), state(epoch="x"), state(total_flos="x"),
    state(stateful_callbacks=5), state(stateful_callbacks={}), state(best_global_step="x"), state(global_step="2"),
    saved("trainer_state.json", []), saved("trainer_state.json", DEEP), resume(model=5), resume(corpus={}),
    resume(started="x"), resume(learning={"batch_size": "x"}), resume(unlogged_loss=[]), resume(block_size="x"),
    saved("optimizer.pt", [1]), saved("optimizer.pt", {}), ("optimizer.pt", shrunk), saved("scheduler.pt", [1]),
    saved("scheduler.pt", {"state": {}}), saved("config.json", []), saved("tokenizer.json", []),
    saved("tokenizer_config.json", []), saved("adapter_config.json", []), saved("resume.json", 1),
    saved("resume.json", None), saved("resume.json", DEEP), ("config.json", None), state(log_history=[5]),
    state(log_history=[{"eval_loss": "x"}]), state(global_step=True), resume(corpus=5), resume(learning=[1]),
    resume(corpus={"tokens": "x", "hash": "y"}), resume(corpus={"tokens": 1, "hash": 5}), resume(plan=5),
    resume(learning={"seed": [1]}), resume(plan={"dropout": 5}), resume(plan={"dropout": [1]}),
    ("resume.json", without_model), saved("optimizer.pt", {"param_groups": [5], "state": {}}),
]  # fmt: skip


def spoil(checkpoint, name, change):
    path = checkpoint / name
    if change is None:
        path.unlink()
        return
    content = change(path)
    if path.suffix == ".json":
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    else:
        torch.save(content, path)


@pytest.mark.parametrize(("name", "change"), PASSED_OVER)
def test_the_next_whole_checkpoint_is_found_and_a_line_says_so(name, change, run, tmp_path, capsys):
    from gpt2_korean.checkpoints.going_on import find_starting_point
    from gpt2_korean.messages import UserError
    from gpt2_korean.model.files import check_files

    out = tmp_path / "out"
    spoil(out / "checkpoint-2", name, change)
    assert find_starting_point(out, False, "auto", check_files) == out / "checkpoint-1"
    err = capsys.readouterr().err
    assert "checkpoint-2" in err and len(err.strip().splitlines()) == 1, err
    with pytest.raises(UserError, match="checkpoint-2"):
        find_starting_point(out, False, str(out / "checkpoint-2"), check_files)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        state(log_history=[{"note": "x", "loss": 1}]), resume(corpus={"name": "x"}), resume(plan=None),
        resume(plan={"dropout": [0, "까닭"]}), resume(learning={"optim": "x", "seed": 1, "lr_scheduler_kwargs": {}}),
        resume(held_out=None, tokenizer={"name": "x"}), state(best_metric=None),
    ],
)  # fmt: skip
def test_what_a_run_may_have_said_is_no_fault(name, change, run, tmp_path):
    from gpt2_korean.checkpoints.going_on import find_trouble

    spoil(tmp_path / "out" / "checkpoint-2", name, change)
    assert find_trouble(tmp_path / "out" / "checkpoint-2") is None


def test_what_a_checkpoint_lacks_is_told_with_the_flag_that_names_it(run, tmp_path, run_main):
    given = f"--resume_from_checkpoint={tmp_path / 'out' / 'checkpoint-2'}"
    (tmp_path / "out" / "checkpoint-2" / "tokenizer.json").unlink()
    code, _, err = run_main(*run, given)
    assert code == 1 and f"{given}: 토크나이저가 없는 모델입니다" in err, err


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_run_that_lost_a_state_goes_on_from_the_one_before(name, run, tmp_path, run_main):
    (tmp_path / "out" / "checkpoint-2" / name).unlink()
    spoil(tmp_path / "out" / "checkpoint-2", *state(max_steps=3))
    code, _, err = run_main(*run)
    assert code == 0 and "checkpoint-2: 학습하던 상태" in err, err
    assert "checkpoint-1" in err[err.index("이어서 학습합니다") :], err


def test_a_finished_run_that_lost_a_state_is_finished_and_names_the_one_to_go_on_from(run, tmp_path, run_main):
    (tmp_path / "out" / "checkpoint-2" / "optimizer.pt").unlink()
    code, _, err = run_main(*run, "--max_steps=2")
    assert code == 0 and "이미 끝난 학습" in err, err
    code, _, err = run_main(*run)
    message = err[err.index("오류:") :].strip()
    assert code == 1 and f"--resume_from_checkpoint={tmp_path / 'out' / 'checkpoint-1'}" in message, err
    assert "--model_type" in message and len(message.splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "change"),
    [("optimizer.pt", turned), saved("scheduler.pt", {"last_epoch": 2}), saved("rng_state.pth", {"python": 5})],
)
def test_what_only_the_run_can_tell_is_refused_before_a_step(name, change, run, tmp_path, run_main):
    spoil(tmp_path / "out" / "checkpoint-2", name, change)
    code, _, err = run_main(*run)
    message = err[err.index("오류:") :].strip()
    assert code == 1 and name in message and "checkpoint-2" in message and "--model_type" in message, err
    assert len(message.splitlines()) == 2 and "Traceback" not in err
