"""OpenVINO: a stateful model that optimum-cli makes, weights compressed by NNCF as it does unless told otherwise."""

import shutil
import subprocess

import numpy as np

from . import SAMPLING, count_bits


def convert(model, folder, kind):
    if not file(folder, kind).exists():
        command = ["optimum-cli", "export", "openvino", "--model", model, "--task", "text-generation-with-past"]
        if shutil.which(command[0]):
            subprocess.run([*command, "--weight-format", kind, file(folder, kind).parent], check=True)


def file(folder, kind):
    return folder / f"openvino-{kind}" / "openvino_model.bin"


def writer(folder, kind):
    import openvino
    import openvino_genai

    converted = file(folder, kind).parent
    pipeline = openvino_genai.LLMPipeline(converted, "CPU", CACHE_DIR=str(converted / "cache"))

    def write(prompts, length):
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(prompts), openvino.Tensor(np.ones_like(prompts)))
        fixed = {"max_new_tokens": length, "min_new_tokens": length, "ignore_eos": True, "do_sample": True, **SAMPLING}
        results = pipeline.generate(inputs, openvino_genai.GenerationConfig(**fixed))
        assert all(len(row) == length for row in results.tokens)

    return write


def bits(folder, kind, ids):
    import openvino

    model = openvino.Core().compile_model(file(folder, kind).with_suffix(".xml"), "CPU")
    request = model.create_infer_request()

    def start(rows):
        request.reset_state()
        place = 0

        def step(tokens):
            nonlocal place
            place += 1
            inputs = {
                "input_ids": tokens[:, None],
                "attention_mask": np.ones((rows, place), np.int64),
                "position_ids": np.full((rows, 1), place - 1),
                "beam_idx": np.arange(rows, dtype=np.int32),
            }
            return request.infer(inputs)["logits"][:, -1]

        return step

    return count_bits(ids, start)
