"""Documents are normalised, cached, and held out before anything else happens to them."""

import json
import shutil
import unicodedata
from pathlib import Path
from unittest.mock import MagicMock

import datasets
import pyarrow.parquet
import pytest
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from gpt2_korean.cli.train_options import parse_train_options
from gpt2_korean.messages import UserError
from gpt2_korean.text import documents as corpus
from gpt2_korean.text import hub
from gpt2_korean.text.corpus import count_characters, document_batches, sample_texts
from gpt2_korean.text.folders import find_files
from gpt2_korean.text.normalise import normalise


def test_any_text_becomes_composed_with_plain_line_ends_and_no_control_characters(rng):
    alphabet = [
        "한",
        unicodedata.normalize("NFD", "글"),
        "\r",
        "\n",
        "\r\n",
        "\t",
        "\0",
        "\x0b",
        "\x0c",
        "\x1b",
        "\x1e",
        "\x85",
        "\ufeff",
        "é",
        " ",
    ]
    for _ in range(500):
        raw = "".join(rng.choice(alphabet) for _ in range(30))
        text, composed, line_ends, controls = normalise(raw)
        # Python's universal newlines and unicodedata are the reference.
        plain = "\n".join(raw.replace("\r\n", "\n").split("\r"))
        for end in "\x0b\x0c\x85":  # ends of a line to str.splitlines, too
            plain = plain.replace(end, "\n")
        kept = "".join(c for c in plain if c in "\n\t" or (unicodedata.category(c) != "Cc" and c != "\ufeff"))
        assert text == unicodedata.normalize("NFC", kept)
        assert composed == (kept != text)
        assert line_ends == sum(raw.count(end) for end in "\r\x0b\x0c\x85")
        assert controls == len(plain) - len(kept)


def test_of_novels_that_are_a_row_each_few_are_in_memory_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "MOST_CHARACTERS", 100)
    path = tmp_path / "novels.jsonl"
    path.write_text("".join(json.dumps({"text": f"{number} " * 100}) + "\n" for number in range(9)), "utf-8")
    read = corpus.read_corpus([path])
    assert [len(chunk) for chunk in read.data["text"].chunks] == [2, 2, 2, 2, 1]
    (tmp_path / "train.jsonl").write_text('{"text": "가"}\n' * 2000)
    read = corpus.read_hub_dataset(str(tmp_path))  # whose rows may be as long
    assert max(len(chunk) for chunk in read.data["text"].chunks) < 500


def test_lone_surrogates_of_a_json_escape_go(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "가\\ud800나"}\n', "utf-8")
    assert corpus.read_corpus([path])["text"] == ["가나"]


def test_a_single_nul_is_removed_and_counted_and_soft_breaks_are_line_ends(tmp_path):
    (tmp_path / "a.txt").write_bytes("안녕\0하세요\x0b반갑습니다\n".encode())
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "안녕\0하세요\x0c반갑습니다"}), "utf-8")
    files = find_files(str(tmp_path))
    documents = corpus.read_corpus(files)
    assert documents["text"] == ["안녕하세요\n반갑습니다"] * 2
    told = corpus.describe_files(documents, files)
    assert "제어 문자 2개" in told and "줄 끝 2개" in told


def test_what_was_read_and_changed_is_told(tmp_path):
    (tmp_path / "a.txt").write_bytes("가\r\n나\n\n다\0라".replace("\0", "\x07").encode("cp949"))
    (tmp_path / "b.txt").write_bytes(unicodedata.normalize("NFD", "각").encode())
    files = find_files(str(tmp_path))
    documents = corpus.read_corpus(files)
    assert documents["text"] == ["가\n나", "다라", "각"]
    assert count_characters(documents) == 6
    told = corpus.describe_files(documents, files)
    for words in ("CP949 1개", "UTF-8 1개", "문서 1개를 NFC", "줄 끝 1개", "제어 문자 1개"):
        assert words in told
    alone = corpus.read_corpus(files[:1])
    assert "a.txt: CP949" in corpus.describe_files(alone, files[:1])


