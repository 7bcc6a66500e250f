"""Lines from a terminal, with the editing, history and pasting of prompt_toolkit; or from a pipe, as they are."""

import contextlib
import os
import sys

from gpt2_korean.messages import say
from gpt2_korean.text.prompts import decode_piped


@contextlib.contextmanager
def open_keyboard(prompt, words):
    """Gives a function that reads the next line, which raises EOFError at the end and KeyboardInterrupt for Ctrl-C.

    prompt: what a line is asked for with, at a terminal. words: what Tab completes a line to.
    """
    if not (sys.stdin.isatty() and (sys.stdout.isatty() or sys.stderr.isatty())):
        yield _read_piped
        return
    session = None
    try:
        if os.environ.get("TERM") != "dumb":  # as within an editor, which would show what moves the cursor
            session = _prompt_session(prompt, words)
    except ImportError as error:
        say(f"{error.name} 패키지가 없어 줄을 고치는 기능 없이 읽습니다: pip install -r requirements.txt")
    if session is None:
        yield lambda: print(prompt, end="", file=sys.stderr, flush=True) or _read_piped()
        return

    with _silence() as be_silent:

        def read_line():
            _keep_lines(session.input)
            line = session.prompt()
            be_silent()
            session.output.enable_bracketed_paste()  # what is pasted while a text is written is one line too
            session.output.flush()
            return decode_piped(line.encode("utf-8", "surrogateescape"))  # the bytes that the terminal sent

        try:
            yield read_line
        finally:
            session.output.disable_bracketed_paste()
            session.output.flush()


def _read_piped():
    line = sys.stdin.buffer.readline()
    if not line:
        raise EOFError
    return decode_piped(line)


def _prompt_session(prompt, words):
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.output import create_output
    from prompt_toolkit.shortcuts import CompleteStyle

    screen = create_output(always_prefer_tty=True)
    screen.enable_cpr = False  # to ask where the cursor is: a slow terminal's answer would come into the text
    keys = KeyBindings()
    keys.add("escape", "enter")(lambda event: event.current_buffer.insert_text("\n"))
    return PromptSession(
        prompt, key_bindings=keys, output=screen, enable_suspend=True,
        completer=WordCompleter(words, sentence=True), complete_while_typing=False,
        complete_style=CompleteStyle.READLINE_LIKE,
    )  # fmt: skip


@contextlib.contextmanager
def _silence():
    """Gives a function that has the terminal keep keys for the next prompt and not show them; Ctrl-C still comes."""
    try:
        import termios
        import tty
    except ImportError:  # Windows, which shows a key only when it is read
        yield lambda: None
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        yield lambda: tty.setcbreak(sys.stdin, termios.TCSADRAIN)
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _keep_lines(terminal):
    """Hand what was typed meanwhile to the next prompt, but for empty lines: an impatient Enter asks for no text."""
    from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead
    from prompt_toolkit.keys import Keys

    typed = get_typeahead(terminal)
    while keys := terminal.read_keys():
        typed += keys
    ends = [press.key in (Keys.ControlM, Keys.ControlJ) for press in typed]
    store_typeahead(
        terminal, [press for press, end, after in zip(typed, ends, [True, *ends], strict=False) if not (end and after)]
    )
