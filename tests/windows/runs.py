"""Both scripts on an emulated Windows: tests/test_windows.py runs this file in a process of its own."""

import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading

import pytest
import sitecustomize
import torch
from conftest import ROOT, read_to_write, signal_self, start_python
from safetensors.torch import load_file

from gpt2_korean.checkpoints import atomic_files, lock
from gpt2_korean.checkpoints.complete import is_resumable, whole_checkpoints
from gpt2_korean.messages import describe_os_error
from gpt2_korean.training import arguments, callbacks, curve

LACKING = ("fcntl", "os.fork", "os.O_NOFOLLOW", "signal.SIGUSR1", "signal.setitimer", "signal.SIGCHLD", "select.poll")


@pytest.fixture(scope="session", autouse=True)
def cleared_away_as_on_linux():
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background job has it ignored, its children too
    yield
    sitecustomize.is_held = lambda path: False


@pytest.fixture(scope="session")
def learnt(tmp_path_factory):
    return tmp_path_factory.mktemp("learnt")


@pytest.fixture
def words(train_words, small_corpus):
    (validation := small_corpus.with_name("평가.txt")).write_text("오늘은 날씨가 좋습니다.", "utf-8")
    return [
        "train.py", *train_words, "--do_train", "--do_eval", f"--validation_file={validation}", "--max_steps=6",
        "--save_steps=2", "--eval_steps=3", "--logging_steps=1", "--save_total_limit=1",
        "--per_device_train_batch_size=2", "--resume_from_checkpoint=auto",
    ]  # fmt: skip


def losses(folder):
    log = json.loads((folder / "trainer_state.json").read_text("utf-8"))["log_history"]
    return [{name: entry[name] for name in ("step", "loss", "eval_loss") if name in entry} for entry in log]


def our_code(code):
    exec(compile(code, ROOT / "gpt2_korean" / "some.py", "exec"), {"__file__": str(ROOT / "gpt2_korean" / "some.py")})


@pytest.mark.parametrize("name", LACKING)
def test_our_code_lacks_what_windows_does(name):
    with pytest.raises((ImportError, AttributeError)):
        our_code(f"import {name.partition('.')[0]}; {name}")


def test_a_file_that_is_open_or_mapped_is_neither_replaced_nor_removed(tmp_path, tiny_model_folder):
    mapped = load_file(tiny_model_folder / "model.safetensors")
    with pytest.raises(PermissionError):
        os.replace(tmp_path, tiny_model_folder / "model.safetensors")
    del mapped
    (tmp_path / "b").write_text("", "utf-8")
    with open(tmp_path / "a", "w", encoding="utf-8"):
        for change in (os.unlink, lambda path: os.replace(tmp_path / "b", path), lambda path: os.rename(path, "c")):
            with pytest.raises(PermissionError):
                change(tmp_path / "a")
    for name in ("12:30", "a?", "끝."):
        with pytest.raises(OSError, match="Invalid"):
            (tmp_path / name).write_text("", "utf-8")


def test_a_model_is_learnt_and_its_curve_drawn(words, run_main, tmp_path, learnt, monkeypatch):
    monkeypatch.setattr(callbacks, "draw", curve.draw)
    code, out, err = run_main(*words)
    assert code == 0 and "글자당 비트" in out and "python generate.py" in err, err
    assert (tmp_path / "out" / "training_curve.png").exists() and (tmp_path / "out" / "run.json").exists()
    assert [path.name for path in whole_checkpoints(tmp_path / "out")] == ["checkpoint-6"]
    os.rename(tmp_path / "out", learnt / "whole")


@pytest.mark.parametrize("reason", ["--max_hours", "Ctrl-C", "Ctrl-Break"])
def test_a_run_is_stopped_and_goes_on_to_the_same_losses(words, run_main, tmp_path, at_training_step, learnt, reason):
    def stop(_):
        if reason == "--max_hours":
            [timer] = [each for each in threading.enumerate() if isinstance(each, threading.Timer)]
            timer.function()
        else:
            signal_self(signal.SIGINT if reason == "Ctrl-C" else signal.SIGBREAK)

    at_training_step(3, stop)
    code, _, err = run_main(*words, "--max_hours=1")
    assert code == 75 and reason in err and "3스텝에서 멈추고" in err, err
    assert is_resumable(tmp_path / "out" / "checkpoint-3")
    if reason != "--max_hours":
        return
    assert run_main(*words)[0] == 0
    assert losses(tmp_path / "out") == losses(learnt / "whole")
    one, other = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", learnt / "whole"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_spawned_process_reads_the_texts(words, run_main, tmp_path, learnt, monkeypatch):
    monkeypatch.setattr(arguments, "rehearse", lambda *_: None)  # it would spawn another
    code, _, err = run_main(*words, "--max_steps=2", "--dataloader_num_workers=1")
    assert code == 0, err
    assert losses(tmp_path / "out")[0] == losses(learnt / "whole")[0]


