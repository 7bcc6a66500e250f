"""CTranslate2: float32 and int8."""

import json

import numpy as np

from . import SAMPLING, THREADS


def convert(model, folder, kind):
    from ctranslate2.converters import TransformersConverter

    if not file(folder, kind).exists():
        quantization = "int8" if kind == "int8" else None
        TransformersConverter(str(model)).convert(str(file(folder, kind).parent), quantization=quantization, force=True)


def file(folder, kind):
    return folder / f"ctranslate2-{kind}" / "model.bin"


def load(folder, kind):
    import ctranslate2

    converted = file(folder, kind).parent
    words = json.loads((converted / "vocabulary.json").read_text("utf-8"))
    generator = ctranslate2.Generator(str(converted), compute_type=kind, intra_threads=THREADS, inter_threads=1)
    return generator, words


def writer(folder, kind):
    generator, words = load(folder, kind)
    names = {"sampling_topk": "top_k", "sampling_topp": "top_p", "sampling_temperature": "temperature"}
    fixed = {name: SAMPLING[ours] for name, ours in names.items()}
    fixed |= {"repetition_penalty": SAMPLING["repetition_penalty"], "include_prompt_in_result": False}

    def write(prompts, length):
        tokens = [[words[token] for token in row] for row in prompts]
        results = generator.generate_batch(tokens, max_length=length, min_length=length, **fixed)
        assert all(len(result.sequences_ids[0]) == length for result in results)

    return write


def bits(folder, kind, ids):
    generator, words = load(folder, kind)
    rows = [[words[token] for token in row] for row in ids]
    scores = generator.score_batch(rows, max_batch_size=16)
    return -sum(np.sum(score.log_probs) for score in scores) / np.log(2)
