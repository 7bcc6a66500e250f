"""Windows as far as a Linux can be one: a Python process with this folder in PYTHONPATH, and all that it starts.

Our own code alone misses the names that Windows lacks, since the libraries ask which system it is before they use
them. What the system itself does otherwise, above all that a file which is open or mapped is neither replaced nor
removed, it does to everybody. Not here: the console, the Proactor loop, reads of a locked region, reserved names.
"""

import builtins
import errno
import functools
import importlib.util
import io
import mimetypes
import multiprocessing
import os
import re
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import types
from pathlib import Path

ROOT = Path(__file__).parents[2]
OURS, SCRIPTS = f"{ROOT}/gpt2_korean/", {f"{ROOT}/train.py", f"{ROOT}/generate.py"}
MARK = "EMULATED_WINDOWS"  # in the environment of all such processes
CODE_PAGE = "cp949"
ACCESS_DENIED, SHARING_VIOLATION, ALREADY_EXISTS, INVALID_NAME, NO_SOCKET = 5, 32, 183, 123, 10038
SIGBREAK = 21

MODULES = "crypt curses fcntl grp nis posix pty pwd readline resource spwd syslog termios tty"
OF_OS = """
O_ASYNC O_CLOEXEC O_DIRECT O_DIRECTORY O_DSYNC O_NDELAY O_NOATIME O_NOCTTY O_NOFOLLOW O_NONBLOCK O_PATH O_SYNC
WEXITSTATUS WIFEXITED WIFSIGNALED WIFSTOPPED WNOHANG WSTOPSIG WTERMSIG WUNTRACED chown chroot ctermid environb fchdir
fchmod fchown fdatasync fork forkpty fpathconf fstatvfs get_blocking getegid geteuid getgid getgroups getloadavg getpgid
getpgrp getpriority getresuid getsid getuid getxattr killpg lchown lockf major makedev memfd_create minor mkfifo mknod
nice openpty pathconf pipe2 posix_fadvise posix_fallocate posix_spawn pread pwrite readv register_at_fork
sched_getaffinity sched_setaffinity sched_yield sendfile set_blocking setpgid setpriority setsid setuid statvfs sync
sysconf tcgetpgrp ttyname uname wait wait3 wait4 waitid writev
"""
SIGNALS = "SIGABRT SIGFPE SIGILL SIGINT SIGSEGV SIGTERM"  # that there are
OF_SIGNAL = """
alarm getitimer pause pthread_kill pthread_sigmask setitimer sigpending siginterrupt sigtimedwait sigwait sigwaitinfo
ITIMER_PROF ITIMER_REAL ITIMER_VIRTUAL SIG_BLOCK SIG_SETMASK SIG_UNBLOCK
"""
BAD_NAME = re.compile(r'[<>:"|?*\\\x00-\x1f]|[. ]$')


@functools.cache
def is_ours(file):
    """Whether a file of code is of the package or one of the two scripts."""
    return file.startswith(OURS) or os.path.abspath(file) in SCRIPTS


def called_by_us(depth=2):
    try:
        return is_ours(sys._getframe(depth).f_code.co_filename)
    except ValueError:  # by Python itself, at its end
        return False


def failure(winerror, *paths, number=errno.EACCES, kind=PermissionError):
    error = kind(number, os.strerror(number) + " (Windows)", *paths)
    error.winerror = winerror
    return error


def hide(module, names):
    """Take `names` from a module for those who are us."""
    real = {name: vars(module).pop(name) for name in names.split() if name in vars(module)}

    def find(name):
        if name in real and not called_by_us():
            return real[name]
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r} (Windows)")

    module.__getattr__ = find


def change_imports(msvcrt, real=builtins.__import__):
    def load(name, globals=None, locals=None, fromlist=(), level=0):
        if is_ours((globals or {}).get("__file__") or ""):
            if name == "msvcrt":
                return msvcrt
            if name.split(".")[0] in MODULES.split():
                raise ModuleNotFoundError(f"No module named {name!r} (Windows)", name=name)
        return real(name, globals, locals, fromlist, level)

    builtins.__import__ = load


def emulated_processes(known={}):  # noqa: B006
    for process in filter(str.isdecimal, os.listdir("/proc")):
        if process not in known:
            try:
                known[process] = MARK.encode() in Path("/proc", process, "environ").read_bytes()
            except OSError:
                known[process] = False
        if known[process]:
            yield Path("/proc", process)


def read_link(path):
    try:
        return os.readlink(path)
    except OSError:  # that of the listing itself
        return None


def is_held(path):
    """Whether a file, or any in a folder, is open or mapped in this process or another of Windows."""
    path = os.path.join(os.path.realpath(os.path.dirname(os.fspath(path)) or "."), os.path.basename(os.fspath(path)))
    if os.path.islink(path):
        return False
    inside = path + os.sep
    for process in emulated_processes():
        try:
            held = [place for each in os.listdir(process / "fd") if (place := read_link(process / "fd" / each))]
            maps = (process / "maps").read_text("utf-8")
        except OSError:
            continue  # it has ended
        if path in maps:
            held += re.findall(r"/.*", maps)
        if any(each == path or each.startswith(inside) for each in held):
            return True
    return False


def check_name(path):
    bad = isinstance(path, str | os.PathLike) and next(
        (part for part in Path(path).parts if part not in ("/", "..", ".") and BAD_NAME.search(part)), None
    )
    if bad:
        raise failure(INVALID_NAME, os.fspath(path), number=errno.EINVAL, kind=OSError)


