"""Prompt ids → new ids: the loop over a model's steps and its key-value cache.

Knows ids and tensors, no text and no tokenizer. A row's result does not depend on the other rows of its
batch: padding stands on the left, masked, each row counts its own positions, and the repetition penalty
sees a row's own tokens alone.
"""

import inspect

import torch

from gpt2_korean.sampling import choose_token, next_token_scores


@torch.inference_mode()
def generate_ids(model, prompts, length, sampling, eos_token_id, context=None, generator=None, on_step=None, utf8=None):
    """Up to `length` new token ids for each of `prompts`, a batch of non-empty id lists.

    context: the positions that the model has, None for no limit. A row that has filled them goes on
        from the newer half of its tokens, just as if it had been started on those.
    generator: a torch.Generator on the model's device.
    on_step: called without arguments after each step.
    utf8: the Utf8Tables of the vocabulary, to write whole characters only; the prompts end on one.

    Returns a list of id lists; a row ends before its first `eos_token_id`.
    """
    device = next(model.parameters()).device
    windows = [torch.tensor(fit_prompt(prompt, length, context), device=device) for prompt in prompts]
    finished = torch.zeros(len(windows), dtype=torch.bool, device=device)
    states = torch.zeros(len(windows), dtype=torch.long, device=device)  # of the UTF-8 automaton
    columns = []

    def draw(logits, seen):
        """The next token of each row, [batch], kept in `columns`; False once every row has ended."""
        if utf8 is not None:
            more = min(length - len(columns) - 1, 3)
            logits = logits.masked_fill(~utf8.allowed[more, states], -torch.inf)
        tokens = choose_token(next_token_scores(logits, seen, sampling), sampling, generator)
        if utf8 is not None:
            states.copy_(utf8.next_state[states, tokens])
        columns.append(tokens)
        finished.logical_or_(tokens == eos_token_id)
        if on_step is not None:
            on_step()
        return not finished.all()

    while len(columns) < length and not finished.all():
        ids, mask = pad_left(windows)
        steps = length - len(columns)
        if context is not None:
            # The last token of a stretch is drawn but never read, so it needs no position.
            steps = min(steps, context - ids.shape[1] + 1)
        before = len(columns)
        _decode(model, ids, mask, steps, draw, columns)
        new = torch.stack(columns[before:], 1)
        windows = [_newer_half(torch.cat([window, row]), context) for window, row in zip(windows, new, strict=True)]
    return [_until(row, eos_token_id) for row in torch.stack(columns, 1).tolist()]


def fit_prompt(prompt, length, context):
    """The newest tokens of `prompt` that leave room for `length` more, or half the context if that is more."""
    if context is None:
        return prompt
    return prompt[-max(context - length + 1, context // 2) :]


def pad_left(windows):
    """Rows (1-d id tensors) as ids and mask, both [batch, longest row], the rows flush right.

    Padding repeats the row's first token: it is masked, and adds nothing to the set of tokens seen.
    """
    longest = max(len(window) for window in windows)
    ids = torch.stack([torch.cat([window[:1].expand(longest - len(window)), window]) for window in windows])
    lengths = torch.tensor([len(window) for window in windows], device=ids.device)
    mask = torch.arange(longest, device=ids.device) >= longest - lengths[:, None]
    return ids, mask.long()


def _decode(model, ids, mask, steps, draw, columns):
    """Let `draw` choose up to `steps` tokens after `ids`, each fed to the model with the cache of those before."""
    batch, width = ids.shape
    accepted = inspect.signature(model.forward).parameters
    mask = torch.cat([mask, mask.new_ones(batch, steps)], 1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = seen = None
    start, end = 0, width
    for _ in range(steps):
        inputs = {"position_ids": positions[:, start:end], "logits_to_keep": 1}
        output = model(
            input_ids=ids,
            attention_mask=mask[:, :end],
            past_key_values=cache,
            use_cache=True,
            **{name: value for name, value in inputs.items() if name in accepted},
        )
        cache, logits = output.past_key_values, output.logits[:, -1]
        if seen is None:
            seen = torch.zeros_like(logits, dtype=torch.bool)
        seen.scatter_(1, ids, True)
        if not draw(logits, seen):
            break
        ids = columns[-1][:, None]
        start, end = end, end + 1


def _newer_half(window, context):
    return window if context is None or len(window) <= context else window[-(context // 2) :]


def _until(ids, eos_token_id):
    return ids[: ids.index(eos_token_id)] if eos_token_id in ids else ids
