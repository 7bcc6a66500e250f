"""A session at a real terminal: prompts are continued, settings changed, and Ctrl-C stops a text, not the program."""

import dataclasses
import os
import select
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from gpt2_korean.cli.generate_flags import parse_generate_options, parse_setting
from gpt2_korean.generation.terminal import converse

START = parse_generate_options(["--model_name_or_path=x"]).settings


@pytest.fixture
def remembered():
    """The turns that each prompt of the session was given with."""
    return []


@pytest.fixture
def session(monkeypatch, capsys, remembered):
    """Run lines through converse; returns what was asked to be continued, with which settings, and stderr."""

    def run(*lines):
        remembered.clear()
        waiting, asked, used = iter(lines), [], []

        def read(prompt=""):
            line = next(waiting, EOFError())
            if isinstance(line, BaseException):
                raise line
            return line

        def answer(prompt, turns, settings):
            asked.append(prompt)
            used.append(settings)
            remembered.append(list(turns))
            if prompt == "멈출 글":
                raise KeyboardInterrupt
            return f"답 {len(asked)}"

        monkeypatch.setattr("builtins.input", read)
        converse(answer, START, parse_setting)
        return asked, used, capsys.readouterr().err

    return run


def test_lines_are_continued_and_again_repeats_the_last(session):
    assert session("가", "", "나", "/again", "/quit", "다")[0] == ["가", "", "나", "나"]


def test_settings_change_and_a_wrong_one_is_explained(session):
    asked, used, shown = session(
        "/set top_p 0.9", r"/set stop \n\n", "/set length 0", "/set lenght 3", "/set top_k", "/set", "가"
    )
    assert asked == ["가"]
    assert used == [dataclasses.replace(START, top_p=0.9, stop=["\n\n"])]
    for words in ("--length: '0'", "lenght: 그런 설정이 없습니다", "/set top_k: 값도 주세요", "length = 100"):
        assert words in shown


def test_what_is_no_command_is_said_so_with_the_help(session):
    asked, _, shown = session("/again", "/quti", "/help")
    assert asked == [] and shown.count("/set 이름 값") == 2
    assert "/quti: 그런 명령이 없습니다" in shown and "앞글을 먼저 치세요" in shown


def test_ctrl_c_stops_a_text_or_a_line_and_not_the_session(session):
    asked, _, shown = session("멈출 글", KeyboardInterrupt(), "가")
    assert asked == ["멈출 글", "가"] and "멈췄습니다" in shown and "/quit" in shown


def test_a_conversation_is_remembered_until_it_is_begun_anew(session, remembered):
    session("가", "나", "/again", "다", "/new", "/again", "라")
    first, second = ("가", "답 1"), ("나", "답 3")  # the answer that was written again is forgotten
    assert remembered == [[], [first], [first], [first, second], []]


def test_an_answer_that_was_broken_off_is_not_remembered(session, remembered):
    session("가", "멈출 글", "/again", "나")
    assert remembered[-1] == [("가", "답 1")]


def test_every_setting_is_a_flag_of_the_kind_it_starts_with():
    for name, value in vars(START).items():
        if value is not None:
            assert parse_setting(name, str(value)) == value
    assert parse_setting("penalize_prompt", "false") is False


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
def test_at_a_terminal_ctrl_c_ends_a_long_text_and_the_next_prompt_is_continued(tiny_model_folder):
    controller, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "generate.py", f"--model_name_or_path={tiny_model_folder}", "--interactive", "--device=cpu",
         "--length=100000", "--min_length=100000"],
        cwd=ROOT, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    shown, found = b"", 0

    def wait_for(words):
        """Read what is shown until `words` come up after those found before."""
        nonlocal shown, found
        deadline = time.monotonic() + 60
        while (place := shown.find(words.encode(), found)) < 0:
            assert time.monotonic() < deadline, shown[-500:].decode(errors="replace")
            if select.select([controller], [], [], 0.1)[0]:
                shown += os.read(controller, 65536)
        found = place + len(words.encode())

    try:
        wait_for("앞글> ")
        for prompt in ("첫째 글", "둘째 글"):
            os.write(controller, f"{prompt}\n".encode())
            wait_for(f"\n{prompt}")  # the line typed is echoed without a new line before it
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            wait_for("멈췄습니다")
            wait_for("앞글> ")
        os.write(controller, b"/set length 3\n/set min_length 0\nabc\n/quit\n")
        assert process.wait(60) == 0
    finally:
        process.kill()
        os.close(controller)