def change_files():
    open_real, rename_real, replace_real, io_open = os.open, os.rename, os.replace, io.open

    def open_descriptor(path, flags, *args, **keywords):
        if flags & os.O_CREAT:
            check_name(path)
        if os.path.isdir(path):
            raise failure(ACCESS_DENIED, os.fspath(path))
        return open_real(path, flags, *args, **keywords)

    def open_file(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, *args, **keywords):
        writes = set("wxa+") & set(mode)
        if writes:
            check_name(file)
        if "b" not in mode:
            encoding = CODE_PAGE if encoding in (None, "locale") else encoding
            newline = "\r\n" if writes and newline is None and "+" not in mode else newline
        try:
            return io_open(file, mode, buffering, encoding, errors, newline, *args, **keywords)
        except IsADirectoryError:
            raise failure(ACCESS_DENIED, os.fspath(file)) from None

    def moved(real, overwrites):
        def move(source, target, **keywords):
            check_name(target)
            if is_held(source):
                raise failure(ACCESS_DENIED if os.path.isdir(source) else SHARING_VIOLATION, source, None, target)
            if os.path.lexists(target) and os.path.isdir(target) and overwrites:
                raise failure(ACCESS_DENIED, source, None, target)
            if os.path.lexists(target) and not overwrites:
                raise failure(ALREADY_EXISTS, source, None, target, number=errno.EEXIST, kind=FileExistsError)
            if is_held(target):
                raise failure(ACCESS_DENIED, source, None, target)
            return real(source, target, **keywords)

        return move

    def removed(real):
        def remove(path, *args, **keywords):
            frames = [sys._getframe(1), sys._getframe(2)]  # pathlib may stand between
            own_way = any(frame.f_globals["__name__"].startswith("filelock") for frame in frames)  # and another there
            if not own_way and is_held(path):
                raise failure(SHARING_VIOLATION, os.fspath(path))
            return real(path, *args, **keywords)

        return remove

    def made(real):
        def make(path, *args, **keywords):
            check_name(path)
            return real(path, *args, **keywords)

        return make

    def sync(descriptor, real=os.fsync):
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        if not fcntl.fcntl(number, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return real(descriptor)

    import fcntl

    os.open, os.fsync, io.open, builtins.open = open_descriptor, sync, open_file, open_file
    os.rename, os.replace = moved(rename_real, False), moved(replace_real, True)
    for name in ("unlink", "remove", "rmdir"):
        setattr(os, name, removed(getattr(os, name)))
    os.mkdir = made(os.mkdir)
    shutil._use_fd_functions = False
    tempfile.TemporaryFile = tempfile.NamedTemporaryFile  # as it is there


def change_signals():
    known = {SIGBREAK, *(getattr(signal, name) for name in SIGNALS.split())}

    def handle(number, handler, real=signal.signal):
        if called_by_us() and number not in known:
            raise ValueError("invalid signal value (Windows)")
        return real(number, handler)

    lacking = [each.name for each in signal.Signals if each.name not in SIGNALS.split()]
    hide(signal, f"{' '.join(lacking)} {OF_SIGNAL}")
    signal.SIGBREAK, signal.signal = SIGBREAK, handle


def change_select():
    def wait(readers, writers, others, *timeout, real=select.select):
        if called_by_us() and not all(isinstance(each, socket.socket) for each in (*readers, *writers, *others)):
            raise OSError(NO_SOCKET, "not a socket (Windows)")
        return real(readers, writers, others, *timeout)

    select.select = wait


def make_msvcrt():
    """Its lock: of this handle alone, on bytes from where the file stands, whether or not they are there."""
    import fcntl

    def locking(descriptor, mode, count):
        writes = fcntl.fcntl(descriptor, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR)  # Linux locks nothing else alone
        kind = fcntl.F_UNLCK if mode == msvcrt.LK_UNLCK else fcntl.F_WRLCK if writes else fcntl.F_RDLCK
        region = struct.pack("hhqqi4x", kind, os.SEEK_SET, os.lseek(descriptor, 0, os.SEEK_CUR), count, 0)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, region)
        except (BlockingIOError, PermissionError):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None

    msvcrt = types.ModuleType("msvcrt")
    msvcrt.LK_UNLCK, msvcrt.LK_LOCK, msvcrt.LK_NBLCK, msvcrt.locking = 0, 1, 2, locking
    return msvcrt


class Stream(io.FileIO):
    def write(self, data):
        try:
            return super().write(data)
        except BrokenPipeError:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from None


def change_streams():
    for number, name in ((1, "stdout"), (2, "stderr")):
        if not os.isatty(number):
            stream = io.BufferedWriter(Stream(number, "w", closefd=False))
            errors = getattr(sys, name).errors
            setattr(sys, name, io.TextIOWrapper(stream, CODE_PAGE, errors, "\r\n", line_buffering=number == 2))


def become_windows():
    change_imports(make_msvcrt())
    change_files()
    change_signals()
    change_select()
    change_streams()
    os.process_cpu_count = os.cpu_count  # Python 3.13 and later have it ask for what is hidden here
    hide(os, OF_OS)
    hide(select, "epoll poll")
    multiprocessing.set_start_method("spawn", force=True)
    mimetypes.add_type("text/plain", ".js")  # as many a registry has it
    if importlib.util.find_spec("gpt2_korean.windows"):
        import gpt2_korean.windows

        gpt2_korean.windows.WINDOWS = True


if os.environ.get(MARK):
    become_windows()
