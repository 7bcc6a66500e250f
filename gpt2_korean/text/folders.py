"""A path, a folder or a glob → the files to read, each once, whatever leads to it and however its name is composed."""

import difflib
import fnmatch
import os
import re
import unicodedata
from collections import deque
from contextlib import suppress
from pathlib import Path

from gpt2_korean.messages import UsageError, say, warn
from gpt2_korean.text.opening import FORMATS, file_format

READABLE = (
    f"가능한 형식: {' '.join(FORMATS)} (.gz .xz).\n"
    "다른 압축 파일(.zip 등)은 풀고, 문서(.hwp, .xlsx 등)는 .txt나 .csv로 저장하고, 이름만 다른 글에는 .txt를 붙이세요."
)
ANY_DEPTH = "**"
MODELS = "fine_tuned_models"  # where train.py writes unless told otherwise
QUOTES = "\"'“”‘’"  # of a value that was quoted twice, or by a word processor, or for another shell
# What datasets writes beside texts, which also lie in repositories of the Hub.
ABOUT_DATA = {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json"}
# As checkpoints/ has them, which this folder may not import.
MODEL_FILES = {"_lock", "trainer_state.json", "model.safetensors", "adapter_model.safetensors"}
MODEL_FILES |= {"model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"}
MODEL_CONFIGS = {"config.json", "adapter_config.json"}
HUB_NAME = re.compile(r"[A-Za-z0-9][\w-]*/[\w-]+", re.ASCII)  # of a data set, that of a file ends in its format


def find_files(pattern, flag="--dataset_path"):
    """The readable files behind a path, a folder (searched deeply) or a glob, sorted; says how many were left out.

    Left out are hidden files (but for one that is named), folders of models, what is said about a data set and other
    ways to a file that is found already.
    Raises UsageError that names `flag` where there is nothing to read.
    """
    root, rest = _existing_part(pattern)
    if root.is_file() and not rest:
        if file_format(root) is None:
            raise UsageError(f"{flag}={pattern}: 읽을 수 없는 형식입니다. {READABLE}")
        return [root]
    if "://" in pattern and rest:
        raise UsageError(
            f"{flag}={pattern}: 인터넷 주소는 읽지 않습니다. 내려받은 파일을 주거나, Hub의 데이터 세트라면 "
            "--dataset_name=만든이/이름을 주세요."
        )
    if root.exists() and not root.is_dir() and not rest:
        raise UsageError(f"{flag}={pattern}: 파이프나 장치는 읽지 않습니다. 파일로 저장해서 그 경로를 주세요.")
    if not root.is_dir() or (rest and not any(set("*?[") & set(part) for part in rest)):
        of_hub = flag == "--dataset_path" and not Path(pattern).parent.exists() and HUB_NAME.fullmatch(pattern)
        way_on = f"Hub의 데이터 세트라면 --dataset_name={pattern}, 파일이라면 " if of_hub else ""
        way_on += _ways_to_several(pattern) or describe_missing(pattern)
        raise UsageError(f"{flag}={pattern}: 그런 파일이나 폴더가 없습니다. {way_on}")
    if not rest and _is_whole_model(root):
        raise UsageError(
            f"{flag}={pattern}: 글이 아니라 모델의 폴더입니다. 글의 경로를 주고, 이 모델은 --model_type으로 주세요."
        )
    files, hidden, broken, others, models, about = [], [], [], [], [], []
    for path, is_hidden in _walk(root, rest or [ANY_DEPTH]):
        if path.name in ABOUT_DATA:
            about.append(path)
        elif file_format(path):
            (hidden if is_hidden else files if path.is_file() else broken).append(path)
        elif not is_hidden:
            (models if path.is_dir() else others).append(path)
    once = {}
    for path in sorted(files, key=Path.is_symlink):
        once.setdefault(os.path.realpath(path), path)
    for paths, words in (
        (others, "읽을 수 없는 형식의 파일 {}개를 뺐습니다: {}"),
        (about, "데이터 세트를 설명하는 파일 {}개를 뺐습니다: {}"),
        (hidden, "숨은 파일 {}개를 뺐습니다: {}"),
        (models, "모델의 폴더 {}개를 뺐습니다: {}"),
        (broken, "읽을 수 없는 링크나 특수 파일 {}개를 뺐습니다: {}"),
        (sorted(set(files) - set(once.values())), "다른 이름으로 이미 찾은 파일 {}개를 뺐습니다: {}"),
    ):
        if paths:
            say(f"{flag}={pattern}: {words.format(len(paths), name_some(paths))}")
    if once:
        return sorted(once.values())
    if not rest:
        raise UsageError(f"{flag}={pattern}: 폴더에 읽을 파일이 없습니다. {READABLE}")
    raise UsageError(
        f"{flag}={pattern}: 패턴에 맞는 읽을 파일이 없습니다. 이름에 든 글자라면 *는 [*], [는 [[]로 쓰세요. {READABLE}"
    )


def _ways_to_several(pattern):
    """How several files are given, where `pattern` has them in one value, as other programs take them; else None."""
    first, *others = re.split("[,;]", pattern)
    is_list = others and find_path(first.strip()).exists()
    return '여러 파일은 그 폴더나 "글/*.txt" 같은 패턴으로 주세요.' if is_list else None


def leave_out(held_out, files):
    """`files` to learn from without those that are `held_out` to measure on, as a folder may have both; says so.

    Where that leaves none, all of them, with a warning.
    """
    measured = {}
    for path in held_out:
        measured.setdefault(_folded(path), []).append(path)
    rest = [path for path in files if not any(is_same(path, other) for other in measured.get(_folded(path), ()))]
    if not rest:
        warn("학습 글과 평가 글이 같은 파일입니다. 처음 보는 글에서 재려면 다른 파일을 --validation_file로 주세요.")
        return files
    if len(rest) < len(files):
        both = sorted(set(files) - set(rest))
        say(f"--dataset_path: --validation_file의 파일 {len(both)}개는 배우지 않습니다: {name_some(both)}")
    return rest


def find_path(name):
    """The Path of `name`, where it is there with its Hangul composed otherwise (as macOS does) under that name."""
    root, rest = _existing_part(name)
    return root.joinpath(*rest)


def is_same(one, other):
    """Whether two paths lead to one file or folder, be it by a name in another case or with its Hangul composed
    otherwise, where the disk takes these for one, as a Mac's does."""
    paths = os.path.realpath(one), os.path.realpath(other)
    alike = _folded(one) == _folded(other) and all(map(os.path.exists, paths))
    return paths[0] == paths[1] or (alike and os.path.samefile(*paths))


def _folded(path):
    return _composed(os.path.realpath(path)).casefold()


def describe_missing(path):
    """The way on from a `path` that is not there: the one that is spelt most like it, or where it was looked for."""
    here = "" if os.path.isabs(path) else f"(지금 폴더: {os.getcwd()})"
    return suggest_path(path) or f"경로를 확인하세요{here}."


def suggest_path(missing):
    """A sentence that names the path there is whose spelling is nearest to a `missing` one; None if none is."""
    bare = missing.strip(QUOTES)
    if bare != missing and os.path.exists(bare):
        return f"경로에 든 따옴표를 빼세요: {bare}"
    root, rest = _existing_part(missing)
    names = {_composed(path.name): path.name for path in root.iterdir()} if rest and root.is_dir() else {}
    for name in difflib.get_close_matches(_composed(rest[0]), names) if names else ():
        with suppress(OSError):  # of a folder into which one may not look
            found = find_path(root.joinpath(names[name], *rest[1:]))
            if found.exists():
                return f"혹시 {found}인가요?"
    return None


def name_some(paths, most=3):
    """The first of `paths`, at `most` so many, and that there are more."""
    return ", ".join(map(str, paths[:most])) + (" 등" if len(paths) > most else "")


def _existing_part(pattern):
    """`(path, parts)`: how far `pattern` leads by its letters, and what of it does not."""
    path, parts = Path(pattern), Path(pattern).parts
    found = Path(parts[0]) if path.is_absolute() else Path()
    for index in range(int(path.is_absolute()), len(parts)):
        step = found / parts[index]
        if not os.path.lexists(step):
            entries = found.iterdir() if found.is_dir() else ()
            step = next((entry for entry in entries if _composed(entry.name) == _composed(parts[index])), None)
        if step is None:
            return found, list(parts[index:])
        found = step
    return found, []


def _walk(root, pattern):
    """Yield `(path, whether it is hidden)` of every file below `root` that the parts of a glob `pattern` match, and of
    every folder of a model that may have some.

    A folder is entered once, whatever links lead to it, and by its own name rather than by a link.
    """
    if pattern[-1] == ANY_DEPTH:
        pattern = [*pattern, "*"]
    end, entered = len(pattern), set()
    folders, links = deque([(root, _closed(pattern, {0}), False)]), deque()
    while folders or links:
        folder, states, hidden = (folders or links).popleft()
        key = (os.path.realpath(folder), states)
        if key in entered:
            continue
        entered.add(key)
        paths = sorted(folder.iterdir())
        if folder != root and _is_model({path.name for path in paths}):
            yield folder, hidden
            continue
        for path in paths:
            after = _step(pattern, states, path.name)
            named = any(pattern[state] == path.name or pattern[state].startswith(".") for state in states)
            hides = hidden or (not named and (path.name.startswith(".") or path.name == "__MACOSX"))
            if path.is_dir():
                if after - {end}:
                    (links if path.is_symlink() else folders).append((path, after - {end}, hides))
            elif end in after:
                yield path, hides


def _is_model(names):
    """Whether a folder with files of these names is a model, or a run's that is to be one, and holds no text."""
    stopped = "run.json" in names and any(name.startswith("checkpoint-") for name in names)
    return stopped or not MODEL_FILES.isdisjoint(names)


def _is_whole_model(folder):
    """Whether what a `folder` is for is the model in it, and not the texts that may lie beside a run's other files."""
    names = {path.name for path in folder.iterdir()}
    return _is_model(names) and not MODEL_CONFIGS.isdisjoint(names)


def _step(pattern, states, name):
    """The states (how many parts of `pattern` are matched) after one more part of a path."""
    after = set()
    for state in states:
        part, composed = _composed(pattern[state]), _composed(name)
        if part == ANY_DEPTH:
            after.add(state)
        elif composed == part or fnmatch.fnmatchcase(composed, part):
            after.add(state + 1)
    return _closed(pattern, after)


def _closed(pattern, states):
    """`states`, a set, with those added to which ** leads by matching no folder at all."""
    for index, part in enumerate(pattern):
        if index in states and part == ANY_DEPTH:
            states.add(index + 1)
    return frozenset(states)


def _composed(name):
    return unicodedata.normalize("NFC", name)
