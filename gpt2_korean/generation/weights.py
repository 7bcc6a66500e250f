"""The weights of a GPT-2's folder, as they are or in fewer bits."""

import json
import math
import mmap

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, load_file

from gpt2_korean.generation.kept import FLAG
from gpt2_korean.model.files import check_numbers, check_sizes, damaged, weight_files
from gpt2_korean.model.gpt2 import ties_head, weight_shapes
from gpt2_korean.speed import quantized
from gpt2_korean.windows import WINDOWS

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_weights(folder, config):
    """Name → tensor of a folder's safetensors files, mapped from them but on Windows.

    Raises UserError for files that are damaged, and for weights that are no numbers.
    """
    try:
        tensors = Mapped(weight_files(folder, FLAG))
    except SafetensorError as error:
        raise damaged(FLAG, folder, error) from None
    check_sizes(config, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, len(tensors), FLAG, folder)
    check_numbers(named(tensors, config), FLAG, folder)
    return tensors


def quantize_weights(tensors, config, quantize):
    """Name → tensor in float32, or of a matrix `(codes, scales)`, see quantized.py.

    The embeddings have 8 bits in any case, also where they are the head in 4 bits, and so have weights that make no
    groups of 4 bits.
    """

    def fewer(name, tensor):
        tensor = tensor.detach()
        if name == "wpe.weight" or tensor.ndim == 1:
            return tensor.to(torch.float32, copy=True)  # a view would hold all of its file
        if name not in ("wte.weight", "lm_head.weight"):
            tensor = tensor.t().contiguous()  # Conv1D keeps [in, out]
        grouped = quantize == "int4" and name != "wte.weight" and tensor.shape[1] % quantized.GROUP == 0
        return quantized.in_4_bits(tensor) if grouped else quantized.in_8_bits(tensor)

    tensors = named(tensors, config)
    if quantize == "int4":
        tensors.setdefault("lm_head.weight", tensors["wte.weight"])
    return {name: fewer(name, tensor) for name, tensor in tensors.items()}


def named(tensors, config):
    """The weights alone, named as weight_shapes does and `lm_head.weight` where it is another than the embeddings."""
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    head = () if ties_head(tensors) else ("lm_head.weight",)
    return {name: tensors[name] for name in (*weight_shapes(config), *head) if name in tensors}


class Mapped(dict):
    """Name → tensor of safetensors files; mappings: these files, whose memory can be given back."""

    def __init__(self, files):
        super().__init__()
        self.mappings = []
        for file in files:
            tensors, mapping = _read(file)
            self.update(tensors)
            self.mappings += [mapping] if mapping else []


def _read(file):
    """`(name → tensor, the file mapped or None)` of a safetensors file, which raises SafetensorError where it is none.

    On Windows it is read, since a mapped file cannot be replaced. The library reads what is not aligned, as its older
    versions wrote it, or of another type.
    """
    if WINDOWS:
        return load(file.read_bytes()), None
    with file.open("rb") as opened:
        # It checks the file, and is closed at once: a memory limit may not hold two mappings.
        with safe_open(file, framework="pt"):
            pass
        mapping = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
    start = 8 + int.from_bytes(mapping[:8], "little")
    header = {name: each for name, each in json.loads(mapping[8:start]).items() if name != "__metadata__"}
    if start % 8 or not all(each["dtype"] in DTYPES and math.prod(each["shape"]) for each in header.values()):
        return load_file(file), None
    return {name: _view(mapping, start, **each) for name, each in header.items()}, mapping


def _view(mapping, start, dtype, shape, data_offsets):
    place = {"offset": start + data_offsets[0], "count": math.prod(shape)}
    return torch.frombuffer(mapping, dtype=DTYPES[dtype], **place).view(shape)
