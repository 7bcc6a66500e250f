"""argv → the options of generate.py: frozen dataclasses by README's groups; and back to the words of a command line."""

import argparse
import os
import sys
from dataclasses import dataclass, fields

from gpt2_korean.cli.generate_checks import check_together
from gpt2_korean.cli.generate_flags import generate_parser
from gpt2_korean.cli.other_names import GENERATE_NAMES
from gpt2_korean.cli.parser import group_of
from gpt2_korean.cli.suggestions import suggest_flag
from gpt2_korean.cli.usage import ask_for_model, show_writing
from gpt2_korean.cli.values import composed_text
from gpt2_korean.cli.writing_values import api_key, prompt_template
from gpt2_korean.messages import UsageError
from gpt2_korean.text.folders import MODELS

# What --serve takes for itself, and where its page and an exported model start without flags: values that write well.
SERVING = ("serve", "host", "port", "api_key", "cors_origin")
API_KEY = "GPT2_KOREAN_API_KEY"  # the environment variable: others do not see it in the list of processes
PAGE_START = {"top_p": 0.95, "temperature": 0.7, "repetition_penalty": 1.2}


@dataclass(frozen=True)
class LoadOptions:
    """The model and all that is chosen once, with it."""

    model_name_or_path: str
    device: str
    dtype: str
    quantize: str | None
    engine: str
    trust_remote_code: bool
    allow_invalid_utf8: bool
    seed: int | None
    raw: bool


@dataclass(frozen=True)
class PromptOptions:
    prompt: list[str] | None
    prompt_file: str | None
    prompt_template: str | None
    system: str | None


@dataclass(frozen=True)
class Settings:
    """How a text is written: what an interactive session can change as it goes."""

    length: int
    min_length: int
    end_at_sentence: bool
    stop: list[str] | None
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    temperature: float
    repetition_penalty: float
    repetition_window: int
    penalize_prompt: bool
    frequency_penalty: float
    presence_penalty: float
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_penalty_last_n: int
    dry_sequence_breaker: list[str]
    no_repeat_ngram_size: int
    token_healing: bool | None


@dataclass(frozen=True)
class ResultOptions:
    stream: bool | None
    interactive: bool
    num_return_sequences: int
    batch_size: int | None
    output_file: str | None
    resume: bool


@dataclass(frozen=True)
class PageOptions:
    serve: bool
    host: str
    port: int
    api_key: str | None
    cors_origin: list[str] | None


@dataclass(frozen=True)
class ExportOptions:
    export: str | None
    export_type: str


@dataclass(frozen=True)
class GenerateOptions:
    """What the command line asks for, by README's groups."""

    model: LoadOptions
    prompts: PromptOptions
    settings: Settings
    output: ResultOptions
    page: PageOptions
    export: ExportOptions


SETTINGS = tuple(field.name for field in fields(Settings))


def parse_generate_options(argv=None, find_models=lambda folder: []):
    """The GenerateOptions of `argv`. find_models: the models below a folder, which are told where none is given.

    Raises UsageError; without any flag SystemExit, the usage having been shown.
    """
    argv, parser = list(sys.argv[1:] if argv is None else argv), generate_parser()
    if not argv:
        show_writing(parser, find_models(MODELS))
    options, given = parser.parse(argv), vars(parser.parse_given(argv))
    if not options.model_name_or_path:
        raise ask_for_model(find_models(MODELS))
    check_together(options, given)
    if options.serve or options.export:
        vars(options).update({name: value for name, value in PAGE_START.items() if name not in given})
    if options.serve:
        options.api_key = options.api_key or read_key(os.environ.get(API_KEY))
    return GenerateOptions(*(group_of(field.type, options) for field in fields(GenerateOptions)))


def read_key(word):
    """The key of the environment variable, None where it has none. Raises UsageError."""
    try:
        return api_key(word) if word else None
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"{API_KEY}: {error}") from None


def parse_setting(name, word, names=SETTINGS, **limits):
    """The value of `/set name word` in an interactive session; `names` may be set. limits: of generate_parser. Raises
    UsageError."""
    if name not in names:
        others = {flag: words for flag, words in GENERATE_NAMES.items() if flag.partition("=")[0] in names}
        hint = suggest_flag(name, names, others, "", f"바꿀 수 있는 것: {', '.join(names)}")
        raise UsageError(f"{name}: 그런 설정이 없습니다. {hint}")
    return getattr(generate_parser(**limits).parse([f"--{name}={word}"]), name)


def describe_settings(names):
    """The help of each flag of `names`, name → str."""
    actions = {action.dest: action for action in generate_parser().listed()}
    return {name: actions[name].help for name in names}


def to_words(options):
    """The words of a command line that give GenerateOptions, less the defaults: what parsing undoes."""
    values = {name: value for group in vars(options).values() for name, value in vars(group).items()}
    words = []
    for action in generate_parser().listed():
        value = values.get(action.dest, action.default)
        if value == action.default or action.dest in SERVING:
            continue
        for word in value if isinstance(value, list) else [value]:
            word = str(word).lower() if isinstance(word, bool) else str(word)
            if action.type in (composed_text, prompt_template):
                word = word.replace("\n", "\\n").replace("\t", "\\t")
            words.append(f"--{action.dest}={word}")
    return words
