"""How Trainer steps: batches of one shape, recorded passes, ranks, memory that runs out, and the speed of it all."""

import math
from functools import cache, partial

from transformers import Trainer

from gpt2_korean.device import describe_device
from gpt2_korean.messages import say, warn
from gpt2_korean.model.embeddings import embedding_layers, split_off
from gpt2_korean.speed.graphs import RecordedStep, average_over_ranks, start_alike
from gpt2_korean.speed.throughput import TokenMeter, flops_per_token, peak_flops
from gpt2_korean.text.blocks import fill_up


class SteppingTrainer(Trainer):
    """A Trainer that can replay its steps, and tells how fast it takes them.

    tokens_per_character: of the text to learn, where it is known.
    full_length: fill each batch up to the same number of blocks of this length, as compiled and recorded steps need.
    recorded: replay each pass as a graph of the device. Several ranks then average their gradients here, since the
    hooks of DistributedDataParallel stand in the way of a recording.
    embedding_learning_rate: the embeddings' own peak, None for the one of all weights.
    """

    def __init__(
        self, *args, tokens_per_character=None, full_length=None, recorded=False, embedding_learning_rate=None, **kwargs
    ):
        super().__init__(*args, **kwargs)
        self.embedding_learning_rate = embedding_learning_rate
        self.tokens_per_character, self.full_length = tokens_per_character, full_length
        self.blocks_per_step = self._train_batch_size * self.args.gradient_accumulation_steps
        self.meter = TokenMeter()
        self.flops_per_token = cache(partial(flops_per_token, self.model))  # asked of at every pass
        self.recorded_step = self._new_recorded_step() if recorded else None
        if recorded and self.args.world_size > 1:
            self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)
            start_alike(self.model)

    def _new_recorded_step(self):
        accumulates = self.args.gradient_accumulation_steps > 1
        return RecordedStep(self.model.parameters(), self.args.device, accumulates)

    def create_optimizer(self, model=None):
        made = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if made and self.embedding_learning_rate is not None:
            weights = [layer.weight for layer in embedding_layers(self.model if model is None else model)]
            if not split_off(optimizer, weights, self.embedding_learning_rate):
                warn("임베딩의 가중치가 따로 있지 않아 --learning_rate로 배웁니다(--embedding_learning_rate, --fsdp).")
        return optimizer

    def training_step(self, model, inputs, num_items_in_batch=None):
        self.meter.add(inputs["input_ids"].numel() * self.args.world_size)
        inputs = self._prepare_inputs(inputs)
        if self.full_length is not None:
            inputs = fill_up(inputs, self._train_batch_size, self.full_length)
        if self.recorded_step is None:
            return super().training_step(model, inputs, num_items_in_batch)
        loss = self.recorded_step(partial(super().training_step, model), inputs, num_items_in_batch)
        if self.args.world_size > 1 and self.accelerator.sync_gradients:
            average_over_ranks(self.recorded_step.parameters)
        return loss

    def _update_auto_batch_size(self, batch_size):
        """The most blocks at a time up to `batch_size` with which a step of the optimizer sees as many as before."""
        fitting = max(size for size in range(1, batch_size + 1) if self.blocks_per_step % size == 0)
        self.args.gradient_accumulation_steps = self.blocks_per_step // fitting
        if self.recorded_step is not None:
            self.recorded_step = self._new_recorded_step()
        super()._update_auto_batch_size(fitting)
        if fitting < self.args.per_device_train_batch_size:
            say(
                f"--auto_find_batch_size: 한 번에 블록 {fitting}개씩 {self.args.gradient_accumulation_steps}번을 "
                "한 스텝으로 학습합니다."
            )

    def floating_point_ops(self, inputs):
        return self.flops_per_token(inputs["input_ids"].shape[1]) * inputs["input_ids"].numel()

    def log(self, logs, start_time=None):
        speeds = {}
        if "loss" in logs:
            speeds["tokens_per_second"] = self.meter.read()
        elif "train_runtime" in logs:
            speeds["train_tokens_per_second"] = self.meter.overall()
            speeds["train_mfu"] = self._model_flops_utilization(speeds["train_tokens_per_second"])
        logs |= {name: speed for name, speed in speeds.items() if speed is not None}
        super().log(logs, start_time)

    def _model_flops_utilization(self, tokens_per_second):
        peak = peak_flops(describe_device(self.args.device))
        if peak is None or tokens_per_second is None or not self.full_length:
            return None
        flops = self.flops_per_token(self.full_length) * tokens_per_second
        return flops / (peak * self.args.world_size)

    def describe_progress(self):
        """What the progress bar shows beside the steps: a list of words. Waits for the device."""
        speed, steps = self.meter.overall(), self.state.global_step - self._globalstep_last_logged
        words = [] if speed is None else [f"초당 토큰 {speed:,.0f}"]
        if steps:
            loss = self._tr_loss.item() / steps
            words.append(f"손실 {loss:.3f}")
            if self.tokens_per_character is not None:
                words.append(f"글자당 비트 {loss / math.log(2) * self.tokens_per_character:.3f}")
        return words
