"""OpenVINO's graph of a GPT-2 in 8 or 4 bits, kept in the cache of the Hub's library: the next start neither reduces
the weights nor builds it. A file holds the weights as OpenVINO writes them, what it writes of the graph, a stamp of
what they were made from, and how many bytes the weights take.

Imports no torch: what is kept is read beside that import, which takes as long.
"""

import hashlib
import mmap
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy

from gpt2_korean.model.files import read_model_json, weight_files
from gpt2_korean.text.cache import keep_file, when_changed
from gpt2_korean.windows import WINDOWS

CODE = ("generation/kept.py", "generation/weights.py", "speed/quantized.py", "speed/openvino_graph.py")
FLAG = "--model_name_or_path"
STAMP, NUMBER = 64, 16  # characters at the end of a file


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
    from gpt2_korean.speed.openvino_graph import compile_graph, read_graph, ready

    config = read_model_json(FLAG, folder / "config.json")
    if not config:
        return None
    path, stamp = _place(folder, quantize)
    try:
        with path.open("rb") as file:
            # On Windows a mapped file cannot be replaced.
            mapping = None if WINDOWS else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            content = numpy.frombuffer(mapping or file.read(), numpy.uint8)
        end = content[-STAMP - NUMBER :].tobytes().decode("ascii", "replace")
        if not end.startswith(stamp):
            return None
        weights = int(end[STAMP:])
        graph = read_graph(content[weights : -STAMP - NUMBER].tobytes().decode(), content[:weights], config)
        compiled = compile_graph(graph, config, quantize, bfloat16)
    except (OSError, RuntimeError, ValueError):  # OpenVINO's own are RuntimeErrors; an empty file cannot be mapped
        return None
    return ready(compiled, [mapping] if mapping else []), content


def keep_graph(graph, folder, quantize):
    """Keep an openvino.Model of the model in `folder`, whole or not at all."""
    import openvino

    path, stamp = _place(folder, quantize)

    def write(unfinished):
        with TemporaryDirectory(dir=unfinished.parent) as other:
            description = Path(other, "graph.xml")
            try:
                openvino.serialize(graph, description, unfinished)
            except RuntimeError as error:
                raise OSError(error) from None
            weights = unfinished.stat().st_size
            with unfinished.open("ab") as file:
                file.write(description.read_bytes() + f"{stamp}{weights:{NUMBER}}".encode())

    keep_file(path, write, "줄인 가중치를 저장하지 못해 다음에 다시 줄입니다")


def _place(folder, quantize):
    """`(file, stamp)`: where it is kept, and what it is made from and by.

    One file for each folder and number of bits: a model that has been trained on takes the place of what it was, and so
    does a newer commit on the Hub, whose cache has a folder for each.
    """
    import openvino
    from huggingface_hub.constants import HF_HOME

    folder = folder.resolve()
    owner = folder.parent if folder.parent.name == "snapshots" else folder
    place = [str(owner), quantize]
    files = (folder / "config.json", *(weight_files(folder, FLAG) or []))
    states = [(path.name, *when_changed(path)) for path in files]
    code = [(Path(__file__).parent.parent / name).read_bytes() for name in CODE]
    stamp = [states, code, openvino.get_version()]
    name, stamp = (hashlib.sha256(repr(each).encode()).hexdigest() for each in (place, stamp))
    return Path(HF_HOME, "gpt2-korean", f"{name}.openvino"), stamp
