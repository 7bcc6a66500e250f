"""Which recipe learns most from the same text in the same time: optimizer, schedule, dropout, weight decay, averaging?

Each recipe is a string of settings that differ from DEFAULTS, what train.py took before it had a plan
(training/plan.py); the first, the empty one, is those. What the plan takes has to be spelt out.

    python benchmarks/recipe.py --korean=reviews.txt.xz --english=books.txt.xz --gpt2_tokenizer=FOLDER \
      --megabytes 1000 5 --seconds 60 30 --recipes "" "muon" "muon dropout=0" "dropout=0 weight_decay=1"

    muon               --optim=muon for the layers' matrices
    learning_rate=     of all weights but new embeddings
    embeddings=        the learning rate of new embeddings
    weight_decay=      of matrices and embeddings
    dropout=           of all three kinds
    beta2=             of Adam
    warmup=            the share of the run in which the learning rate rises
    decay=             the share at the end in which it falls to 0, in a straight line; between, it stays
    bpe_dropout=       the chance of each merge to be undone, for each epoch anew: see --tokenisations
    average=           the share at the end over which weights are averaged (measured at the end beside the others)

The body is an English GPT-2 made here (see adaptation.py) with a Korean vocabulary, --vocabulary=old keeps GPT-2's,
--start=none begins from random weights, --lora_rank trains an adapter. A recipe's seconds are those of its own
steps, recorded as train.py records them; evaluations are off the clock. On a machine that others use too, --steps
compares after as many steps instead. Each result is the best of the evaluations, as early stopping would find it.
"""

import argparse
import copy
import json
import math
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from adaptation import (
    add_start,
    bits_per_character,
    english_start,
    in_blocks,
    korean_tokenizer,
    learner,
    packed,
    shuffled,
    take,
    token_stream,
    untrained_start,
)
from adaptation import read as read_text
from torch.optim import AdamW
from transformers import GPT2LMHeadModel

sys.path.insert(0, str(Path(__file__).parent.parent))

from gpt2_korean.device import computes_bfloat16
from gpt2_korean.model import embeddings, lora
from gpt2_korean.model.embeddings import COUNTED_TOKENS, embedding_layers, split_off
from gpt2_korean.speed.choose import load_fused_layer
from gpt2_korean.speed.forward import use_fast_forward
from gpt2_korean.text.merges import Merges
from gpt2_korean.training.muon import MuonWithAdamW, layer_matrices
from gpt2_korean.training.plan import NEW_EMBEDDINGS

DEFAULTS = {
    "muon": 0.0,
    "learning_rate": 5e-5,
    "embeddings": NEW_EMBEDDINGS,
    "weight_decay": 0.01,
    "dropout": 0.1,
    "beta2": 0.999,
    "warmup": 0.05,
    "decay": 1.0,
    "average": 0.0,
    "bpe_dropout": 0.0,
}
HELD_OUT_CHARACTERS = 200_000


