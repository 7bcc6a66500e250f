"""Files on disk → raw documents (str), whatever their format, compression and character encoding.

Knows nothing of datasets or models: it opens, decodes and parses, one document at a time, and says
which file, line or byte is wrong.
"""

import glob
import re
from pathlib import Path

from gpt2_korean.messages import UsageError, UserError
from gpt2_korean.text.opening import FORMATS, file_format, open_lines
from gpt2_korean.text.rows import read_rows

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


def read_documents(path, encoding, line_by_line=False, render=None, skip_bad_rows=False):
    """Yield the raw documents of one file, None for each row that was skipped.

    `encoding` is what `detect_encoding` found (None for parquet); `render(row) -> str` makes a document
    of a row (dict) of any format but .txt and raises KeyError for a column that is not there.

    Raises UserError that names the file and the line.
    """
    if file_format(path) == ".txt":
        yield from _text_documents(path, encoding, line_by_line)
        return
    for where, row in read_rows(path, encoding, skip_bad_rows):
        try:
            yield None if row is None else render(row)
        except KeyError as error:
            raise missing_column(f"{path}: {where}", error.args[0], row) from None


def missing_column(where, column, columns):
    """The UserError for a column that is not among `columns`."""
    return UserError(
        f"{where}: '{column}' 열이 없습니다. 있는 열: {', '.join(map(str, columns))}\n"
        "--text_column_name 또는 --text_template으로 알맞은 열을 고르세요."
    )


def _text_documents(path, encoding, line_by_line):
    document, size = [], 0
    with open_lines(path, encoding) as lines:
        for line in lines:
            if line.strip():
                document.append(line)
                size += len(line)
            if document and (line_by_line or not line.strip() or size >= LONGEST_DOCUMENT):
                yield "".join(document).rstrip("\r\n")
                document, size = [], 0
    if document:
        yield "".join(document).rstrip("\r\n")


def column_renderer(column, template=None):
    """`render(row) -> str` of one column, or of a template such as "질문: {Q}" over several.

    A value that is not a string (a number, say) is written as Python would; a missing one is empty.
    """

    def value(cell):
        return "" if cell is None else str(cell)

    if template is None:
        return lambda row: value(row[column])
    return lambda row: COLUMN.sub(lambda match: value(row[match.group(1)]), template)
