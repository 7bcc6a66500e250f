"""generate.py's own engine."""

import os
import sys
from pathlib import Path

from . import SAMPLING, count_bits

ROOT = Path(__file__).parent.parent.parent
KINDS = {"float32": ("float32", None), "bfloat16": ("bfloat16", None), "int8": ("auto", "int8")}
KINDS |= {"int4": ("auto", "int4")}


def convert(model, folder, kind):
    if KINDS[kind][1]:
        load(folder, kind)  # which keeps the weights in fewer bits


def file(folder, kind):
    return None


def flags(kind):
    """What generate.py is told."""
    dtype, quantize = KINDS[kind]
    return [f"--dtype={dtype}", *([f"--quantize={quantize}"] if quantize else [])]


def load(folder, kind):
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as generate.py does, before torch is imported
    from gpt2_korean.device import choose_device, choose_dtype
    from gpt2_korean.generation.load import read_model

    (dtype, quantize), device = KINDS[kind], choose_device("cpu")
    return read_model(folder / "model", device, choose_dtype(device, dtype, quantize), quantize)


def writer(folder, kind):
    decoder = load(folder, kind).decoder
    from gpt2_korean.generation.loop import stream_ids
    from gpt2_korean.generation.sampling import Sampling

    def write(prompts, length):
        for _ in stream_ids(decoder, prompts.tolist(), length, Sampling(**SAMPLING), -1, every=16):
            pass

    return write


def bits(folder, kind, ids):
    import torch

    decoder = load(folder, kind).decoder

    def start(rows):
        place = 0

        def step(tokens):
            nonlocal place
            tokens, place = torch.tensor(tokens), place + 1
            if place == 1:
                logits = decoder.start(tokens[:, None], torch.ones_like(tokens[:, None]), ids.shape[1])
            else:
                logits = decoder.step(tokens, decoder.reach(place))
            return logits.float()

        return step

    with torch.inference_mode():
        return count_bits(ids, start)
