"""Blocks and a model → a Trainer; its run from the start or a checkpoint to the end or a stop."""

import os
import pickle
import signal
from functools import partial
from pathlib import Path

import torch
from transformers import TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerState
from transformers.trainer_utils import unwrap_peft_model
from transformers.training_args import ParallelMode

from gpt2_korean.checkpoints.complete import RESUME, STATE, read_json, trainer_state
from gpt2_korean.messages import Stopped, UsageError, UserError
from gpt2_korean.text.blocks import collate
from gpt2_korean.training.callbacks import (
    DrawCurve,
    GoOnAndStop,
    KeepCheckpoints,
    KeepRecord,
    LogLines,
    ProgressBar,
    StopEarly,
    WriteSamples,
    count_stalls,
)
from gpt2_korean.training.evaluation import evaluate
from gpt2_korean.training.plan import total_steps
from gpt2_korean.training.stopping import leave_together
from gpt2_korean.training.trainer import KoreanTrainer, NothingToTrain

# Flags of TrainingArguments that are ours to carry out: see speed_up.py. Trainer would compile the whole model, which
# takes several times as long, anew for each shape of a batch.
COMPILATION = ("torch_compile", "torch_compile_backend", "torch_compile_mode")


def build_arguments(trainer_arguments, device, bf16, fp16, logging_dir):
    """TrainingArguments on `device`.

    Raises UsageError for values that only transformers can refuse, for FSDP in a single process, and where
    transformers would choose another device than we did.
    """
    arguments = {**trainer_arguments, "bf16": bf16, "fp16": fp16, "use_cpu": device.type == "cpu"}
    for ours in ("resume_from_checkpoint", "save_total_limit", "enable_jit_checkpoint", *COMPILATION):
        arguments.pop(ours, None)
    # All weights of a language model have gradients in every pass; to look for others costs time.
    arguments.setdefault("ddp_find_unused_parameters", False)
    # Trainer would replace a loss that is not finite by the mean of the others and go on; in float16 the
    # step of such a loss is skipped, and that is right.
    arguments.setdefault("logging_nan_inf_filter", fp16)
    if device.type in ("cuda", "xpu") and arguments.get("dataloader_pin_memory", True):
        # Otherwise the copy of each batch to the device waits for the step before it, and the device then for the next.
        arguments.setdefault("accelerator_config", {"non_blocking": True})
    if arguments.get("eval_steps") is not None:
        arguments.setdefault("eval_strategy", "steps")
    # A run shorter than --logging_steps has a curve too, from its first step to its last.
    arguments.setdefault("logging_first_step", True)
    # transformers wants the intervals of saving and evaluating to agree for this; ours saves a new best at once.
    load_best = arguments.pop("load_best_model_at_end", False)
    # The writer of its callback knows no other way to be told where; see TensorBoardCallback.
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(logging_dir)
    if device.type == "xpu" and os.environ.get("WORLD_SIZE", "1") == "1":
        # Where both are present TrainingArguments takes the XPU and accelerate the CUDA device.
        os.environ.setdefault("ACCELERATE_TORCH_DEVICE", "xpu")
    if arguments.get("hub_token"):
        # In the environment the Hub's client finds it, and Trainer does not save it in training_args.bin.
        os.environ["HF_TOKEN"] = arguments.pop("hub_token")
    try:
        arguments = TrainingArguments(**arguments, remove_unused_columns=False)
    except (ValueError, TypeError) as error:
        raise UsageError(f"학습 설정이 맞지 않습니다: {error}") from None
    if arguments.fsdp and arguments.parallel_mode != ParallelMode.DISTRIBUTED:
        raise UsageError("--fsdp: 프로세스가 여럿이어야 합니다. torchrun --nproc_per_node=2 train.py ...로 실행하세요.")
    arguments.load_best_model_at_end = load_best
    if arguments.device.type != device.type:
        raise UsageError(
            f"--device={device.type}: transformers는 {arguments.device.type}을(를) 고릅니다. "
            "CUDA_VISIBLE_DEVICES 또는 ZE_AFFINITY_MASK로 다른 장치를 가리세요."
        )
    return arguments


