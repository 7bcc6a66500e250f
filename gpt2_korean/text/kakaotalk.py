"""What KakaoTalk exports of a room → conversations, in which one of those who speak answers the others.

Knows the .txt of its apps for Windows, Android and iOS in Korean, and the table of that for the Mac; of a .txt in
English only that it is one. Knows nothing of files or tokens.
"""

import re
from collections import Counter
from contextlib import suppress
from datetime import date, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from unicodedata import normalize

from gpt2_korean.messages import UsageError
from gpt2_korean.text.normalise import VISIBLE

COLUMNS = ["Date", "User", "Message"]  # of the Mac's table, in whatever language the app is
HEADER = re.compile(r"\s*(저장한 날짜|Date Saved) ?: ")  # below the name of the room
HEADER_LINES = 5
DAY = r"(\d{4})(?:년 |\. |-)(\d{1,2})(?:월 |\. |-)(\d{1,2})[일.]?"
TIME = r"(?:(오전|오후) )?(\d{1,2}):(\d{2})"
NEW_DAY = re.compile(rf"\s*-+ {DAY} .요일 -+\s*")  # of Windows, whose messages tell no day
NEW_DAY_ON_PHONE = re.compile(rf"\s*{DAY} (?:{TIME}|.요일)\s*")
ON_PHONE = re.compile(rf"{DAY} {TIME}(?:, (?:(.+?) : )?|: )(.*)", re.DOTALL)  # without a name a notice
ON_WINDOWS = re.compile(rf"\[(.+?)\] \[{TIME}\] ?(.*)", re.DOTALL)
CUT_ON_WINDOWS = re.compile(r"\[.+?\] \[오[전후] \d{1,2}:\d{2}\] ")  # an export may begin within a day
NOTICE = re.compile(
    r"(.+님이 (들어왔습니다(\.운영정책.*)?|나갔습니다|부방장(이 되었|에서 해제되었)습니다|.+님을 초대했습니다)|"
    r".+님을 내보냈습니다|채팅방 관리자가 .+|메시지가 삭제되었습니다)\.?\s*"
)
# What stands for a picture, a call, money and the like; and an address alone.
NO_WORDS = re.compile(
    r"[(<]?(사진( \d+장)?|동영상( \d+개)?|이모티콘|음성 ?메시지)( 읽지 않음)?[)>]?|"
    r"\(?(삭제된 메시지입|메시지가 삭제되었습)니다\.?\)?|"
    r"(파일|지도|연락처|투표|샵검색) ?: ?.*|톡게시판 '[^']+': (?s:.*)|"
    r"(보이스톡|페이스톡|그룹콜|라이브톡|보이스룸)(이 방금)? (해요|시작|종료|취소|부재중|\d).*|"
    r"[\d,]+원(을 받으세요\.|을 (보냈|받았)어요\.? (송금|받은) .*| 받기 완료! .*)|"
    r"송금봉투[가를] (도착했|받았)어요\. .*|"
    r"정산(을 시작합니다!| 내용을 확인해주세요\.)(?s:.*)|선물(을|과 메시지를) 보냈습니다\.|"
    r"[0-9a-f]{32,}\.\w+|https?://\S+"
)
BOTS = {"오픈채팅봇", "방장봇"}  # KakaoTalk's own, which greet and remind
SILENCE = timedelta(hours=3)  # people speak of something else after it
MOST_NAMED = 10


def is_export(beginning):
    """Whether a text with these first lines is one that KakaoTalk wrote, be its header cut off."""
    first = beginning[:HEADER_LINES]
    return any(map(HEADER.match, first)) or any(name for _, name, _ in read_export(first))


def is_table(beginning):
    """Whether a .csv with these first lines is one that KakaoTalk for the Mac wrote."""
    return bool(beginning) and beginning[0].strip().replace('"', "") == ",".join(COLUMNS)


