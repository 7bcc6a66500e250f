"""Prompt ids → new ids: the loop over a decoder's steps.

Knows ids and tensors, no text and no tokenizer. A row's result does not depend on the other rows of its
batch: padding stands on the left, masked, each row counts its own positions, and the repetition penalty
sees a row's own tokens alone.

Nothing in the loop waits for the device but the look at the new ids every few steps. Where the device has
graphs, a step (the model, the sampling and their bookkeeping) is recorded once and then replayed whole, in
later calls too: those that differ in their prompts, or a little in length, read and write the same tensors. There
the next steps are submitted before the new ids are looked at, so that the device does not wait for that look.
"""

from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F

from gpt2_korean.device import record_graph
from gpt2_korean.generation.sampling import choose_token, penalize_and_ban
from gpt2_korean.generation.whole_characters import STATES

# A GPU takes as long for fewer rows, where what it waits for is the weights (benchmarks/RESULTS.md).
FEWEST_RECORDED = 64


@dataclass
class _Rows:
    """The rows of a batch as they grow, on the device: changed in place where a recorded step is to see them."""

    history: torch.Tensor  # see sampling.py
    written: torch.Tensor  # int64 [], how many tokens are new
    length: torch.Tensor  # int64 [], how many are to be
    states: torch.Tensor  # int64 [batch], of the UTF-8 automaton
    breakers: torch.Tensor  # bool [vocab], see dry.py

    def keep(self, left):
        """Go on with the rows at `left` alone, which become the first in the same memory."""
        self.history = self.history[: len(left)].copy_(self.history[left])
        self.states = self.states[: len(left)].copy_(self.states[left])


def generate_ids(*arguments, **keywords):
    """What stream_ids yields, put together: a list of new ids for each prompt."""
    chunks = list(stream_ids(*arguments, **keywords))
    return [[index for chunk in row for index in chunk] for row in zip(*chunks, strict=True)]


