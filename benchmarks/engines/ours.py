"""generate.py's own engine."""

import os
import subprocess
import sys
from pathlib import Path

from . import SAMPLING, count_bits

ROOT = Path(__file__).parent.parent.parent
KINDS = {"float32": ("float32", None), "bfloat16": ("bfloat16", None), "int8": ("auto", "int8")}
KINDS |= {"int4": ("auto", "int4")}


def convert(model, folder, kind):
    if KINDS[kind][1]:
        # In a process of its own, which keeps the weights in fewer bits: how its threads wait is not for the peers.
        subprocess.run(command(model, kind), stdout=subprocess.DEVNULL, check=True)


def file(folder, kind):
    return None


def command(model, kind):
    """A whole process that writes one token."""
    return [sys.executable, ROOT / "generate.py", *flags(model, kind), "--prompt=a", "--length=1"]


def flags(model, kind):
    dtype, quantize = KINDS[kind]
    words = [f"--model_name_or_path={model}", "--device=cpu", f"--dtype={dtype}"]
    return [*words, f"--quantize={quantize}"] if quantize else words


def load(folder, kind):
    sys.path.insert(0, str(ROOT))
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}  # as generate.py, before torch is imported
    from gpt2_korean.cli.generate_options import parse_generate_options
    from gpt2_korean.generation.load import load as load_model

    return load_model(folder / "model", parse_generate_options(flags(folder / "model", kind)).model)[0]


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
