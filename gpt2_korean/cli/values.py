"""What flags take: types for argparse, each of which refuses in Korean what it is not given. Knows no flag."""

import argparse
import contextlib
import errno
import os
import re
import sys
import unicodedata
from pathlib import Path

from gpt2_korean.cli.suggestions import suggest_value
from gpt2_korean.messages import particle
from gpt2_korean.text.folders import find_path

# The bounds of numbers that have none of their own: far more than anybody means, far less than what overflows.
MOST = 1_000_000_000
MOST_BLOCKS, MOST_TOKENS = 1 << 16, 1_000_000  # of a batch; of a text or a block
YES, NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})")  # as os.path.expandvars knows it


def boolean(text):
    """true/false, yes/no, on/off, 1/0 in any case."""
    if text.lower() in YES:
        return True
    if text.lower() in NO:
        return False
    raise argparse.ArgumentTypeError(f"{text!r}: true나 false 가운데 하나여야 합니다.")


def negated(text):
    """The value of a switch whose --no_ is given this one."""
    return not boolean(text)


def choice(*values):
    """A type for one of `values`; refuses with all of them, or with the nearest where they are many."""

    def parse(text):
        if text in values:
            return text
        raise argparse.ArgumentTypeError(f"{text!r}: 쓸 수 없는 값입니다. {suggest_value(text, values)}")

    return parse


def integer(minimum, maximum=MOST):
    """A type for whole numbers from `minimum` to `maximum`, both included."""
    return _number(int, "정수", lambda value: minimum <= value <= maximum, f"{minimum:,} 이상 {maximum:,} 이하인")


def number(minimum=None, maximum=MOST, *, above=None, below=None):
    """A type for numbers from `minimum` (or strictly above `above`) to `maximum` (or strictly below `below`)."""
    least = f"{above:,}보다 크고" if above is not None else f"{minimum:,} 이상{'' if below is None else '이고'}"
    most = f"{maximum:,} 이하인" if below is None else f"{below:,}보다 작은"

    def fits(value):
        enough = value >= minimum if above is None else value > above
        return enough and (value <= maximum if below is None else value < below)

    return _number(float, "수", fits, f"{least} {most}")


def _number(convert, kind, fits, range_words):
    way_on = f"{range_words} {particle(kind, '을/를')} 주세요."

    def parse(text):
        if not text.strip():
            raise argparse.ArgumentTypeError(f"값이 비었습니다. {way_on}")
        try:
            value = convert(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{particle(repr(text), '은/는')} {particle(kind, '이/가')} 아닙니다. {way_on}"
            ) from None
        if not fits(value):
            raise argparse.ArgumentTypeError(f"{particle(text, '은/는')} 쓸 수 없습니다. {way_on}")
        return value

    return parse


def text(word):
    """A value that is valid Unicode: bytes that the locale does not know reach us as lone surrogates.

    Those that are UTF-8 are read as such, whatever the locale.
    """
    try:
        word = word.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        place = next(number for number, letter in enumerate(word, 1) if "\ud800" <= letter <= "\udfff")
        raise argparse.ArgumentTypeError(
            f"{place}번째 글자가 올바른 UTF-8이 아닙니다. 터미널의 문자 인코딩을 UTF-8로 맞추세요."
        ) from None
    if "\0" in word:
        raise argparse.ArgumentTypeError("글에 들 수 없는 문자(NUL)가 있습니다.")
    return word


def path(word):
    """A text that names a file or folder (or, of some flags, something else), `~` and `$NAME` being as in a shell.

    bash leaves the ~ of --flag=~/x as it is, and nothing expands what stands in a config file.
    """
    word = text(word)
    if not word.strip():
        raise argparse.ArgumentTypeError("값이 비었습니다. 경로나 이름을 주세요.")
    if word.splitlines() != [word]:  # also at its end: of a script that was saved with Windows' line ends
        raise argparse.ArgumentTypeError(f"{word!r}: 경로나 이름에 줄 바꿈이 있습니다.")
    word = os.path.expanduser(word)
    if word.startswith("{"):  # JSON
        return word
    try:
        os.lstat(word)
        return word  # be there a $ in its name
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise argparse.ArgumentTypeError(f"{word!r}: 이름이 너무 깁니다. 더 짧은 이름을 주세요.") from None
    for name in (found.strip("{}") for found in VARIABLE.findall(word)):
        if not os.environ.get(name):
            raise argparse.ArgumentTypeError(
                f"{word!r}: 환경 변수 {particle(name, '이/가')} 없거나 비었습니다. 값을 정하거나 경로를 그대로 쓰세요."
            )
    return os.path.expandvars(word)


def file_path(word):
    """A path that is no folder's."""
    word = path(word)
    if word.endswith(("/", os.sep)) or os.path.isdir(word):
        raise argparse.ArgumentTypeError(f"{particle(repr(word), '은/는')} 폴더입니다. 파일을 주세요.")
    return _as_it_is_there(word)


def library_path(word):
    """A path that libraries in Rust and C++ are to open, to which all names are UTF-8: they save nothing elsewhere."""
    word, encoding = path(word), sys.getfilesystemencoding()
    if encoding != "utf-8" and not word.isascii():  # as where LANG is ko_KR.EUC-KR
        raise argparse.ArgumentTypeError(
            f"{word!r}: 로캘의 문자 인코딩이 {particle(encoding, '이라/라')} 한글 이름의 폴더를 쓸 수 없습니다. 영문 "
            "이름을 주거나 터미널과 로캘(LANG)을 UTF-8로 맞추세요."
        )
    return word


def folder_path(word):
    """A path that is no file's."""
    word = library_path(word)
    there = Path(word)  # with a / behind it a file would not be there
    if os.path.exists(there) and not os.path.isdir(there):
        raise argparse.ArgumentTypeError(f"{particle(repr(word), '은/는')} 파일입니다. 폴더를 주세요.")
    return _as_it_is_there(word)


def _as_it_is_there(word):
    """`word` in the letters of the path that is there: what macOS made has its Hangul apart, and would get a twin."""
    found = Path(word)
    if not word.isascii():
        with contextlib.suppress(OSError):  # of a folder into which one may not look
            found = find_path(word)
    return word if found == Path(word) else str(found)


def composed_text(word):
    r"""A text in which `\n` and `\t` mean what they say, composed (NFC) as what a model learns, reads and writes is."""
    word = text(word).replace("\\n", "\n").replace("\\t", "\t")
    if not word:
        raise argparse.ArgumentTypeError("빈 글은 줄 수 없습니다.")
    return unicodedata.normalize("NFC", word)
