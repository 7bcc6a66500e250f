"""A run goes on exactly as it would have, or is refused by name before anything is trained."""

import json
import shutil
import time
from types import SimpleNamespace

import pytest
import torch
from conftest import NO_DROPOUT, save_tiny_gpt2, signal_self
from safetensors.torch import load_file

from gpt2_korean.training.callbacks import KeepCheckpoints
from gpt2_korean.training.trainer import KoreanTrainer


@pytest.fixture(scope="module")
def six_steps(tmp_path_factory):
    """Where the 6 steps of `half` are kept, from which each test goes on: the first test takes them."""
    return tmp_path_factory.mktemp("half") / "out"


@pytest.fixture
def half(train_words, tmp_path, run_main, six_steps):
    """The words of a run of 9 steps, of which 6 are done."""
    words = ["train.py", *train_words, "--do_train", "--report_to=none", "--save_steps=6", "--logging_steps=1"]
    words += ["--per_device_train_batch_size=4", "--gradient_accumulation_steps=2", "--block_size=8"]
    if six_steps.exists():
        shutil.copytree(six_steps, tmp_path / "out")
    else:
        assert run_main(*words, "--max_steps=6")[0] == 0
        shutil.copytree(tmp_path / "out", six_steps)
    return [*words, "--max_steps=9", "--resume_from_checkpoint=auto"]


def refused(run_main, words, *named):
    code, out, err = run_main(*words)
    message = err[err.index("오류:") :].strip()
    assert code == 1 and out == "" and "Traceback" not in err and len(message.splitlines()) <= 2, err
    assert all(word in message for word in (*named, "checkpoint-6", "--output_dir", "--model_type")), message


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_without_a_state_is_refused_and_begins_a_new_run_as_a_model(half, tmp_path, run_main, name):
    checkpoint = tmp_path / "out" / "checkpoint-6"
    (checkpoint / name).unlink()
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.suffix == ".safetensors"}
    refused(run_main, half, name)
    assert before == {path: path.read_bytes() for path in before}
    assert run_main(*half, f"--model_type={checkpoint}", f"--output_dir={tmp_path / 'new'}")[0] == 0


def test_a_run_that_saved_models_only_is_refused_unless_it_is_finished(train_words, run_main):
    words = ["train.py", *train_words, "--do_train", "--report_to=none", "--save_only_model"]
    words += ["--resume_from_checkpoint=auto"]
    assert run_main(*words, "--max_steps=6")[0] == 0
    code, _, err = run_main(*words, "--max_steps=6")
    assert code == 0 and "이미 끝난 학습" in err
    refused(run_main, [*words, "--max_steps=9"], "optimizer.pt", "scheduler.pt", "rng_state.pth", "--save_only_model")


@pytest.mark.parametrize("moment", ["a step", "an evaluation", "a save"])
def test_a_run_that_saves_models_only_goes_on_from_where_it_was_stopped(
    train_words, tmp_path, run_main, at_training_step, at_evaluation, monkeypatch, moment
):
    words = ["train.py", *train_words, "--do_train", "--report_to=none", "--save_only_model", "--max_steps=5"]
    words += ["--save_steps=2", "--do_eval", "--eval_steps=3", "--resume_from_checkpoint=auto"]
    if moment == "a step":
        at_training_step(3, lambda _: signal_self())
    if moment == "an evaluation":
        at_evaluation(3, lambda _: signal_self())
    with monkeypatch.context() as patch:
        if moment == "a save":
            patch.setattr(KeepCheckpoints, "on_save", lambda *_, **__: signal_self())
        code, _, err = run_main(*words)
    assert code == 75 and "3스텝에서 멈추고" in err, err
    code, _, err = run_main(*words)
    assert code == 0 and "이어서 학습합니다" in err, err
    assert [path.parent.name for path in tmp_path.glob("out/*/optimizer.pt")] == ["checkpoint-3"]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--per_device_train_batch_size=8"], ["--per_device_train_batch_size", "4×2", "8×2"]),
        (["--weight_decay=0.5", "--adam_beta2=0.9"], ["--weight_decay", "0.5", "--adam_beta2", "0.9"]),
    ],
)
def test_another_way_of_learning_is_refused_by_name(half, run_main, flags, named):
    refused(run_main, [*half, *flags], *named)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ([], []),
        (
            ["--lr_scheduler_type=cosine", '--lr_scheduler_kwargs={"num_cycles": 2}', "--warmup_steps=3"],
            ["--lr_scheduler_type", "linear", "cosine", "--lr_scheduler_kwargs", "num_cycles", "--warmup_steps"],
        ),
        (
            ["--max_grad_norm=0.5", "--neftune_noise_alpha=5"],
            ["--max_grad_norm", "0.5", "--neftune_noise_alpha", "없음"],
        ),
    ],
)
def test_what_is_another_from_here_on_is_said(half, run_main, flags, named):
    code, _, err = run_main(*half, *flags)
    lines = [line for line in err.splitlines() if "다른 값으로 이어" in line]
    assert code == 0 and len(lines) == bool(flags) and all(word in lines[0] for word in named), err


