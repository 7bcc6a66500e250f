"""argv → the options of train.py: frozen dataclasses by README's groups, so that each step takes its own."""

import sys
from dataclasses import dataclass

from gpt2_korean.cli.config_file import config_words
from gpt2_korean.cli.parser import group_of, spell_flag
from gpt2_korean.cli.train_checks import check_together, choose_best_by_bits, choose_sample_by
from gpt2_korean.cli.train_flags import train_parser
from gpt2_korean.cli.trainer_flags import read_trainer_flags
from gpt2_korean.cli.usage import show_training
from gpt2_korean.messages import warn


@dataclass(frozen=True)
class TextOptions:
    dataset_path: str | None
    dataset_name: str | None
    dataset_config_name: str | None
    streaming: bool
    text_column_name: str | None
    text_template: str | None
    prompt_column: str | None
    answer_column: str | None
    answer_as: str | None
    encoding: str | None
    sample_by: str
    skip_bad_rows: bool
    block_size: int | None
    packing: str | None
    train_on_prompt: bool | None
    validation_file: str | None
    validation_split_percentage: float


@dataclass(frozen=True)
class ModelOptions:
    model_type: str
    tokenizer: str | None
    vocab_size: int | None
    trust_remote_code: bool
    lora_rank: int
    lora_alpha: int | None


@dataclass(frozen=True)
class OutputOptions:
    output_dir: str
    overwrite_output_dir: bool
    resume_from_checkpoint: str | None
    save_total_limit: int | None
    logging_dir: str


@dataclass(frozen=True)
class LearningOptions:
    """trainer_arguments: by name, all that TrainingArguments takes: our own flags that it shares, and others given.

    passed_on: the names of these others. chosen: the names of all flags that were given.
    """

    embedding_learning_rate: float | None
    average_last: float | None
    dropout: float | None
    bpe_dropout: float | None
    sample_prompts: str | None
    no_measure_texts: bool
    early_stopping_patience: int | None
    early_stopping_threshold: float
    trainer_arguments: dict
    passed_on: list
    chosen: frozenset


@dataclass(frozen=True)
class MachineOptions:
    """None: left open."""

    device: str
    bf16: bool | None
    fp16: bool | None
    torch_compile: bool | None
    torch_compile_backend: str | None
    torch_compile_mode: str | None
    device_graphs: bool | None


@dataclass(frozen=True)
class TrainOptions:
    """The flags of train.py by README's groups; command: the words themselves; given: name → value of all of them."""

    command: list
    given: dict
    do_train: bool
    do_eval: bool
    max_hours: float | None
    show_data: int | None
    text: TextOptions
    model: ModelOptions
    output: OutputOptions
    learning: LearningOptions
    machine: MachineOptions


def parse_train_options(argv=None):
    """The TrainOptions of a command line. Raises UsageError; without any flag SystemExit, after the usage."""
    argv, parser = list(sys.argv[1:] if argv is None else argv), train_parser()
    if not argv:
        show_training(parser)
    flags = parser.parse(argv)
    for flag in ("--dataset_path", "--validation_file"):  # who repeats one expects all to be read
        if sum(spell_flag(word).partition("=")[0] == flag for word in argv) > 1:
            warn(f'{flag}: 여러 번 주어 마지막 것만 읽습니다. 여러 파일은 그 폴더나 "글/*.txt" 같은 패턴으로 주세요.')
    words = argv
    if flags.config is not None:
        # What stands later on a command line wins, so the files' values go first.
        words = [word for path in flags.config for word in config_words(path, parser)] + argv
        flags = parser.parse(words)
    check_together(flags)
    choose_sample_by(flags)
    choose_best_by_bits(flags)
    given, trainer_flags = dict(vars(flags)), read_trainer_flags()
    flags.trainer_arguments = {name: value for name, value in given.items() if name in trainer_flags}
    ours = {action.dest for action in parser.listed()}
    flags.passed_on = [name for name in flags.trainer_arguments if name not in ours]
    flags.chosen = frozenset(vars(parser.parse_given(words)))
    for name in ("torch_compile_backend", "torch_compile_mode"):  # of TrainingArguments, and ours to carry out
        setattr(flags, name, given.get(name))
    groups = (TextOptions, ModelOptions, OutputOptions, LearningOptions, MachineOptions)
    own = (flags.do_train, flags.do_eval, flags.max_hours, flags.show_data)
    return TrainOptions(argv, given, *own, *(group_of(group, flags) for group in groups))
