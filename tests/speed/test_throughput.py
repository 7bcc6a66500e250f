"""What a speed is measured by is what PyTorch counts."""

from types import SimpleNamespace

import pytest
import torch
from conftest import NO_DROPOUT, tiny_gpt2
from torch.utils.flop_counter import FlopCounterMode

from gpt2_korean.speed import throughput
from gpt2_korean.speed.throughput import TokenMeter, flops_per_token, model_flops_utilization, peak_flops


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


def test_the_share_of_what_the_devices_can_compute_is_told_where_both_are_known():
    assert model_flops_utilization(1e5, 6e8, "cuda (NVIDIA A100-SXM4-80GB)", 2) == pytest.approx(6e13 / 624e12)
    assert model_flops_utilization(1e5, 6e8, "cpu", 2) is model_flops_utilization(None, 6e8, "A100", 2) is None


def test_tokens_are_counted_against_the_seconds_of_steps_alone(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    meter = TokenMeter()

    def pass_time(seconds, tokens=0, paused=False):
        if paused:
            with meter.paused():
                clock.now += seconds
                meter.overall()  # as the progress bar asks
                with meter.paused():  # as the curve is drawn at an evaluation
                    clock.now += seconds
        else:
            meter.add(tokens)
            clock.now += seconds

    pass_time(100, paused=True)  # before the first step, as --eval_on_start
    assert meter.read() is meter.overall() is None
    pass_time(2, tokens=100)
    pass_time(1000, paused=True)
    pass_time(3, tokens=50)
    assert meter.overall() == meter.read() == 30
    pass_time(1000, paused=True)
    assert meter.read() is None and meter.overall() == 30
    pass_time(1, tokens=60)
    assert meter.read() == 60 and meter.overall() == 35
