"""The forward and backward pass of a batch, recorded as a graph of the device and replayed.

A pass submits over a thousand small pieces of work, and a processor that submits them one by one is slower
than a fast GPU that does them. Recorded, the pass is submitted whole. The batches must all be of one shape.
"""

from contextlib import contextmanager, nullcontext

import torch
import torch.distributed

from gpt2_korean.device import record_graph
from gpt2_korean.speed.loss import casts_kept

WARM_UP = 3  # passes as they are: libraries and compilers set themselves up in the first ones
BUCKET = 2**24  # numbers that ranks exchange at a time


class RecordedStep:
    """Calls what it is given, `pass_(inputs, items)`, which computes a loss and its gradients, and returns the loss.

    A step of the optimizer may be several passes, whose gradients add up. The first makes gradients and casts the
    weights for all of them, the last exchanges gradients with the other ranks: each kind of pass is a graph of its
    own, all in one memory. sent_dtype: in which ranks exchange gradients; None: in their own.
    """

    def __init__(self, parameters, device, sent_dtype=None):
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.device, self.sent_dtype = device, sent_dtype
        self.passes = 0
        self.graphs, self.casts = {}, {}

    def __call__(self, pass_, inputs, items, exchanges=False):
        """inputs: the tensors of a batch by name; items: [], how many labels the loss is a mean over.

        exchanges: whether the gradients become their means over all ranks.
        """
        self.passes += 1
        adds = self.parameters[0].grad is not None
        if not self.graphs:
            if self.passes <= WARM_UP or adds:
                return self._pass(pass_, exchanges, inputs, items)
            self.inputs, self.items = {name: tensor.clone() for name, tensor in inputs.items()}, items.clone()
            torch.accelerator.empty_cache()  # what the passes before it used is used no more
        elif not adds and (False, exchanges) not in self.graphs:  # a shorter step than others, at the end of an epoch
            torch._foreach_zero_(self.gradients)
            for weight, cast in self.casts.values():
                cast[: len(weight)].copy_(weight)
            self._give_gradients()
            adds = True
        if (adds, exchanges) not in self.graphs:
            self._record(pass_, adds, exchanges)
        for name, tensor in inputs.items():
            self.inputs[name].copy_(tensor, non_blocking=True)
        self.items.copy_(items, non_blocking=True)
        self._give_gradients()
        graph, loss = self.graphs[adds, exchanges]
        graph.replay()
        return loss.clone()

    def _record(self, pass_, adds, exchanges):
        def work():
            if not adds:
                self.casts.clear()
            with casts_kept(self.casts):
                return self._pass(pass_, exchanges, self.inputs, self.items)

        before = next((graph for graph, _ in self.graphs.values()), None)
        self.graphs[adds, exchanges] = record_graph(work, self.device, before)
        if before is None:
            self.parameters = [parameter for parameter in self.parameters if parameter.grad is not None]
            self.gradients = [parameter.grad for parameter in self.parameters]

    def _give_gradients(self):
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient

    def _pass(self, pass_, exchanges, inputs, items):
        """`pass_`, whose gradients of biases and norms, many and small, are added all at once."""
        small = [parameter for parameter in self.parameters if parameter.dim() < 2 and parameter.grad is not None]
        totals = [parameter.grad for parameter in small]
        for parameter in small:
            parameter.grad = None
        with averaged_over_ranks(self.parameters, self.sent_dtype) if exchanges else nullcontext():
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


@contextmanager
def averaged_over_ranks(parameters, sent_dtype=None):
    """Make the gradients of what is computed within their means over all ranks, as DistributedDataParallel does.

    They are on their way while others are computed: each bucket of them as soon as it is full. All ranks must compute
    the same, so that the buckets are the same. sent_dtype: as in RecordedStep.
    """
    bucket, on_the_way, matrices = [], [], [parameter for parameter in parameters if parameter.dim() >= 2]

    def send():
        gradients = [parameter.grad for parameter in bucket]
        sizes = [gradient.numel() for gradient in gradients]
        together = torch.empty(sum(sizes), dtype=sent_dtype or gradients[0].dtype, device=gradients[0].device)
        parts = [part.view_as(to) for part, to in zip(together.split(sizes), gradients, strict=True)]
        torch._foreach_copy_(parts, gradients)
        together.div_(torch.distributed.get_world_size())
        work = torch.distributed.all_reduce(together, async_op=True)
        on_the_way.append((work, gradients, parts))
        bucket.clear()

    def take(parameter):
        bucket.append(parameter)
        if sum(parameter.numel() for parameter in bucket) >= BUCKET:
            send()

    handles = [parameter.register_post_accumulate_grad_hook(take) for parameter in matrices]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    bucket += [parameter for parameter in parameters if parameter.dim() < 2 and parameter.grad is not None]
    if bucket:
        send()
    for work, gradients, parts in on_the_way:
        work.wait()
        torch._foreach_copy_(gradients, parts)
