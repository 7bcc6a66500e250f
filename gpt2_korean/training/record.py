"""run.json and the model card: what a run was, in a form that can be published.

Neither holds a host or user name, a token, or the path of a home directory.
"""

import datetime
import getpass
import importlib.metadata
import json
import os
import platform
import re
import shlex
import socket
from contextlib import contextmanager, suppress
from pathlib import Path

from gpt2_korean.checkpoints.atomic_files import write_file
from gpt2_korean.messages import Stopped, UserError, hide_secrets

RECORD = "run.json"
CARD = "README.md"
CARD_MARK = "<!-- gpt2-korean이 쓴 파일입니다. 고쳐서 간직하려면 이 줄을 지우세요. -->"
PACKAGES = ("torch", "transformers", "datasets", "accelerate", "peft", "tokenizers", "safetensors")
LOGGED = ("step", "epoch", "loss", "eval_loss", "eval_perplexity", "eval_bits_per_character")
LICENSES = dict.fromkeys(("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"), "mit")
SECRET = re.compile(r"(--)?[\w-]*(token|secret|password|api[_-]key)")  # a flag or name whose value is one


@contextmanager
def recorded(output_dir, argv, options):
    """Yield the record of a run, a dict for JSON that the caller adds to; write its end, however it ends.

    A run that was refused before its first step leaves the record of the run before it.
    """
    record = {
        "command": ["train.py", *argv],
        "options": {name: value for name, value in vars(options).items() if name != "trainer_arguments"},
        "versions": {"python": platform.python_version(), **_versions()},
        "start": _now(),
        "end": None,
        "exit_code": None,
    }
    code = 1
    try:
        yield record
        code = 0
    except (UserError, Stopped) as error:
        code = error.exit_code
        raise
    finally:
        if "steps" in record or code == Stopped.exit_code:
            with suppress(OSError):  # the disk may be what ended the run
                write_record(output_dir, {**record, "end": _now(), "exit_code": code})


def write_record(output_dir, record):
    """Write run.json; of several ranks the first does."""
    if os.environ.get("RANK", "0") == "0":
        public = publishable({**record, "losses": _losses(record)})
        write_file(Path(output_dir) / RECORD, json.dumps(public, ensure_ascii=False, indent=1) + "\n")


def write_card(output_dir, record):
    """Write the model card, unless a README.md that is not ours stands there."""
    path = Path(output_dir) / CARD
    if not path.exists() or CARD_MARK in path.read_text("utf-8", errors="replace"):
        write_file(path, model_card(Path(output_dir).resolve().name, record))


def model_card(name, record):
    """The text of the card: Hugging Face's metadata, then what the model is and how it was made."""
    from huggingface_hub import ModelCardData

    record = publishable(record)
    made_from, losses = record["provenance"], _losses(record)
    base, license_name = _base_and_license(record["options"]["model_type"])
    metadata = ModelCardData(
        language="ko",
        license=license_name,
        base_model=base,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["gpt2-korean"],
    )
    trained = [entry["loss"] for entry in losses if "loss" in entry]
    evaluated = [entry for entry in losses if "eval_bits_per_character" in entry]
    rows = {
        "시작한 모델": made_from["model"]["name"],
        "학습한 글": made_from["corpus"].get("name") or f"토큰 {made_from['corpus']['tokens']:,}개",
        "어휘": f"토큰 {made_from['vocabulary']['tokens']:,}개",
        "블록": f"{made_from['block_size']:,}토큰",
        "스텝": f"{record['steps']['done']:,}",
        "학습 손실(토큰당)": f"{trained[0]:.4f} → {trained[-1]:.4f}" if trained else None,
        "떼어 둔 글의 글자당 비트": f"{evaluated[-1]['eval_bits_per_character']:.4f}" if evaluated else None,
        "장치와 정밀도": f"{record['device']}, {record['precision']}",
        "시드": record["seed"],
        "버전": ", ".join(f"{package} {version}" for package, version in record["versions"].items()),
    }
    table = "\n".join(f"| {what} | {value} |" for what, value in rows.items() if value is not None)
    return f"""---
{metadata.to_yaml()}
---

{CARD_MARK}

# {name}

한국어 글을 이어 쓰는 언어 모델입니다. gpt2-korean의 train.py로 학습했습니다.

```python
from transformers import pipeline

pipeline("text-generation", "이 모델의 폴더나 Hub 이름")("오늘은", max_new_tokens=100)
```

## 만든 방법

| | |
|---|---|
{table}

```bash
python {shlex.join(record["command"])}
```

자세한 것은 `{RECORD}`에 있습니다.

## 주의

학습한 글을 흉내 낼 뿐이므로 쓴 내용이 사실이 아닐 수 있고, 그 글의 치우침이나 글에 든 개인정보가 드러날 수 있습니다.
쓰기에 앞서 시작한 모델과 학습한 글의 라이선스를 확인하세요.
"""


def publishable(value):
    """`value` (for JSON) without tokens, host and user names, and home directories."""
    if isinstance(value, dict):
        return {
            name: "***" if inner and isinstance(inner, str) and SECRET.fullmatch(name) else publishable(inner)
            for name, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_publishable_word(word, before) for before, word in zip((None, *value), value, strict=False)]
    return _shorten(value) if isinstance(value, str) else value


def _publishable_word(word, before):
    """A word of a command line, hidden where it is the value of a flag for a secret."""
    if isinstance(before, str) and before.startswith("--") and SECRET.fullmatch(before):
        return "***"
    flag, equals, _ = word.partition("=") if isinstance(word, str) else ("", "", "")
    if equals and SECRET.fullmatch(flag):
        return f"{flag}=***"
    return publishable(word)


def _shorten(text):
    text = hide_secrets(text).replace(str(Path.home()), "~")
    text = re.sub(r"/(home|Users)/[^/\s]+", "~", text)
    with suppress(KeyError, OSError):  # a container may run us as a user without a name
        text = re.sub(rf"(?<=/){re.escape(getpass.getuser())}(?=/|\s|$)", "***", text)
    host = socket.gethostname()
    for name in (host, host.split(".")[0]):
        if len(name) > 2 and name != "localhost":
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "***", text)
    return text


def _losses(record):
    kept = [{name: entry[name] for name in LOGGED if name in entry} for entry in record.get("losses", [])]
    return [entry for entry in kept if {"loss", "eval_loss"} & entry.keys()]


def _base_and_license(model_type):
    """The hub id that a model goes back to and its license; for a folder, what its own card says."""
    from huggingface_hub import metadata_load

    from gpt2_korean.model.gpt2 import SCRATCH_SIZES

    if model_type in SCRATCH_SIZES:
        return None, "unknown"
    if not Path(model_type).is_dir():
        return model_type, LICENSES.get(model_type, "unknown")
    with suppress(OSError, ValueError):
        metadata = metadata_load(Path(model_type) / CARD) or {}
        return metadata.get("base_model"), metadata.get("license", "unknown")
    return None, "unknown"


def _versions():
    found = {}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _now():
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
