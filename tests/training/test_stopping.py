"""However a run ends before its last step: a clear line, the right exit code, and every checkpoint intact."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, signal_self
from transformers import Trainer

from gpt2_korean.checkpoints import complete


@pytest.fixture
def run(train_words):
    return [
        "train.py", *train_words, "--do_train", "--max_steps=8", "--save_steps=2", "--report_to=none",
        "--per_device_train_batch_size=2", "--resume_from_checkpoint=auto",
    ]  # fmt: skip


def start_python(code):
    """Run Python code that prints a line once it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline()
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
@pytest.mark.parametrize("where", ["gpt2_korean.text.documents.detect_encoding", "gpt2_korean.text.blocks.cut"])
def test_a_signal_before_training_ends_the_run_at_once(
    run, tmp_path, run_main, monkeypatch, sample_texts, number, where
):
    (tmp_path / "글.txt").write_text(f"{number} {where}\n\n{sample_texts[0]}", "utf-8")  # read by no test before
    with monkeypatch.context() as patch:
        patch.setattr(where, lambda *_: signal_self(number))
        code, out, err = run_main(*run)
    assert (code, out) == (75, "") and "저장할 것은 없습니다" in err
    assert list((tmp_path / "out").rglob("*")) in ([], [tmp_path / "out" / "run.json"])
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    assert run_main(*run, "--max_steps=1")[0] == 0


def test_a_signal_while_native_code_runs_is_honoured_too():
    """Learning a vocabulary is one long call into Rust; so is this key derivation, into C."""
    process = start_python(
        "import hashlib, sys\nfrom gpt2_korean.stopping import stop_requests\n"
        "with stop_requests() as stop:\n    print('ready', flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha256', b'x', b'y', 2**31 - 1)\n"
    )
    time.sleep(0.5)  # until it is in there
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75 and "SIGTERM" in err and "Traceback" not in err


def test_a_second_ctrl_c_leaves_at_once():
    process = start_python(
        "import time\nfrom gpt2_korean.stopping import stop_requests\n"
        "with stop_requests() as stop:\n    stop.hold_back()\n    print('ready', flush=True)\n"
        "    while stop.reason is None: time.sleep(0.01)\n    print('asked', flush=True)\n    time.sleep(60)\n"
    )
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "Ctrl-C를 한 번 더" in err


def test_ctrl_c_once_finishes_the_step_and_saves(run, tmp_path, run_main, at_training_step):
    at_training_step(5, lambda _: signal_self(signal.SIGINT))
    code, _, err = run_main(*run)
    assert code == 75 and "5스텝에서 멈추고" in err
    assert complete.is_resumable(tmp_path / "out" / "checkpoint-5")


def test_a_signal_during_a_save_lets_it_finish_and_stops_there(run, tmp_path, run_main, monkeypatch):
    original = torch.save

    def save(*args, **kwargs):
        monkeypatch.setattr(torch, "save", original)
        signal_self()
        return original(*args, **kwargs)

    monkeypatch.setattr(torch, "save", save)
    code, _, err = run_main(*run)
    assert code == 75 and "2스텝에서 멈추고" in err
    assert [path.name for path in complete.whole_checkpoints(tmp_path / "out")] == ["checkpoint-2"]


def test_max_hours_stops_as_a_signal_does(run, tmp_path, run_main, at_training_step):
    def time_is_up(_):
        assert 0.5 * 3600 < signal.getitimer(signal.ITIMER_REAL)[0] <= 0.75 * 3600
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        time.sleep(0.1)

    at_training_step(3, time_is_up)
    code, _, err = run_main(*run, "--max_hours=0.75")
    assert code == 75 and "--max_hours" in err
    assert (tmp_path / "out" / "checkpoint-3").is_dir()
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_the_last_evaluation_stops_too(run, run_main, monkeypatch):
    words = [*run, "--do_eval", "--validation_split_percentage=20", "--max_steps=2"]
    with monkeypatch.context() as patch:
        patch.setattr(
            "gpt2_korean.training.run.KoreanTrainer.evaluate", lambda self: (signal_self(), Trainer.evaluate(self))
        )
        code, out, err = run_main(*words)
    assert (code, out) == (75, "") and "평가" in err
    code, out, err = run_main(*words)
    assert code == 0 and "이미 끝난 학습" in err and "글자당 비트" in out


def make_loss_nan(trainer):
    original = trainer.compute_loss
    trainer.compute_loss = lambda *args, **kwargs: original(*args, **kwargs) * torch.nan


def make_weights_nan(trainer):
    original = trainer.optimizer.step
    trainer.optimizer.step = lambda: (original(), next(trainer.model.parameters()).data.fill_(torch.nan))


@pytest.mark.parametrize("damage", [make_loss_nan, make_weights_nan])
@pytest.mark.parametrize("logging_steps", [1, 100])
def test_a_loss_that_is_no_number_ends_the_run_before_it_reaches_a_checkpoint(
    run, tmp_path, run_main, at_training_step, damage, logging_steps
):
    at_training_step(4, damage)
    code, _, err = run_main(*run, f"--logging_steps={logging_steps}")
    assert code == 1 and "NaN" in err and "--learning_rate" in err and "Traceback" not in err
    assert [path.name for path in (tmp_path / "out").glob("*") if path.is_dir()] == ["checkpoint-2"]


def test_an_output_dir_that_goes_away_is_named_and_not_made_anew(run, tmp_path, run_main, at_training_step):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    at_training_step(3, lambda _: out.rename(elsewhere))
    code, _, err = run_main(*run)
    assert code == 1 and "저장하지 못했습니다" in err and str(out) in err
    assert complete.is_resumable(elsewhere / "checkpoint-2") and not out.exists()


