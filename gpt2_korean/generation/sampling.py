"""Logits → next token: pure tensor functions over [batch, vocab]; no model, no text.

Each function gives what the transformers processor of the same meaning gives, if there is one; `penalize_and_ban` and
then `candidates` apply them in the order of transformers' generate(). What is ruled out becomes -inf.

`history`, int64 [batch, width], holds each row's tokens so far, the newest last and -1 before the first:
of a fixed width, so that a captured step can run over it.
"""

from dataclasses import dataclass

import numpy
import torch

from gpt2_korean.generation.dry import penalize_continued_repeats

TIES = 64  # that a device keeps beyond the k: in bfloat16 some four equal the 50th of 50,257


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn; the defaults draw from the model's own distribution.

    temperature 0 is greedy; top_k 0, top_p 1, min_p 0, typical_p 1, repetition_penalty 1, frequency_penalty 0,
    presence_penalty 0, dry_multiplier 0, no_repeat_ngram_size 0 and min_length 0 (in new tokens) are off;
    repetition_window and dry_penalty_last_n 0 are no limit.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    repetition_window: int = 0
    penalize_prompt: bool = True
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 0
    no_repeat_ngram_size: int = 0
    min_length: int = 0


def penalize_repetition(logits, history, penalty, new=None):
    """Divide the positive logits of the tokens in `history` by `penalty`, multiply the negative.

    Keskar et al. 2019, CTRL, section 4.1. With `new`, int64 [], only the newest `new` tokens count.
    """
    counts = history >= 0 if new is None else _is_new(history, new)
    # What does not count stands for the newest token, which does if any does: all that is written to one
    # place is then the same, in whatever order the device writes it.
    newest = counts.shape[1] - 1
    ids = history.where(counts, history[:, newest:])
    penalties = torch.where(counts[:, newest:], penalty, 1.0)
    scores = logits.gather(1, ids)
    return logits.scatter(1, ids, torch.where(scores < 0, scores * penalties, scores / penalties))


def penalize_frequency(logits, history, written, frequency, presence):
    """Subtract from the logit of each token `frequency` for each time that it stands among the newest `written` tokens
    (int64 []) of `history`, and `presence` if it stands there at all.

    As OpenAI's API has them; transformers has neither.
    """
    counts = _is_new(history, written).to(logits.dtype)
    counts = torch.zeros_like(logits).scatter_add_(1, history.clamp(min=0), counts)
    return logits - frequency * counts - presence * (counts > 0)


def _is_new(history, written):
    """Which places of `history` hold one of the newest `written` tokens, bool [batch, width]."""
    age = torch.arange(history.shape[1] - 1, -1, -1, device=history.device)
    return (history >= 0) & (age < written)


def ban_repeated_ngrams(logits, history, size):
    """Rule out the tokens that would write an n-gram of `size` tokens a second time (Paulus et al. 2017, 2.5).

    A row in which nothing else is left keeps what it had.
    """
    if history.shape[1] < size:
        return logits
    starts = history.unfold(1, size, 1)  # every n-gram so far, [batch, n-grams, size]
    newest = history[:, history.shape[1] - size + 1 :]
    repeats = (starts[:, :, :-1] == newest[:, None]).all(-1) & (starts >= 0).all(-1)
    ended_by = starts[:, :, -1].where(repeats, logits.shape[1])
    banned = torch.zeros(len(logits), logits.shape[1] + 1, dtype=torch.bool, device=logits.device)
    scores = logits.masked_fill(banned.scatter_(1, ended_by, True)[:, :-1], -torch.inf)
    return scores.where(scores.isneginf().all(1, keepdim=True).logical_not(), logits)


def keep_top_k(logits, k):
    """The `k` highest logits of each row and all that equal the least of these (Fan et al. 2018); on a device TIES more
    at most.

    Returns them highest first and their ids, both [batch, n]; what is -inf is none.
    """
    k, waits = min(k, logits.shape[-1]), logits.device.type == "cpu"
    # How many they are would have to be waited for on a device, and differs from step to step.
    scores, ids = logits.topk(min(k + (1 if waits else TIES), logits.shape[-1]))
    least = scores[:, k - 1 : k]
    if waits:
        if not ((scores[:, k:] == least) & ~least.isneginf()).any():
            return scores[:, :k], ids[:, :k]
        equal = (logits >= least.clamp(min=torch.finfo(logits.dtype).min)).sum(1)
        scores, ids = logits.topk(int(equal.max()))
    return scores.masked_fill(scores < least, -torch.inf), ids


def keep_top_p(logits, rising, p):
    """The highest logits, the fewest whose probabilities sum to `p` or more, and all that equal the least of these.

    Nucleus sampling, Holtzman et al. 2020. rising: the logits of each row sorted.
    """
    # Summed from the least likely up, as transformers does it, so that rounding falls the same way.
    dropped = (rising.softmax(-1).cumsum(-1)[:, :-1] <= 1 - p).sum(-1, keepdim=True)  # never the highest
    return logits.masked_fill(logits < rising.gather(-1, dropped), -torch.inf)


