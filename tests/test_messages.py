"""What a user reads is told in whole words and right Korean, without anybody's secrets."""

import errno
import os
import unicodedata
from datetime import timedelta

import hypothesis.strategies as st
import pytest
from conftest import ROOT
from hypothesis import given

from gpt2_korean import messages


@pytest.mark.parametrize("debug", [None, "0", "1"])
def test_a_failure_that_ends_nothing_shows_its_traceback_where_that_is_asked_for(monkeypatch, capsys, debug):
    monkeypatch.setenv("GPT2_KOREAN_DEBUG", debug) if debug else monkeypatch.delenv("GPT2_KOREAN_DEBUG", raising=False)
    try:
        {}["a name that hf_abcdefghijklmnopqrstuvwxyz is not"]
    except KeyError as error:
        messages.warn_of_failure(error, "조금 느리게 합니다")
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("주의: 조금 느리게 합니다\n")
    assert ("Traceback" in err and "test_messages.py" in err) == (debug == "1")
    assert len(err.splitlines()) == 1 or debug == "1"
    assert "hf_abc" not in err


def test_a_rank_that_never_came_is_no_fault_of_ours():
    """As of a node whose text is not there: half an hour later that is what the others meet."""
    from torch.distributed import TCPStore

    with pytest.raises(RuntimeError) as never_joined:
        TCPStore("127.0.0.1", 0, 2, is_master=True, timeout=timedelta(seconds=2))  # that of its own connection too
    store = TCPStore("127.0.0.1", 0, 1, is_master=True)
    store.set_timeout(timedelta(seconds=0.2))
    with pytest.raises(RuntimeError) as never_spoke:
        store.get("of the other rank")
    for failure in (never_joined, never_spoke):
        assert messages.is_of_lost_rank(failure.value), failure.value


def test_a_broken_pipe_is_no_lost_rank_and_memory_may_be_refused_by_the_system():
    assert not messages.is_of_lost_rank(BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)))
    assert messages.is_out_of_memory(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)))
    assert not messages.is_out_of_memory(OSError(errno.ENOSPC, "Cannot allocate memory"))


@pytest.mark.parametrize("name", ["한글 각.txt", "é", "漢ab"])
def test_a_name_takes_as_many_columns_however_it_is_composed(name):
    wide = sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in name)
    assert {messages.width(unicodedata.normalize(form, name)) for form in ("NFC", "NFD")} == {wide}


def test_no_name_of_others_moves_the_cursor_or_writes_a_title_or_the_clipboard(capsys):
    name = "\x1b]52;c;eA==\x07\x9b2J\r"
    messages.say(f"{name}\t글\n글")
    messages.say_error(name)
    spelled = r"\x1b]52;c;eA==\x07\x9b2J\r"
    assert capsys.readouterr().err == f"{spelled}\t글\n글\n오류: {spelled}\n"


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ESTALE, "네트워크 드라이브"), (errno.ENOLCK, "잠금"), (errno.EFBIG, "FAT32")]
)
def test_what_a_drive_refuses_is_told_in_korean_with_the_file_where_there_is_one(number, reason):
    told = messages.describe_os_error(OSError(number, os.strerror(number)))
    assert reason in told and not told.endswith(")")
    assert messages.describe_os_error(OSError(number, os.strerror(number), "글.txt")) == f"{told} (글.txt)"


def test_the_korean_name_of_a_file_can_be_read_where_a_library_names_it_by_bytes():
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fsencode("logs/모델/events"))
    assert messages.describe_os_error(error).endswith(" (logs/모델/events)")


def test_a_name_that_the_disk_does_not_take_is_told_with_the_letters_to_leave_out():
    error = OSError(errno.EINVAL, os.strerror(errno.EINVAL), "실험: 1")
    assert ': ? * " < > |' in messages.describe_os_error(error) and "(실험: 1)" in messages.describe_os_error(error)
    assert messages.os_reason(OSError(errno.EINVAL, os.strerror(errno.EINVAL))) == os.strerror(errno.EINVAL)


def test_of_a_long_error_the_first_line_that_says_something_is_told():
    assert messages.first_line(ValueError(" \n\n  shapes differ \n at 3")) == "shapes differ"
    assert messages.first_line(ValueError("a" * 301)) == "a" * 299 + "…"


