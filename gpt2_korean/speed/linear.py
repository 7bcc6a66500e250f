"""Ways to compute a layer's product with weights that never change: as they are, or packed by oneDNN.

Each function takes a weight [out, in] and a bias [out] or None, and around the product what GPT-2 has
there: a layer norm before it, `norm` (weight, bias, epsilon), and an activation after it (see ACTIVATIONS).
It returns f(x) = activation(x @ weight.T + bias), x being [..., in]. With a norm it returns f(x, added=None),
which gives activation(norm(x + added) @ weight.T + bias) and x + added: what a layer adds to the residual
stream is added where it is read next, since that can be one kernel with the norm.
"""

from functools import partial

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
        filled = rows if len(rows) >= MIN_ROWS else F.pad(rows, (0, 0, 0, MIN_ROWS - len(rows)))
        y = torch.ops.mkldnn._linear_pointwise(filled, weight, bias, name, [], algorithm)
        return y[: len(rows)].view(*x.shape[:-1], -1)

    return _around(product, norm, None)


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
