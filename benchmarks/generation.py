"""Writing speed side by side, in one run: transformers' generate() and ours by PyTorch. peers.py: others, on a CPU.

    python benchmarks/generation.py                                    # random weights of gpt2-medium's size
    python benchmarks/generation.py --device=cpu --dtype float32 bfloat16 --batch 1 5 --length 100

Each figure is the median of three calls that sample (top_k 50, top_p 0.95, temperature 0.7, repetition_penalty
1.2) from prompts of 12 tokens and never end early. The first call of a kind is not among them; what it took
longer stands in a column of its own. The limit is what reading every weight once a step takes at the
bandwidth that copying reaches here.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from gpt2_korean.device import choose_device, choose_dtype, describe_device, name_dtype  # noqa: E402
from gpt2_korean.generation.choose_decoder import gpt2_decoder  # noqa: E402
from gpt2_korean.generation.loop import stream_ids  # noqa: E402
from gpt2_korean.generation.sampling import Sampling  # noqa: E402

SAMPLING = {"top_k": 50, "top_p": 0.95, "temperature": 0.7, "repetition_penalty": 1.2}
HEADINGS = (
    "what",
    "type",
    "batch",
    "new tokens",
    "tokens/s",
    "ms a step",
    "first token, ms",
    "first call, +s",
    "limit",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="the folder of a GPT-2; by default random weights of gpt2-medium's size")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", nargs="+", default=["auto"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 5, 64])
    parser.add_argument("--length", nargs="+", type=int, default=[100, 900])
    parser.add_argument("--static", action="store_true", help="generate() with its static cache too, which compiles")
    parser.add_argument("--ours_only", action="store_true", help="for what takes generate() minutes")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    torch.manual_seed(0)
    shape = GPT2Config(n_layer=24, n_embd=1024, n_head=16)
    source = GPT2LMHeadModel.from_pretrained(arguments.model) if arguments.model else GPT2LMHeadModel(shape)
    bandwidth, weights = copy_bandwidth(device), sum(each.numel() for each in source.parameters())
    print(f"{describe_device(device)}, torch {torch.__version__}: {weights:,} weights, {bandwidth / 1e9:.0f} GB/s\n")
    print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
    for name in arguments.dtype:
        dtype = choose_dtype(device, name)
        for what, kind, size, prepare in ways(source.eval(), device, dtype, arguments.static):
            if arguments.ours_only and what != "generate.py":
                continue
            for batch in arguments.batch:
                write, started = prepare(batch), time.perf_counter()
                write(2)
                first_call = time.perf_counter() - started
                first_token = median_seconds(lambda write=write: write(1), device)
                for length in arguments.length:
                    seconds = median_seconds(lambda write=write, length=length: write(length), device)
                    limit = bandwidth / (weights * size)  # steps a second
                    figures = (
                        what, kind, batch, length, f"{batch * length / seconds:,.0f}", f"{1000 * seconds / length:.2f}",
                        f"{1000 * first_token:.0f}", f"{first_call - 2 * first_token:.1f}",
                        f"{length / seconds / limit:.0%}",
                    )  # fmt: skip
                    print(f"| {' | '.join(map(str, figures))} |", flush=True)
                del write


def ways(source, device, dtype, static):
    """`(what, type, bytes a weight, prepare)`; prepare(batch) gives a function that writes a number of tokens."""
    size, name = torch.finfo(dtype).bits // 8, name_dtype(dtype)
    model = GPT2LMHeadModel(source.config).to(device=device, dtype=dtype).eval()
    model.load_state_dict(source.state_dict())
    yield "generate()", name, size, lambda batch: by_library(model, batch)
    if static:
        yield "generate(), static", name, size, lambda batch: by_library(model, batch, cache_implementation="static")
    yield "generate.py", name, size, lambda batch: by_us(source, device, dtype, batch)


def random_prompts(batch, vocab_size, tokens=12):
    return torch.randint(vocab_size, (batch, tokens), generator=torch.Generator().manual_seed(0))


def by_library(model, batch, **keywords):
    ids = random_prompts(batch, model.config.vocab_size).to(model.device)
    fixed = {"attention_mask": torch.ones_like(ids), "pad_token_id": 0, "eos_token_id": None, **SAMPLING, **keywords}
    return lambda length: model.generate(ids, do_sample=True, max_new_tokens=length, **fixed)


def by_us(source, device, dtype, batch):
    decoder = gpt2_decoder(source.config.to_dict(), dict(source.state_dict()), device, dtype)
    ids = random_prompts(batch, source.config.vocab_size).tolist()

    def write(length):
        for _ in stream_ids(decoder, ids, length, Sampling(**SAMPLING), -1, every=16):
            pass

    return write


def median_seconds(call, device, times=3):
    """Of calls that take longer than five seconds, the first alone."""
    taken = []
    while len(taken) < times and sum(taken) < 5:
        started = time.perf_counter()
        call()
        if device.type != "cpu":
            torch.accelerator.synchronize()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def copy_bandwidth(device):
    """Bytes a second, those read and those written counted."""
    source = torch.zeros(2**28, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * source.numel() * 4 / median_seconds(lambda: target.copy_(source), device, times=5)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
