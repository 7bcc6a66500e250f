"""How a script ends: what it raises → a message and an exit code, and into a file what nobody foresaw.

A mistake a user can make is a `UserError` (exit code 1) or `UsageError` (2: the command line itself is wrong);
anything else is a bug, whose traceback goes into a file. A run that was asked to stop and can go on later ends with
`Stopped` (75).
"""

import atexit
import contextlib
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
import warnings
from importlib.util import find_spec
from pathlib import Path

from gpt2_korean.cgroups import core_limit
from gpt2_korean.messages import (
    Lasting,
    Stopped,
    UserError,
    describe_error,
    describe_os_error,
    hide_secrets,
    is_of_lost_rank,
    is_out_of_memory,
    particle,
    say,
    say_error,
)

KEY = re.compile(r"\bwandb_v\d_\w+|\b[0-9a-f]{40}\b")  # of wandb; a commit may look like one
# A few of requirements.txt: a Python without them has no installation of ours, one without the last an old one.
REQUIRED = ("torch", "transformers", "datasets", "safetensors", "tiktoken")
# transformers and tensorboard import these where they are installed; built for another torch, as on Colab, they raise.
OF_NO_USE = ("torchvision", "torchaudio", "tensorflow")


def run_script(main):
    """Run `main()` and turn whatever it raises into a message and an exit code (0, 1, 2 or 75)."""
    _set_up_process()
    hook, threading.excepthook = threading.excepthook, _report_of_thread
    stderr, sys.stderr = sys.stderr, Lasting(sys.stderr, may_lack=True)
    try:
        _check_folder()
        return _unwrapped(main)
    except UserError as error:
        say_error(error)
        return error.exit_code
    except Stopped as stopped:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a notebook sends it once more
        say(stopped)
        return stopped.exit_code
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if sys.stderr.isatty():
            say("")  # behind the ^C that a terminal shows, in the middle of a text
        say_error("Ctrl-C로 멈췄습니다. 이미 저장된 체크포인트와 결과는 그대로 있습니다.")
        return 1
    except SystemExit:
        raise
    except BaseException as error:  # a panic of Rust's, as of tokenizers, is no Exception
        missing = isinstance(error, ImportError) and [name for name in REQUIRED if not find_spec(name)]
        if missing:
            say_error(describe_missing(missing))
        else:
            say_error(describe_os_error(error) if isinstance(error, OSError) and error.errno else report(error))
        return 1
    finally:
        threading.excepthook, sys.stderr = hook, stderr


def _set_up_process():
    """Its streams, warnings, signals, threads and garbage; where files could have no Korean names it begins anew."""
    if sys.getfilesystemencoding() == "ascii" and os.environ.get("PYTHONUTF8") != "1":
        # Files with Korean names could not be opened, and arguments not be read.
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, sys.orig_argv)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # it was closed, as a service's may be; the next file would have its number
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        # Text that an ASCII or CP949 terminal cannot show is escaped, never a crash.
        if hasattr(stream, "reconfigure"):  # a notebook's own, within %run, has no encoding
            stream.reconfigure(errors="backslashreplace")
    for name in OF_NO_USE:
        sys.modules.setdefault(name, None)
    warnings.filterwarnings("ignore", "flock not supported")  # filelock's, of a cache there: it makes do with a file
    warnings.filterwarnings("ignore", r"barrier\(\): using the device")  # torch's, of ranks: theirs is the right one
    # The Hub's libraries', where HF_HUB_DISABLE_PROGRESS_BARS or the like is set: the user's choice stands.
    warnings.filterwarnings("ignore", "Cannot (en|dis)able progress bars")
    # PyTorch's, with 45 lines of C++, where an ARM processor has no bfloat16: it makes do with float32's kernels.
    warnings.filterwarnings("ignore", r"\w+ failed, switching to (BLAS gemm|baddbmm)")
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):  # Windows has the first two
        if hasattr(signal, name):  # runs last: a signal would kill Python as it shuts down, which takes a while
            atexit.register(signal.signal, getattr(signal, name), signal.SIG_IGN)
    if "OMP_WAIT_POLICY" not in os.environ:
        # GNU's OpenMP reads it when torch is imported: threads that wait awake for longer take the processor from
        # other programs and then from each other, and those that sleep at once come late to a small model's next step.
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    cores = core_limit() if "OMP_NUM_THREADS" not in os.environ else None
    if cores and cores < len(os.sched_getaffinity(0)):  # only Linux has the limit
        # PyTorch and OpenVINO count the cores of the machine: so many threads soon use up a container's share of them,
        # and then all stand still.
        os.environ["OMP_NUM_THREADS"] = str(cores)
    # Imports make a million objects that all stay: to look for garbage after every 700 takes over a second of a start.
    gc.set_threshold(10_000)
    atexit.register(gc.freeze)  # to look through them all once more at the end takes half a second
    if not sys.stderr.isatty():
        # Progress bars are redrawn in place; in the log of a batch job each drawing is a line more.
        os.environ.setdefault("TQDM_DISABLE", "1")


