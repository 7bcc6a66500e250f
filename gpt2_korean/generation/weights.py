"""The weights of a GPT-2's folder: as they are, or in fewer bits, which are kept in the cache of the Hub's library."""

import hashlib
import json
import math
import mmap
from pathlib import Path

import torch

from gpt2_korean.messages import say
from gpt2_korean.model.files import check_sizes, damaged, read_model_json
from gpt2_korean.model.gpt2 import weight_shapes
from gpt2_korean.speed import quantized
from gpt2_korean.text.cache import keep_file
from gpt2_korean.windows import WINDOWS

CODES, SCALES = ".codes", ".scales"
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I8": torch.int8, "U8": torch.uint8}


def read_weights(folder, config, flag, quantize=None):
    """Name → tensor, mapped from the files but on Windows, or those of quantize_weights; None where there is no
    safetensors file. Raises UserError for files that are damaged.

    The quantised are read from the cache where they are of the files as these are now, and else kept there.
    """
    from safetensors import SafetensorError

    index = read_model_json(flag, folder / "model.safetensors.index.json")
    names = {"model.safetensors"} if index is None else set(index["weight_map"].values())
    files = [folder / name for name in sorted(names)]
    if not all(file.exists() for file in files):
        return None
    if quantize:
        return _read_quantized(folder, files, config, flag, quantize)
    try:
        tensors = Mapped(files)
    except SafetensorError as error:
        raise damaged(flag, folder, error) from None
    check_sizes(config, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, len(tensors), flag, folder)
    return tensors


def _read_quantized(folder, files, config, flag, quantize):
    from huggingface_hub.constants import HF_HOME

    place = [str(folder.resolve()), quantize]
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in [folder / "config.json", *files]]
    code = [Path(module).read_bytes() for module in (__file__, quantized.__file__)]
    stamp, name = (hashlib.sha256(repr(each).encode()).hexdigest() for each in ([place, states, code], place))
    # One file for each folder: a model that has been trained on takes the place of what it was.
    kept = Path(HF_HOME, "gpt2-korean", f"{name}.safetensors")
    weights = _read_kept(kept, stamp)
    if weights is None:
        say(f"가중치를 {quantize}로 줄이는 중입니다. 다음부터는 간직해 둔 것을 씁니다.")
        weights = quantize_weights(read_weights(folder, config, flag), config, quantize)
        _keep(kept, weights, stamp)
        weights = _read_kept(kept, stamp) or weights
    return weights


def quantize_weights(tensors, config, quantize):
    """Name → tensor in float32, or of a matrix `(codes, scales)`, see quantized.py.

    The embeddings, the head mostly, have 8 bits in any case, and so have weights that make no groups of 4 bits.
    """

    def fewer(name, tensor):
        tensor = tensor.detach()
        if name in ("wte.weight", "lm_head.weight"):
            return quantized.in_8_bits(tensor)
        if name == "wpe.weight" or tensor.ndim == 1:
            return tensor.float()
        tensor = tensor.t().contiguous()  # Conv1D keeps [in, out]
        grouped = quantize == "int4" and tensor.shape[1] % quantized.GROUP == 0
        return quantized.in_4_bits(tensor) if grouped else quantized.in_8_bits(tensor)

    return {name: fewer(name, tensor) for name, tensor in named(tensors, config).items()}


def named(tensors, config):
    """The weights alone, named as weight_shapes does and `lm_head.weight` where it is another than the embeddings."""
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    head = () if config.get("tie_word_embeddings", True) else ("lm_head.weight",)
    return {name: tensors[name] for name in (*weight_shapes(config), *head) if name in tensors}


class Mapped(dict):
    """Name → tensor of safetensors files, or `(codes, scales)`; forget() gives back the memory of what was read."""

    def __init__(self, files):
        super().__init__()
        self.mappings = []
        for file in files:
            tensors, mapping = _read(file)
            self.update(tensors)
            self.mappings += [mapping] if hasattr(mapping, "madvise") else []

    def forget(self):
        for mapping in self.mappings:
            mapping.madvise(mmap.MADV_DONTNEED)


def _read(file):
    """`(name → tensor, the file mapped or None)` of a safetensors file, which raises SafetensorError where it is none.

    It is read on Windows, where a mapped file cannot be replaced, and left to the library where older ones of it wrote.
    """
    from safetensors import safe_open
    from safetensors.torch import load, load_file

    if WINDOWS:
        return load(file.read_bytes()), None
    with file.open("rb") as opened, safe_open(file, framework="pt"):  # it checks the file
        mapping = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
    start = 8 + int.from_bytes(mapping[:8], "little")
    header = {name: each for name, each in json.loads(mapping[8:start]).items() if name != "__metadata__"}
    if start % 8 or not all(each["dtype"] in DTYPES and math.prod(each["shape"]) for each in header.values()):
        return load_file(file), None
    return {name: _view(mapping, start, **each) for name, each in header.items()}, mapping


def _view(mapping, start, dtype, shape, data_offsets):
    place = {"offset": start + data_offsets[0], "count": math.prod(shape)}
    return torch.frombuffer(mapping, dtype=DTYPES[dtype], **place).view(shape)


def _read_kept(path, stamp):
    """The Mapped weights that _keep has written with this stamp, None where there are none, or not whole ones."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("stamp") != stamp:
                return None
        weights = Mapped([path])
    except (OSError, SafetensorError):
        return None
    for name in [name.removesuffix(CODES) for name in weights if name.endswith(CODES)]:
        weights[name] = weights.pop(name + CODES), weights.pop(name + SCALES)
    return weights


def _keep(path, weights, stamp):
    """Write what _read_kept reads, whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: weight for name, weight in weights.items() if not isinstance(weight, tuple)}
    for name in weights.keys() - tensors.keys():
        tensors[name + CODES], tensors[name + SCALES] = weights[name]

    def write(file):
        try:
            save_file(tensors, file, {"stamp": stamp})
        except SafetensorError as error:  # it wraps those of the system
            raise OSError(str(error)) from error

    keep_file(path, write, "줄인 가중치를 간직하지 못해 다음에 다시 줄입니다")
