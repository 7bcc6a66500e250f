"""Passes recorded as a device's graph learn what unrecorded ones do."""

import copy
from types import SimpleNamespace

import pytest
import torch
from conftest import NO_DROPOUT, random_batch, tiny_gpt2
from torch import distributed
from torch.distributed import HashStore
from transformers.pytorch_utils import Conv1D

from gpt2_korean import device
from gpt2_korean.speed import forward, loss
from gpt2_korean.speed import graphs as recorded_step
from gpt2_korean.speed.forward import use_fast_forward
from gpt2_korean.speed.graphs import WARM_UP, RecordedStep
from gpt2_korean.text.blocks import fill_up

GPU = torch.device(device.available_devices()[0])
HAS_GRAPHS = GPU.type in ("cuda", "xpu")
needs_graphs = pytest.mark.skipif(not HAS_GRAPHS, reason="no GPU with graphs here")


def fused_functions(monkeypatch):
    """Without a GPU those parts of them alone that add gradients themselves and cast weights: they need no kernels."""
    pytest.importorskip("triton")
    from gpt2_korean.speed import layer as fused_layer

    if HAS_GRAPHS:
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


@pytest.fixture
def one_rank():
    distributed.init_process_group("nccl" if GPU.type == "cuda" else "gloo", store=HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def pass_of(model, dtype=torch.float32):
    def run(inputs, items):
        with torch.autocast(GPU.type, dtype, enabled=dtype != torch.float32):
            result = model(**inputs, num_items_in_batch=items).loss
        result.backward()
        return result.detach()

    return run


def recorded_step_of(model, monkeypatch, **options):
    step = RecordedStep(model.parameters(), GPU, **options)
    if not HAS_GRAPHS:
        monkeypatch.setattr(recorded_step, "record_graph", pretend_to_record(step.parameters))
        monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)
    return step


@pytest.mark.parametrize("exchanges", [False, True])
@pytest.mark.parametrize("accumulates", [False, True])
@pytest.mark.parametrize("fuses", [False, True])
def test_recorded_passes_learn_what_unrecorded_ones_do(rng, monkeypatch, one_rank, fuses, accumulates, exchanges):
    """Those that make gradients, that add to them and that exchange them, in steps of one pass and of several."""
    plain = tiny_gpt2(301, **NO_DROPOUT).train().to(GPU)
    recorded = copy.deepcopy(plain)
    use_fast_forward(plain)
    use_fast_forward(recorded, fused_functions(monkeypatch) if fuses else None)
    # Not Adam: of the key biases, whose gradients are rounding errors around zero, it would make whole steps.
    optimizers = [torch.optim.SGD(model.parameters(), lr=1e-2) for model in (plain, recorded)]
    step = recorded_step_of(recorded, monkeypatch)
    for count in [WARM_UP, 2, 1, 3, 1, *(rng.randint(1, 3) for _ in range(4))] if accumulates else [1] * 2 * WARM_UP:
        for number in range(count):
            batch = {name: tensor.to(GPU) for name, tensor in fill_up(random_batch(rng), 5, 32).items()}
            items = (batch["labels"] != -100).sum()
            last = exchanges and number == count - 1
            losses = pass_of(plain)(batch, items), step(pass_of(recorded), batch, items, last)
            torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-4)
        for model, optimizer in zip((plain, recorded), optimizers, strict=True):
            optimizer.step()
            model.zero_grad()
    first = {(False, exchanges and not accumulates)}
    assert set(step.graphs) == first | ({(True, False), (True, exchanges)} if accumulates else set())
    torch.testing.assert_close(dict(recorded.named_parameters()), dict(plain.named_parameters()), rtol=1e-2, atol=1e-3)


def test_weights_cast_once_a_step_are_those_of_the_step(rng, monkeypatch, one_rank):
    """In bfloat16, with weights that change by much, and again where a step has one pass in place of several."""
    model = tiny_gpt2(301, **NO_DROPOUT).train().to(GPU)
    use_fast_forward(model, fused_functions(monkeypatch))
    step = recorded_step_of(model, monkeypatch)
    batch = {name: tensor.to(GPU) for name, tensor in fill_up(random_batch(rng), 5, 32).items()}
    items, weights = (batch["labels"] != -100).sum(), list(model.parameters())
    for count in [1] * WARM_UP + [2, 2, 1, 3]:
        pass_of(model, torch.bfloat16)(batch, items)
        expected = [count * weight.grad for weight in weights]
        model.zero_grad()
        for number in range(count):
            step(pass_of(model, torch.bfloat16), batch, items, number == count - 1)
        torch.testing.assert_close([weight.grad for weight in weights], expected, rtol=2e-2, atol=2e-3)
        with torch.no_grad():
            for weight in weights:
                weight += 0.3 * torch.randn_like(weight)
        model.zero_grad()
    assert len(step.graphs) == 3 and step.casts


@needs_graphs
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
