"""Which vocabulary and which start turn an English GPT-2 into a Korean one soonest?

Every method gets the same English model, the same seconds and the same held-out documents, and is told
apart by bits per character, which does not depend on the tokenizer. Where GPT-2's weights cannot be
downloaded, an English start is trained first, for a while, on English text.

    python benchmarks/adaptation.py --korean reviews.txt.xz --english books.txt.xz --gpt2_tokenizer folder
    python benchmarks/adaptation.py --korean reviews.txt.xz --source_model gpt2-medium
"""

import argparse
import copy
import json
import lzma
import math
import random
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

from gpt2_korean.blocks import cut
from gpt2_korean.model import load_pretrained
from gpt2_korean.vocabulary import carry_over, train_tokenizer

METHODS = ("original", "mean", "random", "scratch", "mean_scaled", "mean_noise", "embeddings_first")
HELD_OUT_CHARACTERS = 200_000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--korean", required=True, help="one document a line, .txt or .txt.xz")
    parser.add_argument("--english", help="text of the English start, .txt or .txt.xz")
    parser.add_argument("--gpt2_tokenizer", help="folder with GPT-2's vocab.json and merges.txt")
    parser.add_argument("--source_model", help="a GPT-2 to adapt instead of an English start made here")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--english_seconds", type=float, default=120)
    parser.add_argument("--seconds", type=float, default=30, help="of training for each method")
    parser.add_argument("--megabytes", type=float, nargs="+", default=[0.3, 5, 1000], help="corpus sizes, UTF-8")
    parser.add_argument("--methods", nargs="+", default=METHODS[:4], choices=METHODS)
    parser.add_argument("--vocab_size", type=int, default=32_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=6e-4)
    options = parser.parse_args()

    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    documents = [line for line in read(options.korean).split("\n") if line.strip()]
    random.Random(0).shuffle(documents)
    held_out = take(documents, characters=HELD_OUT_CHARACTERS)
    documents = documents[len(held_out) :]
    if options.source_model:
        start, tokenizer = load_pretrained(options.source_model, torch.float32)
        start.to(device)
    else:
        tokenizer = GPT2Tokenizer.from_pretrained(options.gpt2_tokenizer)
        start = english_start(options, tokenizer, device)
    print(f"{device}, torch {torch.__version__}, {start.num_parameters() / 1e6:.0f} M parameters", flush=True)
    for megabytes in options.megabytes:
        texts = take(documents, size=megabytes * 1e6)
        korean = train_tokenizer(texts, options.vocab_size, options.context)
        streams = {name: packed(texts, t, options.context, device) for name, t in (("old", tokenizer), ("new", korean))}
        tests = {
            name: packed(held_out, t, options.context, device) for name, t in (("old", tokenizer), ("new", korean))
        }
        characters = sum(map(len, texts)), sum(map(len, held_out))
        print(
            f"\n{megabytes} MB asked, {characters[0]:,} characters, {len(korean):,} tokens in the vocabulary",
            flush=True,
        )
        for method in options.methods:
            results = []
            for seed in range(options.seeds):
                torch.manual_seed(seed)
                model, frozen = prepare(method, start, tokenizer, korean)
                name = "old" if method == "original" else "new"
                result = adapt(model, streams[name], tests[name], characters, frozen, options)
                results.append(result)
            bits = [result["bits_per_character"] for result in results]
            record = {"megabytes": megabytes, "method": method, "bits": bits, "last": results[-1]}
            spread = f" ± {(max(bits) - min(bits)) / 2:.3f}" if len(bits) > 1 else ""
            print(f"{method:18} {sum(bits) / len(bits):.3f}{spread}  {json.dumps(record)}", flush=True)


def read(path):
    opener = lzma.open if path.endswith(".xz") else open
    with opener(path, "rt", encoding="utf-8") as file:
        return file.read()


def take(documents, size=math.inf, characters=math.inf):
    """The first documents that fill `size` bytes or `characters` characters."""
    taken = []
    for document in documents:
        if size <= 0 or characters <= 0:
            break
        taken.append(document)
        size -= len(document.encode())
        characters -= len(document)
    return taken


def packed(texts, tokenizer, context, device):
    """Blocks of the texts as one int32 tensor [blocks, context]; the short rest is padded with -100."""
    rows = []
    for start in range(0, len(texts), 10_000):
        ids = tokenizer(texts[start : start + 10_000], add_special_tokens=False, verbose=False)["input_ids"]
        for block in cut(ids, tokenizer.eos_token_id, context):
            rows.append(block + [-100] * (context - len(block)))
    return torch.tensor(rows, dtype=torch.int32, device=device)


