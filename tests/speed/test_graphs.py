"""Passes recorded as a device's graph learn what unrecorded ones do."""

import copy
from types import SimpleNamespace

import pytest
import torch
from conftest import NO_DROPOUT, random_batch, tiny_gpt2

from gpt2_korean import device
from gpt2_korean.speed import graphs as recorded_step
from gpt2_korean.speed.forward import use_fast_forward
from gpt2_korean.speed.graphs import WARM_UP, RecordedStep
from gpt2_korean.text.blocks import fill_up

GPU = torch.device(device.available_devices()[0])
HAS_GRAPHS = GPU.type in ("cuda", "xpu")
needs_graphs = pytest.mark.skipif(not HAS_GRAPHS, reason="no GPU with graphs here")


def fused_functions():
    from gpt2_korean.speed import layer as fused_layer

    return fused_layer.FUNCTIONS


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


@pytest.mark.parametrize("accumulates", [False, True])
@pytest.mark.parametrize("fuses", [False, pytest.param(True, marks=needs_graphs)])
def test_recorded_passes_learn_what_unrecorded_ones_do(rng, monkeypatch, fuses, accumulates):
    plain = tiny_gpt2(301, **NO_DROPOUT).train().to(GPU)
    recorded = copy.deepcopy(plain)
    use_fast_forward(plain)
    use_fast_forward(recorded, fused_functions() if fuses else None)
    # Not Adam: of the key biases, whose gradients are rounding errors around zero, it would make whole steps.
    optimizers = [torch.optim.SGD(model.parameters(), lr=1e-2) for model in (plain, recorded)]
    step = RecordedStep(recorded.parameters(), GPU)
    if not HAS_GRAPHS:
        monkeypatch.setattr(recorded_step, "record_graph", pretend_to_record(step.parameters))
        monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)

    def pass_of(model):
        def run(inputs, items):
            result = model(**inputs, num_items_in_batch=items).loss
            result.backward()
            return result.detach()

        return run

    for _ in range(2 * WARM_UP + 4):
        for _ in range(rng.randint(1, 3) if accumulates else 1):
            batch = {name: tensor.to(GPU) for name, tensor in fill_up(random_batch(rng), 5, 32).items()}
            items = (batch["labels"] != -100).sum()
            losses = pass_of(plain)(batch, items), step(pass_of(recorded), batch, items)
            torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-4)
        for model, optimizer in zip((plain, recorded), optimizers, strict=True):
            optimizer.step()
            model.zero_grad()
    assert set(step.graphs) == {(adds, False) for adds in (False, accumulates)}
    torch.testing.assert_close(dict(recorded.named_parameters()), dict(plain.named_parameters()), rtol=1e-2, atol=1e-3)


@needs_graphs
@pytest.mark.parametrize("fuses", [False, True])
def test_recorded_dropout_differs_from_pass_to_pass(rng, fuses):
    model = tiny_gpt2(301).train().to(GPU)
    use_fast_forward(model, fused_functions() if fuses else None)
    step = RecordedStep(model.parameters(), GPU)
    batch = {name: tensor.to(GPU) for name, tensor in fill_up(random_batch(rng), 5, 32).items()}

    def run(inputs, items):
        result = model(**inputs, num_items_in_batch=items).loss
        result.backward()
        return result.detach()

    losses = set()
    for _ in range(WARM_UP + 8):
        losses.add(step(run, batch, torch.tensor(10, device=GPU)).item())
        model.zero_grad()
    assert len(losses) == WARM_UP + 8
