"""Training speed, side by side: Trainer as it comes, Trainer with bf16 and torch.compile, this project, nanoGPT.

    python benchmarks/training.py --nanogpt=nanoGPT --corpus=글.txt --english_tokenizer=gpt2

Each contender trains a GPT-2 of gpt2-medium's size with random weights and the dropout of its config, in a
process of its own: first with empty compiler caches, then again with what the first left there. Memory is what
PyTorch reserved. Without --nanogpt, a folder with nanoGPT's model.py, it is left out.

    python benchmarks/training.py --documents 20 100 400 1024 --batches 16x1

This project alone: blocks of one text against blocks of documents of so many tokens, none of which sees another.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
README_FLAGS = {
    "learning_rate": 5e-5, "warmup_steps": 500, "weight_decay": 0.01, "adam_epsilon": 1e-8, "max_grad_norm": 1.0,
    "seed": 42, "logging_steps": 100,
}  # fmt: skip
CONTENDERS = ("trainer", "trainer-bf16-compile", "ours-plain", "ours", "ours-korean", "nanogpt")
LENGTH = 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nanogpt", help="a folder with nanoGPT's model.py")
    parser.add_argument("--contenders", nargs="+", default=CONTENDERS)
    parser.add_argument("--batches", nargs="+", default=["4x4", "16x1"], help="blocks a pass × passes a step")
    parser.add_argument("--steps", type=int, default=25, help="steps to time, after 5 that are not")
    parser.add_argument("--size", nargs=3, type=int, default=(24, 1024, 16), metavar=("LAYERS", "WIDTH", "HEADS"))
    parser.add_argument("--vocab_size", type=int, default=50257)
    parser.add_argument("--optim", help="of this project's contenders: muon, for example")
    parser.add_argument("--corpus", help="Korean text, to learn the Korean vocabulary from and to count characters")
    parser.add_argument("--english_tokenizer", help="a folder with GPT-2's tokenizer")
    parser.add_argument("--memory_limit", type=float, metavar="GiB", help="have no more than this on the device")
    parser.add_argument("--cold_only", action="store_true", help="leave out the second run")
    parser.add_argument("--compare_losses", type=int, metavar="STEPS", help="train so long with and without speed-ups")
    parser.add_argument("--documents", nargs="*", type=int, metavar="TOKENS", help="compare blocks of such documents")
    parser.add_argument("--only", help="measure one contender, in this process, and print JSON")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options.batches[0], options)))
    elif options.documents:
        compare_documents(options)
    elif options.compare_losses:
        compare_losses(options)
    else:
        print_table(options)


def print_table(options):
    characters = characters_per_token(options) if options.corpus and options.english_tokenizer else {}
    print("| contender | batch | tokens/s | characters/s | MFU | memory, GiB | first step, s (cold, warm) |")
    print("|---|---|---|---|---|---|---|")
    for batch in options.batches:
        for name in options.contenders:
            if name == "nanogpt" and not options.nanogpt:
                continue
            with tempfile.TemporaryDirectory() as cache:
                caches = {"TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor", "TRITON_CACHE_DIR": f"{cache}/triton"}
                runs = [run_alone(name, batch, caches) for _ in range(1 if options.cold_only else 2)]
            best = max(runs, key=lambda run: run["tokens_per_second"])
            per_token = characters.get("korean" if name == "ours-korean" else "original")
            written = f"{best['tokens_per_second'] * per_token:,.0f}" if per_token else ""
            mfu = f"{best['mfu']:.1%}" if best["mfu"] else ""
            first = ", ".join(f"{run['first_step']:.1f}" for run in runs)
            print(
                f"| {name} | {batch} | {best['tokens_per_second']:,.0f} | {written} | {mfu} | "
                f"{best['memory'] / 2**30:.1f} | {first} |",
                flush=True,
            )


def run_alone(name, batch, caches, *more):
    words = [word for word in sys.argv[1:] if word != "--cold_only"]
    command = [sys.executable, __file__, *words, f"--only={name}", "--batches", batch, *more]
    finished = subprocess.run(command, env={**os.environ, **caches}, capture_output=True, text=True)
    if finished.returncode:
        sys.exit(f"{name} {batch}:\n{finished.stderr[-3000:]}")
    return json.loads(finished.stdout.splitlines()[-1])


def characters_per_token(options):
    from transformers import AutoTokenizer

    from gpt2_korean.text.vocabulary import train_tokenizer

    text = Path(options.corpus).read_text("utf-8")[:5_000_000]
    known, held_out = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]
    tokenizers = {
        "original": AutoTokenizer.from_pretrained(options.english_tokenizer),
        "korean": train_tokenizer(known.split("\n"), 32000, LENGTH),
    }
    return {name: len(held_out) / len(tokenizer(held_out).input_ids) for name, tokenizer in tokenizers.items()}


class Clock:
    """The times at which chosen steps end, counted from 1: those alone wait for the device."""

    def __init__(self, *chosen):
        self.start, self.steps, self.ends = time.perf_counter(), 0, dict.fromkeys(chosen)

    def step(self):
        import torch

        self.steps += 1
        if self.steps in self.ends:
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()
            self.ends[self.steps] = time.perf_counter()


def measure(name, batch, options):
    """Train 5 steps and options.steps more; what they took."""
    import torch

    from gpt2_korean.device import choose_device, describe_device
    from gpt2_korean.speed import throughput

    size, accumulation = map(int, batch.split("x"))
    steps = options.steps + 5
    device = choose_device("auto")
    if options.memory_limit:
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(options.memory_limit * 2**30 / whole)
    clock = Clock(1, 5, steps)
    if name == "nanogpt":
        train_nanogpt(options, size, accumulation, steps, clock)
    else:
        train_through_trainer(name, options, size, accumulation, steps, clock)
    seconds = (clock.ends[steps] - clock.ends[5]) / options.steps
    speed = size * accumulation * LENGTH * ranks() / seconds
    flops = throughput.flops_per_token(random_model(options, options.vocab_size), LENGTH)
    peak = throughput.peak_flops(describe_device(device))
    return {
        "tokens_per_second": speed,
        "mfu": speed * flops / peak / ranks() if peak else None,
        "memory": getattr(torch, device.type).max_memory_reserved() if device.type != "cpu" else 0,
        "first_step": clock.ends[1] - clock.start,
    }


def ranks():
    """How many processes train together: under torchrun --only trains on all devices at once."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def random_model(options, vocab_size, **changes):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    layers, width, heads = options.size
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=vocab_size, n_layer=layers, n_embd=width, n_head=heads, n_positions=LENGTH, **changes)
    )


