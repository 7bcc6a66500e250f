"""Which flags TrainingArguments knows, read from its source without importing it.

Importing transformers takes seconds, and a misspelt flag should be refused in less than one. The
dataclass is therefore read with `ast` from the installed package, so that the flags are always those
of the version that will run.
"""

import argparse
import ast
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from gpt2_korean.cli.parser import add_switch
from gpt2_korean.cli.values import choice, file_path, integer, number, text

OURS = {"optim": ("muon",)}  # values of its flags that TrainingArguments lacks: see training/arguments.py
TEXT = {"dict[str, bool]", "ParallelismConfig"}  # annotations without a type of the command line: text, as of JSON


@dataclass(frozen=True)
class TrainerFlag:
    """One field of TrainingArguments: `kind` is bool, int, float, str or list."""

    name: str
    kind: type
    choices: tuple[str, ...] = ()


def read_trainer_flags():
    """All fields of TrainingArguments as `{name: TrainerFlag}`.

    Raises ImportError where transformers is not installed, TypeError for an annotation that is not understood.
    """
    package = find_spec("transformers")
    if package is None:
        raise ImportError("transformers")
    return _flags_of(Path(package.origin).parent)


@cache
def _flags_of(folder):
    modules = [ast.parse((folder / name).read_text("utf-8")) for name in ("training_args.py", "trainer_utils.py")]
    classes = {node.name: node for module in modules for node in module.body if isinstance(node, ast.ClassDef)}
    fields = [node for node in classes["TrainingArguments"].body if isinstance(node, ast.AnnAssign)]
    return {
        field.target.id: _flag(
            field.target.id, {part.strip() for part in ast.unparse(field.annotation).split("|")}, field.value, classes
        )
        for field in fields
    }


def _flag(name, types, value, classes):
    for type_name in types & classes.keys():
        return TrainerFlag(name, str, _enum_values(classes[type_name]) + OURS.get(name, ()))
    if types & {"list[str]"}:
        return TrainerFlag(name, list)
    for kind in (str, float, int, bool):
        # The widest type first: `str | bool` must be able to carry both.
        if kind.__name__ in types:
            return TrainerFlag(name, kind, _choices(value))
    if types & TEXT:
        return TrainerFlag(name, str)
    raise TypeError(f"TrainingArguments.{name}: {' | '.join(sorted(types))}")


def _choices(value):
    """What a field's metadata lists as `choices`; nothing where they are computed."""
    for part in ast.walk(value) if value else ():
        for key, listed in zip(part.keys, part.values, strict=True) if isinstance(part, ast.Dict) else ():
            if isinstance(key, ast.Constant) and key.value == "choices" and isinstance(listed, ast.List):
                return tuple(ast.literal_eval(listed))
    return ()


def _enum_values(enum):
    values = [node.value for node in enum.body if isinstance(node, ast.Assign)]
    return tuple(value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str))


def add_trainer_flags(parser):
    """Have `parser` accept every other field of TrainingArguments, whose default stands where the flag is not given."""
    declared = set(parser.flag_names())
    for flag in read_trainer_flags().values():
        name = f"--{flag.name}"
        if name in declared:
            continue
        hidden = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
        if flag.kind is bool:
            add_switch(parser, name, argparse.SUPPRESS, default=argparse.SUPPRESS)
        elif flag.kind is list:
            parser.add_argument(name, nargs="+", type=text, **hidden)
        else:
            parser.add_argument(name, type=_trainer_value(flag), **hidden)


# Of TrainingArguments' numbers, those whose bounds are not those of the others.
TRAINER_NUMBERS = {
    "adam_beta1": number(0, below=1),
    "adam_beta2": number(0, below=1),
    "label_smoothing_factor": number(0, 1),
    "neftune_noise_alpha": number(0, 1000),
    "data_seed": integer(0, 2**32 - 1),
    "dataloader_num_workers": integer(0, 1000),
    "dataloader_prefetch_factor": integer(1, 1000),
    "ddp_bucket_cap_mb": integer(1, 1_000_000),
    "ddp_timeout": integer(1),
    "eval_accumulation_steps": integer(1),
    "torch_empty_cache_steps": integer(1),
}


def _trainer_value(flag):
    if flag.name in TRAINER_NUMBERS:
        return TRAINER_NUMBERS[flag.name]
    if flag.kind is int:
        # None of its whole numbers may be negative but for -1, which leaves a thing to transformers.
        return integer(-1)
    if flag.kind is float:
        return number(0)
    if flag.name in ("accelerator_config", "deepspeed", "fsdp_config"):
        return file_path  # or JSON
    if flag.name.startswith("log_level"):
        return choice("debug", "info", "warning", "error", "critical", "detail", "passive")
    return choice(*flag.choices) if flag.choices else text
