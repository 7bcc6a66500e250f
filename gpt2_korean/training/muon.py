"""Muon for the matrices of a model's layers and AdamW for all else, as one optimizer.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) turns the momentum of a matrix into the nearest matrix
whose singular values are all about 1, so that rare directions are learnt as fast as frequent ones. Its steps are
scaled to the size of AdamW's (Liu et al. 2025, arXiv 2502.16982): learning rate and weight decay carry over.

torch.optim.Muon does the same one matrix at a time, knows no weight that is several matrices side by side, and has
each rank do all of the work.
"""

import math
from functools import cache, partial

import torch
from torch import distributed
from torch.optim import AdamW
from transformers.pytorch_utils import Conv1D

from gpt2_korean.device import computes_bfloat16
from gpt2_korean.model.embeddings import embedding_layers
from gpt2_korean.speed.choose import load_kernels
from gpt2_korean.training.stopping import is_distributed

MOMENTUM = 0.95
# Of three iterations, each the best for what the one before it leaves, that bring singular values from 0.01 to 1
# nearest to 1 (Amsel et al. 2025, arXiv 2505.16932): within 0.27 of it.
COEFFICIENTS = ((8.0934, -23.6204, 17.4462), (3.6366, -2.7219, 0.5365), (2.6613, -1.9772, 0.4526))
TOGETHER = 2**27  # numbers that are worked on at a time