def test_a_second_reading_comes_from_the_cache_and_a_changed_file_does_not(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("하나\n\n둘", "utf-8")
    first = corpus.read_corpus([path])
    opened = []
    monkeypatch.setattr(corpus, "read_documents", lambda *args: opened.append(args) or iter(()))
    assert corpus.read_corpus([path]).cache_files == first.cache_files
    assert not opened
    monkeypatch.undo()
    path.write_text("하나\n\n둘\n\n셋", "utf-8")
    assert corpus.read_corpus([path])["text"] == ["하나", "둘", "셋"]
    assert corpus.read_corpus([path], sample_by="line").cache_files != first.cache_files


def test_another_text_of_the_same_size_and_time_is_read_and_not_taken_from_the_cache(tmp_path):
    path, other = tmp_path / "a.txt", tmp_path / "b.txt"
    path.write_text("하나", "utf-8")
    assert corpus.read_corpus([path])["text"] == ["하나"]
    other.write_text("다른", "utf-8")
    shutil.copystat(path, other)
    other.replace(path)
    assert corpus.read_corpus([path])["text"] == ["다른"]


@pytest.mark.parametrize("content", ["", "\n \n\t\n", "\ufeff"])
@pytest.mark.parametrize("name", ["빈.txt", "빈.json"])
def test_an_empty_or_blank_file_is_refused_by_name(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content, "utf-8")
    with pytest.raises(UserError, match=f"{name}: 글이 없습니다"):
        corpus.read_corpus([path])


def test_held_out_documents_are_apart_in_order_and_the_same_for_a_seed(tmp_path, rng):
    path = tmp_path / "a.txt"
    texts = [f"문서 {number}" for number in range(97)]
    path.write_text("\n\n".join(texts), "utf-8")
    documents = corpus.read_corpus([path])
    for _ in range(10):
        percentage, seed = rng.uniform(0.01, 90), rng.randrange(1000)
        rest, held_out = corpus.hold_out(documents, percentage, seed)
        apart = list(rest["text"]), list(held_out["text"])
        assert sorted(apart[0] + apart[1], key=texts.index) == texts
        assert all(part == sorted(part, key=texts.index) for part in apart)
        assert len(held_out) == max(1, round(97 * percentage / 100))
        assert list(corpus.hold_out(documents, percentage, seed)[1]["text"]) == apart[1]
    with pytest.raises(UserError, match="--validation_file"):
        corpus.hold_out(documents.select([0]), 5, 0)


@pytest.fixture
def hub_folder(tmp_path):
    """A local folder in the Hub's layout, which load_dataset reads as it reads a hub id."""
    rows = [{"Q": f"질문 {number}", "A": f"답\r\n{number}"} for number in range(3)] + [{"Q": "", "A": " "}]
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "train.jsonl").write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return str(folder)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_hub_data_set_gives_the_same_documents(hub_folder, streaming):
    documents = corpus.read_hub_dataset(hub_folder, streaming=streaming, column="A")
    assert [text for texts, _ in document_batches(documents, 2) for text in texts] == ["답\n0", "답\n1", "답\n2"]
    assert sample_texts(documents, 1_000_000) == ["답\n0", "답\n1", "답\n2"]
    templated = corpus.read_hub_dataset(hub_folder, streaming=streaming, template="{Q}: {A}")
    assert next(iter(templated))["text"] == "질문 0: 답\n0"


@pytest.mark.parametrize("more", [[], ["--streaming", "--max_steps=1"]])
def test_of_a_hub_data_set_the_configuration_that_the_flag_names_is_learnt(tmp_path, run_main, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    folder = Path("owner", "name")  # which is there, and no name of the Hub
    folder.mkdir(parents=True)
    names = [f"- config_name: {name}\n  data_files: {name}.jsonl\n" for name in ("ko", "en")]
    (folder / "README.md").write_text(f"---\nconfigs:\n{''.join(names)}---\n")
    for name, text in (("ko", "한국말"), ("en", "남의 말")):
        (folder / f"{name}.jsonl").write_text(json.dumps({"text": text}), "utf-8")
    words = ["train.py", f"--dataset_name={folder}", "--model_type=scratch-mini", "--show_data=1", *more]
    code, out, err = run_main(*words, "--dataset_config_name=ko")
    assert code == 0 and "한국말" in out and "남의" not in out, err
    code, out, err = run_main(*words)
    assert code == 1 and not out and "--dataset_config_name" in err and "['ko', 'en']" in err, err


def test_a_hub_data_set_is_read_anew_by_other_code(hub_folder, monkeypatch):
    first = corpus.read_hub_dataset(hub_folder)
    assert corpus.read_hub_dataset(hub_folder).cache_files == first.cache_files
    monkeypatch.setattr(hub, "hash_code", lambda: "of another version")
    assert corpus.read_hub_dataset(hub_folder).cache_files != first.cache_files


def test_a_hub_data_set_that_is_not_there_or_lacks_the_column_is_refused(hub_folder, monkeypatch):
    with pytest.raises(UserError, match="Q, A"):
        corpus.read_hub_dataset(hub_folder, column="text")
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the Hub library's trials
    with pytest.raises(UserError, match="--dataset_name"):
        corpus.read_hub_dataset("no-such-owner/no-such-name")


def test_a_hub_data_set_that_is_gated_or_private_is_told_of_the_token(monkeypatch):
    def refuse(*_, **__):
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'owner/name' is a gated dataset on the Hub.")

    monkeypatch.setattr("huggingface_hub.dataset_info", lambda *_, **__: None)
    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(UserError, match=r"(?s)--dataset_name=owner/name.*HF_TOKEN.*gated dataset"):
        corpus.read_hub_dataset("owner/name")


@pytest.mark.parametrize("answer", [HfHubHTTPError("401", response=MagicMock()), HFValidationError("no name")])
@pytest.mark.parametrize("error", [OSError, ValueError, RuntimeError, datasets.exceptions.DatasetNotFoundError])
def test_what_the_hub_or_its_library_answers_is_told_and_not_taken_for_a_hub_out_of_reach(monkeypatch, answer, error):
    def raise_it(error):
        raise error

    monkeypatch.setattr("huggingface_hub.dataset_info", lambda *_, **__: raise_it(answer))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: raise_it(error("not so")))
    with pytest.raises(UserError, match=r"(?s)--dataset_name=owner/name: 불러올 수 없습니다.*\(not so\)"):
        corpus.read_hub_dataset("owner/name")


