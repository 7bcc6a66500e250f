"""Attention within the pieces of a batch, so that no token attends to another document.

A piece begins with each row, and wherever a position is not the one before it plus one. Each way here makes of a
batch's positions, int64 [batch, length], what all its layers attend by: a function of queries, keys and values, each
[batch, heads, length, head width], the probability of dropout and the factor of the scores, that returns
[batch, length, width].
"""

from functools import partial

import torch
import torch.nn.functional as F

WASTE = 2**14  # scores of a head that are computed in vain before a group of its own costs less


def separate(positions):
    """The faster of the two ways that every device has: to know lengths is to wait for a device that is not a CPU."""
    return grouped(positions) if positions.device.type == "cpu" else masked(positions)


def masked(positions):
    """By a mask: its shape is the batch's alone, as compiled and recorded steps need."""
    pieces = begins(positions).cumsum(1)
    return partial(_masked, (pieces[:, None, :, None] == pieces[:, None, None]).tril())


def _masked(mask, q, k, v, dropout, scale):
    x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale)
    return x.transpose(1, 2).flatten(2)


def grouped(positions):
    """As rows of their own, those of about one length together: filled up on the right, where no real token attends.

    None where each row is one piece, which needs nothing of this.
    """
    starts = begins(positions).flatten().nonzero().flatten()
    if len(starts) == len(positions):
        return None
    lengths = starts.diff(append=torch.tensor([positions.numel()]))
    groups, waste = [], 0
    for length, start in sorted(zip(lengths.tolist(), starts.tolist(), strict=True), reverse=True):
        waste += groups[-1][0][0] ** 2 - length**2 if groups else 0
        if waste > WASTE or not groups:
            groups, waste = [*groups, []], 0
        groups[-1].append((length, start))
    indices, back, filled = [], torch.empty(positions.numel(), dtype=torch.long), 0
    for group in groups:
        lengths, starts = torch.tensor(group).T[..., None]
        places = torch.arange(group[0][0])
        index, real = starts + places.minimum(lengths - 1), places < lengths
        back[index[real]] = filled + real.flatten().nonzero().flatten()
        indices.append(index)
        filled += index.numel()
    return partial(_grouped, indices, back)


def _grouped(indices, back, q, k, v, dropout, scale):
    batch, heads, length, width = q.shape
    rows = [x.transpose(1, 2).reshape(-1, heads * width) for x in (q, k, v)]
    parts = []
    for index in indices:  # embedding: the one that gathers rows whose gradients all cores add up
        group = (F.embedding(index, x).unflatten(2, (heads, width)).transpose(1, 2) for x in rows)
        x = F.scaled_dot_product_attention(*group, dropout_p=dropout, is_causal=True, scale=scale)
        parts.append(x.transpose(1, 2).reshape(-1, heads * width))
    return F.embedding(back, torch.cat(parts)).view(batch, length, -1)


def begins(positions):
    """Where a piece begins, bool [batch, length]."""
    return F.pad(positions[:, 1:] != positions[:, :-1] + 1, (1, 0), value=True)