def build_trainer(
    model, tokenizer, arguments, train_blocks, eval_blocks, eval_characters, save_total_limit, stop, record, **stepping
):
    """A KoreanTrainer over packed blocks (see blocks.py), either of them None where it is not needed.

    eval_characters: the length of the evaluated text.
    save_total_limit: how many checkpoints to keep, None for all.
    stop: a StopRequest; from here on it is asked at the end of each step and at each evaluated batch.
    record: what is to be told of the run, see run_record.py; the trainer adds to it.
    stepping: see KoreanTrainer and speed_up.
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
        stop=stop,
        record=record,
        **stepping,
    )
    trainer.pop_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback) is not None:  # absent where --disable_tqdm was given
        trainer.add_callback(ProgressBar(trainer))
    trainer.add_callback(LogLines())
    stop.hold_back()
    return trainer


def count_steps(arguments, train_blocks):
    """How many steps a run takes, and how many blocks a step reads on all devices together."""
    batch, accumulation = arguments.train_batch_size * arguments.world_size, arguments.gradient_accumulation_steps
    blocks = getattr(train_blocks, "num_rows", None)
    steps = total_steps(blocks, batch, accumulation, arguments.num_train_epochs, arguments.max_steps)
    return steps, batch * accumulation


def is_finished(checkpoint, steps, patience=None):
    """Whether a run of `steps` steps has nothing left to do after `checkpoint` (None: there is none).

    patience: after how many evaluations that bring nothing new it ends early, None for never.
    """
    if checkpoint is None:
        return False
    state = trainer_state(checkpoint)
    return state["global_step"] >= steps or (patience is not None and count_stalls(state) >= patience)


def show_progress(trainer, corpus, prompts):
    """Let a person see what `trainer` learns: the curve (corpus: see curve.py), and texts that go on from `prompts`."""
    trainer.add_callback(WriteSamples(trainer, prompts))
    trainer.add_callback(DrawCurve(trainer, corpus))


def train(trainer, checkpoint=None, patience=None, threshold=0.0):
    """Train to the end, from a checkpoint folder if one is given, and leave a whole model in output_dir itself.

    patience: end early after so many evaluations in a row that are not better by more than `threshold`.

    A run from the start replaces what an earlier one left in output_dir, at its first save. Raises
    Stopped once it was asked to stop and has saved a checkpoint, UserError where something cannot be saved
    or read, the loss is no number, or the device's memory does not suffice.
    """
    _check_same_start(trainer, checkpoint)
    trainer.replaces_earlier_run = checkpoint is None
    if patience is not None:
        trainer.add_callback(StopEarly(patience, threshold))
    stopping = GoOnAndStop(trainer, trainer.stop, checkpoint)
    trainer.add_callback(stopping)
    trainer.add_callback(KeepRecord(trainer))
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except NothingToTrain:
        trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
        _load_best(trainer)
    except torch.OutOfMemoryError as error:
        raise UserError(
            "장치의 메모리가 모자랍니다. --per_device_train_batch_size를 줄이고 --gradient_accumulation_steps를 "
            "그만큼 늘리거나,\n--gradient_checkpointing을 더하거나, --block_size를 줄이세요."
        ) from error
    except pickle.UnpicklingError as error:
        raise UserError(f"{checkpoint}: 옵티마이저의 상태가 아닌 것이 들어 있어 열지 않았습니다.") from error
    except (RuntimeError, ConnectionError) as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise UserError(
                f"커널을 컴파일하지 못했습니다({str(error).strip().splitlines()[0]}).\n"
                "--torch_compile=false를 더하면 컴파일하지 않고 학습합니다."
            ) from error
        # Found out by a signal (RuntimeError) or by reading what the process no longer sends, whichever is first.
        if not (isinstance(error, ConnectionError) or "DataLoader worker" in str(error)):
            raise
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler would raise again, wherever we are
        raise UserError(
            "글을 읽는 프로세스(--dataloader_num_workers)가 죽었습니다. 앞서 저장된 체크포인트는 그대로 있습니다.\n"
            "메모리가 모자라면 그 수를 줄이고, --resume_from_checkpoint=auto를 넣어 다시 실행하세요."
        ) from error
    if stopping.stopped:
        leave_together()
        raise Stopped(
            f"{trainer.stop.reason} {trainer.state.global_step}스텝에서 멈추고 체크포인트를 저장했습니다.\n"
            "같은 명령에 --resume_from_checkpoint=auto를 넣어(이미 있으면 그대로) 다시 실행하면 이어집니다."
        )
    trainer.save_whole_model()


def complete(trainer, checkpoint):
    """Do what a run that ended right after its last checkpoint left undone: at most, save the whole model.

    `trainer` then holds the model and the state of the run's end.
    """
    output_dir = Path(trainer.args.output_dir)
    saved = trainer_state(output_dir)
    whole = bool(saved) and saved["global_step"] == trainer_state(checkpoint)["global_step"]
    trainer.state = TrainerState.load_from_json(str((output_dir if whole else checkpoint) / STATE))
    due = not whole and (read_json(checkpoint / RESUME) or {}).get("evaluation_due")
    if due and trainer.eval_dataset is not None:
        trainer._determine_best_metric(evaluate(trainer), None)
    _load_best(trainer)
    if whole:
        return
    trainer.note_progress()
    trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)  # rotation may be due too
    trainer.save_whole_model()


def _load_best(trainer):
    trainer._find_best_checkpoint()
    if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint:
        trainer._load_best_model()


def _check_same_start(trainer, checkpoint):
    """Raise UserError where the ranks found different checkpoints, as nodes do that do not share output_dir."""
    if trainer.args.world_size == 1:
        return
    step = -1 if checkpoint is None else trainer_state(checkpoint)["global_step"]
    steps = trainer.accelerator.gather(torch.tensor([step], device=trainer.args.device)).tolist()
    if len(set(steps)) > 1:
        raise UserError(
            f"--output_dir={trainer.args.output_dir}: 프로세스마다 다른 체크포인트를 찾았습니다({steps}스텝).\n"
            "모든 노드가 함께 보는 폴더를 주세요."
        )
