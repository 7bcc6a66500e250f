"""Every file that a path, a folder or a glob means is found once; what is left out is counted."""

import glob
import os
import re
import unicodedata
from pathlib import Path

import pytest

from gpt2_korean.messages import UsageError
from gpt2_korean.text import documents as corpus
from gpt2_korean.text.folders import find_files, find_path, is_same, leave_out


def write(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"글 {name}", "utf-8")


def test_files_folders_and_globs_are_found(tmp_path):
    for name in ("나.txt", "가.jsonl", "b/다.csv.gz", "b/그림.png", "b/.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    names = [path.name for path in find_files(str(tmp_path))]
    assert sorted(names) == ["가.jsonl", "나.txt", "다.csv.gz"]
    assert [path.name for path in find_files(str(tmp_path / "*.txt"))] == ["나.txt"]
    assert find_files(str(tmp_path / "나.txt")) == [tmp_path / "나.txt"]
    for missing in ("없음.txt", "b/그림.png", "*.parquet"):
        with pytest.raises(UsageError, match="--dataset_path"):
            find_files(str(tmp_path / missing))


def test_files_of_other_formats_are_counted_and_a_link_to_nothing_is_refused(tmp_path, capsys):
    write(tmp_path, "a.txt", "b/글.hwp", "글.docx", ".gitkeep")
    assert [path.name for path in find_files(str(tmp_path))] == ["a.txt"]
    assert "읽을 수 없는 형식의 파일 2개" in capsys.readouterr().err
    os.symlink("없음", tmp_path / "link.txt")
    with pytest.raises(UsageError, match="경로를 확인하세요"):
        find_files(str(tmp_path / "link.txt"))


@pytest.mark.parametrize("name", ["글.hwp", "wiki_00", "글.zip"])
def test_what_to_do_with_a_file_that_is_none_of_the_formats_is_told(tmp_path, name):
    write(tmp_path, name)
    for pattern in (tmp_path, tmp_path / name, tmp_path / "*"):
        with pytest.raises(UsageError, match=r"\.parquet(.|\n)*\.zip(.|\n)*\.hwp(.|\n)*이름만 다른 글에는 \.txt를"):
            find_files(str(pattern))


def test_an_address_on_the_internet_is_called_so():
    with pytest.raises(UsageError, match="인터넷 주소"):
        find_files("https://huggingface.co/datasets/wikimedia/wikipedia")


def test_a_name_of_the_hub_leads_to_its_flag_and_a_folder_of_texts_to_none():
    with pytest.raises(UsageError, match=r"--dataset_name=owner/korean-texts, .*경로를 확인하세요"):
        find_files("owner/korean-texts")
    for flag, pattern in (("--validation_file", "owner/texts"), ("--dataset_path", "owner/글"),
                          ("--dataset_path", "owner/a.txt")):  # fmt: skip
        with pytest.raises(UsageError, match="경로를 확인하세요") as refusal:
            find_files(pattern, flag)
        assert "--dataset_name" not in str(refusal.value)


def test_a_folder_that_is_there_is_no_address_whatever_stands_behind_its_drive(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "C:/글/a.txt")
    assert find_files("C://글") == [Path("C:/글/a.txt")]


def test_globs_find_what_the_standard_library_finds(tmp_path, rng):
    write(tmp_path, *(f"{a}/{b}/{c}.txt" for a in "ab" for b in ("c", "ca") for c in "xyz"), "x.txt", "a/y.csv")
    parts = ["*", "**", "a", "c*", "?", "[ac]*", "*.txt", "[!x].txt", "x.txt"]
    for _ in range(300):
        pattern = str(tmp_path / "/".join(rng.choices(parts, k=rng.randint(1, 4))))
        expected = sorted({Path(path) for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)})
        if not expected and not Path(pattern).exists():
            with pytest.raises(UsageError):
                find_files(pattern)
        elif not Path(pattern).is_dir():
            assert find_files(pattern) == expected, pattern


