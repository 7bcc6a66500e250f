"""A signal or --max_hours ends a run with a clear line, the right exit code and every checkpoint intact."""

import multiprocessing
import os
import pty
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from conftest import ROOT, signal_self, start_python

from gpt2_korean.checkpoints import complete
from gpt2_korean.messages import Stopped
from gpt2_korean.training import evaluation
from gpt2_korean.training.stopping import stop_requests


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("where", ["gpt2_korean.text.documents.detect_encoding", "gpt2_korean.text.tokens._row"])
def test_a_signal_before_training_ends_the_run_at_once(
    resumable_words, tmp_path, run_main, monkeypatch, sample_texts, number, where
):
    (tmp_path / "글.txt").write_text(f"{number} {where}\n\n{sample_texts[0]}", "utf-8")  # read by no test before
    with monkeypatch.context() as patch:
        patch.setattr(where, lambda *_: signal_self(number))
        code, out, err = run_main(*resumable_words)
    assert (code, out) == (75, "") and "아직 준비하는 중이라 저장할 것은 없습니다" in err  # of an evaluation too
    assert list((tmp_path / "out").rglob("*")) in ([], [tmp_path / "out" / "run.json"])
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    assert run_main(*resumable_words, "--max_steps=1")[0] == 0


def test_the_end_of_max_hours_before_training_ends_the_run_at_once():
    def wait():
        for _ in range(6000):
            time.sleep(0.01)

    with stop_requests(max_hours=0.1 / 3600), pytest.raises(Stopped, match=r"--max_hours.*저장할 것은 없습니다"):
        wait()


def test_more_hours_than_any_clock_counts_end_nothing(monkeypatch):
    failed = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    with stop_requests(max_hours=10**9) as stop:
        timers = [each for each in threading.enumerate() if isinstance(each, threading.Timer)]
        [timer] = [each for each in timers if each.interval > 10**6]
    timer.join(60)
    assert not failed and stop.reason is None


@pytest.mark.parametrize("number", [signal.SIGTERM, None])
def test_what_ends_a_run_while_native_code_runs_is_honoured_too(number):
    """Learning a vocabulary is one long call into Rust; so is this key derivation, into C."""
    process = start_python(
        "import hashlib, sys\nfrom gpt2_korean.training.stopping import stop_requests\n"
        f"with stop_requests({None if number else 0.5 / 3600}) as stop:\n    print('ready', flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha256', b'x', b'y', 2**31 - 1)\n"
    )
    if number:
        time.sleep(0.5)  # until it is in there
        process.send_signal(number)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 75 and ("SIGTERM" if number else "--max_hours") in err and "Traceback" not in err


def test_a_second_ctrl_c_leaves_at_once():
    process = start_python(
        "import time\nfrom gpt2_korean.training import stopping\nstopping.ONE_PRESS_SECONDS = 0\n"
        "with stopping.stop_requests() as stop:\n    stop.hold_back()\n    print('ready', flush=True)\n"
        "    while stop.reason is None: time.sleep(0.01)\n    print('asked', flush=True)\n    time.sleep(600)\n"
    )
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130 and "Ctrl-C를 한 번 더" in err


def test_a_ctrl_c_that_comes_twice_is_one(tmp_path):
    """A notebook interrupts all of its group and then its command once more; so does torchrun."""
    sent = tmp_path / "sent"
    process = start_python(
        "import os, time\nfrom gpt2_korean.training import stopping\nstopping.ONE_PRESS_SECONDS = 60\n"
        "with stopping.stop_requests() as stop:\n    stop.hold_back()\n    print('ready', flush=True)\n"
        "    while stop.reason is None: time.sleep(0.01)\n    print('asked', flush=True)\n"
        f"    while not os.path.exists({str(sent)!r}): time.sleep(0.01)\nprint('saved', flush=True)\n"
    )
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    sent.touch()
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (0, "saved\n") and len(err.strip().splitlines()) == 1


