"""Sampling is transformers': the same scores on any logits, and draws from just that distribution."""

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from gpt2_korean.sampling import Sampling, choose_token, next_token_scores

EDGES = [
    Sampling(top_k=0, top_p=1.0),
    Sampling(top_k=1),
    Sampling(top_k=10**6),
    Sampling(top_p=1e-9),
    Sampling(top_p=0.999999),
    Sampling(temperature=1e-3),
    Sampling(temperature=100.0, top_k=3, top_p=0.5, repetition_penalty=5.0),
    Sampling(repetition_penalty=0.5),
]


def library_scores(logits, ids, sampling):
    """The processors in the order in which generate() puts them."""
    processors = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature != 1:
        processors.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k > 0:
        processors.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        processors.append(TopPLogitsWarper(sampling.top_p))
    return processors(ids, logits)


def seen_tokens(ids, vocabulary):
    return torch.zeros(len(ids), vocabulary, dtype=torch.bool).scatter(1, ids, True)


def random_sampling(rng):
    return Sampling(
        temperature=rng.choice([1.0, rng.uniform(0.05, 3)]),
        top_k=rng.choice([0, 1, rng.randint(1, 300)]),
        top_p=rng.choice([1.0, rng.uniform(0.01, 1)]),
        repetition_penalty=rng.choice([1.0, rng.uniform(0.5, 3)]),
    )


def assert_same_scores(logits, ids, sampling):
    ours = next_token_scores(logits, seen_tokens(ids, logits.shape[1]), sampling)
    torch.testing.assert_close(ours, library_scores(logits, ids, sampling), rtol=0, atol=0)


def test_scores_equal_the_librarys_for_random_settings(rng):
    for seed in range(300):
        torch.manual_seed(seed)
        batch, vocabulary = rng.randint(1, 4), rng.randint(2, 200)
        logits = torch.randn(batch, vocabulary) * rng.choice([0.1, 1, 10])
        ids = torch.randint(vocabulary, (batch, rng.randint(1, 30)))
        assert_same_scores(logits, ids, random_sampling(rng))


@pytest.mark.parametrize("sampling", EDGES, ids=str)
def test_scores_equal_the_librarys_at_the_edges(sampling):
    torch.manual_seed(0)
    ids = torch.randint(50, (3, 9))
    assert_same_scores(torch.randn(3, 50), ids, sampling)
    tied = torch.randint(-2, 3, (3, 50)).float()
    assert_same_scores(tied, ids, sampling)


def test_scores_are_computed_in_float32():
    logits = torch.randn(2, 100).bfloat16()
    seen = torch.zeros(2, 100, dtype=torch.bool)
    assert next_token_scores(logits, seen, Sampling(temperature=0.7, top_k=9)).dtype == torch.float32


def test_temperature_zero_takes_the_highest():
    logits = torch.tensor([[1.0, 3.0, 2.0], [2.9, 0.0, 3.0]])
    greedy = Sampling(temperature=0, repetition_penalty=2.0)
    seen = torch.tensor([[False, True, False], [False, False, False]])
    assert choose_token(next_token_scores(logits, seen, greedy), greedy).tolist() == [2, 2]


def test_draws_follow_the_distribution():
    """Pearson's chi-square of 20,000 draws at fixed logits against the library's probabilities."""
    draws = 20_000
    for seed in range(5):
        torch.manual_seed(seed)
        sampling = Sampling(temperature=0.8, top_k=12, top_p=0.97, repetition_penalty=1.3)
        logits, ids = torch.randn(1, 30) * 2, torch.randint(30, (1, 5))
        expected = library_scores(logits, ids, sampling).softmax(-1)[0]
        scores = next_token_scores(logits, seen_tokens(ids, 30), sampling).expand(draws, -1)
        generator = torch.Generator().manual_seed(seed)
        counts = choose_token(scores, sampling, generator).bincount(minlength=30).double()
        possible = expected > 0
        assert counts[~possible].sum() == 0
        freedom = int(possible.sum()) - 1
        statistic = ((counts - draws * expected) ** 2 / (draws * expected))[possible].sum().item()
        # Far beyond the 99.9999th percentile of chi-square: mean + 6 standard deviations, and a margin.
        assert statistic < freedom + 6 * (2 * freedom) ** 0.5 + 20


def test_a_seed_repeats_the_draw():
    scores = torch.randn(64, 500)
    first, again, other = (choose_token(scores, Sampling(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.equal(again) and not first.equal(other)