def test_what_a_run_leaves_in_a_folder_of_texts_is_no_text(tmp_path, capsys):
    write(tmp_path, "a.txt", "b/c.jsonl", "b/run.json", "new/_lock", "d/checkpoint-1.txt")
    write(tmp_path, "stopped/run.json", "stopped/checkpoint-1/config.json")
    write(tmp_path, "old/model.safetensors", "old/config.json", "old/adapter/adapter_config.json", ".x/run.json")
    for pattern in (tmp_path, tmp_path / "**/*"):
        assert [path.name for path in find_files(str(pattern))] == ["a.txt", "c.jsonl", "run.json", "checkpoint-1.txt"]
        assert "모델의 폴더 3개를 뺐습니다" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"글이 아니라 모델의 폴더입니다.*--model_type"):
        find_files(str(tmp_path / "old"))


def test_what_a_repository_of_the_hub_says_about_its_texts_is_no_text(tmp_path, capsys):
    write(tmp_path, "data/train-00000-of-00001.parquet", "dataset_infos.json", "README.md", ".gitattributes")
    write(tmp_path, "saved/dataset_dict.json", "saved/train/dataset_info.json", "saved/train/state.json")
    for pattern in (tmp_path, tmp_path / "**/*"):
        assert [path.name for path in find_files(str(pattern))] == ["train-00000-of-00001.parquet"]
        assert "데이터 세트를 설명하는 파일 4개를 뺐습니다" in capsys.readouterr().err
    assert find_files(str(tmp_path / "dataset_infos.json")) == [tmp_path / "dataset_infos.json"]


def test_hidden_files_are_left_out_and_counted_unless_they_are_named(tmp_path, capsys):
    write(tmp_path, "a.txt", ".b.txt", ".ipynb_checkpoints/a.txt", "__MACOSX/a.txt", "c/.git/d.txt", ".gitignore")
    for pattern in (tmp_path, tmp_path / "**/*.txt"):
        assert [path.name for path in find_files(str(pattern))] == ["a.txt"]
        told = capsys.readouterr().err
        assert "숨은 파일 4개" in told and len(told.splitlines()) == 1
    for named in (".b.txt", ".b*", "**/.b*"):
        assert find_files(str(tmp_path / named)) == [tmp_path / ".b.txt"]
    for named, name in ((".ipynb_checkpoints", "a.txt"), ("c/.g*/*", "d.txt"), ("**/__MACOSX/*", "a.txt")):
        assert [path.name for path in find_files(str(tmp_path / named))] == [name]


@pytest.mark.parametrize("pattern", ["", "**/*.txt", "**"])
def test_links_are_followed_once_and_loops_end(tmp_path, capsys, pattern):
    root = tmp_path / "글"
    write(root, "a.txt", "b/c.txt")
    write(tmp_path, "밖/d.txt")
    links = (("b/loop", ".."), ("again", "."), ("a", "b"), ("밖", "../밖"), ("0.txt", "a.txt"), ("gone.txt", "없음"))
    for link, target in links:
        os.symlink(target, root / link)
    found = find_files(str(root / pattern))
    assert found == [root / "a.txt", root / "b/c.txt", root / "밖/d.txt"]
    told = capsys.readouterr().err
    assert "이미 찾은 파일 1개를 뺐습니다" in told and "0.txt" in told
    assert "링크나 특수 파일 1개" in told and "gone.txt" in told