WAIT_AND_SPEAK = """
import sys, time
from gpt2_korean.ending import run_script
from gpt2_korean.messages import print_once, say
from gpt2_korean.training.stopping import stop_requests

def main():
    with stop_requests() as stop:
        stop.hold_back()
        print_once("ready")
        for _ in range(WAIT):
            time.sleep(0.02)
            if stop.reason: break
        say("after"), print_once("after")
        open(sys.argv[1], "w").write(str(stop.reason))
    return 75

sys.exit(run_script(main))
"""


def test_a_closed_terminal_asks_to_stop_and_what_is_said_into_it_ends_nothing(tmp_path):
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-c", WAIT_AND_SPEAK.replace("WAIT", "3000"), str(tmp_path / "end")])
    assert b"ready" in os.read(terminal, 100)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 75
    assert (tmp_path / "end").read_text() == "SIGHUP 신호를 받아"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_reader_that_a_signal_ends_too_ends_nothing(tmp_path, number):
    """As `2>&1 | tee log` does: what closes a terminal, Ctrl-C and a scheduler's signal come to both."""
    words = [sys.executable, "-c", WAIT_AND_SPEAK.replace("WAIT", "3000"), str(tmp_path / "end")]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert b"ready" in process.stdout.readline()
    process.stdout.close()
    process.send_signal(number)
    assert process.wait(300) == 75 and (tmp_path / "end").read_text() not in ("", "None")


def test_a_reader_that_leaves_a_run_ends_nothing(tmp_path):
    """As `2>&1 | head` does."""
    words = [sys.executable, "-c", WAIT_AND_SPEAK.replace("WAIT", "1"), str(tmp_path / "end")]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    process.stdout.close()
    assert process.wait(300) == 75 and (tmp_path / "end").read_text() == "None"


def test_under_nohup_a_closed_terminal_asks_nothing(tmp_path):
    words = ["nohup", sys.executable, "-c", WAIT_AND_SPEAK.replace("WAIT", "20"), str(tmp_path / "end")]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while b"ready" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGHUP)
    assert b"after" in process.communicate(timeout=300)[0]
    assert process.returncode == 75 and (tmp_path / "end").read_text() == "None"


def test_ctrl_c_once_finishes_the_step_and_saves(resumable_words, tmp_path, run_main, at_training_step):
    at_training_step(5, lambda _: signal_self(signal.SIGINT))
    code, _, err = run_main(*resumable_words)
    assert code == 75 and "5스텝에서 멈추고" in err
    assert complete.is_resumable(tmp_path / "out" / "checkpoint-5")


def test_a_signal_within_an_epoch_neither_makes_nor_owes_the_evaluation_at_its_end(
    resumable_words, tmp_path, run_main, at_training_step
):
    at_training_step(3, lambda _: signal_self())
    words = ["--do_eval", "--validation_split_percentage=20", "--eval_strategy=epoch", "--logging_steps=100"]
    code, _, err = run_main(*resumable_words, *words)
    checkpoint = tmp_path / "out" / "checkpoint-3"
    state = complete.trainer_state(checkpoint)
    assert code == 75 and state["epoch"] % 1 and not complete.read_resume(checkpoint)["evaluation_due"], err
    assert [entry["step"] for entry in state["log_history"]] == [1]  # nor is there a line that an unbroken run lacks


@pytest.fixture
def at_save(monkeypatch):
    """Call a function once, as the first checkpoint of a run is being saved."""

    def arrange(function):
        original = torch.save

        def save(*args, **kwargs):
            monkeypatch.setattr(torch, "save", original)
            function()
            return original(*args, **kwargs)

        monkeypatch.setattr(torch, "save", save)

    return arrange


def test_a_signal_during_a_save_lets_it_finish_and_stops_there(resumable_words, tmp_path, run_main, at_save):
    at_save(signal_self)
    code, _, err = run_main(*resumable_words)
    assert code == 75 and "2스텝에서 멈추고" in err
    assert [path.name for path in complete.whole_checkpoints(tmp_path / "out")] == ["checkpoint-2"]


