"""Blocks and a model → a Trainer that evaluates in bits per character and saves its last state.

The only file that knows Trainer.
"""

import math
import os
import shutil
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import unwrap_peft_model

from gpt2_korean import lora
from gpt2_korean.blocks import collate, count_targets
from gpt2_korean.checkpoints import ADAPTER, drop_old_checkpoints, remove_checkpoint, remove_earlier_run
from gpt2_korean.messages import UsageError, UserError, describe_os_error


class KoreanTrainer(Trainer):
    """A Trainer that evaluates exactly, over all tokens and by characters, and leaves no half checkpoint.

    Trainer's own eval_loss is a mean over blocks, in which a short block weighs as much as a full one,
    and a loss per token says nothing across tokenizers. Here eval_loss is the mean over tokens, and
    eval_bits_per_character the sum of -log2 p(token), end-of-text tokens included, over the characters
    of the evaluated documents.
    """

    def __init__(self, *args, eval_characters=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.eval_characters = eval_characters
        self.replaces_earlier_run = False

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

    def _save_checkpoint(self, model, trial):
        output_dir = Path(self.args.output_dir)
        checkpoint = output_dir / f"checkpoint-{self.state.global_step}"
        # An earlier run gives way only once this one has a checkpoint to show: whatever ends it before,
        # the old model is still there.
        replaces = self.replaces_earlier_run and self.is_world_process_zero()
        if replaces:
            remove_checkpoint(checkpoint)
        with _saving(checkpoint):
            super()._save_checkpoint(model, trial)
        if replaces:
            remove_earlier_run(output_dir, keep=checkpoint)
        self.replaces_earlier_run = False

    def save_whole_model(self):
        """Save the model into output_dir itself: written beside, then moved, so that no half one ever stands there."""
        output_dir = Path(self.args.output_dir)
        staging = output_dir / "checkpoint-last"
        with _saving(staging):
            if lora.is_adapted(self.model):
                self.save_model(str(staging / ADAPTER), _internal_call=True)
                self.model = lora.merge(self.model)
            self.save_model(str(staging), _internal_call=True)
            if self.is_world_process_zero():
                shutil.copytree(staging, output_dir, dirs_exist_ok=True, copy_function=os.replace)
                shutil.rmtree(staging)
        if self.args.push_to_hub:
            self.push_to_hub()


@contextmanager
def _saving(folder):
    """Turn a failure to write `folder` into a UserError, and remove what was written of it."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch and safetensors raise errors of their own, in which the system's is lost or only quoted.
        words = f"디스크의 남은 공간과 폴더의 권한을 확인하세요 ({str(error).splitlines()[0]})."
        reason = describe_os_error(error) if isinstance(error, OSError) else words
        remove_checkpoint(folder)
        raise UserError(
            f"{folder}: 저장하지 못했습니다. {reason}\n앞서 저장된 체크포인트는 그대로 있습니다."
        ) from error


class KeepCheckpoints(TrainerCallback):
    """Save at the last step whatever the interval, and keep the newest `limit` checkpoints (None: all).

    Trainer's own rotation deletes whole folders, by age, of any name that begins with checkpoint-.
    """

    def __init__(self, limit):
        self.limit = limit

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps:
            control.should_save = True

    def on_save(self, args, state, control, **kwargs):
        if self.limit is not None and state.is_world_process_zero:
            drop_old_checkpoints(args.output_dir, self.limit, keep=state.best_model_checkpoint)


LOG_WORDS = {
    "loss": "손실",
    "grad_norm": "기울기 크기",
    "learning_rate": "학습률",
    "epoch": "에폭",
    "eval_loss": "평가 손실",
    "eval_perplexity": "혼란도",
    "eval_bits_per_character": "글자당 비트",
}


class LogLines(TrainerCallback):
    """A line on stderr for each log entry: Trainer's own go to stdout, which is for results."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        known = [f"{word} {float(logs[name]):.4g}" for name, word in LOG_WORDS.items() if name in logs]
        if len(known) > 1 and state.is_world_process_zero:
            tqdm.write(f"[{state.global_step}/{state.max_steps}] " + " · ".join(known), file=sys.stderr)


class ProgressBar(ProgressCallback):
    """Trainer's progress bar without its log lines."""

    def on_log(self, *args, **kwargs):
        pass


def build_arguments(trainer_arguments, device, bf16, fp16, logging_dir):
    """TrainingArguments on `device`.

    Raises UsageError for values that only transformers can refuse, and where it would choose another
    device than we did.
    """
    arguments = {**trainer_arguments, "bf16": bf16, "fp16": fp16, "use_cpu": device.type == "cpu"}
    for ours in ("resume_from_checkpoint", "save_total_limit"):
        arguments.pop(ours, None)
    if arguments.get("eval_steps") is not None:
        arguments.setdefault("eval_strategy", "steps")
    # The writer of its callback knows no other way to be told where; see TensorBoardCallback.
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(logging_dir)
    if device.type == "xpu" and os.environ.get("WORLD_SIZE", "1") == "1":
        # Where both are present TrainingArguments takes the XPU and accelerate the CUDA device.
        os.environ.setdefault("ACCELERATE_TORCH_DEVICE", "xpu")
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


def build_trainer(model, tokenizer, arguments, train_blocks, eval_blocks, eval_characters, save_total_limit):
    """A KoreanTrainer over packed blocks (see blocks.py), either of them None where it is not needed.

    eval_characters: the length of the evaluated text.
    save_total_limit: how many checkpoints to keep, None for all.
    """
    # GPT-2's class name does not tell transformers which loss is meant; it warns, then takes this one.
    language_model = unwrap_peft_model(model)
    language_model.loss_type = "ForCausalLM"
    # End-of-text stands between documents, and where it is the padding token too, transformers looks in
    # every batch for padding without a mask: a warning that is wrong here, and a stop of the device.
    language_model.base_model.warn_if_padding_and_no_attention_mask = lambda *_: None
    trainer = KoreanTrainer(
        model=model,
        args=arguments,
        data_collator=partial(collate, pad_token_id=tokenizer.pad_token_id),
        train_dataset=train_blocks,
        eval_dataset=eval_blocks,
        processing_class=tokenizer,
        callbacks=[KeepCheckpoints(save_total_limit)],
        eval_characters=eval_characters,
    )
    trainer.pop_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback) is not None:  # absent where --disable_tqdm was given
        trainer.add_callback(ProgressBar())
    trainer.add_callback(LogLines())
    return trainer


def train(trainer, checkpoint=None):
    """Train to the end, from a checkpoint folder if one is given, and leave a whole model in output_dir itself.

    A run from the start replaces what an earlier one left in output_dir, at its first save. Raises
    UserError where something cannot be saved or the device's memory does not suffice.
    """
    trainer.replaces_earlier_run = checkpoint is None
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except torch.OutOfMemoryError as error:
        raise UserError(
            "장치의 메모리가 모자랍니다. --per_device_train_batch_size를 줄이고 --gradient_accumulation_steps를 "
            "그만큼 늘리거나,\n--gradient_checkpointing을 더하거나, --block_size를 줄이세요."
        ) from error
    trainer.save_whole_model()
