"""However a run fails before its last step: a line that names what failed, and every checkpoint intact."""

import errno
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import torch
from conftest import ROOT

from gpt2_korean.checkpoints import complete
from gpt2_korean.messages import UserError
from gpt2_korean.training import failures


def make_loss_nan(trainer):
    original = trainer.compute_loss
    trainer.compute_loss = lambda *args, **kwargs: original(*args, **kwargs) * torch.nan


def make_weights_nan(trainer):
    original = trainer.optimizer.step
    trainer.optimizer.step = lambda: (original(), next(trainer.model.parameters()).data.fill_(torch.nan))


@pytest.mark.parametrize("damage", [make_loss_nan, make_weights_nan])
@pytest.mark.parametrize("logging_steps", [1, 100])
def test_a_loss_that_is_no_number_ends_the_run_before_it_reaches_a_checkpoint(
    resumable_words, tmp_path, run_main, at_training_step, damage, logging_steps
):
    at_training_step(4, damage)
    code, _, err = run_main(*resumable_words, f"--logging_steps={logging_steps}")
    assert code == 1 and "NaN" in err and "--learning_rate" in err and "Traceback" not in err
    assert [path.name for path in (tmp_path / "out").glob("*") if path.is_dir()] == ["checkpoint-2"]


def test_an_output_dir_that_goes_away_is_named_and_not_made_anew(resumable_words, tmp_path, run_main, at_training_step):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    at_training_step(3, lambda _: out.rename(elsewhere))
    code, _, err = run_main(*resumable_words)
    assert code == 1 and "저장하지 못했습니다" in err and str(out) in err
    assert complete.is_resumable(elsewhere / "checkpoint-2") and not out.exists()


def test_a_file_system_that_turns_read_only_is_named(
    resumable_words, tmp_path, run_main, at_training_step, monkeypatch
):
    original = os.mkdir

    def mkdir(path, *args, **kwargs):
        if str(path).startswith(str(tmp_path / "out")):
            raise OSError(errno.EROFS, "stands in for a read-only mount", str(path))
        return original(path, *args, **kwargs)

    at_training_step(3, lambda _: monkeypatch.setattr(os, "mkdir", mkdir))
    code, _, err = run_main(*resumable_words)
    assert code == 1 and "읽기 전용" in err
    assert complete.is_resumable(tmp_path / "out" / "checkpoint-2")


def fail_in_tokenizer(trainer):
    def save(*_):
        raise Exception("No space left on device (os error 28)")  # what the library's Rust raises

    trainer.processing_class.save_pretrained = save


