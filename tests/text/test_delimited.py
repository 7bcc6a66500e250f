"""A table's rows are all read or refused by their line: no quote swallows one, no field is dropped."""

import csv
import io

import pyarrow
import pyarrow.parquet
import pytest

from gpt2_korean.messages import UserError
from gpt2_korean.text import documents as corpus
from gpt2_korean.text.delimited import delimited_rows
from gpt2_korean.text.files import column_renderer, read_documents


def rows_of(path, template, **keywords):
    return list(read_documents(path, "utf-8", render=column_renderer(None, template), **keywords))


@pytest.mark.parametrize("first", ["sep=;\r\n", '"sep=;"\n'])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_the_line_by_which_excel_knows_the_delimiter_is_no_header(tmp_path, first, name):
    path = tmp_path / name
    path.write_text(f'{first}번호;본문\n1;"가;나"\n2;다,라\n', "utf-8", newline="")
    assert rows_of(path, "{번호}{본문}") == ["1가;나", "2다,라"]
    path.write_text(f"{first}본문;번호\n가;1;2\n", "utf-8", newline="")
    with pytest.raises(UserError, match="3번째 줄의 칸은 3개인데 열은 2개"):
        rows_of(path, "{본문}")


def stray_quotes(rng):
    return rng.choice(['"{}', '"{}', '{}"{}', '"{}"{}', '{}"', '""{}', "{}"])


def test_a_stray_quote_swallows_no_row(tmp_path, rng):
    path = tmp_path / "a.tsv"
    for _ in range(200):
        texts = [stray_quotes(rng).format(f"글{number}", "말") for number in range(10)]
        # A pair of quotes around whole rows is what RFC 4180 calls one field: here none closes at a field's end.
        texts = [text if not text.endswith('"') else f"{text}." for text in texts]
        path.write_text("id\tdocument\tlabel\n" + "".join(f"{i}\t{text}\t1\n" for i, text in enumerate(texts)), "utf-8")
        read = delimited_rows(path, "utf-8", "\t")
        assert [(place, row["document"]) for place, row in read] == [
            (f"{line}번째 줄", text) for line, text in enumerate(texts, 2)
        ]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quotes_of_two_rows_that_would_make_a_row_of_no_tables_width_are_text(tmp_path, capsys, end):
    path = tmp_path / "a.csv"
    lines = [
        "Q,A,label",
        '"가,나,0',
        '다,라",1',
        '"마,바,"2 ""인가"" 3"',
        "사,아,4",
        '"자,차',
        "카,타,5",
        '파",6',
        "하,거,7",
    ]
    path.write_text(end.join([*lines, ""]), "utf-8", newline="")
    read = rows_of(path, "{Q}|{A}|{label}", skip_bad_rows=True)
    assert read == ['"가|나|0', '다|라"|1', '"마|바|2 "인가" 3', "사|아|4", None, "카|타|5", None, "하|거|7"]
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match=r"(?s)6번째 줄의 칸은 2개인데 열은 3개.*모두 2개"):
        rows_of(path, "{Q}")


def test_rows_that_would_be_swallowed_by_a_valid_field_are_told(tmp_path, capsys):
    path = tmp_path / "a.tsv"
    table = 'id\ttext\n1\t"가\n2\t나\n3\t다"\n4\t라\n5\t"마\n6\t바"\n'
    path.write_text(table, "utf-8")
    assert rows_of(path, "{text}") == ["가\n2\t나\n3\t다", "라", "마\n6\t바"]
    told = capsys.readouterr().err
    assert "a.tsv: 2번째 줄" in told and "모두 2곳" in told and len(told.splitlines()) == 1
    path.write_text(f"{table}7\n", "utf-8")  # which may be one such quote's doing
    with pytest.raises(UserError, match="8번째 줄의 칸은 1개"):
        rows_of(path, "{text}", tell=pytest.fail)
    assert "a.tsv: 2번째 줄" in capsys.readouterr().err


@pytest.mark.parametrize("table", ['text\n"{}"\n', 'id,text\n1,"{}"\n'])
def test_a_text_of_many_lines_is_one_cell_and_nothing_to_doubt(tmp_path, capsys, table):
    csv.field_size_limit(131_072)  # csv's own, which whoever read a table before may have raised
    path, text = tmp_path / "a.csv", "가나다\n" * 50_000
    path.write_text(table.format(text), "utf-8")
    assert rows_of(path, "{text}") == [text]
    assert capsys.readouterr().err == ""


