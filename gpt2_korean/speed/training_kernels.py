"""Triton kernels of what GPT-2 computes in training between its matrix products.

All of it waits for memory, so its time is what it reads and writes: each kernel reads its inputs once, and one of the
backward pass adds up the gradients of biases and norms while it has the rows at hand. The programs go through the
rows in turns; the next row is on its way while one is computed.
"""

import triton
import triton.language as tl

from gpt2_korean.speed.writing_kernels import sigmoid_of_gelu


@triton.jit
def _is_kept(start, columns, seed_ptr, LEAST: tl.constexpr):
    """Whether dropout keeps the numbers at start + columns: the hash of their place is at least LEAST of 2**31.

    The finalizer of MurmurHash with the constants of Wellons' search for the least bias (lowbias32, 2018), the second
    half of the seed added between its rounds: a fraction of what Philox, PyTorch's generator, takes.
    """
    bits = (start.to(tl.uint32) + columns.to(tl.uint32)) ^ tl.load(seed_ptr).to(tl.uint32)
    bits = (bits ^ (bits >> 16)) * 0x7FEB352D + tl.load(seed_ptr + 1).to(tl.uint32)
    bits = (bits ^ (bits >> 15)) * 0x846CA68B
    return ((bits ^ (bits >> 16)) & 0x7FFFFFFF) >= LEAST


