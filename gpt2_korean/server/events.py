"""What a page asks for → the events that answer it, as they come: a text, piece by piece, or suggestions."""

import secrets
import shlex
import time
from dataclasses import dataclass, replace

import torch

from gpt2_korean.cli.generate_options import GenerateOptions, Settings, to_words
from gpt2_korean.device import describe_device
from gpt2_korean.generation import write
from gpt2_korean.generation.log_probabilities import log_probabilities
from gpt2_korean.text.conversations import PROMPT
from gpt2_korean.windows import join_for_windows

SUGGESTIONS, SUGGESTED_TOKENS = 3, 10


@dataclass(frozen=True)
class Page:
    """What a page writes with and starts from.

    model: a LoadedModel. options: those of the command line; without a seed each text has a new one.
    prompt: the text that stands there first.
    """

    model: object
    options: GenerateOptions
    prompt: str


@dataclass(frozen=True, eq=False)
class Row:
    """One text of a request of OpenAI's API. prompt: as stream_pieces takes it, of `read` tokens. number: which of the
    request's texts it is. logprobs: of how many likeliest tokens it is to be told, None: of none. echo: the text of the
    prompt where it is to stand in front, with its log-probabilities."""

    prompt: list
    read: int
    settings: Settings
    seed: int | None
    number: int
    logprobs: int | None
    echo: str | None


@dataclass(frozen=True)
class Asked:
    """A request that was checked. turns: the (prompt, text) pairs before it."""

    prompt: str
    turns: list[tuple[str, str]]
    settings: Settings
    seed: int


def about_model(page):
    """What stands above the text."""
    decoder = page.model.decoder
    name, device = page.options.model.model_name_or_path, describe_device(decoder.device)
    return {"name": name, "device": device, "context": decoder.context}


def write_text(page, asked):
    """Yield the model, the seed, the equal commands, the tokens that are read and a notice or None, of what the model
    cannot read or will forget; then the text or the answer, piece by piece, with the tokens and seconds so far; and
    last whether the model or a stop text ended it.
    """
    began, model, notices = time.perf_counter(), page.model, []
    read = write.read_after_turns(model, page.options.prompts, asked.turns, asked.prompt, asked.settings.length)
    write.tell_of_unread(model, [asked.prompt], notices.append)
    torch.manual_seed(asked.seed)
    chunks = write.stream_pieces(model, [read], asked.settings, write.LOOK_EVERY_IN_STREAM, notices.append)
    commands, reads = equal_commands(page.options, read, asked), len(write.encode(model, read))
    began_with = {"model": about_model(page), "seed": str(asked.seed), "commands": commands, "read": reads}
    yield began_with | {"notice": " ".join(notices) or None}
    tokens = 0
    for steps, (piece,) in chunks:
        tokens += steps
        yield {"text": piece.text, "tokens": tokens, "seconds": time.perf_counter() - began}
    yield {"ended": piece.ended in write.BY_ITSELF}


def equal_commands(options, read, asked):
    """The generate.py command that continues `read`, the prompt and all before it, as the page of `options` does:
    shell ("posix" or "windows") → str, None where that shell cannot be given the text.

    None for a conversation of a chat model that has earlier turns: a command asks without any.
    """
    if isinstance(read, str):
        prompts = replace(options.prompts, prompt=[read], prompt_template=None)
    elif any(turn["role"] == "assistant" for turn in read):
        return None
    else:
        prompts = replace(options.prompts, prompt=[asked.prompt])
    model = replace(options.model, seed=asked.seed)
    equal = replace(options, model=model, prompts=prompts, settings=asked.settings)
    words = ["python", "generate.py", *to_words(equal)]
    return {"posix": shlex.join(words), "windows": join_for_windows(words)}


def write_rows(page, rows):
    """Yield a list every few steps: for each of `rows`, Rows of equal settings, `{"text"}`, what it adds, or None. A
    prompt that is echoed comes first. The last of a row has `ended`, see Piece, and `tokens`, how many it has, with the
    one that ended it.

    Those that are to tell log-probabilities end last, with what logprobs_of gives.
    """
    echoes = [None if row.echo is None else {"text": row.echo} for row in rows]
    if any(echoes):
        yield echoes
    model, settings = page.model, rows[0].settings
    seed = secrets.randbits(32) if rows[0].seed is None else (rows[0].seed + rows[0].number) % 2**63
    torch.manual_seed(seed)
    written, why = [[] for _ in rows], [None] * len(rows)
    prompts = [row.prompt for row in rows]
    for _, pieces in write.stream_pieces(model, prompts, settings, write.LOOK_EVERY_IN_STREAM, tell=lambda _: None):
        events = [None] * len(rows)
        for place, (row, piece) in enumerate(zip(rows, pieces, strict=True)):
            if why[place]:
                continue
            events[place], why[place] = {"text": piece.text}, piece.ended
            written[place] += piece.ids
            if piece.ended == "end":
                written[place].append(write.end_of(model, row.prompt))
            if piece.ended and row.logprobs is None:
                events[place] |= {"ended": piece.ended, "tokens": len(written[place])}
        yield events
    for place, row in enumerate(rows):
        if row.logprobs is not None:
            event = {"text": "", "ended": why[place], "tokens": len(written[place])}
            event |= logprobs_of(model, row, written[place])
            yield [event if other is row else None for other in rows]


def logprobs_of(model, row, new):
    """`{"ids", "logprobs"}` of `new`, the ids that were written for a Row, after its prompt where that is echoed.

    logprobs: see log_probabilities; None for the first token of all, of which nothing can be said.
    """
    length = row.settings.length
    ids = write.cut_last_turn(model, row.prompt, write.encode(model, row.prompt), length)
    read, unread = [(ids, new)], []
    if row.echo is not None:
        unread, context = ids[:1], model.decoder.context
        fits = context is None or len(ids) + max(len(new), length) <= context + 1
        read = [(unread, ids[1:] + new)] if fits else [(unread, ids[1:]), (ids, new)]
    told = [each for part in read for each in log_probabilities(model.decoder, *part, length, row.logprobs)]
    return {"ids": unread + [index for _, after in read for index in after], "logprobs": [None] * len(unread) + told}


def suggest_texts(page, asked):
    """Yield `{"suggestions"}`, a list of str: at last several short ways to go on with the prompt, each a line at most
    and its last word whole; before that none, and none for a chat model, which has learnt to answer and not to ask.
    """
    if page.model.chat is not None:
        yield {"suggestions": []}
        return
    template = page.options.prompts.prompt_template
    opening = (template or PROMPT).partition(PROMPT)[0]
    whole = write.put_in_context(page.model, template, asked.turns, opening + asked.prompt, SUGGESTED_TOKENS)
    stop = [*(asked.settings.stop or ()), "\n"]
    # A word is under way as often as not where somebody stops typing.
    own = {"length": SUGGESTED_TOKENS, "min_length": 0, "end_at_sentence": False, "token_healing": True}
    short = replace(asked.settings, stop=stop, **own)
    texts = [""] * SUGGESTIONS
    for _, new in write.stream_texts(page.model, [whole] * SUGGESTIONS, short, write.LOOK_EVERY, lambda _: None):
        texts = [text + more for text, more in zip(texts, new, strict=True)]
        yield {"suggestions": []}  # between two steps the work can be ended
    if asked.prompt.endswith(" "):
        texts = [text.lstrip(" ") for text in texts]
    texts = [text[: text.rfind(" ")] if text.rfind(" ") > 0 else text for text in texts]
    yield {"suggestions": list(dict.fromkeys(filter(str.strip, texts)))}
