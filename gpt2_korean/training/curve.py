"""Trainer's log → training_curve.png: what the model has learnt, at a glance.

Losses are drawn in bits per character over the characters that have been read, so that pictures of runs with
any vocabulary and batch can be laid side by side.

A vocabulary that was learnt from the text to train on knows its words, and spends fewer tokens on a character of it
than of other texts: of scratch-mini 0.44 to 0.52 on data/korean_texts.txt. Each in bits of its own, the two lines lie
a sixth apart before anything is learnt, which reads as learnt by heart. So both are losses per token at one price, the
held-out text's tokens per character: the line of evaluation is its bits per character to the last digit, that of
training what a text of as many tokens would cost (each point the mean since the one before). Tokens are what is alike:
after 30 and 75 steps a text that only the vocabulary had been learnt from cost 8.00 and 7.65 nats a token, one that
nothing had been learnt from 8.00 and 7.59, but 5.24 and 5.01 bits a character against 6.03 and 5.72. Where nothing is
held out, training stands in bits of its own.
"""

import logging
import math
import os
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from gpt2_korean.training.report import shorten

# Fonts with Hangul that systems come with, tried before all others: the first that has the glyphs is taken.
LIKELY_FONTS = ("nanumgothic", "notosanskr", "notosanscjk", "malgun", "applesdgothic", "gothic", "nanum", "noto")
BLUE, RED = "#4c78a8", "#c8373a"
WORDS = {
    "ko": {
        "bits": "{}당 비트",
        "seen": "학습한 {} 수",
        "characters": "글자",
        "tokens": "토큰",
        "epochs": "에폭",
        "steps": "스텝",
        "training": "학습 (마지막 {:.3f})",
        "evaluation": "평가 (마지막 {:.3f})",
        "best": "{:.3f} ({:,}스텝)",
        "rate": "학습률",
        "spent": "비교할 수 있게 학습 손실도 평가 글의 글자당 토큰 {1:.2f}개로 환산했습니다(학습 글은 {0:.2f}개).",
        "units": ((1e8, " (억)"), (1e4, " (만)"), (1, "")),
    },
    "en": {
        "bits": "bits per {}",
        "seen": "{}s trained on",
        "characters": "character",
        "tokens": "token",
        "epochs": "epochs",
        "steps": "steps",
        "training": "training (last {:.3f})",
        "evaluation": "evaluation (last {:.3f})",
        "best": "{:.3f} (step {:,})",
        "rate": "learning rate",
        "spent": "For comparison, training too at the held-out text's {1:.2f} tokens per character (its own: {0:.2f}).",
        "units": ((1e9, " (billions)"), (1e6, " (millions)"), (1e3, " (thousands)"), (1, "")),
    },
}


class Point(NamedTuple):
    """The value after `step` steps, when so many units (characters or tokens) were read."""

    step: int
    seen: float
    value: float


@dataclass(frozen=True)
class Corpus:
    """The size of the text that is trained on; of a stream it is unknown, None, and only a step's tokens count.

    characters, tokens: those that are learnt. held_out_spends: the tokens per character of the text that is held out,
    None where none is. title: what the picture is called, in parts.
    """

    characters: int | None
    tokens: int | None
    tokens_per_step: int
    held_out_spends: float | None = None
    title: tuple = ()


@dataclass(frozen=True)
class Curve:
    """What is drawn: lists of Points by their steps; losses are bits per `per`.

    per, unit: "characters" or "tokens", what values are per and what is read. lap: ("epochs" or "steps", how many of
    `unit` one has). spent: the tokens per character of the text to learn and of the held-out one, whose the losses
    are in; None where they are those of the only one.
    """

    per: str
    unit: str
    lap: tuple
    training: list
    evaluation: list
    learning_rate: list
    spent: tuple | None = None
    title: tuple = ()


def curve_of(log_history, corpus):
    """The Curve of Trainer's log, whose losses are nats per token."""
    own = corpus.tokens / corpus.characters if corpus.characters else None
    spends = corpus.held_out_spends or own
    bits = (spends or 1) / math.log(2)
    training, evaluation, learning_rate = {}, {}, {}
    for entry in log_history:
        step = entry["step"]
        seen = step * corpus.tokens_per_step if own is None else entry["epoch"] * corpus.characters
        # A second entry of a step tells nothing new, and after the end it may be of an earlier step's weights.
        if "loss" in entry:
            training.setdefault(step, Point(step, seen, entry["loss"] * bits))
            learning_rate.setdefault(step, Point(step, seen, entry["learning_rate"]))
        if "eval_loss" in entry:
            value = entry["eval_bits_per_character"] if spends else entry["eval_loss"] * bits
            evaluation.setdefault(step, Point(step, seen, value))
    points = [[found[step] for step in sorted(found)] for found in (training, evaluation, learning_rate)]
    per = "characters" if spends else "tokens"
    both = (own, corpus.held_out_spends) if own and corpus.held_out_spends else None
    if own is None:
        return Curve(per, "tokens", ("steps", corpus.tokens_per_step), *points, both, corpus.title)
    return Curve(per, "characters", ("epochs", corpus.characters), *points, both, corpus.title)


