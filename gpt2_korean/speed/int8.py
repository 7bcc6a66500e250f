"""--quantize=int8: a layer's product with weights in 8 bits, the one way in this folder that changes the answer.

A function like those of linear.py, by oneDNN's kernels or FBGEMM's, whichever this processor is faster with.
"""

import warnings
from functools import cache

import torch

from gpt2_korean.speed.linear import MIN_ROWS, around, fill_up_rows


def quantizes(device):
    """Whether oneDNN's int8 products can be had on this machine."""
    return device.type == "cpu" and torch.backends.mkldnn.is_available()


def quantized(weight, bias, norm=None, activation=None):
    """int8 weights with a scale for each output, 8-bit inputs with a scale for each row; the sums are exact.

    The vector-wise quantisation of Dettmers et al. 2022, LLM.int8(), section 2.1. A row's scale is its own,
    so that its result does not depend on the rest of the batch.
    """
    scales = (weight.abs().amax(1).float() / 127).clamp(min=1e-12)
    codes = (weight.float() / scales[:, None]).round_().to(torch.int8)
    bias = torch.zeros(()) if bias is None else bias.float()
    # Where oneDNN's kernels lack VNNI, FBGEMM's are six to eight times as fast.
    limit = _largest_code()
    by_fbgemm = limit < 127 and "fbgemm" in torch.backends.quantized.supported_engines
    multiply = (_by_fbgemm if by_fbgemm else _by_onednn)(codes, scales, limit)

    def product(x):
        rows = x.reshape(-1, x.shape[-1]).float()
        largest = rows.abs().amax(1, keepdim=True)
        return torch.addcmul(bias, multiply(rows, largest), largest).to(x.dtype).view(*x.shape[:-1], -1)

    return around(product, norm, activation)


def _by_onednn(codes, scales, limit):
    """f(rows [n, in], the largest value of each [n, 1]) = rows / largest @ (scales × codes).T

    limit: the rows' largest code. A row of zeros gives numbers without meaning, which its largest value makes 0 again.
    """
    zero, half_up = limit + 1, torch.tensor(limit + 1.5)
    codes, scales = torch.ops.onednn.qlinear_prepack(codes, None), scales / limit
    zero_points = torch.zeros(len(scales), dtype=torch.int32)

    def multiply(rows, largest):
        row_codes = torch.addcdiv(half_up, rows, largest, value=limit).to(torch.uint8)
        return _multiply_codes(fill_up_rows(row_codes), zero, codes, scales, zero_points)[: len(rows)]

    return multiply


def _by_fbgemm(codes, scales, limit):
    """As _by_onednn."""
    engine = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        with warnings.catch_warnings():  # PyTorch means to give up quantised tensors; nothing else leads to FBGEMM yet
            warnings.simplefilter("ignore")
            zeros = torch.zeros(len(scales), dtype=torch.long)
            weight = torch._make_per_channel_quantized_tensor(codes, scales.double(), zeros, 0)
            weight = torch.ops.quantized.linear_prepack(weight, None)
    finally:
        torch.backends.quantized.engine = engine
    multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
    return lambda rows, largest: multiply(rows / largest, 1 / limit, limit + 1, weight)


def _multiply_codes(rows, zero, codes, scales, zero_points):
    # The rows as uint8: for int8 oneDNN has no kernel without AMX but its reference, 500 times slower.
    return torch.ops.onednn.qlinear_pointwise(
        rows, 1.0, zero, codes, scales, zero_points, None, 1.0, 0, torch.float32, "none", [], ""
    )


@cache
def _largest_code():
    """127, or 63 where the sum of two products is kept in 16 bits on its way (x86 without VNNI)."""
    size = 64
    codes = torch.ops.onednn.qlinear_prepack(torch.full((size, size), 127, dtype=torch.int8), None)
    rows = torch.full((MIN_ROWS, size), 255, dtype=torch.uint8)
    y = _multiply_codes(rows, 128, codes, torch.ones(size), torch.zeros(size, dtype=torch.int32))
    return 127 if (y == size * 127 * 127).all() else 63
