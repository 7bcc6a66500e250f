"""Both scripts do without what Windows lacks, as far as a Linux from which it is taken away can show."""

import ast
import os
import runpy
import shlex
import signal
import subprocess
import sys

import pytest
from conftest import ROOT
from test_house import FILES, imports

from gpt2_korean import windows

EMULATION = ROOT / "tests" / "windows"
# The only files that use what Windows lacks, or what it alone has: each asks first whether it is there.
ASKED = {
    "fcntl": "lock.py", "msvcrt": "lock.py", "termios": "keyboard.py", "tty": "keyboard.py",
    "signal.SIGCHLD": "failures.py", "os.sched_getaffinity": "ending.py",
}  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="what is open is read from Linux's /proc")
def test_both_scripts_do_without_what_windows_lacks():
    path = os.pathsep.join(filter(None, (str(EMULATION), str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "EMULATED_WINDOWS": "1", "PYTHONPATH": path, "PYTHONIOENCODING": "cp949"}
    words = ["-p", "no:xdist", "-p", "no:cacheprovider", "--maxfail=3", str(EMULATION / "runs.py")]
    environment.pop("PYTEST_XDIST_WORKER", None)
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=ROOT, env=environment, capture_output=True, timeout=600
    )
    assert finished.returncode == 0, finished.stdout.decode("cp949", "replace")[-8000:]


def uses(path):
    """The modules that a file imports, and `module.name` for what it takes of them."""
    attributes = (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Attribute))
    taken = {f"{node.value.id}.{node.attr}" for node in attributes if isinstance(node.value, ast.Name)}
    return imports(path) | taken


@pytest.mark.skipif(sys.platform != "linux", reason="the names are those of a Linux")
def test_what_windows_lacks_is_used_only_where_it_is_asked_for():
    emulation = runpy.run_path(str(EMULATION / "sitecustomize.py"))
    lacking = {*emulation["MODULES"].split(), "msvcrt", "select.poll", "select.epoll", "socket.AF_UNIX"}
    lacking |= {f"os.{name}" for name in emulation["OF_OS"].split()}
    signals = {f"signal.{name}" for name in [*dir(signal), "SIGBREAK"] if name.startswith("SIG")}
    there = {f"signal.{name}" for name in (*emulation["SIGNALS"].split(), "SIG_DFL", "SIG_IGN")}
    lacking |= (signals - there) | {f"signal.{name}" for name in emulation["OF_SIGNAL"].split()}
    found = {(name, path.name) for path in FILES.values() for name in uses(path) & lacking}
    assert found == {*ASKED.items()}


def test_a_command_that_is_printed_fits_the_shell_at_hand(monkeypatch):
    words = ["python", "generate.py", "--model_name_or_path=내 모델"]
    assert shlex.split(windows.join_command(words)) == words
    monkeypatch.setattr(windows, "WINDOWS", True)
    assert windows.join_command(words) == 'python generate.py "--model_name_or_path=내 모델"'
    assert windows.join_command([*words, "가$나"])  # what its shells read each in their own way is printed all the same


def test_what_is_said_can_be_written_in_the_code_page_of_a_korean_windows():
    """But for a few signs that stand for others: in a file they come escaped."""
    lacking = {}
    for path in FILES.values():
        tree = ast.parse(path.read_text("utf-8"))
        texts = [
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        texts = {text for text in texts if any("가" <= letter <= "힣" for letter in text)}
        signs = {letter for text in texts for letter in text if not letter.encode("cp949", "ignore")}
        lacking |= {path.name: signs} if signs else {}
    assert lacking == {"generate_flags.py": {"\ufffd"}, "show.py": {"⟦", "⟧"}, "train_flags.py": {"⟦", "⟧"}}
