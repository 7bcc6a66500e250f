"""The forward and backward pass of a batch, recorded as a graph of the device and replayed.

A pass submits over a thousand small pieces of work, and a processor that submits them one by one is slower
than a fast GPU that does them. Recorded, the pass is submitted whole. The batches must all be of one shape.
"""

import torch
import torch.distributed

from gpt2_korean.device import record_graph
from gpt2_korean.speed.loss import casts_kept

WARM_UP = 3  # passes as they are: libraries and compilers set themselves up in the first ones
BUCKET = 2**27  # numbers that ranks exchange at a time


class RecordedStep:
    """Calls what it is given, `pass_(inputs, items)`, which computes a loss and its gradients, and returns the loss.

    A step of the optimizer may be several passes, whose gradients add up: the first makes them and casts the weights
    for all of them, the others add to them. Each kind of pass is a graph of its own, both in one memory.
    """

    def __init__(self, parameters, device):
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.device = device
        self.passes = 0
        self.graphs, self.casts = {}, {}  # whether a pass adds to gradients → (its graph, its loss); see loss.cast

    def __call__(self, pass_, inputs, items):
        """inputs: the tensors of a batch by name; items: [], how many labels the loss is a mean over."""
        self.passes += 1
        adds = self.parameters[0].grad is not None
        if not self.graphs:
            if self.passes <= WARM_UP or adds:
                return self._pass(pass_, inputs, items)
            self.inputs, self.items = {name: tensor.clone() for name, tensor in inputs.items()}, items.clone()
            torch.accelerator.empty_cache()  # what the passes before it used is used no more
        if adds not in self.graphs:
            self._record(pass_, adds)
        for name, tensor in inputs.items():
            self.inputs[name].copy_(tensor, non_blocking=True)
        self.items.copy_(items, non_blocking=True)
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        graph, loss = self.graphs[adds]
        graph.replay()
        return loss.clone()

    def _record(self, pass_, adds):
        def work():
            if not adds:
                self.casts.clear()
            with casts_kept(self.casts):
                return self._pass(pass_, self.inputs, self.items)

        before = self.graphs[False][0] if adds else None
        self.graphs[adds] = record_graph(work, self.device, before)
        if not adds:
            self.parameters = [parameter for parameter in self.parameters if parameter.grad is not None]
            self.gradients = [parameter.grad for parameter in self.parameters]

    def _pass(self, pass_, inputs, items):
        """`pass_`, whose gradients of biases and norms, many and small, are added all at once."""
        small = [parameter for parameter in self.parameters if parameter.dim() < 2 and parameter.grad is not None]
        totals = [parameter.grad for parameter in small]
        for parameter in small:
            parameter.grad = None
        loss = pass_(inputs, items)
        if small:
            torch._foreach_add_(totals, [parameter.grad for parameter in small])
        for parameter, total in zip(small, totals, strict=True):
            parameter.grad = total
        return loss


def start_alike(model):
    """Give all ranks the first one's weights, as DistributedDataParallel does."""
    for tensor in model.state_dict().values():
        torch.distributed.broadcast(tensor, 0)


def average_over_ranks(parameters, dtype=None):
    """Replace the gradients of `parameters` by their mean over all ranks, as DistributedDataParallel does.

    While one bucket is exchanged, the one before is put back and the next is filled. The exchange does not run beside
    the backward pass: it would take multiprocessors from matrix products that count on all of them, and cost more than
    it hides. dtype: in which they are exchanged; None: in their own.
    """
    bucket, size, before = [], 0, None
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    for number, gradient in enumerate(gradients, 1):
        bucket.append(gradient)
        size += gradient.numel()
        if size >= BUCKET or number == len(gradients):
            sent = _send(bucket, size, dtype or gradient.dtype)
            if before is not None:
                _put_back(*before)
            bucket, size, before = [], 0, sent
    _put_back(*before)


def _send(gradients, size, dtype):
    together = torch.empty(size, dtype=dtype, device=gradients[0].device)
    parts = together.split([gradient.numel() for gradient in gradients])
    parts = [part.view_as(to) for part, to in zip(parts, gradients, strict=True)]
    torch._foreach_copy_(parts, gradients)
    if torch.distributed.get_backend() == "nccl":
        return torch.distributed.all_reduce(together, torch.distributed.ReduceOp.AVG, async_op=True), gradients, parts
    together.div_(torch.distributed.get_world_size())
    return torch.distributed.all_reduce(together, async_op=True), gradients, parts


def _put_back(work, gradients, parts):
    work.wait()
    torch._foreach_copy_(gradients, parts)
