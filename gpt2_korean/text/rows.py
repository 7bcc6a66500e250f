"""Tables (JSON, CSV, Parquet) → rows: dicts by column, each with the place where it stands."""

import json
import lzma
import zlib

from gpt2_korean.messages import UserError
from gpt2_korean.text.delimited import delimited_rows
from gpt2_korean.text.opening import OPENERS, file_format, open_lines


def read_rows(path, encoding, skip_bad_rows=False):
    """Yield `(place, row)` of any format but .txt: a dict by column, None for a row that was skipped.

    Raises UserError that names the file and the place.
    """
    kind = file_format(path)
    if kind in (".csv", ".tsv"):
        yield from delimited_rows(path, encoding, "\t" if kind == ".tsv" else ",", skip_bad_rows)
        return
    readers = {".jsonl": _jsonl_rows, ".json": _json_rows, ".parquet": _parquet_rows}
    for where, row in readers[kind](path, encoding):
        if not isinstance(row, dict):
            raise UserError(f"{path}: {where}: 열 이름이 있는 객체({{...}})가 아닙니다.")
        yield where, row


def _jsonl_rows(path, encoding):
    with open_lines(path, encoding) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{number}번째 줄", _parse_json(path, line.strip(), number)


def _json_rows(path, encoding):
    with open_lines(path, encoding) as file:
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


def _parquet_rows(path, _):
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
