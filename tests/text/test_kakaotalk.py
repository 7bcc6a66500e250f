"""A chat that KakaoTalk exported is learnt as the conversations that it is, and what is left out of it is counted."""

import csv
import io
import re
from datetime import datetime, timedelta
from itertools import groupby
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2_korean.messages import UsageError
from gpt2_korean.text import documents as corpus
from gpt2_korean.text.kakaotalk import has_words, is_export, is_table, read_export, read_table, split_conversations

NAMES = ["민수", "지영 (회사)", "[팀장] 박", "a:b"]
LINES = st.text(st.sampled_from("가나다 ㅋ?!,:[]()1오전후"), min_size=1, max_size=12).map(str.strip).filter(bool)
TEXTS = st.lists(LINES, min_size=1, max_size=3).map("\n".join)
MESSAGES = st.lists(st.tuples(st.integers(0, 400), st.sampled_from(NAMES), TEXTS), min_size=1, max_size=12)
BEGINNING = datetime(2026, 10, 31, 20, 0)


def with_times(messages):
    time = BEGINNING
    for minutes, name, text in messages:
        time += timedelta(minutes=minutes)
        yield time, name, text


def clock(time, in_halves):
    half = f"{'오전' if time.hour < 12 else '오후'} {(time.hour - 1) % 12 + 1}" if in_halves else f"{time.hour}"
    return f"{half}:{time.minute:02}"


def weekday(day):
    return f"{'월화수목금토일'[day.weekday()]}요일"


def windows(messages, in_halves):
    yield "지영 님과 카카오톡 대화\n저장한 날짜 : 2026-11-01 15:12:33\n\n"
    for day, said in groupby(messages, lambda message: message[0].date()):
        yield f"--------------- {day.year}년 {day.month}월 {day.day}일 {weekday(day)} ---------------\n"
        for time, name, text in said:
            yield f"[{name}] [{clock(time, in_halves)}] {text}\n"


def android(messages, in_halves):
    yield "우리 반 3 카카오톡 대화\n저장한 날짜 : 2026년 11월 1일 오후 3:12\n\n\n"
    for day, said in groupby(messages, lambda message: message[0].date()):
        yield f"{day.year}년 {day.month}월 {day.day}일 {clock(BEGINNING, in_halves)}\n"
        for time, name, text in said:
            yield f"{day.year}년 {day.month}월 {day.day}일 {clock(time, in_halves)}, {name} : {text}\n"


def ios(messages, in_halves, write_day="{0.year}. {0.month}. {0.day}."):
    yield "Talk_2026.11.1 15:12-1.txt\r\n저장한 날짜 : 2026. 11. 1. 오후 3:12\r\n\r\n\r\n"
    for day, said in groupby(messages, lambda message: message[0].date()):
        yield f"{day.year}년 {day.month}월 {day.day}일 {weekday(day)}\r\n"
        for time, name, text in said:
            yield f"{write_day.format(day)} {clock(time, in_halves)}, {name} : {text}\r\n"


def ios_where_dates_have_dashes(messages, in_halves):
    yield from ios(messages, in_halves, "{0:%Y-%m-%d}")


@given(MESSAGES, st.sampled_from([windows, android, ios, ios_where_dates_have_dashes]), st.booleans())
def test_every_message_is_read_whole_with_its_time_and_name(messages, write, in_halves):
    messages = list(with_times(messages))
    lines = "".join(write(messages, in_halves)).splitlines(keepends=True)
    assert is_export(lines)
    assert read_export(lines) == messages


