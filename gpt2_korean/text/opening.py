"""Files → lines of text: what a name says of a file, whatever its compression and character encoding.

Says which file and which byte is wrong; knows nothing of what stands in the lines.
"""

import codecs
import gzip
import lzma
import os
import zlib
from pathlib import Path

from gpt2_korean.messages import UsageError, UserError

FORMATS = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet")
OPENERS = {".gz": gzip.open, ".xz": lzma.open}
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
CHUNK = 1 << 20
LONGEST_LINE = 1 << 26  # characters; a few MB of an archive can hold a line that no memory does


def file_format(path):
    """`.txt`, `.jsonl`, … of a path, whether compressed or not; None for any other file."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in OPENERS:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in FORMATS else None


def detect_encoding(path, forced=None):
    """The first of UTF-8, UTF-16 with a byte order mark and CP949 that decodes the whole file strictly.

    Returns None for parquet, which says itself. Raises UserError with the offset of the first byte that
    does not fit.
    """
    if file_format(path) == ".parquet":
        return None
    if forced:
        return _check_forced(path, forced)
    with open_file(path, "rb") as file:
        head = file.read(3)
    candidates = [name for mark, name in BYTE_ORDER_MARKS.items() if head.startswith(mark)] or ["utf-8", "cp949"]
    failures = {}
    for name in candidates:
        failures[name] = _first_undecodable(path, name)
        if failures[name] is None:
            return name
    raise UserError(
        f"{path}: {failures[candidates[0]]}번째 바이트부터 {' 또는 '.join(candidates)}(으)로 읽을 수 없습니다. "
        "글 파일이 맞는지 확인하거나 --encoding으로 문자 인코딩을 알려 주세요."
    )


def _check_forced(path, encoding):
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise UsageError(f"--encoding={encoding}: 모르는 인코딩입니다. 예: utf-8, cp949, utf-16") from None
    offset = _first_undecodable(path, encoding)
    if offset is not None:
        raise UserError(f"{path}: {offset}번째 바이트부터 --encoding={encoding}(으)로 읽을 수 없습니다.")
    return encoding


def _first_undecodable(path, encoding):
    """Offset of the first byte that `encoding` cannot decode, or of a NUL character; None if all is well."""
    decoder = codecs.getincrementaldecoder(encoding)()
    offset = 0
    with open_file(path, "rb") as file:
        while True:
            chunk = file.read(CHUNK)
            pending = len(decoder.getstate()[0])
            try:
                decoded = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                return offset - pending + error.start
            if "\0" in decoded:
                # No text holds NUL: this is a binary file, or UTF-16 without its byte order mark.
                return offset + max(chunk.find(b"\0"), 0)
            if not chunk:
                return None
            offset += len(chunk)


def open_file(path, mode, **keywords):
    """Open a plain or compressed file; what is wrong with it, also later while reading, is a UserError."""
    try:
        # An archive of no bytes at all is an empty file.
        opener = OPENERS.get(Path(path).suffix.lower(), open) if os.stat(path).st_size else open
        return _Guarded(path, opener(path, mode, **keywords))
    except OSError as error:
        raise UserError(f"{path}: 읽을 수 없습니다 ({error.strerror or error}).") from None


class _Guarded:
    """A file whose read errors name the file: truncated archives fail in the middle, not at the start."""

    def __init__(self, path, file):
        self.path, self.file = path, file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def read(self, *size):
        return self._call(self.file.read, *size)

    def __iter__(self):
        number = 1
        while line := self._call(self.file.readline, LONGEST_LINE + 1):
            if len(line) > LONGEST_LINE:
                raise UserError(
                    f"{self.path}: {number}번째 줄이 {LONGEST_LINE:,}자보다 길어 읽을 수 없습니다. 줄을 나누세요."
                )
            yield line
            number += 1

    def _call(self, read, *size):
        try:
            return read(*size)
        except MemoryError:
            raise UserError(f"{self.path}: 메모리에 담을 수 없을 만큼 큽니다. 파일을 나누세요.") from None
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            raise UserError(f"{self.path}: 끝까지 읽을 수 없습니다. 파일이 온전한지 확인하세요 ({error}).") from None


def open_lines(path, encoding):
    # newline="" keeps \r\n as it is: normalisation counts and replaces it later.
    return open_file(path, "rt", encoding=encoding, newline="")
