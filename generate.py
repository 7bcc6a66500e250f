"""Continue a prompt with a trained model: argv → options → device → model → ids → text on stdout."""

import secrets
import sys

from gpt2_korean.checkpoints import find_model
from gpt2_korean.generate_options import SETTINGS, parse_generate_options, parse_setting
from gpt2_korean.messages import run_script, say, warn
from gpt2_korean.prompts import read_prompts


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

    import torch
    from tqdm import tqdm

    from gpt2_korean import device
    from gpt2_korean.interactive import converse
    from gpt2_korean.loading import load
    from gpt2_korean.results import keep, show
    from gpt2_korean.writing import write_batches, write_each

    jobs = [prompt for prompt in prompts for _ in range(options.num_return_sequences)]
    streams = options.stream if options.stream is not None else len(jobs) == 1 and sys.stdout.isatty()
    batch_size = 1 if streams or options.interactive else min(options.batch_size, len(jobs))

    chosen = device.choose_device(options.device)
    dtype = device.choose_dtype(chosen, options.dtype, options.quantize)
    trusted = options.trust_remote_code
    model = load(source, chosen, dtype, batch_size, options.quantize, options.allow_invalid_utf8, trusted)
    seed = secrets.randbits(32) if options.seed is None else options.seed
    torch.manual_seed(seed)
    say(f"장치: {device.describe_device(chosen)} · 자료형: {device.name_dtype(dtype)} · 시드: {seed}")

    settings = {name: getattr(options, name) for name in SETTINGS}
    about = {name: getattr(options, name) for name in ("allow_invalid_utf8", "quantize")}
    about |= {"model_name_or_path": str(source), "device": chosen.type, "dtype": device.name_dtype(dtype)}

    def put_out(prompt, pieces, heading=""):
        """Show a text, and keep it if that is wanted; False where nobody would have it."""
        text, reading = show(pieces, heading, to_end=bool(options.output_file))
        if options.output_file:
            keep(options.output_file, prompt, text, seed, {**about, **settings})
        return reading or bool(options.output_file)

    if options.interactive:

        def answer(line):
            for prompt, pieces in write_each(model, read_prompts([line] * options.num_return_sequences), settings):
                put_out(prompt, pieces)

        converse(answer, settings, parse_setting)
        return 0

    shown = True if streams else None  # None: where stderr is a terminal
    with tqdm(total=len(jobs) * options.length, desc="글쓰기", unit="토큰", leave=False, disable=shown) as progress:
        if streams:
            texts = write_each(model, jobs, settings)
        else:
            texts = write_batches(model, jobs, settings, batch_size, progress.update)
        for number, (prompt, pieces) in enumerate(texts, 1):
            heading = f"=== {number}/{len(jobs)} ===\n" if len(jobs) > 1 else ""
            if not put_out(prompt, pieces, heading):
                say("출력을 읽는 쪽이 먼저 닫혀 여기서 멈춥니다.")
                return 0
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