def random_blocks(number, vocab_size, sizes):
    """Blocks of random tokens, each one text or, if there are `sizes`, documents of as many as these."""
    random = np.random.default_rng(1)
    blocks = []
    for ids in random.integers(0, vocab_size, (number, LENGTH)):
        blocks.append({"input_ids": ids, "labels": ids})
        if sizes:
            drawn = [np.arange(size) for size in random.choice(sizes, LENGTH // min(sizes) + 1)]
            blocks[-1]["position_ids"] = np.concatenate(drawn)[:LENGTH]
    return blocks


def train_through_trainer(name, options, size, accumulation, steps, clock):
    import transformers

    vocab_size = 32000 if name == "ours-korean" else options.vocab_size
    blocks = random_blocks(size * accumulation * steps * ranks(), vocab_size, options.documents)
    flags = {
        **README_FLAGS, "per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation,
        "max_steps": steps, "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(options, vocab_size)
        clock.start = time.perf_counter()
        if name.startswith("ours"):
            flags |= {"optim": options.optim} if options.optim else {}
            trainer = our_trainer(model, blocks, {**flags, "output_dir": folder}, name != "ours-plain")
        else:
            trainer = plain_trainer(model, blocks, {**flags, "output_dir": folder}, "bf16" in name)
        trainer.add_callback(
            type("Timed", (transformers.TrainerCallback,), {"on_step_end": lambda *_, **__: clock.step()})
        )
        trainer.train()


def plain_trainer(model, blocks, flags, fast):
    import transformers

    from gpt2_korean.text.assemble import collate

    return transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(**flags, bf16=fast, torch_compile=fast),
        train_dataset=blocks,
        data_collator=lambda rows: collate(rows, 0),
    )


def our_trainer(model, blocks, flags, kernels=True, fast=True):
    """As train.py builds it."""
    from gpt2_korean import device
    from gpt2_korean.cli.train_options import MachineOptions
    from gpt2_korean.speed import choose
    from gpt2_korean.text.blocks import DOCUMENTS, STREAM, Blocks
    from gpt2_korean.training.arguments import build_arguments
    from gpt2_korean.training.run import build_trainer
    from gpt2_korean.training.stopping import stop_requests

    class Tokenizer:
        pad_token_id = 0

        def save_pretrained(self, *_):
            pass

    chosen = device.choose_device("auto")
    bf16, fp16, _ = device.choose_precision(chosen)
    blocks = Blocks(blocks, None, LENGTH, DOCUMENTS if "position_ids" in blocks[0] else STREAM)
    arguments = build_arguments(flags, chosen, bf16, fp16)
    with stop_requests(None) as stop:
        trainer = build_trainer(model, Tokenizer(), arguments, blocks, stop)
    if fast:
        machine = MachineOptions("auto", bf16, fp16, None, None, None, None)
        trainer.take_steps(**choose.speed_up(model, arguments, machine, blocks, tokens=0 if kernels else None))
    return trainer


def train_nanogpt(options, size, accumulation, steps, clock):
    """nanoGPT's model and its way of stepping, over as many tokens."""
    import torch

    sys.path.insert(0, options.nanogpt)
    from model import GPT, GPTConfig

    layers, width, heads = options.size
    padded = -(-options.vocab_size // 64) * 64  # as its own train.py chooses
    model = GPT(GPTConfig(LENGTH, padded, layers, heads, width, dropout=0.1, bias=True)).cuda()
    optimizer = model.configure_optimizers(0.01, 5e-5, (0.9, 0.999), "cuda")
    clock.start = time.perf_counter()
    compiled = torch.compile(model)
    data = torch.randint(0, options.vocab_size, (size * accumulation * steps, LENGTH + 1)).pin_memory()
    batches = iter(data.split(size))
    for _ in range(steps):
        for _ in range(accumulation):
            ids = next(batches).pin_memory().to("cuda", non_blocking=True)
            with torch.autocast("cuda", torch.bfloat16):
                loss = compiled(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())[1] / accumulation
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.step()


def compare_documents(options):
    """Tokens a second where blocks are one text and where they are documents: of each length, of all, few long."""
    few_long = [min(options.documents)] * 50 + [max(options.documents)]
    cases = {"one text": [], **{str(size): [size] for size in options.documents}}
    cases |= {"all of these": options.documents, "few long ones": few_long, "one text, again": []}
    print("| documents of | batch | tokens/s | against one text | memory, GiB |\n|---|---|---|---|---|")
    for batch in options.batches:
        whole = None
        for name, sizes in cases.items():
            found = run_alone("ours", batch, {}, "--documents", *map(str, sizes))
            speed, memory = found["tokens_per_second"], found["memory"] / 2**30
            whole = whole or speed
            print(f"| {name} | {batch} | {speed:,.0f} | {speed / whole - 1:+.1%} | {memory:.1f} |", flush=True)


def compare_losses(options):
    """The losses of the same training with all speed-ups and with none, and with none in float32 as a yardstick."""
    from transformers import AutoTokenizer, set_seed

    text = Path(options.corpus).read_text("utf-8")[:4_000_000]
    ids = AutoTokenizer.from_pretrained(options.english_tokenizer)(text).input_ids
    steps = options.compare_losses
    runs = {}
    for name in ("fast", "plain", "plain float32"):
        set_seed(0)
        blocks = text_blocks(ids, 4 * steps)
        flags = {
            **README_FLAGS, "warmup_steps": 20, "per_device_train_batch_size": 4, "max_steps": steps,
            "logging_steps": 1, "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "learning_rate": 3e-4,
        }  # fmt: skip
        # Without dropout: our kernels draw other random numbers.
        model = random_model(options, options.vocab_size, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
        with tempfile.TemporaryDirectory() as folder:
            flags["output_dir"] = folder
            if name == "plain float32":
                trainer = plain_trainer(model, blocks, flags, fast=False)
            else:
                trainer = our_trainer(model, blocks, flags, fast=name == "fast")
            trainer.train()
        runs[name] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        del trainer, model
    print(f"{'step':>6} " + " ".join(f"{name:>14}" for name in runs))
    for step in sorted({0, 1, 2, 4, 9, 19, 49, 99, 149, steps - 1} & set(range(steps))):
        print(f"{step + 1:>6} " + " ".join(f"{losses[step]:>14.5f}" for losses in runs.values()))
    for name in ("fast", "plain float32"):
        gaps = [abs(a - b) for a, b in zip(runs[name], runs["plain"], strict=True)]
        print(f"{name} against plain: mean difference {statistics.mean(gaps):.5f}, largest {max(gaps):.5f}")


def text_blocks(ids, number):
    import torch

    if len(ids) < number * LENGTH:
        sys.exit("--corpus: not enough text for so many steps")
    return [{"input_ids": block, "labels": block} for block in torch.tensor(ids)[: number * LENGTH].split(LENGTH)]


if __name__ == "__main__":
    main()
