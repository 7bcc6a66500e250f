"""What stands in an output folder: models and checkpoints, which is whole, what may be replaced.

Works on files alone; loads no model.
"""

import json
import os
import re
import zipfile
from contextlib import suppress
from pathlib import Path

from gpt2_korean.messages import UsageError, particle
from gpt2_korean.text.folders import is_same, name_some
from gpt2_korean.windows import WINDOWS

CHECKPOINT = re.compile(r"checkpoint-(\d+)")
STATE = "trainer_state.json"
RESUME = "resume.json"  # what a run needs to go on beyond Trainer's own state: see same_run.py and training/trainer.py
# Settings in RESUME that TrainingArguments does not have, each with its value where the file has none.
OWN = {"embedding_learning_rate": None, "average_last": 0, "dropout": None, "bpe_dropout": 0}
ADAPTER = "adapter"  # beside a model that LoRA trained: what was merged into it
RECORD = "run.json"  # what training/record.py tells of a run
CURVE = "training_curve.png"
AVERAGE = "average.safetensors"  # in a checkpoint: see training/average.py
CARD = "README.md"  # see training/model_card.py
CARD_MARK = "<!-- gpt2-korean이 쓴 파일입니다. 고쳐서 간직하려면 이 줄을 지우세요. -->"
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin", "adapter_model.safetensors", "adapter_model.bin")
# A whole model's weights, in the order in which transformers looks for them: it reads the first that exists.
FIRST = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
TRAINING_STATES = ("optimizer.pt", "scheduler.pt", "rng_state*.pth")
MOST_TOLD = 5  # models, in a message
LEGACY_PICKLE = b"\x80"  # how torch.save wrote before its files were archives


def list_checkpoints(folder):
    """The checkpoint-N folders of `folder` that hold weights, by N."""
    folder = Path(folder)
    found = folder.iterdir() if folder.is_dir() else []
    named = [path for path in found if CHECKPOINT.fullmatch(path.name) and has_weights(path)]
    return sorted(named, key=step_of)


def whole_checkpoints(folder):
    """The checkpoints of `folder` that training can go on from, the newest last.

    The newest is the last of the run that started last: names alone would prefer an earlier, longer run.
    """

    def age(checkpoint):
        return when_started(checkpoint), trainer_state(checkpoint)["global_step"]

    return sorted(filter(is_resumable, list_checkpoints(folder)), key=age)


def when_started(checkpoint):
    """When the run of a checkpoint began (s since 1970), 0 where its file does not tell."""
    started = read_resume(checkpoint).get("started")
    return started if isinstance(started, float) else 0


def provenance_of(folder):
    """What a model's folder, or a checkpoint, tells of what it was made from, see same_run.py; {} where it does not."""
    return read_record(folder).get("provenance") or read_resume(folder)


def step_of(checkpoint):
    return int(CHECKPOINT.fullmatch(Path(checkpoint).name).group(1))


def is_model(folder):
    """Whether a folder says that it holds a model or an adapter, be it whole or not."""
    return any((Path(folder) / name).exists() for name in ("config.json", "adapter_config.json"))


def has_weights(folder):
    return any(path for pattern in WEIGHTS for path in Path(folder).glob(pattern))


def first_weights(folder):
    """The one of FIRST that is read from `folder`, None where there is none, as of an adapter."""
    return next((Path(folder) / name for name in FIRST if (Path(folder) / name).exists()), None)


def weights_read(folder):
    """The files of WEIGHTS that are read from `folder`: where a model has both formats, none of the older one."""
    first = first_weights(folder)
    newer = first is not None and first.name in FIRST[:2]
    patterns = [pattern for pattern in WEIGHTS if not (newer and pattern.startswith("pytorch_model"))]
    return [path for pattern in patterns for path in Path(folder).glob(pattern)]


def is_resumable(checkpoint):
    """Whether a checkpoint is whole: Trainer writes trainer_state.json last, and every file can be opened."""
    states = (path for pattern in ("*.pt", "*.pth", "*.bin") for path in Path(checkpoint).glob(pattern))
    return (
        trainer_state(checkpoint) is not None
        and missing_weights(checkpoint) is None
        and all(map(zipfile.is_zipfile, states))  # torch's format, whose directory stands at the end
    )


def lacks_states(checkpoint):
    """Whether a checkpoint lacks a training state, as after --save_only_model; true of sharded optimizers too."""
    return not all(any(Path(checkpoint).glob(pattern)) for pattern in TRAINING_STATES)


