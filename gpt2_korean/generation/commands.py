"""What stands in an interactive session, and the commands that change it: a line that was typed → the next Session.

Nothing in a Session changes: each command makes another, so that each can be taken back.
"""

import difflib
import os
import random
import re
import secrets
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from gpt2_korean.messages import UsageError, UserError, describe_os_error, say, width


@dataclass(frozen=True)
class Turn:
    """A prompt and what was written for it so far.

    ended: whether the model or a stop text ended it. stop: that stop text. broken: whether the user stopped it.
    others: the texts that were written for it beside this one, with which a session goes on.
    """

    prompt: str
    text: str = ""
    ended: bool = False
    stop: str = ""
    broken: bool = False
    others: tuple = ()


@dataclass(frozen=True)
class Session:
    """What writes, how, and what is written.

    write: (earlier turns, Turn, settings, seed) → the Turn with more in it, which was shown.
    parse_setting: (name, word, names) → value, or a UsageError that begins with the flag.
    converses: whether prompts are questions, each with those before it. copies: how many texts a prompt is given.
    settings: a frozen dataclass. seed: of the next text.
    turns: those that stand. steps: how it came to that, newest last: the turns that stood before, those after which a
        text was written, and what was typed for it, None to go on with the last.
    saved: the files that this session made.
    """

    write: object
    parse_setting: object
    converses: bool
    copies: int
    settings: object
    seed: int
    turns: tuple = ()
    steps: tuple = ()
    saved: frozenset = frozenset()


def follow(session, line):
    """The Session after a line, a prompt or a command. Raises UserError, and EOFError where it is the end."""
    if not line.strip():
        return more(session) if session.turns or not session.converses else session
    if not line.startswith("/"):
        return _write(session, session.turns, line.rstrip("\r\n"))
    name, *rest = line.split(maxsplit=1)
    name = OTHER_NAMES.get(name, name)
    if name not in COMMANDS:
        raise UserError(f"{name}: 그런 명령이 없습니다. {_suggest_command(name)}")
    return COMMANDS[name][0](session, *(word.strip() for word in rest))


def _write(session, earlier, line):
    """Have a text written after `earlier` turns, for `line`, or with more in the last of them (None)."""
    step = session.turns, earlier, line
    *before, turn = earlier if line is None else (*earlier, Turn(line))
    others = turn.others
    for _ in range(session.copies):
        written = replace(session.write(before, turn, session.settings, session.seed), others=others)
        others = (*others, written.text)
        # A function of the one before: what was typed and the first seed tell all of a session.
        session = replace(session, seed=random.Random(session.seed).getrandbits(32))
        if written.broken:
            break
    return replace(session, turns=(*before, written), steps=(*session.steps, step))


def more(session, _=""):
    if not session.turns:
        if session.converses:
            raise _nothing_yet(session)
        return _write(session, (), "")
    if session.converses and session.turns[-1].ended:
        raise UserError("답이 끝났습니다. 다음 말을 치거나, /again으로 답을 다시 받으세요.")
    return _write(session, session.turns, None)


def again(session, _=""):
    if not session.steps:
        raise _nothing_yet(session)
    _, earlier, line = session.steps[-1]
    return _write(session, earlier, line)


def _nothing_yet(session):
    if session.converses:
        return UserError("아직 받은 답이 없습니다. 말을 먼저 치세요.")
    return UserError("아직 쓴 글이 없습니다. 앞글을 먼저 치세요.")


def undo(session, _=""):
    if not session.steps:
        raise UserError("되돌릴 것이 없습니다.")
    *steps, (turns, _, _) = session.steps
    text = turns[-1].prompt + ("\n" if session.converses else "") + turns[-1].text if turns else ""
    say(f"되돌렸습니다. {f'여기까지 있습니다: {_tail(text)}' if text else '쓴 글이 없습니다.'}")
    return replace(session, turns=turns, steps=tuple(steps))


def _tail(text, most=60):
    text = " ".join(text.split())
    return text if len(text) <= most else f"…{text[-most:]}"


def new(session, _=""):
    say("새로 시작합니다.")
    if not session.turns:
        return session
    step = session.turns, (), session.turns[-1].prompt  # the prompt can be written again, with nothing before it
    return replace(session, turns=(), steps=(*session.steps, step))


def save(session, name="", overwrites=False):
    name = _unquote(name)
    if not name:
        raise UserError("파일 이름도 주세요 (예: /save 글.txt).")
    if not session.turns:
        raise UserError("아직 쓴 글이 없어 저장할 것이 없습니다.")
    path = Path(os.path.expanduser(name))  # "~초고.txt" is a file where there is no such user
    try:
        there = path.exists()
        fits = overwrites or path.is_dir() or path.resolve() in session.saved  # of a folder, /save! is no way on
        _write_file(path, _whole(session), fits)
    except FileExistsError:
        raise UserError(f"{path}: 이미 있습니다. 다른 이름을 주세요. 덮어쓰려면 /save! {name}") from None
    except OSError as error:
        error.filename = str(path)  # the error of a full disk names none
        raise UserError(describe_os_error(error)) from None
    except ValueError:  # a NUL, half a surrogate pair
        raise UserError("파일 이름에 쓸 수 없는 글자가 있습니다. 다른 이름을 주세요.") from None
    say(f"{path}에 {'덮어썼습니다' if there else '저장했습니다'}.")
    return replace(session, saved=session.saved | {path.resolve()})


