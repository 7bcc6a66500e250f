"""Tables (JSON, CSV, Parquet) → rows: dicts by column, each with the place where it stands; and what a cell says."""

import json
import lzma
import math
import zlib
from unicodedata import normalize

from gpt2_korean.messages import UserError, warn
from gpt2_korean.text.delimited import check_names, delimited_rows
from gpt2_korean.text.opening import LONGEST_LINE, OPENERS, file_format, open_lines

BEGINNING = 1 << 20  # characters that tell what a JSON file is
AT_ONCE = 100  # rows of Parquet in memory: a thousand novels are gigabytes, and fewer short texts take longer


def _distinct(pairs):
    """The object of `(name, value)` pairs; KeyError for a name that comes again, of which a dict has the last alone."""
    row = {normalize("NFC", name): value for name, value in pairs}  # as check_names has it
    if len(row) < len(pairs):
        names = [normalize("NFC", name) for name, _ in pairs]
        raise KeyError(next(name for name in names if names.count(name) > 1))
    return row


DECODER = json.JSONDecoder(object_pairs_hook=_distinct)  # made once: for each text it would take half as long again


def read_rows(path, encoding, skip_bad_rows=False, tell=warn):
    """Yield `(place, row)` of any format but .txt: a dict by column, None for a row that was skipped.

    tell: see delimited_rows.
    Raises UserError that names the file and the place.
    """
    kind = file_format(path)
    if kind in (".csv", ".tsv"):
        yield from delimited_rows(path, encoding, "\t" if kind == ".tsv" else ",", skip_bad_rows, tell)
    elif kind == ".parquet":
        yield from _parquet_rows(path)
    else:
        yield from _json_rows(path, encoding, kind == ".jsonl", skip_bad_rows)


def cell_text(row, column):
    """The text of a cell: what is no string (a number, say) as Python writes it; a missing one and NaN are empty.

    Raises KeyError for a column that is not there, TypeError `(column, value)` for a value that holds others.
    """
    cell = row[column]
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return ""
    if isinstance(cell, (list, dict, tuple, bytes)):
        raise TypeError(column, cell)
    return str(cell)


def _json_rows(path, encoding, named_lines, skip_bad_rows):
    is_one = _is_one_value(path, encoding, named_lines)
    with open_lines(path, encoding) as lines:
        if is_one:
            yield from _json_items(path, lines.read())
            return
        for number, line in enumerate(lines, 1):
            line = line.strip().lstrip("\ufeff")  # of files one after another, each may begin with its mark
            if line:
                try:
                    row = _object(path, f"{number}번째 줄", _parse_json(path, line, number))
                except UserError as error:
                    if not skip_bad_rows:
                        raise UserError(f"{error} 고치거나 --skip_bad_rows로 이런 줄을 건너뛰세요.") from None
                    row = None
                yield f"{number}번째 줄", row


def _is_one_value(path, encoding, named_lines):
    """Whether a JSON file is one value, or else a value a line: the beginning tells, whatever the file is called."""
    with open_lines(path, encoding) as lines:
        head = lines.read(BEGINNING).lstrip()
        if named_lines or head.startswith("["):
            return head.startswith("[")
        head = head.replace("\r", "\n")
        if "\n" not in head.rstrip():  # the first line may be long itself
            head += lines.read(LONGEST_LINE).replace("\r", "\n")
    first, _, rest = head.partition("\n")
    return not (rest.strip() and _is_row(first))


def _object(path, where, row):
    if not isinstance(row, dict):
        raise UserError(f'{path}: {where}: {{"text": "글"}}처럼 열 이름이 있는 객체가 아닙니다.')
    return row


def _is_row(line):
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _json_items(path, text):
    rows = _parse_json(path, text, 1) if text.strip() else []
    if isinstance(rows, dict) and isinstance(rows.get("data"), list):
        rows = rows["data"]
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], 1):
        where = f"{number}번째 항목"
        yield where, _object(path, where, row)


def _parse_json(path, text, first_line):
    try:
        return DECODER.decode(text)
    except KeyError as error:
        raise UserError(
            f"{path}: {first_line}번째 줄부터의 JSON 객체 하나에 이름이 같은 열이 여럿입니다: {error.args[0]}. "
            "문서마다 { }로 따로 묶으세요."
        ) from None
    except json.JSONDecodeError as error:
        line, reason = first_line + error.lineno - 1, error.msg
    except RecursionError:
        line, reason = first_line, "너무 깊이 겹쳤습니다"
    except ValueError:
        line, reason = first_line, "자릿수가 너무 많은 수가 있습니다"  # Python's limit is 4,300
    except MemoryError:
        line, reason = first_line, "메모리에 담을 수 없을 만큼 큽니다"
    raise UserError(f"{path}: {line}번째 줄의 JSON이 잘못되었습니다 ({reason}).")


def _parquet_rows(path):
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with OPENERS.get(path.suffix.lower(), open)(path, "rb") as file:
            table = pyarrow.parquet.ParquetFile(file)
            check_names(path, table.schema_arrow.names, "이름을 서로 다르게 다시 저장하세요")
            for batch in table.iter_batches(AT_ONCE):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{number}번째 행", row
    except (OSError, EOFError, lzma.LZMAError, zlib.error, pyarrow.ArrowException) as error:
        raise _unreadable(path, error) from None
    except (ValueError, OverflowError) as error:
        # Arrow holds what Python has no value for: a date in the year 60,000, a string that is no UTF-8.
        raise _unreadable(path, f"{number + 1}번째 행부터의 값: {error}") from None


def _unreadable(path, reason):
    said = (str(reason).splitlines() or ["?"])[0]
    return UserError(f"{path}: Parquet 파일로 읽을 수 없습니다. 다시 받거나 저장하세요 ({said}).")
