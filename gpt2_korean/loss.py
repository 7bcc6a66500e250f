"""The loss of a language model from its last hidden states, never holding the logits of a whole batch.

GPT-2's 50,257 logits a token are the largest tensor of its training: 0.8 GB in float32 for 4 blocks of 1,024
tokens, and as much again for their gradient. Here the positions are taken a chunk at a time, and a chunk's
gradient takes the place of its logits at once: the way of Liger Kernel (Hsu et al. 2024, arXiv 2410.10989).
"""

import torch

IGNORED = -100  # the label of a position that predicts nothing, as in torch.nn.functional.cross_entropy
CHUNK = 2**28  # logits held at a time; fewer make the matrix products too small to be fast
ALIGNMENT = 128  # columns in a row of logits: matrix units are slow on an odd number such as 50,257


def softmax_in_place(logits, labels):
    """The log probability of each label, [rows, 1]; `logits` [rows, vocab] turn into probabilities, where they are."""
    log_probabilities = torch.log_softmax(logits, 1, dtype=torch.float32)
    of_labels = log_probabilities.gather(1, labels)
    logits.copy_(log_probabilities.exp_())
    return of_labels


def summed_loss(hidden_states, weight, labels, softmax_in_place=softmax_in_place):
    """The summed cross-entropy (nats) of predicting each label from the position before it.

    hidden_states: [batch, length, width]; weight: [vocab, width], of the output embedding; labels:
    [batch, length], IGNORED where nothing is predicted. Computed in autocast's dtype where that is on.
    softmax_in_place: the function above, or what was compiled of it.
    """
    hidden_states = hidden_states[:, :-1].reshape(-1, hidden_states.shape[-1])
    return _SummedLoss.apply(hidden_states, weight, labels[:, 1:].reshape(-1, 1), softmax_in_place)


class _SummedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_states, weight, labels, softmax_in_place):
        device = hidden_states.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_states.dtype
        of_hidden = torch.empty_like(hidden_states) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        loss = torch.zeros((), device=hidden_states.device)
        vocab, real, labels = len(weight), labels != IGNORED, labels.clamp(min=0)
        with torch.autocast(device, enabled=False):
            weight = torch.nn.functional.pad(weight.to(dtype), (0, 0, 0, -vocab % ALIGNMENT))
            chunks = -(-len(labels) * len(weight) // CHUNK)
            rows = -(-len(labels) // max(1, chunks))
            for start in range(0, len(labels), max(1, rows)):
                chunk = slice(start, start + rows)
                some = hidden_states[chunk].to(dtype) * real[chunk]
                # The columns beyond the vocabulary stay what they are, zero, and so does their gradient.
                logits = some @ weight.T
                of_labels = softmax_in_place(logits[:, :vocab], labels[chunk])
                loss -= (of_labels * real[chunk]).sum()
                # What is left of the gradient: a probability less one where the label is.
                logits.scatter_(1, labels[chunk], (of_labels.exp() - 1).to(dtype))
                if of_hidden is not None:
                    of_hidden[chunk] = logits @ weight * real[chunk]
                if of_weight is not None:
                    of_weight += (logits.T @ some)[:vocab]
        ctx.save_for_backward(of_hidden, of_weight)
        return loss

    @staticmethod
    def backward(ctx, of_loss):
        return *(None if gradient is None else gradient * of_loss for gradient in ctx.saved_tensors), None, None
