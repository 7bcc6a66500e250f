"""Prompts typed one after another, each continued as it comes: a terminal's conversation with a model."""

import contextlib
import sys
from dataclasses import replace

from gpt2_korean.generation.output import put_out
from gpt2_korean.generation.write import read_after_turns, write_each
from gpt2_korean.messages import UserError, say, say_error
from gpt2_korean.text.prompts import read_prompts

HELP = """앞글을 치고 Enter를 누르면 이어 씁니다. 쓰는 동안 Ctrl-C를 누르면 그 글만 멈춥니다.
  /again           같은 앞글로 다시 씁니다
  /new             앞의 대화를 잊고 새로 시작합니다(대화 모델이거나 --prompt_template을 주었을 때)
  /set             지금 설정을 봅니다
  /set 이름 값     설정을 바꿉니다 (예: /set top_p 0.9)
  /help            이 도움말
  /quit            끝냅니다 (Ctrl-D도 같음)"""


def converse(answer, settings, parse_setting, talks=False):
    """Read lines until /quit or the end of input, and give those that are no commands to `answer`.

    answer: (prompt, turns, settings) → the text that it showed; turns are the (prompt, text) pairs so far,
        without those that were broken off or written again.
    settings: a frozen dataclass; what `/set` changes is a field of the next one.
    parse_setting: (name, word) → value, or a UserError, which is shown.
    talks: whether a chat model listens, to whom nobody says nothing.
    """
    with contextlib.suppress(ImportError):  # Windows has none
        import readline  # noqa: F401  it gives input() line editing and history
    terminal = sys.stdin.isatty()
    if terminal:
        say(f"{'말' if talks else '앞글'}을 치고 Enter를 누르세요. /help는 도움말, /quit은 끝내기입니다.")
    prompt, before, turns = None, [], []
    while True:
        try:
            line = input(("\n나> " if talks else "\n앞글> ") if terminal else "")
        except EOFError:
            return
        except KeyboardInterrupt:
            say("\n끝내려면 /quit을 치거나 Ctrl-D를 누르세요.")
            continue
        command, *words = line.split(maxsplit=2) if line.startswith("/") else ("",)
        if command == "/quit":
            return
        if command == "/set":
            try:
                settings = _set(words, settings, parse_setting)
            except UserError as error:
                say_error(error)
            continue
        if command == "/new":
            prompt, before, turns = None, [], []
            say("새로 시작합니다.")
            continue
        if command == "/again" and prompt is None:
            say("아직 쓴 글이 없습니다. 앞글을 먼저 치세요.")
            continue
        if command not in ("", "/again"):
            say(HELP if command == "/help" else f"{command}: 그런 명령이 없습니다.\n{HELP}")
            continue
        if command == "":
            if talks and not line.strip():
                continue
            prompt, before = line, turns
        turns = before
        try:
            turns = [*before, (prompt, answer(prompt, before, settings))]
        except KeyboardInterrupt:
            say("\n(멈췄습니다)")


def _set(words, settings, parse_setting):
    """The settings after `/set words`, which are shown."""
    if len(words) == 2:
        settings = replace(settings, **{words[0]: parse_setting(*words)})
    elif words:
        raise UserError(f"/set {words[0]}: 값도 주세요 (예: /set top_p 0.9).")
    for name in words[:1] or vars(settings):
        say(f"  {name} = {getattr(settings, name)}")
    return settings


def answer(model, out, copies, line, turns, settings):
    """Continue or answer the line that was typed, after the turns before it, `copies` times; returns the last text.

    model: a LoadedModel. out: an Output.
    """
    [prompt] = read_prompts([line])
    read = read_after_turns(model, out.prompts, turns, prompt, settings.length)
    for pieces in write_each(model, [read] * copies, settings):
        text, _ = put_out(out, prompt, pieces, settings)
    return text
