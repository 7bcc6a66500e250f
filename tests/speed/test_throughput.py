"""What a speed is measured by is what PyTorch counts."""

import pytest
import torch
from conftest import NO_DROPOUT, tiny_gpt2
from torch.utils.flop_counter import FlopCounterMode

from gpt2_korean.speed.throughput import flops_per_token


def test_the_operations_of_a_token_are_those_that_pytorch_counts():
    for shape in ({}, {"n_layer": 5, "n_embd": 96, "n_head": 3}):
        model = tiny_gpt2(1000, **shape, **NO_DROPOUT, attn_implementation="eager")
        ids = torch.randint(0, 1000, (2, 32))
        with FlopCounterMode(display=False) as counter:
            model(ids, labels=ids).loss.backward()
        assert flops_per_token(model, 32) == pytest.approx(counter.get_total_flops() / ids.numel(), rel=0.05)
