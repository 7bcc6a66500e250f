"""The decoder of decoder.py by OpenVINO, whose kernels read weights in 8 and 4 bits as they are kept.

Its threads sleep while they wait: beside other busy programs a step takes no longer than its share of the processor.
"""

import numpy as np
import torch

from gpt2_korean.model.gpt2 import context_length
from gpt2_korean.speed.huge_pages import use_huge_pages_later
from gpt2_korean.speed.openvino_graph import BLOCK, make_room

# A single prompt is read in chunks of so many tokens, whole blocks. The next one does not read again the whole chunks
# that it begins with too: as both are cut alike, its text is the same to the last bit, whatever was read before.
CHUNK = 2 * BLOCK


class OpenVINODecoder:
    """GPT-2 as openvino_graph.py builds it.

    request: to that graph. weights: whatever it reads, which may not go before it. paged: each row stands in blocks of
    its own, so that leaving others out copies nothing.
    """

    captures, paged = False, True
    device = torch.device("cpu")

    def __init__(self, config, request, weights):
        self.vocab_size, self.context = config["vocab_size"], context_length(config)
        self.cache_bytes = 2 * config["n_layer"] * config["n_embd"] * 4  # of a token, in float32: at most
        self.request, self.weights = request, weights
        self.contents, self.known = [], np.zeros(0, int)  # known: the ids that stand in the first blocks, in order

    def start(self, ids, mask, steps, rows=None):
        """As GPT2Decoder.start; of a single prompt what begins like the one before is not read again."""
        use_huge_pages_later()
        ids, mask = ids.numpy(), mask.numpy()
        alone = len(ids) == 1
        known = self._count_known(ids[0]) if alone else 0
        own = self._make_room(len(ids) if rows is None else len(rows), ids.shape[1] + steps, known)
        if rows is not None:
            self.blocks = own[[rows.tolist().index(prompt) for prompt in range(len(ids))]]
        logits = self._read_on(ids[0]) if alone else self._forward(ids[mask == 1], mask.sum(1))
        return logits if rows is None else self._share(logits, rows, own)

    def _count_known(self, ids):
        """How many tokens at the beginning of `ids`, whole chunks and not all, are read already."""
        most = min(len(self.known), len(ids) - 1)
        same = np.append(self.known[:most] == ids[:most], False).argmin()
        return int(same) // CHUNK * CHUNK

    def _read_on(self, ids):
        """Logits [1, vocab] after a prompt of which the chunks before self.done are read."""
        for start in range(self.done, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            logits = self._forward(chunk, np.array([len(chunk)]))
        self.known = ids
        return logits

    def _share(self, logits, rows, own):
        """Have each of `rows` go on from its prompt, whose full blocks they all read; the last is copied for each."""
        self.keep(rows)
        read = self.blocks
        last = np.minimum(self.done // BLOCK, own.shape[1] - 1)[:, None]
        self.blocks = np.where(np.arange(own.shape[1]) < last, read, own)
        copy, original = (np.take_along_axis(blocks, last, 1)[:, 0] for blocks in (own, read))
        for contents in self.contents:
            contents[copy] = contents[original]
        return logits[rows]

    def read(self, ids, first):
        """As GPT2Decoder.read."""
        self._make_room(1, len(ids))
        return self._forward(np.array(ids), np.array([len(ids)]), np.arange(first, len(ids)))

    def room(self, tokens):
        return tokens

    def reach(self, slots):
        return slots

    def step(self, tokens, reach):
        """As GPT2Decoder.step."""
        return self._forward(tokens.numpy(), np.ones(len(tokens), int))

    def keep(self, rows):
        """As GPT2Decoder.keep."""
        rows = rows.numpy()
        self.done, self.blocks = self.done[rows], self.blocks[rows]
        return True

    def _make_room(self, rows, tokens, known=0):
        """Blocks for `rows` rows of so many tokens, [rows, n]; in the first row's are `known` of them already."""
        each, before = -(-tokens // BLOCK), self.contents
        self.contents = make_room(self.request, rows * each)
        for contents, read in zip(self.contents, before, strict=False):
            contents[: known // BLOCK] = read[: known // BLOCK]
        self.blocks, self.done, self.known = np.arange(rows * each).reshape(rows, each), known, self.known[:known]
        return self.blocks

    def _forward(self, ids, new, asked=None):
        """Logits [n, vocab] after the places `asked` [n] of `ids`, None for the last of each row.

        ids: those of all rows, one row after the other. new: [rows], how many they are of each.
        """
        self.done = self.done + new
        ends, used = new.cumsum(), np.arange(self.blocks.shape[1]) * BLOCK < self.done[:, None]
        inputs = {
            "ids": ids,
            "positions": np.arange(len(ids)) + (self.done - ends).repeat(new),
            "read": self.done - new,
            "begins": np.append(0, ends),
            "blocks": self.blocks[used],
            "block_begins": np.append(0, used.sum(1).cumsum()),
            "longest": self.done.max(),
            "asked": ends - 1 if asked is None else asked,
        }
        inputs = {name: np.asarray(each, np.int32) for name, each in inputs.items()}
        return torch.from_numpy(self.request.infer(inputs, share_inputs=True)[0])
