"""The decoder of decoder.py by OpenVINO, whose kernels read weights in 8 and 4 bits as they are kept.

Its threads sleep while they wait: beside other busy programs a step takes no longer than its share of the processor.
"""

import torch

from gpt2_korean.model.gpt2 import context_length
from gpt2_korean.speed.huge_pages import use_huge_pages_later

NEVER = -1e9  # added to a score, it leaves nothing of it


class OpenVINODecoder:
    """GPT-2 as openvino_graph.py builds it.

    request: to that graph. weights: whatever it reads, which may not go before it.
    """

    captures = False
    device = torch.device("cpu")

    def __init__(self, config, request, weights):
        self.vocab_size, self.context = config["vocab_size"], context_length(config)
        self.cache_bytes = 2 * config["n_layer"] * config["n_embd"] * 4  # of a token, in float32: at most
        self.request, self.weights = request, weights

    def start(self, ids, mask, steps, rows=None):
        """As GPT2Decoder.start."""
        use_huge_pages_later()
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

    def keep(self, rows):
        """As GPT2Decoder.keep."""
        self.padding = self.padding[rows]
        self.rows = rows if self.rows is None else self.rows[rows]  # for the next step, which leaves out the others
        return True

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
