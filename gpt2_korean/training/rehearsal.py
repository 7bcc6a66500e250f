"""Trainer's own flags, tried before any text is read: a run of one step over almost nothing shows what they lack.

TrainingArguments checks few of its values itself. A package that an optimizer needs, a keyword that a schedule wants,
a number that the data loader refuses: Trainer meets them when it begins to train.
"""

import os
import tempfile
from pathlib import Path

import torch
from huggingface_hub import get_token
from huggingface_hub.utils import HFValidationError, validate_repo_id
from transformers import GPT2Config, GPT2LMHeadModel, Trainer
from transformers.integrations import get_reporting_integration_callbacks
from transformers.trainer_callback import PrinterCallback

from gpt2_korean.messages import UsageError, UserError, describe_error
from gpt2_korean.model.quiet import without_warnings

# What a rehearsal does not do: it tells nobody, keeps nothing, and goes on for no longer than a step.
ALWAYS = {
    "report_to": ["none"], "push_to_hub": False, "save_strategy": "no", "logging_strategy": "no", "max_steps": 1,
    "warmup_steps": 0,  # of one step there is nothing left, by which the polynomial schedule divides
    "load_best_model_at_end": False, "metric_for_best_model": None, "greater_is_better": None, "disable_tqdm": True,
    "auto_find_batch_size": False, "log_level": "error", "log_level_replica": "error",
}  # fmt: skip
HARMLESS = ("disable_tqdm",)


def rehearse(build, given, passed_on):
    """Raise UsageError that names the flag among `passed_on` with which Trainer cannot train.

    build: build_arguments of `given`, what TrainingArguments takes by name.
    """
    passed_on = [name for name in passed_on if name not in HARMLESS]
    with without_warnings():  # what it warns of is said when it is meant
        error = _failure(build, given) if passed_on else None
        if error is None:
            return
        if isinstance(error, UserError) and error.__cause__ is None:
            raise error  # which says all
        guilty = [name for name in passed_on if _failure(build, _without(given, [name])) is None]
        if not guilty and _failure(build, _without(given, passed_on)) is not None:
            # It is not for these flags, or a library has failed for good.
            guilty = [name for name in passed_on if name in describe_cause(error)]
            if not guilty:
                return
    words = ", ".join(f"--{name}={given[name]}" for name in guilty or passed_on)
    raise UsageError(f"{words}: 이대로는 학습할 수 없습니다({describe_cause(error)}).\n값을 바꾸거나 플래그를 빼세요.")


def check_reports(arguments):
    """Raise UsageError for a --report_to that is not known or not installed, and for a Hub that is not at hand."""
    try:
        for callback in get_reporting_integration_callbacks(arguments.report_to):
            callback()
    except Exception as error:
        raise UsageError(
            f"--report_to={' '.join(arguments.report_to)}: 쓸 수 없습니다({describe_cause(error)}).\n패키지를 "
            "설치하거나 tensorboard 또는 none을 주세요. 여러 곳은 --report_to tensorboard wandb처럼 빈칸으로 나눕니다."
        ) from None
    if not arguments.push_to_hub:
        return
    name = arguments.hub_model_id or Path(arguments.output_dir).absolute().name
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UsageError(f"--hub_model_id={name}: Hub의 이름이 될 수 없습니다({describe_cause(error)}).") from None
    if get_token() is None:
        raise UsageError(
            "--push_to_hub: Hub에 로그인하지 않았습니다. HF_TOKEN을 설정하거나 hf auth login을 실행하세요."
        )


def describe_cause(error):
    """An error of a library in a line, also where it is told of already."""
    error = error.__cause__ if isinstance(error, UserError) and error.__cause__ else error
    return describe_error(error)


def _without(given, names):
    return {name: value for name, value in given.items() if name not in names}


def _failure(build, given):
    """The error that a run of one step with `given` ends in, or None."""
    given = given | ALWAYS
    if "optim_target_modules" in given:
        given["optim_target_modules"] = ["attn", "mlp"]  # the run itself checks them against its model
    given["dataloader_num_workers"] = min(given.get("dataloader_num_workers", 0), 1)
    environment = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        try:
            arguments = build({**given, "output_dir": folder})
            model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=8, n_embd=64, n_layer=1, n_head=1))
            row = {"input_ids": torch.arange(8), "labels": torch.arange(8)}
            trainer = Trainer(model, arguments, train_dataset=[row], eval_dataset=[row])
            trainer.pop_callback(PrinterCallback)
            if arguments.world_size > 1 or arguments.fsdp or arguments.deepspeed:
                trainer.create_optimizer_and_scheduler(1)  # to wrap the model is for the run itself
            else:
                trainer.train()
        except Exception as error:
            return error
        finally:
            os.environ.clear()  # some libraries leave settings there
            os.environ.update(environment)
    return None
