"""What OpenVINO has made of a GPT-2 in 8 or 4 bits, kept in the cache of the Hub's library: the next start neither
reduces the weights nor builds and optimises a graph.

Imports no torch: what is kept is read beside that import, which takes as long.
"""

import hashlib
import io
import mmap
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import numpy

from gpt2_korean.model.files import weight_files
from gpt2_korean.text.cache import keep_file
from gpt2_korean.windows import WINDOWS

CODE = ("generation/kept.py", "generation/weights.py", "speed/quantized.py", "speed/openvino_graph.py")
FLAG = "--model_name_or_path"
START = 4096  # where in the file that begins which OpenVINO exports; before it stand its stamp and its size


def begin_reading(source, options):
    """A Future of what read_kept returns, read meanwhile; None where nothing is reduced or the folder is not known.

    options: the LoadOptions of the command line, held against each other.
    """
    if not options.quantize or options.device not in ("auto", "cpu") or not Path(source).is_dir():
        return None
    import_module("openvino")  # at once: beside torch's import it would take twice as long, and all else waits for it
    bfloat16 = options.dtype == "bfloat16"
    return ThreadPoolExecutor(1).submit(read_kept, Path(source), options.quantize, bfloat16)


def read_kept(folder, quantize, bfloat16):
    """`(request, what it reads)` as OpenVINODecoder takes them, of the model in `folder` as its files are now.

    None where nothing is kept of them. Raises UserError where config.json or the weights' index is damaged.
    """
    from gpt2_korean.speed.openvino_graph import import_graph, ready

    if not (folder / "config.json").exists():
        return None
    path, stamp = _place(folder, quantize, bfloat16)
    try:
        with path.open("rb") as file:
            if file.read(START) != _head(stamp, path.stat().st_size - START):
                return None
            mapping = None if WINDOWS else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            # On Windows a mapped file cannot be replaced.
            content = numpy.frombuffer(mapping or START * b" " + file.read(), numpy.uint8)[START:]
        compiled = import_graph(content, quantize, bfloat16)
    except (OSError, RuntimeError):  # OpenVINO's own are RuntimeErrors
        return None
    return ready(compiled, [mapping] if mapping else []), content


def keep(compiled, folder, quantize, bfloat16):
    """Keep what OpenVINO compiled of the model in `folder`, whole or not at all."""
    path, stamp = _place(folder, quantize, bfloat16)
    exported = io.BytesIO()
    compiled.export_model(exported)

    def write(unfinished):
        with unfinished.open("wb") as file, exported.getbuffer() as content:
            file.write(_head(stamp, len(content)))
            file.write(content)

    keep_file(path, write, "줄인 가중치를 간직하지 못해 다음에 다시 줄입니다")


def _head(stamp, size):
    return f"{stamp} {size}".encode().ljust(START)


def _place(folder, quantize, bfloat16):
    """`(file, stamp)`: where it is kept, and what it is made from and by.

    One file for each folder, number of bits and processor: a model that has been trained on takes the place of what it
    was, and so does a newer commit on the Hub, whose cache has a folder for each.
    """
    import openvino
    from huggingface_hub.constants import HF_HOME

    from gpt2_korean.speed.openvino_graph import core

    folder = folder.resolve()
    owner = folder.parent if folder.parent.name == "snapshots" else folder
    place = [str(owner), quantize, bfloat16, core().get_property("CPU", "FULL_DEVICE_NAME")]
    files = [(path.name, path.stat()) for path in (folder / "config.json", *(weight_files(folder, FLAG) or []))]
    states = [(str(folder), name, state.st_size, state.st_mtime_ns) for name, state in files]
    code = [(Path(__file__).parent.parent / name).read_bytes() for name in CODE]
    stamp = [place, states, code, openvino.get_version()]
    name, stamp = (hashlib.sha256(repr(each).encode()).hexdigest() for each in (place, stamp))
    return Path(HF_HOME, "gpt2-korean", f"{name}.openvino"), stamp
