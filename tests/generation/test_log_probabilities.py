"""What a model holds likely, told of a text that it has written: compared with transformers' own forward."""

import pytest
import torch
from conftest import tiny_gpt2

from gpt2_korean.generation.choose_decoder import gpt2_decoder
from gpt2_korean.generation.library_decoder import LibraryDecoder
from gpt2_korean.generation.log_probabilities import log_probabilities
from gpt2_korean.generation.loop import fit_prompt, generate_ids
from gpt2_korean.generation.sampling import Sampling

VOCABULARY, CONTEXT = 301, 32


@pytest.fixture(scope="module")
def model():
    return tiny_gpt2(VOCABULARY)


@pytest.fixture(params=["own", "library"])
def decoder(request, model):
    if request.param == "library":
        return LibraryDecoder(model)
    return gpt2_decoder(model.config.to_dict(), dict(model.state_dict()), torch.device("cpu"), torch.float32)


def one_by_one(model, prompt, new, length):
    """Log-probabilities [vocab] before each of `new`, the model asked anew each time, as the loop reads its context."""
    window = fit_prompt(prompt, length, CONTEXT)
    for index in new:
        if len(window) > CONTEXT:
            window = window[-(CONTEXT // 2) :]
        with torch.no_grad():
            yield model(torch.tensor([window])).logits[0, -1].log_softmax(-1)
        window = [*window, index]


@pytest.mark.parametrize("prompt_length", [1, 9, 31, 40])
@pytest.mark.parametrize("length", [1, 12, 70])
def test_they_are_the_models_own_before_each_token(model, decoder, rng, prompt_length, length):
    prompt = [rng.randrange(VOCABULARY) for _ in range(prompt_length)]
    new = generate_ids(decoder, [prompt], length, Sampling(temperature=1.3, top_k=20), None)[0]
    told = log_probabilities(decoder, prompt, new, length, 3)
    assert len(told) == len(new) == length
    for index, (own, likeliest), expected in zip(new, told, one_by_one(model, prompt, new, length), strict=True):
        assert own == pytest.approx(expected[index].item(), abs=1e-4)
        ids, scores = zip(*likeliest, strict=True)
        assert len({*ids}) == 3 and scores == pytest.approx(expected[[*ids]].tolist(), abs=1e-4)
        # By their scores: two tokens may be as likely but for rounding.
        assert scores == pytest.approx(expected.topk(3).values.tolist(), abs=1e-4)


def test_none_is_told_of_none(decoder):
    assert log_probabilities(decoder, [1, 2], [], 5, 3) == []
    assert [likeliest for _, likeliest in log_probabilities(decoder, [1, 2], [3, 4], 5, 0)] == [[], []]


def test_to_read_once_more_leaves_what_is_written_next_as_it_was(decoder, rng):
    prompt = [rng.randrange(VOCABULARY) for _ in range(5)]
    first = generate_ids(decoder, [prompt], 20, Sampling(temperature=0), None)
    log_probabilities(decoder, prompt, first[0], 20, 1)
    assert generate_ids(decoder, [prompt], 20, Sampling(temperature=0), None) == first
