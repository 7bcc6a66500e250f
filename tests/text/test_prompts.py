"""Prompts come from flags, from a file or through a pipe, and are normalised as training texts are."""

import contextlib
import gzip
import lzma
import os
import unicodedata
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, models, processors

from gpt2_korean.messages import UsageError, UserError
from gpt2_korean.text import opening
from gpt2_korean.text.prompts import encode_prompts, find_prompts, read_prompts, sample_prompts

NONE = SimpleNamespace(prompt=None, prompt_file=None)


@pytest.fixture
def pipe(monkeypatch):
    """Have stdin be a pipe with these bytes in it."""

    def fill(content):
        reading, writing = os.pipe()
        with open(writing, "wb") as file:
            file.write(content)
        monkeypatch.setattr("sys.stdin", opened.enter_context(os.fdopen(reading, encoding="utf-8")))

    with contextlib.ExitStack() as opened:
        yield fill


def test_a_line_that_no_memory_holds_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "LONGEST_LINE", 1000)
    path = tmp_path / "앞글.txt.gz"
    path.write_bytes(gzip.compress(b"a\n" + b"a" * 9000))
    with pytest.raises(UserError, match="2번째 줄이 1,000자보다 길어"):
        read_prompts(None, str(path))


@pytest.mark.parametrize("name", ["앞글.txt", "앞글.txt.gz", "앞글.txt.xz", "앞글", "앞글.md", "앞글.gz"])
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "cp949"])
def test_a_prompt_file_is_read_as_a_text_file_is(tmp_path, name, codec):
    path = tmp_path / name
    compress = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
    path.write_bytes(compress("오늘은\r\n\r\n \n옛날 어느\x0b마을에".encode(codec)))
    assert read_prompts(None, str(path)) == ["오늘은", "옛날 어느", "마을에"]
    assert sample_prompts(str(path)) == ["오늘은", "옛날 어느", "마을에"]
    assert read_prompts(None, unicodedata.normalize("NFD", str(path))) == ["오늘은", "옛날 어느", "마을에"]


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.tsv.gz", "a.jsonl", "a.json.xz"])
def test_a_table_of_prompts_is_refused_by_its_flag(tmp_path, name):
    (tmp_path / name).write_bytes(b"text\n")
    for flag in ("--prompt_file", "--sample_prompts"):
        with pytest.raises(UsageError, match=f"{flag}=.*{name}.*한 줄에 하나씩"):
            read_prompts(None, str(tmp_path / name), flag)


@pytest.mark.parametrize(("content", "why"), [(None, "그런 파일이 없습니다"), ("\n \n", "앞글이 없습니다")])
def test_a_file_without_prompts_is_refused(tmp_path, content, why):
    path = tmp_path / "앞글.txt"
    if content:
        path.write_text(content, "utf-8")
    with pytest.raises(UsageError, match=f"--prompt_file=.*{why}"):
        read_prompts(None, str(path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has none")
def test_a_pipe_of_prompts_is_refused_as_such(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match=r"--prompt_file=.*pipe: 파이프는"):
        read_prompts(None, str(tmp_path / "pipe"))


def test_a_refusal_names_no_flag_that_generate_lacks(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xff\xff")
    with pytest.raises(UserError, match="0번째 바이트부터") as refusal:
        read_prompts(None, str(tmp_path / "a.txt"))
    assert "--" not in str(refusal.value)


def test_what_is_piped_in_is_the_prompt_where_none_is_given(pipe):
    pipe("\ufeff오늘은\n내일은 \r\n".encode())
    assert find_prompts(NONE) == ["오늘은\n내일은 "]
    for given in (["가"], [""]):
        pipe("오늘은".encode())
        assert find_prompts(SimpleNamespace(prompt=given, prompt_file=None)) == given
    pipe("오늘은".encode())
    assert find_prompts(NONE, takes_piped=False) == [""]
    pipe("오늘은".encode("cp949"))
    with pytest.raises(UserError, match="표준 입력의 0번째 바이트"):
        find_prompts(NONE)


def test_an_empty_or_closed_stdin_is_no_prompt(pipe, monkeypatch):
    for content in (b"", b"\n", b" \r\n"):
        pipe(content)
        assert find_prompts(NONE) == [""]
    with open(os.devnull, encoding="utf-8") as null:
        monkeypatch.setattr("sys.stdin", null)
        assert find_prompts(NONE) == [""]
    for closed in (null, None):
        monkeypatch.setattr("sys.stdin", closed)
        assert find_prompts(NONE) == [""]


def test_generate_continues_what_is_piped_into_it(pipe, run_main, tiny_model_folder):
    words = [f"--model_name_or_path={tiny_model_folder}", "--device=cpu", "--length=3", "--temperature=0"]
    pipe("오늘은\n".encode())
    piped = run_main("generate.py", *words)
    assert piped[0] == 0 and piped[1].startswith("오늘은")
    assert piped[1] == run_main("generate.py", *words, "--prompt=오늘은")[1]


def test_no_end_of_text_stands_between_a_prompt_and_what_continues_it():
    backend = Tokenizer(models.WordLevel({"[CLS]": 0, "[SEP]": 1, "가": 2, "[UNK]": 3}, unk_token="[UNK]"))
    backend.add_special_tokens(["[CLS]", "[SEP]"])
    backend.post_processor = processors.TemplateProcessing(  # as of BERT, which Korean GPT models have too
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    assert encode_prompts(["가", ""], backend, 1) == [[0, 2], [0]]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 0)])
    assert encode_prompts(["가"], backend, 2) == [[0, 2]]  # which the prompt itself ends with, where that is a word
    backend.post_processor = processors.TemplateProcessing(single="[SEP] $A", special_tokens=[("[SEP]", 1)])
    assert encode_prompts(["가", ""], backend, 1) == [[1, 2], [1]]  # as training leaves it: the end is the beginning
