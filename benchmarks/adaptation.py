"""Which start turns an English GPT-2 into a Korean one soonest?

Every way begins with the same English model and is told apart by bits per character on documents held out, which do
not depend on the tokenizer: after the same seconds of training, then after the same characters read. Where
GPT-2's weights cannot be downloaded, an English start is trained first, for a while, on English text.

    python benchmarks/adaptation.py --korean=reviews.txt.xz --english=books.txt.xz --gpt2_tokenizer=FOLDER
    python benchmarks/adaptation.py --korean=reviews.txt.xz --source_model=gpt2-medium

    original   GPT-2's own tokenizer
    ours       a Korean vocabulary as train.py carries the model over to it, the embeddings with their own learning rate
    aligned    the same, but one learning rate for all weights
    mean       a Korean vocabulary, each row the mean of the old pieces' rows
    random     a Korean vocabulary, the rows random with GPT-2's mean and spread
    scratch    a Korean vocabulary and no English start

Training is train.py's own (speed/forward.py, speed/graphs.py), not compiled, in bfloat16, the learning rate rising
for a twentieth and falling to 0. Preparing the embeddings is on the clock. Each result is the best of six
evaluations along the way, since a small corpus is learnt by heart before the time is up; its mean over the seeds.
"""

import argparse
import copy
import gc
import lzma
import math
import random
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

sys.path.insert(0, str(Path(__file__).parent.parent))

from gpt2_korean.device import has_graphs
from gpt2_korean.generation.load import gpt2_decoder
from gpt2_korean.generation.loop import generate_ids
from gpt2_korean.generation.sampling import Sampling
from gpt2_korean.model import embeddings
from gpt2_korean.model.embeddings import COUNTED_TOKENS, NEW_EMBEDDINGS, split_off
from gpt2_korean.model.load import load_pretrained
from gpt2_korean.speed.forward import use_fast_forward
from gpt2_korean.speed.graphs import RecordedStep
from gpt2_korean.text.vocabulary import train_tokenizer, wrap

METHODS = ("original", "ours", "aligned", "mean", "random", "scratch")
HELD_OUT_CHARACTERS = 100_000


def main():
    options = parse()
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    documents, held_out = korean_documents(options.korean)
    start, old = english_start(options, device)
    print(f"{device}, torch {torch.__version__}, {start.num_parameters() / 1e6:.0f} M parameters", flush=True)
    for megabytes, seconds in zip(options.megabytes, options.seconds, strict=True):
        texts = take(documents, megabytes * 1e6)
        korean = korean_tokenizer(texts, options)
        print(f"\n{sum(map(len, texts)):,} characters, {len(korean):,} tokens in the vocabulary", flush=True)
        compare(start, old, korean, texts, held_out, seconds, options, device)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--korean", required=True, help="one document a line, .txt or .txt.xz")
    parser.add_argument("--english", help="text of the English start, .txt or .txt.xz")
    parser.add_argument("--english_also", help="a text of which a hundredth is mixed into it, as the web would")
    parser.add_argument("--gpt2_tokenizer", help="folder with GPT-2's vocab.json and merges.txt")
    parser.add_argument("--source_model", help="a GPT-2 to adapt instead of an English start made here")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--english_seconds", type=float, default=120)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[0.3, 5, 1000], help="corpus sizes, UTF-8")
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 20, 60], help="of training, for each size")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--vocab_size", type=int, default=32_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=6e-4)
    parser.add_argument("--keep", type=Path, help="folder in which to keep the Korean tokenizers for the next run")
    return parser.parse_args()


