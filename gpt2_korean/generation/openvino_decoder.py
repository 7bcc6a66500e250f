"""The decoder of decoder.py by OpenVINO, whose kernels read weights in 8 and 4 bits as they are kept.

Its threads sleep while they wait: beside other busy programs a step takes no longer than its share of the processor.
"""

from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache

import openvino as ov
import torch

from gpt2_korean.model.gpt2 import context_length
from gpt2_korean.speed.openvino_graph import build_graph

NEVER = -1e9  # added to a score, it leaves nothing of it


class OpenVINODecoder:
    """GPT-2 as openvino_graph.py builds it; config, weights: see there.

    dtype: float32 or bfloat16, in which it computes.
    forget: lets go of memory in which weights have been read, see weights.Mapped.
    """

    captures = False
    device = torch.device("cpu")

    def __init__(self, config, weights, dtype, forget=None):
        self.vocab_size, self.context = config["vocab_size"], context_length(config)
        self.cache_bytes = 2 * config["n_layer"] * config["n_embd"] * dtype.itemsize
        self.weights = {name: _in_float32(weight) for name, weight in weights.items()}  # which the graph does not copy
        precision = "bf16" if dtype == torch.bfloat16 else "f32"
        properties = {
            "INFERENCE_PRECISION_HINT": precision,
            "KV_CACHE_PRECISION": "f16" if isinstance(weights["wte.weight"], tuple) else precision,
            "ENABLE_CPU_PINNING": False,  # a thread that may not leave its core waits for whoever else computes there
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        compiled = _core().compile_model(build_graph(config, self.weights), "CPU", properties)
        self.request = compiled.create_infer_request()
        if forget is not None:
            self._pack(forget)

    def _pack(self, forget):
        """Take the first step, in which OpenVINO packs the weights; what it has packed it seldom reads again."""
        with ThreadPoolExecutor(1) as thread:
            packing = thread.submit(self.read, [0], 0)
            while not wait([packing], 0.02).done:
                forget()
        packing.result()
        forget()

    def start(self, ids, mask, steps, rows=None):
        """As GPT2Decoder.start."""
        places = torch.arange(ids.shape[1])
        self.padding = (1 - mask).sum(1)[:, None]
        self.length = len(places)
        # Padding looks at itself alone: a softmax over nothing is no number.
        sees = (places <= places[:, None]) & (places >= self.padding[:, None]) | (places == places[:, None])
        self.request.reset_state()
        logits, self.rows = self._forward(ids, places, sees, len(places) - 1)[:, -1], rows
        if rows is None:
            return logits
        self.padding = self.padding[rows]
        return logits[rows]

    def read(self, ids, first):
        """As GPT2Decoder.read."""
        places = torch.arange(len(ids))
        self.padding = torch.zeros(1, 1, dtype=torch.long)
        self.request.reset_state()
        return self._forward(torch.tensor([ids]), places, (places <= places[:, None])[None], first)[0]

    def room(self, tokens):
        return tokens

    def reach(self, slots):
        return slots

    def step(self, tokens, reach):
        """As GPT2Decoder.step."""
        self.length += 1
        places = torch.arange(self.length)
        rows, self.rows = self.rows, None  # what has been read is shared out once
        return self._forward(tokens[:, None], places[-1:], (places >= self.padding)[:, None], 0, rows)[:, -1]

    def _forward(self, ids, places, sees, first, rows=None):
        inputs = {
            "ids": ids,
            "positions": (places - self.padding).clamp(min=0),
            "mask": torch.where(sees, 0.0, NEVER)[:, None],
            "rows": torch.arange(len(ids), dtype=torch.int32) if rows is None else rows.int(),
            "first": torch.tensor([first]),
        }
        outputs = self.request.infer({name: each.numpy() for name, each in inputs.items()}, share_inputs=True)
        return torch.from_numpy(outputs[0])


@cache
def _core():
    """The one of this process. Each puts a stack of its own under the signals, and where the first of two ends first,
    the second leaves that one's behind, which is gone: the next signal, a Ctrl-C, would break the process."""
    return ov.Core()


def _in_float32(weight):
    """A tensor so; codes with their scales as they are."""
    return weight if isinstance(weight, tuple) else weight.detach().float()