def read_export(lines):
    """The `(time, name, text)` of each message, in order; the name of a notice is None, and of what is left of a
    message whose beginning was cut off."""
    day, messages = _day_of_the_first(lines), []
    header = next((number for number, line in enumerate(lines[:HEADER_LINES], 1) if HEADER.match(line)), 0)
    for line in lines[header:]:
        if new_day := NEW_DAY.fullmatch(line):
            day = new_day.groups()
        elif message := _message(line, day):
            messages.append(message)
        elif (line.isspace() and not messages) or (not day and NEW_DAY_ON_PHONE.fullmatch(line)):
            continue
        elif not messages or NOTICE.fullmatch(line):  # neither has a time
            messages.append([messages[-1][0] if messages else datetime.min, None, [line]])
        else:
            messages[-1][2].append(line)
    return [(time, name, "".join(text).strip()) for time, name, text in messages]


def read_table(rows):
    """The `(time, name, text)` of each row (dict) of the Mac's table, as read_export."""
    messages, time = [], datetime.min
    for row in rows:
        when, name, text = (row[column] for column in COLUMNS)
        with suppress(ValueError):  # it was said, whenever that was
            time = datetime.fromisoformat(when.strip()).replace(tzinfo=None)
        messages.append((time, None if NOTICE.fullmatch(text) else normalize("NFC", name), text.strip()))
    return messages


def _day_of_the_first(lines):
    """The day of a Windows export's messages before its first date line, the day before that; None for phones."""
    if any(map(ON_PHONE.match, lines)):
        return None
    if told := next(filter(None, map(NEW_DAY.fullmatch, lines)), None):
        with suppress(ValueError, OverflowError):
            day = date(*map(int, told.groups())) - timedelta(days=1)
            return day.year, day.month, day.day
    return (1, 1, 1) if any(map(CUT_ON_WINDOWS.match, lines)) else None


def _message(line, day):
    """The `[time, name, lines]` that a line begins, None where it goes on with one or tells no time that there is."""
    on_phone, on_windows = ON_PHONE.match(line), ON_WINDOWS.match(line)
    if on_phone:
        *day, half, hour, minute, name, text = on_phone.groups()
    elif on_windows and day:
        name, half, hour, minute, text = on_windows.groups()
    else:
        return None
    hour = int(hour) % 12 + 12 * (half == "오후") if half else int(hour)
    try:
        return [datetime(*map(int, day), hour, int(minute)), name and normalize("NFC", name), [text]]
    except ValueError:
        return None


def has_words(message):
    """Whether a message is something that somebody wrote."""
    _, name, text = message
    return bool(name is not None and name not in BOTS and VISIBLE.search(text) and not NO_WORDS.fullmatch(text))


def split_conversations(messages, answer_as):
    """The conversations in `messages`, lists of `(role, text)`, and how many messages are in none: those before the
    first question of a conversation and behind its last answer.

    answer_as: the name of the one whose messages are the answers. What one side writes in a row is one turn.
    Raises UsageError where nobody has that name.
    """
    answer_as = answer_as and normalize("NFC", answer_as)
    people = Counter(name for _, name, _ in messages)
    if answer_as not in people:
        named = ", ".join(f"{name} {count:,}개" for name, count in people.most_common(MOST_NAMED)) or "없음"
        asks = "카카오톡 대화에서 누구의 말을 답으로 배울지 이름을 주세요"
        if answer_as is not None:
            asks = "이 카카오톡 대화에 없는 이름입니다. 파일에 나온 대로 주거나 이 파일을 빼세요"
        given = "" if answer_as is None else f"={answer_as}"
        raise UsageError(f"--answer_as{given}: {asks}. 말한 사람과 말의 수: {named}")
    talks, last = [], None
    for time, name, text in messages:
        if last is None or time - last >= SILENCE:
            talks.append([])
        talks[-1].append(("assistant" if name == answer_as else "user", text))
        last = time
    conversations, kept = [], 0
    for talk in talks:
        turns = [(role, [text for _, text in said]) for role, said in groupby(talk, itemgetter(0))]
        if turns[0][0] == "assistant":
            del turns[0]
        if turns and turns[-1][0] == "user":
            del turns[-1]
        if turns:
            conversations.append([(role, "\n".join(texts)) for role, texts in turns])
            kept += sum(len(texts) for _, texts in turns)
    return conversations, len(messages) - kept