def test_a_run_goes_on_with_its_schedules_own_numbers(half, run_main):
    words = [*half, "--lr_scheduler_type=cosine_with_min_lr", '--lr_scheduler_kwargs={"min_lr": 1e-6}']
    assert run_main(*words)[0] == 0
    code, _, err = run_main(*words, "--max_steps=12")
    assert code == 0 and "[12/12]" in err and "다른 값으로" not in err, err


def test_a_run_that_began_with_fp16_goes_on_without(half, tmp_path, run_main):
    torch.save(torch.amp.GradScaler("cpu").state_dict(), tmp_path / "out" / "checkpoint-6" / "scaler.pt")
    code, _, err = run_main(*half)
    assert code == 0 and "[9/9]" in err, err


def test_a_run_that_is_made_longer_goes_on_at_the_rates_of_the_longer_one(half, tmp_path, run_main):
    assert "이미 끝난 학습" in run_main(*half, "--max_steps=5")[2]  # nor is it made shorter
    code, _, err = run_main(*half, "--learning_rate=5e-5", "--max_steps=9", "--logging_steps=1")
    log = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
    rates = [entry["learning_rate"] for entry in log if "loss" in entry and entry["step"] > 6]
    assert code == 0 and "주의" not in err, err
    assert rates == pytest.approx([5e-5 * left / 9 for left in (3, 2, 1)])


def test_a_run_that_goes_on_saves_evaluates_and_logs_as_often_as_it_is_told_now(half, small_corpus, tmp_path, run_main):
    evaluated = ["--do_eval", f"--validation_file={small_corpus}", "--eval_steps=2"]
    code, _, err = run_main(*half, "--max_steps=12", "--save_steps=0.25", "--logging_steps=5", *evaluated)
    assert code == 0 and "trainer_state.json" not in err, err
    log = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
    steps = {
        name: [entry["step"] for entry in log if name in entry and entry["step"] > 6] for name in ("loss", "eval_loss")
    }
    assert steps == {"loss": [10, 12], "eval_loss": [8, 10, 12]}
    assert {path.name for path in (tmp_path / "out").glob("checkpoint-*")} == {
        f"checkpoint-{step}" for step in (6, 9, 12)
    }


def test_what_a_run_saves_that_goes_back_to_an_earlier_checkpoint_is_the_newest(half, tmp_path, run_main):
    out, words = tmp_path / "out", [word for word in half if "=auto" not in word]
    assert run_main(*words, "--save_steps=2", "--overwrite_output_dir")[0] == 0
    back = [f"--resume_from_checkpoint={out / 'checkpoint-4'}", "--lr_scheduler_type=constant"]
    assert run_main(*words, *back, "--max_steps=5", "--save_total_limit=1")[0] == 0
    assert [path.name for path in out.glob("checkpoint-*")] == ["checkpoint-5"]
    model = (out / "model.safetensors").read_bytes()
    code, _, err = run_main(*half, "--lr_scheduler_type=constant", "--max_steps=5")
    assert code == 0 and "checkpoint-5" in err and "이미 끝난 학습" in err, err
    assert (out / "model.safetensors").read_bytes() == model


