"""How fast a run trains: tokens a second, and the share of what the device can compute (MFU)."""

import re
import time
from contextlib import contextmanager

# Dense bfloat16 matrix products with float32 sums, FLOP/s, by words of the device's name: the makers' data sheets.
PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "GH200": 989e12,
    "A100": 312e12,
    "A10G": 70e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}


def flops_per_token(model, length):
    """Floating-point operations to train `model` on one token of a block of `length`.

    Two for each weight forward, four backward, or two where the weight is frozen, and attention's 12 for each
    layer, position and width: the count of PaLM's appendix B (Chowdhery et al. 2022) and of nanoGPT. Position
    embeddings are looked up, not multiplied.
    """
    positions = getattr(getattr(model.base_model, "wpe", None), "weight", None)
    weights = [weight for weight in model.parameters() if weight is not positions]
    linear = sum((6 if weight.requires_grad else 4) * weight.numel() for weight in weights)
    config = model.config
    layers, width = getattr(config, "num_hidden_layers", 0), getattr(config, "hidden_size", 0)
    return linear + 12 * layers * width * length


def peak_flops(device_name):
    """The device's FLOP/s in bfloat16, None where it is not known; a laptop's is another of the same name."""
    return next((peak for name, peak in PEAKS.items() if re.search(rf"\b{name}\b(?! Laptop)", device_name)), None)


def model_flops_utilization(tokens_per_second, flops, device_name, devices):
    """The share of what so many devices can compute that a run computes (MFU), None where either is not known.

    flops: floating-point operations a token. It is the model's share: what is computed twice counts once.
    """
    peak = peak_flops(device_name)
    return None if peak is None or tokens_per_second is None else tokens_per_second * flops / (peak * devices)


class TokenMeter:
    """Counts tokens against the seconds in which a run trained, neither evaluated nor saved."""

    def __init__(self):
        self.all = self.recent = (0, 0.0)  # tokens, seconds
        self.started = None

    def add(self, tokens):
        if self.started is None:
            self.started = time.perf_counter()
        self.recent = (self.recent[0] + tokens, self.recent[1])

    @contextmanager
    def paused(self):
        self._take_time()
        started, self.started = self.started, None  # so that a pause or a reading within it counts no time
        try:
            yield
        finally:
            if started is not None:
                self.started = time.perf_counter()

    def read(self):
        """Tokens a second since the last reading; None where none were trained."""
        self._take_time()
        tokens, seconds = self.recent
        self.all, self.recent = (self.all[0] + tokens, self.all[1] + seconds), (0, 0.0)
        return tokens / seconds if tokens and seconds else None

    def overall(self):
        """Tokens a second of the whole run so far; None where none were trained."""
        self._take_time()
        tokens, seconds = (a + b for a, b in zip(self.all, self.recent, strict=True))
        return tokens / seconds if tokens and seconds else None

    def _take_time(self):
        if self.started is not None:
            now = time.perf_counter()
            self.recent = (self.recent[0], self.recent[1] + now - self.started)
            self.started = now
