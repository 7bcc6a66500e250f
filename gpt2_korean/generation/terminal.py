"""Prompts typed one after another, each continued or answered as it comes: a terminal's session with a model."""

import sys
import time
from dataclasses import replace
from functools import partial

import torch

from gpt2_korean.generation.commands import COMMANDS, Session, Turn, follow
from gpt2_korean.generation.keyboard import open_keyboard
from gpt2_korean.generation.output import describe_empty, is_empty, print_piece, put_out, record_text
from gpt2_korean.generation.write import (
    BY_ITSELF,
    LOOK_EVERY_IN_STREAM,
    read_after_turns,
    stream_pieces,
    tell_of_unread,
)
from gpt2_korean.messages import UserError, say, takes_colour, warn
from gpt2_korean.text.prompts import read_prompts


def converse(model, out, settings, parse_setting, copies):
    """Continue or answer what is typed until /quit or the end of input.

    model: a LoadedModel. out: an Output. settings: see stream_pieces; /set changes them by `parse_setting`, see
        Session. copies: how many texts a prompt is given.
    """
    session = Session(partial(write_turn, model, out), parse_setting, out.alone, copies, settings, out.model.seed)
    words = [*COMMANDS, *(f"/set {name} " for name in vars(settings))]
    with open_keyboard("\n나> " if out.alone else "\n앞글> ", words) as read_line:
        if sys.stdin.isatty():
            asked = "말" if out.alone else "앞글(프롬프트)"
            say(f"{asked}을 치고 Enter를 누르세요. 그냥 Enter는 이어 쓰기, /help는 도움말, /quit은 끝내기입니다.")
        follow_lines(session, read_line)


def follow_lines(session, read_line):
    """Follow what read_line() gives until it raises EOFError; returns what the session then is."""
    while True:
        try:
            session = follow(session, read_line())
        except EOFError:
            return session
        except KeyboardInterrupt:
            say("\n끝내려면 /quit을 치거나 Ctrl-D를 누르세요.")
        except UserError as error:
            say(error)


def write_turn(model, out, earlier, turn, settings, seed):
    """Show how a Turn goes on after `earlier` ones; returns it with that in it, broken off where Ctrl-C was pressed.

    One that had ended goes on for a token at least, and behind a line end that stopped it. Raises EOFError where
    nobody reads any more.
    """
    [prompt] = read_prompts([turn.prompt])
    before = turn.text
    if turn.ended:
        settings = replace(settings, min_length=max(1, settings.min_length))
        if not turn.stop.strip():
            before += turn.stop
            print_piece(turn.stop)
    if not turn.text:
        tell_of_unread(model, [prompt])
    pairs = [(each.prompt, each.text) for each in earlier if not each.broken]
    out = replace(out, model=replace(out.model, seed=seed))
    torch.manual_seed(seed)
    shown, tokens, ended, stop, since, broken, reading = [], 0, None, "", time.perf_counter(), False, True
    read = read_after_turns(model, out.prompts, pairs, prompt, settings.length, before)
    stream = stream_pieces(model, [read], settings, LOOK_EVERY_IN_STREAM, warn)  # what it tells stands before the text

    def pieces():
        nonlocal tokens, ended, stop
        for steps, (piece,) in stream:
            tokens, ended, stop = tokens + steps, piece.ended, piece.stop or stop
            shown.append(piece.text)
            yield piece.text

    try:
        _, reading = put_out(out, prompt, pieces(), settings, written=before)
    except KeyboardInterrupt:
        broken = True
        say("\n(멈췄습니다. 그냥 Enter를 누르면 이어 씁니다.)")
    text = "".join(shown)
    if broken and text:
        record_text(out, prompt, text, settings, written=before)
    if not reading:
        raise EOFError
    rate = tokens / (time.perf_counter() - since)
    _say_dimly(f"{tokens}토큰 · 초당 {rate:.{0 if rate >= 10 else 1}f}토큰 · 시드 {seed}")
    if not broken and is_empty(text, settings):
        say(describe_empty(1, 1, settings, "/set min_length "))
    return Turn(prompt, before + text, ended=ended in BY_ITSELF and not broken, stop=stop, broken=broken)


def _say_dimly(line):
    dim = "\033[2m{}\033[0m" if takes_colour(sys.stderr) else "{}"
    print(dim.format(line), file=sys.stderr, flush=True)