def limit_the_size_of_files(trainer):
    """To less than weights need: as a full disk, of the system itself."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))


@pytest.fixture
def own_limit():
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.mark.parametrize("damage", [fail_in_tokenizer, limit_the_size_of_files])
@pytest.mark.parametrize("step", [3, 8])
def test_a_disk_that_is_full_in_any_library_is_told_with_the_folder(
    resumable_words, tmp_path, run_main, at_training_step, own_limit, damage, step
):
    at_training_step(step, damage)
    code, _, err = run_main(*resumable_words)
    message = err[err.index("오류:") :]
    assert code == 1 and len(message.strip().splitlines()) == 2 and "Traceback" not in err
    assert f"{tmp_path / 'out' / 'checkpoint-'}" in message and "저장하지 못했습니다" in message
    assert ("ulimit -f" if damage is limit_the_size_of_files else "남은 공간이 없습니다") in message
    assert [path.name for path in complete.whole_checkpoints(tmp_path / "out")][
        -1
    ] == f"checkpoint-{(step - 1) // 2 * 2}"
    assert not (tmp_path / "out" / "_unfinished").exists()


def test_no_checkpoint_is_said_to_be_kept_where_there_is_none(resumable_words, run_main, at_training_step, own_limit):
    at_training_step(1, limit_the_size_of_files)
    code, _, err = run_main(*resumable_words)
    assert code == 1 and "저장하지 못했습니다" in err and "그대로 있습니다" not in err


def test_a_disk_without_a_byte_left_for_the_cache_is_told_as_full(train_words, tmp_path, run_main, monkeypatch):
    new = tmp_path / "새 글.txt"
    new.write_text(f"{tmp_path}에만 있는 글", "utf-8")
    monkeypatch.setattr(datasets.utils.py_utils, "disk_usage", lambda _: SimpleNamespace(free=0))
    code, _, err = run_main("train.py", *train_words, f"--dataset_path={new}", "--do_train")
    assert code == 1 and "남은 공간이 없습니다" in err and str(datasets.config.HF_DATASETS_CACHE) in err, err
    assert "환경 변수 HF_DATASETS_CACHE" in err


def test_a_cache_that_cannot_be_written_is_told_with_the_variable_that_places_it(
    train_words, tmp_path, run_main, monkeypatch
):
    new = tmp_path / "새 글.txt"
    new.write_text(f"{tmp_path}에만 있는 글", "utf-8")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", new / "datasets")
    code, _, err = run_main("train.py", *train_words, f"--dataset_path={new}", "--do_train")
    assert code == 1 and str(new) in err and "환경 변수 HF_DATASETS_CACHE" in err and "남은 공간" not in err, err
    assert len(err[err.index("오류:") :].splitlines()) == 2, err


def test_a_run_goes_on_without_logs_that_can_be_written_no_more(
    resumable_words, tmp_path, run_main, at_training_step, own_limit
):
    """The disk is full of logs alone: by the time the model is saved there is room again."""

    def limit_files_to(size):
        return lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    at_training_step(1, limit_files_to(4_000))
    at_training_step(8, limit_files_to(resource.RLIM_INFINITY))
    code, _, err = run_main(*resumable_words, "--report_to=tensorboard", "--logging_steps=1", "--save_steps=100")
    told = [line for line in err.splitlines() if str(tmp_path / "logs") in line]
    assert code == 0 and len(told) == 1 and "TensorBoard" in told[0] and "Traceback" not in err, err
    assert complete.has_weights(tmp_path / "out")


def test_logs_that_have_no_place_are_told_with_their_flag_before_any_text_is_read(resumable_words, tmp_path, run_main):
    (tmp_path / "file").touch()
    code, _, err = run_main(*resumable_words, "--report_to=tensorboard", f"--logging_dir={tmp_path / 'file' / 'logs'}")
    assert code == 2 and f"--logging_dir={tmp_path / 'file' / 'logs'}: " in err and "학습 글:" not in err, err


def test_a_temporary_folder_too_long_for_the_loaders_processes_is_refused(resumable_words, run_main, monkeypatch):
    for length, refused in ((75, False), (76, True)):
        folder = Path("/tmp") / str(os.getpid()).rjust(length - 5, "x")
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        try:
            folder.mkdir()
            code, _, err = run_main(*resumable_words, "--dataloader_num_workers=1", "--max_steps=1")
        finally:
            shutil.rmtree(folder)
        assert (code == 2 and "TMPDIR" in err and "--dataloader_num_workers" in err) if refused else code == 0, err


def test_a_dead_loader_process_is_named(resumable_words, tmp_path, run_main, at_training_step):
    at_training_step(3, lambda _: [os.kill(worker.pid, signal.SIGKILL) for worker in multiprocessing.active_children()])
    code, _, err = run_main(*resumable_words, "--dataloader_num_workers=1", "--max_steps=200")
    assert code == 1 and "--dataloader_num_workers" in err and "Traceback" not in err
    assert complete.is_resumable(tmp_path / "out" / "checkpoint-2")


def leave(_initialise, _worker):
    os._exit(1)


def test_each_process_of_a_loader_is_prepared_before_its_first_batch(resumable_words, run_main, monkeypatch):
    monkeypatch.setattr("gpt2_korean.training.trainer.ignore_in_worker", leave)
    code, _, err = run_main(*resumable_words, "--dataloader_num_workers=1", "--max_steps=1")
    assert code == 1 and "--dataloader_num_workers" in err, err


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        EOFError(),
        RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed."),
        RuntimeError("DataLoader worker (pid 1) exited unexpectedly: Cannot allocate memory"),
    ],
)
def test_a_dead_loader_process_is_named_however_it_is_found_out(error):
    with pytest.raises(UserError, match="--dataloader_num_workers"), failures.training():
        raise error


@pytest.mark.parametrize(
    "words", ["DataLoader worker (pid 1) is killed by signal: Killed.", "Connection closed by peer"]
)
def test_a_process_that_is_lost_while_a_checkpoint_is_saved_is_no_fault_of_the_disk(words, tmp_path):
    with pytest.raises(RuntimeError, match=re.escape(words)), failures.saving(tmp_path):
        raise RuntimeError(words)
    with pytest.raises(UserError, match="저장하지 못했습니다"), failures.saving(tmp_path):
        raise RuntimeError("another fault")
    with pytest.raises(RuntimeError, match="another fault"), failures.training():
        raise RuntimeError("another fault")


def test_a_loader_process_that_dies_with_the_lock_of_the_bars_holds_nobody_up():
    """Such a process is forked as the loader's are, takes the lock and is killed."""
    script = (
        "import multiprocessing, os, signal, sys, time\n"
        "from tqdm import tqdm\nfrom gpt2_korean.training.stopping import ignore_in_worker\n"
        "def work():\n"
        "    ignore_in_worker(None, 0)\n"
        "    tqdm.get_lock().acquire()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "tqdm.write('before')\n"
        "worker = multiprocessing.get_context('fork').Process(target=work)\n"
        "worker.start()\nworker.join()\n"
        "tqdm.write(f'after {worker.exitcode}')\n"
    )
    finished = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert finished.stdout == "before\nafter -9\n", finished.stderr


def test_a_loader_process_that_cannot_send_a_batch_ends_and_is_not_waited_for():
    """As where /dev/shm is full, which in a container holds 64 MB."""
    script = (
        "import multiprocessing, time\n"
        "from gpt2_korean.training.stopping import ignore_in_worker\n"
        "def work():\n"
        "    ignore_in_worker(None, 0)\n"
        "    batches.put(lambda: 'cannot be sent')\n"
        "    time.sleep(600)\n"
        "fork = multiprocessing.get_context('fork')\n"
        "batches = fork.Queue()\n"
        "worker = fork.Process(target=work, daemon=True)\n"
        "worker.start()\nworker.join(120)\n"
        "print(worker.exitcode)\n"
    )
    finished = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert finished.stdout == "1\n" and "Traceback" not in finished.stderr, finished.stderr
