"""Continue a prompt with a trained model: argv → options → device → model → ids → text on stdout."""

import json
import os
import secrets
import sys

from gpt2_korean.checkpoints import find_model
from gpt2_korean.messages import run_script, say, warn
from gpt2_korean.options import parse_generate_options
from gpt2_korean.prompts import complete_text, encode_prompt, read_prompts


def main(argv=None):
    # Whatever the command line alone can show to be wrong is refused here, before torch and
    # transformers are imported, which takes seconds.
    options = parse_generate_options(argv)
    prompts = read_prompts(options.prompt, options.prompt_file)
    source, notice = find_model(options.model_name_or_path)
    if notice:
        warn(notice)

    import torch
    from tqdm import tqdm

    from gpt2_korean import device
    from gpt2_korean.decoding import fit_prompt, generate_ids
    from gpt2_korean.model import context_length, load_pretrained, show_downloads_only
    from gpt2_korean.sampling import Sampling
    from gpt2_korean.utf8 import build_tables

    show_downloads_only()
    chosen = device.choose_device(options.device)
    dtype = device.choose_dtype(chosen, options.dtype)
    ipex, ipex_notice = device.load_ipex(chosen)
    if ipex_notice:
        say(ipex_notice)
    model, tokenizer = load_pretrained(source, dtype, "--model_name_or_path")
    model = model.to(chosen).eval()
    if ipex is not None:
        model = ipex.optimize(model, dtype=dtype, inplace=True)
    seed = secrets.randbits(32) if options.seed is None else options.seed
    generator = torch.Generator(chosen).manual_seed(seed)
    say(f"장치: {device.describe_device(chosen)} · 자료형: {str(dtype).removeprefix('torch.')} · 시드: {seed}")

    sampling = Sampling(options.temperature, options.top_k, options.top_p, options.repetition_penalty)
    whole_characters = None if options.allow_invalid_utf8 else build_tables(tokenizer, model.config.vocab_size, chosen)
    context = context_length(model.config)
    encoded = [encode_prompt(prompt, tokenizer) for prompt in prompts]
    longest = max(map(len, encoded))
    kept = max(len(fit_prompt(ids, options.length, context)) for ids in encoded)
    if kept < longest:
        warn(f"앞글이 모델의 문맥({context}토큰)에 비해 길어 앞쪽 {longest - kept}토큰은 빼고 이어 씁니다.")
    elif context is not None and longest + options.length - 1 > context:
        warn(f"글이 모델의 문맥({context}토큰)보다 길어지면 앞쪽부터 잊으며 이어 씁니다.")

    copies = options.num_return_sequences
    jobs = [index for index in range(len(prompts)) for _ in range(copies)]
    settings = {
        "model_name_or_path": str(source),
        "length": options.length,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "temperature": options.temperature,
        "repetition_penalty": options.repetition_penalty,
        "allow_invalid_utf8": options.allow_invalid_utf8,
        "device": chosen.type,
        "dtype": str(dtype).removeprefix("torch."),
    }
    output_file = open(options.output_file, "a", encoding="utf-8") if options.output_file else None  # noqa: SIM115
    reader_left = False
    for start in range(0, len(jobs), options.batch_size):
        batch = jobs[start : start + options.batch_size]
        with tqdm(total=options.length, desc="글쓰기", unit="토큰", leave=False, disable=None) as progress:
            rows = generate_ids(
                model, [encoded[index] for index in batch], options.length, sampling, tokenizer.eos_token_id,
                context, generator, progress.update, whole_characters,
            )  # fmt: skip
        for number, (index, new_ids) in enumerate(zip(batch, rows, strict=True), start + 1):
            text = complete_text(prompts[index], encoded[index], new_ids, tokenizer)
            if output_file:
                record = {"prompt": prompts[index], "text": text, "seed": seed, "settings": settings}
                print(json.dumps(record, ensure_ascii=False), file=output_file, flush=True)
            heading = f"=== {number}/{len(jobs)} ===\n" if len(jobs) > 1 else ""
            reader_left = reader_left or not print_result(heading + text)
            if reader_left and not output_file:
                say("출력을 읽는 쪽이 먼저 닫혀 여기서 멈춥니다.")
                return 0
    return 0


def print_result(text):
    """Print on stdout; False once nobody reads it any more (`| head -1`)."""
    try:
        print(text, flush=True)
        return True
    except BrokenPipeError:
        # What is left in the buffer would raise again when Python closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False


if __name__ == "__main__":
    sys.exit(run_script(main))
