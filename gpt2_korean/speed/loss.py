"""The loss of a language model from its last hidden states, never holding the logits of a whole batch.

GPT-2's 50,257 logits a token are the largest tensor of its training: 0.8 GB in float32 for 4 blocks of 1,024
tokens, and as much again for their gradient. Here the positions are taken a chunk at a time, and a chunk's
gradient takes the place of its logits at once: the way of Liger Kernel (Hsu et al. 2024, arXiv 2410.10989).
"""

from contextlib import contextmanager

import torch

IGNORED = -100  # the label of a position that predicts nothing, as in torch.nn.functional.cross_entropy
CHUNK = 2**28  # logits held at a time; fewer make the matrix products too small to be fast
PART = 2**24  # of them held in float32 too, where the softmax is more than one kernel
ALIGNMENT = 128  # columns in a row of logits: matrix units are slow on an odd number such as 50,257


def cross_entropy_in_place(logits, labels, vocab):
    """The cross-entropy (nats) of each row, [rows], 0 where the label is IGNORED; `logits` turn into its gradient.

    logits: [rows, vocab and columns that fill up], whose gradient is 0; labels: [rows].
    """
    if vocab < logits.shape[1]:
        logits[:, vocab:] = -torch.inf
    real, labels = (labels != IGNORED)[:, None], labels.clamp(min=0)[:, None]
    log_probabilities = torch.log_softmax(logits, 1, dtype=torch.float32)
    of_labels = log_probabilities.gather(1, labels)
    # The gradient is the probability, less one where the label is.
    logits.copy_(log_probabilities.exp_())
    logits.scatter_(1, labels, (of_labels.exp() - 1).to(logits.dtype))
    logits *= real
    return -(of_labels * real).squeeze(1)


def cross_entropy_in_parts(logits, labels, vocab):
    """What cross_entropy_in_place does, a few rows at a time."""
    rows = max(1, PART // logits.shape[1])
    parts = zip(logits.split(rows), labels.split(rows), strict=True)
    return torch.cat([cross_entropy_in_place(*part, vocab) for part in parts])


def summed_loss(hidden_states, weight, labels, cross_entropy=cross_entropy_in_parts):
    """The summed cross-entropy (nats) of predicting each label from the position before it.

    hidden_states: [batch, length, width]; weight: [vocab, width], of the output embedding; labels:
    [batch, length], IGNORED where nothing is predicted. Computed in autocast's dtype where that is on.
    cross_entropy: one of the functions above, what was compiled of the first, or the kernel that does the same.
    """
    # The last position of each row predicts nothing: to compute it costs less than to cut it out.
    labels = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    return _SummedLoss.apply(hidden_states.flatten(0, 1), weight, labels.flatten(), cross_entropy)


class _SummedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_states, weight, labels, cross_entropy):
        device = hidden_states.device.type
        dtype = product_dtype(hidden_states)
        of_hidden = torch.empty_like(hidden_states) if ctx.needs_input_grad[0] else None
        loss, vocab = torch.zeros((), device=hidden_states.device), len(weight)
        with torch.autocast(device, enabled=False):
            filled_up = cast(weight, dtype, -vocab % ALIGNMENT)
            of_weight = None
            chunks = -(-len(labels) * len(filled_up) // CHUNK)
            rows = -(-len(labels) // max(1, chunks))
            for start in range(0, len(labels), max(1, rows)):
                chunk = slice(start, start + rows)
                some = hidden_states[chunk].to(dtype)
                logits = some @ filled_up.T
                loss += cross_entropy(logits, labels[chunk], vocab).sum()
                if of_hidden is not None:
                    of_hidden[chunk] = logits @ filled_up
                if of_weight is not None:
                    add_product(of_weight, logits.T, some)
                elif ctx.needs_input_grad[1]:
                    of_weight = product(logits.T, some, weight.dtype)
        ctx.save_for_backward(of_hidden, None if of_weight is None else of_weight[:vocab])
        return loss

    @staticmethod
    def backward(ctx, of_loss):
        return *(None if gradient is None else gradient * of_loss for gradient in ctx.saved_tensors), None, None


def product_dtype(x):
    """In what matrix products of `x` are computed: autocast's dtype where that is on, else its own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


_kept = None  # address of a weight → (the weight, its cast), within casts_kept


@contextmanager
def casts_kept(kept):
    """Have casts of weights taken from the dict `kept`, and put there where they are new: weights must not change."""
    global _kept
    before, _kept = _kept, kept
    try:
        yield
    finally:
        _kept = before


def cast(weight, dtype, rows=0):
    """`weight` in `dtype`, and so many rows of zeros."""
    found = None if _kept is None else _kept.get(weight.data_ptr())
    if found is not None:
        return found[1]
    made = weight.to(dtype)
    if rows:
        made = torch.nn.functional.pad(made, (0, 0, 0, rows))
    if _kept is not None and made is not weight:
        _kept[weight.data_ptr()] = weight.detach(), made
    return made


def product(a, b, dtype):
    """a @ b in `dtype`, by the product's own kernel where it can write it."""
    if a.is_cuda and dtype == torch.float32 != a.dtype:
        return torch.mm(a, b, out_dtype=dtype)
    return (a @ b).to(dtype)


def add_product(total, a, b):
    """total += a @ b, by the product's own kernel where it can add to float32."""
    if total.is_cuda and total.dtype == torch.float32 != a.dtype:
        torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
    else:
        total += a @ b


def gradient_of(weight, a, b):
    """The gradient of `weight`, in its dtype: a @ b, added to the one that it has from passes before.

    weight.grad is set to None meanwhile, so that autograd keeps the sum as it is instead of adding to it once more.
    """
    total, weight.grad = weight.grad, None
    if total is None:
        return product(a, b, weight.dtype)
    add_product(total, a, b)
    return total.detach()
