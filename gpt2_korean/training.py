"""Blocks and a model → a Trainer that evaluates in bits per character and saves its last state.

The only file that knows Trainer.
"""

import math
import os
import sys
from functools import partial

import torch
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import ProgressCallback

from gpt2_korean.blocks import collate, count_targets
from gpt2_korean.messages import UsageError, say


class KoreanTrainer(Trainer):
    """A Trainer whose evaluation is exact over all tokens and also counts by characters.

    Trainer's own eval_loss is a mean over blocks, in which a short block weighs as much as a full one,
    and a loss per token says nothing across tokenizers. Here eval_loss is the mean over tokens, and
    eval_bits_per_character the sum of -log2 p(token), end-of-text tokens included, over the characters
    of the evaluated documents.
    """

    def __init__(self, *args, eval_characters=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.eval_characters = eval_characters

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """The summed loss (nats) of a batch, per block: what evaluation_loop averages over blocks."""
        inputs = self._prepare_inputs(inputs)
        targets = (inputs["labels"][:, 1:] != -100).sum()
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs)
        return loss.detach().float() * targets / len(inputs["labels"]), None, None

    def evaluation_loop(self, dataloader, *args, metric_key_prefix="eval", **kwargs):
        output = super().evaluation_loop(dataloader, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        nats = output.metrics.pop(f"{metric_key_prefix}_loss") * len(self.eval_dataset)
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


class SaveLastState(TrainerCallback):
    """Save a checkpoint at the last step, whatever the saving interval."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps:
            control.should_save = True


class StderrProgress(ProgressCallback):
    """Trainer's progress bar with its log lines on stderr: stdout is for results."""

    WORDS = {
        "loss": "손실",
        "grad_norm": "기울기 크기",
        "learning_rate": "학습률",
        "epoch": "에폭",
        "eval_loss": "평가 손실",
        "eval_perplexity": "혼란도",
        "eval_bits_per_character": "글자당 비트",
    }

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero:
            return
        known = [f"{word} {float(logs[name]):.4g}" for name, word in self.WORDS.items() if name in logs]
        if len(known) > 1:
            tqdm.write(f"[{state.global_step}/{state.max_steps}] " + " · ".join(known), file=sys.stderr)


def build_arguments(trainer_arguments, device, bf16, fp16, logging_dir):
    """TrainingArguments on `device`.

    Raises UsageError for values that only transformers can refuse, and where it would choose another
    device than we did.
    """
    arguments = {**trainer_arguments, "bf16": bf16, "fp16": fp16, "use_cpu": device.type == "cpu"}
    arguments.pop("resume_from_checkpoint", None)
    if arguments.get("eval_steps") is not None:
        arguments.setdefault("eval_strategy", "steps")
    # The writer of its callback knows no other way to be told where; see TensorBoardCallback.
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(logging_dir)
    try:
        arguments = TrainingArguments(**arguments, remove_unused_columns=False)
    except (ValueError, TypeError) as error:
        raise UsageError(f"학습 설정이 맞지 않습니다: {error}") from None
    if arguments.device.type != device.type:
        raise UsageError(
            f"--device={device.type}: transformers는 {arguments.device.type}을(를) 고릅니다. "
            "CUDA_VISIBLE_DEVICES 또는 ZE_AFFINITY_MASK로 다른 장치를 가리세요."
        )
    return arguments


def build_trainer(model, tokenizer, arguments, train_blocks=None, eval_blocks=None, eval_characters=None):
    """A KoreanTrainer over packed blocks (see blocks.py); `eval_characters` is the length of the evaluated text."""
    trainer = KoreanTrainer(
        model=model,
        args=arguments,
        data_collator=partial(collate, pad_token_id=tokenizer.pad_token_id),
        train_dataset=train_blocks,
        eval_dataset=eval_blocks,
        processing_class=tokenizer,
        callbacks=[SaveLastState()],
        eval_characters=eval_characters,
    )
    if trainer.pop_callback(ProgressCallback) is not None:  # absent where --disable_tqdm was given
        trainer.add_callback(StderrProgress())
    return trainer
