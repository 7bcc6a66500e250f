"""The model card of a trained model: Hugging Face's metadata, then what the model is and how it was made; and that of
the adapter beside it."""

import json
import re
import shlex
from pathlib import Path

from huggingface_hub import ModelCardData

from gpt2_korean.checkpoints.atomic_files import write_file
from gpt2_korean.checkpoints.complete import ADAPTER, CARD, CARD_MARK, RECORD, card_metadata, is_our_card, read_shapes
from gpt2_korean.model.gpt2 import SCRATCH_SIZES
from gpt2_korean.model.lora import read_adapter
from gpt2_korean.text.folders import find_path
from gpt2_korean.training.record import logged_losses, name_of_text, publishable

BASE_LICENSES = dict.fromkeys(("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"), "mit")
UNKNOWN = "unknown"  # as the Hub spells it
ABOUT = (
    "한국어 글을 이어 쓰는 언어 모델입니다. gpt2-korean의 train.py로 학습했습니다.",
    "A language model that continues Korean text, trained with train.py of gpt2-korean.",
)
VOCABULARY_TOLD = (
    "바탕 모델과 어휘가 다르므로 바탕 모델의 토크나이저로는 열리지 않습니다(size mismatch). 위처럼 임베딩의 크기를 "
    "바꾸고, 토크나이저를 따로 받는 프로그램에는 이 폴더를 주세요. lm-eval이라면 "
    "`--model_args pretrained=바탕_모델,peft=이_폴더,tokenizer=이_폴더`입니다."
)
ABOUT_CHAT = (
    "한국어로 대화하는 언어 모델입니다. gpt2-korean의 train.py로 학습했습니다.",
    "A language model that chats in Korean, trained with train.py of gpt2-korean.",
)


def write_card(output_dir, record, hub_name=None, talks=False):
    """Write the model card of a Record, and its adapter's, unless a README.md that is not ours stands there.

    See model_card.
    """
    output_dir = Path(output_dir)
    name, adapter = output_dir.resolve().name, output_dir / ADAPTER
    cards = {output_dir: model_card(name, record, hub_name, talks)}
    if read_adapter(adapter) is not None:
        has_vocabulary = any(".lora_" not in weight for weight in read_shapes(adapter))
        cards[adapter] = adapter_card(name, record, has_vocabulary)
    for folder, text in cards.items():
        path = folder / CARD
        if not path.exists() or is_our_card(path):
            write_file(path, text)