def test_a_checkpoint_that_a_program_holds_open_ends_no_run(words, run_main, tmp_path, at_training_step, monkeypatch):
    monkeypatch.setattr(atomic_files, "PATIENCE_SECONDS", 0.1)
    held = []
    at_training_step(3, lambda _: held.append((tmp_path / "out" / "checkpoint-2" / "config.json").open("rb")))
    code, _, err = run_main(*words, "--max_steps=4")
    held[0].close()
    assert code == 0 and "checkpoint-2: 다른 프로그램이 열어 두어" in err


def test_a_file_that_stays_open_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic_files, "PATIENCE_SECONDS", 0.1)
    path = tmp_path / "run.json"
    atomic_files.write_file(path, "{}\n")
    with path.open("rb") as file:
        with pytest.raises(PermissionError) as failure:
            atomic_files.write_file(path, "new")
        assert file.read() == b"{}\n"  # and no \r
    said = describe_os_error(failure.value)
    assert "다른 프로그램이 열어 두고 있습니다" in said and str(path) in said
    atomic_files.write_file(path, "new")
    assert path.read_text("utf-8") == "new"


def test_two_runs_in_one_output_dir_are_told_apart_and_a_dead_one_holds_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.1)
    holder = start_python(
        "import time\nfrom gpt2_korean.checkpoints.lock import own_output_dir\n"
        f"with own_output_dir({str(tmp_path)!r}):\n    print('held', flush=True)\n    time.sleep(600)\n"
    )
    with pytest.raises(lock.UserError, match=f"프로세스 {holder.pid}"):
        lock.own_output_dir(tmp_path).__enter__()
    assert f"프로세스 {holder.pid}" in lock.describe_run(tmp_path)
    holder.kill()
    holder.wait()
    assert lock.describe_run(tmp_path) is None
    with lock.own_output_dir(tmp_path):
        assert (tmp_path / "_lock").exists()
    assert not (tmp_path / "_lock").exists()


def test_a_model_is_written_with_and_may_be_replaced_meanwhile(run_main, learnt, capsys, tmp_path):
    from gpt2_korean.model.load import load_pretrained

    folder, file = learnt / "whole", tmp_path / "글.jsonl"
    words = [f"--model_name_or_path={folder}", "--prompt=오늘은", "--length=5", "--temperature=0", "--device=cpu"]
    code, out, err = run_main("generate.py", *words, f"--output_file={file}")
    assert code == 0 and out.startswith("오늘은"), err
    assert json.loads(file.read_text("utf-8"))["text"] == out.removesuffix("\n")
    models = read_to_write(folder), load_pretrained(folder, torch.float32)
    (folder / "new").write_bytes((folder / "model.safetensors").read_bytes())
    atomic_files.move(folder / "new", folder / "model.safetensors")
    assert models


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949"])
def test_a_prompt_is_piped_in_whichever_encoding_a_shell_has(run_main, learnt, monkeypatch, encoding):
    content = io.BytesIO("오늘은\r\n".encode(encoding))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(content, "cp949"))
    words = [f"--model_name_or_path={learnt / 'whole'}", "--length=2", "--device=cpu"]
    assert run_main("generate.py", *words)[1].startswith("오늘은")


def test_the_page_is_served_until_ctrl_c(learnt):
    pytest.importorskip("uvicorn", reason="requirements-serve.txt is not installed")
    words = [
        f"--model_name_or_path={learnt / 'whole'}",
        "--serve",
        "--port=0",
        "--device=cpu",
        "--length=3",
        "--min_length=3",
    ]
    process = subprocess.Popen([sys.executable, "generate.py", *words], cwd=ROOT, stderr=subprocess.PIPE)
    try:
        lines = []
        while not (found := re.search(r"http://127.0.0.1:(\d+)", lines[-1] if lines else "")):
            lines.append(process.stderr.readline().decode("cp949"))
            assert lines[-1], lines
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=300)
        connection.request("GET", "/page.js")
        answer = connection.getresponse()
        assert answer.getheader("Content-Type").startswith("text/javascript") and answer.read()
        connection.request("POST", "/write", json.dumps({"prompt": "오늘은"}), {"Content-Type": "application/json"})
        events = [json.loads(line) for line in connection.getresponse().read().decode().splitlines()]
        assert any(event.get("text") for event in events) and "ended" in events[-1]
        connection.close()
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=300)[1].decode("cp949")
    finally:
        process.kill()
    assert process.returncode == 0 and "닫았습니다" in said and "Traceback" not in said
