"""Raw text → Unicode's composed form (NFC) with \\n line ends and no control characters, and what that changed."""

import re
import unicodedata

# Word's soft break is a vertical tab, a page ends in a form feed, and NEL is what its name says.
LINE_ENDS = "\r\x0b\x0c\x85"
LINE_END = re.compile(f"\r\n|[{LINE_ENDS}]")
# What else is in Unicode's category Cc but for tab and line feed, the byte order mark where it is no mark, and lone
# surrogates, which a JSON escape can carry but UTF-8 cannot.
CONTROLS = "\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\ud800-\udfff"
CONTROL_CHARACTER = re.compile(f"[{CONTROLS}]")
# Both in one set, which is looked for four times as fast as one pattern or the other.
EITHER = re.compile(f"[{LINE_ENDS}{CONTROLS}]")

# Nothing is seen of the others: blogs have a zero-width space in each empty paragraph, chats a Hangul filler.
VISIBLE = re.compile(rf"[^\s{CONTROLS}\u200b-\u200d\u2060\u3164]")

NO_TEXT = "글이 없습니다. 비었거나 빈칸뿐입니다."
COUNTS = ("length", "characters", "unlearnt", "composed", "line_ends", "controls")  # of a row
EMPTY = {"text": "", **dict.fromkeys(COUNTS, 0), "turns": [], "form": ""}


def normalise(text):
    """Return `(text, composed, line_ends, controls)`: the normalised text, whether composing changed it,
    how many line ends were replaced and how many control characters removed."""
    line_ends = controls = 0
    if EITHER.search(text):  # most texts have none
        text, line_ends = LINE_END.subn("\n", text)
        text, controls = CONTROL_CHARACTER.subn("", text)
    composed = not unicodedata.is_normalized("NFC", text)
    return unicodedata.normalize("NFC", text) if composed else text, composed, line_ends, controls


def document_row(raw):
    """The row of one raw document, None where nothing that is seen is left; a conversation is a row already."""
    if isinstance(raw, dict):
        return raw
    text, composed, line_ends, controls = normalise(raw)
    if not VISIBLE.search(text):
        return None
    counts = {"composed": int(composed), "line_ends": line_ends, "controls": controls}
    return {**EMPTY, "text": text, "length": len(text), "characters": len(text), **counts}


def document_features(**others):
    """The datasets.Features of document rows and of `others` (name → kind): the first rows may not tell of turns."""
    from datasets import Features, Value

    kinds = {"text": "string", **dict.fromkeys(COUNTS, "int64"), "form": "string"}
    kinds |= {"broken": "int64", "broken_at": "string", **others}
    turn = {"role": Value("string"), "content": Value("string"), "weight": Value("int8")}
    return Features({name: Value(kind) for name, kind in kinds.items()} | {"turns": [turn]})


def describe_changes(composed, line_ends, controls, blank, skipped=0, broken=0):
    """A line for each kind of change that was made."""
    counts = [
        (composed, "문서 {:,}개를 NFC로 정규화"),
        (line_ends, "줄 끝 {:,}개를 \\n으로 바꿈"),
        (controls, "제어 문자 {:,}개를 지움"),
        (blank, "글이 없는 행 {:,}개를 뺌"),
        (skipped, "형식이 맞지 않는 행 {:,}개를 건너뜀"),
        (broken, "잘못된 대화 {:,}개를 뺌"),
    ]
    return [words.format(count) for count, words in counts if count]
