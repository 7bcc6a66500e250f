"""Writing on a CPU beside llama.cpp, OpenVINO and CTranslate2: each way in a process of its own, by turns in one run.

    python benchmarks/peers.py FOLDER                                 # random weights of gpt2-medium's size
    python benchmarks/peers.py FOLDER --model=fine_tuned_models/demo --text reviews.txt judgments.txt
    python benchmarks/peers.py FOLDER --rounds=0                      # the table of the figures so far

FOLDER keeps what is converted, and figures.jsonl, to which every run adds: the table has their medians. What is not
installed is left out: llama-cpp-python and gguf, openvino-genai (and the command optimum-cli, which converts),
ctranslate2. Each process writes 100 tokens after prompts of 12 that it has read once before (top_k 50, top_p 0.95,
temperature 0.7, repetition_penalty 1.2, no early end). Cores: how many it had meanwhile; engines whose threads wait
awake have all there are, or somebody else computed and their speed tells nothing. Start: a whole process until its end,
from converted files, that writes one token. Busy: 40 tokens, the machine's processors each busy with another process.
Loss: bits per character, token after token through the steps that write; each kind beside its own engine's in 16 or 32
bits.
"""

import argparse
import importlib.util
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from engines import THREADS, ctranslate, llama, openvino, ours

ENGINES = {"ours": ours, "ctranslate2": ctranslate, "llama": llama, "openvino": openvino}
WAYS = {  # what the table calls it: (engine, kind)
    "generate.py float32": ("ours", "float32"),
    "generate.py bfloat16": ("ours", "bfloat16"),
    "generate.py int8": ("ours", "int8"),
    "generate.py int4": ("ours", "int4"),
    "CTranslate2 float32": ("ctranslate2", "float32"),
    "CTranslate2 int8": ("ctranslate2", "int8"),
    "llama.cpp F32": ("llama", "f32"),
    "llama.cpp BF16": ("llama", "bf16"),
    "llama.cpp Q8_0": ("llama", "q8_0"),
    "llama.cpp Q4_0": ("llama", "q4_0"),
    "llama.cpp Q4_K_M": ("llama", "q4_k_m"),
    "OpenVINO 16 bits": ("openvino", "fp16"),
    "OpenVINO int8": ("openvino", "int8"),
    "OpenVINO int4": ("openvino", "int4"),
}
PACKAGES = {"ours": "torch", "llama": "llama_cpp", "openvino": "openvino_genai", "ctranslate2": "ctranslate2"}
PROMPT, ROWS, LENGTH, BUSY_LENGTH = 12, (1, 5), 100, 40


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, help="the folder of a GPT-2 with tokenizer.json")
    parser.add_argument("--text", nargs="+", type=Path, help="measure the loss on the beginning of these files alone")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), metavar="WAY", help="one or more of: %(default)s")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs="+", default=["speed", "start", "busy"], help="one or more of: %(default)s")
    parser.add_argument("--one", nargs=2, metavar=("WAY", "WHAT"), help=argparse.SUPPRESS)  # what a process does
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if arguments.one:
        return print(json.dumps(measure(folder, *arguments.one)))
    ways = [way for way in arguments.ways if importlib.util.find_spec(PACKAGES[WAYS[way][0]])]
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model"
    if not model.exists():
        shutil.copytree(arguments.model, model) if arguments.model else random_model(model)
    for way in ways:
        engine, kind = WAYS[way]
        ENGINES[engine].convert(model, folder, kind)
    ways = [way for way in ways if (file := file_of(folder, way)) is None or file.exists()]
    if arguments.text:
        keep_tokens(model, folder, arguments.text)
    measures = [f"loss {text.stem}" for text in arguments.text] if arguments.text else arguments.measure
    for _ in range(min(arguments.rounds, 1) if arguments.text else arguments.rounds):
        for way in ways:
            for what in measures:
                add_figures(folder, way, what)
    print_table(folder)


def file_of(folder, way):
    engine, kind = WAYS[way]
    return ENGINES[engine].file(folder, kind)


