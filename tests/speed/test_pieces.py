"""Several documents in a row are to a model what each by itself is, whichever way keeps them apart."""

import copy
import random
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from conftest import GPU, NO_DROPOUT, tiny_gpt2

from gpt2_korean.model import lora
from gpt2_korean.speed import forward, loss, pieces
from gpt2_korean.speed.forward import use_fast_forward
from gpt2_korean.text.assemble import fill_up

LENGTH, VOCABULARY = 32, 301
COMPILER = partial(torch.compile, dynamic=False, backend="eager")


def fused(attention):
    pytest.importorskip("triton")
    from gpt2_korean.speed import attention as ours
    from gpt2_korean.speed import layer

    return layer.FUNCTIONS, {"masked": layer.masked, "ours": ours.fused}[attention]


# Name → how a model is made to train: the arguments of use_fast_forward.
WAYS = {
    "separate": lambda: (),
    "grouped": lambda: (None, pieces.grouped),
    "masked": lambda: (None, pieces.masked),
    "compiled": lambda: (
        (forward.embed, forward.start, COMPILER(forward.layer), COMPILER(loss.cross_entropy_in_place)),
        pieces.masked,
    ),
    "fused": lambda: fused("masked"),
    "fused, with its attention": lambda: fused("ours"),
}


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    if "fused" in request.param:  # few programs: the interpreter runs one after the other
        pytest.importorskip("triton")
        monkeypatch.setattr("gpt2_korean.speed.layer.ROW_PROGRAMS", 4)
        monkeypatch.setattr("gpt2_korean.speed.layer.TILE_PROGRAMS", 9)
    return request.param


def move(name, thing):
    to = GPU if "fused" in name else torch.device("cpu")  # where Triton compiles, it wants tensors there
    return thing.to(to) if hasattr(thing, "to") else {key: tensor.to(to) for key, tensor in thing.items()}


def documents_in_rows(rng, most=4, length=LENGTH):
    """`(batch, documents)`: what a model is given, and each piece as `(ids, positions, targets)`, all [tokens]."""
    rows, documents = [], []
    longest = rng.choice([1, 3, 8, length])
    for _ in range(rng.randint(1, most)):
        ids, labels, positions = [], [-100], []
        while len(ids) < length:
            size = min(rng.randint(1, longest), length - len(ids))
            start = rng.choice([0, 0, rng.randint(0, length - size)])
            if ids and start == positions[-1] + 1:
                start = 0
            own = [rng.randrange(VOCABULARY) for _ in range(size)]
            targets = [rng.choice([-100, *own]) for _ in own]
            documents.append([own, range(start, start + size), targets])
            ids, positions, labels = ids + own, [*positions, *range(start, start + size)], labels + targets
        documents[-1][2][-1] = -100  # a row has no place for what its last token would predict
        rows.append((ids, labels[:length], positions))
    batch = {
        name: torch.tensor(column)
        for name, column in zip(("input_ids", "labels", "position_ids"), zip(*rows, strict=True), strict=True)
    }
    return batch, [tuple(map(torch.tensor, (ids, list(places), targets))) for ids, places, targets in documents]


def loss_of_each_by_itself(model, documents, items):
    """The loss of transformers' own forward, each document alone."""
    total = 0.0
    for ids, positions, targets in documents:
        ids, positions, targets = (tensor.to(model.device) for tensor in (ids, positions, targets))
        logits = model(input_ids=ids[None], position_ids=positions[None], use_cache=False).logits[0]
        total = total + F.cross_entropy(logits, targets, reduction="sum", ignore_index=-100)
    return total / items