def _write_file(path, text, replaces):
    """Write a file, whole or not at all; one that is there stays as it was until all of the new one is on the disk."""
    if not (replaces and path.is_file()):
        is_new, file = not os.path.lexists(path), path.open("w" if replaces else "x", encoding="utf-8")
        try:
            with file:
                file.write(text)
        except OSError:
            if is_new:
                path.unlink(missing_ok=True)  # half of it, where the disk is full
            raise
        return
    path.open("r+").close()  # refused where it may not be written
    target = path.resolve()  # of a link, what it leads to
    beside = target.with_name(f".{secrets.token_hex(8)}")
    try:
        with beside.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(target, beside)
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def _whole(session):
    """All that was written: texts, or a conversation."""
    if session.converses:
        return "\n".join(f"나: {turn.prompt.strip()}\n모델: {turn.text.strip()}\n" for turn in session.turns)
    texts = [turn.prompt + text for turn in session.turns for text in (*turn.others, turn.text)]
    return "\n".join(text.rstrip("\n") + "\n" for text in texts)


def seed(session, word=""):
    if word:
        session = replace(session, seed=_parse(session, "seed", word, ["seed"]))
    say(f"다음 글의 시드: {session.seed}")
    return session


def change(session, words=""):
    """`/set name value` as flags may be spelt: with an equals sign, dashes, quotes."""
    names = list(vars(session.settings))
    name, equals, word = re.fullmatch(r"(?:--)?([^\s=]*)\s*(=?)\s*(.*)", words, re.DOTALL).groups()
    name = name.replace("-", "_")
    if name == "seed":
        return seed(session, word)
    if name in NO_VALUE and equals and not word:
        session = replace(session, settings=replace(session.settings, **{name: None}))
    elif word or equals or name not in ("", *names):  # one that there is not is refused
        value = _parse(session, name, _unquote(word), names)
        session = replace(session, settings=replace(session.settings, **{name: value}))
    for each in [name] if name else names:
        say(f"  {each} = {_as_word(getattr(session.settings, each))}")
    return session


def _parse(session, name, word, names):
    try:
        return session.parse_setting(name, word, names)
    except UsageError as error:
        raise UserError(str(error).removeprefix("--")) from None


def _as_word(value):
    """A setting as a flag takes it."""
    if isinstance(value, list):
        return " ".join(word.replace("\n", "\\n").replace("\t", "\\t") for word in value)
    return str(value).lower() if isinstance(value, bool) else "(없음)" if value is None else str(value)


def _unquote(word):
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] in "\"'" else word


def _suggest_command(name):
    """A sentence that names the most similar command, or the way to list them all."""
    known = [] if name == "/" else [*COMMANDS, *OTHER_NAMES]
    similar = [each for each in known if each.startswith(name)] or difflib.get_close_matches(name, known, n=1)
    return f"혹시 {similar[0]}인가요?" if similar else "/help로 명령을 볼 수 있습니다."


def show_help(session, _=""):
    question, text = ("말", "답") if session.converses else ("앞글", "글")
    say(f"{question}을 치고 Enter를 누르면 {text}을 씁니다. 쓰는 동안 Ctrl-C를 누르면 그 {text}만 멈춥니다.")
    for name, (_, words, meaning) in COMMANDS.items():
        usage = f"{name} {words}"
        say(f"  {usage}{' ' * (20 - width(usage))}{meaning}")
    say(
        "여러 줄은 붙여 넣으면 한 번에 들어갑니다. 직접 줄을 바꾸려면 Alt-Enter(Esc 다음 Enter)를 누르세요.\n"
        "쓰는 동안 친 글자는 보이지 않다가 다음 줄에 들어갑니다. 이때 그냥 누른 Enter는 버립니다."
    )
    return session


def leave(session, _=""):
    raise EOFError


COMMANDS = {
    "/more": (more, "", "이어서 더 씁니다. 그냥 Enter를 눌러도 같습니다"),
    "/again": (again, "", "마지막 것을 다시 씁니다"),
    "/undo": (undo, "", "마지막으로 한 일(쓰기, 다시 쓰기, /new)을 되돌립니다"),
    "/new": (new, "", "지금까지의 글이나 대화를 치우고 새로 시작합니다"),
    "/save": (save, "파일", "지금까지 쓴 것을 파일에 저장합니다"),
    "/save!": (partial(save, overwrites=True), "파일", "이미 있는 파일이라도 덮어씁니다"),
    "/seed": (seed, "[수]", "다음 글의 시드를 보거나 정합니다"),
    "/set": (change, "[이름 [값]]", "설정을 보거나 바꿉니다 (예: /set top_p 0.9)"),
    "/help": (show_help, "", "이 도움말을 봅니다"),
    "/quit": (leave, "", "끝냅니다 (Ctrl-D도 같음)"),
}
NO_VALUE = ("stop", "token_healing")  # the settings that may be without one, as after "/set stop="
# As other programs call them.
OTHER_NAMES = {
    "/exit": "/quit", "/bye": "/quit", "/retry": "/again", "/regen": "/again", "/continue": "/more", "/clear": "/new",
    "/reset": "/new", "/?": "/help",
}  # fmt: skip
