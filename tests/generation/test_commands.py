"""The commands of an interactive session: what each makes of the texts, the settings and the seed so far."""

import errno
import os
import resource
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2_korean.cli.generate_options import parse_generate_options, parse_setting
from gpt2_korean.generation.commands import COMMANDS, Session
from gpt2_korean.generation.terminal import follow_lines

START = parse_generate_options(["--model_name_or_path=x"]).settings
COMMAND = st.sampled_from(["가", "나 다", "", "/more", "/again", "/undo", "/new", "/set top_k 3", "/zzz"])


def begin(converses=False, ends=False, copies=1):
    """A Session whose texts are numbers in the order in which they were written, and what was asked for each."""
    asked = []

    def write(earlier, turn, settings, seed):
        asked.append((turn.prompt, turn.text, [(each.prompt, each.text) for each in earlier], settings, seed))
        return replace(turn, text=f"{turn.text}<{len(asked)}>", ended=ends, broken=turn.prompt == "멈출 글")

    return Session(write, parse_setting, converses, copies, START, 7), asked


def follow_all(session, *lines):
    """The Session after all of `lines`, of which an exception stands for a key."""
    waiting = iter(lines)

    def read_line():
        line = next(waiting, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    return follow_lines(session, read_line)


def texts(session):
    return [(turn.prompt, turn.text) for turn in session.turns]


def test_an_empty_line_goes_on_with_the_text_as_more_does():
    for more in ("", "  ", "/more"):
        session, asked = begin()
        assert texts(follow_all(session, "가", more, "나", more, more)) == [("가", "<1><2>"), ("나", "<3><4><5>")]
        assert [each[:2] for each in asked] == [("가", ""), ("가", "<1>"), ("나", ""), ("나", "<3>"), ("나", "<3><4>")]


def test_an_empty_line_before_all_others_begins_a_text_from_nothing_but_no_conversation():
    assert texts(follow_all(begin()[0], "")) == [("", "<1>")]
    assert texts(follow_all(begin(converses=True)[0], "", "/more")) == []


def test_an_answer_that_was_cut_goes_on_and_one_that_ended_does_not(capsys):
    assert texts(follow_all(begin(converses=True)[0], "가", "", "나")) == [("가", "<1><2>"), ("나", "<3>")]
    assert texts(follow_all(begin(converses=True, ends=True)[0], "가", "")) == [("가", "<1>")]
    assert "답이 끝났습니다" in capsys.readouterr().err
    assert texts(follow_all(begin(ends=True)[0], "가", "")) == [("가", "<1><2>")]


def test_again_writes_the_last_text_again_or_what_was_added_to_it():
    session, asked = begin()
    assert texts(follow_all(session, "가", "나", "/again", "/again")) == [("가", "<1>"), ("나", "<4>")]
    session, asked = begin()
    assert texts(follow_all(session, "가", "", "/again")) == [("가", "<1><3>")]
    assert len({seed for *_, seed in asked}) == 3


def test_nothing_to_write_again_is_told_in_the_words_of_the_session(capsys):
    for converses, word in ((False, "앞글"), (True, "말")):
        follow_all(begin(converses)[0], "/again")
        assert f" {word}을 먼저 치세요." in capsys.readouterr().err


def test_again_after_new_asks_the_last_prompt_with_nothing_before_it():
    for converses in (False, True):
        session, asked = begin(converses)
        assert texts(follow_all(session, "가", "나", "/new", "/again")) == [("나", "<3>")]
        assert asked[-1][:3] == ("나", "", [])


def test_a_conversation_is_remembered_until_it_is_begun_anew():
    session, asked = begin(converses=True)
    follow_all(session, "가", "나", "/again", "다", "/new", "라")
    first, second = ("가", "<1>"), ("나", "<3>")  # the answer that was written again is forgotten
    assert [earlier for _, _, earlier, _, _ in asked] == [[], [first], [first], [first, second], []]


@given(st.lists(COMMAND, max_size=8), st.booleans())
def test_undo_goes_back_through_all_that_stood_before(lines, converses):
    stood = [begin(converses)[0]]
    for line in (line for line in lines if line != "/undo"):
        after = follow_all(stood[-1], line)
        if after.turns != stood[-1].turns:
            stood.append(after)
    undone = stood[-1]
    for before in reversed(stood[:-1]):
        undone = follow_all(undone, "/undo")
        assert undone.turns == before.turns
    assert follow_all(undone, "/undo").turns == ()


def test_undo_tells_the_end_of_what_is_left(capsys):
    follow_all(begin()[0], "가\n나", "", "라 " * 40, "/undo", "/undo", "/undo", "/undo")
    left = [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines()]
    assert left == ["가 나<1><2>", "가 나<1>", "", ""]
    follow_all(begin(converses=True)[0], "라 " * 40, "나", "/undo")
    assert capsys.readouterr().err == f"되돌렸습니다. 여기까지 있습니다: …{('라 ' * 40 + '<1>')[-60:]}\n"


@given(st.lists(COMMAND, max_size=8), st.integers(0, 2**63 - 1))
def test_the_first_seed_and_what_is_typed_tell_the_seeds_of_all_texts(lines, seed):
    runs = []
    for _ in range(2):
        session, asked = begin()
        follow_all(session, f"/seed {seed}", *lines)
        runs.append([each[-1] for each in asked])
    assert runs[0] == runs[1] and runs[0][:1] in ([], [seed])


def test_a_seed_can_be_seen_and_set_and_a_wrong_one_is_explained(capsys):
    session, asked = begin(copies=2)
    follow_all(session, "가", "/seed 123", "/seed", "/seed -1", "/set seed=9", "나", "/seed x")
    seeds, shown = [seed for *_, seed in asked], capsys.readouterr().err
    assert seeds[0] == 7 and seeds[2] == 9 and len(set(seeds)) == 4
    assert shown.count("다음 글의 시드: 123\n") == 2 and "\nseed: " in shown and "--seed" not in shown


@pytest.mark.parametrize(
    "line", ["top_p 0.5", "top_p=0.5", "--top_p=0.5", "top-p = 0.5", "top_p='0.5'", "top_p   0.5 "]
)
def test_a_setting_may_be_spelt_as_flags_are(line):
    assert follow_all(begin()[0], f"/set {line}").settings == replace(START, top_p=0.5)


def test_settings_are_shown_as_flags_take_them(capsys):
    session = follow_all(begin()[0], r"/set stop \n\n", "/set penalize_prompt", "/set top_p", "/set stop", "/set")
    assert session.settings == replace(START, stop=["\n\n"])
    shown = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert shown[1:4] == ["penalize_prompt = true", "top_p = 1.0", r"stop = \n\n"]
    assert [line.partition(" ")[0] for line in shown[4:]] == list(vars(START))
    assert follow_all(session, "/set stop=").settings == START
    assert follow_all(session, "/set stop=", "/set token_healing", "/set token_healing=").settings == START
    follow_all(begin()[0], "/set stop")
    assert capsys.readouterr().err.endswith("  stop = (없음)\n")
    for words, stop in (("stop=가", "가"), ("stop '가'", "가"), ('stop "', '"'), ('stop="나 "', "나 ")):
        assert follow_all(begin()[0], f"/set {words}").settings == replace(START, stop=[stop])


def test_a_wrong_setting_is_explained_and_changes_nothing(capsys):
    lines = ["/set length 0", "/set temprature 1", "/set top", "/set max_new_tokens=1", "/set zzz", "/set top_p="]
    assert follow_all(begin()[0], *lines).settings == START
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 6 and not any("--" in line for line in shown)
    said = [
        "length: ",
        "혹시 temperature인가요?",
        "top: 그런 설정이 없",
        "여기서는 length입니다",
        "바꿀 수 있는 것",
        "top_p: ",
    ]
    for line, words in zip(shown, said, strict=True):
        assert words in line


def test_every_setting_is_a_flag_of_the_kind_it_starts_with():
    for name, value in vars(START).items():
        if isinstance(value, list):
            assert [parse_setting(name, word) for word in value] == [[word] for word in value]
        elif value is not None:
            assert parse_setting(name, str(value)) == value
    assert parse_setting("penalize_prompt", "false") is False


def test_what_is_no_command_names_the_nearest_one_and_help_names_all(capsys):
    follow_all(begin()[0], "/sett", "/quti", "/exi", "/", "/zzz", "/again", "/undo")
    shown = capsys.readouterr().err.splitlines()
    for line, words in zip(
        shown, ["/set인", "/quit인", "/exit인", "/help로", "/help로", "앞글을 먼저", "되돌릴 것이 없"], strict=True
    ):
        assert words in line
    follow_all(begin()[0], "/help")
    shown = capsys.readouterr().err
    assert all(f"\n  {name}" in shown for name in COMMANDS)


def test_quit_ends_and_ctrl_c_at_a_line_does_not(capsys):
    session, asked = begin()
    follow_all(session, "가", KeyboardInterrupt(), "나", "/quit", "다")
    assert [prompt for prompt, *_ in asked] == ["가", "나"] and "/quit" in capsys.readouterr().err


def test_commands_are_known_as_other_programs_call_them(capsys):
    for more, again, new, end in (("/continue", "/retry", "/clear", "/bye"), ("/more", "/regen", "/reset", "/exit")):
        assert texts(follow_all(begin()[0], "가", more, again, end, "나")) == [("가", "<1><3>")]
        assert texts(follow_all(begin()[0], "가", new)) == []
    capsys.readouterr()
    follow_all(begin()[0], "/?")
    assert "\n  /more" in capsys.readouterr().err


def test_a_prompt_of_several_lines_is_one_without_the_line_ends_behind_it():
    assert texts(follow_all(begin()[0], "첫째\n둘째\n\n")) == [("첫째\n둘째", "<1>")]


def test_each_prompt_is_given_as_many_texts_as_are_wanted_unless_one_is_stopped():
    session, asked = begin(copies=3)
    assert texts(follow_all(session, "가", "", "멈출 글")) == [("가", "<3><6>"), ("멈출 글", "<7>")]
    assert [text for _, text, *_ in asked] == ["", "", "", "<3>", "<3>", "<3>", ""]


def test_what_was_written_is_saved_and_nothing_of_others_is_overwritten(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "남의 글.txt"
    other.write_text("남의 글", "utf-8")
    session = follow_all(begin()[0], "/save 없음.txt", "가\n나", "", "다", "/save", f"/save {other}", "/save 글.txt")
    assert (tmp_path / "글.txt").read_text("utf-8") == "가\n나<1><2>\n\n다<3>\n"
    assert other.read_text("utf-8") == "남의 글" and not (tmp_path / "없음.txt").exists()
    shown = capsys.readouterr().err
    assert "저장할 것이 없습니다" in shown and "파일 이름도" in shown and f"/save! {other}" in shown

    session = follow_all(session, "라", "/save 글.txt", f'/save! "{other}"', "/save 없는/글.txt", "/save .", "/save! .")
    assert (tmp_path / "글.txt").read_text("utf-8") == other.read_text("utf-8") == "가\n나<1><2>\n\n다<3>\n\n라<4>\n"
    shown = capsys.readouterr().err
    assert shown.count("덮어썼습니다") == 2 and shown.count("폴더를 먼저") == 1 and "없는/글.txt" in shown
    assert shown.count("파일이 아니라 폴더입니다 (.)") == 2 and "/save! ." not in shown


@pytest.mark.parametrize("command", ["/save", "/save!"])
def test_a_disk_that_is_full_costs_nothing_that_was_saved(tmp_path, capsys, monkeypatch, command):
    path = tmp_path / "글.txt"
    session = follow_all(begin()[0], "가", f"/save {path}")

    def fail(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fail)
        session = follow_all(session, "나", f"{command} {path}")
    assert path.read_text("utf-8") == "가<1>\n" and [*tmp_path.iterdir()] == [path]
    shown = capsys.readouterr().err
    assert "남은 공간이 없습니다" in shown and str(path) in shown.splitlines()[-1]
    path.chmod(0o640)
    path.rename(tmp_path / "옮긴 글.txt")
    path.symlink_to(tmp_path / "옮긴 글.txt")
    follow_all(session, f"/save! {path}")
    assert path.is_symlink() and path.read_text("utf-8") == "가<1>\n\n나<2>\n" and path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("command", ["/save", "/save!"])
def test_a_new_file_that_a_full_disk_cuts_is_not_left_and_its_name_stays_free(tmp_path, monkeypatch, command):
    path = tmp_path / "글.txt"
    session, limits = follow_all(begin()[0], "가" * 100), resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr("gpt2_korean.generation.terminal.say", lambda _: None)  # its file would be limited too
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        session = follow_all(session, f"{command} {path}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [*tmp_path.iterdir()]
    follow_all(session, f"/save {path}")
    assert path.read_text("utf-8") == "가" * 100 + "<1>\n"


def test_all_texts_of_a_prompt_are_saved(tmp_path):
    lines = ["가", "", "/new", "나", "다", "/again", f"/save {tmp_path / '글'}"]
    follow_all(begin(copies=2)[0], *lines, "/undo", "/undo", "/undo", "/undo", f"/save {tmp_path / '처음'}")
    assert (tmp_path / "글").read_text("utf-8") == "나<5>\n\n나<6>\n\n다<9>\n\n다<10>\n"
    assert (tmp_path / "처음").read_text("utf-8") == "가<1>\n\n가<2><3>\n\n가<2><4>\n"


@pytest.mark.parametrize("name", ["가" * 200, "글\0.txt", "~아무개/글.txt"])
def test_a_name_that_cannot_be_saved_under_ends_no_session(tmp_path, capsys, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    session = follow_all(begin()[0], "가", f"/save {name}", "나", "/save ~초고.txt")
    assert Path("~초고.txt").read_text("utf-8") == "가<1>\n\n나<2>\n" and len(session.turns) == 2
    assert capsys.readouterr().err.count("저장했습니다") == 1


def test_a_conversation_is_saved_with_who_said_what(tmp_path):
    follow_all(begin(converses=True)[0], "안녕", "", "또", f"/save {tmp_path / '대화'}")
    assert (tmp_path / "대화").read_text("utf-8") == "나: 안녕\n모델: <1><2>\n\n나: 또\n모델: <3>\n"
