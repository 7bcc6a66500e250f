"""What a user reads on stderr, and how a run ends.

Results belong to stdout; everything here goes to stderr. A mistake a user can make is raised as
`UserError` (exit code 1) or `UsageError` (2: the command line itself is wrong) with a Korean message
of one or two lines; anything else is a bug, whose traceback goes into a file. A run that was asked to stop
and can go on later ends with `Stopped` (75).
"""

import atexit
import contextlib
import errno
import gc
import os
import platform
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
import unicodedata
from importlib.util import find_spec
from pathlib import Path

TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}|(?<=://)[^/@\s]+(?=@)")  # a Hub token; the name and password in a URL
NAMED_SECRET = re.compile(
    r"((?:authorization|password|secret|api[_-]?key|(?:hub|access|auth)[_-]token)['\"]?\s*[:=]\s*b?['\"]?"
    r"(?:(?:bearer|basic|token)\s+)?)(?![가-힣])[^\s'\",;})]+",  # Korean is what we say of a flag, as of --api_key
    re.IGNORECASE,
)
KEY = re.compile(r"\bwandb_v\d_\w+|\b[0-9a-f]{40}\b")  # of wandb; a commit may look like one
SECRET_VARIABLE = re.compile("TOKEN|KEY|SECRET|PASSWORD", re.IGNORECASE)
# How digits and letters are read in Korean: those that end in ㄹ (일, 칠, 팔; 엘, 알) and in another consonant.
READ_WITH_L = set("178ㄹLlRr")
READ_WITH_CONSONANT = READ_WITH_L | set("036MmNn") | {chr(letter) for letter in range(ord("ㄱ"), ord("ㅎ") + 1)}
READ = READ_WITH_CONSONANT | set("2459%ABCDEFGHIJKOPQSTUVWXYZabcdefghijkopqstuvwxyz")
# A few of requirements.txt, by which one knows a Python that has none of it, and the last to be added: an older one's.
REQUIRED = ("torch", "transformers", "datasets", "safetensors", "tiktoken")
IN_USE = (5, 32, 33)  # how Windows refuses to change a file that a program has open or mapped; 5: or for its rights
NOBODY_READS = (errno.EPIPE, errno.EIO, errno.EINVAL)  # the last is Windows' word for the first
SHORTEST_SECRET = 6  # what is shorter, as the 1 or false of a switch, would hide half of every message


class Lasting:
    """A standard stream whose reader may leave, as a terminal that closes does, or a `tee` that Ctrl-C ends too.

    What is written after that goes nowhere, where the error would end a run before it has saved.
    """

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text):
        return self._last(self._stream.write, text)

    def flush(self):
        return self._last(self._stream.flush)

    def _last(self, do, *text):
        try:
            return do(*text)
        except OSError as error:
            if error.errno not in NOBODY_READS:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)


class UserError(Exception):
    """Something a user can mend: the message names what is wrong and the way on."""

    exit_code = 1


class UsageError(UserError):
    """The command line is wrong: a flag, its value, or a path that it names."""

    exit_code = 2


class Stopped(BaseException):
    """The run was asked to stop; the same command goes on. No Exception, so that no library takes it for its own."""

    exit_code = 75


def say(message):
    """Print one message on stderr; with several ranks only the first one speaks."""
    if os.environ.get("RANK", "0") == "0":
        print(hide_secrets(str(message)), file=sys.stderr, flush=True)


def print_once(text):
    """Print a result on stdout; with several ranks only the first one does."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=Lasting(sys.stdout), flush=True)


def takes_colour(stream):
    """Whether a stream is a terminal that shows colours, and its user did not ask for none."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def warn(message):
    say(f"주의: {message}")


def warn_of_failure(error, message):
    """Warn that something is done without, since `error` stood in its way; whatever that is, no program ends for it.

    It may be a mistake of ours: GPT2_KOREAN_DEBUG=1 shows where it was made.
    """
    warn(message)
    if os.environ.get("GPT2_KOREAN_DEBUG") == "1":
        say("".join(traceback.format_exception(error)))