@pytest.mark.parametrize("error", [OSError, ValueError, RuntimeError])
def test_a_stream_that_breaks_off_is_told_with_the_way_on(hub_folder, monkeypatch, error):
    def rows():
        yield from [{"text": "가"}] * 3
        raise error("cut")

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.IterableDataset.from_generator(rows))
    with pytest.raises(UserError, match=r"(?s)스트리밍으로 읽다가 멈췄습니다\(cut\).*--resume_from_checkpoint"):
        list(corpus.read_hub_dataset(hub_folder, streaming=True))


@pytest.mark.parametrize(
    ("error", "why"), [(ConnectionError("no certificate"), "no certificate"), (TimeoutError(), "TimeoutError")]
)
def test_a_hub_out_of_reach_is_asked_once_and_why_it_is_is_told(tmp_path, monkeypatch, error, why):
    def unreachable(*_, timeout):
        assert 0 < timeout <= 30
        raise error

    monkeypatch.setattr("huggingface_hub.dataset_info", unreachable)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("asked again"))
    with pytest.raises(UserError, match=rf"(?s)--dataset_name=owner/name.*네트워크.*\({why}\).*--dataset_path"):
        corpus.read_hub_dataset("owner/name")


def test_of_a_data_set_in_its_cache_the_library_does_not_ask_a_hub_out_of_reach_again(tmp_path, monkeypatch):
    asked = []

    def unreachable(*words, **__):
        asked.append(words)
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.dataset_info", unreachable)
    monkeypatch.setattr("huggingface_hub.HfApi.hf_hub_download", unreachable)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    (tmp_path / "owner___name").mkdir()
    with pytest.raises(UserError, match="--dataset_name=owner/name: 불러올 수 없습니다"):  # there is no text in it
        corpus.read_hub_dataset("owner/name")
    assert asked == [("owner/name",)]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", [datasets.Audio(), datasets.Image(), datasets.List(datasets.Image())])
def test_the_text_beside_sounds_and_pictures_is_read_without_them(tmp_path, streaming, kind):
    schema = datasets.Features({"media": kind, "text": datasets.Value("string")}).arrow_schema
    media = {"bytes": b"neither a sound nor a picture", "path": "a"}
    rows = [{"media": [media] if isinstance(kind, datasets.List) else media, "text": text} for text in ("하나", "둘")]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), tmp_path / "train.parquet")
    documents = corpus.read_hub_dataset(str(tmp_path), streaming=streaming)
    assert [row["text"] for row in documents] == ["하나", "둘"]


def test_a_hub_data_set_that_is_a_script_is_refused(tmp_path):
    (tmp_path / f"{tmp_path.name}.py").write_text("import datasets")
    with pytest.raises(UserError, match=r"(?s)--dataset_path로 주세요.*scripts are no longer supported"):
        corpus.read_hub_dataset(str(tmp_path))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("value", ['["하나"]', '{"ko": "하나"}'])
