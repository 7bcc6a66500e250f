"""run.json: what a training run was, in a form that can be published.

It holds no host or user name, no name of one whose messages were learnt, no token, and no path of a home directory.
"""

import datetime
import getpass
import importlib.metadata
import json
import os
import platform
import re
import socket
import subprocess
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from gpt2_korean.checkpoints.atomic_files import write_file
from gpt2_korean.checkpoints.complete import RECORD, read_record
from gpt2_korean.messages import Stopped, UserError, hide_secrets, is_first_rank

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "peft", "tokenizers", "safetensors")
LOGGED = ("step", "epoch", "loss", "eval_loss", "eval_perplexity", "eval_bits_per_character")
# A flag or name whose value is one, or names a person.
SECRET = re.compile(r"(--)?([\w-]*(token|secret|password|api[_-]key)|answer[_-]as)")


@dataclass
class Record:
    """What is to be told of a run, filled in as it goes; times are ISO 8601 in UTC.

    command: the words of the command line. options: flag → value, with the defaults. versions: package → version.
    provenance: what the model is made from, see same_run.py. parameters: how many the "model" has that is saved, and
    how many of it or of its adapter are "trained". characters: how many are learnt, None of a stream.
    steps: {"done", "of"}, None before training begins. model: of the one that was saved at the end, after which "step"
    it was as it is, and its "sample", a prompt and the text that it wrote. losses: Trainer's log. exit_code: None where
    the run was killed.
    """

    command: list = field(default_factory=list)
    options: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)
    start: str | None = None
    end: str | None = None
    exit_code: int | None = None
    device: str | None = None
    precision: str | None = None
    processes: int = 1
    seed: int | None = None
    resumed_from: str | None = None
    provenance: dict = field(default_factory=dict)
    parameters: dict | None = None
    characters: int | None = None
    steps: dict | None = None
    model: dict | None = None
    losses: list = field(default_factory=list)


@contextmanager
def recorded(options):
    """Yield the Record of a run with `options` (a TrainOptions); write its end into output_dir, however it ends.

    A run that was refused before its first step leaves the record of the run before it.
    """
    versions = {"python": platform.python_version(), **_versions()}
    record = Record(["train.py", *options.command], options.given, versions, start=_now())
    code = 1
    try:
        yield record
        code = 0
    except (UserError, Stopped) as error:
        code = error.exit_code
        raise
    finally:
        if record.steps is not None or code == Stopped.exit_code:
            record.end, record.exit_code = _now(), code
            with suppress(OSError):  # the disk may be what ended the run
                write_record(options.output.output_dir, record)


def write_record(output_dir, record):
    """Write run.json, on the first rank alone. A run that took no step only adds its end to the record of the run
    before it, whose model is still there."""
    if is_first_rank():
        public = publishable({**vars(record), "options": used_options(record), "losses": logged_losses(record)})
        if record.steps is None:
            public = {**public, **read_record(output_dir), "end": record.end, "exit_code": record.exit_code}
        write_file(Path(output_dir) / RECORD, json.dumps(public, ensure_ascii=False, indent=1) + "\n")


def used_options(record):
    """Flag → the value that the run learnt by: a plan's in place of a default that nobody asked for."""
    learnt_by = {**record.provenance, **record.provenance.get("learning", {})}
    plan = record.provenance.get("plan") or {}
    return {**record.options, **{name: value for name, value in learnt_by.items() if name in plan}}


def has_ended(output_dir):
    """Whether the last run in `output_dir` wrote that it came to a good end."""
    return read_record(output_dir).get("exit_code") == 0


def step_of_model(output_dir):
    """After which step the model in `output_dir` is as it is, as far as the run that left it tells."""
    return (read_record(output_dir).get("model") or {}).get("step")


def logged_losses(record):
    """The entries of Trainer's log that tell a loss, in a few words each."""
    kept = [{name: entry[name] for name in LOGGED if name in entry} for entry in record.losses]
    return [entry for entry in kept if {"loss", "eval_loss"} & entry.keys()]


def name_of_text(options):
    """What the text to learn is called, by its flags (flag → value): the name of a data set, of a file or a folder."""
    if options.get("dataset_name"):
        config = options.get("dataset_config_name")
        return options["dataset_name"] + (f"/{config}" if config else "")
    return Path(publishable(os.path.abspath(options["dataset_path"]))).name


def publishable(value):
    """`value` (for JSON) without tokens, host and user names, and home directories."""
    if isinstance(value, dict):
        return {
            name: "***" if inner and isinstance(inner, str) and SECRET.fullmatch(name) else publishable(inner)
            for name, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_publishable_word(word, before) for before, word in zip((None, *value), value, strict=False)]
    return _without_names(value) if isinstance(value, str) else value


def _publishable_word(word, before):
    """A word of a command line, hidden where it is the value of a flag for a secret."""
    if isinstance(before, str) and before.startswith("--") and SECRET.fullmatch(before):
        return "***"
    flag, equals, _ = word.partition("=") if isinstance(word, str) else ("", "", "")
    if equals and SECRET.fullmatch(flag):
        return f"{flag}=***"
    return publishable(word)


def _without_names(text):
    text = hide_secrets(text)
    with suppress(RuntimeError):  # a container may run us as a user without a home, or with / for one
        home = Path.home()
        if home.parent != home:
            text = re.sub(rf"{re.escape(str(home))}(?![\w.-])", "~", text)
    text = re.sub(r"([A-Za-z]:)?[/\\](home|Users)[/\\][^/\\\s]+", "~", text)
    with suppress(KeyError, OSError, ImportError):  # a container may run us as a user without a name
        text = re.sub(rf"(?<=[/\\]){re.escape(getpass.getuser())}(?=[/\\]|\s|$)", "***", text)
    host = socket.gethostname()
    for name in (host, host.split(".")[0]):
        if len(name) > 2 and name != "localhost":
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "***", text)
    return text


def _versions():
    found = _own_version()
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _own_version():
    """The commit of this program, as {"gpt2-korean": its hash}, with -dirty where its files were changed since; empty
    where it is no clone, or git is not there."""
    root = Path(__file__).resolve().parents[2]
    # Named and not looked for: a copy that lies in a repository of another project has no commit of its own.
    git = ["git", f"--git-dir={root / '.git'}", f"--work-tree={root}", "--no-optional-locks"]
    asked = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run(asked, cwd=root, capture_output=True, check=True, timeout=10)
        return {"gpt2-korean": told.stdout.decode().strip()}
    return {}


def _now():
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
