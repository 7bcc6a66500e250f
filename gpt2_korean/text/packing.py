"""Which piece of which document goes into which block: lengths → plans, in numpy. Knows no tokens.

A document of n tokens, its end counted, is read from the end-of-text token on, and so has n positions, each of which
predicts one token. A block has room for so many of them. A plan says which positions each block has.
"""

from dataclasses import dataclass, replace

import numpy as np

from gpt2_korean.messages import UsageError

FARTHER_ON = 0.1
LONGEST = 2048  # tokens of a block that nobody asked for: one of a model that reads 32,768 would fill any memory


@dataclass(frozen=True)
class Plan:
    """pieces: [pieces, 4] int32, block after block: a document, and of its positions the first, the first that is
    learnt, and the one past the last. starts: [blocks + 1] int64, where each block's pieces begin. offsets: [pieces]
    int32, the position that each piece begins at; None where positions run through a block. Of millions of documents
    they take up most of the memory that a run has of its own."""

    pieces: np.ndarray
    starts: np.ndarray
    offsets: np.ndarray | None

    def __len__(self):
        return len(self.starts) - 1


def choose_size(block_size, context):
    """How many tokens a block has: those of --block_size, else of the model's context, and then LONGEST at most.

    context: None where it sets no limit; a block that nobody asked for then has 1,024."""
    size = block_size or min(context or 1024, LONGEST)
    if context and size > context:
        way_on = f"{context} 이하로 줄이거나 이 플래그를 빼세요"
        raise UsageError(f"--block_size={size}: 모델의 문맥 길이 {context}보다 길 수 없습니다. {way_on}.")
    return size


def plan_stream(lengths, room, random=None):
    """Documents one after another, cut wherever a block is full. random: a numpy Generator for their order and that
    of the blocks; None: as they stand."""
    order = np.arange(len(lengths)) if random is None else random.permutation(len(lengths))
    ends = np.cumsum(lengths[order])
    # A piece ends where its document does, or its block.
    cuts = np.union1d(ends, np.arange(room, ends[-1], room))
    begins = np.concatenate([[0], cuts[:-1]])
    which = np.searchsorted(ends, begins, "right")
    first = ends[which] - lengths[order[which]]
    pieces = np.stack([order[which], begins - first, begins - first, cuts - first], 1, dtype=np.int32)
    starts = np.append(np.searchsorted(begins, np.arange(0, ends[-1], room)), len(pieces))
    if random is not None:
        starts, order = _shuffled(starts, random)
        pieces = pieces[order]
    return Plan(pieces, starts, None)


def plan_documents(lengths, room, random=None, reach=None):
    """Documents whole where they fit, else in consecutive pieces, packed best-fit decreasing (Ding et al. 2024,
    arXiv 2404.10830).

    random: as plan_stream; documents of one length change places, so that every plan has blocks of the same shape.
    reach: how many positions the model has, None for a block's. A share of the pieces, FARTHER_ON, is moved to a random
    one: positions beyond the longest document would else learn nothing, and a conversation may reach them.
    """
    which, number = _numbered(-(-lengths // room))
    first = number * room
    last = np.minimum(first + room, lengths[which])
    plan = _packed(np.stack([which, first, first, last], 1, dtype=np.int32), room, random)
    if random is None:
        return plan
    sizes = plan.pieces[:, 3] - plan.pieces[:, 1]
    moved = random.random(len(sizes)) < FARTHER_ON
    offsets = np.where(moved, random.integers(0, (reach or room + 1) - sizes), 0).astype(np.int32)
    # A piece that went on counting where the one before it ended would be taken for a part of it.
    while (joined := 1 + np.flatnonzero(offsets[1:] == offsets[:-1] + sizes[:-1])).size:
        offsets[joined] = 0
    return replace(plan, offsets=offsets)


def plan_windows(lengths, room, random=None):
    """Each document by itself: one that does not fit is read in windows that overlap by half, and of each only what
    the window before did not have counts. So every position that counts has half a window before it, or all there is.
    """
    stride = max(1, room // 2)
    counts = 1 + np.maximum(0, -(-(lengths - room) // stride))
    which, number = _numbered(counts)
    last = np.minimum(number * stride + room, lengths[which])
    fresh = np.where(number == 0, 0, (number - 1) * stride + room)
    return _packed(np.stack([which, number * stride, fresh, last], 1, dtype=np.int32), room, random)


def plan_windows_alone(lengths, room, random=None):
    """As plan_windows, but each window is a block of its own: for models that would mix those of one block."""
    pieces = plan_windows(lengths, room, random).pieces
    return Plan(pieces, np.arange(len(pieces) + 1), None)


def without_pieces(plan, numbers):
    """`plan` without the pieces of these numbers, each of which is a block of its own; positions do not run through."""
    blocks = np.searchsorted(plan.starts, numbers)
    starts = np.cumsum(np.append(0, np.delete(np.diff(plan.starts), blocks)))
    return Plan(np.delete(plan.pieces, numbers, 0), starts, np.delete(plan.offsets, numbers))


def _numbered(counts):
    """`(the document, which of its pieces)` of each piece where documents have so many each, int32."""
    which = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    before = (np.cumsum(counts) - counts).astype(np.int32)
    return which, np.arange(len(which), dtype=np.int32) - np.repeat(before, counts)


def _packed(pieces, room, random):
    sizes = pieces[:, 3] - pieces[:, 1]
    order = np.arange(len(pieces)) if random is None else random.permutation(len(pieces))
    # Small integers, since numpy sorts those of 16 bits by radix, which is faster.
    order = order[np.argsort((-sizes[order]).astype(np.min_scalar_type(-room)), kind="stable")]
    blocks = best_fit_decreasing(sizes[order], room)
    by_block = np.argsort(blocks, kind="stable")
    starts = np.searchsorted(blocks[by_block], np.arange(blocks.max() + 2))
    order = order[by_block]
    del sizes, blocks, by_block
    if random is not None:
        starts, shuffled = _shuffled(starts, random)
        order = order[shuffled]
    return Plan(pieces[order], starts, np.zeros(len(pieces), np.int32))


def best_fit_decreasing(sizes, room):
    """The block of each size, [n] int32. sizes: [n], the largest first, none above `room`.

    Each goes into the fullest block that it fits, else into a new one. All of one size go at once: the fullest block
    takes them until it is full, and then blocks as full as it was do likewise.
    """
    blocks = np.empty(len(sizes), np.int32)
    by_room = [[] for _ in range(room + 1)]  # blocks by what room they have left
    used = done = 0
    for size, count in zip(*(part.tolist()[::-1] for part in np.unique(sizes, return_counts=True)), strict=True):
        left = size
        while count:
            while left <= room and not by_room[left]:
                left += 1
            each = min(left, room) // size
            number = -(-count // each)
            if left > room:
                left, there = room, range(used, used + number)
                used += number
            else:
                there, by_room[left] = by_room[left][:number], by_room[left][number:]
            taken = min(count, each * len(there))
            blocks[done : done + taken] = np.repeat(there, each)[:taken]
            last = taken - each * (len(there) - 1)
            by_room[left - each * size] += there[:-1]
            by_room[left - last * size].append(there[-1])
            done, count = done + taken, count - taken
    return blocks


def _shuffled(starts, random):
    """`(starts, order)` of blocks that change places: where each begins then, and which piece stands where."""
    order = random.permutation(len(starts) - 1)
    sizes = np.diff(starts)[order]
    ends = np.cumsum(sizes)
    index = np.arange(ends[-1]) + np.repeat(starts[order] - (ends - sizes), sizes)
    return np.concatenate([[0], ends]), index
