"""Any file a Korean user has is read as it was meant, or refused with its name and the place."""

import csv
import gzip
import json
import lzma
import tracemalloc
import unicodedata

import pyarrow
import pyarrow.parquet
import pytest

from gpt2_korean.messages import UserError
from gpt2_korean.text import opening
from gpt2_korean.text.documents import describe_files, read_corpus
from gpt2_korean.text.files import column_renderer, missing_column, read_documents
from gpt2_korean.text.opening import detect_encoding
from gpt2_korean.text.rows import BEGINNING, read_rows


def test_documents_are_separated_by_blank_lines_or_stand_on_a_line_each_or_are_the_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("하나\n둘\n\n \t\n\n셋\r\n넷\r\n\r\n다섯", "utf-8", newline="")
    assert list(read_documents(path, "utf-8")) == ["하나\n둘", "셋\r\n넷", "다섯"]
    assert list(read_documents(path, "utf-8", "line")) == ["하나", "둘", "셋", "넷", "다섯"]
    path.write_text("\n \n하나\n둘\n\n \t\n\n셋\n\n \n", "utf-8", newline="")
    assert list(read_documents(path, "utf-8", "document")) == ["하나\n둘\n\n \t\n\n셋"]


def test_a_file_without_blank_lines_is_cut_at_line_ends_and_loses_nothing(tmp_path):
    lines = [f"{number}번째 줄입니다" for number in range(40_000)]
    path = tmp_path / "a.txt"
    path.write_text("\n".join(lines), "utf-8")
    documents = list(read_documents(path, "utf-8"))
    assert len(documents) > 1 and max(map(len, documents)) < 110_000
    assert "\n".join(documents).split("\n") == lines
    path.write_text("\n\n".join(lines), "utf-8")
    documents = list(read_documents(path, "utf-8", "document"))
    assert len(documents) > 1 and min(map(len, documents[:-1])) >= 100_000 and max(map(len, documents)) < 110_000
    assert "\n\n".join(documents).split("\n\n") == lines


def test_a_novel_whose_paragraphs_would_be_learnt_as_documents_is_told_of(tmp_path):
    paragraphs = ["그는 문을 열었다."] * 45 + ["“누구세요?”"] * 5
    told = {
        "소설.txt": paragraphs,
        "짧은 글.txt": paragraphs[1:],
        "후기.txt": ["재미있다."] * 96 + ['"명작"'] * 4,
    }
    doubts = []
    for name, documents in told.items():
        (tmp_path / name).write_text("\n\n".join(documents), "utf-8")
        for sample_by in ("paragraph", "line", "document"):
            list(read_documents(tmp_path / name, "utf-8", sample_by, tell=doubts.append))
    assert len(doubts) == 1 and "소설.txt" in doubts[0] and "--sample_by=document" in doubts[0]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_that_would_be_learnt_as_one_text_are_told_of(tmp_path, end, monkeypatch):
    path = tmp_path / "후기.txt"
    lines = [f"{number}번째 후기입니다." for number in range(150)]

    def doubts(lines, sample_by="paragraph"):
        path.write_bytes(end.join([*lines, ""]).encode())
        told = []
        list(read_documents(path, "utf-8", sample_by, tell=told.append))
        return told

    assert not doubts(lines, "line") and not doubts(lines, "document") and not doubts(lines[:20])
    for longest in (100, 100_000):  # cut for its length, it is one text all the same
        monkeypatch.setattr("gpt2_korean.text.files.LONGEST_DOCUMENT", longest)
        (told,) = doubts(lines)
        assert "후기.txt" in told and "150줄" in told and "--line_by_line" in told
        assert not doubts([*lines[:80], "", *lines[80:]])
    (told,) = doubts([f"{number}\t재미있다." for number in range(150)])
    assert "표로 보입니다" in told


ROWS = [{"Q": "이름이 뭐야?", "A": "저는 로봇이에요."}, {"Q": '따옴표 "와", 쉼표', "A": "줄\n바꿈"}]