def test_max_hours_stops_as_a_signal_does(resumable_words, tmp_path, run_main, at_training_step):
    def running():  # but for those that other tests left
        timers = [each for each in threading.enumerate() if isinstance(each, threading.Timer)]
        return [each for each in timers if each.interval == 0.75 * 3600]

    def time_is_up(_):
        [timer] = running()
        timer.function()

    at_training_step(3, time_is_up)
    code, _, err = run_main(*resumable_words, "--max_hours=0.75")
    assert code == 75 and "--max_hours" in err
    assert (tmp_path / "out" / "checkpoint-3").is_dir()
    for timer in running():
        timer.join(60)  # and not for three quarters of an hour
    assert not running()


def test_the_last_evaluation_stops_too(resumable_words, run_main, at_evaluation):
    words = [*resumable_words, "--do_eval", "--validation_split_percentage=20", "--max_steps=2"]
    at_evaluation(2, lambda _: signal_self())
    code, out, err = run_main(*words)
    assert (code, out) == (75, "") and "평가" in err
    assert "--resume_from_checkpoint=auto" in err  # without which what was learnt would be learnt anew
    code, out, err = run_main(*words)
    assert code == 0 and "이미 끝난 학습" in err and "글자당 비트" in out


@pytest.mark.usefixtures("brief_texts")
def test_a_model_that_is_only_measured_stops_while_it_writes_too(
    tiny_model_folder, small_corpus, run_main, monkeypatch
):
    write = evaluation.write_stretches

    def write_on(*words):
        signal_self()
        yield from write(*words)

    monkeypatch.setattr(evaluation, "write_stretches", write_on)
    words = [f"--validation_file={small_corpus}", f"--model_type={tiny_model_folder}", "--report_to=none", "--use_cpu"]
    code, out, err = run_main("train.py", "--do_eval", *words)
    assert (code, out) == (75, "") and "같은 명령이 다시 평가합니다" in err and "저장되어" not in err


def test_who_pressed_ctrl_c_alone_is_told_how_to_end_at_once(capfd, monkeypatch):
    with stop_requests() as stop:
        stop.hold_back()
        signal_self(signal.SIGTERM)
        assert not capfd.readouterr().err
        monkeypatch.setattr(os, "isatty", lambda _: True)
        signal_self(signal.SIGINT)
        assert capfd.readouterr().err.startswith("\n하던 스텝을")  # below the ^C that a terminal shows
    assert signal.set_wakeup_fd(-1) == -1  # else a later signal would be written into whatever has that number then


def test_a_signal_to_a_process_that_was_forked_from_a_run_asks_nothing_of_it():
    with stop_requests() as stop:
        stop.hold_back()
        if not (child := os.fork()):
            signal_self()
            os._exit(stop.reason is not None)
        assert os.waitpid(child, 0)[1] == 0


def test_a_signal_to_all_processes_of_a_job_leaves_the_loader_alive(
    resumable_words, tmp_path, run_main, at_training_step
):
    def signal_all(_):
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, signal.SIGTERM)
        time.sleep(0.2)
        signal_self()

    at_training_step(3, signal_all)
    code, _, err = run_main(*resumable_words, "--dataloader_num_workers=1", "--max_steps=200")
    assert code == 75, err
    assert complete.is_resumable(tmp_path / "out" / "checkpoint-3")


def test_a_process_of_a_loader_that_was_not_forked_is_deaf_to_what_ends_a_run_too(run_script):
    """As on macOS and, since Python 3.14, on Linux: it has none of the run's handlers."""
    code = "import os\nfrom gpt2_korean.training.stopping import WORDS, ignore_in_worker\nignore_in_worker(None, 0)\n"
    done = run_script("-c", f"{code}for number in WORDS:\n    os.kill(os.getpid(), number)\n")
    assert (done.returncode, done.stderr) == (0, "")
