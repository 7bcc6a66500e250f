"""The page and the command line: what it starts with, and the commands that write the same text."""

import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server.client import ask, written

from gpt2_korean.cli.generate_options import parse_generate_options
from gpt2_korean.windows import join_for_windows


@pytest.mark.parametrize("prompt", ["오늘은", "", "\"따옴표\"와 '$HOME'\n- 둘째 줄\\n"])
def test_the_command_that_is_shown_writes_the_same_text(port, run_main, prompt):
    changed = {"length": "30", "temperature": "0.9", "repetition_penalty": "1.3", "top_p": "0.95", "top_k": "40"}
    status, events = ask(port, "/write", prompt=prompt, settings=changed)
    assert status == 200 and written(events)
    python, script, *words = shlex.split(events[0]["commands"]["posix"])
    assert python == "python" and f"--seed={events[0]['seed']}" in words
    code, out, _ = run_main(script, *words)
    assert (code, out) == (0, prompt + written(events) + "\n")


def test_a_command_fills_the_pages_template_once_also_behind_earlier_turns(open_page, run_main):
    page = open_page("--dtype=float32", "--length=8", "--min_length=8", "--prompt_template=물음: {prompt}\n답:")
    for turns in ([], [["어제는", "비"]]):
        _, events = ask(page, "/write", prompt="오늘은", turns=turns)
        _, script, *words = shlex.split(events[0]["commands"]["posix"])
        code, out, _ = run_main(script, *words)
        assert code == 0 and out.endswith(f"물음: 오늘은\n답:{written(events)}\n")
        assert out.count("물음:") == 1 + len(turns)


def split_as_windows_does(line):
    """The words that a program is given, by the rules of Microsoft's C runtime."""
    words, word, quoted, place = [], None, False, 0
    while place < len(line):
        slashes = len(re.match(r"\\*", line[place:])[0])
        before_quote = line[place + slashes : place + slashes + 1] == '"'
        if slashes:
            word = (word or "") + "\\" * (slashes // 2 if before_quote else slashes)
            place += slashes
            if before_quote and slashes % 2:
                word, place = word + '"', place + 1
            continue
        letter, place = line[place], place + 1
        if letter == '"':
            quoted, word = not quoted, word or ""
        elif letter == " " and not quoted:
            words, word = words + ([] if word is None else [word]), None
        else:
            word = (word or "") + letter
    return words + ([] if word is None else [word])


@given(st.lists(st.text(st.sampled_from("가 a\\-=.'&|<>^();,#@{}‘’/:*?"), min_size=1), min_size=1, max_size=4))
def test_a_command_for_windows_is_read_as_its_words(words):
    line = join_for_windows(words)
    assert split_as_windows_does(line) == words
    outside = re.sub(r'"[^"]*"', "", line)
    assert re.fullmatch(r"[\w= -]*", outside)  # a shell sees what else there is between quotes alone


def test_there_is_no_command_for_windows_where_its_shells_would_change_a_text(port):
    for text in ('"', "%PATH%", "$HOME", "`", "가!", "가\n나", "“가”"):
        commands = ask(port, "/write", prompt=text, settings={"length": "1"})[1][0]["commands"]
        assert commands["windows"] is None and shlex.split(commands["posix"])
    assert ask(port, "/write", prompt="가 & 나", settings={"length": "1"})[1][0]["commands"]["windows"]


def test_the_page_starts_with_values_that_write_well_unless_flags_say_otherwise():
    words = ["--model_name_or_path=x", "--serve"]
    starts = parse_generate_options(words).settings
    assert (starts.top_k, starts.top_p, starts.temperature, starts.repetition_penalty) == (50, 0.95, 0.7, 1.2)
    assert parse_generate_options([*words, "--temperature=1.0", "--top-p=1"]).settings.temperature == 1.0
    assert parse_generate_options([*words, "--temperature=1.0", "--top-p=1"]).settings.top_p == 1.0
    assert parse_generate_options(words[:1]).settings.temperature == 1.0
