"""The model card of a trained model: Hugging Face's metadata, then what the model is and how it was made."""

import shlex
from contextlib import suppress
from pathlib import Path

from gpt2_korean.checkpoints.atomic_files import write_file
from gpt2_korean.model.gpt2 import SCRATCH_SIZES
from gpt2_korean.training.record import RECORD, logged_losses, publishable

CARD = "README.md"
CARD_MARK = "<!-- gpt2-korean이 쓴 파일입니다. 고쳐서 간직하려면 이 줄을 지우세요. -->"
LICENSES = dict.fromkeys(("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"), "mit")


def write_card(output_dir, record):
    """Write the model card of a Record, unless a README.md that is not ours stands there."""
    path = Path(output_dir) / CARD
    if not path.exists() or (path.is_file() and CARD_MARK in path.read_text("utf-8", errors="replace")):
        write_file(path, model_card(Path(output_dir).resolve().name, record))


def model_card(name, record):
    """The text of the card of a model called `name`, without what must not be published."""
    from huggingface_hub import ModelCardData

    made_from, losses = publishable(record.provenance), logged_losses(record)
    base, license_name = _base_and_license(publishable(record.options["model_type"]))
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
        "스텝": f"{record.steps['done']:,}",
        "학습 손실(토큰당)": f"{trained[0]:.4f} → {trained[-1]:.4f}" if trained else None,
        "떼어 둔 글의 글자당 비트": f"{evaluated[-1]['eval_bits_per_character']:.4f}" if evaluated else None,
        "장치와 정밀도": f"{publishable(record.device)}, {record.precision}",
        "시드": record.seed,
        "버전": ", ".join(f"{package} {version}" for package, version in record.versions.items()),
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
python {shlex.join(publishable(record.command))}
```

자세한 것은 `{RECORD}`에 있습니다.

## 주의

학습한 글을 흉내 낼 뿐이므로 쓴 내용이 사실이 아닐 수 있고, 그 글의 치우침이나 글에 든 개인정보가 드러날 수 있습니다.
쓰기에 앞서 시작한 모델과 학습한 글의 라이선스를 확인하세요.
"""


def _base_and_license(model_type):
    """The hub id that a model goes back to and its license; for a folder, what its own card says."""
    from huggingface_hub import metadata_load

    if model_type in SCRATCH_SIZES:
        return None, "unknown"
    if not Path(model_type).is_dir():
        return model_type, LICENSES.get(model_type, "unknown")
    with suppress(OSError, ValueError):
        metadata = metadata_load(Path(model_type) / CARD) or {}
        return metadata.get("base_model"), metadata.get("license", "unknown")
    return None, "unknown"
