"""Attention within the pieces of a batch by the kernels of attention_kernels.py: what pieces.py's ways are, but faster.

Needs Triton, which comes with PyTorch's CUDA and XPU builds.
"""

from functools import partial

import torch
import triton
from torch.autograd import Function

from gpt2_korean.speed import attention_kernels as kernels
from gpt2_korean.speed.layer import sums
from gpt2_korean.speed.pieces import begins

# Kind of heads → pass → queries and keys of a tile, warps, stages: the fastest on an H100 of those tried. Both passes
# that loop over keys must have as many of them in a tile, since what dropout drops depends on it.
TILES = {
    "narrow": {"forward": (64, 64, 4, 3), "of_queries": (64, 64, 4, 3), "of_keys": (64, 64, 4, 2)},
    "narrow, dropping": {"forward": (64, 32, 4, 3), "of_queries": (64, 32, 4, 3), "of_keys": (32, 64, 4, 3)},
    "wide": {"forward": (64, 64, 4, 2), "of_queries": (64, 64, 4, 2), "of_keys": (32, 64, 4, 2)},
}


def fused(positions):
    """As layer.masked, by our kernels."""
    return partial(_fused, *boundaries(positions))


def try_out(config, device, dtype):
    """Attend forth and back as a model of this `config` does; raises whatever a compiler and a driver can raise."""
    with torch.random.fork_rng(devices=[]):
        qkv = torch.zeros(1, 16, 3 * config.n_embd, dtype=dtype, device=device, requires_grad=True)
        positions = torch.zeros(1, 16, dtype=torch.long, device=device)
        x = fused(positions)(qkv, None, config.n_head, config.attn_pdrop, 0.125)
    torch.autograd.grad(x.float().sum(), qkv)


def boundaries(positions):
    """`(where each token's piece begins, where it ends)`, int32 [tokens], of positions [batch, length]."""
    number = begins(positions).flatten().cumsum(0)
    starts, ends = (torch.searchsorted(number, number, out_int32=True, right=right) for right in (False, True))
    return starts, ends


def _fused(starts, ends, qkv, bias, heads, dropout, scale):
    # From the device's own generator: a recorded graph draws another whenever it is replayed.
    seed = torch.randint(-(2**31), 2**31 - 1, (4,), dtype=torch.int32, device=qkv.device) if dropout > 0 else None
    x = _Attention.apply(qkv.flatten(0, 1), bias, heads, starts, ends, seed, dropout, scale)
    return x.view(*qkv.shape[:2], -1)


class _Attention(Function):
    """x [tokens, heads, head width] of qkv [tokens, 3 × width]; bias: None, or what has been added to qkv."""

    @staticmethod
    def forward(ctx, qkv, bias, heads, starts, ends, seed, dropout, scale):
        q, k, v = qkv.unflatten(1, (3, heads, -1)).unbind(1)
        tokens, heads, width = q.shape
        x, log_sums = q.new_empty(q.shape), q.new_empty(heads, tokens, dtype=torch.float32)
        ctx.options = {
            "scale": scale, "LEAST": min(round(dropout * 2**32), 2**32 - 1),
            "WIDTH": width, "BLOCK": max(16, triton.next_power_of_2(width)),
        }  # fmt: skip
        grid, tiles = _tiles("forward", q, seed is not None)
        kernels.attention_kernel[grid](
            q, k, v, starts, seed, x, log_sums, tokens, *q.stride()[:2], **ctx.options, **tiles
        )
        ctx.save_for_backward(q, k, v, starts, ends, seed, x, log_sums)
        ctx.has_bias = bias is not None
        return x

    @staticmethod
    def backward(ctx, of_x):
        q, k, v, starts, ends, seed, x, log_sums = ctx.saved_tensors
        of_x, along = of_x.contiguous(), torch.empty_like(log_sums)
        shape, columns = (len(q), *q.stride()[:2]), q[0].numel()
        of_qkv = q.new_empty(len(q), 3 * columns)
        grid, tiles = _tiles("of_queries", q, seed is not None)
        of_q_parts = log_sums.new_empty(grid[1], columns)
        kernels.of_queries_kernel[grid](
            q, k, v, starts, seed, x, of_x, log_sums, along, of_qkv, of_q_parts, *shape, **ctx.options, **tiles
        )
        grid, tiles = _tiles("of_keys", q, seed is not None)
        parts = log_sums.new_empty(grid[1], 2 * columns)
        kernels.of_keys_kernel[grid](
            q, k, v, ends, seed, of_x, log_sums, along, of_qkv, parts, *shape, **ctx.options, **tiles
        )
        of_bias = torch.cat([sums(of_q_parts), sums(parts)]) if ctx.has_bias else None
        return of_qkv, of_bias, None, None, None, None, None, None


def _tiles(name, q, drops):
    """The grid, heads by tiles, and the sizes of a tile in the pass `name`."""
    tokens, heads, width = q.shape
    tiles = TILES["wide" if width > 64 else "narrow, dropping" if drops else "narrow"]
    queries, keys, warps, stages = tiles[name]
    grid = heads, triton.cdiv(tokens, keys if name == "of_keys" else queries)
    unit = tiles["forward"][1] if name == "of_keys" else tiles["of_keys"][0]
    return grid, {"QUERIES": queries, "KEYS": keys, "UNIT": unit, "num_warps": warps, "num_stages": stages}
