"""One training at a time in one output folder."""

import contextlib
import datetime
import errno
import json
import math
import os
import re
import time
from functools import partial
from pathlib import Path

from gpt2_korean.checkpoints.atomic_files import patiently
from gpt2_korean.checkpoints.complete import check_writable, read_record
from gpt2_korean.checkpoints.rotation import finish_what_a_killed_run_began
from gpt2_korean.messages import UsageError, UserError, is_first_rank, particle, warn

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

LOCK = "_lock"
FAR = 2**30  # the byte that Windows locks: others cannot read what is locked, but are to read who holds it
PATIENCE_SECONDS = 5  # a run that was killed just now keeps the lock until its memory is freed
SHARED_SECONDS = 60  # a network drive may hide a new file from other nodes for so long


@contextlib.contextmanager
def own_output_dir(output_dir):
    """Hold `output_dir`, made if need be, against other runs, and finish what a killed one began.

    The lock is the operating system's (POSIX has it across hosts, where the file system carries it): it ends
    with the process that holds it, however that ends, and no child inherits it. Of several ranks the first
    holds it for all. Raises UsageError where it cannot be one, UserError where another run holds it.
    """
    check_writable(output_dir, "--output_dir")
    if not is_first_rank():
        yield
        return
    output_dir = Path(output_dir)
    made = [folder for folder in (output_dir, *output_dir.parents) if not folder.exists()]
    lock = _lock(output_dir)
    try:
        finish_what_a_killed_run_began(output_dir)
        yield
    finally:
        if fcntl is None:
            lock.close()  # a file that is open cannot be removed: not this one, and not the one of who holds it next
        with contextlib.suppress(OSError):  # the folder may be gone by now
            (output_dir / LOCK).unlink()
        lock.close()
        with contextlib.suppress(OSError):  # a run that wrote nothing leaves nothing
            for folder in made:
                folder.rmdir()


def _lock(output_dir):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            file = _try_to_lock(output_dir, deadline)
        except OSError as error:
            # So NFS tells that a run on another node, which was just ending, has removed the file that we opened.
            if error.errno != errno.ESTALE or time.monotonic() > deadline:
                error.filename = error.filename or str(output_dir)  # the error of a full disk names none
                raise
            file = None
        if file is not None:
            return file
        time.sleep(0.05)


def _try_to_lock(output_dir, deadline):
    """The locked file, None where it is to be tried once more."""
    path = output_dir / LOCK
    output_dir.mkdir(parents=True, exist_ok=True)  # again: the run before may have removed it at its end
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(_open(path))
        try:
            _hold(file, alone=file.writable())
        except (BlockingIOError, PermissionError):
            if time.monotonic() < deadline:
                return None
            file.seek(0)
            raise UserError(
                f"--output_dir={output_dir}: 다른 학습{_describe_holder(file.read())}이 쓰고 있습니다.\n"
                "그 학습이 끝난 뒤 다시 실행하거나 다른 --output_dir을 주세요."
            ) from None
        except OSError as error:
            if error.errno == errno.ESTALE:
                raise
            warn(f"{output_dir}: 잠금이 없는 파일 시스템입니다. 같은 --output_dir로 두 작업을 함께 돌리지 마세요.")
        if not file.writable():  # a lock that another user's killed run left
            path.unlink(missing_ok=True)
            return None
        # A run that was just ending may have removed the file between our opening and locking it. After the deadline
        # the reason is another: the file system gives a file a new number each time.
        if fcntl is not None and time.monotonic() < deadline and not _is_at(path, file):
            return None
        holder = {"job": _job_number(), "process": os.getpid(), "start": time.strftime("%Y-%m-%d %H:%M")}
        file.truncate(0)
        file.write(json.dumps(holder))
        file.flush()
        opened.pop_all()
        return file