def test_a_hub_data_set_whose_column_holds_no_text_is_refused_as_a_file_is(tmp_path, streaming, value):
    (tmp_path / "train.jsonl").write_text(f'{{"text": {value}}}', "utf-8")
    with pytest.raises(UserError, match=r"--dataset_name=.*: 'text' 열의 값은 글이 아니라 (목록|객체)"):
        corpus.read_hub_dataset(str(tmp_path), streaming=streaming, column="text")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("content", ['{"text": ""}\n{"text": " "}\n', '{"text": null}\n{"text": NaN}\n', ""])
def test_a_hub_data_set_without_text_is_refused(tmp_path, streaming, content):
    (tmp_path / "train.jsonl").write_text(content)
    with pytest.raises(UserError, match=r"--dataset_name=.*글이 없습니다"):
        corpus.read_hub_dataset(str(tmp_path), streaming=streaming)


def test_rows_without_text_are_counted_wherever_they_are_from(tmp_path, hub_folder, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": null}\n{"text": "가"}\n{"text": NaN}\n{"text": "나"}\n{"text": ""}\n', "utf-8")
    documents = corpus.read_corpus([path])
    assert documents["text"] == ["가", "나"]
    assert "글이 없는 행 3개" in corpus.describe_files(documents, [path])
    path = tmp_path / "a.csv"
    path.write_text("Q,A\n가,\n,\n ,\n", "utf-8")
    documents = corpus.read_corpus([path], template="질문: {Q} 답: {A}")
    assert documents["text"] == ["질문: 가 답: "]
    assert "글이 없는 행 2개" in corpus.describe_files(documents, [path])
    for columns in ({"column": "A"}, {"template": "{Q}: {A}"}):
        corpus.read_hub_dataset(hub_folder, **columns)
        told = capsys.readouterr().err
        assert "글이 없는 행 1개" in told and "줄 끝 3개" in told


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("rest", "reason"), [('{"text": 나}', "JSON parse error"), ('{"글": "나"}', "column names")])
def test_a_hub_data_set_that_cannot_be_read_to_its_end_is_told_with_the_reason(tmp_path, streaming, rest, reason):
    for name, line in (("train-0.jsonl", '{"text": "가"}'), ("train-1.jsonl", rest)):
        (tmp_path / name).write_text(f"{line}\n" * 20, "utf-8")
    with pytest.raises(UserError, match=reason) as refusal:
        list(document_batches(corpus.read_hub_dataset(str(tmp_path), streaming=streaming), 7))
    assert "--dataset_name=" in str(refusal.value) and len(str(refusal.value).splitlines()) == 2


def test_what_a_stream_changes_and_leaves_out_is_counted_as_it_is_read(tmp_path, rng, capsys):
    rows = [rng.choice(["가\r나", "\0다", unicodedata.normalize("NFD", "각"), "", None]) for _ in range(2500)] + ["끝"]
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(json.dumps({"text": row}) for row in rows), "utf-8")
    documents = corpus.read_hub_dataset(str(tmp_path), streaming=True)
    capsys.readouterr()
    texts = [text for batch, _ in document_batches(documents, 7) for text in batch]
    assert texts == [normalise(row)[0] for row in rows if row]
    told = capsys.readouterr().err.replace(",", "")
    for words, count in (
        ("문서 {}개를 NFC", sum(bool(row) and not unicodedata.is_normalized("NFC", row) for row in rows)),
        ("줄 끝 {}개", rows.count("가\r나")),
        ("제어 문자 {}개", rows.count("\0다")),
        ("글이 없는 행 {}개", rows.count("") + rows.count(None)),
    ):
        assert words.format(count) in told