def run_script(main):
    """Run `main()` and turn whatever it raises into a message and an exit code (0, 1, 2 or 75)."""
    if sys.getfilesystemencoding() == "ascii" and os.environ.get("PYTHONUTF8") != "1":
        # Files with Korean names could not be opened, and arguments not be read.
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, sys.orig_argv)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # it was closed, as a service's may be; the next file would have its number
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        # Text that an ASCII or CP949 terminal cannot show is escaped, never a crash.
        stream.reconfigure(errors="backslashreplace")
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):  # Windows has the first two
        if hasattr(signal, name):  # called last: Python's own end, which takes a while, would die of it
            atexit.register(signal.signal, getattr(signal, name), signal.SIG_IGN)
    # Imports make a million objects that all stay: to look for garbage after every 700 takes over a second of a start.
    gc.set_threshold(10_000)
    atexit.register(gc.freeze)  # to look through them all once more at the end takes half a second
    if not sys.stderr.isatty():
        # Progress bars are redrawn in place; in the log of a batch job each drawing is a line more.
        os.environ.setdefault("TQDM_DISABLE", "1")
    hook, threading.excepthook = threading.excepthook, _report_of_thread
    stderr, sys.stderr = sys.stderr, Lasting(sys.stderr)
    try:
        return _unwrapped(main)
    except UserError as error:
        say_error(error)
        return error.exit_code
    except Stopped as stopped:
        say(stopped)
        return stopped.exit_code
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            say("")  # behind the ^C that a terminal shows, in the middle of a text
        say_error("Ctrl-C로 멈췄습니다. 이미 저장된 체크포인트와 결과는 그대로 있습니다.")
        return 1
    except Exception as error:
        missing = isinstance(error, ImportError) and [name for name in REQUIRED if not find_spec(name)]
        if missing:
            say_error(describe_missing(missing))
        else:
            say_error(describe_os_error(error) if isinstance(error, OSError) and error.errno else report(error))
        return 1
    finally:
        threading.excepthook, sys.stderr = hook, stderr


def _unwrapped(main):
    """main(); what a signal raised in the making of a class, as an import does, Python 3.11 wraps in an error."""
    try:
        return main()
    except RuntimeError as error:
        if isinstance(error.__cause__, Stopped | KeyboardInterrupt):
            raise error.__cause__ from None
        raise


def _report_of_thread(failed):
    if isinstance(failed.exc_value, Exception):
        say_error(report(failed.exc_value))


@contextlib.contextmanager
def tracebacks_in(folder):
    """Have the traceback of what nobody foresaw in here written into `folder`."""
    try:
        yield
    except Exception as error:
        error.reported_in = folder
        raise


def report(error):
    """Write the traceback of an error that nobody foresaw into a file; returns two lines: what broke, and where it is.

    The file stands in the folder of tracebacks_in, the current one, its logs/ (all that a container keeps) or a
    temporary one, the first that can be written.
    """
    if is_of_lost_rank(error):
        return (
            "함께 학습하던 프로세스 하나가 먼저 끝나 이 프로세스도 멈춥니다. 까닭은 그 프로세스의 메시지를 보세요"
            "(없으면 메모리가 모자라 죽었을 수 있습니다).\n--resume_from_checkpoint=auto를 넣어 다시 실행하면 저장된 "
            "체크포인트에서 이어 갑니다."
        )
    lines = KEY.sub("***", hide_secrets("".join(traceback.format_exception(error))))
    if os.environ.get("GPT2_KOREAN_DEBUG") == "1":
        print(lines, file=sys.stderr, flush=True)
    name = f"gpt2-korean-error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    about = f"Python {platform.python_version()}, {platform.platform()}\n"
    place = "적을 곳이 없었습니다. 환경 변수 GPT2_KOREAN_DEBUG를 1로 두고 다시 실행하면 화면에 나옵니다."
    for folder in (getattr(error, "reported_in", None) or ".", ".", "logs", None):
        with contextlib.suppress(OSError, ValueError, TypeError):
            folder = folder or tempfile.gettempdir()  # there may be none
            Path(folder).mkdir(parents=True, exist_ok=True)
            file = Path(folder, name).resolve()
            file.write_text(about + lines, "utf-8", "backslashreplace")
            place = f"{file}에 적었습니다. 프로젝트의 이슈에 이 파일을 붙여 알려 주세요."
            break
    what = KEY.sub("***", hide_secrets(f"{type(error).__name__}: {first_line(error)}".removesuffix(": ")))
    if is_out_of_memory(error):
        return f"메모리가 모자랍니다({what}). 배치나 모델을 줄여 다시 실행하세요.\n자세한 것은 {place}"
    if "failed to map segment" in what:  # of a library, as PyTorch's gigabytes where the memory of a job is limited
        return f"메모리가 모자랍니다({what}). 메모리의 한도(ulimit -v)를 늘려 다시 실행하세요.\n자세한 것은 {place}"
    others = other_versions()
    way_on = (
        f" requirements.txt와 버전이 다릅니다({others}). pip install -r requirements.txt로 맞추세요." if others else ""
    )
    return f"예상하지 못한 오류가 났습니다({what}).{way_on}\n자세한 것은 {place}"


def other_versions():
    """What this Python has in other versions than those of requirements.txt, which are the tested ones: in words."""
    from importlib.metadata import PackageNotFoundError, version  # takes longer than most refusals

    others = []
    with contextlib.suppress(OSError):
        pinned = Path(__file__).parent.with_name("requirements.txt").read_text("utf-8")
        for name, tested in re.findall(r"^([\w-]+)==(\S+)$", pinned, re.MULTILINE):
            with contextlib.suppress(PackageNotFoundError):
                found = version(name).partition("+")[0]  # of torch without its build
                others += [f"{name} {found}"] if found != tested else []
    return ", ".join(others)


