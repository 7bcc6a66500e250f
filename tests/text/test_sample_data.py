"""The texts that come with the project are whole, and what is said of them holds."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import unicodedata

import pytest
from conftest import ROOT

from gpt2_korean.cli.generate_options import parse_generate_options
from gpt2_korean.cli.train_options import parse_train_options
from gpt2_korean.text import documents as corpus

DATA = ROOT / "data"
LEARNT = 4  # so many of the demo's questions stand in the data, the others do not


@pytest.fixture(scope="module")
def conversations():
    lines = (DATA / "conversations.jsonl").read_text("utf-8").splitlines()
    return [[(turn["role"], turn["content"]) for turn in json.loads(line)["messages"]] for line in lines]


def test_every_conversation_is_recognised_and_none_is_broken(conversations):
    path = DATA / "conversations.jsonl"
    read = corpus.read_corpus([path])
    assert [[(turn["role"], turn["content"]) for turn in turns] for turns in read["turns"]] == conversations
    told = corpus.describe_files(read, [path])
    assert f"대화 {len(conversations):,}개 (messages)" in told and "잘못된" not in told


def test_users_ask_and_the_model_answers_in_whole_polite_sentences(conversations):
    for turns in conversations:
        roles, contents = zip(*turns, strict=True)
        assert roles == ("user", "assistant") * (len(turns) // 2) and len(turns) <= 14
        for content in contents:
            assert content == unicodedata.normalize("NFC", content).strip() and "  " not in content
        for answer in contents[1::2]:
            assert re.search(r"(요|죠|네)[.?!]$", answer), answer


def test_nothing_is_said_twice_and_many_conversations_have_several_turns(conversations):
    assert len(set(map(tuple, conversations))) == len(conversations)
    asked_once = [turns[0][1] for turns in conversations if len(turns) == 2]
    assert len(set(asked_once)) == len(asked_once) >= 200
    assert len(conversations) - len(asked_once) >= len(conversations) / 2  # as much as half have is remembered


def test_the_demo_tells_truly_what_it_learns_by_heart(conversations):
    asked = {content for turns in conversations for role, content in turns if role == "user"}
    questions = (DATA / "demo_questions.txt").read_text("utf-8").splitlines()
    assert [question in asked for question in questions] == [True] * LEARNT + [False] * (len(questions) - LEARNT)
    makefile, readme = ((ROOT / name).read_text("utf-8") for name in ("Makefile", "data/README.md"))
    assert f"대화 {len(conversations):,}개" in makefile and f"대화 {len(conversations):,}개" in readme
    assert f"질문 {len(questions)}개에" in makefile and f"앞의 {LEARNT}개" in makefile
    assert f"뒤의 {len(questions) - LEARNT}개" in makefile


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_every_command_of_the_demo_and_those_that_it_names_are_accepted(monkeypatch):
    monkeypatch.chdir(ROOT)
    done = subprocess.run(["make", "-n", "demo"], capture_output=True, text=True, check=True).stdout
    lines = [shlex.split(line) for line in done.replace("\\\n", " ").splitlines()]
    named = [shlex.split(word) for words in lines for word in words if ".py --" in word]
    scripts = {"train.py": parse_train_options, "generate.py": parse_generate_options}
    commands = [words for words in lines + named if words[1:] and words[1] in scripts]
    assert [words[1] for words in commands] == ["train.py", *["generate.py"] * 3, "train.py"]
    for words in commands:
        scripts[words[1]](words[2:])


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_with_an_old_python_tells_how_to_name_another(tmp_path, target):
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    for name in ("requirements.txt", "requirements-serve.txt", "requirements-dev.txt"):
        (tmp_path / name).touch()
    old = f"PYTHON={shlex.quote(sys.executable)} -c 'import sys; sys.version_info = (3, 9); exec(sys.argv[2])'"
    done = subprocess.run(["make", target, old], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode and f"make {target} PYTHON=python3.12" in done.stderr, done.stderr
    assert [*tmp_path.glob(".*")] == []


NESTED = {
    '"document", ["form"]': {"document": [{"paragraph": [{"id": "1", "form": "첫째"}, {"form": "둘째"}]}, {}]},
    '"documents", ["sentence"]': {"documents": [{"text": [[{"sentence": "첫째"}], [{"sentence": "둘째"}]]}, {}]},
    '"", ["HS01", "SS01"]': [{"id": "1", "talk": {"content": {"HS01": "첫째", "SS01": "둘째", "HS02": ""}}}, {}],
    '"data", ["article"]': {"data": [{"id": "1", "article": ["첫째", "둘째"]}, {"article": None}]},
}


@pytest.mark.parametrize("names", NESTED)
def test_the_program_that_takes_texts_out_of_nested_json_does_so(tmp_path, monkeypatch, names):
    (tmp_path / "받은 폴더").mkdir()
    (tmp_path / "받은 폴더" / "NWRW1.json").write_text(json.dumps(NESTED[names]), "utf-8-sig")
    monkeypatch.chdir(tmp_path)
    program = re.search("```python\n(.*?)```", (ROOT / "data/README.md").read_text("utf-8"), re.DOTALL)[1]
    exec(program.replace('"document", ["form"]', names), {})
    rows = (tmp_path / "글.jsonl").read_text("utf-8").splitlines()
    assert list(map(json.loads, rows)) == [{"text": "첫째\n둘째"}, {"text": ""}]


@pytest.mark.parametrize("ending", [".srt", ".vtt", ".smi", ".txt"])
def test_the_program_that_leaves_the_text_of_subtitles_alone_does_so(tmp_path, monkeypatch, ending):
    subtitles = {
        ".srt": "\ufeff1\r\n00:00:01,000 --> 00:00:02,500\r\n<i>첫째</i>\r\n\r\n2\r\n00:00:03,000 --> 00:00:04,000\r\n"
        "둘째",
        ".vtt": "WEBVTT\n\n00:01.000 --> 00:02.500 align:start\n첫째\n\n00:03.000 --> 00:04.000\n둘째\n",
        ".txt": "<?xml version='1.0'?>\n<tei.2>\n<body>\n<p>첫째</p>\n<p>둘째</p>\n</body>\n</tei.2>",
        ".smi": "<SAMI>\n<STYLE><!--\nP {color: white}\n--></STYLE><BODY>\n<SYNC Start=0><P Class=KRCC>\n첫째<BR>둘째"
        "<br>\n<SYNC Start=900><P Class=KRCC>&nbsp;\n</BODY></SAMI>",
    }
    (tmp_path / "받은 폴더").mkdir()
    (tmp_path / "받은 폴더" / f"a{ending}").write_text(subtitles[ending], "utf-8", newline="")
    monkeypatch.chdir(tmp_path)
    program = re.search("```python\n(.*?)```", (ROOT / "docs/data.md").read_text("utf-8"), re.DOTALL)[1]
    exec(program.replace('".srt"', f'"{ending}"'), {})
    assert (tmp_path / "받은 폴더" / f"a{ending}.txt").read_text("utf-8") == "첫째\n둘째"
    assert (tmp_path / "받은 폴더" / f"a{ending}").read_bytes().decode() == subtitles[ending]
