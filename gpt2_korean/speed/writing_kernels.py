"""GPT-2's step as Triton kernels: what is small runs inside what reads the weights or the cache.

For one row a step reads every weight once and computes next to nothing, so that its time goes where
kernels begin and end: there are five a layer, and layer norm, bias, activation and residual get none of
their own. More rows are the matrix units' business, between which one kernel adds to the residual stream
and normalises it.
Attention keeps the new key and value itself, for any number of rows. Triton comes with PyTorch's CUDA and
XPU builds.
"""

import gc
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
import triton
import triton.language as tl

from gpt2_korean.model.gpt2 import TANH_GELU, inner_width
from gpt2_korean.speed import linear

MANY = 1024  # heads of all rows: more than a GPU does at a time, so that each waits for little of the cache at a time


@triton.jit
def sigmoid_of_gelu(x):
    """s in GPT-2's gelu(x) = x s: 0.5 (1 + tanh z) is the sigmoid of 2z."""
    return tl.sigmoid(2 * 0.7978845608028654 * (x + 0.044715 * x * x * x))


@triton.jit(do_not_specialize=["gelu"])
def linear_kernel(
    x_ptr, added_ptr, weight_ptr, bias_ptr, norm_weight_ptr, norm_bias_ptr, y_ptr, sum_ptr, inputs, outputs, epsilon,
    gelu, ADDED: tl.constexpr, NORM: tl.constexpr, BLOCK_OUT: tl.constexpr, BLOCK_IN: tl.constexpr,
):  # fmt: skip
    """BLOCK_OUT outputs of one row; BLOCK_IN covers all its inputs."""
    outs = tl.program_id(0) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    ins = tl.arange(0, BLOCK_IN)
    wanted, valid = outs < outputs, ins < inputs
    # First of all, the one read that takes long.
    weight = tl.load(
        weight_ptr + outs[:, None].to(tl.int64) * inputs + ins[None, :], wanted[:, None] & valid[None, :], 0.0
    )
    x = tl.load(x_ptr + ins, valid, 0.0).to(tl.float32)
    if ADDED:  # every program needs the sum, one keeps it
        x += tl.load(added_ptr + ins, valid, 0.0).to(tl.float32)
        tl.store(sum_ptr + ins, x.to(sum_ptr.dtype.element_ty), valid & (tl.program_id(0) == 0))
    if NORM:
        centred = tl.where(valid, x - tl.sum(x, 0) / inputs, 0.0)
        x = centred * tl.rsqrt(tl.sum(centred * centred, 0) / inputs + epsilon)
        x = x * tl.load(norm_weight_ptr + ins, valid, 0.0).to(tl.float32)
        x += tl.load(norm_bias_ptr + ins, valid, 0.0).to(tl.float32)
    y = tl.sum(weight.to(tl.float32) * x[None, :], 1) + tl.load(bias_ptr + outs, wanted, 0.0).to(tl.float32)
    if gelu:
        y *= sigmoid_of_gelu(y)
    tl.store(y_ptr + outs, y.to(y_ptr.dtype.element_ty), wanted)


@triton.jit
def norm_kernel(
    x_ptr, added_ptr, weight_ptr, bias_ptr, y_ptr, sum_ptr, inputs, epsilon, ADDED: tl.constexpr, BLOCK_IN: tl.constexpr
):
    """Layer norm of one row, or of the sum of two, which is kept."""
    ins = tl.arange(0, BLOCK_IN)
    valid = ins < inputs
    start = tl.program_id(0) * inputs
    x = tl.load(x_ptr + start + ins, valid, 0.0).to(tl.float32)
    if ADDED:
        x += tl.load(added_ptr + start + ins, valid, 0.0).to(tl.float32)
        tl.store(sum_ptr + start + ins, x.to(sum_ptr.dtype.element_ty), valid)
    weight = tl.load(weight_ptr + ins, valid, 0.0).to(tl.float32)
    bias = tl.load(bias_ptr + ins, valid, 0.0).to(tl.float32)
    centred = tl.where(valid, x - tl.sum(x, 0) / inputs, 0.0)
    y = centred * tl.rsqrt(tl.sum(centred * centred, 0) / inputs + epsilon) * weight + bias
    tl.store(y_ptr + start + ins, y.to(y_ptr.dtype.element_ty), valid)


