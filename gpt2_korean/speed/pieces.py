"""Attention within the pieces of a batch, so that no token attends to another document.

A piece begins with each row, and wherever a position is not the one before it plus one. Each way here makes of a
batch's positions, int64 [batch, length], what all its layers attend by: a function of queries, keys and values, each
[batch, heads, length, head width], the probability of dropout and the factor of the scores, that returns
[batch, length, width].
"""

from functools import partial

import torch
import torch.nn.functional as F

FEW = 2**17  # scores of a head in a batch: to gather pieces costs more than what they have fewer than that
WASTE = 2**14  # scores of a head that are computed in vain before a group of its own costs less


def separate(positions):
    """The faster of the two ways that every device has: to know lengths is to wait for a device that is not a CPU.

    None where each row is one piece, which needs nothing of this.
    """
    if positions.device.type != "cpu":
        return masked(positions)
    if begins(positions).sum() == len(positions):
        return None
    return masked(positions) if positions.numel() * positions.shape[1] < FEW else grouped(positions)


def masked(positions):
    """By a mask: its shape is the batch's alone, as compiled and recorded steps need."""
    pieces = begins(positions).cumsum(1)
    return partial(_masked, (pieces[:, None, :, None] == pieces[:, None, None]).tril())


def _masked(mask, q, k, v, dropout, scale):
    x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale)
    return x.transpose(1, 2).flatten(2)


def grouped(positions):
    """As rows of their own, those of about one length together: filled up on the right, where no real token attends."""
    starts = begins(positions).flatten().nonzero().flatten()
    lengths = starts.diff(append=torch.tensor([positions.numel()]))
    groups, waste = [], 0
    for length, start in sorted(zip(lengths.tolist(), starts.tolist(), strict=True), reverse=True):
        waste += groups[-1][0][0] ** 2 - length**2 if groups else 0
        if waste > WASTE or not groups:
            groups, waste = [*groups, []], 0
        groups[-1].append((length, start))
    shapes, indices, back, filled = [], [], torch.empty(positions.numel(), dtype=torch.long), 0
    for group in groups:
        lengths, starts = torch.tensor(group).T[..., None]
        places = torch.arange(group[0][0])
        index, real = starts + places.minimum(lengths - 1), places < lengths
        back[index[real]] = filled + real.flatten().nonzero().flatten()
        shapes.append(index.shape)
        indices.append(index.flatten())
        filled += index.numel()
    return partial(_grouped, shapes, torch.cat(indices), back)


def _grouped(shapes, index, back, q, k, v, dropout, scale):
    batch, heads, length, width = q.shape
    # embedding: the one that gathers rows whose gradients all cores add up
    rows = (F.embedding(index, x.transpose(1, 2).reshape(-1, heads * width)) for x in (q, k, v))
    parts = []
    for shape, *group in zip(shapes, *(x.split([shape.numel() for shape in shapes]) for x in rows), strict=True):
        group = (x.view(*shape, heads, width).transpose(1, 2) for x in group)
        x = F.scaled_dot_product_attention(*group, dropout_p=dropout, is_causal=True, scale=scale)
        parts.append(x.transpose(1, 2).reshape(-1, heads * width))
    return F.embedding(back, torch.cat(parts)).view(batch, length, -1)


def begins(positions):
    """Where a piece begins, bool [batch, length]."""
    return F.pad(positions[:, 1:] != positions[:, :-1] + 1, (1, 0), value=True)