def write_rows(path, rows):
    if ".jsonl" in path.name:
        data = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    elif ".json" in path.name:
        data = json.dumps(rows, indent=1).encode()
    elif ".parquet" in path.name.lower():
        plain = path.with_name("plain")
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), plain)
        data = plain.read_bytes()
    else:
        plain = path.with_name("plain")
        with open(plain, "w", encoding="cp949", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if ".tsv" in path.name else ",")
            writer.writeheader()
            writer.writerows(rows)
        data = plain.read_bytes()
    compress = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix.lower(), bytes)
    path.write_bytes(compress(data))


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.jsonl.gz", "A.CSV.XZ", "a.parquet.gz"]
)
def test_every_format_gives_the_same_documents(tmp_path, name):
    path = tmp_path / name
    write_rows(path, ROWS)
    encoding = detect_encoding(path)
    by_column = list(read_documents(path, encoding, render=column_renderer("A")))
    by_template = list(read_documents(path, encoding, render=column_renderer("text", "질문: {Q}\n답변: {A}")))
    assert by_column == [row["A"] for row in ROWS]
    assert by_template == [f"질문: {row['Q']}\n답변: {row['A']}" for row in ROWS]


def test_braces_within_a_cell_are_text():
    assert column_renderer("text", "{a}-{b}")({"a": "{b}", "b": None}) == "{b}-"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_a_wrong_column_names_those_that_exist(tmp_path, name):
    path = tmp_path / name
    write_rows(path, ROWS)
    with pytest.raises(UserError) as refusal:
        list(read_documents(path, detect_encoding(path), render=column_renderer("text")))
    for word in (name, "'text'", "Q, A", "--text_column_name"):
        assert word in str(refusal.value)


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"id": "ynat-v1_train_00000", "label": "정치", "본문": "오늘은 날씨가 좋다"}, "--text_column_name=본문처럼"),
        ({"html": "<p>오늘은</p>", "context": "오늘은", "url": "https://a"}, "--text_column_name=context처럼"),
        ({"1. 좋았던 점": "오늘은", "점수": 5}, "--text_column_name='1. 좋았던 점'처럼"),
        ({"title": "제목", "paragraphs": [{"context": "오늘은 날씨가 좋다"}]}, "'paragraphs' 안에"),
        ({"id": 1, "messages": None, "url": "https://a"}, "--text_column_name이나 --text_template으로"),
        ({}, "--text_column_name이나"),
    ],
)
def test_of_a_missing_column_the_likeliest_one_there_is_named(row, named):
    assert named in str(missing_column("a.json", "text", row)).splitlines()[1]


def test_a_table_of_many_columns_or_without_their_names_is_refused_in_two_lines_that_one_can_read():
    told = str(missing_column("a.csv", "text", {f"열{number}": f"값 {number}" for number in range(400)}))
    assert "열19 등\n글이라면 --text_column_name=열" in told and len(told) < 400
    told = str(missing_column("a.csv", "text", {"첫 줄도 글이다. " * 100: "둘째 줄도 글이다. " * 100}))
    assert "첫 줄에 열 이름을" in told and ".txt" in told and len(told) < 400 and len(told.splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.jsonl", '{"text": "가"}\n\n{"text": }\n', "3번째 줄"),
        ("a.json", '[\n{"text": "가"},\n{"text" "나"}\n]', "3번째 줄"),
        ("a.jsonl", '{"text": "가"}\n"글"\n', "2번째 줄"),
        ("a.json", "[1]", "1번째 항목"),
        ("a.parquet", "not parquet", "a.parquet"),
    ],
)
def test_what_cannot_be_parsed_is_refused_with_its_place(tmp_path, name, content, place):
    path = tmp_path / name
    path.write_text(content, "utf-8")
    with pytest.raises(UserError) as refusal:
        list(read_documents(path, "utf-8", render=column_renderer("text")))
    assert name in str(refusal.value) and place in str(refusal.value)


def test_a_parquet_of_long_texts_is_not_all_in_memory_at_once(tmp_path):
    path, text = tmp_path / "a.parquet", "a" * 10_000
    pyarrow.parquet.write_table(pyarrow.table({"text": [text] * 1000}), path)
    tracemalloc.start()
    try:
        assert all(row["text"] == text for _, row in read_rows(path, None))
        assert tracemalloc.get_traced_memory()[1] < 500 * len(text)  # what of it Python had at most
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["a.parquet.gz", "a.PARQUET.XZ"])
def test_a_parquet_whose_archive_is_cut_or_spoilt_or_none_is_refused(tmp_path, name):
    path = tmp_path / name
    write_rows(path, ROWS)
    whole = path.read_bytes()
    for content in (whole[:-9], whole[:12] + b"\xff" * (len(whole) - 12), (tmp_path / "plain").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: Parquet"):
            list(read_documents(path, None, render=column_renderer("Q")))


def test_a_spoilt_parquet_is_told_in_one_line_and_without_a_row_where_none_was_read(tmp_path):
    path = tmp_path / "a.parquet"
    write_rows(path, ROWS)
    whole = path.read_bytes()
    for content in (b"not parquet", whole[:4] + b"\0" + whole[5:]):  # of the latter Arrow says three lines
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"다시 받거나 저장하세요 \(.+\)\.$") as refusal:
            list(read_rows(path, None))
        assert "\n" not in str(refusal.value) and "행" not in str(refusal.value)


