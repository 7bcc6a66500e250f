"""Prompt ids → new ids: the loop over a decoder's steps.

Knows ids and tensors, no text and no tokenizer. A row's result does not depend on the other rows of its
batch: padding stands on the left, masked, each row counts its own positions, and the repetition penalty
sees a row's own tokens alone.

Nothing in the loop waits for the device but the look at the new ids every few steps. Where the device has
graphs, a step (the model, the sampling and their bookkeeping) is recorded once and then replayed whole.
"""

from dataclasses import dataclass

import torch

from gpt2_korean.device import record_graph
from gpt2_korean.sampling import choose_token, penalize_and_ban


@dataclass
class _Rows:
    """The rows of a batch as they grow, on the device: changed in place, so that a captured step sees them."""

    history: torch.Tensor  # see sampling.py
    written: torch.Tensor  # int64 [], how many tokens are new
    states: torch.Tensor  # int64 [batch], of the UTF-8 automaton


def generate_ids(*arguments, **keywords):
    """What stream_ids yields, put together: a list of new ids for each prompt."""
    chunks = list(stream_ids(*arguments, **keywords))
    return [[index for chunk in row for index in chunk] for row in zip(*chunks, strict=True)]


@torch.inference_mode()
def stream_ids(decoder, prompts, length, sampling, eos_token_id, utf8=None, every=1):
    """Continue each of `prompts`, a batch of non-empty id lists, by up to `length` tokens.

    Yields, every few steps, the new ids of each row, a list of lists; a row ends before its first
    `eos_token_id` (None: it never ends) and has no more ids from then on. A row that has filled the model's
    context goes on from the newer half of its tokens, just as if it had been started on those.

    utf8: the Utf8Tables of the vocabulary, to write whole characters only; the prompts end on one.
    every: after how many steps to look: each look waits for the device.
    """
    device, context = decoder.device, decoder.context
    windows = [torch.tensor(fit_prompt(prompt, length, context), device=device) for prompt in prompts]
    states = torch.zeros(len(windows), dtype=torch.long, device=device)
    written = torch.zeros((), dtype=torch.long, device=device)
    ended = [False] * len(windows)
    done = 0
    while done < length:
        ids, mask = pad_left(windows)
        width, steps = ids.shape[1], length - done
        if context is not None:
            # The last token of a stretch is drawn but never read, so it needs no position.
            steps = min(steps, context - width + 1)
        unwritten = ids.new_full((len(windows), steps), -1)
        rows = _Rows(torch.cat([unwritten, ids.where(mask == 1, -1)], 1), written, states)

        def draw(logits, rows=rows):
            _draw(logits, rows, length, sampling, eos_token_id, utf8)

        looked = 0
        for step in _steps(decoder, ids, mask, steps, rows, draw):
            # The first token is shown as soon as it is there.
            if step in (1, steps) or step % every == 0:
                new = rows.history[:, looked - step :].tolist()
                looked = step
                yield [_until_end(row, index, ended, eos_token_id) for index, row in enumerate(new)]
                if all(ended):
                    return
        done += steps
        newest = [row[row >= 0] for row in rows.history]
        windows = [row if context is None or len(row) <= context else row[-(context // 2) :] for row in newest]


def fit_prompt(prompt, length, context):
    """The newest tokens of `prompt` that leave room for `length` more, or half the context if that is more."""
    if context is None:
        return prompt
    return prompt[-max(context - length + 1, context // 2) :]


def pad_left(windows):
    """Rows (1-d id tensors) as ids and mask, both [batch, longest row], the rows flush right."""
    longest = max(len(window) for window in windows)
    ids = torch.stack([torch.cat([window[:1].expand(longest - len(window)), window]) for window in windows])
    lengths = torch.tensor([len(window) for window in windows], device=ids.device)
    mask = torch.arange(longest, device=ids.device) >= longest - lengths[:, None]
    return ids, mask.long()


def _steps(decoder, ids, mask, steps, rows, draw):
    """Read `ids` and draw `steps` tokens into `rows`; yields how many of them are drawn (or submitted) so far."""
    draw(decoder.start(ids, mask, steps - 1))
    yield 1
    replay = reach = None
    for step in range(1, steps):
        needed = decoder.reach(ids.shape[1] + step)

        def advance(reach=needed):
            draw(decoder.step(rows.history[:, -1], reach))

        if not decoder.captures:
            advance()
        elif reach != needed and not decoder.warm:
            advance()  # as it is: libraries set themselves up in their first call, which no graph may record
            decoder.warm = True
        else:
            if reach != needed:
                replay, reach = record_graph(advance, decoder.device)[0].replay, needed
            replay()
        yield step + 1


def _draw(logits, rows, length, sampling, eos_token_id, utf8):
    """Draw the next token of each row and take it into `rows`."""
    if utf8 is not None:
        # One number for each row: a lone one would be fetched from the device to index by.
        more = (length - 1 - rows.written).clamp(max=3).expand(len(logits))
        logits = logits.masked_fill(~utf8.allowed[more, rows.states], -torch.inf)
    scores = penalize_and_ban(logits, rows.history, rows.written, sampling, eos_token_id)
    tokens = choose_token(scores, sampling)
    if utf8 is not None:
        rows.states.copy_(utf8.next_state[rows.states, tokens])
    rows.history.copy_(torch.cat([rows.history[:, 1:], tokens[:, None]], 1))
    rows.written += 1


def _until_end(ids, row, ended, eos_token_id):
    """The ids of a row that stand before its end; notes in `ended` that it has come."""
    if ended[row]:
        return []
    if eos_token_id in ids:
        ended[row] = True
        return ids[: ids.index(eos_token_id)]
    return ids
