"""Prompts that are given all at once → their texts, one after another: what generate.py does unless it is asked to
listen to a terminal (terminal.py) or to a page (server/).
"""

import sys

from tqdm import tqdm

from gpt2_korean.generation.output import describe_empty, is_empty, put_out
from gpt2_korean.generation.write import read_after_turns, write_batches, write_each
from gpt2_korean.messages import say


def write_all(model, out, prompts, settings, options):
    """Continue or answer each of `prompts` as often as is wanted, as long as somebody wants the texts.

    model, settings: see write.stream_texts. out: an Output. options: the ResultOptions of the command line.
    """
    jobs = [prompt for prompt in prompts for _ in range(options.num_return_sequences)]
    read = [read_after_turns(model, out.prompts, [], prompt, settings.length) for prompt in jobs]
    streams = options.stream if options.stream is not None else len(jobs) == 1 and sys.stdout.isatty()
    hidden = streams or None  # None: unless stderr is a terminal
    empty = 0
    with tqdm(total=len(jobs) * settings.length, desc="글쓰기", unit="토큰", leave=False, disable=hidden) as progress:
        if streams:
            texts = write_each(model, read, settings)
        else:
            texts = write_batches(model, read, settings, options.batch_size, progress.update)
        for number, (prompt, pieces) in enumerate(zip(jobs, texts, strict=True), 1):
            heading = f"=== {number}/{len(jobs)} ===\n" if len(jobs) > 1 else ""
            if heading and out.alone:  # an answer needs its question
                heading += f"나> {prompt}\n"
            text, reading = put_out(out, prompt, pieces, settings, heading)
            if not reading:
                say("출력을 읽는 쪽이 먼저 닫혀 여기서 멈춥니다.")
                return
            empty += is_empty(text, settings)
    if empty:
        say(describe_empty(empty, len(jobs), settings))
