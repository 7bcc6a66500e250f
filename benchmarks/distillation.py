"""Token Distillation (Dobler et al. 2025, arXiv 2505.20133) for adaptation.py: rows of new embeddings with which a
model makes of a new token what it made of the old ones that it stands for.

The same text is read in both vocabularies, all other weights fixed, and the new rows alone learn to bring the last
hidden states nearest to each other, wherever an old and a new token end at the same byte. Here a whole corpus is read
in batches, where the paper takes single sentences for each token.
"""

import itertools
import time

import numpy as np
import torch

CONTEXT, BATCH = 512, 32
LEARNING_RATE = 1e-3
MOST_DOCUMENTS = 200_000  # more than a minute reads


def distil(rows, model, old, new, seconds):
    """`rows` [new vocab, width] after so many seconds of it.

    model: a GPT-2 of the old vocabulary. old, new: the same texts in each, `(ids, the bytes of each token)`.
    """
    streams = [(ids, _ends(ids, pieces)) for ids, pieces in (old, new)]
    body, embeddings = model.transformer.eval(), torch.nn.Parameter(rows.clone())
    optimizer = torch.optim.AdamW([embeddings], lr=LEARNING_RATE, weight_decay=0.0)
    begin = time.perf_counter()
    for step, window in enumerate(_windows(*streams)):
        if (share := (time.perf_counter() - begin) / seconds) >= 1:
            break
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - share)
        ids, new_ids, places = (torch.from_numpy(each).to(rows.device) for each in window)
        with torch.autocast(rows.device.type, torch.bfloat16):
            with torch.no_grad():
                wanted = body(ids, use_cache=False).last_hidden_state
            found = body(inputs_embeds=embeddings[new_ids], use_cache=False).last_hidden_state
        wanted = wanted.gather(1, places.clamp(min=0)[..., None].expand(*places.shape, wanted.shape[2]))
        error = (found.float() - wanted.float()).square().mean(2)[places >= 0].mean()
        (gradient,) = torch.autograd.grad(error, embeddings)
        embeddings.grad = gradient
        optimizer.step()
        if step % 200 == 0:
            print(f"# distillation, step {step}: {error.item():.4f}", flush=True)
    print(f"# distillation, {step} steps of {BATCH} x {CONTEXT}: {error.item():.4f}", flush=True)
    return embeddings.detach()


def _ends(ids, pieces):
    """Where each of `ids` ends, in bytes of all texts; the end of a text is one byte."""
    return np.array([1 if piece is None else len(piece) for piece in pieces])[ids].cumsum()


def _windows(old, new):
    """Yield batches of windows of CONTEXT old tokens in a random order, for ever: `(old ids, new ids, for each of those
    at which place of the window an old token ends where it does, or -1)`, int64."""
    (ids, ends), (new_ids, new_ends) = old, new
    at = np.searchsorted(ends, new_ends)
    places, starts = np.where(ends[at] == new_ends, at, -1), np.concatenate([[0], new_ends[:-1]])
    for seed in itertools.count():
        order = np.random.default_rng(seed).permutation(len(ids) // CONTEXT)
        for first in range(0, len(order) - BATCH + 1, BATCH):
            batch = np.zeros((BATCH, CONTEXT), np.int64), np.zeros((BATCH, CONTEXT), np.int64)
            where = np.full((BATCH, CONTEXT), -1)
            for row, begin in enumerate(order[first : first + BATCH] * CONTEXT):
                batch[0][row] = ids[begin : begin + CONTEXT]
                low = np.searchsorted(starts, ends[begin - 1] if begin else 0)
                own = slice(low, min(low + CONTEXT, np.searchsorted(new_ends, ends[begin + CONTEXT - 1], "right")))
                batch[1][row, : own.stop - low] = new_ids[own]
                where[row, : own.stop - low] = np.where(places[own] < 0, -1, places[own] - begin)
            longest = (where >= 0).any(0).nonzero()[0].max() + 1
            yield batch[0], batch[1][:, :longest], where[:, :longest]
