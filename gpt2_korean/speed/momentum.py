"""Muon's passes over memory: momentum into what the matrices to come are made of, and those into the weights.

By Triton each reads its inputs once, where PyTorch's operations, a fraction of which is of two types, go over them
three times at less than the memory's pace.
"""

import torch
import triton
import triton.language as tl

BLOCK = 1024


@triton.jit
def look_ahead_kernel(
    gradient_ptr, momentum_ptr, ahead_ptr, rate, more, width, rows,
    COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    valid, places = column < width, row * width + column
    gradient = tl.load(gradient_ptr + places, valid, 0.0).to(tl.float32)
    momentum = tl.load(momentum_ptr + places, valid, 0.0).to(tl.float32)
    momentum += rate * (gradient - momentum)
    tl.store(momentum_ptr + places, momentum.to(momentum_ptr.dtype.element_ty), valid)
    places = ((column // COLUMNS) * rows + row) * COLUMNS + column % COLUMNS
    tl.store(ahead_ptr + places, (momentum + more * gradient).to(ahead_ptr.dtype.element_ty), valid)


@triton.jit
def take_step_kernel(weight_ptr, step_ptr, decay, width, rows, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    valid, places = column < width, row * width + column
    weight = tl.load(weight_ptr + places, valid, 0.0).to(tl.float32)
    step_places = ((column // COLUMNS) * rows + row) * COLUMNS + column % COLUMNS
    step = tl.load(step_ptr + step_places, valid, 0.0).to(tl.float32)
    tl.store(weight_ptr + places, (step + decay * weight).to(weight_ptr.dtype.element_ty), valid)


def look_ahead(gradient, momentum, ahead, rate, more):
    """Move `momentum` to `gradient` [rows, count * columns] by `rate`; `ahead` [count, rows, columns] is then that and
    `more` of the gradient, the matrices one after another."""
    (rows, width), columns = gradient.shape, ahead.shape[2]
    given = gradient.contiguous(), momentum, ahead, rate, more, width, rows
    look_ahead_kernel[(rows, triton.cdiv(width, BLOCK))](*given, COLUMNS=columns, BLOCK=BLOCK)


def take_step(weight, step, decay):
    """Add `step` [count, rows, columns] to `decay` of `weight` [rows, count * columns], in its place."""
    (rows, width), columns = weight.shape, step.shape[2]
    grid = rows, triton.cdiv(width, BLOCK)
    take_step_kernel[grid](weight, step.contiguous(), decay, width, rows, COLUMNS=columns, BLOCK=BLOCK)


def try_out(device):
    """Compile them. Raises whatever a compiler and a driver can raise."""
    weight = torch.zeros(16, 32, device=device)
    ahead = torch.zeros(2, 16, 16, dtype=torch.bfloat16, device=device)
    look_ahead(weight, weight.clone(), ahead, 0.5, 0.5)
    take_step(weight, ahead, 0.5)


FUNCTIONS = look_ahead, take_step