def _check_folder():
    """Raise UserError where the current folder is gone: no path begins there, and Intel's MKL cannot be loaded."""
    try:
        os.getcwd()
    except FileNotFoundError:
        way_on = 'cd로 다른 폴더에 가서, 다시 만든 폴더라면 cd "$PWD"를 한 뒤 다시 실행하세요.'
        raise UserError(f"지금 있는 폴더가 지워졌습니다. {way_on}") from None


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
    except BaseException as error:
        error.reported_in = folder
        raise


@contextlib.contextmanager
def stdout_for_results():
    """Have what libraries print in here go to stderr, and what processes of theirs print (wandb's outlives its run)."""
    stdout = Lasting(sys.stdout, may_lack=True)
    stdout.flush()
    results = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        stdout.flush()
        os.dup2(results, 1)
        os.close(results)


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
    # Not platform.platform(), which starts a program: there may be no memory for it.
    about = f"Python {platform.python_version()}, {platform.system()} {platform.release()} {platform.machine()}\n"
    asks, place = "", "적을 곳이 없었습니다. 환경 변수 GPT2_KOREAN_DEBUG를 1로 두고 다시 실행하면 화면에 나옵니다."
    for folder in (getattr(error, "reported_in", None) or ".", ".", "logs", None):
        with contextlib.suppress(OSError, ValueError, TypeError, MemoryError):
            folder = folder or tempfile.gettempdir()  # there may be none
            Path(folder).mkdir(parents=True, exist_ok=True)
            file = Path(folder, name).resolve()
            file.write_text(about + lines, "utf-8", "backslashreplace")
            asks, place = " 프로젝트의 이슈에 이 파일을 붙여 알려 주세요.", f"{file}에 적었습니다."
            break
    what = KEY.sub("***", hide_secrets(describe_error(error).removesuffix(": ")))
    # The second is of a library, as PyTorch's, that is larger than a job's memory limit.
    if is_out_of_memory(error) or "failed to map segment" in what:
        way_on = "배치나 모델을 줄이거나 메모리의 한도(ulimit -v)를 늘려 다시 실행하세요."
        return f"메모리가 모자랍니다({what}). {way_on}\n자세한 것은 {place}"
    others = other_versions()
    way_on = (
        f" requirements.txt와 버전이 다릅니다({others}). pip install -r requirements.txt로 맞추세요." if others else ""
    )
    return f"예상하지 못한 오류가 났습니다({what}).{way_on}\n자세한 것은 {place}{asks}"


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


def describe_missing(packages):
    """What to do about `packages` that this Python has not: most often its virtual environment is not active."""
    ways = {".venv/bin/python": "source .venv/bin/activate", r".venv\Scripts\python.exe": r".venv\Scripts\activate"}
    here = next((python for python in ways if os.path.exists(python)), None)
    if here and not os.path.samefile(".venv", sys.prefix):  # else in this very one pip has failed
        way_on = f"{particle(ways[here], '을/를')} 먼저 하거나 {particle(here, '으로/로')} 실행하세요."
    else:
        way_on = "README의 ‘설치’대로 가상 환경을 만들고 pip install -r requirements.txt를 실행하세요."
    return f"이 Python({sys.executable})에는 필요한 패키지가 없습니다: {', '.join(packages)}\n{way_on}"
