"""The fused layer computes what PyTorch's own functions do, forth and back, and drops as PyTorch's dropout does.

Without a GPU Triton's interpreter runs the kernels in NumPy (see conftest.py).
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import GPU, NO_DROPOUT, tiny_gpt2

from gpt2_korean.speed import loss
from gpt2_korean.speed.forward import use_fast_forward

pytest.importorskip("triton")

from gpt2_korean.speed import layer


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """So few that each has several rows of even a small tensor."""
    monkeypatch.setattr(layer, "ROW_PROGRAMS", 5)
    monkeypatch.setattr(layer, "TILE_PROGRAMS", 9)


def random_tensor(*shape):
    return torch.randn(shape, device=GPU, requires_grad=True)


def assert_same(ours, reference, inputs):
    """Both the results and what random gradients of them are to `inputs`."""
    torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)
    of_results = [torch.randn_like(result) for result in reference]
    found, expected = (torch.autograd.grad(results, inputs, of_results) for results in (ours, reference))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("has_residual", [True, False])
def test_adding_and_normalizing_is_pytorchs(rng, has_bias, has_residual):
    for _ in range(3):
        rows, length, width = rng.randint(1, 4), rng.randint(1, 9), rng.randint(2, 70)
        x, weight, norm_bias = random_tensor(rows, length, width), random_tensor(width), random_tensor(width)
        bias = random_tensor(width) if has_bias else None
        residual = random_tensor(rows, length, width) if has_residual else None
        norm = torch.nn.LayerNorm(width, device=GPU)
        norm.weight, norm.bias = torch.nn.Parameter(weight.detach()), torch.nn.Parameter(norm_bias.detach())
        ours = layer._add_and_normalize(x, bias, residual, torch.nn.Dropout(0.0), norm, torch.float32, torch.float32)
        total = x + (bias if has_bias else 0) + (residual if has_residual else 0)
        inputs = [tensor for tensor in (x, bias, residual, norm.weight, norm.bias) if tensor is not None]
        assert_same(ours, (total, norm(total)), inputs)


@pytest.mark.parametrize("has_bias", [True, False])
def test_the_activation_is_pytorchs(rng, has_bias):
    for width in (5, 64, 600, 1100):
        x = random_tensor(rng.randint(1, 3), rng.randint(1, 9), width)
        bias = random_tensor(x.shape[-1]) if has_bias else None
        ours = layer._Gelu.apply(x, bias)
        reference = F.gelu(x if bias is None else x + bias, approximate="tanh")
        assert_same([ours], [reference], [x, bias] if has_bias else [x])


def test_the_loss_and_its_gradient_are_pytorchs(rng):
    for vocab in (3, 100, 9000):
        rows = rng.randint(1, 9)
        logits = 5 * torch.randn(rows, vocab + rng.randint(0, 20), device=GPU)
        labels = torch.randint(0, vocab, (rows,), device=GPU).where(torch.rand(rows, device=GPU) < 0.7, loss.IGNORED)
        fused, plain, reference = logits.clone(), logits.clone(), logits[:, :vocab].clone().requires_grad_()
        losses = F.cross_entropy(reference, labels, reduction="none", ignore_index=loss.IGNORED)
        expected = F.pad(torch.autograd.grad(losses.sum(), reference)[0], (0, logits.shape[1] - vocab))
        for function, given in ((layer.cross_entropy_in_place, fused), (loss.cross_entropy_in_place, plain)):
            torch.testing.assert_close(function(given, labels, vocab), losses.detach(), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_model_has_transformers_loss_and_gradients(checkpointing):
    plain = tiny_gpt2(301, **NO_DROPOUT).train().to(GPU)
    fast = copy.deepcopy(plain)
    use_fast_forward(fast, layer.FUNCTIONS)
    if checkpointing:
        fast.gradient_checkpointing_enable()
    ids = torch.randint(0, 301, (2, 16), device=GPU)
    labels = ids.where(torch.rand(2, 16, device=GPU) < 0.8, loss.IGNORED)
    found = []
    for model in (plain, fast):
        result = model(input_ids=ids, labels=labels, use_cache=False).loss
        result.backward()
        found.append((result.detach(), {name: weight.grad for name, weight in model.named_parameters()}))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


def test_a_layer_computed_again_drops_the_same():
    fast, ids = tiny_gpt2(301).train().to(GPU), torch.randint(0, 301, (2, 16), device=GPU)
    use_fast_forward(fast, layer.FUNCTIONS)
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            fast.gradient_checkpointing_enable()
        fast.zero_grad()
        torch.manual_seed(1)
        fast(input_ids=ids, labels=ids).loss.backward()
        found.append([weight.grad for weight in fast.parameters()])
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-5)


def test_in_bfloat16_it_is_as_near_to_float32_as_transformers():
    def gradients(model, bf16):
        model.zero_grad()
        with torch.autocast(GPU.type, torch.bfloat16, enabled=bf16):
            result = model(input_ids=ids, labels=ids).loss
        result.backward()
        return torch.cat([weight.grad.flatten() for weight in model.parameters()])

    gaps = []
    for _ in range(3):
        plain = tiny_gpt2(301, **NO_DROPOUT).train().to(GPU)
        fast, ids = copy.deepcopy(plain), torch.randint(0, 301, (2, 16), device=GPU)
        use_fast_forward(fast, layer.FUNCTIONS)
        exact = gradients(plain, False)
        gaps.append([(gradients(model, True) - exact).norm().item() for model in (fast, plain)])
    ours, theirs = (sum(column) for column in zip(*gaps, strict=True))
    assert ours < 1.3 * theirs


def test_an_adapter_is_trained_as_transformers_does():
    from gpt2_korean.model import lora

    plain = lora.adapt(tiny_gpt2(301, **NO_DROPOUT), 4, train_embeddings=True).train().to(GPU)
    fast, ids = copy.deepcopy(plain), torch.randint(0, 301, (2, 16), device=GPU)
    use_fast_forward(fast.base_model.model, layer.FUNCTIONS)
    found = []
    for model in (plain, fast):
        model(input_ids=ids, labels=ids).loss.backward()
        found.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
    assert any("lora" in name for name in found[0])
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


def test_a_model_drops_anew_in_every_pass_and_nothing_in_evaluation():
    plain = tiny_gpt2(301, **{**NO_DROPOUT, "resid_pdrop": 0.3}).train().to(GPU)
    fast, ids = copy.deepcopy(plain), torch.randint(0, 301, (2, 16), device=GPU)
    use_fast_forward(fast, layer.FUNCTIONS)

    def losses(number):
        torch.manual_seed(1)
        return [fast(input_ids=ids, labels=ids).loss.item() for _ in range(number)]

    first = losses(3)
    assert len(set(first)) == 3 and losses(3) == first
    plain.eval(), fast.eval()
    torch.testing.assert_close(fast(input_ids=ids, labels=ids).loss, plain(input_ids=ids, labels=ids).loss)


def dropped(probability, *shape):
    """Where dropout of ones has made zeros, and the results."""
    drop, norm = torch.nn.Dropout(probability), torch.nn.LayerNorm(shape[-1], device=GPU)
    x = torch.ones(shape, device=GPU, requires_grad=True)
    total, y = layer._add_and_normalize(x, None, None, drop, norm, torch.float32, torch.float32)
    (gradient,) = torch.autograd.grad(total.sum() + 0 * y.sum(), x)
    assert torch.equal(gradient, total)
    return total.detach() == 0, total.detach()


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_each_number_is_dropped_by_itself_with_the_same_chance_and_anew_every_time(probability):
    torch.manual_seed(0)
    shape = 64, 256
    (first, kept), (second, _) = dropped(probability, *shape), dropped(probability, *shape)
    assert set(kept.unique().tolist()) == {0.0, torch.tensor(1 / (1 - probability)).item()}
    deviation = (probability * (1 - probability)) ** 0.5
    both = (first & second).float().mean().item()
    for zeros, count in ((first, first.numel()), (second, second.numel())):
        assert abs(zeros.float().mean().item() - probability) < 4 * deviation / count**0.5
        for dim in (0, 1):  # each column and each row has its share
            assert (zeros.float().mean(dim) - probability).abs().max() < 6 * deviation / shape[dim] ** 0.5
        neighbours = (
            (zeros[:, 1:] & zeros[:, :-1]).float().mean().item(),
            (zeros[1:] & zeros[:-1]).float().mean().item(),
        )
        for together in (*neighbours, both):
            assert abs(together - probability**2) < 5 * probability / count**0.5


def test_everything_it_needs_can_be_tried_out_and_leaves_the_random_numbers_alone():
    config = tiny_gpt2(301).config
    state = torch.get_rng_state()
    for dtype in (torch.float32, torch.bfloat16):
        layer.try_out(config, GPU, dtype)
    assert torch.equal(state, torch.get_rng_state())
