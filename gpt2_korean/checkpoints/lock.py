"""One training at a time in one output folder."""

import contextlib
import errno
import fcntl
import json
import os
import re
import time
from pathlib import Path

from gpt2_korean.checkpoints.complete import check_output_dir
from gpt2_korean.checkpoints.rotation import finish_what_a_killed_run_began
from gpt2_korean.messages import UsageError, UserError, warn

LOCK = "_lock"
PATIENCE_SECONDS = 5  # for a run that was killed just now: it takes time to give back its memory, and then the lock


@contextlib.contextmanager
def own_output_dir(output_dir):
    """Hold `output_dir`, made if need be, against other runs, and finish what a killed one began.

    The lock is the operating system's (POSIX, and so across hosts where the file system carries it): it ends
    with the process that holds it, however that ends, and no child inherits it. Of several ranks the first
    holds it for all. Raises UsageError where it cannot be one, UserError where another run holds it.
    """
    check_output_dir(output_dir)
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    output_dir = Path(output_dir)
    made = [folder for folder in (output_dir, *output_dir.parents) if not folder.exists()]
    lock = _lock(output_dir)
    try:
        finish_what_a_killed_run_began(output_dir)
        yield
    finally:
        with contextlib.suppress(OSError):  # the folder may be gone by now
            (output_dir / LOCK).unlink()
        lock.close()
        with contextlib.suppress(OSError):  # a run that wrote nothing leaves nothing
            for folder in made:
                folder.rmdir()


def _lock(output_dir):
    path, deadline = output_dir / LOCK, time.monotonic() + PATIENCE_SECONDS
    while True:
        output_dir.mkdir(parents=True, exist_ok=True)  # anew, where the run before was the one that made it
        file = open(path, "a+", encoding="utf-8", opener=_open_no_link)  # noqa: SIM115
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            if time.monotonic() < deadline:
                file.close()
                time.sleep(0.05)
                continue
            file.seek(0)
            raise UserError(
                f"--output_dir={output_dir}: 다른 학습{_describe_holder(file.read())}이 쓰고 있습니다.\n"
                "그 학습이 끝난 뒤 다시 실행하거나 다른 --output_dir을 주세요."
            ) from None
        except OSError:
            warn(f"{output_dir}: 잠금이 없는 파일 시스템입니다. 같은 --output_dir로 두 작업을 함께 돌리지 마세요.")
        with contextlib.suppress(FileNotFoundError):
            # A run that was just ending may have removed the file between our opening and locking it.
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                break
        file.close()
    file.truncate(0)
    file.write(json.dumps({"job": _job_number(), "process": os.getpid(), "start": time.strftime("%Y-%m-%d %H:%M")}))
    file.flush()
    return file


def _open_no_link(path, flags):
    """Open the lock itself: through a link another file would be emptied."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UsageError(
            f"--output_dir={os.path.dirname(path)}: {LOCK}이(가) 다른 곳을 가리키는 링크라 쓰지 않습니다. 지우고 다시 "
            "실행하거나 다른 --output_dir을 주세요."
        ) from None


def _job_number():
    """The scheduler's number of this job, None outside one; PBS appends a host name, which is left out."""
    name = os.environ.get("SLURM_JOB_ID") or os.environ.get("PBS_JOBID") or ""
    number = re.match(r"\d+", name)
    return number.group() if number else None


def _describe_holder(text):
    try:
        holder = json.loads(text)
        job = f"작업 {holder['job']}, " if holder["job"] else ""
        return f"({job}프로세스 {holder['process']}, {holder['start']} 시작)"
    except (ValueError, KeyError, TypeError):
        return ""
