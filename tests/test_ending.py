"""However a run ends, a user reads a line or two, and the rest stands in a file without anybody's secrets."""

import ast
import errno
import importlib
import io
import os
import re
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import pytest
from conftest import ROOT

from gpt2_korean import ending
from gpt2_korean.messages import Stopped, UserError

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(autouse=True)
def ctrl_c_is_heard_again():
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def end(monkeypatch, tmp_path, capsys):
    """Run a script whose main raises an error, in an empty folder; returns its code, stderr and the file it names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GPT2_KOREAN_DEBUG", raising=False)

    def run(error, folder=None):
        def main():
            with ending.tracebacks_in(folder):
                raise error

        code = ending.run_script(main)
        out, err = capsys.readouterr()
        named = re.search(r"\S*gpt2-korean-error-\S*?\.txt", err)
        assert out == ""
        return code, err, named and Path(named[0])

    return run


class PanicException(BaseException):
    """As what is written in Rust raises it."""


@pytest.mark.parametrize("error", [TypeError("x"), AssertionError(), RecursionError("a\nb"), KeyError("\n\n가\n나"),
                                   PanicException("index out of bounds"),
                                   UnicodeDecodeError("utf-8", b"a", 0, 1, "?"), OSError("of a library\nin two lines")],
                         ids=repr)  # fmt: skip
def test_what_nobody_foresaw_ends_in_two_lines_and_a_file(end, tmp_path, error):
    code, err, file = end(error, tmp_path / "기록" / "logs")
    assert code == 1 and len(err.splitlines()) == 2 and err.startswith("오류: ") and "Traceback" not in err
    assert type(error).__name__ in err and "이슈" in err
    assert file.parent == tmp_path / "기록" / "logs"
    assert "Traceback" in file.read_text("utf-8") and type(error).__name__ in file.read_text("utf-8")


@pytest.mark.parametrize("instead", ["BLAS gemm", "baddbmm"])
def test_where_arm_has_no_bfloat16_no_frames_of_pytorch_are_shown(instead):
    def main():
        words = f"mkldnn_matmul failed, switching to {instead}:mkldnn_matmul: bf16 path needs a cpu\nframe #0"
        warnings.warn(words, UserWarning, stacklevel=1)
        warnings.warn("another", UserWarning, stacklevel=1)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ending.run_script(main)
    assert [str(each.message) for each in told] == ["another"]


@pytest.mark.parametrize("library", ["datasets", "huggingface_hub"])
@pytest.mark.parametrize("disabled", [True, False])
def test_progress_bars_that_a_user_has_settled_for_all_programs_are_no_matter_to_warn_of(
    monkeypatch, library, disabled
):
    bars = importlib.import_module(f"{library}.utils.tqdm")
    name = f"HF_{'HUB' if library == 'huggingface_hub' else 'DATASETS'}_DISABLE_PROGRESS_BARS"
    monkeypatch.setattr(bars, name, disabled)  # as its environment variable does
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ending.run_script(bars.enable_progress_bars if disabled else bars.disable_progress_bars)
    assert told == []


def test_the_file_stands_where_it_can_be_written(end, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert end(TypeError("x"))[2].parent == tmp_path
    assert end(TypeError("x"), tmp_path / "file" / "logs")[2].parent == tmp_path
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.chdir("/proc")  # where nobody can write
    assert end(TypeError("x"), "/proc/logs")[2].parent == temporary
    monkeypatch.setattr("tempfile.tempdir", "/proc")
    code, err, file = end(TypeError("x"), "/proc/logs")
    assert code == 1 and file is None and "GPT2_KOREAN_DEBUG" in err and len(err.splitlines()) == 2


def test_without_a_temporary_folder_that_is_said_and_the_file_stands_where_it_would(end, tmp_path, monkeypatch):
    """As on a disk that is full."""
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: ["/proc"])
    assert end(TypeError("x"))[2].parent == tmp_path
    with pytest.raises(FileNotFoundError) as raised:
        tempfile.gettempdir()
    code, err, file = end(raised.value)
    assert code == 1 and file is None and "임시 폴더로 쓸 곳이 없습니다" in err and "TMPDIR" in err


def test_the_file_outlives_a_container_which_keeps_its_logs_alone(end, tmp_path, monkeypatch):
    write = Path.write_text

    def write_in_volumes(path, *arguments):
        if path.parent == tmp_path:
            raise PermissionError
        return write(path, *arguments)

    monkeypatch.setattr(Path, "write_text", write_in_volumes)
    assert end(TypeError("x"))[2].parent == tmp_path / "logs"


def test_it_is_shown_where_that_is_asked_for(end, monkeypatch):
    monkeypatch.setenv("GPT2_KOREAN_DEBUG", "1")
    assert "Traceback" in end(TypeError("x"))[1]


@pytest.mark.parametrize(
    "secret",
    [TOKEN, "plain secret", "0123456789abcdef0123456789abcdef01234567", "wandb_v1_abc_DEF", "who:word@", "abcde12345"],
)
def test_no_secret_is_told(end, monkeypatch, secret):
    for name in ("MY_TOKEN", "api_key", "A_SECRET_THING", "PASSWORD"):
        monkeypatch.setenv(name, f"{name} plain secret")
    words = {"plain secret": "A_SECRET_THING plain secret", "who:word@": "https://who:word@host/x"}
    message = words.get(secret, f"request with {secret}")
    if secret == "abcde12345":
        message = f"{{'Authorization': 'Bearer {secret}', 'accept': 'text'}}"
    _, err, file = end(ValueError(message))
    for text in (err, file.read_text("utf-8")):
        assert secret.strip("@") not in text and "***" in text


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        ImportError("libtorch_cuda.so: failed to map segment from shared object"),
        RuntimeError("unable to mmap 1419322880 bytes from file <model.safetensors>: Cannot allocate memory (12)"),
    ],
)
def test_a_lack_of_memory_is_called_so_and_no_fault_of_ours(end, error):
    code, err, file = end(error)
    assert code == 1 and "메모리가 모자랍니다" in err and file.exists() and "이슈" not in err
    assert "이슈" in end(TypeError("x"))[1]


def test_a_lack_of_memory_is_told_where_none_is_left_to_start_a_program(end, monkeypatch):
    def refuse(*_, **__):
        raise MemoryError

    monkeypatch.setattr("subprocess.Popen", refuse)
    monkeypatch.setattr("platform._uname_cache", None, raising=False)  # what an earlier program said
    monkeypatch.setattr("platform._platform_cache", {}, raising=False)
    code, err, file = end(MemoryError())
    assert code == 1 and "메모리가 모자랍니다" in err and file.exists()


@pytest.mark.parametrize(
    ("given", "waits"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_threads_do_not_wait_awake_for_long_unless_a_user_says_so(monkeypatch, given, waits):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, given.get(name, ""))  # so that it is as before once the test is over
        if name not in given:
            monkeypatch.delenv(name)
    seen = []
    assert ending.run_script(lambda: seen.append(os.environ.get("GOMP_SPINCOUNT")) or 0) == 0
    assert seen == [waits]


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EMFILE])
def test_what_the_system_refuses_for_a_limit_is_told_with_that_limit(end, number):
    code, err, file = end(OSError(number, os.strerror(number)))
    assert code == 1 and file is None and "ulimit -" in err and os.strerror(number) not in err


def test_a_python_without_the_packages_is_told_of_the_virtual_environment(end, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    error = ModuleNotFoundError("No module named 'nothing_of_that_name'")
    assert end(error)[2]  # all packages are here: a mistake of ours
    monkeypatch.setattr(ending, "REQUIRED", ("sys", "nothing_of_that_name"))
    code, err, file = end(error)
    assert code == 1 and file is None and "nothing_of_that_name\n" in err and "pip install" in err
    Path(".venv/bin").mkdir(parents=True)
    Path(".venv/bin/python").touch()
    assert ".venv/bin/activate" in end(error)[1]
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert "activate" not in end(error)[1] and "README" in end(error)[1]  # it is that environment itself


def test_packages_of_untested_versions_are_named_where_something_breaks(end, monkeypatch):
    found = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "requirements.txt").read_text("utf-8"), re.MULTILINE))
    found["torch"] += "+cpu"
    monkeypatch.setattr("importlib.metadata.version", found.__getitem__)
    assert "requirements" not in end(TypeError("x"))[1]
    found["transformers"] = "4.57.6"
    code, err, file = end(TypeError("x"))
    assert code == 1 and file is not None and len(err.splitlines()) == 2
    assert "(transformers 4.57.6)" in err and "pip install -r requirements.txt" in err


def test_an_older_python_is_told_which_one_is_needed(monkeypatch):
    for name in ("gpt2_korean/__init__.py", "train.py", "generate.py"):  # what it reads before it is told
        ast.parse((ROOT / name).read_text("utf-8"), feature_version=(3, 6))
    monkeypatch.setattr(sys, "version_info", (3, 9, 18, "final", 0))
    with pytest.raises(SystemExit, match=r"Python 3\.11 이상이 필요합니다.*3\.9입니다"):
        runpy.run_path(str(ROOT / "gpt2_korean/__init__.py"))


def test_what_the_system_says_and_what_a_user_stops_need_no_file(end):
    for error in (PermissionError(13, "x", "a"), KeyboardInterrupt(), UserError("x"), Stopped("x")):
        code, err, file = end(error)
        assert code in (1, 75) and file is None and len(err.splitlines()) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows deletes no folder that is somebody's current one")
def test_a_current_folder_that_is_gone_is_told_of(tmp_path):
    """Deleted, or deleted and made anew, in another terminal: MKL ended with a line on a library of PyTorch's."""
    (tmp_path / "gone").mkdir()
    words = [sys.executable, ROOT / "generate.py", f"--model_name_or_path={tmp_path}", "--prompt=x"]
    command = ["sh", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', tmp_path / "gone", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("오류: 지금 있는 폴더가 지워졌습니다."), done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
def test_ctrl_c_at_a_terminal_is_told_of_in_a_line_of_its_own():
    controller, side = os.openpty()
    script = """
from gpt2_korean.ending import run_script
def main():
    print("오늘은 ^C", end="", flush=True)
    raise KeyboardInterrupt
raise SystemExit(run_script(main))
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=side, stderr=side, timeout=300, check=False)
    assert ended.returncode == 1 and os.read(controller, 1000).decode().startswith("오늘은 ^C\r\n오류: Ctrl-C")
    os.close(side)
    os.close(controller)


def test_a_signal_while_a_library_is_imported_is_no_mistake_of_ours(end):
    for stop, code in ((Stopped("x"), 75), (KeyboardInterrupt(), 1)):
        wrapped = RuntimeError("Error calling __set_name__ on 'Field' instance")
        wrapped.__cause__ = stop
        found, err, file = end(wrapped)
        assert found == code and file is None and "__set_name__" not in err


def test_a_thread_ends_no_other_way(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    before = threading.excepthook

    def main():
        thread = threading.Thread(target=lambda: [][0])
        thread.start()
        thread.join()
        return 0

    assert ending.run_script(main) == 0
    err = capsys.readouterr().err
    assert "IndexError" in err and "Traceback" not in err and len(err.splitlines()) == 2
    assert len(list(tmp_path.glob("*.txt"))) == 1 and threading.excepthook is before


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to send")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
def test_a_signal_when_all_is_done_changes_no_exit_code(name):
    """As the second one of those that torchrun and a scheduler both send, or a terminal that closes."""
    script = f"""
import atexit, os, signal, sys
from gpt2_korean.ending import run_script
atexit.register(os.kill, os.getpid(), signal.{name})  # called after all that is registered later
sys.exit(run_script(lambda: 75))
"""
    finished = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, timeout=300, check=False)
    assert (finished.returncode, finished.stderr) == (75, b"")


def test_a_torchvision_of_another_torch_stands_in_no_ones_way(tmp_path):
    """As where pip has put another torch beside it: transformers would import it, which raises."""
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    script = """
import sys
from gpt2_korean.ending import run_script

def main():
    from transformers.utils.import_utils import is_torchvision_available
    return 75 if not is_torchvision_available() else 0

sys.exit(run_script(main))
"""
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    finished = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, env=env, check=False)
    assert (finished.returncode, finished.stderr) == (75, b"")


def test_a_notebooks_own_streams_are_taken_as_they_are(monkeypatch):
    """As within %run."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert ending.run_script(lambda: 75) == 75


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
@pytest.mark.parametrize(("error", "ends_in"), [("KeyboardInterrupt", 1), ("Stopped('x')", 75)])
def test_a_ctrl_c_that_comes_once_more_on_the_way_out_says_nothing(error, ends_in):
    """As a notebook's stop button sends it."""
    script = f"""
import os, signal, sys
from gpt2_korean.ending import run_script
from gpt2_korean.messages import Stopped

def main():
    raise {error}

code = run_script(main)
os.kill(os.getpid(), signal.SIGINT)
sys.exit(code)
"""
    finished = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, timeout=300, check=False)
    assert finished.returncode == ends_in and len(finished.stderr.decode("utf-8").splitlines()) == 1


