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
    adapter, focus, omp    a Korean vocabulary, the rows as others have them computed (peer_starts.py), if installed
    distilled  as ours, and the rows taught by Token Distillation (distillation.py) for --distil_seconds
    random     a Korean vocabulary, the rows random with GPT-2's mean and spread
    scratch    a Korean vocabulary and no English start

Training is train.py's own (speed/forward.py, speed/graphs.py), not compiled, in bfloat16 where the device computes in
it, the learning rate rising for a twentieth and falling to 0. Setting up is on the clock, unless --free_set_up is
given; the embeddings, all but the same for each seed, are computed once. On a machine that others use too, --steps
compares after as many steps instead. Each result is the best of the evaluations along the way, the first of them close
together, since a small corpus is learnt by heart before the time is up; its mean over the seeds.
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

import peer_starts
from distillation import MOST_DOCUMENTS, distil

from gpt2_korean.device import computes_bfloat16, has_graphs
from gpt2_korean.generation.choose_decoder import gpt2_decoder
from gpt2_korean.generation.loop import generate_ids
from gpt2_korean.generation.sampling import Sampling
from gpt2_korean.model import embeddings
from gpt2_korean.model.embeddings import COUNTED_TOKENS, split_off
from gpt2_korean.model.load import load_pretrained
from gpt2_korean.speed.forward import use_fast_forward
from gpt2_korean.speed.graphs import RecordedStep
from gpt2_korean.text.vocabulary import token_bytes, train_tokenizer, wrap
from gpt2_korean.training.plan import NEW_EMBEDDINGS

METHODS = ("original", "ours", "aligned", "mean", *peer_starts.PEERS, "distilled", "random", "scratch")
HELD_OUT_CHARACTERS = 100_000


def main():
    options = parse()
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    documents, held_out = korean_documents(options.korean, options.held_out)
    options.methods = [method for method in options.methods if peer_starts.is_ready(method)]
    start, old = english_start(options, device)
    print(f"{device}, torch {torch.__version__}, {start.num_parameters() / 1e6:.0f} M parameters", flush=True)
    for megabytes, length in zip(options.megabytes, options.steps or options.seconds, strict=True):
        texts = take(documents, megabytes * 1e6)
        korean = korean_tokenizer(texts, options)
        print(f"\n{sum(map(len, texts)):,} characters, {len(korean):,} tokens in the vocabulary", flush=True)
        compare(start, old, korean, texts, held_out, length, options, device)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--korean", required=True, help="one document a line, .txt or .txt.xz")
    add_start(parser)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[0.3, 5, 1000], help="corpus sizes, UTF-8")
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 20, 60], help="of training, for each size")
    parser.add_argument("--steps", type=int, nargs="+", help="of training, for each size, instead of --seconds")
    parser.add_argument("--most_epochs", type=float, default=math.inf, help="after which the learning rate is 0")
    parser.add_argument("--free_set_up", action="store_true", help="leave setting up off the clock")
    parser.add_argument("--distil_seconds", type=float, default=60, help="of Token Distillation")
    parser.add_argument("--held_out", type=int, default=HELD_OUT_CHARACTERS, help="characters to measure with")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--evaluations", type=int, default=24, help="along the way, of which the best counts")
    parser.add_argument("--embedding_learning_rate", type=float, default=NEW_EMBEDDINGS, help="of ours")
    return parser.parse_args()


