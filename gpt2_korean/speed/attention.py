"""Attention within the pieces of a batch by the kernels of attention_kernels.py: what pieces.py's ways are, but faster.

Needs Triton, which comes with PyTorch's CUDA and XPU builds.
"""

from functools import partial

import torch
import triton
from torch.autograd import Function

from gpt2_korean.speed import attention_kernels as kernels
from gpt2_korean.speed.pieces import begins

# Pass and whether heads are wider than 64 → queries and keys of a tile, warps, stages: the fastest on an H100 of those
# tried.
TILES = {
    ("forward", False): (64, 64, 4, 3), ("forward", True): (64, 64, 4, 2),
    ("of_queries", False): (64, 32, 4, 4), ("of_queries", True): (64, 64, 4, 2),
    ("of_keys", False): (64, 64, 4, 3), ("of_keys", True): (32, 64, 4, 2),
}  # fmt: skip


def fused(positions):
    """As the ways of pieces.py, where Triton compiles; queries, keys and values must have one layout."""
    return partial(_fused, *boundaries(positions))


def try_out(config, device, dtype):
    """Attend forth and back as a model of this `config` does; raises whatever a compiler and a driver can raise."""
    with torch.random.fork_rng(devices=[]):
        qkv = torch.zeros(1, 16, 3 * config.n_embd, dtype=dtype, device=device, requires_grad=True)
        rows = qkv.unflatten(2, (3, config.n_head, -1)).permute(2, 0, 3, 1, 4)
        x = fused(torch.zeros(1, 16, dtype=torch.long, device=device))(*rows, config.attn_pdrop, 0.125)
    torch.autograd.grad(x.float().sum(), qkv)


def boundaries(positions):
    """`(where each token's piece begins, where it ends)`, int32 [tokens], of positions [batch, length]."""
    number = begins(positions).flatten().cumsum(0)
    starts, ends = (torch.searchsorted(number, number, out_int32=True, right=right) for right in (False, True))
    return starts, ends


def _fused(starts, ends, q, k, v, dropout, scale):
    rows = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))
    # From the device's own generator: a recorded graph draws another whenever it is replayed.
    seed = torch.randint(-(2**31), 2**31 - 1, (2,), dtype=torch.int32, device=q.device) if dropout > 0 else None
    return _Attention.apply(*rows, starts, ends, seed, dropout, scale).view(len(q), q.shape[2], -1)


class _Attention(Function):
    """x of q, k and v, all [tokens, heads, head width]."""

    @staticmethod
    def forward(ctx, q, k, v, starts, ends, seed, dropout, scale):
        tokens, heads, width = q.shape
        x, log_sums = q.new_empty(q.shape), q.new_empty(heads, tokens, dtype=torch.float32)
        ctx.options = {
            "scale": scale, "LEAST": min(round(dropout * 2**32), 2**32 - 1), "FACTOR": 1 / max(1 - dropout, 1e-9),
            "WIDTH": width, "BLOCK": max(16, triton.next_power_of_2(width)),
        }  # fmt: skip
        grid, tiles = _tiles("forward", q)
        kernels.attention_kernel[grid](
            q, k, v, starts, seed, x, log_sums, tokens, *q.stride()[:2], **ctx.options, **tiles
        )
        ctx.save_for_backward(q, k, v, starts, ends, seed, x, log_sums)
        return x

    @staticmethod
    def backward(ctx, of_x):
        q, k, v, starts, ends, seed, x, log_sums = ctx.saved_tensors
        of_x, along = of_x.contiguous(), torch.empty_like(log_sums)
        of_q, of_k, of_v = (torch.empty_like(x) for _ in range(3))
        shape = len(q), *q.stride()[:2]
        grid, tiles = _tiles("of_queries", q)
        kernels.of_queries_kernel[grid](
            q, k, v, starts, seed, x, of_x, log_sums, along, of_q, *shape, **ctx.options, **tiles
        )
        grid, tiles = _tiles("of_keys", q)
        kernels.of_keys_kernel[grid](
            q, k, v, ends, seed, of_x, log_sums, along, of_k, of_v, *shape, **ctx.options, **tiles
        )
        return of_q, of_k, of_v, None, None, None, None, None


def _tiles(name, q):
    """The grid, heads by tiles, and the sizes of a tile in the pass `name`."""
    tokens, heads, width = q.shape
    queries, keys, warps, stages = TILES[name, width > 64]
    grid = heads, triton.cdiv(tokens, keys if name == "of_keys" else queries)
    return grid, {"QUERIES": queries, "KEYS": keys, "num_warps": warps, "num_stages": stages}