def is_worth_drawing(curve):
    """Whether there is a line to draw: a run of a single step has none."""
    return max(len(curve.training), len(curve.evaluation)) > 1


def draw(curve):
    """The picture of a curve that is worth drawing, as the bytes of a PNG."""
    # It warns, in English, of a home where it cannot keep its list of fonts.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    # A notebook has every program it starts draw by a package that may be in another environment: no backend then.
    os.environ.pop("MPLBACKEND", None)
    # matplotlib's object interface alone: pyplot keeps figures and chooses a display for the whole process.
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties, findfont

    font = find_hangul_font()
    words, face = WORDS["ko" if font else "en"], FontProperties(fname=font)  # None: the one that matplotlib brings
    figure = Figure(figsize=(8, 6), dpi=110, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(5, 1))
    largest = max(point.seen for point in [*curve.training, *curve.evaluation])
    size, size_name = next((size, name) for size, name in words["units"] if largest >= size or size == 1)

    def plot(axes, points, **style):
        axes.plot([point.seen / size for point in points], [point.value for point in points], **style)

    def write(setter, text, points=12, **style):
        setter(text, fontproperties=face, fontsize=points, **style)

    few = "." if len(curve.training) <= 30 else None
    if curve.training:
        plot(upper, curve.training, color=BLUE, marker=few, label=words["training"].format(curve.training[-1].value))
    if curve.evaluation:
        label = words["evaluation"].format(curve.evaluation[-1].value)
        plot(upper, curve.evaluation, color=RED, marker="o", markersize=4, label=label)
        best = min(curve.evaluation, key=lambda point: point.value)
        plot(upper, [best], color=RED, marker="o", markersize=10, markerfacecolor="none", linestyle="none")
        upper.annotate(
            words["best"].format(best.value, best.step), (best.seen / size, best.value),
            **_beside(best, curve.training, largest), textcoords="offset points", fontproperties=face, fontsize=11,
            color=RED, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1},
        )  # fmt: skip
    plot(lower, curve.learning_rate, color="#666666", marker=few)
    lap, length = curve.lap
    top = upper.secondary_xaxis("top", (lambda seen: seen * size / length, lambda laps: laps * length / size))
    write(top.set_xlabel, words[lap], 10)
    upper.margins(y=0.1)
    write(upper.set_ylabel, words["bits"].format(words[curve.per]))
    upper.legend(prop=FontProperties(fname=font, size=11), frameon=False)
    write(lower.set_ylabel, words["rate"])
    write(lower.set_xlabel, words["seen"].format(words[curve.unit]) + size_name)
    lower.set_ylim(bottom=0)
    lower.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    # A name of any letters may stand there; one that the font lacks would be an empty box.
    title = [shorten(part, 40) for part in curve.title]
    title = " · ".join(part for part in title if _has_glyphs(findfont(face), part))
    write(figure.suptitle, title, parse_math=False)
    if curve.spent and len({f"{spends:.2f}" for spends in curve.spent}) > 1:
        write(figure.supxlabel, words["spent"].format(*curve.spent), 9, color="#555555")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    picture = BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _beside(best, training, largest):
    """Where words on a Point stand: within the picture, whose last point is `largest`, and off the line of training."""
    side = "left" if best.seen < 0.15 * largest else "right" if best.seen > 0.85 * largest else "center"
    near = [point.value for point in training if abs(point.seen - best.seen) < 0.2 * largest]
    below = sum(near) > best.value * len(near)
    return {"ha": side, "va": "top" if below else "bottom", "xytext": (0, -10 if below else 10)}


@cache
def find_hangul_font():
    """The path of a font of this machine that has every letter of the Korean words, None where there is none.

    By its glyphs, since names promise nothing; from the disk, since matplotlib's own list is as old as its cache.
    """
    from matplotlib.font_manager import findSystemFonts

    letters = set("".join(str(words) for words in WORDS["ko"].values()))

    def order(path):
        name = Path(path).stem.lower()
        rank = next((rank for rank, likely in enumerate(LIKELY_FONTS) if likely in name), len(LIKELY_FONTS))
        return rank, any(style in name for style in ("bold", "light", "thin", "black", "mono")), name

    return next((path for path in sorted(findSystemFonts(), key=order) if _has_glyphs(path, letters)), None)


def _has_glyphs(path, letters):
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
        return all(font.get_char_index(ord(letter)) for letter in letters)
    except (RuntimeError, OSError):  # no font, or of a kind that FreeType cannot read
        return False
