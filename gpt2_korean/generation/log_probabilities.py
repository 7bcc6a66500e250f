"""How likely a model holds each token of a text that it has written, and which it holds likelier.

Read once more when the text is there, in one pass over it: writing asks for the last position alone. They are those of
the model itself, log-softmax of its raw scores: neither tempered nor cut, penalised or kept to whole characters.
"""

import torch

from gpt2_korean.generation.loop import fit_prompt

ROWS = 64  # a vocabulary's scores are long: so many positions at a time


@torch.inference_mode()
def log_probabilities(decoder, prompt, new, length, most):
    """Of each of `new` that stream_ids has written after `prompt`, both lists of ids: its log-probability, and those of
    the `most` likeliest in its place, `[(id, log-probability)]`. length: as stream_ids was given it.

    A text longer than the context is read as it was written, on from the newer half.
    """
    context, found = decoder.context, []
    window = fit_prompt(prompt, length, context)
    while len(found) < len(new):
        steps = new[len(found) :]
        if context is not None:
            steps = steps[: context - len(window) + 1]
        logits = decoder.read(window + steps[:-1], len(window) - 1)
        for rows, ids in zip(logits.split(ROWS), torch.tensor(steps, device=logits.device).split(ROWS), strict=True):
            scores = rows.float().log_softmax(-1)
            own = scores.gather(1, ids[:, None])[:, 0].tolist()
            values, likeliest = (each.tolist() for each in scores.topk(most))
            found += [(score, list(zip(*top, strict=True))) for score, *top in zip(own, likeliest, values, strict=True)]
        window = window + steps
        if context is not None and len(window) > context:
            window = window[-(context // 2) :]
    return found