def main():
    options = parse()
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    documents, held_out = korean_documents(options.korean, options.held_out)
    needs_english = options.start == "english" or options.source_model
    start, old = kept_english_start(options, device) if needs_english else untrained_start(options, device)
    print(f"{device}, torch {torch.__version__}, {start.num_parameters() / 1e6:.0f} M parameters", flush=True)
    unit = "steps" if options.steps else "s"
    for megabytes, length in zip(options.megabytes, options.steps or options.seconds, strict=True):
        texts = take(documents, megabytes * 1e6)
        tokenizer = old if options.vocabulary == "old" else korean_tokenizer(texts, options)
        blocks, test = (packed(each, tokenizer, options.context, device) for each in (texts, held_out))
        model = prepare(start, old, tokenizer, blocks, options)
        characters, tokens = sum(map(len, texts)), blocks.numel()
        print(f"\n{characters:,} characters, {tokens:,} tokens, {length:g} {unit}", flush=True)
        print("| recipe | bits per character | ± | best at | at the end | steps | epochs | ms a step |")
        print(f"{'|---' * 8}|")
        for words in options.recipes:
            recipe = parse_recipe(words)
            read, epoch = blocks, len(blocks)
            if recipe["bpe_dropout"]:
                read = tokenised_anew(texts, tokenizer, recipe["bpe_dropout"], device, options)
                epoch = len(read) / options.tokenisations
            compare(words, recipe, model, read, epoch, test, sum(map(len, held_out)), length, options)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--korean", required=True, nargs="+", help=".txt.xz with a document a line, or .jsonl.xz")
    add_start(parser)
    parser.add_argument("--held_out", type=int, default=HELD_OUT_CHARACTERS, help="characters to measure with")
    parser.add_argument("--start", choices=("english", "none"), default="english")
    parser.add_argument("--vocabulary", choices=("new", "old"), default="new")
    parser.add_argument("--lora_rank", type=int, default=0)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[1000, 5, 0.3], help="corpus sizes, UTF-8")
    parser.add_argument("--seconds", type=float, nargs="+", default=[60, 30, 10], help="of training, for each size")
    parser.add_argument("--steps", type=int, nargs="+", help="of training, for each size, instead of --seconds")
    parser.add_argument("--recipes", nargs="+", default=["", "muon"])
    parser.add_argument("--tokenisations", type=int, default=50, help="of the text with bpe_dropout, all in memory")
    parser.add_argument("--evaluations", type=int, default=12, help="along the way")
    return parser.parse_args()


def korean_documents(paths, characters):
    """Those to learn from, in a random order, and those held out."""
    documents = []
    for path in paths:
        lines = [line for line in read_text(path).split("\n") if line.strip()]
        documents += [json.loads(line)["text"] for line in lines] if ".jsonl" in path else lines
    order = torch.randperm(len(documents), generator=torch.Generator().manual_seed(0)).tolist()
    documents = [documents[place] for place in order]
    held_out = take(documents, characters, len)
    return documents[len(held_out) :], held_out


def kept_english_start(options, device):
    name = f"english-{options.layers}x{options.width}-{options.english_seconds:g}s"
    kept = options.keep and not options.source_model and options.keep / name
    if kept and (kept / "config.json").exists():
        options = SimpleNamespace(**{**vars(options), "source_model": str(kept)})
    model, tokenizer = english_start(options, device)
    if kept and not (kept / "config.json").exists():
        model.save_pretrained(kept)
        tokenizer.save_pretrained(kept)
    return model, tokenizer


def prepare(start, old, tokenizer, blocks, options):
    """The model that every recipe starts from."""
    config = copy.deepcopy(start.config)
    if options.start == "none":
        ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
        config.update({"vocab_size": len(tokenizer), **ends})
        torch.manual_seed(0)
        return GPT2LMHeadModel(config).to(start.device)
    model = GPT2LMHeadModel(config).to(start.device)
    model.load_state_dict(start.state_dict())
    if options.vocabulary == "new":
        ids = blocks.flatten()
        embeddings.carry_over(model, old, tokenizer, ids[ids >= 0][:COUNTED_TOKENS].long())
    return model


def parse_recipe(words):
    recipe = dict(DEFAULTS)
    for word in words.split():
        name, _, value = word.partition("=")
        recipe[name] = float(value or 1)
    if unknown := set(recipe) - set(DEFAULTS):
        raise SystemExit(f"{words!r}: no such setting: {', '.join(unknown)}")
    return recipe


def tokenised_anew(texts, tokenizer, dropout, device, options):
    """The blocks of as many tokenisations as `options` say, one after another."""
    stream, merges, random = token_stream(texts, tokenizer), Merges(tokenizer, dropout), np.random.default_rng(0)
    drawn = (merges.undo(stream, math.inf, random)[0] for _ in range(options.tokenisations))
    return torch.cat([in_blocks(each, tokenizer.eos_token_id, options.context, device) for each in drawn])