def add_start(parser):
    """Add to an argparse parser what english_start, korean_tokenizer and the loops over seeds and batches read."""
    parser.add_argument("--english", help="text of the English start, .txt or .txt.xz")
    parser.add_argument("--english_also", help="a text of which a hundredth is mixed into it, as the web would")
    parser.add_argument("--gpt2_tokenizer", help="folder with GPT-2's vocab.json and merges.txt")
    parser.add_argument("--source_model", help="a GPT-2 to start from instead of an English start made here")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--english_seconds", type=float, default=120)
    parser.add_argument("--learning_rate", type=float, default=6e-4, help="of the English start, and of adaptation.py")
    parser.add_argument("--vocab_size", type=int, default=32_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--keep", type=Path, help="folder in which to keep what is made first, for the next run")


def compare(start, old, korean, texts, held_out, length, options, device):
    """Print what each method comes to, after the same time (or steps) and after the same characters."""
    tokenizers = {"old": old} if "original" in options.methods else {}
    tokenizers["new"] = korean
    blocks = {name: packed(texts, each, options.context, device) for name, each in tokenizers.items()}
    tests = {name: packed(held_out, each, options.context, device) for name, each in tokenizers.items()}
    characters, test_characters = sum(map(len, texts)), sum(map(len, held_out))
    given = start, old, korean, blocks["new"], texts, options.distil_seconds
    all_rows = {method: computed_rows(method, *given) for method in options.methods}
    columns = ("method", "what is equal", "bits per character", "±", "before", "set up, s", "steps", "to the best")
    columns += ("characters read", "written a second")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)

    def report(method, equal, done):
        name = "old" if method == "original" else "new"
        rows, spent_before = all_rows[method]
        own_rate = options.embedding_learning_rate if method in ("ours", "distilled") else None
        bits, before, bests = [], None, []
        for seed in range(options.seeds):
            torch.manual_seed(seed)
            gc.collect()  # the model before, with its graphs, or its memory would be freed on the clock
            if device.type != "cpu":
                torch.accelerator.empty_cache()
            begin = time.perf_counter()
            model = prepare(method, start, korean, rows)
            spent = spent_before + time.perf_counter() - begin
            clock = 0.0 if options.free_set_up else spent
            measure = partial(bits_per_character, model, tests[name], test_characters)
            before = before or measure()
            steps, measured = train(model, blocks[name], partial(done, clock), options, own_rate, measure)
            best, at = min(measured, default=(before, 0))
            bits.append(best)
            bests.append(at)
            print("#", method, seed, *(f"{bits:.4f}" for bits, _ in measured), file=sys.stderr, flush=True)
        read = int(steps * options.batch / len(blocks[name]) * characters)
        speed = f"{characters_per_second(model, tokenizers[name]):,.0f}" if equal == "time" else ""
        spread = f"{(max(bits) - min(bits)) / 2:.3f}"
        row = (method, equal, f"{statistics.mean(bits):.3f}", spread, f"{before:.2f}", f"{spent:.1f}", steps)
        row += (round(statistics.mean(bests)), f"{read:,}", speed)
        print(f"| {' | '.join(map(str, row))} |", flush=True)
        return read

    def share_of_time(most_steps, spent, steps, taken):
        return max((spent + taken) / length, steps / most_steps)

    read, most = {}, options.most_epochs / options.batch
    for method in options.methods:
        most_steps = most * len(blocks["old" if method == "original" else "new"])
        if options.steps:
            read[method] = report(method, "steps", lambda _, steps, __: steps / length)
        else:
            read[method] = report(method, "time", partial(share_of_time, most_steps))
    if "original" not in read:
        return
    for method in options.methods[1:]:
        whole = max(1, round(read["original"] / characters * len(blocks["new"]) / options.batch))
        report(method, "characters", lambda _, steps, __, whole=whole: steps / whole)


def korean_documents(path, characters=HELD_OUT_CHARACTERS):
    """Those to learn from, in a random order, and those held out."""
    documents = [line for line in read(path).split("\n") if line.strip()]
    random.Random(0).shuffle(documents)
    held_out = take(documents, characters, len)
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
    return in_blocks(token_stream(texts, tokenizer), tokenizer.eos_token_id, context, device)


def in_blocks(stream, begin, context, device):
    """A stream of tokens as `packed` returns them. begin: the token that stands before the first."""
    stream = np.concatenate([[begin], stream])
    # Neighbouring blocks share a token: each token but the first is predicted once.
    places = np.arange(0, len(stream) - 1, context - 1)[:, None] + np.arange(context)
    rows = np.where(places < len(stream), stream[places.clip(max=len(stream) - 1)], -100)
    return torch.tensor(rows, dtype=torch.int32, device=device)


