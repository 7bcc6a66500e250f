"""Documents that have been read → their texts and turns, in batches or evenly chosen, and how long all of them are."""

import math
from functools import lru_cache
from itertools import pairwise

from gpt2_korean.messages import say
from gpt2_korean.text.normalise import describe_changes

MOST_CHARACTERS = 1 << 20  # of documents that are held in memory at a time
STREAMED = 256  # documents of a stream, whose lengths are not known, likewise
# What of documents is told: how many were changed, had no text, or were conversations that are not whole.
CHANGES = ("composed", "line_ends", "controls", "blank", "broken")


def is_stream(documents):
    """Whether documents are an IterableDataset, of which nothing can be counted and whose end is not known, and not a
    Dataset."""
    return not hasattr(documents, "num_rows")


def sample_texts(documents, characters):
    """The texts of a Dataset as a list, evenly chosen where they are longer than about `characters` in all.

    Of an endless IterableDataset, the first 10,000.
    """
    step = sampling_step(documents, characters)
    if step is None:
        return [row["text"] for row in documents.take(10_000) if row["text"]]
    return [text for texts in arrow_column(documents, "text", step) for text in texts.to_pylist()]


def sampling_step(documents, characters):
    """Every how many documents of a Dataset one is taken to have about `characters` in all; None for a stream."""
    in_all = count_characters(documents, "length")
    return None if in_all is None else math.ceil(in_all / characters)


def document_batches(documents, size):
    """Yield `(texts, turns)` of a Dataset or an IterableDataset in their order, lists of at most `size`.

    They are shorter where texts are long, and of a stream. What was changed in a stream or left out of it is said when
    it has been read, as far as it was.
    """
    import numpy

    if is_stream(documents):
        counts = dict.fromkeys(CHANGES, 0)
        try:
            for batch in documents.iter(min(size, STREAMED)):
                batch["blank"] = [not row[0] and not row[1] for row in zip(batch["text"], batch["broken"], strict=True)]
                counts = {key: count + sum(batch[key]) for key, count in counts.items()}
                rows = [row for row in zip(batch["text"], batch["turns"], strict=True) if row[0]]
                yield [text for text, _ in rows], [turns for _, turns in rows]
        finally:
            for line in describe_changes(**counts):
                _say_once(documents, f"스트리밍으로 읽은 글: {line}")
        return
    columns = (arrow_column(documents, name) for name in ("text", "turns", "length"))
    for texts, turns, lengths in zip(*columns, strict=True):
        ends = numpy.cumsum(lengths.to_numpy()) // MOST_CHARACTERS
        cuts = {*range(0, len(texts), size), *(1 + numpy.flatnonzero(numpy.diff(ends))).tolist(), len(texts)}
        for start, stop in pairwise(sorted(cuts)):
            own = turns[start:stop]
            # Converting an empty list for each row would take as long as the texts.
            yield texts[start:stop].to_pylist(), own.to_pylist() if len(own.flatten()) else [()] * len(own)


@lru_cache(maxsize=64)
def _say_once(documents, line):
    """Say `line` of a stream, which is read again and again."""
    say(line)


def sample_conversations(documents):
    """The turns of the conversations in a Dataset, evenly chosen from more than about 10,000 documents."""
    rows = documents.select(range(0, len(documents), math.ceil(len(documents) / 10_000)))
    return [turns for batch in rows.iter(1000) for turns in batch["turns"] if turns]


def count_characters(documents, column="characters"):
    """How many characters all `documents` have, of conversations those of the answers, or with `length` of all turns;
    None for a stream."""
    import pyarrow.compute

    if is_stream(documents):
        return None
    return sum(pyarrow.compute.sum(lengths).as_py() or 0 for lengths in arrow_column(documents, column))


def arrow_column(documents, name, step=1):
    """Yield pyarrow Arrays: column `name` of every `step`-th row of a Dataset whose rows are in their table's order.

    What hold_out chose would be looked up row by row in Python by datasets itself, for minutes.
    """
    import numpy
    import pyarrow

    column, chosen = documents.data[name], documents._indices
    wanted = numpy.zeros(len(column), bool)
    wanted[slice(None, None, step) if chosen is None else chosen.column(0).to_numpy()[::step]] = True
    start = 0
    for chunk in column.chunks:
        yield chunk.filter(pyarrow.array(wanted[start : start + len(chunk)]))
        start += len(chunk)
