"""Ways to compute a layer's product with weights that never change: as they are, packed by oneDNN, or in int8.

Each function takes a weight [out, in] and a bias [out] or None, and around the product what GPT-2 has
there: a layer norm before it, `norm` (weight, bias, epsilon), and an activation after it (see ACTIVATIONS).
It returns f(x) = activation(x @ weight.T + bias), x being [..., in]. With a norm it returns f(x, added=None),
which gives activation(norm(x + added) @ weight.T + bias) and x + added: what a layer adds to the residual
stream is added where it is read next, since that can be one kernel with the norm.
"""

import warnings
from functools import cache, partial

import torch
import torch.nn.functional as F

from gpt2_korean.model.gpt2 import TANH_GELU

# transformers' names of them → (PyTorch's function, oneDNN's name, oneDNN's algorithm)
_TANH = (partial(F.gelu, approximate="tanh"), "gelu", "tanh")
ACTIVATIONS = {
    **dict.fromkeys(TANH_GELU, _TANH),
    "gelu": (F.gelu, "gelu", "none"),
    "relu": (F.relu, "relu", ""),
}

# oneDNN's kernels read the weights up to 1.4 times faster for this many rows than for one.
MIN_ROWS = 4


def plain(weight, bias, norm=None, activation=None):
    return _around(lambda x: F.linear(x, weight, bias), norm, activation)


def packs(device, dtype):
    """Whether oneDNN packs weights of `dtype` on this machine, and reads them faster so."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def packed(weight, bias, norm=None, activation=None):
    """oneDNN's own layout of the weight, made once instead of at every call (what torch.compile's freezing does)."""
    weight = torch.ops.mkldnn._reorder_linear_weight(weight)
    _, name, algorithm = ACTIVATIONS[activation] if activation else (None, "none", "")

    def product(x):
        rows = x.reshape(-1, x.shape[-1])
        y = torch.ops.mkldnn._linear_pointwise(_fill_up(rows), weight, bias, name, [], algorithm)
        return y[: len(rows)].view(*x.shape[:-1], -1)

    return _around(product, norm, None)


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

    return _around(product, norm, activation)


PACKERS = (packed, quantized)  # they keep nothing of the weight that they are given


def _by_onednn(codes, scales, limit):
    """f(rows [n, in], the largest value of each [n, 1]) = rows / largest @ (scales × codes).T

    limit: the rows' largest code. A row of zeros gives numbers without meaning, which its largest value makes 0 again.
    """
    zero, half_up = limit + 1, torch.tensor(limit + 1.5)
    codes, scales = torch.ops.onednn.qlinear_prepack(codes, None), scales / limit
    zero_points = torch.zeros(len(scales), dtype=torch.int32)

    def multiply(rows, largest):
        row_codes = torch.addcdiv(half_up, rows, largest, value=limit).to(torch.uint8)
        return _multiply_codes(_fill_up(row_codes), zero, codes, scales, zero_points)[: len(rows)]

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


def _fill_up(rows):
    """`rows` [n, in] with zeros up to MIN_ROWS of them."""
    return rows if len(rows) >= MIN_ROWS else F.pad(rows, (0, 0, 0, MIN_ROWS - len(rows)))


def _around(product, norm, activation):
    function = ACTIVATIONS[activation][0] if activation else None

    def linear(x):
        y = product(x)
        return y if function is None else function(y)

    def after_norm(x, added=None):
        weight, bias, epsilon = norm
        x = x if added is None else x + added
        return linear(F.layer_norm(x, weight.shape, weight, bias, epsilon)), x

    return linear if norm is None else after_norm
