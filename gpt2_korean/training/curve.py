"""Trainer's log → training_curve.png: what the model has learnt, at a glance.

Losses are drawn in bits per character over the characters that have been read, so that pictures of runs with
any vocabulary and batch can be laid side by side.
"""

import math
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

# Fonts with Hangul that systems come with, tried before all others: the first that has the glyphs is taken.
LIKELY_FONTS = ("nanumgothic", "notosanskr", "notosanscjk", "malgun", "applesdgothic", "gothic", "nanum", "noto")
WORDS = {
    "ko": {
        "bits": "{}당 비트",
        "seen": "학습한 {} 수",
        "characters": "글자",
        "tokens": "토큰",
        "training": "학습",
        "evaluation": "평가",
        "best": "가장 낮음 {:.3f}",
        "last": "마지막 {:.3f}",
        "rate": "학습률",
        "units": ((1e8, " (억)"), (1e4, " (만)"), (1, "")),
    },
    "en": {
        "bits": "bits per {}",
        "seen": "{}s trained on",
        "characters": "character",
        "tokens": "token",
        "training": "training",
        "evaluation": "evaluation",
        "best": "best {:.3f}",
        "last": "last {:.3f}",
        "rate": "learning rate",
        "units": ((1e9, " (billions)"), (1e6, " (millions)"), (1e3, " (thousands)"), (1, "")),
    },
}


@dataclass(frozen=True)
class Corpus:
    """The size of the text that is trained on; of a stream it is unknown, None, and only a step's tokens count."""

    characters: int | None
    tokens: int | None
    tokens_per_step: int


@dataclass(frozen=True)
class Curve:
    """Points (how much was read, value), ascending; `unit` is "characters" or "tokens", values are bits per unit."""

    unit: str
    training: list
    evaluation: list
    learning_rate: list


def curve_of(log_history, corpus):
    """The Curve of Trainer's log, whose losses are nats per token."""
    known = corpus.characters is not None
    bits = (corpus.tokens / corpus.characters if known else 1) / math.log(2)
    training, evaluation, learning_rate = {}, {}, {}
    for entry in log_history:
        seen = entry["epoch"] * corpus.characters if known else entry["step"] * corpus.tokens_per_step
        # A second entry of a step tells nothing new, and after the end it may be of an earlier step's weights.
        if "loss" in entry:
            training.setdefault(entry["step"], (seen, entry["loss"] * bits))
            learning_rate.setdefault(entry["step"], (seen, entry["learning_rate"]))
        if "eval_loss" in entry:
            value = entry["eval_bits_per_character"] if known else entry["eval_loss"] * bits
            evaluation.setdefault(entry["step"], (seen, value))
    points = [[found[step] for step in sorted(found)] for found in (training, evaluation, learning_rate)]
    return Curve("characters" if known else "tokens", *points)


def is_worth_drawing(curve):
    """Whether there is a line to draw: a run of a single step has none."""
    return max(len(curve.training), len(curve.evaluation)) > 1


def draw(curve):
    """The picture of a curve that is worth drawing, as the bytes of a PNG."""
    # matplotlib's object interface alone: pyplot keeps figures and chooses a display for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    font = find_hangul_font()
    words, face = (WORDS["ko"], FontProperties(fname=font)) if font else (WORDS["en"], FontProperties())
    figure = Figure(figsize=(8, 5.5), dpi=110)
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    figure.subplots_adjust(left=0.1, right=0.97, bottom=0.1, top=0.97, hspace=0.15)
    largest = max(seen for seen, _ in [*curve.training, *curve.evaluation])
    size, size_name = next((size, name) for size, name in words["units"] if largest >= size or size == 1)

    def plot(axes, points, **style):
        axes.plot([seen / size for seen, _ in points], [value for _, value in points], **style)

    few = "." if len(curve.training) <= 30 else None
    if curve.training:
        label = f"{words['training']} ({words['last'].format(curve.training[-1][1])})"
        plot(upper, curve.training, color="#4c78a8", marker=few, label=label)
    if curve.evaluation:
        best = min(curve.evaluation, key=lambda point: point[1])
        label = f"{words['evaluation']} ({words['best'].format(best[1])})"
        plot(upper, curve.evaluation, color="#e45756", marker="o", markersize=4, label=label)
        plot(upper, [best], color="#e45756", marker="o", markersize=9, markerfacecolor="none", linestyle="none")
    plot(lower, curve.learning_rate, color="#666666", marker=few)
    unit = words[curve.unit]
    upper.set_ylabel(words["bits"].format(unit), fontproperties=face, fontsize=12)
    upper.legend(prop=FontProperties(fname=font, size=11) if font else {"size": 11}, frameon=False)
    lower.set_ylabel(words["rate"], fontproperties=face, fontsize=12)
    lower.set_xlabel(words["seen"].format(unit) + size_name, fontproperties=face, fontsize=12)
    lower.set_ylim(bottom=0)
    lower.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    picture = BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


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
