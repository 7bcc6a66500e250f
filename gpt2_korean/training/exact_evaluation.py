"""How Trainer evaluates: over all tokens and by characters, on any number of ranks, until the run is asked to stop."""

import math

import torch
from torch.utils.data import ConcatDataset

from gpt2_korean.text.blocks import count_targets
from gpt2_korean.training.stepping import SteppingTrainer
from gpt2_korean.training.stopping import StopRequest


class EvaluationStopped(Exception):
    """The run was asked to stop while it evaluated."""


class EvaluatingTrainer(SteppingTrainer):
    """A Trainer that evaluates exactly.

    Trainer's own eval_loss is a mean over blocks, in which a short block weighs as much as a full one,
    and a loss per token says nothing across tokenizers. Here eval_loss is the mean over tokens, and
    eval_bits_per_character the sum of -log2 p(token), end-of-text tokens included, over the characters
    of the evaluated documents, of which there are `eval_characters`.

    stop: asked at every evaluated batch; an evaluation that it cuts short is made up for by the run that goes on.
    """

    def __init__(self, *args, eval_characters=None, stop=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.eval_characters = eval_characters
        self.stop = stop or StopRequest()
        self.evaluation_due = False
        self.evaluated = {}  # step → metrics, of this process and the weights as they are

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """The summed loss (nats) of a batch, per block: what evaluation_loop averages over blocks."""
        if self.stop.agreed(self.args.device):
            raise EvaluationStopped
        inputs = self._prepare_inputs(inputs)
        targets = (inputs["labels"][:, 1:] != -100).sum()
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs)
        nats = torch.where(targets > 0, loss.detach().float() * targets, 0.0)  # a mean over no targets is NaN
        return nats / len(inputs["labels"]), None, None

    def get_eval_dataloader(self, eval_dataset=None):
        # Where the ranks' shares are uneven accelerate gives some blocks twice; blocks without a target even them.
        blocks = self.eval_dataset if eval_dataset is None else eval_dataset
        missing = -len(blocks) % (self.args.eval_batch_size * self.args.world_size) if self.args.world_size > 1 else 0
        if missing:
            blocks = ConcatDataset([blocks, [{"input_ids": blocks[0]["input_ids"][:1]}] * missing])
        return super().get_eval_dataloader(blocks)

    def evaluate(self, *args, **kwargs):
        # A data loader draws a seed wherever it starts; evaluation must not move what training draws.
        with torch.random.fork_rng(devices=[]), self.meter.paused():
            metrics = self.evaluated[self.state.global_step] = super().evaluate(*args, **kwargs)
        self.evaluation_due = False
        return metrics

    def evaluation_loop(self, dataloader, *args, metric_key_prefix="eval", **kwargs):
        output = super().evaluation_loop(dataloader, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        nats = output.metrics.pop(f"{metric_key_prefix}_loss") * len(dataloader.dataset)
        output.metrics.update(
            {f"{metric_key_prefix}_{name}": value for name, value in self._eval_metrics(nats).items()}
        )
        return output

    def _eval_metrics(self, nats):
        loss = nats / count_targets(self.eval_dataset)
        return {
            "loss": loss,
            "perplexity": math.exp(loss) if loss < 700 else math.inf,
            "bits_per_character": nats / math.log(2) / self.eval_characters,
        }