def test_rows_that_would_be_swallowed_are_told_whoever_read_them_first(tmp_path, capsys):
    for number in range(5):
        (tmp_path / f"{number}.tsv").write_text('id\ttext\n1\t"가\n2\t나"\n3\t다\n', "utf-8")
    files = sorted(tmp_path.iterdir())
    for chosen in (files, files, files[1:2], files[1:2]):  # the second times from the cache
        told = corpus.describe_files(corpus.read_corpus(chosen), chosen)
        assert f"주의: {chosen[0]}: 2번째 줄의 따옴표부터" in told
        assert told.count("따옴표부터") == min(3, len(chosen))
        assert ("이런 파일이 모두 5개" in told) == (len(chosen) == 5)
    assert "따옴표" not in capsys.readouterr().err  # it is told by those who speak


@pytest.mark.parametrize("rows", ["가,나,0\n다,라\n마,바,사,0\n", '"가,나"다,1,2\n라,마,0\n바,"사\n'])
def test_rows_that_do_not_fit_the_header_are_refused_with_their_number_or_skipped(tmp_path, rows):
    path = tmp_path / "a.csv"
    path.write_text(f"Q,A,label\n끝,말,0\n{rows}하나,둘,0\n", "utf-8")
    lines = rows.splitlines()
    wrong = [line for line in lines if len(line.split(",")) != 3]
    first = 3 + lines.index(wrong[0])
    with pytest.raises(UserError) as refusal:
        rows_of(path, "{Q}")
    found = len(wrong[0].split(","))
    for words in (f"a.csv: {first}번째 줄", f"칸은 {found}개", "열은 3개", f"모두 {len(wrong)}개", "--skip_bad_rows"):
        assert words in str(refusal.value)
    read = rows_of(path, "{Q}", skip_bad_rows=True)
    assert read.count(None) == len(wrong) and len(read) == len(lines) + 2
    assert [text for text in read if text is not None][-1] == "하나"


def test_skipped_rows_are_counted_also_from_the_cache(tmp_path):
    for name, rows in (("a.csv", "x,y\n글,1\n나쁜\n"), ("b.csv", "나쁜,1,2\n"), ("c.csv", "셋,1\n")):
        (tmp_path / name).write_text(f"text,n\n{rows}", "utf-8")
    files = sorted(tmp_path.iterdir())
    for _ in range(2):
        documents = corpus.read_corpus(files, skip_bad_rows=True)
        assert documents["text"] == ["x", "글", "셋"]
        assert "행 2개를 건너뜀" in corpus.describe_files(documents, files)


def test_two_columns_of_one_name_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,id,text,,\n가,1,나,,\n", "utf-8")
    with pytest.raises(UserError, match=r"a\.csv.*: text\."):
        rows_of(path, "{text}")
    path.write_text("text,id,,\n가,1,,\n", "utf-8")  # as spreadsheets leave empty columns
    assert rows_of(path, "{text}") == ["가"]
    path = tmp_path / "a.parquet"
    columns = [pyarrow.array([cell]) for cell in ("가", "1", "나")]
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(columns, ["text", "id", "text"]), path)
    with pytest.raises(UserError, match=r"a\.parquet.*: text\."):
        rows_of(path, "{text}")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_first_line_with_another_delimiter_than_the_name_says_tells_which_it_is(tmp_path, name, delimiter):
    path = tmp_path / name
    rows = [["Q", "A"], ['안녕, 너; "나"', "탭\t하나"], ["둘째", "끝"]]
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter).writerows(rows)
    path.write_text(file.getvalue(), "utf-8", newline="")
    assert rows_of(path, "{Q}|{A}") == ["|".join(row) for row in rows[1:]]


def test_a_single_column_has_no_delimiter_but_that_of_its_name(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text\n가; 나\n다\t라\n", "utf-8")
    assert rows_of(path, "{text}") == ["가; 나", "다\t라"]
    path.rename(tmp_path / "a.tsv").write_text("text\n가; 나\n다, 라\n", "utf-8")
    assert rows_of(tmp_path / "a.tsv", "{text}") == ["가; 나", "다, 라"]
