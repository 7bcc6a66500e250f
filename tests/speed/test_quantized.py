"""Weights in 8 and 4 bits, held against the same weights before."""

import pytest
import torch
from conftest import tiny_gpt2
from torch.utils._python_dispatch import TorchDispatchMode

from gpt2_korean.generation.weights import quantize_weights
from gpt2_korean.speed.quantized import GROUP, ROWS, in_4_bits, in_8_bits


@pytest.mark.parametrize("tied", [True, False])
def test_what_has_how_many_bits_is_what_the_page_on_speed_says(tied):
    """Embeddings have 8 in any case, also those that are the head in 4; and so has what makes no groups of 4 bits."""
    model = tiny_gpt2(301, n_embd=GROUP, n_inner=50, tie_word_embeddings=tied)

    def bits(quantize):
        found = {}
        for name, weight in quantize_weights(model.state_dict(), model.config.to_dict(), quantize).items():
            codes = weight[0] if isinstance(weight, tuple) else weight
            found[name] = {torch.float32: 32, torch.int8: 8, torch.uint8: 4}[codes.dtype]
        return found

    names = [name.removeprefix("transformer.") for name, _ in model.named_parameters()]  # a tied head is none
    for name, number in (eight := bits("int8")).items():
        matrix = name.endswith(".weight") and "ln_" not in name and name != "wpe.weight"
        assert number == (8 if matrix else 32), name
    assert eight.keys() == {*names}
    still = ("wte.weight", "h.0.mlp.c_proj.weight", "h.1.mlp.c_proj.weight")  # the latter have 50 inputs
    expected = {name: 4 if number == 8 and name not in still else number for name, number in eight.items()}
    assert bits("int4") == expected | {"lm_head.weight": 4}
    head = quantize_weights(model.state_dict(), model.config.to_dict(), "int4")["lm_head.weight"]
    assert (unpacked(*head) - model.lm_head.weight).norm() < 0.2 * model.lm_head.weight.norm()


class Largest(TorchDispatchMode):
    """How many bytes the largest tensor has that is made within."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and not function.is_view:
            self.bytes = max(self.bytes, made.nbytes)
        return made


def unpacked(codes, scales):
    """What is left of a weight [out, in] that in_4_bits was given."""
    lower, upper = (codes & 15).to(torch.int8), (codes >> 4).to(torch.int8)
    numbers = torch.stack([lower, upper], -1).flatten(2)
    return (torch.where(numbers > 7, numbers - 16, numbers) * scales).flatten(1)


def random_weights():
    generator = torch.Generator().manual_seed(0)
    for rows, groups, power in ((7, 3, 1), (200, 20, 1), (33, 5, 3)):
        weight = torch.randn(rows, groups * GROUP, generator=generator)
        yield weight.abs().pow(power) * weight.sign() * 10.0 ** torch.randint(-4, 2, (rows, 1), generator=generator)


def test_8_bits_are_nearest_to_the_weight():
    for weight in random_weights():
        codes, scales = in_8_bits(weight)
        assert ((codes * scales - weight).abs() <= scales * 0.501).all() and (codes.abs().amax(1) == 127).all()


def test_4_bits_err_less_than_the_range_cut_into_steps_and_about_a_tenth_at_most():
    for weight in random_weights():
        left = unpacked(*in_4_bits(weight))
        steps = weight.unflatten(1, (-1, GROUP))
        largest = steps.abs().amax(-1, keepdim=True) / 7
        plain = ((steps / largest).round() * largest).flatten(1)
        error, plain_error = ((each - weight).square().sum(1) for each in (left, plain))
        assert (error < plain_error).float().mean() > 0.95 and error.sum() < 0.85 * plain_error.sum()


def test_zeros_and_single_weights_stay_what_they_are():
    weight = torch.zeros(4, 2 * GROUP)
    assert unpacked(*in_4_bits(weight)).equal(weight)
    assert (in_8_bits(weight)[0] == 0).all()
    weight[1, 3], weight[2, GROUP] = -0.5, 2.0
    torch.testing.assert_close(unpacked(*in_4_bits(weight)), weight, rtol=1e-3, atol=0)


def test_a_large_weight_is_worked_on_a_piece_at_a_time():
    """What is computed of all of it at once took three times the memory of a reduced model, and often kept it."""
    weight = torch.ones(64, ROWS // 8)
    for reduce in (in_8_bits, in_4_bits):
        with Largest() as largest:
            reduce(weight)
        assert largest.bytes < weight.nbytes / 2
