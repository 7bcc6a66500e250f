"""What flags of generate.py take that is more than a number or a text: types for argparse."""

import argparse
from urllib.parse import urlsplit

from gpt2_korean.cli.suggestions import nearest
from gpt2_korean.cli.values import composed_text, number, text
from gpt2_korean.messages import particle
from gpt2_korean.text.conversations import PROMPT
from gpt2_korean.text.normalise import normalise


def stage(word):
    """A text that sets the stage of a conversation."""
    word = normalise(text(word))[0].strip()
    if not word:
        raise argparse.ArgumentTypeError("빈 글은 줄 수 없습니다.")
    return word


def api_key(word):
    """A key that a header can carry."""
    if not (word.isascii() and word.isprintable() and word and " " not in word):
        raise argparse.ArgumentTypeError("빈칸 없는 영문자, 숫자, 기호로 된 키를 주세요.")
    return word


def origin(word):
    """An origin as browsers send it, or as programs that are made of pages do (app://obsidian.md), or * for any."""
    if word == "*":
        return word
    try:
        scheme, host, *rest = urlsplit(word)
        host = host.lower().encode("idna").decode()  # a name in Korean has another in ASCII
        if not scheme or not host or "".join(rest) not in ("", "/"):
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"{word!r}: https://example.com 꼴의 주소나 *를 주세요.") from None
    meant = nearest(scheme, ("http", "https"), 0.75)
    if meant not in (None, scheme):  # htps: no page has that origin
        raise argparse.ArgumentTypeError(f"{word!r}: 그런 주소는 없습니다. 혹시 {meant}://{host}인가요?")
    return f"{scheme}://{host}".removesuffix({"http": ":80", "https": ":443"}.get(scheme, ""))


def temperature(word):
    """0, or a number that no score is divided by in vain."""
    value = number(0, 1000)(word)
    if 0 < value < 0.001:
        raise argparse.ArgumentTypeError(f"{particle(word, '은/는')} 너무 작습니다. 0이나 0.001 이상인 수를 주세요.")
    return value


def prompt_template(word):
    """A composed_text with `{prompt}` in it."""
    word = composed_text(word)
    if PROMPT not in word:
        raise argparse.ArgumentTypeError(f'{word!r}: "질문: {PROMPT}"처럼 앞글이 들어갈 자리에 {PROMPT}를 쓰세요.')
    return word
