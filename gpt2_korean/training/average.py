"""The mean of the weights over the last part of a run, which --average_last leaves as its result.

Late steps move about what they aim at, and their mean stands nearer to it than any of them (Izmailov et al. 2018,
arXiv 1803.05407; of language models Kaddour 2022, arXiv 2209.14981). The run learns on with its weights as they are,
and so its checkpoints hold them; the mean stands in a file beside them.
"""

import math
from functools import cached_property
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import TrainerCallback

from gpt2_korean.checkpoints.complete import AVERAGE
from gpt2_korean.messages import say, warn
from gpt2_korean.training.evaluation import evaluate


class AverageWeights(TrainerCallback):
    """Keeps the mean of the weights that a Trainer trains, after each of the last steps of a run.

    It is float32 and on their device, where it takes as much memory as they do.
    last: how many steps, or below 1 which share of the run.
    """

    def __init__(self, trainer, last):
        self.trainer, self.last = trainer, last
        self.means, self.since = {}, None

    def on_train_begin(self, args, state, control, **kwargs):
        self.means, self.since = {}, None  # where memory did not suffice, a run begins twice

    @torch.no_grad()
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step <= self._start():
            return
        if self.since is None:
            self.since = state.global_step - 1
            self.means = {
                name: torch.zeros_like(weight, dtype=torch.float32, memory_format=torch.contiguous_format)
                for name, weight in self._weights.items()
            }
        for name, weight in self._weights.items():
            self.means[name].lerp_(weight.float(), 1 / self.steps())

    def steps(self):
        """Over how many steps the mean is."""
        return 0 if self.since is None else self.trainer.state.global_step - self.since

    @torch.no_grad()
    def swap(self):
        """Exchange the weights for their mean: once more, and they are as they were."""
        for name, weight in self._weights.items():
            kept = weight.clone()
            weight.copy_(self.means[name])
            self.means[name].copy_(kept)

    def save(self, checkpoint):
        """Write the mean, where there is one, into the folder of a checkpoint."""
        if self.since is not None:
            save_file(self.means, checkpoint / AVERAGE, {"since": str(self.since)})

    def load(self, checkpoint):
        """Take up the mean of a checkpoint, unless it reaches back beyond the last part of a run that is now longer.

        Raises whatever safetensors does, and KeyError or ValueError for the mean of other weights.
        """
        path = Path(checkpoint) / AVERAGE
        if not path.exists():
            return
        weights = self._weights
        with safe_open(path, framework="pt") as file:
            since = int(file.metadata()["since"])
            means = {name: file.get_tensor(name).to(weight.device, copy=True) for name, weight in weights.items()}
        if any(means[name].shape != weight.shape for name, weight in weights.items()):
            raise ValueError("of other weights")
        if since >= self._start():
            self.means, self.since = means, since

    def _start(self):
        """The step after which the last part of the run begins."""
        steps = self.trainer.state.max_steps
        return steps - (int(self.last) if self.last >= 1 else math.ceil(self.last * steps))

    @cached_property
    def _weights(self):
        return {name: weight for name, weight in self.trainer.model.named_parameters() if weight.requires_grad}


def take_average(trainer):
    """Make the model of `trainer`, whose run has ended, the mean of its weights, where --average_last asks for it.

    Where the best model has been loaded, the mean is measured, and stays only if it is better still.
    """
    if trainer.average is None:
        return
    steps = trainer.average.steps()
    if not steps:
        warn("--average_last: 그만큼의 마지막 스텝에 이르기 전에 마쳐 평균하지 않았습니다.")
        return
    trainer.average.swap()
    trainer.evaluated.clear()
    best, trainer.holds_best = trainer.holds_best, False
    told, way = f"마지막 {steps:,}스텝의 가중치를 평균한 모델", ""
    if best:
        metric, state = trainer.args.metric_for_best_model, trainer.state
        bits = evaluate(trainer)[metric]
        way = f"({metric}: {state.best_global_step:,}스텝 {state.best_metric:.4f}, 평균 {bits:.4f})"
        if bits >= state.best_metric:
            trainer.average.swap()
            trainer.evaluated.clear()
            trainer.holds_best = True
            say(f"{told}이 더 낫지 않아 {state.best_global_step:,}스텝의 모델을 남깁니다{way}.")
            return
    trainer.averaged_steps = steps
    say(f"{told}을 남깁니다{way}.")
