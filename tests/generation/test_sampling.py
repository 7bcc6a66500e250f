"""Sampling is transformers': the same scores on any logits, and draws from just that distribution."""

from collections import Counter

import pytest
import torch
from conftest import tiny_gpt2
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from gpt2_korean.generation.sampling import TIES, Sampling, candidates, choose_token, keep_top_k, penalize_and_ban

EOS = 1
EDGES = [
    Sampling(top_k=0, top_p=1.0),
    Sampling(top_k=1),
    Sampling(top_k=10**6),
    Sampling(top_p=1e-9),
    Sampling(top_p=0.999999),
    Sampling(temperature=1e-3),
    Sampling(temperature=100.0, top_k=3, top_p=0.5, repetition_penalty=5.0),
    Sampling(repetition_penalty=0.5),
    Sampling(min_p=1.0),
    Sampling(min_p=1e-9),
    Sampling(typical_p=1e-9),
    Sampling(typical_p=0.999999),
    Sampling(top_k=3, typical_p=0.999999),
]


class OnADevice(torch.Tensor):
    device = torch.device("cuda")


def library_scores(logits, ids, sampling, prompt_length):
    return library_processors(sampling, prompt_length)(ids, logits)


def library_processors(sampling, prompt_length):
    """In the order in which generate() puts them."""
    processors = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        ignored = None if sampling.penalize_prompt else prompt_length
        processors.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty, prompt_ignore_length=ignored))
    if sampling.no_repeat_ngram_size:
        processors.append(NoRepeatNGramLogitsProcessor(sampling.no_repeat_ngram_size))
    if sampling.min_length:
        processors.append(MinNewTokensLengthLogitsProcessor(prompt_length, sampling.min_length, EOS))
    if sampling.temperature != 1:
        processors.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k > 0:
        processors.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        processors.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p > 0:
        processors.append(MinPLogitsWarper(sampling.min_p))
    if sampling.typical_p < 1:
        processors.append(TypicalLogitsWarper(sampling.typical_p))
    return processors


def our_scores(logits, ids, sampling, prompt_length, unwritten=0):
    """Ours for all tokens, what is no candidate being -inf; `unwritten` columns of history stand empty."""
    history = torch.cat([ids.new_full((len(ids), unwritten), -1), ids], 1)
    written = torch.tensor(ids.shape[1] - prompt_length)
    scores, chosen = candidates(penalize_and_ban(logits, history, written, sampling, EOS), sampling)
    return scores if chosen is None else torch.full_like(logits, -torch.inf).scatter(1, chosen, scores)


def random_sampling(rng):
    return Sampling(
        temperature=rng.choice([1.0, rng.uniform(0.05, 3)]),
        top_k=rng.choice([0, 1, rng.randint(1, 300)]),
        top_p=rng.choice([1.0, rng.uniform(0.01, 1)]),
        min_p=rng.choice([0.0, rng.uniform(0.001, 1)]),
        typical_p=rng.choice([1.0, rng.uniform(0.01, 1)]),
        repetition_penalty=rng.choice([1.0, rng.uniform(0.5, 3)]),
        penalize_prompt=rng.choice([True, False]),
        no_repeat_ngram_size=rng.choice([0, 0, 1, 2, 3, 40]),
        min_length=rng.choice([0, rng.randint(0, 20)]),
    )


def assert_same_scores(logits, ids, sampling, prompt_length=1, unwritten=0):
    expected = library_scores(logits, ids, sampling, prompt_length)
    ours = our_scores(logits, ids, sampling, prompt_length, unwritten)
    torch.testing.assert_close(ours, expected, rtol=0, atol=0)


def test_scores_equal_the_librarys_for_random_settings(rng):
    for seed in range(400):
        torch.manual_seed(seed)
        # Few tokens, so that n-grams come again, and always more than can all be ruled out.
        batch, vocabulary = rng.randint(1, 4), rng.choice([40, 200])
        logits = torch.randn(batch, vocabulary) * rng.choice([0.1, 1, 10])
        ids = torch.randint(rng.choice([5, 30]), (batch, rng.randint(1, 30)))
        prompt_length = rng.randint(1, ids.shape[1])
        assert_same_scores(logits, ids, random_sampling(rng), prompt_length, unwritten=rng.choice([0, 7]))