def compare(start, old, korean, texts, held_out, seconds, options, device):
    """Print what each method comes to, after the same time and after the same characters."""
    tokenizers = {"old": old, "new": korean}
    blocks = {name: packed(texts, each, options.context, device) for name, each in tokenizers.items()}
    tests = {name: packed(held_out, each, options.context, device) for name, each in tokenizers.items()}
    characters, test_characters = sum(map(len, texts)), sum(map(len, held_out))
    print("| method | what is equal | bits per character | ± | before | steps | characters read | written a second |")
    print("|---|---|---|---|---|---|---|---|")

    def report(method, equal, done):
        name = "old" if method == "original" else "new"
        bits, before, read = [], None, None
        for seed in range(options.seeds):
            torch.manual_seed(seed)
            gc.collect()  # the model before, with its graphs, or its memory would be freed on the clock
            if device.type != "cpu":
                torch.accelerator.empty_cache()
            begin = time.perf_counter()
            model, embedding_learning_rate = prepare(method, start, old, korean, blocks["new"])
            spent = time.perf_counter() - begin
            measure = partial(bits_per_character, model, tests[name], test_characters)
            before = before or measure()
            steps, best = train(model, blocks[name], partial(done, spent), options, embedding_learning_rate, measure)
            read = int(steps * options.batch / len(blocks[name]) * characters)
            bits.append(best)
        speed = f"{characters_per_second(model, tokenizers[name]):,.0f}" if equal == "time" else ""
        spread = f"{(max(bits) - min(bits)) / 2:.3f}"
        row = (method, equal, f"{statistics.mean(bits):.3f}", spread, f"{before:.2f}", steps, f"{read:,}", speed)
        print(f"| {' | '.join(map(str, row))} |", flush=True)
        return read

    read = {m: report(m, "time", lambda spent, _, taken: (spent + taken) / seconds) for m in options.methods}
    if "original" not in read:
        return
    for method in options.methods[1:]:
        whole = max(1, round(read["original"] / characters * len(blocks["new"]) / options.batch))
        report(method, "characters", lambda _, steps, __, whole=whole: steps / whole)


def korean_documents(path):
    """Those to learn from, in a random order, and those held out."""
    documents = [line for line in read(path).split("\n") if line.strip()]
    random.Random(0).shuffle(documents)
    held_out = take(documents, HELD_OUT_CHARACTERS, len)
    return documents[len(held_out) :], held_out


def read(path):
    opener = lzma.open if path.endswith(".xz") else open
    with opener(path, "rt", encoding="utf-8") as file:
        return file.read()


def take(documents, size, measure=lambda document: len(document.encode())):
    """The first documents that fill `size`, in bytes unless measured otherwise."""
    taken = []
    for document in documents:
        if size <= 0:
            break
        taken.append(document)
        size -= measure(document)
    return taken


def korean_tokenizer(texts, options):
    kept = options.keep and options.keep / f"{len(texts)}-{options.vocab_size}.json"
    if kept and kept.exists():
        return wrap(options.context, tokenizer_file=str(kept))
    tokenizer = train_tokenizer(texts, options.vocab_size, options.context)
    if kept:
        options.keep.mkdir(parents=True, exist_ok=True)
        tokenizer.backend_tokenizer.save(str(kept))
    return tokenizer