def test_a_run_that_goes_back_and_ends_before_its_model_is_saved_leaves_it_to_the_next_one(
    half, tmp_path, run_main, monkeypatch
):
    out, words = tmp_path / "out", [word for word in half if "=auto" not in word]
    assert run_main(*words, "--save_steps=2", "--max_steps=5", "--overwrite_output_dir")[0] == 0
    back = [f"--resume_from_checkpoint={out / 'checkpoint-2'}", "--lr_scheduler_type=constant", "--max_steps=5"]
    with monkeypatch.context() as patched:
        patched.setattr(KoreanTrainer, "save_whole_model", lambda _: 1 / 0)
        assert run_main(*words, *back)[0] == 1
    assert (out / "model.safetensors").read_bytes() != (out / "checkpoint-5" / "model.safetensors").read_bytes()
    code, _, err = run_main(*half, *back[1:], "--save_total_limit=1")
    assert code == 0 and "이미 끝난 학습" in err, err
    assert [path.name for path in out.glob("checkpoint-*")] == ["checkpoint-5"]
    assert (out / "model.safetensors").read_bytes() == (out / "checkpoint-5" / "model.safetensors").read_bytes()


def test_what_goes_back_is_the_newest_though_the_clock_was_put_back_too(half, tmp_path, run_main, monkeypatch):
    out, words = tmp_path / "out", [word for word in half if "=auto" not in word]
    assert run_main(*words, "--save_steps=2", "--overwrite_output_dir")[0] == 0
    back, now = [f"--resume_from_checkpoint={out / 'checkpoint-4'}", "--max_steps=5"], time.time
    monkeypatch.setattr("gpt2_korean.checkpoints.same_run.time", SimpleNamespace(time=lambda: now() - 86400))
    assert run_main(*words, *back, "--save_total_limit=1")[0] == 0
    assert [path.name for path in out.glob("checkpoint-*")] == ["checkpoint-5"]


def test_another_number_of_processes_is_refused_by_name(half, fork_script):
    for finished in fork_script(*half, ranks=2):
        assert finished.returncode == 1 and "프로세스의 수: 체크포인트는 1, 지금은 2" in finished.stderr, (
            finished.stderr
        )


def test_a_checkpoint_that_does_not_say_how_it_learnt_goes_on_as_it_always_did(half, tmp_path, run_main):
    path = tmp_path / "out" / "checkpoint-6" / "resume.json"
    content = json.loads(path.read_text("utf-8"))
    del content["learning"]
    path.write_text(json.dumps(content), "utf-8")
    assert run_main(*half, "--gradient_accumulation_steps=1")[0] == 0


