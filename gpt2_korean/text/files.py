"""Files on disk → raw documents (str), whatever their format, compression and character encoding.

Knows nothing of datasets or models: it opens, decodes and parses, one document at a time, and says
which file, line or byte is wrong.
"""

import codecs
import csv
import glob
import gzip
import json
import lzma
import re
import zlib
from pathlib import Path

from gpt2_korean.messages import UsageError, UserError

FORMATS = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet")
OPENERS = {".gz": gzip.open, ".xz": lzma.open}
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
CHUNK = 1 << 20
COLUMN = re.compile(r"\{([^{}]+)\}")  # a column's name in a --text_template

# A .txt without a single blank line is one document, and one of gigabytes would not fit anywhere: it is
# cut at a line's end. About a hundred blocks of 1,024 tokens, so that a cut is no loss to the training.
LONGEST_DOCUMENT = 100_000


def find_files(pattern, flag="--dataset_path"):
    """The readable files behind a path, a folder (searched deeply) or a glob, sorted.

    Raises UsageError that names `flag` where there is nothing to read.
    """
    path = Path(pattern)
    if path.is_file():
        if file_format(path) is None:
            raise UsageError(f"{flag}={pattern}: 읽을 수 없는 형식입니다. 가능한 형식: {' '.join(FORMATS)} (.gz .xz)")
        return [path]
    found = path.rglob("*") if path.is_dir() else map(Path, glob.glob(pattern, recursive=True))
    files = sorted(file for file in found if file.is_file() and file_format(file))
    if files:
        return files
    if path.exists():
        raise UsageError(f"{flag}={pattern}: 폴더에 읽을 파일이 없습니다. 가능한 형식: {' '.join(FORMATS)} (.gz .xz)")
    raise UsageError(f"{flag}={pattern}: 그런 파일이나 폴더가 없습니다. 경로를 확인하세요.")


def file_format(path):
    """`.txt`, `.jsonl`, … of a path, whether compressed or not; None for any other file."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in OPENERS:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in FORMATS else None


def read_documents(path, encoding, line_by_line=False, render=None):
    """Yield the raw documents of one file.

    `encoding` is what `detect_encoding` found (None for parquet); `render(row) -> str` makes a document
    of a row (dict) of any format but .txt and raises KeyError for a column that is not there.

    Raises UserError that names the file and the line.
    """
    kind = file_format(path)
    if kind == ".txt":
        yield from _text_documents(path, encoding, line_by_line)
        return
    readers = {".jsonl": _jsonl_rows, ".json": _json_rows, ".csv": _csv_rows, ".tsv": _csv_rows}
    rows = _parquet_rows(path) if kind == ".parquet" else readers[kind](path, encoding)
    for where, row in rows:
        if not isinstance(row, dict):
            raise UserError(f"{path}: {where}: 열 이름이 있는 객체({{...}})가 아닙니다.")
        try:
            yield render(row)
        except KeyError as error:
            raise missing_column(f"{path}: {where}", error.args[0], row) from None


def missing_column(where, column, columns):
    """The UserError for a column that is not among `columns`."""
    return UserError(
        f"{where}: '{column}' 열이 없습니다. 있는 열: {', '.join(map(str, columns))}\n"
        "--text_column_name 또는 --text_template으로 알맞은 열을 고르세요."
    )


def detect_encoding(path, forced=None):
    """The first of UTF-8, UTF-16 with a byte order mark and CP949 that decodes the whole file strictly.

    Returns None for parquet, which says itself. Raises UserError with the offset of the first byte that
    does not fit.
    """
    if file_format(path) == ".parquet":
        return None
    if forced:
        return _check_forced(path, forced)
    with _open(path, "rb") as file:
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
    with _open(path, "rb") as file:
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


def _open(path, mode, **keywords):
    """Open a plain or compressed file; what is wrong with it, also later while reading, is a UserError."""
    opener = OPENERS.get(Path(path).suffix.lower(), open)
    try:
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
        while line := self._call(self.file.readline):
            yield line

    def _call(self, read, *size):
        try:
            return read(*size)
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            raise UserError(f"{self.path}: 끝까지 읽을 수 없습니다. 파일이 온전한지 확인하세요 ({error}).") from None


def _lines(path, encoding):
    # newline="" keeps \r\n as it is: normalisation counts and replaces it later.
    return _open(path, "rt", encoding=encoding, newline="")


def _text_documents(path, encoding, line_by_line):
    document, size = [], 0
    with _lines(path, encoding) as lines:
        for line in lines:
            if line.strip():
                document.append(line)
                size += len(line)
            if document and (line_by_line or not line.strip() or size >= LONGEST_DOCUMENT):
                yield "".join(document).rstrip("\r\n")
                document, size = [], 0
    if document:
        yield "".join(document).rstrip("\r\n")


def _jsonl_rows(path, encoding):
    with _lines(path, encoding) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{number}번째 줄", _parse_json(path, line.strip(), number)


def _json_rows(path, encoding):
    with _lines(path, encoding) as file:
        rows = _parse_json(path, file.read(), 1)
    if isinstance(rows, dict) and isinstance(rows.get("data"), list):
        rows = rows["data"]
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], 1):
        yield f"{number}번째 항목", row


def _parse_json(path, text, first_line):
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: {first_line + error.lineno - 1}번째 줄의 JSON이 잘못되었습니다 ({error.msg})."
        ) from None


def _csv_rows(path, encoding):
    csv.field_size_limit(1 << 30)
    delimiter = "\t" if file_format(path) == ".tsv" else ","
    with _lines(path, encoding) as lines:
        rows = csv.DictReader(lines, delimiter=delimiter)
        try:
            for row in rows:
                yield f"{rows.line_num}번째 줄", {name: value for name, value in row.items() if name is not None}
        except csv.Error as error:
            raise UserError(f"{path}: {rows.line_num}번째 줄을 읽을 수 없습니다 ({error}).") from None


def _parquet_rows(path):
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with OPENERS.get(path.suffix.lower(), open)(path, "rb") as file:
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{number}번째 행", row
    except (OSError, EOFError, lzma.LZMAError, zlib.error, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: Parquet 파일로 읽을 수 없습니다 ({str(error).splitlines()[0]}).") from None


def column_renderer(column, template=None):
    """`render(row) -> str` of one column, or of a template such as "질문: {Q}" over several.

    A value that is not a string (a number, say) is written as Python would; a missing one is empty.
    """

    def value(cell):
        return "" if cell is None else str(cell)

    if template is None:
        return lambda row: value(row[column])
    return lambda row: COLUMN.sub(lambda match: value(row[match.group(1)]), template)
