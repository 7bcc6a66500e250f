"""The forward and backward pass of a batch, recorded as a graph of the device and replayed.

A pass submits over a thousand small pieces of work, and a processor that submits them one by one is slower
than a fast GPU that does them. Recorded, the pass is submitted whole. The batches must all be of one shape.
"""

from functools import partial

import torch
import torch.distributed

from gpt2_korean.device import record_graph

WARM_UP = 3  # passes as they are: libraries and compilers set themselves up in the first ones
BUCKET = 2**24  # numbers that ranks exchange at a time


class RecordedStep:
    """Calls what it is given, `pass_(inputs, items)`, which computes a loss and its gradients, and returns the loss.

    accumulates: whether a step of the optimizer is several passes, whose gradients add up. The graph then is of a
    pass that adds to gradients, else of one that makes them, which takes less time.
    """

    def __init__(self, parameters, device, accumulates=False):
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.device, self.accumulates = device, accumulates
        self.passes = 0
        self.graph = None

    def __call__(self, pass_, inputs, items):
        """inputs: the tensors of a batch by name; items: [], how many labels the loss is a mean over."""
        self.passes += 1
        adds = self.parameters[0].grad is not None
        if self.graph is None:
            if self.passes <= WARM_UP or adds != self.accumulates:
                return pass_(inputs, items)
            self._record(pass_, inputs, items)
        elif self.accumulates and not adds:
            torch._foreach_zero_(self.gradients)
        for name, tensor in inputs.items():
            self.inputs[name].copy_(tensor, non_blocking=True)
        self.items.copy_(items, non_blocking=True)
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        self.graph.replay()
        return self.loss.clone()

    def _record(self, pass_, inputs, items):
        self.inputs, self.items = {name: tensor.clone() for name, tensor in inputs.items()}, items.clone()
        torch.accelerator.empty_cache()  # what the passes before it used is used no more
        self.graph, self.loss = record_graph(partial(pass_, self.inputs, self.items), self.device)
        self.gradients = [parameter.grad for parameter in self.parameters]


def start_alike(model):
    """Give all ranks the first one's weights, as DistributedDataParallel does."""
    for tensor in model.state_dict().values():
        torch.distributed.broadcast(tensor, 0)


def average_over_ranks(parameters):
    """Replace the gradients of `parameters` by their mean over all ranks, as DistributedDataParallel does."""
    bucket, size = [], 0
    for gradient in (parameter.grad for parameter in parameters if parameter.grad is not None):
        bucket.append(gradient)
        size += gradient.numel()
        if size >= BUCKET:
            _average(bucket)
            bucket, size = [], 0
    if bucket:
        _average(bucket)


def _average(gradients):
    together = torch.cat([gradient.reshape(-1) for gradient in gradients])
    torch.distributed.all_reduce(together)
    parts = together.div_(torch.distributed.get_world_size()).split([gradient.numel() for gradient in gradients])
    torch._foreach_copy_(gradients, [part.view_as(to) for part, to in zip(parts, gradients, strict=True)])
