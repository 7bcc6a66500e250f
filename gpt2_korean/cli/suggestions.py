"""A flag or value that is none → what was meant: another tool's name for it, its beginning, or the nearest spelling."""

import difflib
import os
import re
from pathlib import Path

ALIKE = 0.7  # a ratio of difflib's: below it two names have little to do with each other
ALIKE_AT_FIRST = 0.8  # of a name's beginning: a letter wrong of five
LISTED = "쓸 수 있는 플래그는 --help로 볼 수 있습니다."
LONG_DASHES = ("–", "—", "―", "−")  # what word processors and messengers make of --


def squeeze(name):
    """A name without what is spelt otherwise elsewhere: topP, top-p and top_p are one."""
    return re.sub(r"[-_.]", "", name.lower())


def nearest(word, names, cutoff=0.6):
    """The one of `names` that begins with `word` or nearly so, or else is spelt most like it; None where none is.

    cutoff: how much alike, a ratio of difflib's.
    """
    spelt, word = {squeeze(name): name for name in names}, squeeze(word)
    begun = {short[: len(word)]: short for short in reversed(spelt)} if len(word) > 1 else {}  # the first of them stays
    for shorts, ratio in ((begun, ALIKE_AT_FIRST), ({short: short for short in spelt}, cutoff)):
        for found in difflib.get_close_matches(word, shorts, 1, ratio):
            return spelt[shorts[found]]
    return None


def suggest_flag(word, flags, other_names, dashes="--", otherwise=LISTED):
    """A sentence that names the flag which was meant by `word`, or else the way to list them all.

    flags: of two as near the first is named. other_names: a table of other_names.py. dashes: what a flag is shown with.
    """
    name, flags = squeeze(word), [flag.removeprefix("--") for flag in flags]
    ours = next((flag for flag, names in other_names.items() if name in map(squeeze, names.split())), None)
    if ours is not None:
        return f"여기서는 {dashes}{ours}입니다."
    found = _nearest_flag(name, flags) or _containing(word.lstrip("-"), flags)
    return f"혹시 {dashes}{found}인가요?" if found else otherwise


def _nearest_flag(name, flags):
    alike = {flag: difflib.SequenceMatcher(None, name, squeeze(flag)).ratio() for flag in flags}
    return max((flag for flag in flags if alike[flag] >= ALIKE), key=alike.get, default=None)


def _containing(name, flags):
    return next((flag for flag in flags if len(name) > 2 and name in flag), None)


def suggest_value(word, values):
    """A sentence that names the one of `values` which was meant by `word`, or all of them where they are few."""
    if len(values) <= 8:
        return f"가능한 값: {', '.join(values)}"
    meant = nearest(word, values)
    return f"혹시 {meant}인가요?" if meant else f"가능한 값: {', '.join(values)}"


def describe_bare(word, flag_of_path, given):
    """What is wrong with a `word` that belongs to no flag.

    flag_of_path: a function: a path that exists → the flag that it is meant for. given: the flags that stand there.
    """
    flag = flag_of_path(word) if os.path.exists(word) else None
    if flag is None and word.startswith(LONG_DASHES):
        return f"플래그 앞의 긴 줄표를 -로 바꾸세요: --{word.lstrip('-' + ''.join(LONG_DASHES))}"
    if flag is None or (flag in given and os.path.isdir(word)):
        return f'플래그 없이 준 값입니다: {word!r}. 값에 빈칸이 있으면 곧은 따옴표(" ")로 묶으세요.'
    if flag in given:
        return (
            f"플래그 없이 준 파일입니다: {word!r}. --{flag} 플래그는 하나만 받습니다. "
            '여러 파일은 그 폴더를 주거나 "글/*.txt"처럼 따옴표로 묶으세요.'
        )
    return f"플래그 없이 준 경로입니다: {word!r}. 혹시 --{flag}={word}인가요?"


def describe_spaced(words):
    """What is wrong with `--flag = value` or `--flag= value`, which a shell hands over as several words; None where
    nothing stands so."""
    parts = [part for word in words for part in ([word[:-1], "="] if re.fullmatch("--[^=]+=", word) else [word])]
    for flag, equals, value in zip(parts, parts[1:], parts[2:], strict=False):
        if flag.startswith("--") and "=" not in flag and equals == "=" and not value.startswith("-"):
            return f'플래그의 = 앞뒤에 있는 빈칸을 지우세요: {flag}="{value}"'
    return None


def flag_to_train_with(path):
    """The flag of train.py that a path which exists is meant for."""
    if any(os.path.exists(os.path.join(path, name)) for name in ("config.json", "adapter_config.json")):
        return "model_type"
    return "config" if Path(path).suffix.lower() in (".yaml", ".yml") else "dataset_path"


def flag_to_write_with(path):
    """The flag of generate.py that a path which exists is meant for."""
    return "model_name_or_path" if os.path.isdir(path) else "prompt_file"
