"""The fast forward pass computes what transformers computes: losses, gradients, what is learnt over 200 steps."""

import copy
import statistics
from functools import partial

import pytest
import torch
from conftest import GPU, NO_DROPOUT, needs_gpu, random_batch, tiny_gpt2

from gpt2_korean.speed import forward as fast_forward
from gpt2_korean.speed import loss
from gpt2_korean.speed.forward import use_fast_forward
from gpt2_korean.text.assemble import fill_up

# The compiler without its kernels: the same functions, formulas and types.
EAGER = partial(torch.compile, dynamic=False, backend="eager")
COMPILED = fast_forward.embed, fast_forward.start, EAGER(fast_forward.layer), EAGER(loss.cross_entropy_in_place)


def gradients(model):
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("functions", [None, COMPILED])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("activation", ["gelu_new", "relu"])
def test_the_fast_forward_gives_transformers_loss_and_gradients(rng, activation, checkpointing, functions):
    plain = tiny_gpt2(301, activation_function=activation, **NO_DROPOUT).train()
    fast = copy.deepcopy(plain)
    use_fast_forward(fast, functions)
    if checkpointing:
        fast.gradient_checkpointing_enable()
    for _ in range(4):
        batch = random_batch(rng)
        items = torch.tensor(rng.randint(1, 50))
        results = [model(**batch, num_items_in_batch=items, use_cache=False).loss for model in (plain, fast)]
        torch.testing.assert_close(*results)
        for model, result in zip((plain, fast), results, strict=True):
            model.zero_grad()
            result.backward()
        torch.testing.assert_close(gradients(fast), gradients(plain), rtol=1e-3, atol=1e-4)
    plain.eval(), fast.eval()
    torch.testing.assert_close(fast(**batch).loss, plain(**batch).loss)
    torch.testing.assert_close(fast(batch["input_ids"]).logits, plain(batch["input_ids"]).logits)


@pytest.mark.parametrize("functions", [None, COMPILED])
def test_the_fast_forward_trains_an_adapter_as_transformers_does(rng, functions):
    from gpt2_korean.model import lora

    plain = lora.adapt(tiny_gpt2(301, **NO_DROPOUT), 4, train_embeddings=True).train()
    fast = copy.deepcopy(plain)
    use_fast_forward(fast.base_model.model, functions)
    batch = random_batch(rng)
    for model in (plain, fast):
        model(**batch).loss.backward()
    found = gradients(fast)
    assert any("lora" in name for name in found) and any("wte" in name for name in found)
    torch.testing.assert_close(found, gradients(plain), rtol=1e-3, atol=1e-4)


def fused_functions():
    from gpt2_korean.speed import layer as fused_layer

    return fused_layer.FUNCTIONS


@pytest.mark.parametrize("fuses", [False, pytest.param(True, marks=needs_gpu)])
def test_over_200_steps_in_bfloat16_all_speed_ups_learn_what_transformers_does(fuses):
    """They differ no more than bfloat16's rounding makes transformers' own losses differ from float32's."""

    def losses(fast, bf16):
        torch.manual_seed(0)
        model = tiny_gpt2(301, **NO_DROPOUT).train()
        if fast:
            use_fast_forward(model, fused_functions() if fuses else None)
        model.to(GPU)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        found = []
        for _ in range(200):
            # Texts in which the next token can be told: each is the one before it times 2 and something.
            ids = torch.empty(4, 32, dtype=torch.long)
            ids[:, 0], steps = torch.randint(0, 301, (4,)), torch.randint(0, 5, (4, 32))
            for place in range(1, 32):
                ids[:, place] = (2 * ids[:, place - 1] + steps[:, place]) % 301
            ids = ids.to(GPU)
            with torch.autocast(GPU.type, torch.bfloat16, enabled=bf16):
                result = model(input_ids=ids, labels=ids).loss
            optimizer.zero_grad()
            result.backward()
            optimizer.step()
            found.append(result.item())
        return found

    ours, plain, exact = losses(True, True), losses(False, True), losses(False, False)
    assert statistics.mean(plain[-20:]) < 0.6 * plain[0]

    def gap(one, other):
        return statistics.mean(abs(a - b) for a, b in zip(one, other, strict=True))

    assert gap(ours, plain) < 3 * gap(plain, exact)


def test_filling_up_a_batch_changes_neither_loss_nor_gradients(rng):
    model = tiny_gpt2(301, **NO_DROPOUT).train()
    use_fast_forward(model)
    for _ in range(3):
        batch, found = random_batch(rng), []
        for given in (batch, fill_up(batch, 6, 32)):
            model.zero_grad()
            result = model(**given).loss
            result.backward()
            found.append((result.detach(), gradients(model)))
        assert given["labels"].shape == given["input_ids"].shape == (6, 32)
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