def packed(texts, tokenizer, context, device):
    """Blocks of the texts as one int32 tensor [blocks, context]; the short rest is padded with -100."""
    batches = (texts[start : start + 10_000] for start in range(0, len(texts), 10_000))
    ids = (ids for batch in batches for ids in tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"])
    end = tokenizer.eos_token_id
    stream = np.concatenate([[end], *(np.array([*each, end], np.int32) for each in ids)])
    # Neighbouring blocks share a token: each token but the first is predicted once.
    places = np.arange(0, len(stream) - 1, context - 1)[:, None] + np.arange(context)
    rows = np.where(places < len(stream), stream[places.clip(max=len(stream) - 1)], -100)
    return torch.tensor(rows, dtype=torch.int32, device=device)


def english_start(options, device):
    """`(model, tokenizer)`: what was given, or a GPT-2 trained on the English text for the seconds asked."""
    if options.source_model:
        model, tokenizer = load_pretrained(options.source_model, torch.float32)
        return model.to(device), tokenizer
    tokenizer = GPT2Tokenizer.from_pretrained(options.gpt2_tokenizer)
    shape = {"n_layer": options.layers, "n_embd": options.width, "n_head": options.width // 64}
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=options.context, **shape, **ends)
    model = GPT2LMHeadModel(config).to(device)
    text = read(options.english)[:60_000_000]
    parts = [text[start : start + 20_000] for start in range(0, len(text), 20_000)]
    if options.english_also:
        also = read(options.english_also)[: len(text) // 100]
        parts += [also[start : start + 2_000] for start in range(0, len(also), 2_000)]
    blocks = packed(parts, tokenizer, options.context, device)
    steps, _ = train(model, blocks, lambda _, taken: taken / options.english_seconds, options)
    test = blocks[: len(blocks) // 100]
    loss = bits_per_character(model, test, (test[:, 1:] != -100).sum().item()) * math.log(2)
    print(f"English start: {steps} steps, loss {loss:.3f} on what it has read", flush=True)
    return model, tokenizer


def prepare(method, start, old, korean, blocks):
    """`(model, the embeddings' own learning rate or None)` for a method."""
    config = copy.deepcopy(start.config)
    if method == "scratch":
        config.vocab_size, config.bos_token_id, config.eos_token_id = len(korean), 0, 0
        return GPT2LMHeadModel(config).to(start.device), None
    model = GPT2LMHeadModel(config).to(start.device)
    model.load_state_dict(start.state_dict())
    if method == "original":
        return model, None
    if method in ("ours", "aligned"):
        ids = blocks.flatten()
        embeddings.carry_over(model, old, korean, ids[ids >= 0][:COUNTED_TOKENS].long())
        return model, NEW_EMBEDDINGS if method == "ours" else None
    rows = model.transformer.wte.weight.detach().clone()
    model.resize_token_embeddings(len(korean), mean_resizing=False)
    weight = model.transformer.wte.weight.detach()
    if method == "random":
        weight.copy_(torch.randn_like(weight) * rows.std(0) + rows.mean(0))
    else:
        weight.copy_(embeddings.mean_of_pieces(rows, embeddings.find_pieces(old, korean)))
    return model, None


def train(model, blocks, done, options, embedding_learning_rate=None, measure=None):
    """Train until done(steps, seconds) reaches 1, measuring six times off the clock; `(steps, the best measured)`."""
    use_fast_forward(model)
    peak, device, best = options.learning_rate, blocks.device, math.inf
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.01, fused=True)
    if embedding_learning_rate is not None:
        split_off(optimizer, [model.transformer.wte.weight], embedding_learning_rate)
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]

    def pass_(inputs, items):
        with torch.autocast(device.type, torch.bfloat16):
            loss = model(**inputs, num_items_in_batch=items).loss
        loss.backward()
        return loss.detach()

    step = RecordedStep(model.parameters(), device) if has_graphs(device) else lambda pass_, *inputs: pass_(*inputs)
    model.train()
    order, steps, spent, marks = [], 0, 0.0, [sixths / 6 for sixths in range(1, 7)]
    while (share := done(steps, spent)) < 1:
        begin = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * min(1, share / 0.05 + 0.01) * (1 - share)
        if len(order) < options.batch:
            order = torch.randperm(len(blocks), device=device).repeat(max(1, -(-options.batch // len(blocks))))
        labels, order = blocks[order[: options.batch]].long(), order[options.batch :]
        loss = step(pass_, {"input_ids": labels.clamp(min=0), "labels": labels}, (labels[:, 1:] != -100).sum())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps += 1
        if steps % 4 == 0:
            loss.item()  # waits for the device, so that the clock is right
        spent += time.perf_counter() - begin
        while measure and marks and done(steps, spent) >= marks[0]:
            marks.pop(0)
            best = min(best, measure())
    return steps, min(best, measure()) if measure and marks else best


@torch.no_grad()
def bits_per_character(model, blocks, characters):
    """The summed -log2 p of all tokens of `blocks`, end-of-text tokens included, over the characters of their text."""
    use_fast_forward(model)
    model.eval()
    nats = 0.0
    for labels in blocks.long().split(64):
        with torch.autocast(blocks.device.type, torch.bfloat16):
            nats += model(input_ids=labels.clamp(min=0), labels=labels, num_items_in_batch=1).loss.item()
    model.train()
    return nats / math.log(2) / characters


def characters_per_second(model, tokenizer, rows=5, length=100):
    """How many characters generate.py's loop writes, five texts at a time."""
    dtype = torch.float32 if model.device.type == "cpu" else torch.bfloat16
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    decoder = gpt2_decoder(model.config.to_dict(), tensors, model.device, dtype)
    prompts, sampling = [[tokenizer.eos_token_id]] * rows, Sampling(top_k=50)
    length = min(length, model.config.n_positions - 1)
    generate_ids(decoder, prompts, length, sampling, None, every=16)
    begin = time.perf_counter()
    written = generate_ids(decoder, prompts, length, sampling, None, every=16)
    seconds = time.perf_counter() - begin
    return sum(len(tokenizer.decode(ids, skip_special_tokens=True)) for ids in written) / seconds


if __name__ == "__main__":
    main()