@triton.jit
def attention_kernel(
    qkv_ptr, keys_ptr, values_ptr, first_ptr, next_ptr, y_ptr, slots, scale,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, BLOCK_WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One head of one row: its query over the slots from `first` on and the new key, which goes to slot `next`."""
    row, head = tl.program_id(0), tl.program_id(1)
    dims = tl.arange(0, BLOCK_WIDTH)
    real = dims < WIDTH
    first, last = tl.load(first_ptr + row), tl.load(next_ptr)
    new = qkv_ptr + row * 3 * HEADS * WIDTH + head * WIDTH + dims
    q = tl.load(new, real, 0.0).to(tl.float32) * scale
    new_key = tl.load(new + HEADS * WIDTH, real, 0.0)
    new_value = tl.load(new + 2 * HEADS * WIDTH, real, 0.0)
    # A softmax in one pass (Milakov and Gimelshein 2018) that begins with the new key.
    highest = tl.sum(q * new_key.to(tl.float32), 0)
    total = 1.0
    y = new_value.to(tl.float32)
    base = (row * HEADS + head).to(tl.int64) * slots * WIDTH
    for begin in range(first // BLOCK * BLOCK, last, BLOCK):
        at = begin + tl.arange(0, BLOCK)
        inside = (at >= first) & (at < last)
        places = base + at[:, None] * WIDTH + dims[None, :]
        wanted = inside[:, None] & real[None, :]
        keys = tl.load(keys_ptr + places, wanted, 0.0)
        values = tl.load(values_ptr + places, wanted, 0.0)  # on its way while the scores are computed
        scores = tl.where(inside, tl.sum(keys.to(tl.float32) * q[None, :], 1), float("-inf"))
        new_highest = tl.maximum(highest, tl.max(scores, 0))
        shrink = tl.exp(highest - new_highest)
        weights = tl.exp(scores - new_highest)
        total = total * shrink + tl.sum(weights, 0)
        y = y * shrink + tl.sum(values.to(tl.float32) * weights[:, None], 0)
        highest = new_highest
    tl.store(keys_ptr + base + last * WIDTH + dims, new_key, real)
    tl.store(values_ptr + base + last * WIDTH + dims, new_value, real)
    tl.store(y_ptr + (row * HEADS + head) * WIDTH + dims, (y / total).to(y_ptr.dtype.element_ty), real)


def fused(weight, bias, norm=None, activation=None):
    """What linear.plain gives, by one kernel where x is a single row."""
    if activation is not None and activation not in TANH_GELU:
        return linear.plain(weight, bias, norm, activation)
    many_rows = _product_and_gelu(weight, bias) if activation else linear.plain(weight, bias)
    outputs, inputs = weight.shape
    norm_weight, norm_bias, epsilon = norm or (weight, weight, 0.0)
    bias = weight.new_zeros(outputs) if bias is None else bias  # rather than a kernel more to compile
    options = _linear_options(inputs)

    def run(x, added=None):
        if x.numel() != inputs:
            if norm is None:
                return many_rows(x)
            y, x = _normalise(x, added, *norm)
            return many_rows(y), x
        y, total = x.new_empty(*x.shape[:-1], outputs), x if added is None else torch.empty_like(x)
        linear_kernel[(triton.cdiv(outputs, options["BLOCK_OUT"]),)](
            x, x if added is None else added, weight, bias, norm_weight, norm_bias, y, total, inputs, outputs, epsilon,
            int(activation is not None), ADDED=added is not None, NORM=norm is not None, **options,
        )  # fmt: skip
        return y if norm is None else (y, total)

    return run


def _product_and_gelu(weight, bias):
    """A linear layer and GPT-2's activation, which cuBLAS can compute as it writes its sums."""
    if weight.device.type != "cuda" or bias is None:
        return linear.plain(weight, bias, None, TANH_GELU[0])

    def run(x):
        rows = x.reshape(-1, x.shape[-1])
        return torch._addmm_activation(bias, rows, weight.t(), use_gelu=True).view(*x.shape[:-1], -1)

    return run


def _normalise(x, added, weight, bias, epsilon):
    """The layer norm of x + added, and that sum."""
    x = x.contiguous()
    added = None if added is None else added.contiguous()
    y, total, inputs = torch.empty_like(x), x if added is None else torch.empty_like(x), x.shape[-1]
    norm_kernel[(x.numel() // inputs,)](
        x, x if added is None else added, weight, bias, y, total, inputs, epsilon, ADDED=added is not None,
        **_norm_options(inputs),
    )  # fmt: skip
    return y, total


def attend(qkv, keys, values, first, last, reach):
    """Attention of one new token in each row, which it also puts into the cache.

    qkv: [batch, 1, 3 × width], contiguous; keys, values: the cache, [batch, heads, slots, head width];
    first: int64 [batch], each row's first slot that counts; last: int64 [1], the slot of the new token;
    reach: about how many slots are in use, to choose a block size by. Returns [batch, 1, width].
    """
    batch, heads, slots, width = keys.shape
    y = qkv.new_empty(batch, 1, heads * width)
    attention_kernel[(batch, heads)](
        qkv, keys, values, first, last, y, slots, width**-0.5, **_attention_options(batch, heads, width, reach)
    )
    return y


def compile_kernels(config, device, dtype):
    """Compile what a GPT-2 of this `config` writes with, for one row and for several, side by side.

    One after the other takes two seconds and more where nothing has been compiled before. Raises whatever a
    compiler and a driver can raise.
    """
    # As much as a kernel's first program reads or writes.
    numbers = torch.zeros(max(4096, 3 * config["n_embd"], inner_width(config)), device=device, dtype=dtype)
    calls = _calls_of(config, numbers, torch.zeros(1, dtype=torch.long, device=device))
    calls = [partial(kernel[(1,)], *arguments, **options) for kernel, arguments, options in calls]
    # What all of them need, and each would else do for itself: a helper for the driver, the hash of Triton's libraries.
    first = triton.runtime.driver.active.get_current_device, getattr(triton.runtime.cache, "triton_key", int)
    # Python 3.11 raises SystemError where it looks for garbage while several threads parse: once in some 60 starts.
    gc.disable()
    try:
        with ThreadPoolExecutor(len(calls)) as threads:
            for work in (first, calls):
                for call in [threads.submit(call) for call in work]:
                    call.result()
    finally:
        gc.enable()


def _calls_of(config, numbers, place):
    """The calls that compile all that a GPT-2 of this `config` writes with: [(kernel, arguments, options)].

    numbers: a tensor that stands for all those of the weights' type, place: for those of int64. Other integers are
    compiled for as what they are here, multiples of 16.
    """
    width, heads, outputs, slots = config["n_embd"], config["n_head"], 64, 256

    def linear(inputs, norm):
        options = {"ADDED": norm, "NORM": norm, **_linear_options(inputs)}
        return linear_kernel, (*[numbers] * 8, inputs, outputs, 1e-5, 0), options

    def attention(batch, reach):
        tensors = numbers, numbers, numbers, place, place, numbers
        return attention_kernel, (*tensors, slots, 0.125), _attention_options(batch, heads, width // heads, reach)

    norm = norm_kernel, (*[numbers] * 6, width, 1e-5), {"ADDED": True, **_norm_options(width)}
    attentions = attention(1, 1), attention(1, 512), attention(MANY, 1)
    return [linear(width, True), linear(width, False), linear(inner_width(config), False), norm, *attentions]


def _linear_options(inputs):
    """How linear_kernel is compiled for rows of `inputs` numbers."""
    block_in = triton.next_power_of_2(inputs)
    # About 16 weights a thread, all on their way at once.
    return {"BLOCK_OUT": max(1, 4096 // block_in), "BLOCK_IN": block_in, "num_warps": 8}


def _norm_options(inputs):
    return {"BLOCK_IN": triton.next_power_of_2(inputs), "num_warps": 4}


def _attention_options(batch, heads, width, reach):
    """width: of a head; reach: about how many slots are in use."""
    block, warps = (32, 1) if batch * heads >= MANY else (128, 8) if reach <= 128 else (512, 16)
    sizes = {"HEADS": heads, "WIDTH": width, "BLOCK_WIDTH": triton.next_power_of_2(width), "BLOCK": block}
    return {**sizes, "num_warps": warps}
