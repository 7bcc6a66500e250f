"""GPT-2's layers in training over the kernels of training_kernels.py: what forward.py may use in place of its own.

The residual stream is in bfloat16 where that is what is computed in: what is not a matrix product waits for memory,
and this is half as much of it. Needs Triton, which comes with PyTorch's CUDA and XPU builds.
"""

from functools import partial

import torch
import torch.nn.functional as F
import triton
from torch.autograd import Function
from torch.nn import Embedding
from transformers.models.gpt2.modeling_gpt2 import GPT2Block
from transformers.pytorch_utils import Conv1D

from gpt2_korean.speed import pieces
from gpt2_korean.speed import training_kernels as kernels
from gpt2_korean.speed.loss import IGNORED, cast, gradient_of

# The fastest on an H100 of those tried.
ROW_PROGRAMS = 660  # programs that share the rows among them
TILE_PROGRAMS = 1056  # the same where they share a row too, COLUMNS to each
COLUMNS = 512


def embed(tokens, weight, ids):
    """As forward.embed."""
    if type(tokens) is not Embedding or tokens.weight is not weight or not weight.requires_grad:
        return tokens(ids), weight
    return _Embed.apply(weight, ids)


def start(embedded, drop, norm, dtype):
    """As forward.start."""
    stream_dtype = dtype if dtype == torch.bfloat16 else embedded.dtype
    return _add_and_normalize(embedded, None, None, drop, norm, stream_dtype, dtype)


def layer(residual, normalized, block, next_norm, attend=None):
    """As forward.layer.

    attend: None, or a function of what c_attn computes, of its bias, which has been added and whose gradient is left to
    it, or None, the number of heads, dropout's probability and the factor of the scores.
    """
    attention, mlp = block.attn, block.mlp
    dtypes = residual.dtype, normalized.dtype
    qkv, bias = _product(attention.c_attn, normalized, adds_bias=True)
    probability = attention.attn_dropout.p if attention.training else 0.0
    x = (attend or _by_heads)(qkv, bias, attention.num_heads, probability, attention.scaling)
    x, bias = _product(attention.c_proj, x)
    residual, normalized = _add_and_normalize(x, bias, residual, attention.resid_dropout, block.ln_2, *dtypes)
    x, bias = _product(mlp.c_proj, _Gelu.apply(*_product(mlp.c_fc, normalized)))
    return _add_and_normalize(x, bias, residual, mlp.dropout, next_norm, *dtypes)


def masked(positions):
    """What layer attends by to keep pieces apart without kernels of its own."""
    return partial(_by_heads, attend=pieces.masked(positions))


def _by_heads(qkv, bias, heads, dropout, scale, attend=None):
    qkv = qkv if bias is None else _Added.apply(qkv, bias)
    q, k, v = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    if attend is not None:
        return attend(q, k, v, dropout, scale)
    x = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scale)
    return x.transpose(1, 2).flatten(2)


def cross_entropy_in_place(logits, labels, vocab):
    """As loss.cross_entropy_in_place."""
    losses = torch.empty(len(logits), device=logits.device)
    kernels.cross_entropy_kernel[(len(logits),)](
        logits, labels, losses, vocab, logits.shape[1], IGNORED=IGNORED, BLOCK=8192, num_warps=16
    )
    return losses


FUNCTIONS = embed, start, layer, cross_entropy_in_place  # for forward.use_fast_forward


def try_out(config, device, dtype):
    """Compute a layer of this `config` forth and back, so that what it needs is compiled.

    Raises whatever a compiler and a driver can raise.
    """
    with torch.random.fork_rng(devices=[]):
        with torch.device(device):
            block = GPT2Block(config)
            embedded = torch.zeros(1, 16, config.n_embd, requires_grad=True)
            logits, labels = torch.zeros(16, 128, dtype=dtype), torch.zeros(16, dtype=torch.long)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            first = start(embedded, block.mlp.dropout, block.ln_1, dtype)
            second = layer(*first, block, block.ln_2)
        torch.autograd.grad([tensor.float().sum() for tensor in second], embedded)
        cross_entropy_in_place(logits, labels, logits.shape[1])


def _product(module, x, adds_bias=False):
    """`(x times the weight of `module`, its bias)`: the bias' gradient is left to the caller.

    So is the bias itself, unless `adds_bias`. An adapter of LoRA does all by itself, and the bias is None.
    """
    if type(module) is not Conv1D:
        return module(x), None
    return multiply(x, module.weight, module.bias if adds_bias else None), module.bias


def multiply(x, weight, bias=None):
    """x [..., in] @ weight [in, out], in x's dtype; the weight's gradient is its sums, unrounded.

    bias: added, but without a gradient.
    """
    return _Multiply.apply(x, weight, bias)


class _Embed(Function):
    """The rows of the weight, and the weight itself for the last product: so both gradients of it are added here."""

    @staticmethod
    def forward(ctx, weight, ids):
        ctx.weight = weight
        ctx.save_for_backward(ids)
        return F.embedding(ids, weight), weight.view_as(weight)

    @staticmethod
    def backward(ctx, of_rows, of_weight):
        weight, (ids,) = ctx.weight, ctx.saved_tensors
        total, weight.grad = weight.grad, None  # as in loss.gradient_of
        total = of_weight if total is None else total.add_(of_weight)
        return total.index_add_(0, ids.flatten(), of_rows.flatten(0, -2)).detach(), None


