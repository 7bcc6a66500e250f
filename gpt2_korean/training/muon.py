"""Muon for the matrices of a model's layers and AdamW for all else, as one optimizer.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) turns the momentum of a matrix into the nearest matrix
whose singular values are all about 1, so that rare directions are learnt as fast as frequent ones. Its steps are
scaled to the size of AdamW's (Liu et al. 2025, arXiv 2502.16982): learning rate and weight decay carry over.

torch.optim.Muon does the same one matrix at a time, knows no weight that is several matrices side by side, and has
each rank do all of the work.
"""

import math

import torch
import torch.distributed as distributed
from torch.optim import AdamW
from transformers.pytorch_utils import Conv1D

from gpt2_korean.device import computes_bfloat16
from gpt2_korean.model.embeddings import embedding_layers

MOMENTUM = 0.95
# Of Newton and Schulz's iteration as Jordan tuned it, who took five steps; four learn as much (benchmarks/RESULTS.md).
COEFFICIENTS, STEPS = (3.4445, -4.7750, 2.0315), 4
TOGETHER = 2**26  # numbers that are worked on at a time


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
        weights = [weight for weight in group["params"] if weight.grad is not None]
        ahead = []
        for weight in weights:
            state = self.state[weight]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(weight)
            momentum = state["momentum_buffer"].lerp_(weight.grad, 1 - MOMENTUM)
            ahead.append(weight.grad.lerp(momentum, MOMENTUM))  # Nesterov's
            weight.mul_(1 - group["lr"] * group["weight_decay"])
        for places in _alike(ahead):
            each = torch.stack([ahead[place] for place in places])
            rows, columns = each.shape[1], each.shape[2] // group["matrices"]
            parts = each.unflatten(2, (group["matrices"], columns)).transpose(1, 2).flatten(0, 1)
            steps = share(orthogonalize, parts).unflatten(0, (len(places), -1)).transpose(1, 2).flatten(2)
            scale = group["lr"] * 0.2 * math.sqrt(max(rows, columns))
            for place, step in zip(places, steps, strict=True):
                weights[place].add_(step, alpha=-scale)


def _others(groups):
    return [group for group in groups if not group["matrices"]]


def _alike(tensors):
    """Their places by shape, as many at a time as are worked on together."""
    by_shape = {}
    for place, tensor in enumerate(tensors):
        by_shape.setdefault(tensor.shape, []).append(place)
    for shape, places in by_shape.items():
        size = max(1, TOGETHER // shape.numel())
        yield from (places[start : start + size] for start in range(0, len(places), size))


def orthogonalize(matrices):
    """`matrices` [n, rows, columns] with their singular values all moved near to 1, in the precision of the device."""
    a, b, c = COEFFICIENTS
    dtype = torch.bfloat16 if computes_bfloat16(matrices.device) else torch.float32
    wide = matrices.shape[1] <= matrices.shape[2]
    x = (matrices if wide else matrices.mT).to(dtype)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)  # none is above 1 then
    for _ in range(STEPS):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal(dim1=1, dim2=2).add_(a)
        x = polynomial @ x
    return x if wide else x.mT


def share(work, matrices):
    """`work(matrices)`, along whose first dimension each rank does a part."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return work(matrices)
    ranks, rank = distributed.get_world_size(), distributed.get_rank()
    size = -(-len(matrices) // ranks)
    own = matrices[rank * size : (rank + 1) * size]
    done = matrices.new_zeros(size, *matrices.shape[1:], dtype=torch.bfloat16)
    if len(own):
        done[: len(own)] = work(own)
    everything = done.new_empty(ranks * size, *matrices.shape[1:])
    distributed.all_gather_into_tensor(everything, done)
    return everything[: len(matrices)]


def layer_matrices(model):
    """The trained matrices of a model's layers, by how many stand side by side in each weight: 3 in GPT-2's c_attn.

    No embeddings, of tokens or of positions, and no output layer, tied or not.
    """
    embeddings = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    others = {id(layer.weight) for layer in [*embeddings, *embedding_layers(model)]}
    found = {1: [], 3: []}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.nn.Parameter) and weight.requires_grad and weight.ndim == 2:
            is_three = isinstance(module, Conv1D) and name.endswith("attn.c_attn") and module.nf == 3 * module.nx
            if id(weight) not in others:
                found[3 if is_three else 1].append(weight)
    return found