class MuonWithAdamW(AdamW):
    """AdamW, but for the groups that say how many matrices stand side by side in each weight, `matrices`."""

    def __init__(self, params, **adamw):
        super().__init__(params, **adamw)
        for group in self.param_groups:
            group.setdefault("matrices", 0)

    def __setstate__(self, state):
        # AdamW looks for its own numbers in all groups.
        super().__setstate__({**state, "param_groups": _others(state["param_groups"])})
        self.param_groups = state["param_groups"]

    @torch.no_grad()
    def step(self, closure=None):
        everything = self.param_groups
        try:
            self.param_groups = _others(everything)
            loss = super().step(closure)
        finally:
            self.param_groups = everything
        for group in everything:
            if group["matrices"]:
                self._step_matrices(group)
        return loss

    def _step_matrices(self, group):
        count, decay = group["matrices"], 1 - group["lr"] * group["weight_decay"]
        for weights in _alike([weight for weight in group["params"] if weight.grad is not None]):
            (rows, width), device = weights[0].shape, weights[0].device
            ahead = torch.empty(len(weights), count, rows, width // count, dtype=_precision(device), device=device)
            usual = all(weight.dtype == torch.float32 and weight.is_contiguous() for weight in weights)
            look_ahead, take_step, kept = _passes(device) if usual else PLAIN
            momenta = [self._momentum(weight, kept or weight.dtype) for weight in weights]
            # Nesterov's, but for its size
            look_ahead([weight.grad for weight in weights], momenta, ahead, 1 - MOMENTUM, 1 / MOMENTUM - 1)
            size = group["lr"] * 0.2 * math.sqrt(max(ahead.shape[2:]))
            steps = share(partial(orthogonalize, size=-size), ahead.flatten(0, 1))
            take_step(weights, steps.view_as(ahead), decay)

    def _momentum(self, weight, dtype):
        state = self.state[weight]
        before = state.get("momentum_buffer")
        # What is read from a checkpoint has the type of its weight.
        state["momentum_buffer"] = torch.zeros_like(weight, dtype=dtype) if before is None else before.to(dtype)
        return state["momentum_buffer"]


def _others(groups):
    return [group for group in groups if not group["matrices"]]


@cache
def _passes(device):
    """`(look_ahead, take_step, the type of momenta)`, for float32 weights: by Triton where it can be compiled."""
    if device.type not in ("cuda", "xpu"):
        return PLAIN
    kernels = load_kernels("momentum", "Muon의 Triton 커널을 쓸 수 없어 조금 느리게 학습합니다", device)
    return PLAIN if kernels is None else kernels.FUNCTIONS


def _look_ahead(gradients, momenta, ahead, rate, more):
    for gradient, momentum, place in zip(gradients, momenta, ahead, strict=True):
        momentum.lerp_(gradient, rate)
        both = _side_by_side(momentum, len(place)), _side_by_side(gradient, len(place))
        torch.add(*both, alpha=more, out=place)


def _take_step(weights, steps, decay):
    for weight, step in zip(weights, steps, strict=True):
        part = _side_by_side(weight, len(step))
        torch.add(step, part, alpha=decay, out=part)


PLAIN = _look_ahead, _take_step, None  # as PyTorch has it; momenta are of the weights' type


def _side_by_side(weight, count):
    """The matrices [count, rows, columns] that a weight [rows, count * columns] is."""
    return weight.unflatten(1, (count, -1)).transpose(0, 1)


def _alike(tensors):
    """Those of the same shape, as many at a time as are worked on together."""
    by_shape = {}
    for tensor in tensors:
        by_shape.setdefault(tensor.shape, []).append(tensor)
    for shape, same in by_shape.items():
        size = max(1, TOGETHER // shape.numel())
        yield from (same[start : start + size] for start in range(0, len(same), size))


def orthogonalize(matrices, size=1.0):
    """`matrices` [n, rows, columns] with their singular values all moved near to `size`.

    Each iteration multiplies by a polynomial of the Gram matrix. They are worked out on Gram matrices alone, as large
    as the shorter side, and their product is multiplied with once: less work where matrices are not square.
    """
    x, wide = matrices.to(_precision(matrices.device)), matrices.shape[1] <= matrices.shape[2]
    gram = x @ x.mT if wide else x.mT @ x
    most = gram.norm(dim=(1, 2), keepdim=True).clamp(min=1e-18)  # no eigenvalue is above
    gram = gram / most
    root = polynomial = None
    for a, b, c in COEFFICIENTS:
        if root is not None:
            gram = polynomial @ gram @ polynomial
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal(dim1=1, dim2=2).add_(a)
        root = polynomial if root is None else polynomial @ root
    root = root * (size / most.sqrt())
    return root @ x if wide else x @ root


def _precision(device):
    return torch.bfloat16 if computes_bfloat16(device) else torch.float32


def share(work, matrices):
    """`work(matrices)`, along whose first dimension each rank does a part."""
    if not is_distributed() or distributed.get_world_size() == 1:
        return work(matrices)
    ranks, rank = distributed.get_world_size(), distributed.get_rank()
    size = -(-len(matrices) // ranks)
    own = matrices[rank * size : (rank + 1) * size]
    done = matrices.new_zeros(size, *matrices.shape[1:], dtype=_precision(matrices.device))
    if len(own):
        done[: len(own)] = work(own)
    everything = done.new_empty(ranks * size, *matrices.shape[1:])
    # Its name since torch 2.13, which warns of the other; IPEX's torch knows that one alone.
    gather = getattr(distributed, "all_gather_single", distributed.all_gather_into_tensor)
    gather(everything, done)
    return everything[: len(matrices)]


def layer_matrices(model):
    """The trained matrices of a model's layers, by how many stand side by side in each weight.

    GPT-2's c_attn is three for each head. No embeddings, of tokens or of positions, and no output layer, tied or not.
    """
    embeddings = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    others = {id(layer.weight) for layer in [*embeddings, *embedding_layers(model)]}
    several = 3 * getattr(model.config, "n_head", 1)
    found = {1: [], several: []}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.nn.Parameter) and weight.requires_grad and weight.ndim == 2:
            is_several = isinstance(module, Conv1D) and name.endswith("attn.c_attn") and module.nf == 3 * module.nx
            if id(weight) not in others:
                found[several if is_several else 1].append(weight)
    return found