def token_stream(texts, tokenizer):
    """The tokens of the texts, each with an end, int32."""
    batches = (texts[start : start + 10_000] for start in range(0, len(texts), 10_000))
    ids = (ids for batch in batches for ids in tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"])
    return np.concatenate([np.array([*each, tokenizer.eos_token_id], np.int32) for each in ids])


def english_start(options, device):
    """`(model, tokenizer)`: what was given, or a GPT-2 trained on the English text for the seconds asked."""
    if options.source_model:
        model, tokenizer = load_pretrained(options.source_model, torch.float32)
        return model.to(device), tokenizer
    model, tokenizer = untrained_start(options, device)
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


def untrained_start(options, device):
    """`(model, tokenizer)`: a GPT-2 of the shape asked for, of random weights."""
    tokenizer = GPT2Tokenizer.from_pretrained(options.gpt2_tokenizer)
    shape = {"n_layer": options.layers, "n_embd": options.width, "n_head": options.width // 64}
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=options.context, **shape, **ends)
    return GPT2LMHeadModel(config).to(device), tokenizer


def computed_rows(method, start, old, korean, blocks, texts=(), distil_seconds=0):
    """`(the embeddings of the Korean vocabulary, the seconds that they took)`, None where they are not computed.

    texts, distil_seconds: of distilled alone.
    """
    begin = time.perf_counter()
    rows, ids = start.transformer.wte.weight.detach(), blocks.flatten()
    ids = ids[ids >= 0][:COUNTED_TOKENS].long()
    if method in ("ours", "aligned", "distilled"):
        (new_rows,) = embeddings.carried_rows([rows], embeddings.find_pieces(old, korean), ids)
        if method == "distilled":
            streams = [(token_stream(texts[:MOST_DOCUMENTS], each), token_bytes(each)) for each in (old, korean)]
            new_rows = distil(new_rows, start, *streams, distil_seconds)
    elif method == "mean":
        new_rows = embeddings.mean_of_pieces(rows, embeddings.find_pieces(old, korean))
    elif method in peer_starts.PEERS:
        new_rows = peer_starts.PEERS[method](rows, old, korean, ids)
    else:
        return None, 0.0
    new_rows.sum().item()  # waits for the device, so that the clock is right
    return new_rows, time.perf_counter() - begin


def prepare(method, start, korean, rows):
    """The model that a method begins with. rows: its embeddings, where they are computed."""
    config = copy.deepcopy(start.config)
    if method == "scratch":
        config.vocab_size, config.bos_token_id, config.eos_token_id = len(korean), 0, 0
        return GPT2LMHeadModel(config).to(start.device)
    model = GPT2LMHeadModel(config).to(start.device)
    model.load_state_dict(start.state_dict())
    if method != "original":
        old = model.transformer.wte.weight.detach().clone()
        model.resize_token_embeddings(len(korean), mean_resizing=False)
        weight = model.transformer.wte.weight.detach()
        weight.copy_(torch.randn_like(weight) * old.std(0) + old.mean(0) if rows is None else rows)
    return model


def train(model, blocks, done, options, embedding_learning_rate=None, measure=None):
    """Train until done(steps, seconds) reaches 1, measuring off the clock.

    Returns the steps and, for each evaluation, what was measured and after how many of them.
    """
    use_fast_forward(model)
    peak, measured = options.learning_rate, []
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.01, fused=True)
    if embedding_learning_rate is not None:
        split_off(optimizer, [model.transformer.wte.weight], lr=embedding_learning_rate)
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]

    learn, batches = learner(model, blocks.device), shuffled(blocks, options.batch)
    model.train()
    steps, spent, set_up = 0, 0.0, done(0, 0.0)
    marks = [(number / options.evaluations) ** 2 for number in range(1, options.evaluations + 1)] if measure else []

    def progress():
        return (done(steps, spent) - set_up) / (1 - set_up)

    while set_up < 1 and (share := progress()) < 1:
        begin = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * min(1, share / 0.05 + 0.01) * (1 - share)
        loss = learn(next(batches))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps += 1
        if steps % 4 == 0:
            loss.item()  # waits for the device, so that the clock is right
        spent += time.perf_counter() - begin
        passed = sum(mark <= progress() for mark in marks)
        if passed:
            del marks[:passed]
            measured.append((measure(), steps))
    return steps, measured


def learner(model, device):
    """`f(labels [rows, context])`: the loss, with all gradients computed, recorded as train.py does."""

    def pass_(inputs, items):
        with in_bfloat16(device):
            loss = model(**inputs, num_items_in_batch=items).loss
        loss.backward()
        return loss.detach()

    step = RecordedStep(model.parameters(), device) if has_graphs(device) else lambda pass_, *inputs: pass_(*inputs)

    def learn(labels):
        return step(pass_, {"input_ids": labels.clamp(min=0), "labels": labels}, (labels[:, 1:] != -100).sum())

    return learn


def in_bfloat16(device):
    """autocast where the `device` computes in bfloat16; elsewhere a step would take minutes."""
    return torch.autocast(device.type, torch.bfloat16, enabled=computes_bfloat16(device))


def shuffled(blocks, size):
    """Yield batches of `size` blocks for ever, each of which comes again once all have come."""
    order = []
    while True:
        if len(order) < size:
            order = torch.randperm(len(blocks), device=blocks.device).repeat(max(1, -(-size // len(blocks))))
        yield blocks[order[:size]].long()
        order = order[size:]


@torch.no_grad()
def bits_per_character(model, blocks, characters):
    """The summed -log2 p of all tokens of `blocks`, end-of-text tokens included, over the characters of their text."""
    use_fast_forward(model)
    model.eval()
    nats = 0.0
    for labels in blocks.long().split(64):
        with in_bfloat16(blocks.device):
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
