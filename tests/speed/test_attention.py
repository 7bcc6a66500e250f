"""Attention by our kernels attends as a mask does, and drops the same on the way forth and back.

Without a GPU Triton's interpreter runs the kernels in NumPy (see conftest.py).
"""

from itertools import pairwise

import pytest
import torch
from conftest import GPU, needs_gpu

from gpt2_korean import device
from gpt2_korean.speed import pieces

pytest.importorskip("triton")

import triton
import triton.language as tl

from gpt2_korean.speed import attention, layer
from gpt2_korean.speed.attention_kernels import _odd_hash

SCALE = 0.3


@pytest.fixture(autouse=True, params=[(16, 32), (32, 16)])
def small_tiles(request, monkeypatch):
    """So that even a short text has many, and one holds several pieces."""
    for kind, passes in attention.TILES.items():
        monkeypatch.setitem(attention.TILES, kind, dict.fromkeys(passes, (*request.param, 4, 1)))


def random_positions(rng, rows, length):
    """[rows, length] of pieces of any length, from any position on."""
    longest, all_rows = rng.choice([1, 5, 20, length]), []
    for _ in range(rows):
        row = []
        while len(row) < length:
            start = rng.choice([0, rng.randint(0, 40)])
            start += bool(row) and start == row[-1] + 1
            row += range(start, start + min(rng.randint(1, longest), length - len(row)))
        all_rows.append(row)
    return torch.tensor(all_rows, device=GPU)


def random_qkv(rows, heads, length, width):
    """`(qkv, a bias that has been added to it, heads)`, as the fused layer has them."""
    qkv = torch.randn(rows, length, 3 * heads * width, device=GPU, requires_grad=True)
    return qkv, torch.randn(3 * heads * width, device=GPU, requires_grad=True), heads


def split(qkv, heads):
    """Queries, keys and values, each [rows, heads, length, head width]."""
    return qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)