class _Multiply(Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.weight, weight = weight, cast(weight, x.dtype)
        ctx.save_for_backward(x, weight)
        rows = x.reshape(-1, x.shape[-1])
        y = rows @ weight if bias is None else torch.addmm(cast(bias, x.dtype), rows, weight)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, of_y):
        x, weight = ctx.saved_tensors
        rows, of_rows = x.reshape(-1, x.shape[-1]), of_y.reshape(-1, of_y.shape[-1])
        of_x = (of_rows @ weight.T).view(x.shape) if ctx.needs_input_grad[0] else None
        of_weight = gradient_of(ctx.weight, rows.T, of_rows) if ctx.needs_input_grad[1] else None
        return of_x, of_weight, None


def _add_and_normalize(x, bias, residual, drop, norm, stream_dtype, dtype):
    """`(drop(x + bias) + residual, its layer norm)` in the two dtypes; bias and residual may be None."""
    probability, seed = drop.p if drop.training else 0.0, None
    if probability > 0:
        # From the device's own generator: a recorded graph draws another whenever it is replayed.
        seed = torch.randint(-(2**31), 2**31 - 1, (2,), dtype=torch.int32, device=x.device)
    return _AddAndNormalize.apply(
        x, bias, residual, norm.weight, norm.bias, norm.eps, probability, seed, stream_dtype, dtype
    )


class _AddAndNormalize(Function):
    @staticmethod
    def forward(ctx, x, bias, residual, weight, norm_bias, epsilon, probability, seed, stream_dtype, dtype):
        width = x.shape[-1]
        rows = x.numel() // width
        x, residual = x.contiguous(), None if residual is None else residual.contiguous()
        total, y = torch.empty_like(x, dtype=stream_dtype), torch.empty_like(x, dtype=dtype)
        mean, scale = torch.empty(2, rows, device=x.device)
        block = triton.next_power_of_2(width)
        ctx.options = {
            "FACTOR": 1 / max(1 - probability, 1e-9), "LEAST": round(probability * 2**31), "BIAS": bias is not None,
            "RESIDUAL": residual is not None, "BLOCK": block, "num_warps": 4 if block <= 1024 else 8,
        }  # fmt: skip
        kernels.add_norm_kernel[(min(rows, ROW_PROGRAMS),)](
            x, bias, residual, seed, weight, norm_bias, total, y, mean, scale, rows, width, epsilon, **ctx.options
        )
        ctx.save_for_backward(total, mean, scale, weight, seed)
        ctx.dtype = x.dtype
        ctx.set_materialize_grads(False)
        return total, y

    @staticmethod
    def backward(ctx, of_sum, of_y):
        total, mean, scale, weight, seed = ctx.saved_tensors
        width = total.shape[-1]
        rows = total.numel() // width
        programs, options = min(rows, ROW_PROGRAMS), ctx.options
        of_sum = None if of_sum is None else of_sum.contiguous()
        of_residual = torch.empty_like(total) if options["RESIDUAL"] else None
        # Without dropout the gradient is the same.
        own = options["LEAST"] > 0 or of_residual is None or total.dtype != ctx.dtype
        of_x = torch.empty_like(total, dtype=ctx.dtype) if own else of_residual
        parts = total.new_empty(programs, 3 * width, dtype=torch.float32)
        kernels.add_norm_backward_kernel[(programs,)](
            of_y.contiguous(), of_sum, total, mean, scale, weight, seed, of_residual, of_x, parts, rows, width,
            X=own, ADDED=of_sum is not None, **options,
        )  # fmt: skip
        of_weight, of_norm_bias, of_bias = sums(parts).view(3, width)
        of_bias = of_bias if options["BIAS"] else None
        return of_x, of_bias, of_residual, of_weight, of_norm_bias, None, None, None, None, None


class _Gelu(Function):
    """GPT-2's activation of x + bias; the bias may be None."""

    @staticmethod
    def forward(ctx, x, bias):
        x = x.contiguous()
        y, (rows, width), grid, blocks = torch.empty_like(x), *_tiles(x, 8)
        kernels.gelu_kernel[grid](x, bias, y, rows, width, BIAS=bias is not None, **blocks)
        ctx.save_for_backward(x, bias)
        return y

    @staticmethod
    def backward(ctx, of_y):
        x, bias = ctx.saved_tensors
        (rows, width), grid, blocks = _tiles(x, 2)
        of_x, parts = torch.empty_like(x), torch.empty(grid[0], width, device=x.device)
        kernels.gelu_backward_kernel[grid](
            of_y.contiguous(), x, bias, of_x, parts, rows, width, BIAS=bias is not None, **blocks
        )
        return of_x, None if bias is None else sums(parts)


class _Added(Function):
    """x, to which the bias has been added: its gradient."""

    @staticmethod
    def forward(ctx, x, bias):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, of_x):
        return of_x, of_x.sum((0, 1), dtype=torch.float32)


def _tiles(x, at_a_time):
    """`((rows, width), grid, blocks)` to go over a matrix like `x`, `at_a_time` rows by COLUMNS at a time."""
    width = x.shape[-1]
    rows, across = x.numel() // width, triton.cdiv(width, COLUMNS)
    down = max(1, min(triton.cdiv(rows, at_a_time), TILE_PROGRAMS // across))
    return (rows, width), (down, across), {"ROWS": at_a_time, "COLUMNS": COLUMNS, "num_warps": 4}


def sums(parts):
    """The sums [width] of parts [programs, width]."""
    rows, width = parts.shape
    sums, columns = parts.new_empty(width), 16
    kernels.sum_kernel[(triton.cdiv(width, columns),)](parts, sums, rows, width, ROWS=256, COLUMNS=columns, num_warps=8)
    return sums
