"""A process that has the libraries loaded and forks scripts, which so start at once and not after seconds of imports.

A line of JSON on stdin asks for one script, or for two side by side as the ranks of one run; the line on stdout that
answers it has their exit codes. Nothing here starts a thread before it forks.
"""

import gc
import json
import os
import random
import resource
import runpy
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
PATIENCE_SECONDS = 600


def main():
    gc.set_threshold(10_000)  # as a script does
    load_libraries()
    gc.freeze()  # a script looks for garbage of its own alone
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), file=answers, flush=True)


def load_libraries():
    import generate  # noqa: F401
    import train  # noqa: F401
    from gpt2_korean.model import load  # noqa: F401
    from gpt2_korean.speed import choose  # noqa: F401
    from gpt2_korean.training import callbacks, evaluation, run, samples, trainer  # noqa: F401

    # As in conftest.py.
    callbacks.draw = lambda curve: b"picture"
    samples.LENGTH, evaluation.TEXTS, evaluation.CHARACTERS = 4, 5, 20


def run(request):
    """The exit codes of request["ranks"] processes, negative where a signal ended one."""
    ranks = request["ranks"]
    port = free_port() if ranks > 1 else None
    running = {start(request, rank, port): rank for rank in range(ranks)}
    codes, deadline = [None] * ranks, time.monotonic() + PATIENCE_SECONDS
    while running:
        for process, rank in list(running.items()):
            found, status = os.waitpid(process, os.WNOHANG)
            if found:
                codes[rank] = os.waitstatus_to_exitcode(status)
                del running[process]
            elif time.monotonic() > deadline:
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)
    return codes


def free_port():
    """Below those that are given to whoever asks for any, one of which may be given before the first rank listens."""
    while True:
        port = random.randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def start(request, rank, port):
    process = os.fork()
    if process:
        return process
    try:
        for descriptor, flags, name in (
            (0, os.O_RDONLY, os.devnull),
            (1, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, f"{request['output']}.{rank}.out"),
            (2, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, f"{request['output']}.{rank}.err"),
        ):
            os.dup2(os.open(name, flags), descriptor)
        if port:
            each = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": request["ranks"], "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in each.items()}, MASTER_ADDR="127.0.0.1")
        os.chdir(request["folder"])
        if request.get("bytes"):
            held = int(Path("/proc/self/statm").read_text("utf-8").split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (held + request["bytes"],) * 2)
        sys.argv = request["words"]
        code = run_as_script(sys.argv[0])
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run_as_script(path):
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    return 0


if __name__ == "__main__":
    main()