def is_of_lost_rank(error):
    """Whether an error means that another of several ranks has ended: as gloo, torch's store and NCCL say it."""
    return isinstance(error, RuntimeError) and bool(re.search("by peer|Broken pipe|remote process exited", str(error)))


def is_out_of_memory(error):
    """Whether an error means that there is too little memory: of a device, or as torch says it of a CPU (by system)."""
    said = isinstance(error, RuntimeError) and re.search("DefaultCPUAllocator: (can't|not enough)", str(error))
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or bool(said)


def first_line(error):
    """The first line of an error's message that is not blank, cut where it is long."""
    try:
        lines = str(error).split("\n")
    except Exception:  # the message of an error may fail as well
        return ""
    line = next((line.strip() for line in lines if line.strip()), "")
    return line if len(line) <= 300 else f"{line[:299]}…"


def say_error(error):
    # Every rank reports its own error: the first rank may not be the one that failed.
    print(hide_secrets(f"오류: {error}"), file=sys.stderr, flush=True)


def hide_secrets(text):
    """`text` without tokens, keys and passwords, also those that environment variables hold."""
    secrets = {value for name, value in os.environ.items() if SECRET_VARIABLE.search(name)}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return NAMED_SECRET.sub(r"\1***", TOKEN.sub("***", text))


def particle(word, pair):
    """`word` and the one of two particles ("은/는", "으로/로") that follows its sound; both where nobody knows it.

    The sound is that of the last syllable, or of the last digit or letter by its name: quotes and brackets have none.
    """
    after_consonant, after_vowel = pair.split("/")
    last = next((sign for sign in reversed(unicodedata.normalize("NFC", word)) if sign.isalnum() or sign == "%"), "")
    if "가" <= last <= "힣":
        final = (ord(last) - ord("가")) % 28
        consonant, l_sound = final != 0, final == 8
    elif last in READ:
        consonant, l_sound = last in READ_WITH_CONSONANT, last in READ_WITH_L
    else:
        start = after_consonant.removesuffix(after_vowel)  # 으 of 으로/로
        return word + (f"({start}){after_vowel}" if start != after_consonant else f"{start}({after_vowel})")
    return word + (after_consonant if consonant and not (l_sound and pair.startswith("으로")) else after_vowel)


def describe_missing(packages):
    """What to do about `packages` that this Python has not: most often its virtual environment is not active."""
    ways = {".venv/bin/python": "source .venv/bin/activate", r".venv\Scripts\python.exe": r".venv\Scripts\activate"}
    here = next((python for python in ways if os.path.exists(python)), None)
    if here:
        way_on = f"{particle(ways[here], '을/를')} 먼저 하거나 {particle(here, '으로/로')} 실행하세요."
    else:
        way_on = "README의 ‘설치’대로 가상 환경을 만들고 pip install -r requirements.txt를 실행하세요."
    return f"이 Python({sys.executable})에는 필요한 패키지가 없습니다: {', '.join(packages)}\n{way_on}"


def describe_os_error(error):
    """What an OSError means, in Korean, with the file it is about."""
    return f"{os_reason(error)} ({error.filename})" if error.filename else os_reason(error)


def os_reason(error):
    """What an OSError means, in Korean, without its file."""
    reasons = {
        errno.ENOSPC: "디스크에 남은 공간이 없습니다. 자리를 비우고 다시 실행하세요",
        errno.EDQUOT: "디스크 할당량을 다 썼습니다. 자리를 비우고 다시 실행하세요",
        errno.EFBIG: "파일 크기 한도를 넘었습니다. 한도(ulimit -f)를 늘리고 다시 실행하세요",
        errno.EACCES: "권한이 없습니다. 파일과 폴더의 권한을 확인하세요",
        errno.EPERM: "권한이 없습니다. 파일과 폴더의 권한을 확인하세요",
        errno.EROFS: "읽기 전용 파일 시스템입니다. 쓸 수 있는 곳을 지정하세요",
        errno.ENOENT: "파일이나 폴더가 없습니다. 경로를 확인하고, 쓸 곳이라면 폴더를 먼저 만드세요",
        errno.EISDIR: "파일이 아니라 폴더입니다",
        errno.ENOTDIR: "폴더가 아니라 파일입니다",
        errno.ENAMETOOLONG: "이름이 너무 깁니다. 더 짧은 이름을 주세요",
    }
    reason = reasons.get(error.errno, first_line(error.strerror or error))
    if is_in_use(error):
        may_be = "권한이 없거나 " if error.winerror == IN_USE[0] else ""
        reason = f"{may_be}다른 프로그램이 열어 두고 있습니다. 그 프로그램을 닫고 다시 실행하세요"
    if "usable temporary directory" in str(error):  # tempfile's word for a full disk too
        reason = "임시 폴더로 쓸 곳이 없습니다. 디스크의 남은 공간을 확인하거나 TMPDIR에 쓸 수 있는 폴더를 주세요"
    return reason


def is_in_use(error):
    """Whether Windows refused to change a file since some program has it open, or may have."""
    return getattr(error, "winerror", None) in IN_USE