@pytest.mark.parametrize(("made", "typed"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_a_name_is_found_however_its_hangul_is_composed(tmp_path, monkeypatch, made, typed):
    write(tmp_path, unicodedata.normalize(made, "글 모음/한국어.txt"))
    expected = tmp_path / unicodedata.normalize(made, "글 모음/한국어.txt")
    for name in ("글 모음/한국어.txt", "글 모음", "글 모음/한*.txt", "*/한국?.txt", "**/한국어.txt"):
        assert find_files(str(tmp_path / unicodedata.normalize(typed, name))) == [expected], name
        monkeypatch.chdir(tmp_path)
        assert find_files(unicodedata.normalize(typed, name)) == [expected.relative_to(tmp_path)], name
    assert find_path(str(tmp_path / unicodedata.normalize(typed, "글 모음/한국어.txt"))) == expected
    assert find_path(str(tmp_path / "없음")) == tmp_path / "없음"


@pytest.mark.parametrize(("made", "typed"), [("NFC", "NFC"), ("NFD", "NFC"), ("NFC", "NFD")])
def test_a_text_nearly_spelt_as_one_that_is_there_is_told(tmp_path, made, typed):
    there = tmp_path / unicodedata.normalize(made, "글 모음/한국어.txt")
    write(tmp_path, there.relative_to(tmp_path))
    for missing in ("글 모음/한국말.txt", "글모음/한국어.txt"):
        with pytest.raises(UsageError, match=re.escape(f"혹시 {there}인가요?")):
            find_files(str(tmp_path / unicodedata.normalize(typed, missing)))
    for missing in ("글모음/시.txt", "시/한국어.txt"):
        with pytest.raises(UsageError, match=r"그런 파일이나 폴더가 없습니다\. 경로를 확인하세요"):
            find_files(str(tmp_path / missing))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are files on POSIX alone")
def test_a_pipe_is_told_as_one(tmp_path):
    """As a shell's <(xz -dc 글.txt.xz) is: it is there, but a text is read more than once."""
    os.mkfifo(tmp_path / "글.txt")
    with pytest.raises(UsageError, match=r"글\.txt: 파이프나 장치는 읽지 않습니다"):
        find_files(str(tmp_path / "글.txt"))


def test_several_texts_in_one_value_are_told_how_they_are_given(tmp_path):
    for name in ("가.txt", "나.txt", "다,라.txt"):
        (tmp_path / name).write_text("글", "utf-8")
    for mark in (",", ", ", ";"):
        with pytest.raises(UsageError, match=r'여러 파일은 그 폴더나 "글/\*\.txt" 같은 패턴으로'):
            find_files(mark.join([f"{tmp_path}/가.txt", f"{tmp_path}/나.txt"]))
    assert find_files(f"{tmp_path}/다,라.txt") == [tmp_path / "다,라.txt"]
    with pytest.raises(UsageError, match="혹시"):
        find_files(f"{tmp_path}/다,마.txt")


@pytest.mark.parametrize("quotes", ["“”", "‘’", "''", '""'])
def test_a_path_in_quotes_that_no_shell_takes_away_is_told_without_them(tmp_path, quotes):
    write(tmp_path, "글.txt", "'인용'.txt")
    with pytest.raises(UsageError, match=re.escape(f"따옴표를 빼세요: {tmp_path / '글.txt'}") + "$"):
        find_files(f"{quotes[0]}{tmp_path / '글.txt'}{quotes[1]}")
    with pytest.raises(UsageError, match="경로를 확인하세요"):
        find_files(f"{quotes[0]}{tmp_path / '없음.txt'}{quotes[1]}")
    assert find_files(str(tmp_path / "'인용'.txt"))


def test_a_text_that_was_looked_for_from_another_folder_is_told_with_that_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=re.escape(f"경로를 확인하세요(지금 폴더: {os.getcwd()}).") + "$"):
        find_files("data/korean_texts.txt")
    with pytest.raises(UsageError, match=r"경로를 확인하세요\.$"):
        find_files(str(tmp_path / "data/korean_texts.txt"))


def test_a_path_with_brackets_that_is_there_is_no_glob(tmp_path):
    write(tmp_path, "[글] 1/a.txt", "[글] 1/b*.txt", "글/c.txt")
    assert [path.name for path in find_files(str(tmp_path / "[글] 1"))] == ["a.txt", "b*.txt"]
    assert [path.name for path in find_files(str(tmp_path / "[글] 1/b*.txt"))] == ["b*.txt"]
    assert [path.name for path in find_files(str(tmp_path / "[글] 1/?.txt"))] == ["a.txt"]
    assert [path.name for path in find_files(str(tmp_path / "?글? 1/b*.txt"))] == ["b*.txt"]
    write(tmp_path, "글/b[1].txt")
    assert find_files(str(tmp_path / "*/b[1].txt")) == [tmp_path / "글/b[1].txt"]
    with pytest.raises(UsageError, match=r"\[\[\]"):
        find_files(str(tmp_path / "[나] 2/*.txt"))


def test_a_glob_may_lead_upwards(tmp_path, monkeypatch):
    write(tmp_path, "a.txt", "b/c.txt")
    monkeypatch.chdir(tmp_path / "b")
    assert find_files("../*.txt") == [Path("../a.txt")]


def test_a_model_in_a_folder_that_a_glob_does_not_enter_is_not_told(tmp_path, capsys):
    write(tmp_path, "a.txt", "old/model.safetensors", "b/c.txt")
    for pattern in ("*.txt", "b/*.txt"):
        assert len(find_files(str(tmp_path / pattern))) == 1 and not capsys.readouterr().err


def test_of_two_names_that_differ_in_composition_alone_each_means_its_own_file(tmp_path):
    names = [unicodedata.normalize(form, "한국어.txt") for form in ("NFC", "NFD")]
    write(tmp_path, *names)
    if len(list(tmp_path.iterdir())) == 2:  # a Mac's disk has one
        assert [find_path(str(tmp_path / name)).name for name in names] == names


def test_names_that_differ_in_case_alone_are_one_where_the_disk_has_one(tmp_path):
    assert not is_same(tmp_path / "GLE", tmp_path / "gle")  # neither of which is there
    write(tmp_path, "gle")
    assert is_same(tmp_path / "GLE", tmp_path / "gle") == (tmp_path / "GLE").exists()


def test_what_is_told_of_many_files_is_counted_once_and_not_for_each_of_them(tmp_path, monkeypatch):
    write(tmp_path, *(f"{number:04}.txt" for number in range(100)))
    files = find_files(str(tmp_path))
    documents, made = corpus.read_corpus(files), []
    monkeypatch.setattr(corpus, "set", lambda items: made.append(None) or set(items), raising=False)
    assert "파일 100개: UTF-8 100개" in corpus.describe_files(documents, files)
    assert len(made) < 10


def test_empty_files_among_others_are_named_and_all_others_read(tmp_path):
    write(tmp_path, *(f"{number:04}.txt" for number in range(300)))
    for name in ("0100.txt", "a.csv", "b.json", "c.parquet", "d.txt.gz", "e.jsonl.xz"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "0200.txt").write_text(" \n\n\t\n")
    files = find_files(str(tmp_path))
    documents = corpus.read_corpus(files)
    assert documents.num_rows == 298
    told = corpus.describe_files(documents, files)
    assert "파일 305개: UTF-8 298개" in told
    assert "글이 없는 파일 7개" in told and "0100.txt" in told and "0200.txt" in told


def test_what_is_measured_on_is_not_learnt_where_the_folder_has_it_too(tmp_path, capsys):
    write(tmp_path, "a.txt", "b/valid.txt", "c/valid.txt")
    files = find_files(str(tmp_path))
    held_out = find_files(str(tmp_path / "c" / ".." / "b"), "--validation_file")
    assert leave_out(held_out, files) == [tmp_path / "a.txt", tmp_path / "c/valid.txt"]
    assert "--validation_file의 파일 1개는 배우지 않습니다" in capsys.readouterr().err
    assert leave_out(held_out, files[:1]) == files[:1] and not capsys.readouterr().err
    assert leave_out(files, files) == files
    assert "같은 파일" in capsys.readouterr().err


@pytest.mark.parametrize("typed", ["VALID.txt", unicodedata.normalize("NFD", "평가.txt")])
def test_what_is_measured_on_is_not_learnt_by_whatever_name_the_disk_takes_for_it(tmp_path, typed, otherwise_spelt):
    """A Mac's takes names in either case, and their Hangul composed or not."""
    write(tmp_path, "a.txt", name := unicodedata.normalize("NFC", typed).lower())
    files = find_files(str(tmp_path))
    otherwise_spelt(tmp_path / name, tmp_path / typed)
    assert leave_out(find_files(str(tmp_path / typed)), files) == [tmp_path / "a.txt"]
    if not (tmp_path / "A.txt").exists():  # on a disk that tells the two apart
        write(tmp_path, "A.txt")
        assert leave_out([tmp_path / "A.txt"], files) == files


def test_a_run_learns_from_none_of_the_files_that_it_measures_on(tmp_path, run_main):
    (tmp_path / "a.txt").write_text("배우는 글\n", "utf-8")
    (tmp_path / "b.txt").write_text("재는 글\n", "utf-8")
    words = ["--model_type=scratch-mini", "--do_eval", f"--validation_file={tmp_path / 'b.txt'}", "--show_data=2"]
    code, out, _ = run_main("train.py", f"--dataset_path={tmp_path}", *words)
    assert code == 0 and "배우는 글" in out and "학습 글에도 있는 것: 0개" in out
