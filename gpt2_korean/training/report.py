"""What a run tells at its end: the numbers of an evaluation, and a few lines on how the training went."""

import json
import math
from itertools import accumulate, zip_longest
from operator import itemgetter

from gpt2_korean.messages import width
from gpt2_korean.training.diversity import REPEATED
from gpt2_korean.windows import join_command

# A text below this many characters, read more than once, may have been learnt by heart.
SMALL = 2_000_000
# It has been where the loss on it comes below this share of that on held-out text, and that one has risen by this much.
BY_HEART, WORSE = 0.8, 1.01
# Nats a token. What learnt too little to join words has more; a model that knew the text before hardly falls either.
AT_RANDOM = 5.0
NOT_EVALUATED = (
    "짧은 글을 여러 번 읽었지만 평가하지 않았으므로 글을 외운 것인지 알 수 없습니다.\n"
    "--do_eval --eval_steps=100처럼 더하면 떼어 둔 글로 확인합니다."
)
HARDLY_LEARNT = (
    "손실이 얼마 내려가지 않아 덜 배웠을 수 있습니다.\n"
    "스텝이 적다면 --num_train_epochs를 늘리거나 --per_device_train_batch_size를 줄이세요."
)
LOSSES = {
    "loss": ("손실(토큰당)", ".4f"),
    "perplexity": ("혼란도(토큰당)", ".2f"),
    "perplexity_per_character": ("혼란도(글자당)", ".2f"),
    "bits_per_character": ("글자당 비트", ".4f"),
}
MEASURES = {
    **{f"distinct_{n}": (f"distinct-{n}(글자)", ".4f") for n in (1, 2, 3)},
    f"repetition_{REPEATED}": (f"반복({REPEATED}글자)", ".4f"),
}


def evaluation_table(metrics, written=None, held_out=None):
    """The metrics of an evaluation as a table, then as one line of JSON.

    written, held_out: of diversity.measure, over texts that the model wrote and that people did; None: not measured.
    """
    values = {name: metrics[f"eval_{name}"] for name in ("loss", "perplexity", "bits_per_character")}
    bits = values["bits_per_character"]
    values["perplexity_per_character"] = math.inf if bits > 1000 else 2**bits  # as exact_metrics has the other one
    rows = [(label, format(values[name], form)) for name, (label, form) in LOSSES.items()]
    values = {name: values[name] for name in LOSSES}
    if written:
        rows.append(("", "모델의 글", "평가 글") if held_out else ("", "모델의 글"))
        for name, (label, form) in MEASURES.items():
            rows.append((label, *(format(texts[name], form) for texts in (written, held_out) if texts)))
        values |= {**written, "held_out": held_out}
    line = {name: value if value != math.inf else None for name, value in values.items()}
    return f"{table(rows)}\n{json.dumps(line)}"


def describe_training(log_history, model_step, output_dir, talks=False, characters=None, averaged=None):
    """What became of a training run, as far as its log tells; its model is the one of `model_step`.

    talks: whether it is a chat model. characters: how many it learnt from, None where that is not known. averaged:
    over how many of the last steps its weights are a mean, None where they are none.
    """
    end = next((entry for entry in reversed(log_history) if "train_runtime" in entry), {})
    losses = [entry["loss"] for entry in log_history if "loss" in entry]
    evaluated = [entry for entry in log_history if "eval_bits_per_character" in entry]
    rows = []
    if end:
        rows.append(("걸린 시간", duration(end["train_runtime"])))
        rows.append(("속도", _speed(end)))
    if evaluated:
        bits = "eval_bits_per_character"
        best = min(evaluated, key=lambda entry: entry[bits])
        last = _last(evaluated, averaged)
        words = f"{last[bits]:.4f} ({last['step']:,}스텝)"
        if best["step"] != last["step"]:
            words = f"가장 낮음 {best[bits]:.4f} ({best['step']:,}스텝) · 마지막 {words}"
        rows.append(("글자당 비트", words))
    elif losses:
        rows.append(("손실(토큰당)", f"{losses[0]:.4f} → {losses[-1]:.4f}"))
    which = f"마지막 {averaged:,}스텝의 평균" if averaged else f"{model_step:,}스텝"
    rows.append(("모델", f"{output_dir} ({which})"))
    command = join_command(["python", "generate.py", f"--model_name_or_path={output_dir}"])
    way = "--interactive" if talks else '--prompt="오늘은"'
    rows.append(("써 보기", f"{command} {way}"))
    told = _learnt_by_heart(log_history, model_step, characters, averaged)
    return f"{table(rows)}\n{told}" if told else table(rows)


