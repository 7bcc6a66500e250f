"""What a user reads on stderr: Korean messages of one or two lines, and the errors that carry them.

Results belong to stdout; everything here goes to stderr.
"""

import errno
import os
import re
import sys
import traceback
import unicodedata

TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}|(?<=://)[^/@\s]+(?=@)")  # a Hub token; the name and password in a URL
NAMED_SECRET = re.compile(
    r"((?:authorization|password|secret|api[_-]?key|(?:hub|access|auth)[_-]token)['\"]?\s*[:=]\s*b?['\"]?"
    r"(?:(?:bearer|basic|token)\s+)?)(?![가-힣])[^\s'\",;})]+",  # Korean is what we say of a flag, as of --api_key
    re.IGNORECASE,
)
SECRET_VARIABLE = re.compile("TOKEN|KEY|SECRET|PASSWORD", re.IGNORECASE)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # but for tab and line feed
# How digits and letters are read in Korean: those that end in ㄹ (일, 칠, 팔; 엘, 알) and in another consonant.
READ_WITH_L = set("178ㄹLlRr")
READ_WITH_CONSONANT = READ_WITH_L | set("036MmNn") | {chr(letter) for letter in range(ord("ㄱ"), ord("ㅎ") + 1)}
READ = READ_WITH_CONSONANT | set("2459%ABCDEFGHIJKOPQSTUVWXYZabcdefghijkopqstuvwxyz")
IN_USE = (5, 32, 33)  # how Windows refuses to change a file that a program has open or mapped; 5: or for its rights
NOBODY_READS = (errno.EPIPE, errno.EIO, errno.EINVAL)  # EIO: of a closed terminal; EINVAL: Windows' EPIPE
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SHORTEST_SECRET = 6  # what is shorter, as the 1 or false of a switch, would hide half of every message


class Lasting:
    """A standard stream whose reader may leave, as a terminal that closes does, or a `tee` that Ctrl-C ends too.

    What is written after that is dropped: the error would end a run before it has saved. A stream that `may_lack` some
    also drops what a full disk has no room for.
    """

    def __init__(self, stream, may_lack=False):
        self._stream, self._may_lack = stream, may_lack

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
            if error.errno in NOBODY_READS:
                send_nowhere(self)
            elif self._may_lack and error.errno in NO_ROOM:
                _drop_what_waits(self._stream)
            else:
                raise


def send_nowhere(stream):
    """Have all that is written to a stream from now on, and what its buffer still holds, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _drop_what_waits(stream):
    """Have what a stream's buffer holds go nowhere: Python would try once more at the end, and fail with code 120."""
    place = os.dup(stream.fileno())
    send_nowhere(stream)
    stream.flush()
    os.dup2(place, stream.fileno())
    os.close(place)


class UserError(Exception):
    """Something a user can mend: the message names what is wrong and the way on."""

    exit_code = 1


class UsageError(UserError):
    """The command line is wrong: a flag, its value, or a path that it names."""

    exit_code = 2


class Stopped(BaseException):
    """The run was asked to stop; the same command goes on. No Exception, so that no library takes it for its own."""

    exit_code = 75


def is_first_rank():
    """Whether this is the one of several processes of a run that speaks and writes for all, or the only one."""
    return os.environ.get("RANK", "0") == "0"  # as torchrun sets it, before torch is imported


def say(message):
    """Print one message on stderr; with several ranks only the first one speaks."""
    if is_first_rank():
        print(spell_controls(hide_secrets(str(message))), file=sys.stderr, flush=True)


def print_once(text):
    """Print a result on stdout; with several ranks only the first one does."""
    if is_first_rank():
        print(text, file=Lasting(sys.stdout), flush=True)


def takes_colour(stream):
    """Whether a stream is a terminal that shows colours, and its user did not ask for none."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def warn(message):
    say(f"주의: {message}")


def warn_of_failure(error, message):
    """Warn of an `error`, of whatever kind, that the program goes on after without what has failed.

    It may be a mistake of ours: GPT2_KOREAN_DEBUG=1 shows where it was made.
    """
    warn(message)
    if os.environ.get("GPT2_KOREAN_DEBUG") == "1":
        say("".join(traceback.format_exception(error)))


def is_of_lost_rank(error):
    """Whether an error means that another of several ranks has ended, or never came: as gloo, torch's store and NCCL
    say it."""
    said = "by peer|Broken pipe|remote process exited|wait timeout|Timed out (after|waiting)"
    return isinstance(error, RuntimeError) and bool(re.search(said, str(error)))


def is_out_of_memory(error):
    """Whether an error means that there is too little memory: of a device, or as torch says it of a CPU (by system)."""
    words = "DefaultCPUAllocator: (can't|not enough)|Cannot allocate memory"  # the second of a file to be mapped
    said = isinstance(error, RuntimeError) and re.search(words, str(error))
    refused = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
    return refused or type(error).__name__ == "OutOfMemoryError" or bool(said)


def describe_error(error):
    """What kind of an error it is, with the first line of its message."""
    return f"{type(error).__name__}: {first_line(error)}"


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
    print(spell_controls(hide_secrets(f"오류: {error}")), file=sys.stderr, flush=True)


def spell_controls(text):
    """`text` with its control characters spelled out, as ls does: names, columns and models come from others, and a
    terminal would let them write its title, its clipboard and over the lines before."""
    return CONTROL.sub(lambda control: ascii(control[0])[1:-1], text)


def hide_secrets(text):
    """`text` without tokens, keys and passwords, also those that environment variables hold."""
    secrets = {os.environ[name] for name in os.environ if SECRET_VARIABLE.search(name)}
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


def width(text):
    """How many columns a terminal takes for `text`: two for a Korean syllable, none for what joins another."""
    return sum(map(_columns, text))


def _columns(character):
    # The vowel and the end of a syllable in parts, as macOS writes names of files, join its beginning.
    if unicodedata.combining(character) or "\u1160" <= character <= "\u11ff":
        return 0
    return 1 + (unicodedata.east_asian_width(character) in "WF")


def describe_os_error(error):
    """What an OSError means, in Korean, with the file it is about."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename  # bytes: of TensorBoard
    return f"{os_reason(error)} ({name})" if name else os_reason(error)


def os_reason(error):
    """What an OSError means, in Korean, without its file."""
    reasons = {
        errno.ENOSPC: "디스크에 남은 공간이 없습니다. 공간을 비우고 다시 실행하세요",
        errno.EDQUOT: "디스크 할당량을 다 썼습니다. 공간을 비우고 다시 실행하세요",
        errno.EFBIG: "파일 크기 한도를 넘었습니다. 한도(ulimit -f)를 늘리거나, FAT32(4GB까지)라면 다른 디스크에 쓰세요",
        errno.EACCES: "권한이 없습니다. 파일과 폴더의 권한을 확인하세요",
        errno.EPERM: "권한이 없습니다. 파일과 폴더의 권한을 확인하세요",
        errno.EROFS: "읽기 전용 파일 시스템입니다. 쓸 수 있는 곳을 지정하세요",
        errno.ENOENT: "파일이나 폴더가 없습니다. 경로를 확인하고, 쓸 곳이라면 폴더를 먼저 만드세요",
        errno.EISDIR: "파일이 아니라 폴더입니다",
        errno.ENOTDIR: "폴더가 아니라 파일입니다",
        errno.ENAMETOOLONG: "이름이 너무 깁니다. 더 짧은 이름을 주세요",
        errno.ENOMEM: "메모리가 모자랍니다. 메모리의 한도(ulimit -v)를 늘리거나 더 작은 모델로 다시 실행하세요",
        errno.EMFILE: "한 번에 열 수 있는 파일의 수를 넘었습니다. 한도(ulimit -n)를 늘리고 다시 실행하세요",
    }
    reasons |= dict.fromkeys(
        (errno.EIO, errno.ENOTCONN, errno.ESTALE),
        "디스크나 네트워크 드라이브를 읽거나 쓸 수 없습니다. 연결(마운트)을 확인하고 다시 실행하세요",
    )
    reasons |= dict.fromkeys(
        (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.ENODEV),
        "이 파일 시스템에서는 할 수 없는 일(잠금, mmap 등)입니다. 다른 디스크의 폴더를 주세요",
    )
    reason = reasons.get(error.errno, first_line(error.strerror or error))
    if error.errno == errno.EINVAL and error.filename:  # how FAT, exFAT and Windows refuse a name
        reason = '이 디스크에서 쓸 수 없는 이름입니다. : ? * " < > | 같은 글자를 빼거나 다른 디스크에 쓰세요'
    if is_in_use(error):
        may_be = "권한이 없거나 " if error.winerror == IN_USE[0] else ""
        reason = f"{may_be}다른 프로그램이 열어 두고 있습니다. 그 프로그램을 닫고 다시 실행하세요"
    if "usable temporary directory" in str(error):  # tempfile's word for a full disk too
        reason = "임시 폴더로 쓸 곳이 없습니다. 디스크의 남은 공간을 확인하거나 TMPDIR에 쓸 수 있는 폴더를 주세요"
    return reason


def is_in_use(error):
    """Whether Windows refused to change a file since some program has it open, or may have."""
    return getattr(error, "winerror", None) in IN_USE
