"""How many texts are written together where nobody said."""

from gpt2_korean.device import free_memory

# Twice as many write a tenth faster on two cores, and come twice as late; on a GPU more than 1,024 win a tenth of a
# second of 4,000 texts and take much memory (benchmarks/RESULTS.md).
MOST_ON_CPU, MOST = 64, 1024
UNKNOWN = 32  # where the device does not tell what memory it has


def choose_batch_size(decoder, read, length):
    """A power of two, so that a little more or less free memory changes no text that is drawn.

    read: the tokens of the longest prompt. length: how many may be written.
    """
    free = free_memory(decoder.device)
    if free is None:
        return UNKNOWN
    read = min(read, decoder.context or read)
    slots = read + length if decoder.context is None else min(read + length, decoder.context)
    # The cache; as much again to read prompts, at most, unless they are read a few at a time; a few copies of the
    # logits in float32.
    row = decoder.cache_bytes * (decoder.room(slots) + (0 if decoder.captures else read)) + 40 * decoder.vocab_size
    fitting = max(1, int(0.8 * free / row))
    return min(MOST_ON_CPU if decoder.device.type == "cpu" else MOST, 1 << fitting.bit_length() - 1)
