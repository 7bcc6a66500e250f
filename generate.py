"""Continue a prompt with a trained model: argv → options → device → model → ids → text on stdout."""

import secrets
import shlex
import sys
from functools import partial

from gpt2_korean.cli.generate_flags import SETTINGS, parse_generate_options, parse_setting, to_words
from gpt2_korean.messages import run_script, say, warn
from gpt2_korean.model.find import find_model
from gpt2_korean.text.conversations import fill, put_after_turns
from gpt2_korean.text.prompts import read_prompts


def main(argv=None):
    # Whatever the command line alone can show to be wrong is refused here, before torch is imported,
    # which takes seconds.
    options = parse_generate_options(argv)
    prompts = [] if options.interactive else read_prompts(options.prompt, options.prompt_file)
    source, notice = find_model(options.model_name_or_path)
    if notice:
        warn(notice)
    if options.output_file:
        open(options.output_file, "a", encoding="utf-8").close()  # refused now, not when the text is written
    if options.serve:
        from gpt2_korean.server.app import open_port, serve

        port = open_port(options.host, options.port)

    import torch
    from tqdm import tqdm

    from gpt2_korean import device
    from gpt2_korean.generation.load import load
    from gpt2_korean.generation.output import keep, show
    from gpt2_korean.generation.terminal import converse
    from gpt2_korean.generation.write import fits, write_batches, write_each

    template = options.prompt_template
    jobs = [prompt for prompt in prompts for _ in range(options.num_return_sequences)]
    filled = [fill(template, prompt) for prompt in jobs]
    streams = options.stream if options.stream is not None else len(jobs) == 1 and sys.stdout.isatty()
    batch_size = 1 if streams or options.interactive or options.serve else min(options.batch_size, len(jobs))

    chosen = device.choose_device(options.device)
    dtype = device.choose_dtype(chosen, options.dtype, options.quantize)
    trusted = options.trust_remote_code
    model = load(source, chosen, dtype, options.quantize, options.allow_invalid_utf8, trusted)
    seed = secrets.randbits(32) if options.seed is None else options.seed
    torch.manual_seed(seed)
    say(f"장치: {device.describe_device(chosen)} · 자료형: {device.name_dtype(dtype)} · 시드: {seed}")

    settings = {name: getattr(options, name) for name in SETTINGS}
    about = {name: getattr(options, name) for name in ("allow_invalid_utf8", "quantize", "prompt_template")}
    about |= {"model_name_or_path": str(source), "device": chosen.type, "dtype": device.name_dtype(dtype)}

    if options.serve:

        def command(values):
            return shlex.join(["python", "generate.py", *to_words({**vars(options), **values})])

        serve(port, model, settings, template, command, prompts[0], options.seed)
        return 0

    def put_out(prompt, pieces, heading=""):
        """Show a text, and keep it if that is wanted; returns it and whether anybody would have one more."""
        opening = "" if template else prompt
        text, reading = show(pieces, heading + opening, to_end=bool(options.output_file), strip=bool(template))
        if options.output_file:
            whole = text.strip() if template else prompt + text
            keep(options.output_file, prompt, whole, seed, {**about, **settings})
        return text, reading or bool(options.output_file)

    if options.interactive:

        def answer(line, turns):
            [prompt] = read_prompts([line])
            room = partial(fits, model, length=settings["length"])
            whole = put_after_turns(template, turns, fill(template, prompt), room)
            for pieces in write_each(model, [whole] * options.num_return_sequences, settings):
                text, _ = put_out(prompt, pieces)
            return text

        converse(answer, settings, parse_setting)
        return 0

    shown = True if streams else None  # None: where stderr is a terminal
    with tqdm(total=len(jobs) * options.length, desc="글쓰기", unit="토큰", leave=False, disable=shown) as progress:
        if streams:
            texts = write_each(model, filled, settings)
        else:
            texts = write_batches(model, filled, settings, batch_size, progress.update)
        for number, (prompt, pieces) in enumerate(zip(jobs, texts, strict=True), 1):
            heading = f"=== {number}/{len(jobs)} ===\n" if len(jobs) > 1 else ""
            if not put_out(prompt, pieces, heading)[1]:
                say("출력을 읽는 쪽이 먼저 닫혀 여기서 멈춥니다.")
                return 0
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
