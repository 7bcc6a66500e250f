"""Checks that the files of a model's folder fit together, before a model is made of them. Imports no torch."""

import json
import math
import pickle
import re
import zipfile
from contextlib import contextmanager
from pathlib import Path

from gpt2_korean.checkpoints.complete import (
    FIRST,
    check_opens,
    has_weights,
    missing_weights,
    read_json,
    read_shapes,
    weights_read,
)
from gpt2_korean.messages import UserError, is_out_of_memory, particle
from gpt2_korean.model.gpt2 import SIZES, is_gpt2, weight_shapes
from gpt2_korean.model.hub import broken_off
from gpt2_korean.text.opening import check_readable

OTHERS_WEIGHTS = ("tf_model*.h5", "flax_model*.msgpack", "*.ckpt*", "*.onnx", "*.gguf")
# Keys whose value is a count, a positive integer, in the config of any architecture of transformers.
COUNTS = {*SIZES, "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"}
COUNTS |= {"num_key_value_heads", "intermediate_size", "n_inner", "head_dim", "d_model", "num_layers", "num_heads"}
COUNTS |= {"learnt_answers"}  # our own, see prepare.py
SHOWN = 240  # letters of what a library says
SHORT = 2**19  # numbers that are looked at in no time: a GPT-2's biases, an adapter's matrices
LAYERS = re.compile(r"^(?!max_)(.*_)?layers?$")  # a bound (Qwen's max_window_layers) may lie above what is there


def check_files(folder, flag):
    """Raise UserError for a `folder` whose files are not what they are called, or whose config.json cannot be true."""
    folder = Path(folder)
    check_opens(folder)
    for path in sorted([*weights_read(folder), *folder.glob("*.json"), *folder.glob("*.txt")]):
        check_readable(path, f"{flag}={folder}: {path.name}")
    others = sorted(path.name for pattern in OTHERS_WEIGHTS for path in folder.glob(pattern))
    if others and not has_weights(folder):
        raise UserError(
            f"{flag}={folder}: PyTorch의 가중치(model.safetensors)가 없고 {others[0]}만 있습니다. "
            "safetensors로 저장된 모델을 주세요."
        )
    names = ("config.json", "adapter_config.json", "tokenizer_config.json")
    config, adapter, _ = (read_model_json(flag, folder / name) for name in names)
    shapes = read_shapes(folder)
    if adapter is not None:
        _check_adapter(adapter, shapes, flag, folder)
    elif config is not None and missing_weights(folder) is None:
        check_sizes(config, shapes, _count_tensors(folder, shapes), flag, folder)


def check_sizes(config, shapes, tensors, flag, folder):
    """Raise UserError for sizes that no model has, or that are not those of the weights.

    shapes: name → shape of the weights as far as their files tell. tensors: how many there are, None where not known.
    """
    for key, value in _walk(config):
        if key in COUNTS and value is not None and not _is_count(value):
            raise _wrong(flag, folder, key, value, "1 이상의 정수여야 합니다")
        if tensors is not None and LAYERS.search(key) and _is_count(value) and value > tensors:
            raise _wrong(flag, folder, key, value, f"가중치가 {tensors:,}개뿐입니다")
    if not is_gpt2(config) or not all(key in config for key in SIZES):
        return
    for key in SIZES:
        if config[key] is None:
            raise _wrong(flag, folder, key, None, "1 이상의 정수여야 합니다")
    if config["n_embd"] % config["n_head"]:
        width = particle(f"n_embd({config['n_embd']})", "을/를")
        raise _wrong(flag, folder, "n_head", config["n_head"], f"{width} 나누는 수여야 합니다")
    epsilon = config.get("layer_norm_epsilon", 1e-5)
    if type(epsilon) not in (int, float) or not 0 <= epsilon < math.inf:
        raise _wrong(flag, folder, "layer_norm_epsilon", epsilon, "0 이상의 수여야 합니다")
    if not shapes or config.get("quantization_config"):
        return
    shapes = {name.removeprefix("transformer."): shape for name, shape in shapes.items()}
    wanted = weight_shapes(config)
    if "lm_head.weight" in shapes:
        wanted["lm_head.weight"] = (config["vocab_size"], config["n_embd"])
    wrong = [name for name, shape in wanted.items() if shapes.get(name) != shape]
    if wrong:
        raise unfitting(flag, folder, wrong)


def _check_adapter(config, shapes, flag, folder):
    base, pattern = config.get("base_model_name_or_path"), config.get("rank_pattern")
    ranks = [config.get("r", 1), *(pattern.values() if isinstance(pattern, dict) else [])]
    if not (isinstance(base, str) and base):
        wanted = "바탕 모델의 폴더나 Hub의 이름이어야 합니다"
        raise _wrong(flag, folder, "base_model_name_or_path", base, wanted, "adapter_config.json")
    largest = max((max(shape, default=0) for shape in shapes.values()), default=math.inf)
    for rank in ranks:
        if not _is_count(rank) or rank > largest:
            raise _wrong(flag, folder, "r", rank, "가중치의 것이 아닙니다", "adapter_config.json")