@given(MESSAGES, st.sampled_from(NAMES))
def test_no_message_between_a_question_and_its_answer_is_lost(messages, answer_as):
    messages = list(with_times(messages))
    if answer_as not in {name for _, name, _ in messages}:
        with pytest.raises(UsageError, match=re.escape(f"--answer_as={answer_as}")):
            split_conversations(messages, answer_as)
        return
    conversations, alone = split_conversations(messages, answer_as)
    # One message at a time: whether somebody else wrote at or before it, and the one at or behind it, of one talk.
    talks = []
    for number, message in enumerate(messages):
        if number == 0 or (message[0] - messages[number - 1][0]).total_seconds() >= 3 * 60 * 60:
            talks.append([])
        talks[-1].append(message)
    kept = [
        [
            text
            for number, (_, _, text) in enumerate(talk)
            if any(name != answer_as for _, name, _ in talk[: number + 1])
            and any(name == answer_as for _, name, _ in talk[number:])
        ]
        for talk in talks
    ]
    assert ["\n".join(text for _, text in said) for said in conversations] == [
        "\n".join(texts) for texts in kept if texts
    ]
    assert alone == len(messages) - sum(map(len, kept))
    for said in conversations:
        roles = [role for role, _ in said]
        assert roles == ["user", "assistant"] * (len(roles) // 2)


@pytest.mark.parametrize(
    "text",
    [
        "사진",
        "사진 3장",
        "(이모티콘)",
        "동영상",
        "삭제된 메시지입니다.",
        "<사진 읽지 않음>",
        "음성메시지",
        "파일: 계획.hwp",
        "보이스톡 해요",
        "그룹콜이 방금 시작되었습니다.",
        "페이스톡 부재중",
        "보이스룸 종료",
        "지도: 서울역",
        "샵검색: 날씨",
        "투표 : 점심",
        "라이브톡 시작",
        "1,000원을 보냈어요. 송금 받기 전까지 보낸 분은 내역 상세화면에서 취소할 수 있어요.",
        "5,000원을 받으세요.",
        "5,000원 받기 완료! 받으신 카카오페이머니는 송금 및 결제에 사용할 수 있어요.",
        "송금봉투가 도착했어요. 꼭 받아 주세요",
        "선물과 메시지를 보냈습니다.",
        f"{'0af' * 11}.jpg",
        "https://a.kr/b?c=1",
        "\u3164",
        "\ufeff",
    ],
)
def test_what_stands_for_no_text_is_none(text):
    assert not has_words((BEGINNING, "민수", text))
    assert has_words((BEGINNING, "민수", f"{text} 봤어?\n응"))


def test_a_bot_of_kakaotalk_is_nobody():
    assert not any(has_words((BEGINNING, bot, "어서 오세요")) for bot in ("오픈채팅봇", "방장봇"))


def test_a_notice_is_nobodys_message():
    lines = "".join(windows(list(with_times([(0, "민수", "안녕")])), True)).splitlines(keepends=True)
    for told in (
        "지영님이 나갔습니다.",
        "지영님이 들어왔습니다.운영정책을 위반한 메시지로 신고 접수 시 이용에 제한이 있을 수 있습니다.",
        "지영님을 내보냈습니다.",
        "지영님이 철수님을 초대했습니다.",
        "지영님이 부방장이 되었습니다.",
        "지영님이 부방장에서 해제되었습니다.",
        "메시지가 삭제되었습니다.",
        "2026. 10. 31. 오후 9:00: 채팅방 관리자가 메시지를 가렸습니다.",
        "2026년 10월 31일 오후 9:00, 지영님이 나갔습니다.",
    ):
        messages = read_export([*lines, told, "\n"])
        assert messages[:1] == read_export(lines) and [has_words(each) for each in messages] == [True, False]


def test_a_notice_before_the_first_message_counts_too():
    *before, said = "".join(windows(list(with_times([(0, "민수", "안녕")])), True)).splitlines(keepends=True)
    notice, *messages = read_export([*before, "지영님이 들어왔습니다.\n", said])
    assert messages == read_export([*before, said]) and notice[1:] == (None, "지영님이 들어왔습니다.")


@pytest.mark.parametrize("write", [windows, android, ios])
def test_what_is_left_of_a_message_whose_beginning_is_cut_off_counts_too(write):
    said = [*with_times([(0, "지영", "첫 줄\n둘째 줄\n셋째 줄"), (1, "지영", "자?"), (1, "민수", "응")])]
    cut = "".join(write(said, True)).partition("첫 줄\n")[2].splitlines(keepends=True)
    rest, *messages = read_export(cut)
    assert is_export(cut) and rest[1:] == (None, "둘째 줄\n셋째 줄")
    assert [message[1:] for message in messages] == [message[1:] for message in said[1:]]


def test_what_the_board_of_a_room_and_settling_up_write_is_no_text():
    for text in ("톡게시판 '공지': 모임\n토요일 세 시", "정산 내용을 확인해주세요.\n\n- 정산금액 : 30,000원"):
        assert not has_words((BEGINNING, "민수", text))


@pytest.mark.parametrize("write", [windows, android, ios])
def test_an_export_without_its_header_is_one(write):
    lines = "".join(write(list(with_times([(0, "민수", "안녕")])), True)).splitlines(keepends=True)
    header = next(number for number, line in enumerate(lines) if "10월 31일" in line)
    assert is_export(lines[header:])
    assert not is_export(["2026년 10월 31일 토요일\n", "오후 3:12, 민수 : 안녕\n"])
    assert not is_export(["[민수] [15:12] 안녕\n"])
    assert not is_export(["글\n"] * 5 + lines)  # one that tells of an export


@pytest.mark.parametrize("day", ["0001년 1월 1일", "2026년 2월 30일"])
def test_a_day_that_there_is_not_takes_no_message_before_it(day):
    messages = read_export(["[민수] [오전 11:58] 밥?\n", f"------- {day} 월요일 -------\n"])
    assert messages[0][1:] == ("민수", "밥?")


@given(MESSAGES, st.booleans())
def test_an_export_that_was_cut_within_a_day_keeps_what_stands_before_the_next(messages, in_halves):
    messages = list(with_times([(0, "민수", "앞"), *messages, (24 * 60, "지영", "뒤")]))
    lines = "".join(windows(messages, in_halves)).splitlines(keepends=True)
    begin = next(number for number, line in enumerate(lines) if line.startswith("-----")) + 1
    assert read_export(lines[begin:]) == messages
    assert is_export(lines[begin:]) or not in_halves


def test_a_day_in_somebodys_words_is_no_new_day():
    said = "".join(
        windows(list(with_times([(0, "민수", "언제?\n2026년 12월 1일 화요일\n어때"), (1, "지영", "응")])), True)
    )
    messages = read_export(said.splitlines(keepends=True))
    assert [text for _, _, text in messages] == ["언제?\n2026년 12월 1일 화요일\n어때", "응"]
    assert messages[1][0] - messages[0][0] == timedelta(minutes=1)


@pytest.mark.parametrize("write", [android, ios])
def test_what_a_phone_did_not_write_so_is_in_somebodys_words(write):
    text = "봐\n[지영] [오후 3:12] 안녕\n2026년 2월 30일 오후 3:12, 지영 : 안녕"
    said = list(with_times([(0, "민수", text), (1, "지영", "응")]))
    assert read_export("".join(write(said, True)).splitlines(keepends=True)) == said


def test_an_export_that_was_cut_to_a_part_of_a_day_has_its_times():
    messages = read_export(["[민수] [오전 11:58] 밥?\n", "[지영] [오후 12:05] 응\n", "가자\n"])
    assert [said for _, *said in messages] == [["민수", "밥?"], ["지영", "응\n가자"]]
    assert messages[1][0] - messages[0][0] == timedelta(minutes=7)


def test_names_are_read_composed_however_they_stand_there():
    said = list(with_times([(0, "민수", "자?"), (1, "지영", "응")]))
    for write in (windows, android, ios):
        lines = "".join(write([(time, normalize("NFD", name), text) for time, name, text in said], True))
        assert read_export(lines.splitlines(keepends=True)) == said
    table = [{"Date": str(time), "User": normalize("NFD", name), "Message": text} for time, name, text in said]
    assert read_table(table) == said


def test_a_table_that_a_spreadsheet_saved_has_its_times_and_one_that_is_none_is_of_its_time_before():
    whens = ["?", " 2026-10-31 20:00:00", "2026-10-31T20:01:00+09:00", "2026-10-31 8:02", "2026-10-31 20:05:00"]
    read = read_table({"Date": when, "User": "민수", "Message": " 응 "} for when in whens)
    assert {(name, text) for _, name, text in read} == {("민수", "응")}
    assert [time for time, _, _ in read[1:]] == [BEGINNING + timedelta(minutes=minutes) for minutes in (0, 1, 1, 5)]


@given(MESSAGES)
def test_the_table_of_a_mac_is_read_as_the_text_of_the_others_is(messages):
    messages = [*with_times([*messages, (0, "지영", "지영님이 나갔습니다.")])]
    table = io.StringIO("".join(csv_lines(messages)), newline="")
    assert is_table(table.readlines()) and not is_table([])
    table.seek(0)
    assert read_table(csv.DictReader(table)) == [*messages[:-1], (messages[-1][0], None, messages[-1][2])]


def csv_lines(messages):
    yield "Date,User,Message\n"
    for time, name, text in messages:
        cells = (str(time), *(f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in (name, text)))
        yield ",".join(cells) + "\n"


def test_the_table_of_a_mac_is_learnt_as_conversations_unless_a_column_is_chosen(run_main, tmp_path, tiny_model_folder):
    said = with_times([(0, "지영", "자?"), (1, "지영", "사진"), (1, "민수", 'ㅇㅇ "안" 자\n왜'), (0, "지영", "ㅇㅋ")])
    path = tmp_path / "KakaoTalk_Chat_지영.csv"
    path.write_text("".join(csv_lines(said)), "utf-8-sig")
    words = [f"--dataset_path={path}", f"--model_type={tiny_model_folder}", "--show_data=3"]
    code, out, err = run_main("train.py", *words, "--answer_as=민수")
    assert code == 0 and 'ㅇㅇ "안" 자\n왜' in out and "사진" not in out and "2026" not in out, err
    assert "대화 1개 (카카오톡 → 민수)" in err and "알림 등) 1개와 앞에 질문이 없거나 뒤에 답이 없는 말 1개를" in err
    code, out, err = run_main("train.py", *words)
    assert code == 2 and not out and "--answer_as" in err and "지영 2개, 민수 1개" in err, err
    code, out, _ = run_main("train.py", *words, "--text_column_name=Message")
    assert code == 0 and "사진" in out
    code, out, err = run_main("train.py", *words, "--text_column_name=Message", "--answer_as=민수")
    assert code == 2 and not out and "--answer_as=민수" in err, err


def write_export(path, extra=()):
    said = [(0, "지영", "자?"), (1, "지영", "사진"), (1, "민수", "아직\n안 자"), *extra, (0, "지영", "ㅇㅋ")]
    path.write_text("".join(android(list(with_times(said)), True)), "utf-8-sig")
    return path


def test_an_export_is_learnt_as_conversations_and_what_is_left_out_is_told(run_main, tmp_path, tiny_model_folder):
    path = write_export(tmp_path / "톡.txt")
    words = [f"--dataset_path={path}", f"--model_type={tiny_model_folder}", "--show_data=3"]
    code, out, err = run_main("train.py", *words, f"--answer_as={normalize('NFD', '민수')}")  # as a Mac may give it
    assert code == 0 and "대화 1개 (카카오톡 → 민수)" in normalize("NFC", err), err
    assert err.count("알림 등) 1개와 앞에 질문이 없거나 뒤에 답이 없는 말 1개를 뺍니다") == 1
    for said in ("자?", "아직\n안 자"):
        assert said in out
    for left_out in ("2026", "지영", "민수", "사진", "ㅇㅋ"):
        assert left_out not in out


@pytest.mark.parametrize("given", [[], ["--answer_as=민"]])
def test_an_export_asks_whose_messages_are_the_answers(run_main, tmp_path, tiny_model_folder, given):
    path = write_export(tmp_path / "톡.txt")
    code, out, err = run_main(
        "train.py", f"--dataset_path={path}", f"--model_type={tiny_model_folder}", "--show_data=3", *given
    )
    assert code == 2 and not out and "--answer_as" in err and "지영 2개, 민수 1개" in err, err
    assert ("--answer_as=민: " in err) == ("없는 이름" in err) == ("--answer_as: " not in err) == bool(given), err


def test_where_nobody_answers_what_was_left_out_is_told(run_main, tmp_path, tiny_model_folder):
    path = tmp_path / "톡.txt"
    path.write_text("".join(android(list(with_times([(0, "민수", "자?"), (1, "민수", "자네")])), True)), "utf-8")
    words = [f"--dataset_path={path}", f"--model_type={tiny_model_folder}", "--show_data=3", "--answer_as=민수"]
    code, _, err = run_main("train.py", *words)
    assert code == 1 and "배울 것이 남지" in err and "뒤에 답이 없는 말 2개" in err, err


def test_a_name_is_refused_where_nothing_was_exported(run_main, tmp_path, tiny_model_folder):
    (tmp_path / "a.txt").write_text("저장한 날짜를 모르는 글", "utf-8")
    code, _, err = run_main(
        "train.py",
        f"--dataset_path={tmp_path}",
        f"--model_type={tiny_model_folder}",
        "--show_data=3",
        "--answer_as=민수",
    )
    assert code == 2 and "--answer_as=민수" in err, err


ENGLISH = {
    "windows": "지영 with KakaoTalk Chats\nDate Saved : 2026-11-01 15:12:33\n\n"
    "--------------- Saturday, October 31, 2026 ---------------\n[지영] [8:00 PM] 자?\n[민수] [8:02 PM] 응\n",
    "android": "KakaoTalk Chats with 지영\nDate Saved : November 1, 2026 at 3:12 PM\n\n"
    "October 31, 2026 at 8:00 PM\nOctober 31, 2026 at 8:00 PM, 지영 : 자?\nOctober 31, 2026 at 8:02 PM, 민수 : 응\n",
    "ios": "Talk_2026.11.1 15:12-1.txt\nDate Saved : Nov 1, 2026 at 15:12\n\n\n"
    "Saturday, October 31, 2026\nOct 31, 2026 at 20:00, 지영 : 자?\nOct 31, 2026 at 20:02, 민수 : 응\n",
}


@pytest.mark.parametrize("app", ENGLISH)
def test_of_an_app_in_english_it_is_told_that_nobody_is_recognised_and_who_answers_is_refused(tmp_path, app, run_main):
    path = tmp_path / "톡.txt"
    path.write_text(ENGLISH[app], "utf-8")
    words = [f"--dataset_path={path}", "--model_type=scratch-mini", "--show_data=0"]
    code, _, err = run_main("train.py", *words)
    assert code == 0 and "누구의 말인지 알아보지 못해" in err and "앱의 언어를 한국어로" in err, err
    code, _, err = run_main("train.py", *words, "--answer_as=민수")
    assert code == 2 and f"{path}: --answer_as=민수: " in err and "앱의 언어를 한국어로" in err, err


def test_a_text_that_only_begins_like_an_export_is_told_of_and_a_text(tmp_path):
    path = tmp_path / "글.txt"
    path.write_text("일기\n저장한 날짜 : 어제\n\n오늘은 [비가] [왔다]\n", "utf-8")
    documents = corpus.read_corpus([path])
    assert documents["text"] == ["일기\n저장한 날짜 : 어제", "오늘은 [비가] [왔다]"]
    assert "알아보지 못해 글 그대로" in documents["doubt"][-1]


def test_another_name_makes_other_conversations_of_the_same_file(tmp_path):
    path = write_export(tmp_path / "톡.txt", [(1, "지영", "나도"), (1, "민수", "응")])
    learnt = {name: corpus.read_corpus([path], answer_as=name)["characters"] for name in ("민수", "지영")}
    assert learnt == {"민수": [len("아직\n안 자") + len("응")], "지영": [len("나도") + len("ㅇㅋ")]}