def test_parts_and_samples_of_documents_are_what_a_row_by_row_reading_gives(tmp_path, rng):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(f"{number} " + "가" * rng.randint(1, 9) for number in range(3000)), "utf-8")
    documents = corpus.read_corpus([path], sample_by="line")
    rest, held_out = corpus.hold_out(documents, 7, 1)
    for part in (documents, rest, held_out, documents.select(range(5, 1500))):
        texts = [row["text"] for row in part]
        assert count_characters(part) == sum(map(len, texts))
        assert [text for batch, _ in document_batches(part, 77) for text in batch] == texts
        for characters in (100, 5000, 10**6):
            step = -(-sum(map(len, texts)) // characters)
            assert sample_texts(part, characters) == texts[::step]


def test_how_much_is_held_in_memory_changes_no_document(tmp_path, rng, monkeypatch):
    rows = [rng.choice(["가", "나\r\n다", " ", "[1]", "라" * 30]) for _ in range(200)]
    made = []
    for number, (most_rows, most_characters) in enumerate([(10_000, 10_000), (1, 10_000), (3, 10_000), (7, 40)]):
        path = tmp_path / str(number) / "a.jsonl"  # a file of its own, which no cache has
        path.parent.mkdir()
        path.write_text("\n".join("[1]" if row == "[1]" else json.dumps({"text": row}) for row in rows), "utf-8")
        monkeypatch.setattr(corpus, "MOST_ROWS", most_rows)
        monkeypatch.setattr(corpus, "MOST_CHARACTERS", most_characters)
        documents = corpus.read_corpus([path], column="text", skip_bad_rows=True)
        made.append(documents.to_dict())
        assert [text for texts, _ in document_batches(documents, 9) for text in texts] == documents["text"]
    assert made[1:] == made[:1] * 3
    assert made[0]["text"] == [normalise(row)[0] for row in rows if row not in (" ", "[1]")]
    assert (sum(made[0]["skipped"]), sum(made[0]["blank"])) == (rows.count("[1]"), rows.count(" "))


def test_a_txt_that_is_a_table_is_told_with_what_to_call_it(tmp_path):
    names = {"id\tdocument\tlabel": ".tsv", '{"text": "글"}': ".jsonl", "\t들여 쓴 글": None, "글": None, '{"글': None}
    for line, called in names.items():
        path = tmp_path / "ratings.txt"
        path.write_text(f"{line}\n" * 3 + "끝\n" * (called is None), "utf-8")
        documents = corpus.read_corpus([path])
        assert len(documents) == 1
        told = corpus.describe_files(documents, [path])
        assert (f"이름을 {called}" in told) if called else ("표" not in told)


@pytest.mark.parametrize(
    ("text", "called"),
    [
        ('[\n {\n  "text": "글"\n }\n]', "이름을 .json으로"),
        ('{"version": "1", "data": [{"title": "글"}]}', "이름을 .json으로"),
        ('<?xml version="1.0" encoding="UTF-16"?>\n<tei.2>\n<p>글</p>', "HTML이나 XML"),
        ("\n<!DOCTYPE html>\n<html><p>글</p></html>", "HTML이나 XML"),
        ("<SAMI>\n<BODY>\n<SYNC Start=0><P Class=KRCC>\n글", "HTML이나 XML"),
        ('<doc id="5" url="https://ko.wikipedia.org" title="글">\n글\n</doc>', "HTML이나 XML"),
        ("1\n00:00:01,000 --> 00:00:02,500\n글\n", "자막"),
        ("WEBVTT\n\n00:01.000 --> 00:02.500\n글\n", "자막"),
        ('[앵커] "글"이라고 합니다.\n<글>: --> 글\n{글}', None),
        ('["글": 하나]' * 20, None),
    ],
)
def test_a_txt_that_would_be_learnt_with_its_marks_is_told_as_what_it_is(tmp_path, text, called):
    (tmp_path / "a.txt").write_text(text, "utf-8")
    files = [tmp_path / "a.txt"]
    told = corpus.describe_files(corpus.read_corpus(files), files)
    assert ("글이 아니라" in told and called in told) if called else ("글이 아니라" not in told)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv.gz", "a.parquet"])
def test_a_file_that_git_lfs_has_not_fetched_is_refused_with_how_to_fetch_it(tmp_path, name):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    (tmp_path / "b.txt").write_text("글", "utf-8")
    for flag in ("dataset_path", "validation_file"):
        options = parse_train_options([f"--{flag}={tmp_path}", "--do_eval", "--model_type=gpt2"]).text
        with pytest.raises(UserError, match=rf"{name}: git-lfs의 자리표시일 뿐(.|\n)*git lfs pull"):
            corpus.find_texts(options)


def test_where_every_row_is_skipped_that_is_the_reason(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "가"},\n{"text": "나"},\n', "utf-8")
    with pytest.raises(UserError, match=r"행 2개를 건너뛰니.*--skip_bad_rows"):
        corpus.read_corpus([path], skip_bad_rows=True)


def test_a_document_of_which_nothing_is_seen_has_no_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("가\n\n\u200b\n\n나\u200b나\n\n \u200b\u3164\u2060\n\n👨\u200d👩\n", "utf-8")
    documents = corpus.read_corpus([path])
    assert documents["text"] == ["가", "나\u200b나", "👨\u200d👩"]
    assert "글이 없는 행 2개를 뺌" in corpus.describe_files(documents, [path])
