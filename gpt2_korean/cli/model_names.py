"""Names of models and tokenizers as flags take them: a misspelt one is refused before anything is read or fetched."""

import argparse
import os

from gpt2_korean.cli.suggestions import nearest, squeeze
from gpt2_korean.cli.values import library_path

SCRATCH = ("scratch-mini",)
GPT2 = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
TOKENIZERS = ("korean", "original")
ALSO = {"gpt2small": "gpt2", "gpt2base": "gpt2"}  # as they are called too
ALSO |= dict.fromkeys(("kogpt2", "kogpt2base", "kogpt2basev2"), "skt/kogpt2-base-v2")


def start_name(word):
    """A path or Hub name of a model to train, or a built-in size; none that is nearly one of those everybody uses."""
    return _no_typo(library_path(word), (*SCRATCH, *GPT2))


def model_name(word):
    """As start_name, of a model that is trained."""
    word = library_path(word)
    if squeeze(word) in map(squeeze, SCRATCH) and not os.path.lexists(word):
        raise argparse.ArgumentTypeError(f"{word!r}: 처음부터 배우라는 이름입니다. 그렇게 학습한 모델의 폴더를 주세요.")
    return _no_typo(word, GPT2)


def tokenizer_name(word):
    """korean, original, a path, or what may be a name of the Hub."""
    word = library_path(word)
    if word in TOKENIZERS or _is_path(word) or os.path.isdir(word):
        return word
    found = nearest(word, TOKENIZERS, 0.5)
    # The Hub's names without an owner are those of old: gpt2, roberta-base.
    if found or not any(letter in "-0123456789" for letter in word):
        hint = f"혹시 {found}인가요?" if found else "korean, original, 토크나이저 폴더나 Hub 이름을 주세요."
        raise argparse.ArgumentTypeError(f"{word!r}: 그런 토크나이저가 없습니다. {hint}")
    return word


def _is_path(word):
    """Whether a word has parts, as a path has or a Hub name with its owner."""
    return "/" in word or os.sep in word


def _no_typo(word, names):
    if word in names or _is_path(word) or os.path.lexists(word):
        return word
    found = ALSO.get(squeeze(word)) or nearest(word, names, 0.75)
    if found:
        raise argparse.ArgumentTypeError(f"{word!r}: 그런 모델 폴더가 없습니다. 혹시 {found}인가요?")
    return word
