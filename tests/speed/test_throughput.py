"""What a speed is measured by is what PyTorch counts."""

import pytest
import torch
from conftest import NO_DROPOUT, tiny_gpt2
from torch.utils.flop_counter import FlopCounterMode

from gpt2_korean.speed.throughput import flops_per_token, peak_flops


def test_the_operations_of_a_token_are_those_that_pytorch_counts():
    for shape in ({}, {"n_layer": 5, "n_embd": 96, "n_head": 3}):
        model = tiny_gpt2(1000, **shape, **NO_DROPOUT, attn_implementation="eager")
        ids = torch.randint(0, 1000, (2, 32))
        with FlopCounterMode(display=False) as counter:
            model(ids, labels=ids).loss.backward()
        assert flops_per_token(model, 32) == pytest.approx(counter.get_total_flops() / ids.numel(), rel=0.05)


def test_a_device_is_not_taken_for_another_whose_name_is_a_part_of_its_own():
    known = {"H100 80GB HBM3": 989e12, "H100 NVL": 835e12, "A100-SXM4-80GB": 312e12, "A10": 125e12, "A10G": 70e12}
    known |= {"L4": 121e12, "L40S": 362e12, "GH200 480GB": 989e12, "GeForce RTX 4090": 165e12}
    for name, peak in known.items():
        assert peak_flops(f"cuda (NVIDIA {name})") == peak
    for other in ("L40", "RTX A1000", "GeForce RTX 4090 Laptop GPU"):
        assert peak_flops(f"cuda (NVIDIA {other})") is None
