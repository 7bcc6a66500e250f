"""What is kept of a text or a model for the next start."""

import errno
import os
import shutil
from pathlib import Path

import datasets
import pyarrow
import pytest

from gpt2_korean.messages import Stopped, UserError
from gpt2_korean.text import cache
from gpt2_korean.text.cache import cached_dataset, keep_file


@pytest.mark.parametrize("ended_by", [KeyboardInterrupt(), Stopped(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
def test_half_of_a_file_that_was_to_be_kept_is_left_nowhere(tmp_path, ended_by, capsys):
    def write(unfinished):
        unfinished.write_text("반")
        raise ended_by

    path = tmp_path / "made" / "vocabulary.json"
    if isinstance(ended_by, OSError):
        keep_file(path, write, "간직하지 못했습니다")
        assert "간직하지 못했습니다" in capsys.readouterr().err
    else:
        with pytest.raises(type(ended_by)):
            keep_file(path, write, "")
    assert not list(path.parent.iterdir())


def test_who_keeps_the_same_at_the_same_time_does_not_write_into_the_others_file(tmp_path, capsys):
    """As containers do that share a cache, each of whose processes is number 1 of its own."""
    path = tmp_path / "weights.openvino"

    def write(unfinished):
        unfinished.write_text("하나", "utf-8")
        keep_file(path, lambda other: other.write_text("둘", "utf-8"), "간직하지 못했습니다")
        with unfinished.open("a", encoding="utf-8") as file:
            file.write("의 나머지")

    keep_file(path, write, "간직하지 못했습니다")
    assert path.read_text("utf-8") == "하나의 나머지"
    assert [*tmp_path.iterdir()] == [path] and capsys.readouterr().err == ""


def make_tables(texts):
    for text in texts:
        yield pyarrow.table({"text": [text]})


def empty_from_the_second_row(path):
    """As a power cut leaves a file whose size was on the disk, and of what was written not all."""
    content = path.read_bytes()
    second = content.index(b"\xff\xff\xff\xff", content.index("하나".encode()))
    path.write_bytes(content[:second] + bytes(len(content) - second))


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("cache-train.arrow", os.unlink),
        ("cache-train.arrow", lambda path: os.truncate(path, 0)),
        ("cache-train.arrow", lambda path: os.truncate(path, path.stat().st_size // 2)),
        ("cache-train.arrow", empty_from_the_second_row),
        ("dataset_info.json", os.unlink),
        ("dataset_info.json", lambda path: os.truncate(path, 0)),
    ],
)
def test_a_cache_that_lost_a_file_or_part_of_one_is_made_anew(tmp_path, monkeypatch, name, spoil):
    """Clusters clear files away one by one that nobody has read for weeks."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    texts = {"texts": ["하나", "둘", "셋"]}
    made = cached_dataset(make_tables, texts, "글", rows=1)
    [spoilt] = tmp_path.rglob(name)
    spoil(spoilt)
    again = cached_dataset(make_tables, texts, "글", rows=1)
    assert again["text"][:] == texts["texts"] and again._fingerprint == made._fingerprint  # by which others are made


def test_a_file_that_cannot_be_read_is_no_cache_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)

    def tables(name):
        raise OSError(errno.EIO, os.strerror(errno.EIO), name)
        yield

    with pytest.raises(OSError, match=r"글\.txt") as refusal:  # a UserError is none
        cached_dataset(tables, {"name": "글.txt"}, "글")
    assert refusal.value.errno == errno.EIO
    with pytest.raises(UserError, match=f"{tmp_path}.*\n.*HF_DATASETS_CACHE"):
        cached_dataset(tables, {"name": None}, "글")


def test_the_librarys_bars_are_not_shown_beside_ours_and_are_there_for_others(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)

    def tables(shown):
        shown.append(datasets.are_progress_bars_disabled())
        yield from make_tables(["하나"])

    shown = []
    cached_dataset(tables, {"shown": shown}, "글")
    assert shown == [True] and not datasets.are_progress_bars_disabled()


def test_whatever_is_changed_in_the_code_that_reads_texts_it_is_other_code(tmp_path, monkeypatch):
    copy = shutil.copytree(Path(cache.__file__).parent, tmp_path / "text")
    before = {cache.hash_code()}
    monkeypatch.setattr(cache, "__file__", str(copy / "cache.py"))
    assert {cache.hash_code()} == before
    for number, file in enumerate(sorted(copy.glob("*.py")), 1):
        file.write_bytes(file.read_bytes() + b"#")
        before.add(cache.hash_code())
        assert len(before) == number + 1, file.name


def test_what_other_code_has_made_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    first = cached_dataset(make_tables, {"texts": ["하나"]}, "글")
    assert cached_dataset(make_tables, {"texts": ["둘"]}, "글")["text"][:] == ["하나"]
    monkeypatch.setattr(cache, "hash_code", lambda: "of another version")
    assert cached_dataset(make_tables, {"texts": ["둘"]}, "글")["text"][:] == ["둘"] and first["text"][:] == ["하나"]
