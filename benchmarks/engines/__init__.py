"""What peers.py measures: an engine is a file here with four functions over the folder that keeps what is converted.

convert(model, folder, kind): make the engine's file of a model folder, once.
file(folder, kind): where its weights are; None where they are the model's own.
writer(folder, kind): a function of prompts [rows, n], 5 rows at most, and the number of tokens that it writes to each.
bits(folder, kind, ids [rows, n]): what all but each row's first token cost.

Imports stand in the functions: the start of a process is measured too.
"""

import os

import numpy as np

SAMPLING = {"top_k": 50, "top_p": 0.95, "temperature": 0.7, "repetition_penalty": 1.2}
THREADS = len(os.sched_getaffinity(0))
ROWS = 16  # that are read together where bits are counted


def count_bits(ids, start):
    """The bits of all but each row's first token. start(rows) → step(tokens [rows]) → logits [rows, vocab]."""
    bits = 0.0
    for first in range(0, len(ids), ROWS):
        rows = ids[first : first + ROWS]
        step = start(len(rows))
        for place in range(rows.shape[1] - 1):
            logits = np.asarray(step(rows[:, place]), dtype=np.float64)
            top = logits.max(1)
            total = top + np.log(np.exp(logits - top[:, None]).sum(1))
            bits += (total - logits[np.arange(len(rows)), rows[:, place + 1]]).sum() / np.log(2)
    return bits
