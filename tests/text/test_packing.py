"""However documents are packed, each position of each is learnt once, and what fits a block stands whole."""

from itertools import pairwise

import numpy as np
import pytest

from gpt2_korean.text.packing import (
    best_fit_decreasing,
    choose_size,
    plan_documents,
    plan_stream,
    plan_windows,
    plan_windows_alone,
)


@pytest.fixture(params=range(30))
def lengths(request):
    random = np.random.default_rng(request.param)
    return random.integers(1, random.integers(2, 80), random.integers(1, 200)), int(random.integers(2, 40)), random


def learnt(plan):
    """Every position that `plan` learns, as (document, position), in the order of its pieces."""
    return [(which, position) for which, _, fresh, stop in plan.pieces.tolist() for position in range(fresh, stop)]


def every(lengths):
    return [(which, position) for which, length in enumerate(lengths) for position in range(length)]


@pytest.mark.parametrize("make_plan", [plan_documents, plan_stream])
def test_every_position_is_learnt_once_whatever_the_order(lengths, make_plan):
    lengths, room, random = lengths
    for plan in (make_plan(lengths, room), make_plan(lengths, room, random)):
        assert sorted(learnt(plan)) == every(lengths)
        sizes = plan.pieces[:, 3] - plan.pieces[:, 1]
        assert all(0 < sizes[a:b].sum() <= room for a, b in pairwise(plan.starts))


def test_a_stream_as_it_stands_is_the_text_from_its_beginning_to_its_end(lengths):
    lengths, room, _ = lengths
    plan = plan_stream(lengths, room)
    assert learnt(plan) == every(lengths)
    assert len(plan) == -(-lengths.sum() // room)


def test_a_document_that_fits_a_block_is_not_cut(lengths):
    lengths, room, random = lengths
    pieces = plan_documents(lengths, room, random).pieces
    for which, length in enumerate(lengths):
        own = pieces[pieces[:, 0] == which]
        assert len(own) == -(-length // room)


def test_plans_of_documents_have_as_many_blocks_of_the_same_shape_and_others_in_them(lengths):
    lengths, room, random = lengths

    def shape(plan):
        sizes = plan.pieces[:, 3] - plan.pieces[:, 1]
        return sorted(sorted(sizes[a:b]) for a, b in pairwise(plan.starts))

    plans = [plan_documents(lengths, room, random) for _ in range(2)]
    assert shape(plans[0]) == shape(plans[1])
    if len(lengths) > 50:
        assert not np.array_equal(plans[0].pieces, plans[1].pieces)


@pytest.mark.parametrize("make_plan", [plan_documents, plan_stream])
def test_chance_draws_which_documents_share_a_block_and_when_it_comes(make_plan):
    lengths = np.array([1000] + [5] * 200)  # half of the blocks are of the first document alone
    plan = make_plan(lengths, 20, np.random.default_rng(0))
    blocks = [plan.pieces[a:b, 0].tolist() for a, b in pairwise(plan.starts)]
    assert len(blocks) == 100 and sum(len(own) == 4 and own[3] != own[0] + 3 for own in blocks) > 40
    assert sum((0 in one) != (0 in other) for one, other in pairwise(blocks)) > 20


def test_windows_count_each_position_once_with_half_a_window_before_it(lengths):
    lengths, room, _ = lengths
    plan = plan_windows(lengths, room)
    assert sorted(learnt(plan)) == every(lengths)
    alone = plan_windows_alone(lengths, room)
    assert len(alone) == len(plan.pieces) and sorted(learnt(alone)) == every(lengths)
    for _, first, fresh, stop in plan.pieces.tolist():
        assert first == fresh == 0 or fresh - first == room - max(1, room // 2)
        assert stop - first <= room


def test_best_fit_decreasing_is_what_it_is_called(lengths):
    lengths, room, _ = lengths
    sizes = np.sort(np.minimum(lengths, room))[::-1]
    rooms = []  # left in each block, by the method as it is described: one size after another
    for size in sizes:
        fitting = [block for block, left in enumerate(rooms) if left >= size]
        if fitting:
            rooms[min(fitting, key=lambda block: rooms[block])] -= size
        else:
            rooms.append(room - size)
    blocks = best_fit_decreasing(sizes, room)
    own = room - np.bincount(blocks, weights=sizes)
    assert sorted(own) == sorted(rooms)


def test_some_documents_begin_at_any_position_and_none_where_the_one_before_it_ends():
    random, lengths = np.random.default_rng(0), np.array([3] * 2000 + [20] * 200)
    plan = plan_documents(lengths, 40, random, reach=64)
    sizes = plan.pieces[:, 3] - plan.pieces[:, 1]
    assert (plan.offsets + sizes).max() == 63  # one more than that is read, for the last label
    assert 0 < np.count_nonzero(plan.offsets) / len(sizes) < 0.15
    assert not np.any(plan.offsets[1:] == (plan.offsets + sizes)[:-1])


@pytest.mark.parametrize(
    ("asked", "context", "size"),
    [
        (None, 1024, 1024),
        (None, 128, 128),
        (None, None, 1024),
        (None, 32768, 2048),
        (4096, 32768, 4096),
        (4096, None, 4096),
        (64, 1024, 64),
    ],
)
def test_a_block_is_as_long_as_asked_else_as_the_context_but_not_longer_than_memory_allows(asked, context, size):
    assert choose_size(asked, context) == size
