"""llama.cpp by llama-cpp-python: GGUF files of generate.py --export, and llama.cpp's own quantisation of them."""

import ctypes
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np

from . import ROWS, SAMPLING, THREADS, count_bits

ROOT = Path(__file__).parent.parent.parent
EXPORTED = ("f32", "bf16", "q8_0")


def convert(model, folder, kind):
    path = file(folder, kind)
    if path.exists():
        return
    if kind in EXPORTED:
        flags = [f"--model_name_or_path={model}", "--raw", f"--export={path}", f"--export_type={kind}"]
        subprocess.run([sys.executable, ROOT / "generate.py", *flags], check=True)
        return
    llama_cpp = library()
    convert(model, folder, "f32")
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
    source = str(file(folder, "f32")).encode()
    failed = llama_cpp.llama_model_quantize(source, str(path).encode(), ctypes.byref(parameters))
    assert not failed, path


def file(folder, kind):
    return folder / f"{kind}.gguf"


@cache
def library():
    """llama_cpp, which then says nothing."""
    import llama_cpp

    library.silent = llama_cpp.llama_log_callback(lambda level, text, data: None)  # must live as long as it is called
    llama_cpp.llama_log_set(library.silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return llama_cpp


def load(folder, kind, rows, length):
    """`(decode, forget, context, words)`: read n tokens more of each row, ids [rows, n], and keep each last's logits;
    forget all that was read; what the logits are asked of; how many logits there are."""
    llama_cpp = library()
    parameters = llama_cpp.llama_model_default_params()
    parameters.use_extra_bufts = not os.environ.get("PLAIN_BUFFERS")
    model = llama_cpp.llama_model_load_from_file(str(file(folder, kind)).encode(), parameters)
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx, parameters.n_seq_max = rows * -(-length // 256) * 256, rows
    parameters.n_threads = parameters.n_threads_batch = THREADS
    context = llama_cpp.llama_init_from_model(model, parameters)
    places = 0

    def decode(ids):
        nonlocal places
        batch = llama_cpp.llama_batch_init(ids.size, 0, 1)
        batch.n_tokens = ids.size
        for index, (row, place) in enumerate(np.ndindex(*ids.shape)):
            batch.token[index], batch.pos[index] = int(ids[row, place]), places + place
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, row
            batch.logits[index] = place == ids.shape[1] - 1
        failed = llama_cpp.llama_decode(context, batch)
        llama_cpp.llama_batch_free(batch)
        assert not failed
        places += ids.shape[1]

    def forget():
        nonlocal places
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        places = 0

    return decode, forget, context, llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))


def writer(folder, kind):
    llama_cpp = library()
    decode, forget, context, words = load(folder, kind, 5, 256)

    def write(prompts, length):
        rows, width = prompts.shape
        forget()
        samplers = [make_sampler(row, words) for row in range(rows)]
        for row, sampler in enumerate(samplers):
            for token in prompts[row]:
                llama_cpp.llama_sampler_accept(sampler, int(token))
        decode(prompts)
        for step in range(length):
            # The logits of a prompt's last token stand at its place in the batch.
            places = range(width - 1, rows * width, width) if step == 0 else range(rows)
            drawn = [
                llama_cpp.llama_sampler_sample(*each) for each in zip(samplers, [context] * rows, places, strict=True)
            ]
            if step < length - 1:
                decode(np.array(drawn)[:, None])
        for sampler in samplers:
            llama_cpp.llama_sampler_free(sampler)

    return write


def make_sampler(seed, words):
    llama_cpp = library()
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    for sampler in (
        llama_cpp.llama_sampler_init_penalties(words, -1, SAMPLING["repetition_penalty"], 0.0, 0.0),
        llama_cpp.llama_sampler_init_top_k(SAMPLING["top_k"]),
        llama_cpp.llama_sampler_init_top_p(SAMPLING["top_p"], 1),
        llama_cpp.llama_sampler_init_temp(SAMPLING["temperature"]),
        llama_cpp.llama_sampler_init_dist(seed),
    ):
        llama_cpp.llama_sampler_chain_add(chain, sampler)
    return chain


def bits(folder, kind, ids):
    llama_cpp = library()
    decode, forget, context, words = load(folder, kind, ROWS, ids.shape[1])

    def start(rows):
        forget()

        def step(tokens):
            decode(tokens[:, None])
            logits = [llama_cpp.llama_get_logits_ith(context, row) for row in range(rows)]
            return np.stack([np.ctypeslib.as_array(row, (words,)) for row in logits])

        return step

    return count_bits(ids, start)
