"""Logits → next token: pure tensor functions over [batch, vocab]; no model, no text.

Each function gives what the transformers processor of the same meaning gives, and `next_token_scores`
applies them in the order of transformers' generate(): repetition penalty, temperature, top-k, top-p.
What is ruled out becomes -inf.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn; the defaults draw from the model's own distribution.

    temperature 0 is greedy, top_k 0 and top_p 1 are off, repetition_penalty 1 is none.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0


def penalize_repetition(logits, seen, penalty):
    """Divide the positive logits of the tokens in `seen` (bool [batch, vocab]) by `penalty`, multiply the negative.

    Keskar et al. 2019, CTRL, section 4.1.
    """
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def keep_top_k(logits, k):
    """Keep the `k` highest logits of each row and all that equal the lowest of them (Fan et al. 2018)."""
    lowest = logits.topk(min(k, logits.shape[-1])).values[:, -1:]
    return logits.masked_fill(logits < lowest, -torch.inf)


def keep_top_p(logits, p):
    """Keep the fewest most likely tokens of each row whose probabilities sum to `p` or more.

    Nucleus sampling, Holtzman et al. 2020; at least one token stays.
    """
    ascending, order = logits.sort(descending=False)
    # Summed from the least likely up, as transformers does it, so that rounding falls the same way.
    drop = ascending.softmax(-1).cumsum(-1) <= 1 - p
    drop[:, -1] = False
    return logits.masked_fill(drop.scatter(-1, order, drop), -torch.inf)


def next_token_scores(logits, seen, sampling):
    """Logits [batch, vocab] as sampling wants them: penalised, tempered and cut, in float32."""
    scores = logits.float()
    if sampling.repetition_penalty != 1:
        scores = penalize_repetition(scores, seen, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return scores
    if sampling.temperature != 1:
        scores = scores / sampling.temperature
    if sampling.top_k > 0:
        scores = keep_top_k(scores, sampling.top_k)
    if sampling.top_p < 1:
        scores = keep_top_p(scores, sampling.top_p)
    return scores


def choose_token(scores, sampling, generator=None):
    """The next token of each row, int64 [batch]: the highest score at temperature 0, else a random draw.

    The draw divides the probabilities by exponential noise and takes the largest (the exponential race),
    which is a multinomial draw that needs no word from the device.
    """
    if sampling.temperature == 0:
        return scores.argmax(-1)
    probabilities = scores.softmax(-1)
    noise = torch.empty_like(probabilities).exponential_(generator=generator)
    return (probabilities / noise).argmax(-1)