def english_start(options, tokenizer, device):
    """A GPT-2 trained on the English text for the seconds asked."""
    shape = {"n_layer": options.layers, "n_embd": options.width, "n_head": options.width // 64}
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=options.context, **shape, **ends)
    model = GPT2LMHeadModel(config).to(device)
    text = read(options.english)[:60_000_000]
    blocks = packed(
        [text[start : start + 20_000] for start in range(0, len(text), 20_000)], tokenizer, options.context, device
    )
    history = train(model, blocks, options.english_seconds, options)
    print(f"English start: {history['steps']} steps, loss {history['loss']:.3f}", flush=True)
    return model


def prepare(method, start, tokenizer, korean):
    """`(model, parameters to train in the first quarter or None)` for a method."""
    if method == "scratch":
        config = copy.deepcopy(start.config)
        config.vocab_size = len(korean)
        config.bos_token_id = config.eos_token_id = korean.eos_token_id
        return GPT2LMHeadModel(config).to(start.device), None
    model = copy.deepcopy(start)
    if method == "original":
        return model, None
    old = start.transformer.wte.weight.detach()
    carry_over(model, tokenizer, korean)
    weight = model.transformer.wte.weight
    with torch.no_grad():
        if method == "random":
            weight.copy_(torch.randn_like(weight) * old.std(0) + old.mean(0))
        elif method == "mean_noise":
            weight.add_(torch.randn_like(weight) * old.std(0) * 0.3)
        elif method == "mean_scaled":
            # The mean of many rows shrinks towards the centre: give each row GPT-2's distance from it.
            centre = old.mean(0)
            distance = (weight - centre).norm(dim=1, keepdim=True)
            weight.copy_(centre + (weight - centre) / distance.clamp(min=1e-6) * (old - centre).norm(dim=1).mean())
    return model, [weight] if method == "embeddings_first" else None


def train(model, blocks, seconds, options, first=None, watch=lambda: None):
    """Train for `seconds`, the learning rate falling with the clock; `watch` runs eight times, off the clock.

    first: the parameters trained in the first quarter, None for all.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=0.01, fused=True)
    order, steps, spent, watched = [], 0, 0.0, 0
    model.train()
    if first is not None:
        for parameter in model.parameters():
            parameter.requires_grad_(any(parameter is kept for kept in first))
    while spent < seconds:
        begin = time.perf_counter()
        share = spent / seconds
        if first is not None and share >= 0.25:
            model.requires_grad_(True)
            first = None
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * min(1, share / 0.05 + 0.01) * (1 - share)
        if len(order) < options.batch:
            order = torch.randperm(len(blocks), device=blocks.device).repeat(max(1, -(-options.batch // len(blocks))))
        batch, order = blocks[order[: options.batch]].long(), order[options.batch :]
        with torch.autocast(blocks.device.type, torch.bfloat16):
            loss = mean_loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps += 1
        last = loss.item()  # waits for the device, so that the clock is right
        spent += time.perf_counter() - begin
        if spent / seconds * 8 >= watched + 1:
            watched += 1
            watch()
    return {"steps": steps, "loss": last}


def mean_loss(model, batch):
    logits = model(batch.clamp(min=0)).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten(), ignore_index=-100)


@torch.no_grad()
def bits_per_character(model, blocks, characters):
    model.eval()
    nats = 0.0
    for batch in blocks.split(32):
        targets = (batch[:, 1:] != -100).sum()
        with torch.autocast(blocks.device.type, torch.bfloat16):
            nats += (mean_loss(model, batch.long()) * targets).item()
    model.train()
    return nats / math.log(2) / characters


def adapt(model, blocks, test, characters, first, options):
    """Train and report the best of eight evaluations: a small corpus is learnt by heart before the time is up."""
    history = []
    before = bits_per_character(model, test, characters[1])
    run = train(
        model,
        blocks,
        options.seconds,
        options,
        first,
        lambda: history.append(bits_per_character(model, test, characters[1])),
    )
    tokens = (blocks[:, 1:] != -100).sum().item()
    seen = run["steps"] * options.batch / len(blocks) * characters[0]
    return {
        "bits_per_character": min(history),
        "before": round(before, 3),
        "history": [round(bits, 3) for bits in history],
        "tokens_per_character": round(tokens / characters[0], 3),
        "characters_seen": int(seen),
    }


if __name__ == "__main__":
    main()