def _last(evaluated, averaged):
    """The evaluation of the last step: the mean of weights comes after it, be it left as the model or not."""
    return max(reversed(evaluated) if averaged else evaluated, key=itemgetter("step"))


def _learnt_by_heart(log_history, model_step, characters, averaged):
    """A line or two on whether the text was learnt by heart, where it was or may be, or too little; else empty."""
    trained = [entry for entry in log_history if "loss" in entry]
    evaluated = [entry for entry in log_history if "eval_loss" in entry]
    if not trained:
        return ""
    if not evaluated:
        # In its first epoch a text is new to the model when its loss is taken; a large one is hardly learnt by heart.
        doubtful = trained[-1].get("epoch", 0) > 1 and characters and characters < SMALL
        hardly_fell = len(trained) > 1 and trained[-1]["loss"] > max(AT_RANDOM, BY_HEART * trained[0]["loss"])
        return (HARDLY_LEARNT if hardly_fell else NOT_EVALUATED) if doubtful else ""
    best, last = min(evaluated, key=itemgetter("eval_loss")), _last(evaluated, averaged)
    if trained[-1]["loss"] > BY_HEART * last["eval_loss"]:
        return ""
    losses = f"학습 손실 {trained[-1]['loss']:.2f}, 평가 손실 {last['eval_loss']:.2f}"
    if best["step"] == last["step"]:
        alone = len({entry["step"] for entry in evaluated}) == 1
        return f"글을 많이 외웠습니다({losses}). --eval_steps=100처럼 더하면 언제부터인지 나옵니다." if alone else ""
    if last["eval_loss"] < WORSE * best["eval_loss"]:
        return ""
    step = f"{best['step']:,}스텝"
    kept = (
        "그 모델을 남겼습니다."
        if model_step == best["step"]
        else "--load_best_model_at_end를 더하면 그 모델을 남깁니다."
    )
    return f"{step}부터는 글을 외우기만 했습니다({losses}).\n평가는 {step}에서 가장 좋았습니다. {kept}"


def _speed(end):
    if "train_tokens_per_second" not in end:
        return f"초당 {end['train_steps_per_second']:,.2f}스텝"
    mfu = f" · MFU {end['train_mfu']:.1%}" if "train_mfu" in end else ""
    return f"초당 {end['train_tokens_per_second']:,.0f}토큰{mfu}"


def duration(seconds):
    """`3시간 20분`, `2분 5초`, `8초`: the two largest units."""
    hours, rest = divmod(round(seconds), 3600)
    parts = [(hours, "시간"), (rest // 60, "분"), (rest % 60, "초")]
    told = [(number, unit) for number, unit in parts if number] or [(0, "초")]
    return " ".join(f"{number}{unit}" for number, unit in told[:2])


def table(rows):
    """Rows of texts as lines, their columns aligned as a terminal shows them."""
    widths = [max(map(width, column)) for column in zip_longest(*rows, fillvalue="")]
    return "\n".join("  ".join(map(pad, row, widths)).rstrip() for row in rows)


def pad(text, size):
    return text + " " * (size - width(text))


def shorten(text, size):
    """`text` on one line of at most `size` columns, without what a terminal takes for a command."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    if width(text) <= size:
        return text
    kept = sum(columns < size for columns in accumulate(map(width, text)))
    return text[:kept].rstrip() + "…"
