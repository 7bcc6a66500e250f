"""Texts → tokens by tiktoken, in a third of tokenizers' time, where both are sure to find the same ones."""

import json
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from gpt2_korean.text.vocabulary import byte_alphabet, unlike_gpt2

# It stands for the end of a text, and is in none that went through normalise.
BETWEEN = "\0"
MOST_THREADS = 8  # each has a batch in hand and one waiting


def same_encoding(tokenizer):
    """A tiktoken.Encoding with the ids of a tokenizer of transformers; BETWEEN has that of its end of text.

    None where ids might differ: unless it is a byte-level BPE that cuts words as GPT-2 does and _is_proper.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    described, added = json.loads(backend.to_str()), backend.get_added_tokens_decoder()
    if unlike_gpt2(described) is not None:
        return None
    if tokenizer.eos_token_id not in added or not all(token.special for token in added.values()):
        return None
    ids = {token: index for token, index in described["model"]["vocab"].items() if index not in added}
    if not _is_proper(ids, described["model"]["merges"], backend.model):
        return None
    import tiktoken
    from tiktoken_ext.openai_public import r50k_pat_str

    alphabet = byte_alphabet()
    ranks = {token.translate(alphabet).encode("latin-1"): index for token, index in ids.items()}
    special = {BETWEEN: tokenizer.eos_token_id}
    return tiktoken.Encoding("ours", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens=special)


def _is_proper(ids, merges, model):
    """Whether any two neighbours that make up a token are the pair of its merge whenever they meet.

    tokenizers merges the pairs that are listed, the first in the list first; tiktoken any pair whose bytes together are
    a token, that of the least id first. Where every token but the bytes has one merge, of tokens before it, ids go up
    with the merges, and a token's own text is encoded into that token, both do the same. For let it be so with all the
    merges before a token: then its text comes down to the two parts of its merge by those alone, with either, and
    whatever stands around it, as long as nothing was merged across its borders.

    ids: {token: id}, all tokens but the special ones, written in byte_alphabet. model: a tokenizers.models.BPE.
    """
    known, last = set(map(chr, byte_alphabet())), -1
    for left, right in merges:
        index = ids.get(left + right, -1)
        if index <= last or left not in known or right not in known:
            return False
        known.add(left + right)
        last = index
    return known == ids.keys() and all([part.id for part in model.tokenize(token)] == [ids[token]] for token in ids)


def encode_joined(texts, encoding):
    """`(ids, lengths, None)` of `texts`, arrays of int32, the end of each included; None where tiktoken cannot."""
    joined = BETWEEN.join([*texts, ""])
    if joined.count(BETWEEN) != len(texts):
        return None
    try:
        ids = encoding.encode_to_numpy(joined, allowed_special={BETWEEN}, disallowed_special=()).view(np.int32)
    except ValueError:  # a million spaces one after another are too many for its regular expressions
        return None
    ends = np.flatnonzero(ids == ids[-1:])
    return ids, np.diff(ends, prepend=-1).astype(np.int32), None


def in_threads(function, items):
    """Yield `(item, function(item))` of each of `items` in their order, a few of which are computed ahead."""
    threads, waiting = min(MOST_THREADS, os.cpu_count() or 1), deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > 2 * threads:
                item, result = waiting.popleft()
                yield item, result.result()
        for item, result in waiting:
            yield item, result.result()
