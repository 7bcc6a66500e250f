"""The loss of a language model from its last hidden states, never holding the logits of a whole batch.

GPT-2's 50,257 logits a token are the largest tensor of its training: 0.8 GB in float32 for 4 blocks of 1,024
tokens, and as much again for their gradient. Here the positions are taken a chunk at a time, and a chunk's
gradient takes the place of its logits at once: the way of Liger Kernel (Hsu et al. 2024, arXiv 2410.10989).
"""

import torch

IGNORED = -100  # the label of a position that predicts nothing, as in torch.nn.functional.cross_entropy
CHUNK = 2**28  # logits held at a time; fewer make the matrix products too small to be fast
PART = 2**24  # of them held in float32 too, where no compiler makes one kernel of the softmax
ALIGNMENT = 128  # columns in a row of logits: matrix units are slow on an odd number such as 50,257


def softmax_in_place(logits, labels, vocab):
    """The log probability of each label, [rows, 1]; `logits` turn into probabilities, where they are.

    logits: [rows, vocab and columns that fill up], which turn into zeros.
    """
    if vocab < logits.shape[1]:
        logits[:, vocab:] = -torch.inf
    log_probabilities = torch.log_softmax(logits, 1, dtype=torch.float32)
    of_labels = log_probabilities.gather(1, labels)
    logits.copy_(log_probabilities.exp_())
    return of_labels


def softmax_in_parts(logits, labels, vocab):
    """What softmax_in_place does, a few rows at a time."""
    rows = max(1, PART // logits.shape[1])
    parts = zip(logits.split(rows), labels.split(rows), strict=True)
    return torch.cat([softmax_in_place(*part, vocab) for part in parts])


def summed_loss(hidden_states, weight, labels, softmax_in_place=softmax_in_parts):
    """The summed cross-entropy (nats) of predicting each label from the position before it.

    hidden_states: [batch, length, width]; weight: [vocab, width], of the output embedding; labels:
    [batch, length], IGNORED where nothing is predicted. Computed in autocast's dtype where that is on.
    softmax_in_place: one of the functions above, or what was compiled of the first.
    """
    hidden_states = hidden_states[:, :-1].reshape(-1, hidden_states.shape[-1])
    return _SummedLoss.apply(hidden_states, weight, labels[:, 1:].reshape(-1, 1), softmax_in_place)


class _SummedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_states, weight, labels, softmax_in_place):
        device = hidden_states.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_states.dtype
        of_hidden = torch.empty_like(hidden_states) if ctx.needs_input_grad[0] else None
        loss = torch.zeros((), device=hidden_states.device)
        vocab, real, labels = len(weight), labels != IGNORED, labels.clamp(min=0)
        with torch.autocast(device, enabled=False):
            filled_up = torch.nn.functional.pad(weight.to(dtype), (0, 0, 0, -vocab % ALIGNMENT))
            of_weight = torch.zeros_like(filled_up, dtype=weight.dtype) if ctx.needs_input_grad[1] else None
            chunks = -(-len(labels) * len(filled_up) // CHUNK)
            rows = -(-len(labels) // max(1, chunks))
            for start in range(0, len(labels), max(1, rows)):
                chunk = slice(start, start + rows)
                some = hidden_states[chunk].to(dtype) * real[chunk]
                logits = some @ filled_up.T
                of_labels = softmax_in_place(logits, labels[chunk], vocab)
                loss -= (of_labels * real[chunk]).sum()
                # What is left of the gradient: a probability less one where the label is.
                logits.scatter_(1, labels[chunk], (of_labels.exp() - 1).to(dtype))
                if of_hidden is not None:
                    of_hidden[chunk] = logits @ filled_up * real[chunk]
                if of_weight is not None:
                    _add_product(of_weight, logits.T, some)
        ctx.save_for_backward(of_hidden, None if of_weight is None else of_weight[:vocab])
        return loss

    @staticmethod
    def backward(ctx, of_loss):
        return *(None if gradient is None else gradient * of_loss for gradient in ctx.saved_tensors), None, None


def _add_product(total, a, b):
    """total += a @ b, by the product's own kernel where it can add to float32."""
    if total.is_cuda and total.dtype == torch.float32 != a.dtype:
        torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
    else:
        total += a @ b