def check_numbers(weights, flag, source):
    """Raise UserError for `weights`, name → tensor, that are NaN, as those of a run that diverged.

    The short ones are enough: such a run has NaN in all. A text would end at once or repeat one token.
    """
    for name, weight in weights.items():
        if weight.numel() <= SHORT and weight.is_floating_point() and weight.isnan().any():
            raise UserError(
                f"{flag}={source}: 가중치({name})가 NaN(수가 아닌 값)입니다. 학습하다 발산한 모델이니 그 앞의 "
                "체크포인트나 다른 모델을 주세요."
            )


def weight_files(folder, flag):
    """The safetensors files of a folder's weights in one order, None where one is missing."""
    whole, index = (folder / name for name in FIRST[:2])
    index = None if whole.exists() else read_model_json(flag, index)
    names = {whole.name} if index is None else set(index["weight_map"].values())
    files = [folder / name for name in sorted(names)]
    return files if all(file.exists() for file in files) else None


def read_model_json(flag, path):
    """The object in a model's JSON file, None where it is missing. Raises UserError where it is damaged."""

    def broken(error):
        raise damaged(flag, path, error) from None

    return read_json(path, broken)


def damaged(flag, path, error):
    """The UserError of a file that cannot be read."""
    return UserError(f"{flag}={path}: 파일이 온전하지 않습니다. 다시 저장하거나 내려받으세요 ({error}).")


def unfitting(flag, source, names, words="가중치가 config.json과 맞지 않습니다"):
    """The UserError of weights, `names`, that are missing or of other shapes than the config wants."""
    return UserError(f"{flag}={source}: {words}. 폴더를 통째로 다시 받으세요 ({names[0]} 등 {len(names)}개).")


def unloadable(flag, source, error):
    """The UserError of what a library raised over the files of `source`."""
    from safetensors import SafetensorError

    said = " ".join(str(error).split())[:SHOWN] or type(error).__name__
    if isinstance(error, (SafetensorError, json.JSONDecodeError, EOFError, UnicodeDecodeError)):
        return damaged(flag, source, said)
    if isinstance(error, pickle.UnpicklingError):
        return UserError(f"{flag}={source}: 가중치 파일에 가중치가 아닌 것이 들어 있어 열지 않았습니다.")
    if "trust_remote_code" in str(error):
        return UserError(
            f"{flag}={source}: 모델에 딸린 Python 코드를 실행해야 하는 모델입니다.\n"
            "만든 사람을 믿는다면 그 코드를 읽어 본 뒤 --trust_remote_code를 더하세요."
        )
    if isinstance(error, ImportError):
        return UserError(f"{flag}={source}: 이 모델을 열려면 여기에 없는 패키지가 필요합니다 ({said}).")
    if is_out_of_memory(error):
        return UserError(f"{flag}={source}: 메모리가 모자라 모델을 불러올 수 없습니다. 더 작은 모델을 주세요.")
    kind = "" if isinstance(error, (OSError, ValueError, RuntimeError)) else f"{type(error).__name__}: "
    return UserError(f"{flag}={source}: 모델을 불러올 수 없습니다 ({kind}{said}).")


@contextmanager
def still_there(flag, source):
    """Raise a UserError that says so where the model's folder is removed while it is read in here.

    source: a Path of a folder, or a hub id.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(source, Path) or source.is_dir():
            raise
        raise UserError(
            f"{flag}={source}: 읽는 동안 지워진 모델입니다. 학습하는 중인 폴더라면 지난 체크포인트를 지운 것이니"
            "(--save_total_limit) 남은 것을 주세요."
        ) from error


@contextmanager
def told_by_name(flag, source):
    """Turn whatever libraries raise over the files of `source` into a UserError that names them and `flag`."""
    with still_there(flag, source):
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # of others' files the libraries may raise anything
            raise broken_off(source, flag, error) or unloadable(flag, source, error) from error


def without_tokenizer(flag, source):
    """The UserError of a model without files of a tokenizer, or with a part of them."""
    return UserError(
        f"{flag}={source}: 토크나이저가 없는 모델입니다. 모델을 만든 곳에서 tokenizer.json(또는 "
        "vocab.json과 merges.txt)을 받아 모델 폴더에 함께 두세요."
    )


def without_end(flag, source):
    """The UserError of a model in which nothing ends a text."""
    return UserError(
        f"{flag}={source}: 글의 끝을 나타내는 토큰(eos_token)이 없는 모델입니다. 모델 폴더의 tokenizer_config.json에 "
        '"eos_token": "</s>"처럼 적으세요.'
    )


def _wrong(flag, folder, key, value, words, config="config.json"):
    return UserError(f"{flag}={folder}: {config}의 {key}={json.dumps(value, ensure_ascii=False)[:80]}: {words}.")


def _walk(config):
    """Yield each `(key, value)` of a config and of those within it."""
    for key, value in config.items():
        yield key, value
        if isinstance(value, dict):
            yield from value.items()


def _is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _count_tensors(folder, shapes):
    """How many tensors the weights of `folder` are, with those of `shapes`; None where only reading them all tells."""
    count = len(shapes)
    for path in (path for path in weights_read(folder) if path.suffix == ".bin"):
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            count += len(archive.namelist())
    return count