@torch.inference_mode()
def stream_ids(
    decoder, prompts, length, sampling, eos_token_id, utf8=None, every=1, breakers=None, more=0, ended=None, first=None
):  # fmt: skip
    """Continue each of `prompts`, a batch of non-empty id lists, by up to `length` tokens.

    Yields, every few steps, the new ids of each row, a list of lists; a row ends before its first
    `eos_token_id` (None: it never ends) and has no more ids from then on. A row that has filled the model's
    context goes on from the newer half of its tokens, just as if it had been started on those.

    utf8: the Utf8Tables of the vocabulary, to write whole characters only; the prompts end on one.
    every: after how many steps to look: each look waits for the device.
    breakers: bool [vocab], the tokens at which repetitions end (dry.py), on any device; None for none.
    more: how many tokens may follow `length`, for which no room is kept behind a prompt.
    ended: a list of bool for each prompt, in which the caller may note at each look that a row is over, too.
    first: for each prompt the ids of which its first new token is to be, a tensor, None where it may be any; None for
        all of them.
    """
    device, context = decoder.device, decoder.context
    places = {}  # of each prompt among those that differ: several texts of one prompt share one reading of it
    shares = [places.setdefault(tuple(prompt), len(places)) for prompt in prompts]
    windows = [fit_prompt(list(prompt), length, context) for prompt in places]
    shares = torch.tensor(shares, device=device) if len(places) < len(prompts) else None
    states = torch.zeros(len(prompts), dtype=torch.long, device=device)
    if breakers is None:
        breakers = torch.zeros(decoder.vocab_size, dtype=torch.bool)
    breakers = breakers.to(device, copy=True)  # a recording keeps it
    ended = [False] * len(prompts) if ended is None else ended
    going = list(range(len(prompts)))  # the prompts whose rows are in the batch yet
    done, length = 0, length + more
    while done < length:
        ids, mask = pad_left(windows, device)
        width, steps = ids.shape[1], length - done
        if context is not None:
            # The last token of a stretch is drawn but never read, so it needs no position.
            steps = min(steps, context - width + 1)
        logits = decoder.start(ids, mask, steps - 1, shares)
        if first is not None:
            logits, first = _only(logits, first), None
        ids, mask = (ids, mask) if shares is None else (ids[shares], mask[shares])
        room = len(decoder.slots) + 1 if decoder.captures else width + steps
        history = F.pad(ids.where(mask == 1, -1), (room - width, 0), value=-1)
        rows = _Rows(history, *torch.tensor([done, length], device=device), states, breakers)
        rows, replays = _recorded(decoder, rows, sampling, eos_token_id, utf8)

        draw = partial(_draw, sampling=sampling, eos_token_id=eos_token_id, utf8=utf8)
        draw(logits, rows)
        looks = _looks(_steps(decoder, width, steps, rows, replays, draw), steps, every, rows)
        looks = ((look, going) for look in looks)  # with the prompts that it tells of
        for look, told in _one_behind(looks) if decoder.captures else looks:
            new = dict(zip(told, look(), strict=True))
            yield [_until_end(new.get(index, []), index, ended, eos_token_id) for index in range(len(prompts))]
            if all(ended):
                return
            left = _left(going, ended, decoder)
            if len(left) < len(going) and decoder.keep(torch.tensor(left, device=device)):
                rows.keep(left)
                going = [going[place] for place in left]
        done, states = done + steps, rows.states
        if done < length:
            shares, newest = None, [[index for index in row if index >= 0] for row in rows.history.tolist()]
            windows = [row if len(row) <= context else row[-(context // 2) :] for row in newest]


def fit_prompt(prompt, length, context):
    """The newest tokens of `prompt` that leave room for `length` more, or half the context if that is more."""
    if context is None:
        return prompt
    return prompt[-max(context - length + 1, context // 2) :]


def _only(logits, first):
    """Logits [batch, vocab] without what is not in its row of `first`, see stream_ids."""
    wanted = torch.zeros(logits.shape, dtype=torch.bool)
    for row, ids in zip(wanted, first, strict=True):
        row[slice(None) if ids is None else ids] = True
    return logits.masked_fill(~wanted.to(logits.device), -torch.inf)


def pad_left(windows, device):
    """Lists of ids as ids and mask, both int64 [batch, longest row], the rows flush right."""
    longest = max(map(len, windows))
    ids = [[window[0]] * (longest - len(window)) + window for window in windows]
    lengths = torch.tensor([len(window) for window in windows])
    mask = torch.arange(longest) >= longest - lengths[:, None]
    return torch.tensor(ids).to(device), mask.long().to(device)


def _recorded(decoder, rows, sampling, eos_token_id, utf8):
    """`(rows, replays)`: the tensors that recorded steps work on, filled from `rows`, and these steps, by the number of
    rows and the reach.

    A decoder keeps one recording, as long as its cache is the same.
    """
    if not decoder.captures:
        return rows, {}
    key = (rows.history.shape, sampling, eos_token_id, id(utf8))
    if decoder.recording is None or decoder.recording[0] != key:
        # With the tables, which a recorded step reads: they must not go before it.
        decoder.recording = (key, rows, {}, utf8)
    _, recorded, replays, _ = decoder.recording
    for name, tensor in vars(rows).items():
        getattr(recorded, name).copy_(tensor)
    return replace(recorded), replays  # of which fewer rows may go on


def _left(going, ended, decoder):
    """The places in `going` to go on with: all, or those that have not ended, once they are half of them or fewer.

    Fewer rows are less work for a CPU, and for a GPU that has many. They are left out by halves, since each time the
    cache is copied; where steps are recorded, by exact halves, filled up with ended rows, so that recordings fit.
    """
    size, left = len(going), [place for place, index in enumerate(going) if not ended[index]]
    if not decoder.captures:
        return left if decoder.paged or 2 * len(left) <= size else list(range(size))
    while 2 * len(left) <= size and size // 2 >= FEWEST_RECORDED:
        size //= 2
    over = [place for place, index in enumerate(going) if ended[index]]
    return sorted(left + over[: size - len(left)])


def _steps(decoder, width, steps, rows, replays, draw):
    """Draw the second to the last of `steps` tokens into `rows`; yields how many are drawn (or submitted) so far."""
    yield 1
    for step in range(1, steps):
        reach = decoder.reach(width + step)
        # Of a copy: the rows that go on may be fewer when a recording is replayed.
        advance = partial(_advance, decoder, replace(rows), reach, draw)
        key = len(rows.history), reach
        if key in replays:
            replays[key].replay()
        elif decoder.captures and decoder.warm:
            one = next(iter(replays.values()), None)  # whose memory serves all: none of them keeps anything in it
            replays[key] = record_graph(advance, decoder.device, one)[0]
            replays[key].replay()
        else:
            advance()  # as it is: libraries set themselves up in their first call, which no graph may record
            decoder.warm = True
        yield step + 1


def _advance(decoder, rows, reach, draw):
    """Read the newest token of each row and draw the next one."""
    draw(decoder.step(rows.history[:, -1], reach), rows)


def _looks(numbers, steps, every, rows):
    """Yield, every few of `steps` steps, a function that gives the new ids of each row: those that are there now.

    numbers: _steps, how many there are so far.
    """
    looked = 0
    for step in numbers:
        # The first token is shown as soon as it is there.
        if step in (1, steps) or step % every == 0:
            yield _copied(rows.history[:, looked - step :])
            looked = step


def _copied(tensor):
    """A function that waits for what `tensor` now is, as lists."""
    if tensor.device.type not in ("cuda", "xpu"):
        numbers = tensor.tolist()
        return lambda: numbers
    copy, there = tensor.to("cpu", non_blocking=True), torch.Event(tensor.device)
    there.record()

    def wait():
        there.synchronize()
        return copy.tolist()

    return wait


def _one_behind(looks):
    """Each of `looks` when the next has begun."""
    before = next(looks)
    for look in looks:
        yield before
        before = look
    yield before


def _draw(logits, rows, sampling, eos_token_id, utf8):
    """Draw the next token of each row and take it into `rows`."""
    if utf8 is not None:
        more = (rows.length - 1 - rows.written).clamp(max=3)
        allowed = utf8.allowed.index_select(0, more * STATES + rows.states)
        logits = logits.where(allowed[:, : logits.shape[1]], -torch.inf)
    scores = penalize_and_ban(logits, rows.history, rows.written, sampling, eos_token_id, rows.breakers)
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