def _is_at(path, file):
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def is_held(output_dir):
    """Whether the lock of several ranks' first one is seen here: not on a node that has a disk of its own."""
    deadline = time.monotonic() + SHARED_SECONDS
    while not (seen := (Path(output_dir) / LOCK).exists()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return seen


def _hold(file, alone):
    """Lock an open file, not `alone`: as others may too; or raise BlockingIOError or PermissionError at once."""
    if fcntl is not None:
        fcntl.lockf(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        return
    os.lseek(file.fileno(), FAR, os.SEEK_SET)
    msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # Windows has exclusive locks only


def hold_records(file, alone):
    """Hold an open file of texts until it is closed: `alone` where the run goes on with what is in it, else with others
    that add to it. Raises UserError where another run stands against that.

    By flock, unlike _hold: a POSIX lock ends as soon as this process closes the file anywhere else.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while fcntl is not None:  # not on Windows: its locks cannot be shared by two that only append
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise UserError(
                    f"--output_file={file.name}: 다른 generate.py가 쓰고 있습니다.\n"
                    "끝난 뒤 다시 실행하거나 --output_file에 다른 파일을 주세요."
                ) from None
        except OSError:  # a file system without locks, or no file
            return
        time.sleep(0.05)


def describe_run(output_dir):
    """What is known of a run that works in `output_dir` and has saved nothing yet; None where no other one does."""
    try:
        file = open(Path(output_dir) / LOCK, encoding="utf-8")  # noqa: SIM115
    except OSError:
        return None
    with file:
        try:
            holder, start = file.read(), os.fstat(file.fileno()).st_mtime
            if _is_own(holder):  # on Windows our own lock keeps out ourselves too
                return None
            _hold(file, alone=False)
            return None
        except (BlockingIOError, PermissionError):
            step = _first_save(output_dir, start)
        except OSError:
            return None
    when = "" if step is None else f" 첫 체크포인트는 {step:,}스텝에 저장합니다."
    return f"아직 학습하는 중이고 저장된 것이 없습니다{_describe_holder(holder)}.{when}"


def _first_save(output_dir, start):
    """The step of the first checkpoint of the run that has held `output_dir` since `start` (s), None: not known."""
    record = read_record(output_dir)
    try:
        steps, every = record["steps"]["of"], record["options"]["save_steps"]
        way = record["options"].get("save_strategy", "steps")
        begun = datetime.datetime.fromisoformat(record["start"]).timestamp()
        if begun < start - 1 or way not in ("steps", "no"):  # told of an earlier run, or of no number of steps
            return None
        return steps if way == "no" else min(steps, math.ceil(every if every >= 1 else every * steps))
    except (KeyError, TypeError, ValueError):  # it has not begun
        return None


def _open(path):
    """Open the lock file, made if need be; read-only where it is another user's, as in a group's folder."""
    try:
        return patiently(partial(open, path, "a+", encoding="utf-8", opener=_open_no_link))
    except PermissionError:
        if not path.exists():
            raise
        return open(path, encoding="utf-8")  # _open_no_link has refused a link


def _open_no_link(path, flags):
    """Open the lock itself: through a link another file would be emptied."""
    try:
        if fcntl is None and os.path.islink(path):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        lock = particle(LOCK, "이/가")
        raise UsageError(
            f"--output_dir={os.path.dirname(path)}: {lock} 다른 곳을 가리키는 링크라 쓰지 않습니다. 지우고 다시 "
            "실행하거나 다른 --output_dir을 주세요."
        ) from None


def _job_number():
    """The scheduler's number of this job, None outside one; PBS appends a host name, which is left out."""
    name = os.environ.get("SLURM_JOB_ID") or os.environ.get("PBS_JOBID") or ""
    number = re.match(r"\d+", name)
    return number.group() if number else None


def _is_own(text):
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return json.loads(text)["process"] == os.getpid()
    return False


def _describe_holder(text):
    try:
        holder = json.loads(text)
        job = f"작업 {holder['job']}, " if holder["job"] else ""
        return f"({job}프로세스 {holder['process']}, {holder['start']} 시작)"
    except (ValueError, KeyError, TypeError):
        return ""
