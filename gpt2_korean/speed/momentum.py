"""Muon's passes over memory: momenta into what the matrices to come are made of, and those into the weights.

PyTorch's operations go over them three times, some of two types at half of the memory's pace, and once for each
weight; here each pass reads its inputs once, and weights of one shape are gone over together.
"""

import torch
import triton
import triton.language as tl

BLOCK = 1024
MOMENTA = torch.bfloat16  # of a twentieth each: learns as in float32 (benchmarks/RESULTS.md)


@triton.jit
def _apart(number, row, column, rows, width, COLUMNS: tl.constexpr):
    """Where in [n, count, rows, COLUMNS] lies what stands at (row, column) of weight `number`."""
    return number.to(tl.int64) * rows * width + ((column // COLUMNS) * rows + row) * COLUMNS + column % COLUMNS


@triton.jit
def look_ahead_kernel(addresses_ptr, ahead_ptr, rate, more, rows, width, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    number, valid, places = tl.program_id(2), column < width, row * width + column
    gradient_ptr = tl.load(addresses_ptr + number).to(tl.pointer_type(tl.float32))
    momentum_ptr = tl.load(addresses_ptr + tl.num_programs(2) + number).to(tl.pointer_type(tl.bfloat16))
    gradient = tl.load(gradient_ptr + places, valid, 0.0)
    momentum = tl.load(momentum_ptr + places, valid, 0.0).to(tl.float32)
    momentum += rate * (gradient - momentum)
    tl.store(momentum_ptr + places, momentum.to(tl.bfloat16), valid)
    places = _apart(number, row, column, rows, width, COLUMNS)
    tl.store(ahead_ptr + places, (momentum + more * gradient).to(ahead_ptr.dtype.element_ty), valid)


@triton.jit
def take_step_kernel(addresses_ptr, steps_ptr, decay, rows, width, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    number, valid = tl.program_id(2), column < width
    weight_ptr = tl.load(addresses_ptr + number).to(tl.pointer_type(tl.float32)) + row * width + column
    places = _apart(number, row, column, rows, width, COLUMNS)
    step = tl.load(steps_ptr + places, valid, 0.0).to(tl.float32)
    tl.store(weight_ptr, step + decay * tl.load(weight_ptr, valid, 0.0), valid)


def look_ahead(gradients, momenta, ahead, rate, more):
    """Move `momenta`, n bfloat16 tensors [rows, count * columns], to their `gradients`, in float32, by `rate`.

    `ahead` [n, count, rows, columns] is then each momentum and `more` of its gradient.
    """
    gradients = [gradient.contiguous() for gradient in gradients]
    _run(look_ahead_kernel, (gradients, momenta), ahead, rate, more)


def take_step(weights, steps, decay):
    """Add `steps` [n, count, rows, columns] to `decay` of `weights`, n float32 tensors [rows, count * columns]."""
    _run(take_step_kernel, (weights,), steps.contiguous(), decay)


def _run(kernel, tensors, together, *numbers):
    """kernel: reads where `tensors`, lists of as many, lie in memory."""
    addresses = torch.tensor([tensor.data_ptr() for each in tensors for tensor in each])
    addresses = addresses.to(together.device, non_blocking=True)  # or the device would be waited for
    (rows, width), columns = tensors[0][0].shape, together.shape[3]
    grid = rows, triton.cdiv(width, BLOCK), len(together)
    kernel[grid](addresses, together, *numbers, rows, width, COLUMNS=columns, BLOCK=BLOCK)


def try_out(device):
    """Compile them. Raises whatever a compiler and a driver can raise."""
    weights = [torch.zeros(16, 32, device=device)]
    ahead = torch.zeros(1, 2, 16, 16, dtype=torch.bfloat16, device=device)
    look_ahead(weights, [weights[0].to(MOMENTA)], ahead, 0.5, 0.5)
    take_step(weights, ahead, 0.5)


FUNCTIONS = look_ahead, take_step, MOMENTA