def test_a_file_system_that_turns_read_only_is_named(run, tmp_path, run_main, at_training_step, monkeypatch):
    original = os.mkdir

    def mkdir(path, *args, **kwargs):
        if str(path).startswith(str(tmp_path / "out")):
            raise OSError(errno.EROFS, "stands in for a read-only mount", str(path))
        return original(path, *args, **kwargs)

    at_training_step(3, lambda _: monkeypatch.setattr(os, "mkdir", mkdir))
    code, _, err = run_main(*run)
    assert code == 1 and "읽기 전용" in err
    assert complete.is_resumable(tmp_path / "out" / "checkpoint-2")


def test_a_dead_loader_process_is_named(run, tmp_path, run_main, at_training_step):
    at_training_step(3, lambda _: [os.kill(worker.pid, signal.SIGKILL) for worker in multiprocessing.active_children()])
    code, _, err = run_main(*run, "--dataloader_num_workers=1", "--max_steps=200")
    assert code == 1 and "--dataloader_num_workers" in err and "Traceback" not in err
    assert complete.is_resumable(tmp_path / "out" / "checkpoint-2")


def test_a_signal_to_all_processes_of_a_job_leaves_the_loader_alive(run, tmp_path, run_main, at_training_step):
    def signal_all(_):
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, signal.SIGTERM)
        time.sleep(0.2)
        signal_self()

    at_training_step(3, signal_all)
    code, _, err = run_main(*run, "--dataloader_num_workers=1", "--max_steps=200")
    assert code == 75, err
    assert complete.is_resumable(tmp_path / "out" / "checkpoint-3")


def test_a_loader_process_that_dies_with_the_lock_of_the_bars_holds_nobody_up():
    """Such a process is forked as the loader's are, takes the lock and is killed."""
    script = (
        "import multiprocessing, os, signal, sys, time\n"
        "from tqdm import tqdm\nfrom gpt2_korean.stopping import ignore_in_worker\n"
        "def work():\n"
        "    ignore_in_worker(None, 0)\n"
        "    tqdm.get_lock().acquire()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "tqdm.write('before')\n"
        "worker = multiprocessing.get_context('fork').Process(target=work)\n"
        "worker.start()\nworker.join()\n"
        "tqdm.write(f'after {worker.exitcode}')\n"
    )
    finished = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert finished.stdout == "before\nafter -9\n", finished.stderr


def test_two_runs_in_one_output_dir_are_told_apart_and_a_dead_one_holds_nothing(run, tmp_path, run_main):
    holder = start_python(
        "import os, time\nos.environ['PBS_JOBID'] = '4711.pbs-host.example'\n"
        "from gpt2_korean.checkpoints.lock import hold_output_dir\n"
        f"with hold_output_dir({str(tmp_path / 'out')!r}):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    code, _, err = run_main(*run)
    assert code == 1 and "--output_dir" in err and "작업 4711" in err and f"프로세스 {holder.pid}" in err
    assert "pbs-host" not in err and "pbs-host" not in (tmp_path / "out" / "_lock").read_text()
    holder.kill()
    holder.wait()
    assert run_main(*run)[0] == 0
    assert not list((tmp_path / "out").glob("_*"))


def test_what_a_killed_run_left_half_written_is_cleared(run, tmp_path, run_main):
    half = tmp_path / "out" / "_unfinished" / "checkpoint-9"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    assert run_main(*run)[0] == 0
    assert not (tmp_path / "out" / "_unfinished").exists()


@pytest.mark.parametrize("lost", ["model.safetensors", "half of model.safetensors", "tokenizer.json"])
def test_generate_refuses_a_half_checkpoint(tiny_model_folder, tmp_path, run_main, lost):
    folder = tmp_path / "checkpoint-4"
    shutil.copytree(tiny_model_folder, folder)
    path = folder / lost.removeprefix("half of ")
    content = path.read_bytes()
    path.unlink()
    if lost.startswith("half"):
        path.write_bytes(content[: len(content) // 2])
    code, out, err = run_main("generate.py", f"--model_name_or_path={folder}", "--device=cpu")
    assert (code, out) == (1, "") and "--model_name_or_path" in err and str(folder) in err
    assert len(err[err.index("오류:") :].strip().splitlines()) <= 2


TWO_RANKS = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def test_two_ranks_stop_together_when_one_is_signalled_and_go_on(run, tmp_path, run_script):
    """The second rank signals itself alone, in the middle of its third step."""
    (tmp_path / "two.py").write_text(
        "import os, signal, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import train\nfrom gpt2_korean.messages import run_script\nfrom transformers import Trainer\n"
        "original, calls = Trainer.training_step, []\n"
        "def step(self, *args, **kwargs):\n"
        "    calls.append(None)\n"
        "    if len(calls) == 3 and os.environ['RANK'] == '1' and 'STOP' in os.environ:\n"
        "        os.kill(os.getpid(), signal.SIGUSR1)\n"
        "    return original(self, *args, **kwargs)\n"
        "Trainer.training_step = step\n"
        "sys.exit(run_script(train.main))\n"
    )
    words = [*TWO_RANKS, tmp_path / "two.py", *run[1:], "--max_steps=6", "--save_steps=100"]
    stopped = run_script(*words, env={"STOP": "1"})
    assert stopped.returncode != 0 and "exitcode  : 75" in stopped.stderr and "3스텝에서 멈추고" in stopped.stderr
    checkpoint = tmp_path / "out" / "checkpoint-3"
    assert complete.is_resumable(checkpoint)
    assert {path.name for path in checkpoint.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}
    gone_on = run_script(*words)
    assert gone_on.returncode == 0, gone_on.stderr
    assert json.loads((tmp_path / "out" / "trainer_state.json").read_text())["global_step"] == 6