def _rising(logits):
    if logits.device.type != "cpu":
        return logits.sort().values
    return torch.from_numpy(numpy.sort(logits.numpy()))  # which a processor does 15 to 40 times as fast


def keep_min_p(logits, p):
    """Keep the logits whose probability is at least `p` times that of the likeliest (Nguyen et al. 2024)."""
    probabilities = logits.softmax(-1)
    return logits.masked_fill(probabilities < p * probabilities.amax(-1, keepdim=True), -torch.inf)


def keep_typical(logits, mass):
    """Keep the fewest logits whose probabilities sum to `mass` or more, those first that tell about as much as is to be
    expected: whose -log p is next to the entropy. Locally typical sampling, Meister et al. 2022.
    """
    logs = logits.log_softmax(-1)
    entropy = -(logs * logs.exp()).nansum(-1, keepdim=True)
    distances = (-logs - entropy).abs()
    nearest, order = distances.sort(-1)
    last = (logits.gather(-1, order).softmax(-1).cumsum(-1) < mass).sum(-1, keepdim=True)
    return logits.masked_fill(distances > nearest.gather(-1, last.clamp(max=logits.shape[-1] - 1)), -torch.inf)


def penalize_and_ban(logits, history, written, sampling, eos_token_id, breakers=None):
    """Logits [batch, vocab] in float32, less what the tokens so far speak against.

    written: int64 [], how many tokens of `history` are new; the older ones are the prompt's.
    breakers: bool [vocab], see dry.py; of no use where dry_multiplier is 0.
    """
    scores = logits.float()
    if sampling.repetition_penalty != 1:
        counted = history[:, -sampling.repetition_window :]  # -0: all
        new = None if sampling.penalize_prompt else written
        scores = penalize_repetition(scores, counted, sampling.repetition_penalty, new)
    if sampling.frequency_penalty or sampling.presence_penalty:
        scores = penalize_frequency(scores, history, written, sampling.frequency_penalty, sampling.presence_penalty)
    if sampling.dry_multiplier > 0:
        scores = penalize_continued_repeats(
            scores, history, breakers, sampling.dry_multiplier, sampling.dry_base, sampling.dry_allowed_length,
            sampling.dry_penalty_last_n,
        )  # fmt: skip
    if sampling.no_repeat_ngram_size > 0:
        scores = ban_repeated_ngrams(scores, history, sampling.no_repeat_ngram_size)
    if sampling.min_length > 0:
        ends = torch.arange(scores.shape[1], device=scores.device) == eos_token_id
        scores = scores.masked_fill(ends & (written < sampling.min_length), -torch.inf)
    return scores


def candidates(scores, sampling):
    """What is left to draw from: tempered and cut scores and their ids, both [batch, n]; ids None for all tokens."""
    ids = None
    if sampling.top_k > 0:  # before the temperature, which changes no order: so few are left to divide
        scores, ids = keep_top_k(scores, sampling.top_k)
    if sampling.temperature != 1:
        scores = scores / sampling.temperature
    if sampling.top_p < 1:
        rising = _rising(scores) if ids is None else scores.flip(-1)
        scores = keep_top_p(scores, rising, sampling.top_p)
    if sampling.min_p > 0:
        scores = keep_min_p(scores, sampling.min_p)
    if sampling.typical_p < 1:
        scores = keep_typical(scores, sampling.typical_p)
    return scores, ids


def choose_token(scores, sampling):
    """The next token of each row, int64 [batch]: the highest score at temperature 0, else a random draw.

    Its random numbers are the device's default generator's, which a captured step advances; torch.manual_seed makes
    it repeat.
    """
    if sampling.temperature == 0:
        return scores.argmax(-1)
    scores, ids = candidates(scores, sampling)
    winners = _draw(scores) if scores.device.type == "cpu" else _race(scores)
    return winners if ids is None else ids.gather(1, winners[:, None])[:, 0]


def _draw(scores):
    """Draw by one random number a row: a processor makes them one after the other."""
    sums = scores.softmax(-1).cumsum(-1, dtype=torch.float64)
    # Above 0 and up to 1: a token of no probability is never the first to reach it.
    shares = 1 - torch.rand(len(sums), 1, dtype=torch.float64)
    found = torch.searchsorted(sums, shares * sums[:, -1:])[:, 0]
    return found.clamp(max=sums.shape[1] - 1)  # not numbers: those of a broken model reach nothing


def _race(scores):
    """Draw by an exponential race: the largest of probability / exponential noise, here in logarithms.

    A device makes many numbers as fast as one, and its sums, made in parts, might rise where nothing is likely.
    """
    return (scores - torch.empty_like(scores).exponential_().log()).argmax(-1)
