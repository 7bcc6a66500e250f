"""GPT-2's step as Triton kernels: what is small runs inside what reads the weights or the cache.

For one row a step reads every weight once and computes next to nothing, so that its time goes where
kernels begin and end: there are five a layer, and layer norm, bias, activation and residual get none of
their own. More rows are the matrix units' business, between which one kernel adds to the residual stream
and normalises it.
Attention keeps the new key and value itself, for any number of rows. Triton comes with PyTorch's CUDA and
XPU builds; nothing here asks for PyTorch, so that compile_ahead.py can do without it.
"""

import triton
import triton.language as tl


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


def linear_options(inputs):
    """How linear_kernel is compiled for rows of `inputs` numbers."""
    block_in = triton.next_power_of_2(inputs)
    # About 16 weights a thread, all on their way at once.
    return {"BLOCK_OUT": max(1, 4096 // block_in), "BLOCK_IN": block_in, "num_warps": 8}


def norm_options(inputs):
    return {"BLOCK_IN": triton.next_power_of_2(inputs), "num_warps": 4}


def attention_options(heads, width, reach):
    """width: of a head; reach: about how many slots are in use."""
    block = 128 if reach <= 128 else 512
    sizes = {"HEADS": heads, "WIDTH": width, "BLOCK_WIDTH": triton.next_power_of_2(width), "BLOCK": block}
    return {**sizes, "num_warps": 8 if block == 128 else 16}


def calls_of(width, inner, heads, numbers, place):
    """The calls that compile all that a GPT-2 of these sizes writes with: [(kernel, arguments, options)].

    numbers: a tensor that stands for all those of the weights' type, place: for those of int64; triton.MockTensor will
    do where nothing is to run. Other integers are compiled for as what they are here, multiples of 16.
    """
    outputs, slots = 64, 256

    def linear(inputs, norm):
        options = {"ADDED": norm, "NORM": norm, **linear_options(inputs)}
        return linear_kernel, (*[numbers] * 8, inputs, outputs, 1e-5, 0), options

    def attention(reach):
        tensors = numbers, numbers, numbers, place, place, numbers
        return attention_kernel, (*tensors, slots, 0.125), attention_options(heads, width // heads, reach)

    norm = norm_kernel, (*[numbers] * 6, width, 1e-5), {"ADDED": True, **norm_options(width)}
    return [linear(width, True), linear(width, False), linear(inner, False), norm, attention(1), attention(512)]