def missing_weights(folder):
    """The name of a file of weights that `folder` lacks or that cannot be whole, None where all are there."""
    from safetensors import SafetensorError, safe_open

    folder, first = Path(folder), first_weights(folder)
    if first is not None and first.suffix == ".json":
        names = (read_json(first) or {}).get("weight_map")
        if not (isinstance(names, dict) and names and all(isinstance(name, str) for name in names.values())):
            return first.name
        for name in sorted(set(names.values())):
            if not (folder / name).is_file():
                return name
    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, framework="numpy"):  # checks the header against the file's size
                pass
        except (SafetensorError, OSError):
            return path.name
    for path in (path for path in weights_read(folder) if path.suffix == ".bin"):
        if not (zipfile.is_zipfile(path) or _first_byte(path) == LEGACY_PICKLE):
            return path.name
    return None if has_weights(folder) else "model.safetensors"


def check_opens(folder):
    """Raise the OSError, with its number and file, where the system cannot open or map weights: the drive may fail or
    not map files, or memory may be limited. The weights themselves may be whole."""
    from safetensors import SafetensorError, safe_open

    for path in Path(folder).glob("*.safetensors"):
        try:
            with path.open("rb"), safe_open(path, framework="numpy"):
                pass
        except (SafetensorError, FileNotFoundError, PermissionError):
            continue  # missing_weights names it
        except OSError as error:
            known = as_os_error(error)
            known.filename = str(path)
            raise known from None


def as_os_error(error):
    """The OSError behind an error of a Rust library, which quotes the system's number; any other error as it is."""
    number = None if WINDOWS else re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else error


def read_shapes(folder):
    """The weights in the safetensors files of `folder`, name → shape. Raises nothing for files that cannot be read."""
    from safetensors import SafetensorError, safe_open

    shapes = {}
    for path in (path for path in weights_read(folder) if path.suffix == ".safetensors"):
        try:
            with safe_open(path, framework="numpy") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError):
            continue  # missing_weights names it
    return shapes


def is_our_card(path):
    """Whether a file is a README.md that we wrote, and no user has made their own."""
    return path.name == CARD and path.is_file() and CARD_MARK in path.read_text("utf-8", errors="replace")


def card_metadata(folder):
    """The metadata of a folder's model card, a dict; empty where there is none that can be read."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    with suppress(OSError, ValueError, YAMLError):
        return metadata_load(Path(folder) / CARD) or {}
    return {}


def _first_byte(path):
    """The first byte of a file, none of what is no file."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(1)


def trainer_state(checkpoint):
    """The content of trainer_state.json, None where it is missing or broken."""
    state = read_json(Path(checkpoint) / STATE) or {}
    steps = [state.get(name) for name in ("global_step", "max_steps")]
    return state if all(type(number) is int and number >= 0 for number in steps) else None


def read_json(path, broken=lambda error: None):
    """The object in a JSON file, None where there is no file, what `broken` makes of the error where it holds none."""
    try:
        content = json.loads(Path(path).read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError("JSON 객체({...})가 아님")
        return content
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        return broken(error)


def read_resume(checkpoint):
    """What a checkpoint tells of its run beyond Trainer's own state, {} where it does not."""
    return read_json(Path(checkpoint) / RESUME) or {}


def read_record(output_dir):
    """What the run that wrote its record into `output_dir` last told there, {} where there is none."""
    return read_json(Path(output_dir) / RECORD) or {}


def check_writable(folder, flag):
    """Raise UsageError where the `folder` of a `flag` cannot be written."""
    folder = Path(folder)
    tried = (folder, *folder.absolute().parents)
    lost = next((path for path in tried if os.path.islink(path) and not os.path.exists(path)), None)
    if lost is not None:  # as a link to a disk that is not mounted
        raise UsageError(
            f"{flag}={folder}: {particle(str(lost), '은/는')} 없는 곳({os.readlink(lost)})을 가리키는 "
            "링크입니다. 그 디스크를 연결하거나 다른 경로를 주세요."
        )
    existing = next(filter(os.path.exists, tried), folder)  # none exists where the drive is missing
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"{flag}={folder}: {existing}에 쓸 수 없습니다. 권한을 확인하거나 다른 경로를 주세요.")


def check_source_survives(model_type, output_dir):
    """Raise UsageError where overwriting `output_dir` would delete the very model that training starts from."""
    source = Path(model_type).resolve()
    is_checkpoint = CHECKPOINT.fullmatch(source.name.lower())
    if is_same(source, output_dir) or (is_checkpoint and is_same(source.parent, output_dir)):
        raise UsageError(
            f"--model_type={model_type}: 덮어쓸 --output_dir 안에 있는 모델에서 시작할 수 없습니다. "
            "다른 --output_dir을 주거나 모델을 다른 곳으로 옮기세요."
        )


def describe_existing(folders):
    """Which models and checkpoints, the newest first, a user may have meant instead: a run may leave hundreds."""
    if not folders:
        return "쓸 수 있는 모델이 없습니다. 먼저 train.py로 학습하세요."
    return f"있는 것: {name_some(folders, MOST_TOLD)}"
