"""Documents → their tokens, cached on disk: each document's ids and the end-of-text token that ends it.

The tokens are cached document after document; how they are put into blocks (text/packing.py) may differ in every epoch.
"""

import hashlib
import json
import math
from bisect import bisect_right
from functools import cached_property
from itertools import chain, repeat

import numpy as np

from gpt2_korean.text.cache import cached_dataset
from gpt2_korean.text.chat_template import encode_conversations, encode_texts
from gpt2_korean.text.corpus import document_batches, is_stream
from gpt2_korean.text.encoding import encode_joined, in_threads, same_encoding

# Documents that are tokenised together, at most: enough to keep all cores at work.
BATCH = 1000
ROW = 2**18  # tokens in a row of the cache, at least: a row a document would take longer to write than to tokenise
HASHED = 20_000_000  # tokens of a corpus that tell it from another, evenly chosen where it has more


class Tokens:
    """The tokens of documents, from rows (dicts) of `ids` (of many documents one after another), `lengths` (of each)
    and `learnt` (of each token, 0 where it is read but not predicted; an empty list where all are learnt).

    table: a datasets.Dataset of such rows, whose memory is mapped.
    """

    def __init__(self, table):
        self.table = table

    @cached_property
    def lengths(self):
        """[documents], int32: tokens of each, its end-of-text token counted."""
        return np.concatenate(self._arrays("lengths"))

    @cached_property
    def starts(self):
        """[documents], int64: where each begins among all tokens."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def targets(self):
        """How many tokens are learnt."""
        if self.learnt is None:
            return int(self.lengths.sum())
        pairs = zip(self.ids, self.learnt, strict=True)
        return sum(int(learnt.sum(dtype=np.int64)) if len(learnt) else len(ids) for ids, learnt in pairs)

    @cached_property
    def ids(self):
        """All tokens in parts, int32; no document is in two of them."""
        return self._arrays("ids")

    @cached_property
    def learnt(self):
        """For each of `ids` whether it is learnt, int8, in the same parts; None where all are, and a part of which all
        are is empty."""
        parts = self._arrays("learnt")
        return parts if any(map(len, parts)) else None

    @cached_property
    def part_starts(self):
        """Where each part begins among all tokens, a list."""
        return np.cumsum([0, *map(len, self.ids[:-1])]).tolist()

    def read(self, document, first, stop):
        """The ids from `first` to before `stop` of a document, and which of them are learnt, None where all are."""
        start = int(self.starts[document])
        part = bisect_right(self.part_starts, start) - 1
        here = slice(start - self.part_starts[part] + first, start - self.part_starts[part] + stop)
        all_learnt = self.learnt is None or not len(self.learnt[part])
        return self.ids[part][here], None if all_learnt else self.learnt[part][here]

    def _arrays(self, name):
        chunks = self.table.with_format("arrow")[:][name].chunks
        return [chunk.flatten().to_numpy() for chunk in chunks]


class Buffer(Tokens):
    """Tokens in memory, of one row."""

    def _arrays(self, name):
        return [self.table[name]]


def tokenise(documents, tokenizer, all_learnt=False):
    """The Tokens of `documents`, a datasets.Dataset with columns text and turns.

    all_learnt: whether of a conversation all turns are learnt and not the answers alone.
    """
    # Models with equal words may write conversations differently.
    writes = tokenizer.chat_template, sorted(tokenizer.special_tokens_map.items())
    identity = [documents._fingerprint, vocabulary_of(tokenizer), tokenizer.eos_token_id, all_learnt, writes]
    arguments = {"documents": documents, "tokenizer": tokenizer, "all_learnt": all_learnt}
    return Tokens(cached_dataset(_token_tables, arguments, identity, rows=1))


def _token_tables(**arguments):
    import pyarrow

    for row in token_rows(**arguments):
        yield pyarrow.table({name: pyarrow.array([values]) for name, values in row.items()})


def vocabulary_of(tokenizer):
    """What decides the tokens of a text: tokenizer.json but for what it puts around texts, or a Python one's words."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return sorted(tokenizer.get_vocab().items())
    return json.dumps({**json.loads(backend.to_str()), "post_processor": None})