def model_card(name, record, hub_name=None, talks=False):
    """The text of the card of a model called `name`, without what must not be published.

    hub_name: what the Hub calls it, None where it is not pushed there. talks: whether it is a chat model.
    """
    data_set = record.options.get("dataset_name")
    data_set = [data_set] if data_set and not Path(data_set).exists() else None
    korean, english = ABOUT_CHAT if talks else ABOUT
    prompt = '[{"role": "user", "content": "안녕하세요"}]' if talks else '"오늘은"'
    parts = [
        _metadata(record, datasets=data_set, library_name="transformers", tags=["gpt2-korean"]),
        CARD_MARK,
        f"# {hub_name or name}",
        korean,
        english,
        _sample(record, talks),
        "## 쓰는 법",
        _code(_loading(hub_name or name, "" if hub_name else "  # 이 모델이 있는 폴더의 경로", prompt), "python"),
        "## 만든 방법",
        "| | |\n|---|---|\n" + "\n".join(_row(*what) for what in _making(record).items() if what[1]),
        _code(f"python {shlex.join(publishable(record.command))}", "bash"),
        f"자세한 것은 `{RECORD}`에 있습니다.",
        "## 라이선스",
        _about_license(record),
        "## 주의",
        "학습한 글을 흉내 낼 뿐이므로 쓴 내용이 사실이 아닐 수 있고, 그 글의 편향이나 글에 든 개인정보가 드러날 수 "
        "있습니다.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def adapter_card(name, record, has_vocabulary):
    """The text of the card of the adapter that was merged into the model called `name`.

    has_vocabulary: whether embeddings are part of it, those of a vocabulary that its base does not have.
    """
    made_from = publishable(record.provenance)["model"]["name"]
    merged = f"{ADAPTER}/를 담은 폴더에는 합친 모델이 있어 peft 없이 열립니다."
    parts = [
        _metadata(record, library_name="peft", tags=["gpt2-korean", "lora"]),
        CARD_MARK,
        f"# {name}: LoRA",
        f"{made_from}에 얹는 peft의 LoRA 어댑터입니다. {merged}",
        f"A LoRA adapter of peft for {made_from}.",
        "## 쓰는 법",
        _code(_loading_adapter(name, has_vocabulary), "python"),
        VOCABULARY_TOLD if has_vocabulary else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(record, **own):
    base, base_license = publishable(_base_and_license(record.options["model_type"]))
    license_name = record.options.get("license") or base_license
    common = {"language": "ko", "license": license_name, "base_model": base, "pipeline_tag": "text-generation"}
    return f"---\n{ModelCardData(**common, **own).to_yaml()}\n---"


def _loading_adapter(name, has_vocabulary):
    return (
        "from peft import PeftConfig, PeftModel\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"adapter = {json.dumps(f'{name}/{ADAPTER}', ensure_ascii=False)}  # 이 폴더의 경로\n"
        "base = PeftConfig.from_pretrained(adapter).base_model_name_or_path\n"
        "tokenizer = AutoTokenizer.from_pretrained(adapter)\n"
        "model = AutoModelForCausalLM.from_pretrained(base)\n"
        + ("model.resize_token_embeddings(len(tokenizer))  # 어휘가 다릅니다\n" if has_vocabulary else "")
        + "model = PeftModel.from_pretrained(model, adapter)"
    )


def _loading(name, note, prompt):
    return (
        "from transformers import pipeline\n\n"
        f"model = {json.dumps(name, ensure_ascii=False)}{note}\n"
        f'pipeline("text-generation", model)({prompt}, max_new_tokens=100)'
    )


def _row(what, value):
    escaped = value.replace("|", "\\|")
    return f"| {what} | {escaped} |"


def _making(record):
    """What → value of the table that tells how a model was made; None: not known."""
    made_from, losses, step = publishable(record.provenance), logged_losses(record), (record.model or {}).get("step")
    trained = [entry["loss"] for entry in losses if "loss" in entry]
    evaluated = {entry["step"]: entry["eval_bits_per_character"] for entry in losses if "eval_loss" in entry}
    text = [publishable(name_of_text(record.options))]
    if record.characters:
        text += [f"글자 {record.characters:,}개", f"토큰 {made_from['corpus']['tokens']:,}개"]
    steps, averaged = f"{record.steps['done']:,}", (record.model or {}).get("averaged")
    if averaged:
        steps += f" (모델은 마지막 {averaged:,}스텝의 가중치를 평균한 것)"
    elif step not in (None, record.steps["done"]):
        steps += f" (모델은 평가가 가장 좋았던 {step:,}스텝의 것)"
    return {
        "시작한 모델": made_from["model"]["name"],
        "학습한 글": " · ".join(text),
        "어휘": f"토큰 {made_from['vocabulary']['tokens']:,}개",
        "매개변수": f"{record.parameters['model']:,}개" if record.parameters else None,
        "LoRA": f"랭크 {record.options['lora_rank']}" if record.options.get("lora_rank") else None,
        "블록": f"{made_from['block_size']:,}토큰",
        "스텝": steps,
        "학습 손실(토큰당)": f"{trained[0]:.4f} → {trained[-1]:.4f}" if trained else None,
        "떼어 둔 글의 글자당 비트": f"{evaluated[step]:.4f}" if step in evaluated else None,
        "장치와 정밀도": f"{publishable(record.device)}, {record.precision}",
        "시드": str(record.seed),
        "버전": ", ".join(f"{package} {version}" for package, version in record.versions.items()),
    }


def _sample(record, talks):
    """A text of the model's own, as it wrote it; empty where it wrote none."""
    sample = publishable((record.model or {}).get("sample"))
    if not sample:
        return ""
    text = f"나: {sample['prompt']}\n모델: {sample['text']}" if talks else sample["prompt"] + sample["text"]
    told = "이 모델과 나눈 대화입니다" if talks else f"이 모델이 “{sample['prompt']}”에 이어 쓴 글입니다"
    return f"{told}(시드를 정해 한 번 쓴 그대로).\n\n{_code(text, 'text')}"


def _code(text, language):
    """`text` in a fence longer than any in it, so that nothing in it is taken for markup."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def _about_license(record):
    chosen, base = record.options.get("license"), publishable(record.provenance)["model"]["name"]
    if chosen:
        return f"`{chosen}`"
    _, base_license = publishable(_base_and_license(record.options["model_type"]))
    told = "정하지 않았습니다." if base_license == UNKNOWN else f"`{base_license}` (시작한 모델 {base}의 것)."
    return (
        f"{told} 시작한 모델과 학습한 글의 라이선스를 확인하고 train.py에 `--license=apache-2.0`처럼 주거나, "
        "맨 위의 `license:`를 고치고 이 파일의 첫 주석을 지우세요."
    )


def _base_and_license(model_type):
    """The hub id that a model goes back to and its license; for a folder, what its own card says."""
    if model_type in SCRATCH_SIZES:
        return None, UNKNOWN
    folder = find_path(model_type)
    if not folder.is_dir():
        return model_type, BASE_LICENSES.get(model_type, UNKNOWN)
    metadata = card_metadata(folder)
    return metadata.get("base_model"), metadata.get("license") or UNKNOWN