def read_text_column(path):
    return list(read_documents(path, detect_encoding(path), render=column_renderer("text")))


def test_json_is_read_as_what_it_is_whatever_its_name(tmp_path, rng):
    rows = [{"text": "".join(rng.choices('가나다"\\\n{[', k=10))} for _ in range(5)]
    one, lines = json.dumps(rows), "\n".join(map(json.dumps, rows))
    forms = [one, json.dumps(rows, indent=1), json.dumps({"data": rows}), json.dumps({"data": rows}, indent=1)]
    for content in (lines, f"\n\n{lines}\n", lines.replace("\n", "\n\n"), f"\n{one}\n", *forms):
        for suffix in ("json", "jsonl"):
            if suffix == "jsonl" and content in forms[2:]:
                continue  # an object is a row there
            path = tmp_path / f"a.{suffix}"
            path.write_text(content, "utf-8")
            assert read_text_column(path) == [row["text"] for row in rows], content
    for content in (json.dumps(rows[0]), json.dumps(rows[0], indent=1)):
        (tmp_path / "a.json").write_text(content, "utf-8")
        assert read_text_column(tmp_path / "a.json") == [rows[0]["text"]]


def test_json_lines_are_told_by_a_first_line_longer_than_the_beginning_too(tmp_path):
    path, rows = tmp_path / "a.json", [{"text": "가" * (BEGINNING + 1)}, {"text": "나"}]
    for end in ("\n", "\r\n", "\r"):
        path.write_text(end.join(map(json.dumps, rows)) + end, "utf-8", newline="")
        assert read_text_column(path) == [row["text"] for row in rows]
    for content in (rows[0], {"data": rows}):
        path.write_text(json.dumps(content), "utf-8")
        assert read_text_column(path)[0] == rows[0]["text"]


def test_json_lines_of_files_one_after_another_may_each_begin_with_a_mark(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"text": "가"}\n\ufeff{"text": "나"}\n\ufeff\n', "utf-8")
    assert read_text_column(path) == ["가", "나"]


def test_what_is_no_number_is_no_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": NaN}\n{"text": -Infinity}\n{"text": 1e999}\n{"text": null}\n{"text": 1.5}\n', "utf-8")
    assert read_text_column(path) == ["", "", "", "", "1.5"]
    table = pyarrow.table({"text": pyarrow.array([float("nan"), None, 2.0])})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert read_text_column(tmp_path / "a.parquet") == ["", "", "2.0"]


@pytest.mark.parametrize("value", [[], {}, ["글"], {"글": 1}, [{"role": "user", "content": "글"}]])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
def test_a_value_that_holds_others_is_refused_with_the_flags_to_choose_another(tmp_path, name, value):
    if name == "a.parquet" and value == {}:
        pytest.skip("Parquet has no empty struct")
    path = tmp_path / name
    write_rows(path, [{"id": 1, "text": value}])
    for template in (None, "{id}: {text}"):
        with pytest.raises(UserError) as refusal:
            list(read_documents(path, detect_encoding(path), render=column_renderer("text", template)))
        for words in (name, "1번째", "'text'", "--text_column_name", "--text_template"):
            assert words in str(refusal.value)
    assert list(read_documents(path, detect_encoding(path), render=column_renderer("id"))) == ["1"]


def invalid_string():
    return pyarrow.Array.from_buffers(pyarrow.string(), 1, pyarrow.array([b"\xff"]).buffers())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", "[" * 100_000),
        ("a.json", '{"text": ' + "[" * 100_000 + '\n{"text": "가"}'),
        ("a.jsonl", "[" * 100_000),
        ("a.jsonl", '{"text": ' + "[" * 100_000),
        ("a.json", '{"text": ' + "1" * 5000 + "}"),
        ("a.jsonl", '{"text": ' + "1" * 5000 + "}"),
        ("a.parquet", {"text": pyarrow.array([10**9], pyarrow.date32())}),
        ("a.parquet", {"text": pyarrow.array([2**52], pyarrow.timestamp("s"))}),
        ("a.parquet", {"text": invalid_string()}),
    ],
)
def test_values_that_python_cannot_hold_end_in_a_line(tmp_path, name, content):
    path = tmp_path / name
    if isinstance(content, dict):
        pyarrow.parquet.write_table(pyarrow.table(content), path)
    else:
        path.write_text(content, "utf-8")
    with pytest.raises(UserError, match="1번째") as refusal:
        read_text_column(path)
    assert name in str(refusal.value) and len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.tsv.gz"])