def test_frequency_and_presence_are_penalised_as_openai_says(rng):
    """Each token's score less its count in the new text times the one, less the other if that is above 0."""
    for seed in range(100):
        torch.manual_seed(seed)
        logits = torch.randn(rng.randint(1, 3), 30)
        ids = torch.randint(30, (len(logits), rng.randint(1, 40)))
        written, empty = rng.randint(0, ids.shape[1]), rng.choice([0, 5])
        sampling = Sampling(frequency_penalty=rng.uniform(-2, 2), presence_penalty=rng.choice([0, rng.uniform(-2, 2)]))
        expected = logits.tolist()
        for row, tokens in zip(expected, ids.tolist(), strict=True):
            for token, count in Counter(tokens[len(tokens) - written :]).items():
                row[token] -= count * sampling.frequency_penalty + sampling.presence_penalty
        history = torch.cat([ids.new_full((len(ids), empty), -1), ids], 1)
        ours = penalize_and_ban(logits, history, torch.tensor(written), sampling, EOS)
        torch.testing.assert_close(ours, torch.tensor(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize("sampling", EDGES, ids=str)
def test_scores_equal_the_librarys_at_the_edges(sampling):
    torch.manual_seed(0)
    ids = torch.randint(50, (3, 9))
    assert_same_scores(torch.randn(3, 50), ids, sampling)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_of_equal_logits_at_the_edge_all_are_kept(rng, dtype):
    """In half precision many are equal; some are ruled out, as within a character."""
    for seed in range(100):
        torch.manual_seed(seed)
        logits = (torch.randn(rng.randint(1, 4), 300) * rng.choice([0.01, 1, 10])).to(dtype).float()
        logits = logits.masked_fill(torch.rand_like(logits) < rng.choice([0, 0.5, 0.99]), -torch.inf)
        logits[:, rng.randrange(300)] = 0.5  # one is left in every row
        sampling = Sampling(temperature=rng.choice([1.0, rng.uniform(0.05, 3)]), top_k=rng.randint(1, 400))
        ids = torch.randint(300, (len(logits), 9))
        assert_same_scores(logits, ids, sampling)
        draws = [choose_token(logits, sampling) for _ in range(20)]
        kept = ~library_scores(logits, ids, sampling, 1).isneginf()
        assert all(kept.gather(1, tokens[:, None]).all() for tokens in draws)


def test_of_tokens_that_are_equally_likely_the_library_keeps_the_same(rng):
    """Whole numbers as scores, so that many are equal, and rows in which all are; some are ruled out."""
    for seed in range(300):
        torch.manual_seed(seed)
        logits = torch.randint(rng.choice([1, 2, 5]), (rng.randint(1, 4), rng.choice([7, 200]))).float()
        logits = logits.masked_fill(torch.rand_like(logits) < rng.choice([0, 0.5, 0.9]), -torch.inf)
        logits[:, rng.randrange(7)] = 1
        sampling = Sampling(
            top_k=rng.choice([0, rng.randint(1, 9)]),
            min_p=rng.choice([0.0, rng.uniform(0.01, 1)]),
            typical_p=rng.choice([1.0, rng.uniform(0.01, 1)]),
        )
        assert_same_scores(logits, torch.zeros(len(logits), 1, dtype=torch.long), sampling)


@pytest.mark.parametrize("device", [torch.Tensor, OnADevice])
def test_a_nucleus_is_the_fewest_tokens_and_those_as_likely_as_the_last(rng, device):
    for seed in range(100):
        torch.manual_seed(seed)
        logits = torch.randint(rng.choice([2, 5, 50]), (1, rng.choice([7, 200]))).float()
        sampling = Sampling(top_p=rng.uniform(0.01, 0.999), top_k=rng.choice([0, 190]))
        kept = our_scores(logits.as_subclass(device), torch.zeros(1, 1, dtype=torch.long), sampling, 1)[0].isfinite()
        cut = library_scores(logits, None, Sampling(top_k=sampling.top_k), 1).double().softmax(-1)[0]
        falling, needed = sorted(cut.tolist(), reverse=True), 1
        while sum(falling[:needed]) < sampling.top_p:
            needed += 1
        assert kept.as_subclass(torch.Tensor).equal(cut >= falling[needed - 1])


def test_of_a_model_whose_logits_are_no_numbers_some_token_is_drawn():
    for sampling in (Sampling(), Sampling(top_k=3), Sampling(top_p=0.5)):
        assert 0 <= choose_token(torch.full((1, 5), torch.nan), sampling).item() < 5


def test_the_librarys_own_generate_puts_them_in_this_order():
    sampling = Sampling(0.7, 9, 0.95, 0.05, 0.8, repetition_penalty=1.1, no_repeat_ngram_size=3, min_length=2)
    prompt = torch.tensor([[5, 6, 5, 6, 5]])
    written = tiny_gpt2(50).generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=True, max_new_tokens=3, temperature=0.7, top_k=9,
        top_p=0.95, min_p=0.05, typical_p=0.8, repetition_penalty=1.1, no_repeat_ngram_size=3, min_new_tokens=2,
        eos_token_id=EOS, pad_token_id=0, output_logits=True, output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    for step, (logits, scores) in enumerate(zip(written.logits, written.scores, strict=True)):
        ids = written.sequences[:, : prompt.shape[1] + step]
        assert our_scores(logits, ids, sampling, prompt.shape[1]).equal(scores)


def test_devices_keep_the_same(rng):
    """Where the number of the kept is not waited for, some more are given, ruled out."""
    for seed in range(50):
        torch.manual_seed(seed)
        logits, k = torch.randint(-4, 5, (3, rng.choice([60, 300]))).float(), rng.randint(1, 80)
        kept = (each.as_subclass(torch.Tensor) for each in keep_top_k(logits.as_subclass(OnADevice), k))
        every, found = (
            torch.full_like(logits, -torch.inf).scatter(1, ids, scores) for scores, ids in (keep_top_k(logits, k), kept)
        )
        assert found.isfinite().sum(1).equal(every.isfinite().sum(1).clamp(max=k + TIES))
        assert found.where(found.isfinite(), every).equal(every)


def test_a_repetition_window_forgets_what_is_older(rng):
    for seed in range(50):
        torch.manual_seed(seed)
        logits, ids = torch.randn(2, 60), torch.randint(60, (2, 20))
        window = rng.randint(1, 25)
        windowed = our_scores(logits, ids, Sampling(repetition_penalty=1.5, repetition_window=window), 1)
        assert windowed.equal(our_scores(logits, ids[:, -window:], Sampling(repetition_penalty=1.5), 1))


def test_a_row_in_which_every_token_is_banned_keeps_its_choice():
    logits, ids = torch.randn(1, 4), torch.tensor([[0, 1, 2, 3]])
    assert our_scores(logits, ids, Sampling(no_repeat_ngram_size=1), 1).equal(logits)


def test_scores_are_computed_in_float32():
    history, written = torch.zeros(2, 3, dtype=torch.long), torch.tensor(0)
    assert penalize_and_ban(torch.randn(2, 9).half(), history, written, Sampling(), EOS).dtype == torch.float32


def test_temperature_zero_takes_the_highest():
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.9, 0.0, 3.0]])
    greedy = Sampling(temperature=0, repetition_penalty=2.0, top_k=1)
    history = torch.tensor([[-1, 1], [0, 1]])
    scores = penalize_and_ban(logits, history, torch.tensor(1), greedy, EOS)
    assert choose_token(scores, greedy).tolist() == [2, 2]


