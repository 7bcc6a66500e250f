"""Tokens split again at random: a text that is read often is split otherwise each time, and learnt by heart later.

BPE-dropout (Provilkov et al. 2020, arXiv 1910.13267) leaves out merges while a text is tokenised. Here merges are
undone in finished tokens, which takes no time and is repeated by a seed: a token stays whole if none of its merges is
left out, else its two parts are looked at in the same way.
"""

import json

import numpy as np

from gpt2_korean.messages import UsageError


class Merges:
    """How a vocabulary's tokens are put together, and the chance `dropout` of each merge to be left out.

    parts: int32 [tokens, 2], the two that a token is made of, -1 for one that is of none. stays: float64 [tokens], the
    chance that a token is left whole. expected: float64 [tokens], how many a token becomes on average.
    Raises UsageError for a tokenizer without merges.
    """

    def __init__(self, tokenizer, dropout):
        pairs, size = merged_pairs(tokenizer), 1 + max(tokenizer.get_vocab().values())
        if not pairs:
            raise UsageError(f"--bpe_dropout={dropout:g}: BPE의 병합이 없는 토크나이저입니다. 이 플래그를 빼세요.")
        self.parts, merges = np.full((size, 2), -1, np.int32), np.zeros(size)
        self.expected = np.ones(size)
        for token, (first, second) in pairs.items():  # a merge stands behind those that make its parts
            self.parts[token] = first, second
            merges[token] = 1 + merges[first] + merges[second]
            stays = (1 - dropout) ** merges[token]
            self.expected[token] = stays + (1 - stays) * (self.expected[first] + self.expected[second])
        self.stays = (1 - dropout) ** merges

    def growth(self, parts):
        """How many tokens become of one on average. parts: arrays of ids."""
        return sum(self.expected[ids].sum() for ids in parts) / sum(map(len, parts))

    def undo(self, ids, most, random):
        """`(ids, places)`: tokens some of which have been taken apart, and which of `ids` each is of.

        most: how many they may become; where that is reached the rest stays whole. random: a numpy Generator.
        """
        places, open_ = np.arange(len(ids)), np.ones(len(ids), bool)
        while True:
            apart = np.flatnonzero(open_ & (random.random(len(ids)) >= self.stays[ids]))
            if len(ids) + len(apart) > most:
                apart = np.sort(random.permutation(apart)[: most - len(ids)])
            if not len(apart):
                return ids, places
            counts = np.ones(len(ids), np.int64)
            counts[apart] = 2
            second = np.cumsum(counts)[apart] - 1
            parts, open_ = self.parts[ids[apart]], np.zeros(counts.sum(), bool)
            ids, places = np.repeat(ids, counts), np.repeat(places, counts)
            ids[second - 1], ids[second] = parts.T
            open_[second - 1] = open_[second] = True


def merged_pairs(tokenizer):
    """Token → the two tokens that it is merged of, in the order of the merges; {} of a tokenizer without any."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    model = json.loads(backend.to_str())["model"] if backend else {}
    if model.get("type") != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return {}
    ids, pairs = model["vocab"], {}
    for first, second in model["merges"]:
        pairs.setdefault(ids[first + second], (ids[first], ids[second]))
    return pairs
