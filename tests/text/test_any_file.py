"""Whatever a file holds, it is read as Python's own readers read it, or refused in a line: nothing is lost unsaid."""

import csv
import gzip
import io
import json
import lzma
import math
from unicodedata import normalize

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2_korean.messages import UserError
from gpt2_korean.text.files import column_renderer, read_documents, row_renderer
from gpt2_korean.text.opening import FORMATS, detect_encoding

COMPRESS = {"": bytes, ".gz": gzip.compress, ".xz": lambda data: lzma.compress(data, preset=0)}
LETTERS = st.sampled_from("가나 \"',;\t\r\n{}[]\\0") | st.characters(codec="utf-8", exclude_characters="\0")
TEXT = st.text(LETTERS, max_size=12)
SUFFIX = st.sampled_from(sorted(COMPRESS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("any")


def write(folder, suffix, compression, data):
    path = folder / f"a{suffix}{compression}"
    path.write_bytes(COMPRESS[compression](data))
    return path


def read(path, encoding=None, **keywords):
    return list(read_documents(path, detect_encoding(path, encoding), **keywords))


def refusal(action, *args, **keywords):
    """The message with which it is refused, None where it is not."""
    try:
        action(*args, **keywords)
    except UserError as error:
        return str(error)
    return None


@given(st.data(), st.integers(1, 4), SUFFIX, st.sampled_from([".csv", ".tsv"]))
def test_a_table_reads_as_csv_wrote_it(folder, data, width, compression, suffix):
    names = [f"열{number}" for number in range(width)]
    rows = data.draw(st.lists(st.lists(TEXT, min_size=width, max_size=width), max_size=6))
    # With \n as its line's end, csv leaves a field with \r in it unquoted unless it quotes all.
    quoting, end = data.draw(
        st.sampled_from([(csv.QUOTE_ALL, "\n"), (csv.QUOTE_MINIMAL, "\r\n"), (csv.QUOTE_NONNUMERIC, "\r\n")])
    )
    file, delimiter = io.StringIO(newline=""), "\t" if suffix == ".tsv" else ","
    csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows([names, *rows])
    path = write(folder, suffix, compression, file.getvalue().encode())
    expected = list(csv.reader(io.StringIO(file.getvalue(), newline=""), delimiter=delimiter))[1:]
    assert read(path, "utf-8", render=lambda row: [row[name] for name in names]) == expected == rows


@given(st.lists(st.text(st.sampled_from("가나 ,x"), max_size=8), max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_each_row_of_a_table_is_read_or_counted(folder, lines, end):
    path = write(folder, ".csv", "", end.join(["a,b", *lines]).encode())
    fields = [line.split(",") for line in lines if line.replace(",", "").strip() or line.count(",") == 1]
    expected = ["|".join(row) if len(row) == 2 else None for row in fields]

    def render(row):
        return "|".join(row.values())

    assert read(path, "utf-8", render=render, skip_bad_rows=True) == expected
    if None in expected:
        with pytest.raises(UserError, match=f"모두 {expected.count(None)}개"):
            read(path, "utf-8", render=render)


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
LINE = st.one_of(
    st.dictionaries(TEXT, VALUE, max_size=3).map(json.dumps),
    st.dictionaries(TEXT, VALUE, max_size=3).map(lambda row: json.dumps(row, ensure_ascii=False)),
    VALUE.map(json.dumps),
    st.text(st.sampled_from('{}":, 1가'), max_size=10),
)


@given(st.lists(LINE, max_size=6), SUFFIX)
def test_json_lines_read_as_json_reads_each_or_are_refused_by_their_number(folder, lines, compression):
    path = write(folder, ".jsonl", compression, "\n".join(['{"a": 1}', *lines]).encode())
    expected, wrong = ["{'a': 1}"], None
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        expected.append(repr(row) if isinstance(row, dict) else None)
        if expected[-1] is None:
            wrong = wrong or number
    assert read(path, "utf-8", render=repr, skip_bad_rows=True) == expected
    if wrong:
        with pytest.raises(UserError, match=f"{wrong}번째 줄.*--skip_bad_rows"):
            read(path, "utf-8", render=repr)
    else:
        assert read(path, "utf-8", render=repr) == expected


COLUMN = st.sampled_from([TEXT, st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans()])


@given(st.data(), COLUMN, SUFFIX, st.sampled_from(["none", "snappy", "zstd"]), st.integers(1, 5))
def test_parquet_reads_as_pyarrow_reads_it(folder, data, kind, compression, codec, rows_a_group):
    values = data.draw(st.lists(st.none() | kind, min_size=1, max_size=12))
    file = io.BytesIO()
    pyarrow.parquet.write_table(
        pyarrow.table({"text": pyarrow.array(values)}), file, compression=codec, row_group_size=rows_a_group
    )
    path = write(folder, ".parquet", compression, file.getvalue())
    expected = pyarrow.parquet.read_table(io.BytesIO(file.getvalue()))["text"].to_pylist()
    missing = [value is None or (isinstance(value, float) and not math.isfinite(value)) for value in expected]
    expected = ["" if none else str(value) for value, none in zip(expected, missing, strict=True)]
    assert read(path, render=column_renderer("text")) == expected


CODECS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp949", "euc-kr", "johab", "latin-1"]


@given(st.data(), st.sampled_from(CODECS), SUFFIX, st.booleans())
def test_text_reads_as_its_codec_reads_it_and_no_line_is_lost(folder, data, codec, compression, tells):
    alphabet = st.sampled_from("가나다 \n\r\tabc") if codec != "latin-1" else st.sampled_from("abc é\n\r")
    if codec.startswith("utf"):
        alphabet |= st.characters(codec="utf-8", exclude_characters="\0")
    text = data.draw(st.text(alphabet, min_size=1, max_size=60))
    path = write(folder, ".txt", compression, text.encode(codec))
    refused = None if tells else refusal(detect_encoding, path)
    if refused:
        assert codec not in ("utf-8", "utf-8-sig", "utf-16", "cp949", "euc-kr")
        assert "a.txt" in refused and "바이트" in refused
        return
    found = codec if tells else detect_encoding(path)
    raw = text.encode(codec).decode(found)
    if not tells and codec in ("utf-8", "utf-8-sig", "utf-16"):
        assert raw.removeprefix("\ufeff") == text.removeprefix("\ufeff")
    lines = [line.rstrip("\r\n") for line in io.StringIO(raw, newline="") if line.strip()]
    assert list(read_documents(path, found, "line")) == lines
    documents = io.StringIO("\n\n".join(read_documents(path, found)), newline="")
    assert [line.rstrip("\r\n") for line in documents if line.strip()] == lines


def valid(suffix):
    rows = [{"text": "가나", "n": 1}, {"text": 'a"b', "n": 2}]
    if suffix == ".parquet":
        file = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        return file.getvalue()
    if suffix == ".txt":
        return "가나\n\n다\n".encode()
    if suffix == ".json":
        return json.dumps(rows).encode()
    if suffix == ".jsonl":
        return "\n".join(map(json.dumps, rows)).encode()
    return 'text,n\n"가,나",1\n다,2\n'.replace(",", "\t" if suffix == ".tsv" else ",").encode()


@given(st.sampled_from(FORMATS), SUFFIX, st.binary(max_size=40), st.integers(0), st.integers(0, 20), st.booleans())
def test_damaged_and_random_files_end_in_a_line(folder, suffix, compression, noise, place, length, outside):
    data = valid(suffix)
    if outside:  # the archive itself
        data = COMPRESS[compression](data)
    place %= len(data) + 1
    damaged = noise if place == 0 else data[:place] + noise + data[place + length :]
    path = folder / f"a{suffix}{compression}"
    path.write_bytes(damaged if outside else COMPRESS[compression](damaged))
    for encoding, skips in ((None, False), (None, True), ("utf-8", True), ("utf-16", True)):
        refused = refusal(read, path, encoding, render=column_renderer("text"), skip_bad_rows=skips)
        assert refused is None or (path.name in refused and len(refused.splitlines()) <= 2)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json", ".parquet"])
def test_columns_are_found_whichever_way_their_letters_are_put_together(folder, run_main, suffix, form):
    """A Mac may name them in decomposed ones, in the file and on the command line, and nobody sees it."""
    row = {normalize(form, name): cell for name, cell in {"질문": "잘 지내?", "답변": "네, 덕분에요."}.items()}
    path = folder / f"열{suffix}"
    if suffix == ".csv":
        path.write_text(f'{",".join(row)}\n잘 지내?,"네, 덕분에요."\n', "utf-8")
    elif suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    else:
        path.write_text(json.dumps(row), "utf-8")
    (found,) = read(path, render=row_renderer())
    assert [turn["content"] for turn in found["turns"]] == ["잘 지내?", "네, 덕분에요."]
    for flag in (f"--text_column_name={normalize('NFD', '답변')}", f"--text_template={normalize('NFD', '{답변}')}"):
        code, out, err = run_main("train.py", f"--dataset_path={path}", flag, "--show_data=1")
        assert code == 0 and "네, 덕분에요." in out and "잘 지내?" not in out, err