@pytest.mark.parametrize("device", [torch.Tensor, OnADevice])
@pytest.mark.parametrize(
    "limits", [{"top_k": 12, "top_p": 0.97}, {"top_p": 0.9}, {"min_p": 0.1}, {"typical_p": 0.8}, {}], ids=str
)
def test_draws_follow_the_distribution(limits, device):
    """Pearson's chi-square of 20,000 draws at fixed logits against the library's probabilities."""
    draws = 20_000
    for seed in range(4):
        torch.manual_seed(seed)
        sampling = Sampling(temperature=0.8, repetition_penalty=1.3, **limits)
        logits, ids = torch.randn(1, 30) * 2, torch.randint(30, (1, 5))
        expected = library_scores(logits, ids, sampling, 1).softmax(-1)[0]
        scores = penalize_and_ban(logits, ids, torch.tensor(0), sampling, EOS).expand(draws, -1)
        tokens = choose_token(scores.as_subclass(device), sampling).as_subclass(torch.Tensor)
        counts = tokens.bincount(minlength=30).double()
        possible = expected > 0
        assert counts[~possible].sum() == 0
        freedom = int(possible.sum()) - 1
        statistic = ((counts - draws * expected) ** 2 / (draws * expected))[possible].sum().item()
        # Far beyond the 99.9999th percentile of chi-square: mean + 6 standard deviations, and a margin.
        assert statistic < freedom + 6 * (2 * freedom) ** 0.5 + 20