def loss_and_gradients(model, result):
    model.zero_grad()
    result.backward()
    return result.detach(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def assert_alike(rng, plain, fast, name, fills=False):
    batch, documents = documents_in_rows(rng, most=1 if "fused" in name else 4)
    items = torch.tensor(rng.randint(1, 50))
    expected = loss_and_gradients(plain, loss_of_each_by_itself(plain, documents, items))
    if fills:
        batch = fill_up(batch, len(batch["labels"]) + rng.randint(0, 2), LENGTH + rng.randint(0, 5))
    result = fast(**move(name, batch), num_items_in_batch=items.to(fast.device)).loss
    torch.testing.assert_close(loss_and_gradients(fast, result), expected, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients_are_those_of_each_document_by_itself(rng, way, checkpointing):
    plain = move(way, tiny_gpt2(VOCABULARY, n_positions=LENGTH + 5, **NO_DROPOUT).train())
    fast = copy.deepcopy(plain)
    use_fast_forward(fast, *WAYS[way]())
    if checkpointing:
        fast.gradient_checkpointing_enable()
    for _ in range(1 if "fused" in way else 4):
        assert_alike(rng, plain, fast, way, fills=rng.choice([True, False]))
    plain.eval(), fast.eval()
    assert_alike(rng, plain, fast, way)


@pytest.mark.parametrize("changes", [{"scale_attn_by_inverse_layer_idx": True}, {"activation_function": "relu"}])
def test_other_gpt2s_keep_documents_apart_as_well(rng, changes):
    plain = tiny_gpt2(VOCABULARY, **NO_DROPOUT, **changes).train()
    fast = copy.deepcopy(plain)
    use_fast_forward(fast)
    assert_alike(rng, plain, fast, "separate")


def test_an_adapter_learns_from_each_document_by_itself(rng, way):
    plain = move(way, lora.adapt(tiny_gpt2(VOCABULARY, **NO_DROPOUT), 4, train_embeddings=True).train())
    fast = copy.deepcopy(plain)
    use_fast_forward(fast.base_model.model, *WAYS[way]())
    assert_alike(rng, plain, fast, way)
    assert any("lora" in name for name, weight in fast.named_parameters() if weight.grad is not None)


@pytest.mark.parametrize("separate", [pieces.grouped, pieces.masked])
def test_no_document_sees_another_where_numbers_are_dropped(rng, separate):
    """The same ones are dropped of the same seed, so that nothing but another document's tokens differs."""
    model = tiny_gpt2(VOCABULARY, attn_pdrop=0.3).train()
    use_fast_forward(model, None, separate)
    batch, _ = documents_in_rows(rng, most=1)
    batch["position_ids"] = torch.cat([torch.arange(5), torch.arange(9), torch.arange(LENGTH - 14)]).expand_as(
        batch["labels"]
    )
    inside = (torch.arange(LENGTH) >= 5) & (torch.arange(LENGTH) < 14)
    batch["labels"] = batch["input_ids"].where(inside.roll(1) & inside, -100)

    def losses(ids):
        torch.manual_seed(1)
        return [model(**{**batch, "input_ids": ids}).loss.item() for _ in range(2)]

    first, second = losses(batch["input_ids"])
    assert first != second
    others = torch.randint_like(batch["input_ids"], VOCABULARY).where(~inside, batch["input_ids"])
    assert losses(others) == pytest.approx([first, second], rel=1e-5)
    assert losses(others.roll(1, 1)) != pytest.approx([first, second], rel=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_each_way_attends_and_drops_as_each_piece_by_itself(rng, dropout):
    """Of values that are all one attention is the sum of its weights, of dropout's mean one: so of every piece."""
    torch.manual_seed(0)
    batch, _ = documents_in_rows(rng)
    q, k = torch.randn(2, len(batch["labels"]), 3, LENGTH, 40)
    ones = torch.ones_like(q)
    for separate in (pieces.grouped, pieces.masked):
        attend = separate(batch["position_ids"])
        if attend is None:
            continue
        mean = torch.stack([attend(q, k, ones, dropout, 0.1) for _ in range(200)]).mean()
        assert mean.item() == pytest.approx(1, abs=0.05 if dropout else 1e-5)


def test_what_fills_up_a_batch_learns_nothing_and_is_a_piece_a_token(rng):
    for _ in range(20):
        batch, _ = documents_in_rows(rng)
        rows, length = len(batch["labels"]) + rng.randint(0, 2), LENGTH + rng.randint(0, 40)
        filled = fill_up(batch, rows, length)
        given, reached = batch["labels"].shape
        assert filled["position_ids"].shape == filled["labels"].shape == (rows, length)
        assert torch.equal(filled["position_ids"][:given, :reached], batch["position_ids"])
        for name, value in (("position_ids", 0), ("labels", -100)):
            assert (filled[name][given:] == value).all() and (filled[name][:, reached:] == value).all()


def test_grouped_pieces_compute_few_scores_in_vain():
    """On a CPU it is never more work than attention over the whole block, and far less for short documents."""
    rng = random.Random(0)
    for longest, share in ((20, 0.1), (100, 0.2), (1024, 1.0)):
        positions = torch.zeros(8, 1024, dtype=torch.long)
        for row in positions:
            start = 0
            while start < 1024:
                size = min(rng.randint(1, longest), 1024 - start)
                row[start : start + size] = torch.arange(size)
                start += size
        shapes, *_ = pieces.grouped(positions).args
        scores = sum(rows * length**2 for rows, length in shapes)
        assert scores + len(shapes) * pieces.WASTE < share * positions.numel() * 1024
        assert pieces.separate(positions).func is pieces._grouped
        few = positions[:1, : longest + 1]  # the scores of so short a block are fewer than groups are worth
        assert pieces.separate(few).func is (pieces._masked if longest < 300 else pieces._grouped)
    assert pieces.separate(torch.arange(7).expand(3, 7)) is None
