"""Ways to compute a layer's product with weights that never change: as they are, packed by oneDNN, or in int8.

Each function takes a weight [out, in] and a bias [out] or None, and around the product what GPT-2 has
there: a layer norm before it, `norm` (weight, bias, epsilon), and an activation after it (see ACTIVATIONS).
It returns f(x, residual=None) = activation(norm(x) @ weight.T + bias) + residual, x being [..., in].
"""

from functools import partial

import torch
import torch.nn.functional as F

# transformers' names of them → (PyTorch's function, oneDNN's name, oneDNN's algorithm)
_TANH = (partial(F.gelu, approximate="tanh"), "gelu", "tanh")
TANH_GELU = ("gelu_new", "gelu_fast", "gelu_pytorch_tanh")  # one function under three names
ACTIVATIONS = {
    **dict.fromkeys(TANH_GELU, _TANH),
    "gelu": (F.gelu, "gelu", "none"),
    "relu": (F.relu, "relu", ""),
}


def plain(weight, bias, norm=None, activation=None):
    return _around(lambda x: F.linear(x, weight, bias), norm, activation)


def packs(device, dtype, rows):
    """Whether oneDNN packs weights of `dtype` on this machine, and reads them faster so.

    A single row in float32 is as fast as the memory already.
    """
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.float32:
        return rows > 1
    return dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def packed(weight, bias, norm=None, activation=None):
    """oneDNN's own layout of the weight, made once instead of at every call (what torch.compile's freezing does)."""
    weight = torch.ops.mkldnn._reorder_linear_weight(weight)
    _, name, algorithm = ACTIVATIONS[activation] if activation else (None, "none", "")
    return _around(lambda x: torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, [], algorithm), norm, None)


def quantizes(device):
    """Whether oneDNN's int8 products can be had on this machine."""
    return device.type == "cpu" and torch.backends.mkldnn.is_available()


def quantized(weight, bias, norm=None, activation=None):
    """int8 weights with a scale for each output, int8 inputs with a scale for each row; the sums are exact.

    The vector-wise quantisation of Dettmers et al. 2022, LLM.int8(), section 2.1. A row's scale is its own,
    so that its result does not depend on the rest of the batch.
    """
    scales = (weight.abs().amax(1).float() / 127).clamp(min=1e-12)
    codes = torch.ops.onednn.qlinear_prepack((weight.float() / scales[:, None]).round_().to(torch.int8), None)
    zero_points = torch.zeros(len(scales), dtype=torch.int32)

    def product(x):
        rows = x.reshape(-1, x.shape[-1]).float()
        row_scales = (rows.abs().amax(1, keepdim=True) / 127).clamp(min=1e-12)
        row_codes = (rows / row_scales).round_().to(torch.int8)
        y = torch.ops.onednn.qlinear_pointwise(
            row_codes, 1.0, 0, codes, scales, zero_points, None, 1.0, 0, torch.float32, "none", [], ""
        )
        y *= row_scales
        if bias is not None:
            y += bias
        return y.to(x.dtype).view(*x.shape[:-1], -1)

    return _around(product, norm, activation)


def _around(product, norm, activation):
    function = ACTIVATIONS[activation][0] if activation else None

    def linear(x, residual=None):
        if norm is not None:
            weight, bias, epsilon = norm
            x = F.layer_norm(x, weight.shape, weight, bias, epsilon)
        y = product(x)
        if function is not None:
            y = function(y)
        return y if residual is None else y + residual

    return linear
