"""Passes recorded as a device's graph learn what unrecorded ones do."""

import copy
from types import SimpleNamespace

import pytest
import torch
from conftest import GPU, NO_DROPOUT, needs_gpu, random_batch, tiny_gpt2
from transformers.pytorch_utils import Conv1D

from gpt2_korean.speed import forward, loss
from gpt2_korean.speed import graphs as recorded_step
from gpt2_korean.speed.forward import use_fast_forward
from gpt2_korean.speed.graphs import WARM_UP, RecordedStep
from gpt2_korean.text.assemble import fill_up


def fused_functions(monkeypatch):
    """Without a GPU those parts of them alone that add gradients themselves and cast weights: they need no kernels."""
    pytest.importorskip("triton")
    from gpt2_korean.speed import layer as fused_layer

    if GPU.type != "cpu":
        return fused_layer.FUNCTIONS

    def product(self, x):
        return fused_layer.multiply(x.to(loss.product_dtype(x)), self.weight) + self.bias

    monkeypatch.setattr(Conv1D, "forward", product)
    return fused_layer.embed, forward.start, forward.layer, loss.cross_entropy_in_parts


def pretend_to_record(parameters):
    """A device's graph for a machine without: nothing is done at recording, and a replay works in the same tensors."""

    def record(work, device, before=None):
        found = [parameter.grad for parameter in parameters]
        values = [gradient if gradient is None else gradient.clone() for gradient in found]
        loss = work()
        made = [parameter.grad for parameter in parameters]
        for gradient, value in zip(made, values, strict=True):
            gradient.copy_(torch.full_like(gradient, torch.nan) if value is None else value)

        def replay():
            for parameter, gradient in zip(parameters, found, strict=True):
                parameter.grad = gradient
            loss.copy_(work())
            for parameter, gradient in zip(parameters, made, strict=True):
                gradient.copy_(parameter.grad)
                parameter.grad = gradient

        return SimpleNamespace(replay=replay), loss

    return record


def pass_of(model, dtype=torch.float32):
    def run(inputs, items):
        with torch.autocast(GPU.type, dtype, enabled=dtype != torch.float32):
            result = model(**inputs, num_items_in_batch=items).loss
        result.backward()
        return result.detach()

    return run


def recorded_step_of(model, monkeypatch):
    step = RecordedStep(model.parameters(), GPU)
    if GPU.type == "cpu":
        monkeypatch.setattr(recorded_step, "record_graph", pretend_to_record(step.parameters))
        monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)
    return step


@pytest.mark.parametrize("accumulates", [False, True])
@pytest.mark.parametrize("fuses", [False, True])
def test_recorded_passes_learn_what_unrecorded_ones_do(rng, monkeypatch, fuses, accumulates):
    """Those that make gradients and those that add to them, in steps of one pass and of several."""
    plain = tiny_gpt2(301, **NO_DROPOUT).train().to(GPU)
    recorded = copy.deepcopy(plain)
    use_fast_forward(plain)
    use_fast_forward(recorded, fused_functions(monkeypatch) if fuses else None)
    # Not Adam: of the key biases, whose gradients are rounding errors around zero, it would make whole steps.
    optimizers = [torch.optim.SGD(model.parameters(), lr=1e-2) for model in (plain, recorded)]
    step, losses = recorded_step_of(recorded, monkeypatch), []
    for count in (
        [WARM_UP + 1, 2, 1, 3, 1, *(rng.randint(1, 3) for _ in range(4))] if accumulates else [1] * 2 * WARM_UP
    ):
        for _ in range(count):
            batch = {name: tensor.to(GPU) for name, tensor in fill_up(random_batch(rng), 5, 32).items()}
            items = (batch["labels"] != -100).sum()
            losses.append((pass_of(plain)(batch, items), step(pass_of(recorded), batch, items)))
        for model, optimizer in zip((plain, recorded), optimizers, strict=True):
            optimizer.step()
            model.zero_grad()
    torch.testing.assert_close(*map(list, zip(*losses, strict=True)), rtol=1e-3, atol=1e-4)  # added up at a log entry
    assert set(step.graphs) == {False, accumulates}
    torch.testing.assert_close(dict(recorded.named_parameters()), dict(plain.named_parameters()), rtol=1e-2, atol=1e-3)


def test_weights_cast_once_a_step_are_those_of_the_step(rng, monkeypatch):
    """In bfloat16, with weights that change by much."""
    model = tiny_gpt2(301, **NO_DROPOUT).train().to(GPU)
    use_fast_forward(model, fused_functions(monkeypatch))
    step = recorded_step_of(model, monkeypatch)
    batch = {name: tensor.to(GPU) for name, tensor in fill_up(random_batch(rng), 5, 32).items()}
    items, weights = (batch["labels"] != -100).sum(), list(model.parameters())
    for count in [1] * WARM_UP + [2, 2, 1, 3]:
        pass_of(model, torch.bfloat16)(batch, items)
        expected = [count * weight.grad for weight in weights]
        model.zero_grad()
        for _ in range(count):
            step(pass_of(model, torch.bfloat16), batch, items)
        torch.testing.assert_close([weight.grad for weight in weights], expected, rtol=2e-2, atol=2e-3)
        with torch.no_grad():
            for weight in weights:
                weight += 0.3 * torch.randn_like(weight)
        model.zero_grad()
    assert len(step.graphs) == 2 and step.casts


@needs_gpu
@pytest.mark.parametrize("fuses", [False, True])
def test_recorded_dropout_differs_from_pass_to_pass(rng, monkeypatch, fuses):
    model = tiny_gpt2(301).train().to(GPU)
    use_fast_forward(model, fused_functions(monkeypatch) if fuses else None)
    step = RecordedStep(model.parameters(), GPU)
    batch = {name: tensor.to(GPU) for name, tensor in fill_up(random_batch(rng), 5, 32).items()}
    losses = set()
    for _ in range(WARM_UP + 8):
        losses.add(step(pass_of(model), batch, torch.tensor(10, device=GPU)).item())
        model.zero_grad()
    assert len(losses) == WARM_UP + 8