def test_the_same_blocks_of_a_step_in_other_parts_go_on_exactly(
    train_words, byte_tokenizer, tmp_path, run_main, monkeypatch
):
    """Short steps at the ends of epochs included."""
    model = save_tiny_gpt2(tmp_path / "still", byte_tokenizer, initializer_range=0.02, **NO_DROPOUT)
    words = ["train.py", *train_words, "--do_train", "--report_to=none", "--logging_steps=1", "--save_steps=7"]
    words += [f"--model_type={model}", "--optim=sgd", "--learning_rate=0.1", "--block_size=30", "--num_train_epochs=3"]
    seen, step = {}, KoreanTrainer.training_step

    def see(self, model, inputs, *rest):
        rows = zip(inputs["input_ids"], inputs["labels"], strict=True)
        blocks = [row[: 1 + len(labels[labels >= 0])].tolist() for row, labels in rows]
        seen[self.state.global_step] = sorted(seen.get(self.state.global_step, []) + blocks)
        return step(self, model, inputs, *rest)

    monkeypatch.setattr(KoreanTrainer, "training_step", see)
    old = ["--per_device_train_batch_size=4", "--gradient_accumulation_steps=2"]
    assert run_main(*words, *old)[0] == 0
    whole = dict(seen)
    assert max(whole) > 8 and {len(blocks) for blocks in whole.values()} > {8}
    expected = load_file(tmp_path / "out" / "model.safetensors")
    for size, times in ((2, 4), (8, 1), (1, 8)):
        seen.clear()
        out = tmp_path / f"{size}×{times}"
        shutil.copytree(tmp_path / "out" / "checkpoint-7", out / "checkpoint-7")
        flags = [f"--per_device_train_batch_size={size}", f"--gradient_accumulation_steps={times}"]
        code, _, err = run_main(*words, *flags, f"--output_dir={out}", "--resume_from_checkpoint=auto")
        assert code == 0 and f"4×2 대신 {size}×{times}" in err, err
        assert seen == {number: blocks for number, blocks in whole.items() if number >= 7}
        torch.testing.assert_close(load_file(out / "model.safetensors"), expected, rtol=1e-4, atol=1e-6)


def test_a_run_whose_batch_size_was_found_goes_on_with_the_blocks_of_a_step(half, tmp_path, run_main, monkeypatch):
    step, seen = KoreanTrainer.training_step, []

    def too_large_for_the_device(self, model, inputs, *rest):
        if len(inputs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        seen.append(self.state.global_step)
        return step(self, model, inputs, *rest)

    monkeypatch.setattr(KoreanTrainer, "training_step", too_large_for_the_device)
    words = [*half, "--auto_find_batch_size", f"--output_dir={tmp_path / 'found'}"]
    assert run_main(*words, "--max_steps=3", "--save_steps=2")[0] == 0
    shutil.rmtree(tmp_path / "found" / "checkpoint-3")
    seen.clear()
    code, _, err = run_main(*words, "--max_steps=5")
    assert code == 0, err
    assert [seen.count(number) for number in (2, 3, 4)] == [4, 4, 4]  # 2 blocks, 4 times


def test_what_another_run_left_in_the_output_dir_is_replaced_only_where_that_is_asked_for(half, tmp_path, run_main):
    assert run_main(*half)[0] == 0
    source, other = tmp_path / "out" / "checkpoint-6", tmp_path / "other"
    words = [word for word in half if "=auto" not in word] + ["--save_steps=2", "--save_total_limit=1"]
    assert run_main(*words, "--seed=7", "--max_steps=12", f"--output_dir={other}")[0] == 0
    words += [f"--resume_from_checkpoint={source}", f"--output_dir={other}"]
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    code, _, err = run_main(*words)
    assert code == 2 and "지난 학습의 결과" in err and "checkpoint-12" in err and "--overwrite_output_dir" in err, err
    assert before == {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    for more in ([], [f"--resume_from_checkpoint={tmp_path / 'out' / 'checkpoint-9'}"]):  # the second has ended
        assert run_main(*words, *more, "--overwrite_output_dir")[0] == 0
        assert (other / "training_curve.png").exists()
        assert [path.name for path in other.glob("checkpoint-*")] == ([] if more else ["checkpoint-9"])
        mine, theirs = (load_file(folder / "model.safetensors") for folder in (other, tmp_path / "out"))
        assert all(torch.equal(mine[name], weight) for name, weight in theirs.items())
    assert source.exists() and (tmp_path / "out" / "checkpoint-9").exists()


def test_the_folder_of_a_run_in_place_of_a_checkpoint_names_those_in_it(half, tmp_path, run_main):
    code, _, err = run_main(*half, f"--resume_from_checkpoint={tmp_path / 'out'}", f"--output_dir={tmp_path / 'new'}")
    assert code == 2 and "온전한 체크포인트가 아닙니다" in err and "out/checkpoint-6" in err, err
