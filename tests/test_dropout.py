"""Our dropout drops as PyTorch's does: each number by itself, with the same chance, and anew with every seed."""

import pytest
import torch

from gpt2_korean.dropout import draw_seeds, dropout


@pytest.mark.parametrize("probability", [0.05, 0.1, 0.5])
def test_numbers_are_dropped_at_the_asked_rate_independently_of_their_neighbours_and_of_other_seeds(probability):
    torch.manual_seed(0)
    shape = (8, 128, 768)
    first, second = (dropout(torch.ones(shape), probability, seed) == 0 for seed in draw_seeds(2, "cpu"))
    number, places = first.numel(), first.flatten()

    def is_likely(dropped, expected):
        return abs(dropped.double().mean() - expected) < 5 * (expected * (1 - expected) / dropped.numel()) ** 0.5

    assert is_likely(first, probability) and is_likely(second, probability)
    assert is_likely(first & second, probability**2)
    for distance in (1, 2, 3, 4, 32, 768, 768 * 128):
        assert is_likely(places[:-distance] & places[distance:], probability**2), distance
    # As evenly over places as chance has it: the counts of 1,024 stretches, a chi-square of 1,024 degrees of freedom.
    counts = places.view(1024, -1).sum(1).double()
    each = number / 1024 * probability
    chi_square = ((counts - each) ** 2 / (each * (1 - probability))).sum()
    assert abs(chi_square - 1024) < 5 * (2 * 1024) ** 0.5


def test_what_is_kept_and_its_gradient_are_scaled_as_in_pytorchs_dropout():
    torch.manual_seed(0)
    x = torch.randn(4, 50, 30, requires_grad=True)
    (seed,) = draw_seeds(1, "cpu")
    y = dropout(x, 0.2, seed)
    kept = y != 0
    torch.testing.assert_close(y, torch.where(kept, x / 0.8, 0))
    of_y = torch.randn_like(y)
    torch.testing.assert_close(torch.autograd.grad(y, x, of_y)[0], torch.where(kept, of_y / 0.8, 0))
    assert torch.equal(y, dropout(x, 0.2, seed)) and not torch.equal(y, dropout(x, 0.2, draw_seeds(1, "cpu")[0]))


def test_seeds_come_from_the_generator_that_a_checkpoint_keeps():
    state = torch.get_rng_state()
    seeds = draw_seeds(5, "cpu")
    torch.set_rng_state(state)
    assert torch.equal(draw_seeds(5, "cpu"), seeds) and len(set(seeds.flatten().tolist())) == 10