def assert_same(ours, expected, qkv, bias=None):
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    of_x = torch.randn_like(expected)
    gradients = [torch.autograd.grad(x, qkv, of_x, retain_graph=True)[0] for x in (ours, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)  # sums of tens of products of tens
    if bias is not None:
        (of_bias,) = torch.autograd.grad(ours, bias, of_x)
        torch.testing.assert_close(of_bias, gradients[1].sum((0, 1)), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("width", [8, 20, 72])
def test_tokens_attend_as_by_a_mask(rng, width):
    for rows, length in ((rng.randint(1, 2), rng.randint(40, 70)), (1, 65)):  # of the latter one is alone in its tile
        positions = random_positions(rng, rows, length)
        qkv, bias, heads = random_qkv(rows, rng.randint(1, 2), length, width)
        expected = pieces.masked(positions)(*split(qkv, heads), 0.0, SCALE)
        for way in (attention.fused, layer.masked):
            assert_same(way(positions)(qkv, bias, heads, 0.0, SCALE), expected, qkv, bias)


def test_where_pieces_begin_and_end(rng):
    for _ in range(20):
        positions = random_positions(rng, rng.randint(1, 3), rng.randint(1, 30))
        borders = [*pieces.begins(positions).flatten().nonzero().flatten().tolist(), positions.numel()]
        starts, ends = [], []
        for start, end in pairwise(borders):
            starts, ends = starts + [start] * (end - start), ends + [end] * (end - start)
        assert [found.tolist() for found in attention.boundaries(positions)] == [starts, ends]


def kept_weights(positions, dropout, seed=0):
    """Which weights are kept, bool [rows, 2 heads, queries, keys]: read off values that tell the keys apart."""
    rows, length = positions.shape
    torch.manual_seed(seed)
    values = torch.eye(length, device=GPU).repeat(rows, 1, 2)
    qkv = torch.cat([torch.zeros(rows, length, 4 * length, device=GPU), values], 2)
    x = attention.fused(positions)(qkv, None, 2, dropout, SCALE)
    return x.view(rows, length, 2, length).transpose(1, 2) > 0


@pytest.mark.parametrize("dropout", [0.2, 0.6])
def test_dropout_keeps_its_share_and_drops_the_same_forth_and_back(rng, dropout):
    positions = random_positions(rng, 2, 60)
    kept = kept_weights(positions, dropout)
    seen = pieces.masked(positions).args[0].expand_as(kept)
    assert not kept[~seen].any()
    share, error = kept[seen].float().mean().item(), (dropout * (1 - dropout) / seen.sum().item()) ** 0.5
    assert share == pytest.approx(1 - dropout, abs=5 * error)
    qkv, bias, heads = random_qkv(2, 2, 60, 16)
    q, k, v = split(qkv, heads)
    weights = (q @ k.transpose(2, 3) * SCALE).where(seen, -torch.inf).softmax(3)
    expected = (weights.where(kept, 0.0) / (1 - dropout)) @ v
    torch.manual_seed(0)
    ours = attention.fused(positions)(qkv, bias, heads, dropout, SCALE)
    assert_same(ours, expected.transpose(1, 2).flatten(2), qkv, bias)


def test_what_is_dropped_differs_from_call_to_call_from_head_to_head_and_from_token_to_token():
    positions = torch.arange(64, device=GPU)[None]
    first, second = (kept_weights(positions, 0.5, seed).float() for seed in (0, 1))
    lower = torch.ones(64, 64, device=GPU).tril().bool()

    def agree(one, other, where=lower):
        return (one == other)[..., where].float().mean().item()

    inner = lower[1:, 1:] & lower[:-1, :-1]
    pairs = [
        agree(first, second),
        agree(first[:, 0], first[:, 1]),
        agree(first[..., 1:, 1:], first[..., :-1, 1:], inner & lower[:-1, 1:]),  # one query and the next
        agree(first[..., 1:, 1:], first[..., 1:, :-1], inner),  # one key and the next
        agree(first[..., 1:, 1:], first[..., :-1, :-1], inner),  # both
    ]
    for shift in (16, 32):  # the same place in another tile
        there = lower[:-shift, :-shift]
        pairs.append(agree(first[..., shift:, :-shift], first[..., :-shift, :-shift], there))
        pairs.append(agree(first[..., shift:, shift:], first[..., shift:, :-shift], there))
        pairs.append(agree(first[..., shift:, shift:], first[..., :-shift, :-shift], there))
    assert pairs == pytest.approx([0.5] * len(pairs), abs=0.07)


@triton.jit
def hash_kernel(x_ptr, y_ptr):
    at = tl.arange(0, 128)
    tl.store(y_ptr + at, _odd_hash(tl.load(x_ptr + at).to(tl.uint32)).to(tl.int64))


def test_the_hash_behind_dropout_is_the_published_one_made_odd(rng):
    """lowbias32 as its author gives it in C (Wellons 2018), over whole numbers here."""
    numbers = [0, 1, 2**32 - 1, *(rng.randrange(2**32) for _ in range(125))]
    expected = []
    for x in numbers:
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            x = (x ^ (x >> shift)) * factor % 2**32
        expected.append(x ^ (x >> 16) | 1)
    given = torch.tensor(numbers, device=GPU)
    found = torch.empty_like(given)
    hash_kernel[(1,)](given, found)
    assert found.tolist() == expected


def test_a_tile_in_which_a_query_sees_nothing_leaves_no_trace_however_large_its_scores():
    positions = torch.cat([torch.arange(37), torch.arange(30)]).to(GPU)[None]
    qkv, *_ = random_qkv(1, 1, 67, 16)
    with torch.no_grad():
        qkv[:, :37, 16:32] *= 1000  # the keys that the second piece must not see
    ours = attention.fused(positions)(qkv, None, 1, 0.0, SCALE)[:, 37:]
    assert_same(ours, pieces.masked(positions)(*split(qkv, 1), 0.0, SCALE)[:, 37:], qkv)


@needs_gpu
def test_recorded_attention_follows_each_batch_and_drops_anew():
    length, given = 70, torch.zeros(2, 70, dtype=torch.long, device=GPU)
    qkv = random_qkv(2, 3, length, 16)
    for dropout in (0.0, 0.3):

        def attend(dropout=dropout):
            return attention.fused(given)(*qkv, dropout, SCALE).detach()

        attend()
        graph, x = device.record_graph(attend, GPU)
        for size in (1, 5, length):
            given.copy_(torch.arange(length) % size)
            graph.replay()
            first = x.clone()
            graph.replay()
            assert torch.equal(first, x) == (dropout == 0)
            if not dropout:
                torch.testing.assert_close(x, attend())
