"""CSV and TSV → rows, as Python's csv reads RFC 4180, where a quote that is never closed is text and no row is lost.

Public corpora are often written without any quoting, so that a text may well begin with a quote. What csv
makes of such a line swallows the lines after it; here they are rows again.
"""

import csv
import re
from collections import deque
from itertools import chain
from unicodedata import normalize

from gpt2_korean.messages import UserError, warn
from gpt2_korean.text.opening import open_lines

EXCEL_DELIMITER = re.compile(r'"?sep=([,;\t])"?[\r\n]*')  # a line before the header, which tells Excel
LONGEST_FIELD = 1 << 27  # characters; csv's own limit of 131,072 is less than a novel


def delimited_rows(path, encoding, delimiter, skip_bad_rows=False, tell=warn):
    """Yield `(place, row)`, a dict by the first line's names; None for a row that has not as many fields as they.

    delimiter: what the file's name says, where the first line has that or no other.
    tell: takes what a user should know of rows that are read, once they are.
    Raises UserError for such rows unless `skip_bad_rows`, and for two columns of one name.
    """
    csv.field_size_limit(LONGEST_FIELD)
    wrong, first_wrong, doubtful, first_doubtful = 0, None, 0, None
    with open_lines(path, encoding) as lines:
        before, header = [], next(lines := iter(lines), "")
        if told := EXCEL_DELIMITER.fullmatch(header):
            before, header, delimiter = ["\n"], next(lines, ""), told[1]  # the places are those in the file
        # Spreadsheets save tabs or semicolons as .csv too; a header of one name has neither.
        delimiter = next((each for each in (delimiter, *"\t;,") if each in header), delimiter)
        records = _records(chain(before, [header], lines), delimiter)
        columns = next(records, (1, [], False))[1]
        check_names(path, [name for name in columns if name], "첫 줄의 이름을 서로 다르게 고치세요")
        for number, fields, rows_alone in records:
            place = f"{number}번째 줄"
            if rows_alone:
                doubtful, first_doubtful = doubtful + 1, first_doubtful or place
            if len(fields) != len(columns):
                wrong, first_wrong = wrong + 1, first_wrong or (place, len(fields))
                if skip_bad_rows:
                    yield place, None
            elif skip_bad_rows or not wrong:  # once it will be refused, the others are only counted
                yield place, dict(zip(columns, fields, strict=True))
    refused = wrong and not skip_bad_rows
    if doubtful:
        (warn if refused else tell)(
            f"{path}: {first_doubtful}의 따옴표부터 여러 줄을 한 칸으로 읽었습니다(모두 {doubtful:,}곳). "
            '줄마다 한 행이라면 그 따옴표를 ""로 겹쳐 쓰고 칸을 따옴표로 묶으세요.'
        )
    if refused:
        place, found = first_wrong
        raise UserError(
            f"{path}: {place}의 칸은 {found}개인데 열은 {len(columns)}개입니다. "
            f"이런 행이 모두 {wrong:,}개 있습니다.\n"
            "구분자나 따옴표가 든 글은 따옴표로 묶어 다시 저장하거나, --skip_bad_rows로 이런 행을 건너뛰세요."
        )


def check_names(path, names, way_on):
    """Raise UserError where columns share one of `names`: a row, a dict, would have the last of them alone.

    So would one whose name a Mac has written in decomposed letters, as where two tables were put together.
    """
    names = [normalize("NFC", name) for name in names]
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated:
        raise UserError(f"{path}: 이름이 같은 열이 여럿입니다: {', '.join(repeated)}. {way_on}.")


def _records(lines, delimiter):
    """Yield `(number of its first line, fields, whether its several lines would be whole rows too)` of each record."""
    waiting, taken, number, width = deque(), [], 1, None

    def take():
        line = waiting.popleft() if waiting else next(lines, None)
        if line is not None:
            taken.append(line)
        return line

    def by_line(line):
        return _fields_of_line(line, delimiter)

    reader = None
    while True:
        taken.clear()
        reader = reader or csv.reader(iter(take, None), delimiter=delimiter, strict=True)
        try:
            fields = next(reader, None)
        except csv.Error:  # a quote that is never closed, or text after a closing one
            fields = by_line(taken[0])
            waiting.extendleft(reversed(taken[1:]))
            del taken[1:]
            reader = None
        if fields is None:
            return
        several = len(taken) > 1 and width is not None and width > 1
        if several and len(fields) != width and width in (len(by_line(taken[0])), len(by_line(taken[1]))):
            # As one record it fits nowhere, by lines it does: the quote was text.
            fields = by_line(taken[0])
            waiting.extendleft(reversed(taken[1:]))
            del taken[1:]
            several = False
        if len(fields) == width or "".join(fields).strip():
            width = width or len(fields)
            yield number, fields, several and all(len(by_line(line)) == width for line in taken)
        number += len(taken)


def _fields_of_line(line, delimiter):
    """The fields of a line by itself: one quoted from end to end is unquoted, any other quote is text."""
    field = rf'(?:"([^"]*(?:""[^"]*)*)"|([^{delimiter}]*))({delimiter}|$)'
    fields = []
    for quoted, plain, end in re.findall(field, line.rstrip("\r\n")):
        fields.append(quoted.replace('""', '"') or plain)
        if not end:
            break  # at the end the pattern would match nothing once more
    return fields
