"""Texts → the merges of a byte-level BPE.

Byte-pair encoding as Sennrich et al. 2016 (arXiv 1508.07909) learn it: the two neighbouring tokens that occur most
often become one, again and again. Of bytes, in words as GPT-2 cuts them (Radford et al. 2019). The merges are those of
tokenizers' BpeTrainer, in less than half of its time on two cores (benchmarks/RESULTS.md).
"""

import heapq
import itertools
from collections import Counter

import numpy as np

END = -1  # stands between words
GONE = -2  # stands where the second token of a pair began, which is part of the first since
LEAST = 2  # times that a pair of tokens occurs to become one
BITS = 32  # a pair of ids is one number, the left one above so many bits


def count_words(texts):
    """How often each of GPT-2's words occurs in a list of str, `{word: count}`; none reaches into the next text."""
    import regex
    from tiktoken_ext.openai_public import r50k_pat_str

    return Counter(itertools.chain.from_iterable(map(regex.compile(r50k_pat_str).findall, texts)))


def learn_merges(words, most, alphabet):
    """The pairs of bytes that become tokens, `[(left, right)]` in order, at most `most` of them.

    words: `{bytes: count}`. A pair is merged if it occurs LEAST times. Of those that occur equally often the first
    comes first, by the ids of its tokens: 0 to 255 are the bytes in the order of `alphabet`, then tokens as they come.
    No token is of two pairs: its bytes come down to the same two wherever no merge has crossed their borders.
    """
    ids, counts = _lay_out(words, alphabet)
    starts = np.arange(len(ids))  # at the place of a token's last byte stands where its first one is
    queue, order = [], itertools.count()

    def wait(group, rank=0):
        """Queue the pair of that rank; those behind it follow once it is taken."""
        often, pairs = group[:2]
        if rank < len(often):
            heapq.heappush(queue, (-often[rank], int(pairs[rank]), next(order), group, rank))

    lefts = np.flatnonzero((ids[:-1] != END) & (ids[1:] != END))
    often, both, *where = _group(ids[lefts] << 8 | ids[lefts + 1], lefts, counts)
    wait((often, both >> 8 << BITS | both & 255, *where))
    tokens, merges = [bytes([byte]) for byte in alphabet], []
    while queue and len(merges) < most:
        _, pair, _, group, rank = heapq.heappop(queue)
        wait(group, rank + 1)
        left, right = divmod(pair, 1 << BITS)
        _, _, begins, ends, places = group
        lefts, size = places[begins[rank] : ends[rank]], len(tokens[left])
        # A pair arises only where one of its tokens does, so no places are missing. Since then some may have gone.
        stayed = ((ids.take(lefts) == left) & (ids.take(lefts + size) == right)).nonzero()[0]
        if len(stayed) < len(lefts):
            lefts = lefts.take(stayed)
            count = int(counts.take(lefts).sum())
            if count >= LEAST:
                wait(([count], [pair], [0], [len(lefts)], lefts))
            continue
        merges.append((tokens[left], tokens[right]))
        if left == right:
            lefts = _every_other(lefts, size)
        number, token = len(tokens), tokens[left] + tokens[right]
        tokens.append(token)
        ids[lefts], ids[lefts + size], starts[lefts + len(token) - 1] = number, GONE, lefts
        before = starts.take(lefts - 1)
        left_ids, right_ids = ids.take(before), ids.take(lefts + len(token))
        follows = (left_ids != END).nonzero()[0]
        leads = ((right_ids != END) & (right_ids != number)).nonzero()[0]  # two of the new ones: told by the second
        often, others, *where = _group(left_ids.take(follows), before.take(follows), counts)
        wait((often, others << BITS | number, *where))
        often, others, *where = _group(right_ids.take(leads), lefts.take(leads), counts)
        wait((often, number << BITS | others, *where))
    return merges


def _lay_out(words, alphabet):
    """`(ids, counts)`, int64 by place: the bytes of all words in a row, END around each; how often its word occurs."""
    spelt = [word for word in words if len(word) > 1]
    sizes = np.fromiter(map(len, spelt), np.int64, len(spelt)) + 1
    ids = np.argsort(np.frombuffer(bytes(alphabet), np.uint8))[np.frombuffer(b"\0".join([b"", *spelt, b""]), np.uint8)]
    ids[np.concatenate(([0], sizes.cumsum()))] = END
    counts = np.fromiter(map(words.__getitem__, spelt), np.int64, len(spelt))
    return ids, np.concatenate(([0], counts.repeat(sizes)))


def _group(others, places, counts):
    """What differs among `others`, the most frequent first: `(how often, others, from, to, places)`; the places of each
    lie in a row of `places`, from … to …, ascending."""
    place_bits = len(counts).bit_length()
    found = others << place_bits | places  # as one number they are sorted several times as fast
    found.sort()
    others, places = found >> place_bits, found & (1 << place_bits) - 1
    begins = np.concatenate(([True], others[1:] != others[:-1]))[: len(others)].nonzero()[0]
    often = np.add.reduceat(counts.take(places), begins) if len(others) else begins
    ends = np.concatenate((begins[1:], [len(others)]))
    order = (-often).argsort(kind="stable")[: (often >= LEAST).sum()]
    begins = begins.take(order)
    return often.take(order).tolist(), others.take(begins), begins, ends.take(order), places


def _every_other(places, size):
    """Of a pair of two equal tokens of `size` bytes, the ascending places of which none overlaps the one before it."""
    number = np.arange(len(places))
    new_run = np.concatenate(([True], places[1:] - places[:-1] != size))
    return places[(number - np.maximum.accumulate(number * new_run)) % 2 == 0]
