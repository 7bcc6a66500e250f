"""The Triton kernels of writing_kernels.py as what a GPT2Decoder asks for: linear layers and attention."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
import triton

from gpt2_korean.speed import linear
from gpt2_korean.speed.writing_kernels import (
    attention_kernel,
    attention_options,
    calls_of,
    linear_kernel,
    linear_options,
    norm_kernel,
    norm_options,
)


def fused(weight, bias, norm=None, activation=None):
    """What linear.plain gives, by one kernel where x is a single row."""
    if activation is not None and activation not in linear.TANH_GELU:
        return linear.plain(weight, bias, norm, activation)
    many_rows = _product_and_gelu(weight, bias) if activation else linear.plain(weight, bias)
    outputs, inputs = weight.shape
    norm_weight, norm_bias, epsilon = norm or (weight, weight, 0.0)
    bias = weight.new_zeros(outputs) if bias is None else bias  # rather than a kernel more to compile
    options = linear_options(inputs)

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
        return linear.plain(weight, bias, None, linear.TANH_GELU[0])

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
        **norm_options(inputs),
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
        qkv, keys, values, first, last, y, slots, width**-0.5, **attention_options(heads, width, reach)
    )
    return y


def compile_kernels(width, inner, heads, device, dtype):
    """Compile what a GPT-2 of these sizes asks for, for one row and for several, side by side.

    One after the other takes two seconds and more where nothing has been compiled before. Raises whatever a
    compiler and a driver can raise.
    """
    # As much as a kernel's first program reads or writes.
    numbers = torch.zeros(max(4096, 3 * width, inner), device=device, dtype=dtype)
    calls = calls_of(width, inner, heads, numbers, torch.zeros(1, dtype=torch.long, device=device))
    calls = [partial(kernel[(1,)], *arguments, **options) for kernel, arguments, options in calls]
    # What all of them need, and each would else do for itself: a helper for the driver, the hash of Triton's libraries.
    first = triton.runtime.driver.active.get_current_device, getattr(triton.runtime.cache, "triton_key", int)
    with ThreadPoolExecutor(len(calls)) as threads:
        for work in (first, calls):
            for call in [threads.submit(call) for call in work]:
                call.result()