def test_an_error_whose_own_message_fails_is_told_by_its_kind():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    assert messages.describe_error(Mute()) == "Mute: "


def test_short_values_of_the_environment_hide_nothing(monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("KEY", "1")
    assert messages.hide_secrets("--torch_compile=false 10") == "--torch_compile=false 10"


def test_nothing_is_left_of_a_key_that_begins_with_another(monkeypatch):
    monkeypatch.setenv("OUR_KEY", "z-korean")
    monkeypatch.setenv("THEIR_KEY", "z-korean-2026")
    assert messages.hide_secrets("z-korean-2026 z-korean") == "*** ***"


def test_what_is_wrong_with_a_key_is_told_in_whole_words():
    for name, told in (("--api_key", "값이 필요합니다."), ("GPT2_KOREAN_API_KEY", "빈칸 없는 키를 주세요.")):
        assert messages.hide_secrets(f"{name}: {told} api_key: s3cret") == f"{name}: {told} api_key: ***"


PAIRS = st.sampled_from(["은/는", "이/가", "을/를", "과/와", "이나/나", "이라는/라는", "으로/로", "으로서/로서"])
# The last syllable of the Korean name of each: 영, 일, 이, …; 에이, 비, 시, …; 퍼센트.
SIGNS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ%"
NAMES = dict(zip(SIGNS, "영일이삼사오육칠팔구이비시디이프지치이이이엘엠엔오피큐알스티유이유스이트트", strict=True))


def follows(pair, syllable):
    """The particle after a Hangul syllable, by the letters that Unicode takes it apart into."""
    after_consonant, after_vowel = pair.split("/")
    last = unicodedata.normalize("NFD", syllable)[-1]
    final = last if "\u11a8" <= last <= "\u11c2" else None
    return after_vowel if final is None or (final == "\u11af" and after_consonant[:2] == "으로") else after_consonant


@given(st.text(max_size=5), st.integers(ord("가"), ord("힣")).map(chr), st.text("'\")]}>」』”’…/", max_size=3), PAIRS)
def test_a_particle_follows_the_last_syllable_through_quotes_and_brackets(start, syllable, end, pair):
    for form in ("NFC", "NFD"):
        word = start + unicodedata.normalize(form, syllable) + end
        assert messages.particle(word, pair) == word + follows(pair, syllable)


@given(st.text(max_size=5), st.sampled_from(sorted(NAMES)), st.booleans(), PAIRS)
def test_a_particle_follows_the_name_of_the_last_digit_or_letter(start, sign, small, pair):
    word = start + (sign.lower() if small else sign)
    assert messages.particle(word, pair) == word + follows(pair, NAMES[sign])


@given(st.sampled_from(["", "'", "é", "漢", "🙂", "…"]), PAIRS)
def test_both_particles_stand_where_nobody_knows_the_sound(word, pair):
    both = {"은/는": "은(는)", "이/가": "이(가)", "을/를": "을(를)", "과/와": "과(와)", "이나/나": "(이)나",
            "이라는/라는": "(이)라는", "으로/로": "(으)로", "으로서/로서": "(으)로서"}  # fmt: skip
    assert messages.particle(word, pair) == word + both[pair]


def test_particles_of_words_that_messages_name():
    said = [
        messages.particle(word, "은/는") for word in ["1024", "checkpoint-20", "'7'", "--top_p", "모델", "XPU(없음)"]
    ]
    assert said == ["1024는", "checkpoint-20은", "'7'은", "--top_p는", "모델은", "XPU(없음)은"]
    assert [messages.particle(word, "으로/로") for word in ["1", "서울", "집", "20"]] == [
        "1로",
        "서울로",
        "집으로",
        "20으로",
    ]


@pytest.mark.parametrize("pair", ["은(는)", "이(가)", "을(를)", "과(와)", "(으)로", "(이)나", "(이)라"])
def test_no_message_leaves_the_particle_to_its_reader(pair):
    files = [path for path in (ROOT / "gpt2_korean").rglob("*") if path.suffix in (".py", ".js", ".html")]
    assert [path.name for path in files if pair in path.read_text("utf-8")] == []