def test_utf8_is_read_whatever_the_locale(tmp_path):
    """As bytes that the locale does not know, and files by such a name."""
    (tmp_path / "앞글.txt").write_text("가\n", "utf-8")
    environment = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = ["generate.py", "--model_name_or_path=./없음", f"--prompt_file={tmp_path}/앞글.txt"]
    finished = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, env=environment, timeout=300, check=False
    )
    assert finished.returncode == 2 and "--model_name_or_path=./없음" in finished.stderr.decode("utf-8")


def test_what_libraries_and_their_processes_print_does_not_stand_among_the_results():
    script = (
        "import subprocess\nfrom gpt2_korean.ending import stdout_for_results\n"
        "with stdout_for_results():\n print('library')\n subprocess.run(['echo', 'process'])\nprint('result')"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "result\n" and sorted(ended.stderr.split()) == ["library", "process"], ended


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit to the size of a file")
@pytest.mark.parametrize("has_room_again", [True, False])
def test_a_log_that_the_disk_has_no_room_for_ends_nothing_and_goes_on_once_there_is(tmp_path, has_room_again):
    """As on a quota, until `copytruncate` of logrotate or a user makes room."""
    log = tmp_path / "log"
    script = (
        "import os, resource, sys\nfrom gpt2_korean.ending import run_script, stdout_for_results\n"
        "from gpt2_korean.messages import print_once, say\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "def main():\n with stdout_for_results():\n  for number in range(2000): say(f'[{number}] 손실 1')\n"
        f"  print('library')\n  if {has_room_again}: os.truncate({str(log)!r}, 0)\n  say('끝')\n"
        " print_once('result')\n return 0\nsys.exit(run_script(main))"
    )
    # PYTHONUNBUFFERED: a buffer keeps what was not taken, and Python would end with 120.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open(log, "ab") as file:
        ended = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=file, check=False
        )
    assert (ended.returncode, ended.stdout) == (0, b"result\n")
    assert log.read_text("utf-8", "replace").endswith("끝\nlibrary\n") is has_room_again


@pytest.mark.parametrize("given, cores, threads", [(None, 1, "1"), (None, None, None), (None, 3, None), ("7", 1, "7")])
def test_there_are_no_more_threads_than_a_container_has_cores(given, cores, threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", given or "")
    if given is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(ending, "core_limit", lambda: cores)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    seen = []
    assert ending.run_script(lambda: seen.append(os.environ.get("OMP_NUM_THREADS")) or 0) == 0
    assert seen == [threads]