def random_model(folder):
    """Save a GPT-2 of gpt2-medium's size with a byte-level vocabulary as large as its own, which every engine reads."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = GPT2Config(n_layer=24, n_embd=1024, n_head=16)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [(first, second) for first in letters for second in letters][: config.vocab_size - 257]
    words = [*letters, *map("".join, merges), "<|endoftext|>"]
    tokenizer = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
    end = dict.fromkeys(("bos_token", "eos_token", "unk_token"), words[-1])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **end).save_pretrained(folder)
    GPT2LMHeadModel(config).save_pretrained(folder)


def keep_tokens(model, folder, texts, rows=64):
    """Keep the first tokens of each text as rows [64, context] and the characters of all but each first."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    context = json.loads((model / "config.json").read_text())["n_positions"]
    for text in texts:
        ids = np.array(tokenizer.encode(text.read_text("utf-8")).ids[: rows * context])
        ids = ids[: len(ids) // context * context].reshape(-1, context)
        characters = sum(len(tokenizer.decode(row[1:])) for row in ids.tolist())
        np.savez(folder / f"{text.stem}.npz", ids=ids, characters=characters)


def add_figures(folder, way, what):
    command = [sys.executable, __file__, str(folder), "--one", way, what]
    if what == "start" and WAYS[way][0] == "ours":
        command = ours.command(folder / "model", WAYS[way][1])
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    for plain in ("", "1"):  # some builds of llama.cpp have AMX kernels that die where others of its kernels run
        started = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, env=environment | {"PLAIN_BUFFERS": plain}, text=True)
        seconds = time.perf_counter() - started
        if done.returncode != -signal.SIGILL or WAYS[way][0] != "llama":
            break
    if done.returncode:
        return print(f"{way}, {what}: exit code {done.returncode}", file=sys.stderr)
    figures = {"start, s": seconds} if what == "start" else json.loads(done.stdout.splitlines()[-1])
    with open(folder / "figures.jsonl", "a", encoding="utf-8") as file:
        print(json.dumps({"way": way, "plain": plain} | figures), file=file)


def measure(folder, way, what):
    """Figures by name, of this process alone."""
    engine, kind = ENGINES[WAYS[way][0]], WAYS[way][1]
    what, _, text = what.partition(" ")
    if what == "loss":
        kept = np.load(folder / f"{text}.npz")
        return {f"{text}, bits": engine.bits(folder, kind, kept["ids"]) / kept["characters"].item()}
    write = engine.writer(folder, kind)
    if what == "start":
        return write(random_prompts(folder, 1), 1) or {}
    if what == "busy":
        prompts = random_prompts(folder, 5)
        write(prompts, 2)
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(THREADS)]
        try:
            return {"busy, s": seconds_of(write, prompts, BUSY_LENGTH)}
        finally:
            for other in others:
                other.kill()
    figures, started, worked = {}, time.perf_counter(), time.process_time()
    for rows in ROWS:
        prompts = random_prompts(folder, rows)
        write(prompts, 2)
        figures[f"{rows} rows, tokens/s"] = rows * LENGTH / seconds_of(write, prompts, LENGTH)
        figures[f"{rows} rows, MiB"] = peak_memory()
    cores = (time.process_time() - worked) / (time.perf_counter() - started)
    return figures | {"cores": cores}


def random_prompts(folder, rows):
    words = json.loads((folder / "model" / "config.json").read_text())["vocab_size"]
    return np.random.default_rng(0).integers(words, size=(rows, PROMPT))


def seconds_of(write, prompts, length):
    started = time.perf_counter()
    write(prompts, length)
    return time.perf_counter() - started


def peak_memory():
    """MiB, of this process: getrusage's would be at least what the one that began it had."""
    status = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024


def print_table(folder):
    """The medians of all figures kept, a line a way."""
    file = folder / "figures.jsonl"
    kept = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []
    names = list(dict.fromkeys(name for figures in kept for name in figures if name not in ("way", "plain")))
    print(f"\n| what | bits a weight | {' | '.join(names)} |\n|{'---|' * (len(names) + 2)}")
    for way in WAYS:
        mine = [figures for figures in kept if figures["way"] == way]
        if mine:
            cells = [[figures[name] for figures in mine if name in figures] for name in names]
            shown = [show(statistics.median(cell)) if cell else "" for cell in cells]
            name = f"{way} (plain buffers)" if mine[-1]["plain"] else way
            print(f"| {name} | {bits_a_weight(folder, way)} | {' | '.join(shown)} |")


def show(figure):
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.1f}" if figure >= 10 else f"{figure:.4f}"


def bits_a_weight(folder, way):
    """By the size of the converted file; position embeddings and norms are counted, as they are kept."""
    file, kind = file_of(folder, way), WAYS[way][1]
    weights = (folder / "model" / "model.safetensors").stat().st_size / 4
    return (
        f"{file.stat().st_size * 8 / weights:.1f}"
        if file
        else {"float32": 32, "bfloat16": 16, "int8": 8, "int4": 5}[kind]
    )


if __name__ == "__main__":
    main()