@triton.jit
def add_norm_kernel(
    x_ptr, bias_ptr, residual_ptr, seed_ptr, weight_ptr, norm_bias_ptr, sum_ptr, y_ptr, mean_ptr, scale_ptr,
    rows, width, epsilon, FACTOR: tl.constexpr, LEAST: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """sum = dropout(x + bias) + residual, y = its layer norm; scale: one over the standard deviation."""
    columns = tl.arange(0, BLOCK)
    valid = columns < width
    weight, norm_bias = tl.load(weight_ptr + columns, valid, 0.0), tl.load(norm_bias_ptr + columns, valid, 0.0)
    if BIAS:
        bias = tl.load(bias_ptr + columns, valid, 0.0)
    row, step = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    x = tl.load(x_ptr + row * width + columns, valid, 0.0)
    residual = x
    if RESIDUAL:
        residual = tl.load(residual_ptr + row * width + columns, valid, 0.0)
    while row < rows:
        places, coming = row * width + columns, valid & (row + step < rows)
        next_x = tl.load(x_ptr + places + step * width, coming, 0.0)
        next_residual = next_x
        if RESIDUAL:
            next_residual = tl.load(residual_ptr + places + step * width, coming, 0.0)
        total = x.to(tl.float32)
        if BIAS:
            total += bias
        if LEAST > 0:
            total = tl.where(_is_kept(row * width, columns, seed_ptr, LEAST), total * FACTOR, 0.0)
        if RESIDUAL:
            total += residual.to(tl.float32)
        total = total.to(sum_ptr.dtype.element_ty)
        tl.store(sum_ptr + places, total, valid)
        total = total.to(tl.float32)
        mean = tl.sum(total, 0) / width
        centred = tl.where(valid, total - mean, 0.0)
        scale = tl.rsqrt(tl.sum(centred * centred, 0) / width + epsilon)
        tl.store(mean_ptr + row, mean)
        tl.store(scale_ptr + row, scale)
        tl.store(y_ptr + places, (centred * scale * weight + norm_bias).to(y_ptr.dtype.element_ty), valid)
        x, residual, row = next_x, next_residual, row + step


@triton.jit
def add_norm_backward_kernel(
    of_y_ptr, of_sum_ptr, sum_ptr, mean_ptr, scale_ptr, weight_ptr, seed_ptr, of_residual_ptr, of_x_ptr, parts_ptr,
    rows, width, FACTOR: tl.constexpr, LEAST: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr,
    X: tl.constexpr, ADDED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """parts: float32 [programs, 3, width], sums of the gradients of the norm's weight, the norm's bias and the bias.

    X: whether of_x is another tensor than of_residual; ADDED: whether there is an of_sum.
    """
    columns = tl.arange(0, BLOCK)
    valid = columns < width
    weight = tl.load(weight_ptr + columns, valid, 0.0)
    of_weight, of_norm_bias = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    of_bias = tl.zeros([BLOCK], tl.float32)
    row, step = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    of_y = tl.load(of_y_ptr + row * width + columns, valid, 0.0)
    total = tl.load(sum_ptr + row * width + columns, valid, 0.0)
    of_sum = of_y
    if ADDED:
        of_sum = tl.load(of_sum_ptr + row * width + columns, valid, 0.0)
    mean, scale = tl.load(mean_ptr + row), tl.load(scale_ptr + row)
    while row < rows:
        places, more = row * width + columns, row + step < rows
        coming = valid & more
        next_of_y = tl.load(of_y_ptr + places + step * width, coming, 0.0)
        next_total = tl.load(sum_ptr + places + step * width, coming, 0.0)
        next_of_sum = next_of_y
        if ADDED:
            next_of_sum = tl.load(of_sum_ptr + places + step * width, coming, 0.0)
        next_mean, next_scale = tl.load(mean_ptr + row + step, more, 0.0), tl.load(scale_ptr + row + step, more, 0.0)
        of_y = of_y.to(tl.float32)
        normal = tl.where(valid, (total.to(tl.float32) - mean) * scale, 0.0)
        of_weight += of_y * normal
        of_norm_bias += of_y
        of_normal = of_y * weight
        along, level = tl.sum(of_normal * normal, 0) / width, tl.sum(of_normal, 0) / width
        of_total = (of_normal - normal * along - level) * scale
        if ADDED:
            of_total += of_sum.to(tl.float32)
        if RESIDUAL:
            tl.store(of_residual_ptr + places, of_total.to(of_residual_ptr.dtype.element_ty), valid)
        if LEAST > 0:
            of_total = tl.where(_is_kept(row * width, columns, seed_ptr, LEAST), of_total * FACTOR, 0.0)
        if X:
            tl.store(of_x_ptr + places, of_total.to(of_x_ptr.dtype.element_ty), valid)
        if BIAS:
            of_bias += of_total
        of_y, total, of_sum, mean, scale, row = next_of_y, next_total, next_of_sum, next_mean, next_scale, row + step
    parts = parts_ptr + tl.program_id(0) * 3 * width + columns
    tl.store(parts, of_weight, valid)
    tl.store(parts + width, of_norm_bias, valid)
    tl.store(parts + 2 * width, of_bias, valid)


@triton.jit
def gelu_kernel(x_ptr, bias_ptr, y_ptr, rows, width, BIAS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """y = gelu(x + bias)."""
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    valid = columns < width
    bias = tl.zeros([COLUMNS], tl.float32)
    if BIAS:
        bias = tl.load(bias_ptr + columns, valid, 0.0)
    row = tl.program_id(0).to(tl.int64) * ROWS
    while row < rows:
        at = row + tl.arange(0, ROWS)
        places, inside = at[:, None] * width + columns[None, :], (at < rows)[:, None] & valid[None, :]
        x = tl.load(x_ptr + places, inside, 0.0).to(tl.float32) + bias[None, :]
        tl.store(y_ptr + places, (x * sigmoid_of_gelu(x)).to(y_ptr.dtype.element_ty), inside)
        row += tl.num_programs(0) * ROWS


@triton.jit
def gelu_backward_kernel(
    of_y_ptr, x_ptr, bias_ptr, of_x_ptr, parts_ptr, rows, width,
    BIAS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """parts: float32 [programs, width], sums of the bias' gradient."""
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    valid = columns < width
    bias = tl.zeros([COLUMNS], tl.float32)
    if BIAS:
        bias = tl.load(bias_ptr + columns, valid, 0.0)
    of_bias = tl.zeros([ROWS, COLUMNS], tl.float32)
    row, step = tl.program_id(0).to(tl.int64) * ROWS, tl.num_programs(0) * ROWS
    at = row + tl.arange(0, ROWS)
    places, inside = at[:, None] * width + columns[None, :], (at < rows)[:, None] & valid[None, :]
    x, of_y = tl.load(x_ptr + places, inside, 0.0), tl.load(of_y_ptr + places, inside, 0.0)
    while row < rows:
        at = row + tl.arange(0, ROWS)
        places, inside = at[:, None] * width + columns[None, :], (at < rows)[:, None] & valid[None, :]
        coming = (at + step < rows)[:, None] & valid[None, :]
        next_x = tl.load(x_ptr + places + step * width, coming, 0.0)
        next_of_y = tl.load(of_y_ptr + places + step * width, coming, 0.0)
        x = x.to(tl.float32) + bias[None, :]
        s = sigmoid_of_gelu(x)
        slope = s + x * s * (1 - s) * (2 * 0.7978845608028654 * (1 + 3 * 0.044715 * x * x))
        of_x = of_y.to(tl.float32) * slope
        tl.store(of_x_ptr + places, of_x.to(of_x_ptr.dtype.element_ty), inside)
        of_bias += of_x
        x, of_y, row = next_x, next_of_y, row + step
    tl.store(parts_ptr + tl.program_id(0) * width + columns, tl.sum(of_bias, 0), valid)


@triton.jit
def sum_kernel(parts_ptr, sums_ptr, rows, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The sums of the columns of a float32 matrix of few rows."""
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    valid = columns < width
    sums = tl.zeros([ROWS, COLUMNS], tl.float32)
    for begin in range(0, rows, ROWS):
        at = begin + tl.arange(0, ROWS)
        sums += tl.load(parts_ptr + at[:, None] * width + columns[None, :], (at < rows)[:, None] & valid[None, :], 0.0)
    tl.store(sums_ptr + columns, tl.sum(sums, 0), valid)


@triton.jit
def cross_entropy_kernel(logits_ptr, labels_ptr, loss_ptr, vocab, width, IGNORED: tl.constexpr, BLOCK: tl.constexpr):
    """The loss of a row; its gradient takes the place of its logits, 0 beyond the vocabulary."""
    row = tl.program_id(0).to(tl.int64)
    label = tl.load(labels_ptr + row)
    real = label != IGNORED
    start = logits_ptr + row * width
    columns = tl.arange(0, BLOCK)
    of_label = tl.load(start + label, real, 0.0).to(tl.float32)
    # A softmax in one pass (Milakov and Gimelshein 2018).
    highest, total = float("-inf"), 0.0
    for begin in range(0, vocab, BLOCK):
        x = tl.load(start + begin + columns, begin + columns < vocab, float("-inf")).to(tl.float32)
        new_highest = tl.maximum(highest, tl.max(x, 0))
        total = total * tl.exp(highest - new_highest) + tl.sum(tl.exp(x - new_highest), 0)
        highest = new_highest
    # Infinite where there is no label: so all probabilities are 0.
    log_total = tl.where(real, highest + tl.log(total), float("inf"))
    tl.store(loss_ptr + row, tl.where(real, log_total - of_label, 0.0))
    for begin in range(0, width, BLOCK):
        at = begin + columns
        x = tl.load(start + at, at < vocab, float("-inf")).to(tl.float32)
        of_x = tl.exp(x - log_total) - (at == label).to(tl.float32)
        tl.store(start + at, of_x.to(logits_ptr.dtype.element_ty), at < width)
