"""The Dockerfile is one that hadolint accepts, takes what it copies and nothing else, and starts the two commands as
an ordinary user; compose.yaml serves the page to this computer alone."""

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path, PurePosixPath

import pytest
import yaml
from conftest import ROOT

from gpt2_korean.cli.generate_options import parse_generate_options

DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
LINES = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
INSTRUCTIONS = [tuple(line.split(maxsplit=1)) for line in LINES.splitlines() if line]
SERVE = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]["serve"]


def told(name):
    return [rest.strip() for instruction, rest in INSTRUCTIONS if instruction == name]


def test_hadolint_has_nothing_to_say():
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=Path(sys.executable).parent)
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def is_sent(path):
    """Whether .dockerignore lets a path of the project into an image: the last of its patterns that fits says."""
    path, sent = PurePosixPath(path), True
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        anchored = "**/" not in line
        parts = [str(part) if anchored else part.name for part in (path, *path.parents)]
        if not line.startswith("#") and any(fnmatch.fnmatch(part, pattern) for part in parts):
            sent = line.startswith("!")
    return sent


def test_what_is_copied_is_there_and_what_lies_about_is_not_taken():
    copied = [ROOT / source for words in told("COPY") for source in words.split()[:-1]]
    assert len(copied) > 5
    files = [file for source in copied for file in ([source] if source.is_file() else source.rglob("*.*"))]
    ours = [str(file.relative_to(ROOT)) for file in files if file.is_file() and file.suffix != ".pyc"]
    given = [path for path in ours if not path.startswith("data/")]
    assert len(given) > 80 and [path for path in given if not is_sent(path)] == []
    assert is_sent("data/korean_texts.txt")  # README's example

    ignored = (ROOT / ".gitignore").read_text("utf-8").replace("*", "some").splitlines()
    ignored = [line.strip("/") for line in ignored if not line.startswith("!")]
    others = [".git/config", ".env", "data/말뭉치.txt", "글.txt", "tests/conftest.py", "docs/page.png", "id_rsa"]
    for path in (*(f"{name}/file" for name in ignored), *ignored, "gpt2_korean/text/__pycache__/a.pyc", *others):
        assert not is_sent(path), path


def test_an_ordinary_user_runs_python_itself():
    """So that a signal of docker stop comes to it, and `docker run IMAGE train.py ...` is README's command."""
    assert json.loads(told("ENTRYPOINT")[0]) == ["python"] and told("STOPSIGNAL") == ["SIGTERM"]
    assert told("USER")[-1].split(":")[0] not in ("0", "root")
    assert parse_help(json.loads(told("CMD")[0]))
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", told("FROM")[0])


def test_whoever_runs_it_may_read_it_whatever_umask_it_was_cloned_under(tmp_path):
    """COPY keeps the modes of a clone, in which umask 077 leaves nothing to others."""
    tools, app = tmp_path / "tools", tmp_path / "app"
    (app / "gpt2_korean").mkdir(parents=True)
    copied = [app / "train.py", app / "gpt2_korean" / "device.py"]
    for file in copied:
        file.touch()
        file.chmod(0o600)
        file.parent.chmod(0o700)
    tools.mkdir()
    for name in ("python", "install"):  # which would write into the folders of this machine
        (tools / name).write_text("#!/bin/sh\n")
        (tools / name).chmod(0o755)
    script = next(words for words in told("RUN") if "compileall" in words)
    subprocess.run(["sh", "-c", script], cwd=app, env={"PATH": f"{tools}:/usr/bin:/bin"}, check=True)
    assert [file.stat().st_mode & 0o777 for file in copied] == [0o644] * 2
    assert [file.parent.stat().st_mode & 0o777 for file in copied] == [0o755] * 2


def parse_help(words):
    with pytest.raises(SystemExit) as ended:
        parse_generate_options(words[1:])
    return words[0] == "generate.py" and ended.value.code == 0


@pytest.mark.parametrize(
    "device, first", [("cpu", "--index-url=CPUS torch=="), ("cuda", ""), ("xpu", "requirements-xpu")]
)
def test_each_device_gets_its_torch(device, first, tmp_path):
    code, installed = install(device, tmp_path)
    assert code == 0
    *before, last = installed
    assert "-r requirements.txt -r requirements-serve.txt" in last
    assert bool(before) == bool(first) and all(first in words for words in before)


def test_a_device_that_there_is_not_is_refused(tmp_path):
    assert install("gpu", tmp_path) == (2, [])


def install(device, folder):
    """`(exit code, the words of each pip)` of the instruction that installs, for a device."""
    (folder / "pip").write_text('#!/bin/sh\necho "$@"\n')
    (folder / "pip").chmod(0o755)
    script = next(words for words in told("RUN") if "case" in words)
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "DEVICE": device, "CPU_TORCH": "CPUS"}
    done = subprocess.run(["sh", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines()


def filled_in(words, **variables):
    """As compose does it: `${NAME:-what else}`."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: variables.get(found[1]) or found[2], words)


@pytest.mark.parametrize("model", ["", "fine_tuned_models/내 모델"])
def test_compose_serves_a_model_to_this_computer_alone(model):
    script, *words = (filled_in(word, MODEL=model) for word in SERVE["command"])
    options = parse_generate_options(words)
    assert script == "generate.py" and options.page.serve and options.page.host == "0.0.0.0"
    assert options.model.model_name_or_path == (model or "fine_tuned_models/")
    assert [filled_in(port) for port in SERVE["ports"]] == [f"127.0.0.1:{options.page.port}:{options.page.port}"]
    assert all(volume.partition(":")[2].split(":")[0] in told("VOLUME")[0] for volume in SERVE["volumes"])


def test_compose_asks_for_nothing_that_podman_or_an_older_docker_refuses():
    """Docker before 25 and Podman's socket refuse the whole file for start_interval."""
    assert SERVE["healthcheck"].keys() == {"test", "start_period", "interval", "timeout"}


@pytest.mark.parametrize("status", [200, 503, None])
def test_compose_asks_a_server_for_its_health(status):
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        kind, python, *words = SERVE["healthcheck"]["test"]
        words = [word.replace(":7860/", f":{server.server_port}/") for word in words]
        if status:
            threading.Thread(target=server.handle_request, daemon=True).start()
        else:
            server.socket.close()
        done = subprocess.run([sys.executable, *words], capture_output=True)
    assert (kind, python, done.returncode) == ("CMD", "python", 0 if status == 200 else 1)