def compare(words, recipe, start, blocks, epoch, test, characters, length, options):
    """Print what a recipe comes to over the seeds. epoch: how many of the blocks are as many as the text has."""
    best, ends, places = [], [], []
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        torch.accelerator.empty_cache() if blocks.is_cuda else None
        model = copy.deepcopy(start)
        if options.lora_rank:
            model = lora.adapt(model, options.lora_rank, train_embeddings=options.vocabulary == "new")
        measure = partial(bits_per_character, blocks=test, characters=characters)
        curve, steps, taken = train(model, blocks, recipe, length, options, measure)
        place, bits = min(curve, key=lambda point: point[1])
        best, ends, places = [*best, bits], [*ends, curve[-1][1]], [*places, place]
        print("#", words, seed, " ".join(f"{bits:.4f}" for _, bits in curve), file=sys.stderr, flush=True)
    row = (
        words or "before", f"{statistics.mean(best):.4f}", f"{(max(best) - min(best)) / 2:.4f}",
        f"{statistics.mean(places):.2f}", f"{statistics.mean(ends):.4f}", steps,
        f"{steps * options.batch / epoch:.1f}", f"{1000 * taken / steps:.2f}",
    )  # fmt: skip
    print(f"| {' | '.join(map(str, row))} |", flush=True)


def train(model, blocks, recipe, length, options, measure):
    """Train for so many seconds or steps; `(the evaluations [(share of the run, bits)], the steps, their seconds)`."""
    body = model.get_base_model() if options.lora_rank else model
    for module in body.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = recipe["dropout"]
    machine = SimpleNamespace(
        device=blocks.device, fsdp=None, deepspeed=None, bf16=computes_bfloat16(blocks.device), fp16=False
    )
    functions = load_fused_layer(body, machine)
    use_fast_forward(body, functions)
    optimizer = build_optimizer(model, recipe, options)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    learn, batches = learner(body, blocks.device), shuffled(blocks, options.batch)
    body.train()
    learn(blocks[: options.batch].long())  # compiles the kernels
    optimizer.zero_grad(set_to_none=True)
    steps, spent, curve, sums, summed = 0, 0.0, [], None, 0
    marks = [number / options.evaluations for number in range(1, options.evaluations)]
    while (share := (steps if options.steps else spent) / length) < 1:
        begin = time.perf_counter()
        factor = min(1, share / recipe["warmup"] + 0.01) * min(1, (1 - share) / recipe["decay"])
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        loss = learn(next(batches))
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps += 1
        if share > 1 - recipe["average"] and steps % 8 == 0:
            sums = [torch.zeros_like(weight) for weight in parameters] if sums is None else sums
            for total, weight in zip(sums, parameters, strict=True):
                total.add_(weight.detach())
            summed += 1
        if steps % 4 == 0:
            loss.item()  # waits for the device, so that the clock is right
        spent += time.perf_counter() - begin
        while marks and (steps if options.steps else spent) / length >= marks[0]:
            curve.append((marks.pop(0), evaluate(body, functions, measure)))
    curve.append((1.0, evaluate(body, functions, measure)))
    if summed:
        with torch.no_grad():
            for total, weight in zip(sums, parameters, strict=True):
                weight.copy_(total / summed)
        curve.append((1.0, evaluate(body, functions, measure)))
    if not all(math.isfinite(bits) for _, bits in curve):
        print("# not finite", file=sys.stderr)
    return curve, steps, spent


def evaluate(body, functions, measure):
    bits = measure(body)
    use_fast_forward(body, functions)
    body.train()
    return bits


def build_optimizer(model, recipe, options):
    """As Trainer and KoreanTrainer group the weights: no decay of biases and norms, new embeddings by themselves."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [each for each in trained if each.ndim == 2], "weight_decay": recipe["weight_decay"]},
        {"params": [each for each in trained if each.ndim != 2], "weight_decay": 0.0},
    ]
    kind = MuonWithAdamW if recipe["muon"] else AdamW
    betas = (0.9, recipe["beta2"])
    optimizer = kind(groups, lr=recipe["learning_rate"], betas=betas, fused=next(model.parameters()).is_cuda)
    if recipe["muon"]:
        for count, weights in layer_matrices(model).items():
            split_off(optimizer, weights, matrices=count)
    if options.start == "english" and options.vocabulary == "new":
        split_off(optimizer, [layer.weight for layer in embedding_layers(model)], lr=recipe["embeddings"])
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    return optimizer


if __name__ == "__main__":
    main()
