"""What a user reads on stderr, and how a run ends.

Results belong to stdout; everything here goes to stderr. A mistake a user can make is raised as
`UserError` (exit code 1) or `UsageError` (2: the command line itself is wrong) with a Korean message
of one or two lines; anything else is a bug and keeps its traceback. A run that was asked to stop and can
go on later ends with `Stopped` (75).
"""

import errno
import gc
import os
import re
import sys
import traceback

TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}|(?<=://)[^/@\s]+(?=@)")  # a Hub token; the name and password in a URL


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
        print(text, flush=True)


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
    """Run `main()` and turn what a user can cause into a message and an exit code (0, 1, 2 or 75)."""
    for stream in (sys.stdout, sys.stderr):
        # Text that an ASCII or CP949 terminal cannot show is escaped, never a crash.
        stream.reconfigure(errors="backslashreplace")
    # Imports make a million objects that all stay: to look for garbage after every 700 takes over a second of a start.
    gc.set_threshold(10_000)
    if not sys.stderr.isatty():
        # Progress bars are redrawn in place; in the log of a batch job each drawing is a line more.
        os.environ.setdefault("TQDM_MININTERVAL", "10")
    try:
        return main()
    except UserError as error:
        say_error(error)
        return error.exit_code
    except Stopped as stopped:
        say(stopped)
        return stopped.exit_code
    except KeyboardInterrupt:
        say_error("Ctrl-C로 멈췄습니다. 이미 저장된 체크포인트와 결과는 그대로 있습니다.")
        return 1
    except OSError as error:
        say_error(describe_os_error(error))
        return 1


def say_error(error):
    # Every rank reports its own error: the first rank may not be the one that failed.
    print(hide_secrets(f"오류: {error}"), file=sys.stderr, flush=True)


def hide_secrets(text):
    """`text` without Hub tokens and passwords."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(name):
            text = text.replace(os.environ[name], "***")
    return TOKEN.sub("***", text)


def describe_os_error(error):
    """What an OSError means, in Korean, with the file it is about."""
    reasons = {
        errno.ENOSPC: "디스크에 남은 공간이 없습니다. 자리를 비우고 다시 실행하세요",
        errno.EDQUOT: "디스크 할당량을 다 썼습니다. 자리를 비우고 다시 실행하세요",
        errno.EFBIG: "파일 크기 한도를 넘었습니다. 한도(ulimit -f)를 늘리고 다시 실행하세요",
        errno.EACCES: "권한이 없습니다. 파일과 폴더의 권한을 확인하세요",
        errno.EPERM: "권한이 없습니다. 파일과 폴더의 권한을 확인하세요",
        errno.EROFS: "읽기 전용 파일 시스템입니다. 쓸 수 있는 곳을 지정하세요",
        errno.ENOENT: "파일이나 폴더가 없습니다",
        errno.EISDIR: "파일이 아니라 폴더입니다",
        errno.ENOTDIR: "폴더가 아니라 파일입니다",
    }
    reason = reasons.get(error.errno, str(error))
    where = f" ({error.filename})" if error.filename else ""
    return f"{reason}{where}"