def token_rows(documents, tokenizer, all_learnt):
    """Yield rows as Tokens has them, of `documents` (a table or a stream of them)."""
    from tqdm import tqdm

    encoding = same_encoding(tokenizer)

    def encode(batch):
        return None if encoding is None or any(batch[1]) else encode_joined(batch[0], encoding)

    batches = document_batches(documents, BATCH)
    encoded = ((batch, encode(batch)) for batch in batches)
    if not is_stream(documents):  # of which nothing is read before it is asked for
        encoded = in_threads(encode, batches)
    waiting, size = [], 0
    with tqdm(desc="토큰으로 나누기", unit="글자", unit_scale=True) as progress:
        for (texts, turns), own in encoded:
            waiting.append(own or _encode(texts, turns, tokenizer, all_learnt))
            size += len(waiting[-1][0])
            progress.update(sum(map(len, texts)))
            if size >= ROW:
                yield _row(waiting)
                waiting, size = [], 0
    if size:
        yield _row(waiting)


def _row(batches):
    """A row of batches, each as _encode gives it."""
    ids, lengths, learnt = zip(*batches, strict=True)
    if any(flags is not None for flags in learnt):
        pairs = zip(ids, learnt, strict=True)
        learnt = [np.ones(len(own), np.int8) if flags is None else flags for own, flags in pairs]
    else:
        learnt = [np.empty(0, np.int8)]
    return {"ids": np.concatenate(ids), "lengths": np.concatenate(lengths), "learnt": np.concatenate(learnt)}


def _encode(texts, conversations, tokenizer, all_learnt):
    """`(ids, lengths, learnt)` of documents, arrays, the end of each included; learnt is None where all is."""
    end = tokenizer.eos_token_id
    plain = [text for text, turns in zip(texts, conversations, strict=True) if not turns]
    plain = iter(encode_texts(plain, tokenizer) if plain else [])
    whole = [turns for turns in conversations if turns]
    whole = iter(encode_conversations(whole, tokenizer) if whole else [])
    encoded = []
    for turns in conversations:
        ids, learnt = next(whole) if turns else (next(plain), None)
        if not turns or ids[-1] != end:
            ids, learnt = [*ids, end], learnt and [*learnt, True]
        if learnt and None in learnt:
            learnt = [flag is not None if all_learnt else bool(flag) for flag in learnt]
        elif all_learnt:
            learnt = None
        encoded.append((ids, learnt))
    lengths = np.array([len(ids) for ids, _ in encoded], np.int32)
    ids = np.fromiter(chain.from_iterable(ids for ids, _ in encoded), np.int32, lengths.sum())
    if all(flags is None for _, flags in encoded):
        return ids, lengths, None
    flags = (repeat(True, len(ids)) if flags is None else flags for ids, flags in encoded)
    return ids, lengths, np.fromiter(chain.from_iterable(flags), np.int8, lengths.sum())


def fingerprint(tokens):
    """A hash of Tokens: of their number, and of about HASHED of them."""
    digest = hashlib.sha256(f"{len(tokens.lengths)} {tokens.lengths.sum()} {tokens.targets}".encode())
    for row in some_rows(tokens, HASHED):
        digest.update(row["lengths"].tobytes() + row["ids"].tobytes() + row["learnt"].tobytes())
    return digest.hexdigest()


def some_rows(tokens, limit):
    """Yield rows of the cache, evenly chosen, of about `limit` tokens in all."""
    table = tokens.table.with_format("numpy")
    step = math.ceil(int(tokens.lengths.sum()) / limit)
    yield from table.select(range(0, len(table), step))