def test_a_line_longer_than_memory_is_refused_by_its_number(tmp_path, monkeypatch, name):
    monkeypatch.setattr(opening, "LONGEST_LINE", 1000)
    path = tmp_path / name
    content = f"text\n{'가' * 1001}\n" if "sv" in name else f"{{}}\n{'가' * 1001}\n"
    path.write_bytes(gzip.compress(content.encode()) if name.endswith("gz") else content.encode())
    with pytest.raises(UserError, match=f"{name}: 2번째 줄이 1,000자보다"):
        list(read_documents(path, "utf-8", render=lambda row: ""))
    path.write_bytes(gzip.compress(content.replace("가", "", 2).encode()))
    if name.endswith("gz"):
        assert list(read_documents(path, "utf-8", render=lambda row: row["text"])) == ["가" * 999]


def test_lines_that_are_no_json_object_are_skipped_and_counted_where_that_is_asked(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "가"}\n{"text": "나"\n[1]\n{"text": "다"}\n\n글', "utf-8")
    for _ in range(2):  # also from the cache
        documents = read_corpus([path], skip_bad_rows=True)
        assert documents["text"] == ["가", "다"]
        assert "행 3개를 건너뜀" in describe_files(documents, [path])
    with pytest.raises(UserError, match=r"2번째 줄.*--skip_bad_rows"):
        read_corpus([path])


def test_json_objects_that_have_a_name_twice_are_refused_or_skipped_and_counted(tmp_path):
    path, whole = tmp_path / "a.jsonl", tmp_path / "a.json"
    turns = '[{"role": "user", "content": "라"}, {"role": "assistant", "content": "마", "content": "바"}]'
    path.write_text(f'{{"text": "가"}}\n{{"text": "나", "text": "다"}}\n{{"messages": {turns}}}\n', "utf-8")
    with pytest.raises(UserError, match=r"2번째 줄.*이름이 같은 열이 여럿입니다: text.*--skip_bad_rows"):
        read_corpus([path])
    documents = read_corpus([path], skip_bad_rows=True)
    assert documents["text"] == ["가"] and "행 2개를 건너뜀" in describe_files(documents, [path])
    whole.write_text('{\n"Q": "가", "A": "나",\n"Q": "다", "A": "라"\n}', "utf-8")
    with pytest.raises(UserError, match=r"a\.json: .*이름이 같은 열이 여럿입니다: Q\."):
        read_corpus([whole])


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.parquet", "a.jsonl", "a.json"])
def test_columns_whose_names_differ_in_composition_alone_are_refused_and_none_is_lost(tmp_path, name):
    path, columns = tmp_path / name, ["글", unicodedata.normalize("NFD", "글")]  # of tables of two systems in one
    row = dict(zip(columns, ["가", None], strict=True))
    if name == "a.parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    elif name.endswith("sv"):
        separator = "," if name == "a.csv" else "\t"
        path.write_text(f"{separator.join(columns)}\n가{separator}\n", "utf-8")
    else:
        path.write_text(json.dumps(row), "utf-8")
    with pytest.raises(UserError, match=rf"{name}: .*이름이 같은 열이 여럿입니다: 글\."):
        read_corpus([path], column="글")


def test_rows_without_the_column_of_those_before_are_skipped_and_counted_where_that_is_asked(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "가"}\n{"id": 1}\n{"text": "나"}\n', "utf-8")
    documents = read_corpus([path], skip_bad_rows=True)
    assert documents["text"] == ["가", "나"]
    assert "행 1개를 건너뜀" in describe_files(documents, [path])
    with pytest.raises(UserError, match=r"2번째 줄: 'text' 열이 없습니다(.|\n)*--skip_bad_rows"):
        read_corpus([path])
    for content in ('{"id": 1}\n{"text": "가"}\n', '{"id": 1}\n'):  # the column of the first row may be a wrong one
        path.write_text(content, "utf-8")
        with pytest.raises(UserError, match="1번째 줄: 'text' 열이 없습니다") as refusal:
            read_corpus([path], skip_bad_rows=True)
        assert "--skip_bad_rows" not in str(refusal.value)
