"""Prompts that are given all at once → their texts, one after another: what generate.py does unless it is asked to
listen to a terminal (terminal.py) or to a page (server/).
"""

import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import torch
from tqdm import tqdm

from gpt2_korean.generation.batch_size import choose_batch_size
from gpt2_korean.generation.output import describe_empty, is_empty, put_out
from gpt2_korean.generation.write import (
    LOOK_EVERY,
    LOOK_EVERY_IN_STREAM,
    encode,
    is_conversation,
    read_after_turns,
    stream_texts,
    tell_of_unread,
)
from gpt2_korean.messages import is_out_of_memory, particle, say, warn
from gpt2_korean.text.prompts import encode_prompts

# Batches among which prompts are sorted by length: with more of them there is less padding (4 halve it, 8 leave a
# third, benchmarks/RESULTS.md), and the first text comes later.
WINDOW = 4


def write_all(model, out, prompts, settings, options, done=0):
    """Continue or answer each of `prompts` as often as is wanted, as long as somebody wants the texts.

    model, settings: see write.stream_texts. out: an Output. options: the ResultOptions of the command line.
    done: how many of the texts there are already.
    """
    copies = options.num_return_sequences
    tell_of_unread(model, prompts)
    read = [read_after_turns(model, out.prompts, [], prompt, settings.length) for prompt in prompts]
    if model.chat is None:  # all at once: by all cores
        read = encode_prompts(read, model.tokenizer, model.eos_token_id)
    jobs = [each for each in read for _ in range(copies)]
    streams = options.stream if options.stream is not None else len(jobs) == 1 and sys.stdout.isatty()
    longest = len(encode(model, max(read, key=_size)))
    most = settings.length * (2 if settings.end_at_sentence else 1)  # new tokens
    size = 1 if streams else options.batch_size or choose_batch_size(model.decoder, longest, most)
    if len(jobs) > size and not (streams or options.batch_size):
        say(f"한 번에 {size}편씩 씁니다(--batch_size).")
    out, hidden, empty = replace(out, batch_size=size), streams or None, 0  # None: unless stderr is a terminal
    tokens = {"total": len(jobs) * settings.length, "initial": done * settings.length}
    bar = tqdm(**tokens, desc="글쓰기", unit="토큰", leave=False, disable=hidden)
    with tell_way_on(out.file), bar as progress:
        if streams:
            texts = write_each(model, jobs, settings, out.model.seed, done)
        else:
            texts = write_batches(model, jobs, settings, size, out.model.seed, done, progress.update)
        for number, pieces in enumerate(texts, done):
            prompt = prompts[number // copies]
            heading = f"=== {number + 1}/{len(jobs)} ===\n" if len(jobs) > 1 else ""
            if heading and out.alone:  # an answer needs its question
                heading += f"나> {prompt}\n"
            text, reading = put_out(out, prompt, pieces, settings, heading)
            if not reading:
                say("출력을 읽는 쪽이 먼저 닫혀 여기서 멈춥니다.")
                return
            empty += is_empty(text, settings)
    if empty:
        say(describe_empty(empty, len(jobs) - done, settings))


@contextmanager
def tell_way_on(file):
    """Say at Ctrl-C how to go on: the same command alone would write all texts anew, behind those in the file."""
    try:
        yield
    except KeyboardInterrupt:
        if file:
            say("같은 명령에 --resume을 더하면 남은 글부터 이어 씁니다.")
        raise


def write_each(model, jobs, settings, seed, done=0):
    """Yield for each of `jobs`, prompts, from number `done` on an iterator over the pieces of the text after it."""
    tell = cache(warn)
    for number in range(done, len(jobs)):
        torch.manual_seed(seed_of(seed, number))
        yield (new for _, (new,) in stream_texts(model, [jobs[number]], settings, LOOK_EVERY_IN_STREAM, tell))


def write_batches(model, jobs, settings, size, seed, done, on_tokens):
    """As write_each, `size` texts at a time, fewer where memory runs out, each in one piece; calls `on_tokens` with the
    tokens done."""
    tell, written, following = cache(warn), {}, done  # written: number → text, of those that come before their turn
    for batch in plan_batches(jobs, size):
        parts = [batch] if max(batch) >= done else []
        while parts:
            part = parts.pop()
            if len(part) > size:
                parts += [part[size:], part[:size]]
                continue
            torch.manual_seed(seed_of(seed, part[0]))
            try:
                texts = _write_batch(model, [jobs[number] for number in part], settings, tell, on_tokens)
            except (RuntimeError, MemoryError) as error:
                if len(part) == 1 or not is_out_of_memory(error):
                    raise
                size = 1 << (len(part) - 1).bit_length() - 1
                way_on = f"다음에는 --batch_size={particle(str(size), '을/를')} 주세요"
                warn(f"장치의 메모리가 모자라 한 번에 {size}편씩 씁니다. {way_on}.")
                parts.append(part)
            else:
                written |= {number: text for number, text in zip(part, texts, strict=True) if number >= done}
        while following in written:
            yield [written.pop(following)]
            following += 1


def plan_batches(jobs, size):
    """Yield the numbers of `jobs`, prompts, that are written together, by length: prompts about as long as each other.

    Batches are of equal size and those of the longest prompts come first, so that one cache serves them all. They do
    not depend on how many texts are done, so that a resumed run draws what it would have drawn.
    """
    for start in range(0, len(jobs), WINDOW * size):
        window = range(start, min(start + WINDOW * size, len(jobs)))
        by_length = sorted(window, key=lambda number: _size(jobs[number]))
        batches = -(-len(window) // size)
        each = -(-len(window) // batches)
        for first in reversed(range(0, len(window), each)):
            yield by_length[first : first + each]


def seed_of(seed, number):
    """The seed of the texts from the `number`-th on that are written together; that of number 0 is `seed`."""
    return (seed + 0x9E3779B97F4A7C15 * number) % 2**63  # far from the seeds that a person tries one after another


def _size(prompt):
    """How long a prompt is: ids; about how long, a str or a conversation."""
    return len(str(prompt)) if is_conversation(prompt) else len(prompt)


def _write_batch(model, prompts, settings, tell, on_tokens):
    texts, left = [""] * len(prompts), settings.length
    for steps, new in stream_texts(model, prompts, settings, LOOK_EVERY, tell):
        texts = [text + more for text, more in zip(texts, new, strict=True)]
        steps = min(steps, left)  # a sentence may be finished beyond it
        on_tokens(steps * len(prompts))
        left -= steps
    on_tokens(left * len(prompts))  # those that it needed less, all its texts having ended
    return texts
