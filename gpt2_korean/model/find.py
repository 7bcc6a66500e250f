"""A name that a user gives for a model → the folder or the hub id that it is loaded from.

Works on files alone; loads no model.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gpt2_korean.checkpoints.complete import (
    CHECKPOINT,
    check_source_survives,
    describe_existing,
    is_model,
    list_checkpoints,
    missing_weights,
    read_json,
    step_of,
    trainer_state,
    whole_checkpoints,
)
from gpt2_korean.checkpoints.going_on import find_starting_point
from gpt2_korean.checkpoints.lock import describe_run
from gpt2_korean.messages import UsageError, UserError, particle, say, warn
from gpt2_korean.model.files import check_files
from gpt2_korean.model.gpt2 import SCRATCH_SIZES, check_dropout, context_length
from gpt2_korean.model.lora import check_adapter
from gpt2_korean.text.folders import MODELS, describe_missing, find_path, suggest_path
from gpt2_korean.text.opening import check_readable

HUB = "https://huggingface.co/"


@dataclass(frozen=True)
class Start:
    """What training starts from: a folder, a hub id or a built-in size, and the checkpoint that it goes on from."""

    source: object
    checkpoint: Path | None = None

    @property
    def from_scratch(self):
        """Whether it is a built-in size, which knows nothing and learns its vocabulary from the text."""
        return self.source in SCRATCH_SIZES

    @property
    def keeps_vocabulary(self):
        """Whether the vocabulary is settled: a checkpoint's own, or learnt from the text as a built-in size's is."""
        return self.checkpoint is not None or self.from_scratch


def find_start(model, output=None):
    """The Start of a run with `model` (a ModelOptions), said in a line; `output` (OutputOptions) where it is to learn.

    Raises UserError for a model that is not there, UsageError for a tokenizer that is not, where `output` holds an
    earlier run and no flag says what is to become of it, or where checkpoint and flags of LoRA do not fit.
    """
    _check_tokenizer(model.tokenizer)
    source, checkpoint = model.model_type, None
    if output is not None:
        wanted = output.output_dir, output.overwrite_output_dir, output.resume_from_checkpoint
        checkpoint = find_starting_point(*wanted, check_files)
    if checkpoint is not None:
        source = checkpoint  # model and tokenizer are its own
        say(f"이어서 학습합니다: {checkpoint}")
    elif source not in SCRATCH_SIZES:
        source = find_model(source, "--model_type")
        if output is not None:
            check_source_survives(source, output.output_dir)
    if output is not None:
        check_adapter(checkpoint, source, model.lora_rank, model.lora_alpha)
    return Start(source, checkpoint)


def find_model(name, flag="--model_name_or_path"):
    """The folder or hub id that `name` is loaded from.

    A run that ended before step N has no checkpoint-N, and never will: its last state stands for it, and that is said.
    Raises UserError that names the models which do exist beside a missing one.
    """
    path = find_path(name)
    if path.is_dir():
        check_readable(path, f"{flag}={name}")
        if not is_model(path):
            checkpoints = list_checkpoints(path)
            if len(checkpoints) == 1:
                warn(f"{name}: 학습이 끝나지 않은 폴더라 그 안의 {particle(checkpoints[0].name, '을/를')} 씁니다.")
                return find_model(str(checkpoints[0]), flag)
            busy = None if checkpoints else describe_run(path)
            if busy is not None:
                raise UserError(f"{flag}={name}: {busy} 저장된 뒤에 다시 실행하세요.")
            inside = describe_existing(models_below(path))
            raise UserError(f"{flag}={name}: 모델 폴더가 아닙니다(config.json이 없음). {inside}")
        check_files(path, flag)
        missing = missing_weights(path)
        if missing:
            beside = whole_checkpoints(path.parent)
            trouble = f"쓰다 만 모델입니다({particle(missing, '이/가')} 없거나 잘림)."
            # Of another maker, a copy or a download that broke off: to train is no way on.
            way_on = describe_existing(beside[::-1]) if beside else "다시 저장하거나 내려받으세요."
            raise UserError(f"{flag}={name}: {trouble} {way_on}")
        return path
    if path.is_file():
        raise UsageError(f"{flag}={name}: 파일이 아니라 모델이 든 폴더를 주세요.")
    if CHECKPOINT.fullmatch(path.name):
        beside = list_checkpoints(path.parent)
        state = trainer_state(beside[-1]) if beside else None
        if state and state["max_steps"] <= state["global_step"] < step_of(path):
            last = particle(beside[-1].name, "을/를")
            warn(f"학습이 {step_of(beside[-1])}스텝에서 끝났으므로 {path.name} 대신 마지막 {last} 씁니다.")
            return beside[-1]
    elif _may_be_hub_id(name):
        meant = suggest_path(name) if "/" in name else None
        if meant:
            warn(f"{flag}={name}: 그런 폴더가 없어 Hub의 모델로 봅니다. {meant}")
        return name
    if name.startswith(HUB):
        meant = "/".join(name.removeprefix(HUB).split("/")[:2])
        raise UsageError(f"{flag}={name}: 주소가 아니라 이름을 주세요. 혹시 {flag}={meant}인가요?")
    there, way_on = models_below(path.parent), None
    if not there:
        way_on = suggest_path(name) if path.parent.is_dir() else describe_missing(name)
    raise UsageError(f"{flag}={name}: 그런 모델 폴더가 없습니다. {way_on or describe_existing(there)}")


def _check_tokenizer(name):
    """Raise UsageError for the name of no tokenizer: now, and not when a model has been fetched."""
    if name in (None, "korean", "original") or find_path(name).is_dir() or _may_be_hub_id(name):
        return
    raise UsageError(f"--tokenizer={name}: 그런 토크나이저 폴더가 없습니다. korean, original이나 있는 폴더를 주세요.")


def check_fitting(start, block_size, dropout=None):
    """Raise UsageError for blocks of so many tokens that are longer than the context of `start` (a Start), and for a
    dropout that is not to be set in it, where the files at hand tell it."""
    from gpt2_korean.text.packing import choose_size

    config = SCRATCH_SIZES.get(start.source) or read_json(Path(start.source) / "config.json") or {}
    context = context_length(config)
    if isinstance(context, int):
        choose_size(block_size, context)
    if dropout is not None and "model_type" in config:
        check_dropout(dropout, config)


def models_below(folder):
    """The models in `folder` and the folders in it, the newest first; of a run that ended early its last checkpoint."""
    folder, found = Path(folder), set()
    below = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    for each in (folder, *below):
        with suppress(PermissionError):
            found |= {each} if is_model(each) else {*list_checkpoints(each)[-1:]}
    return sorted(found, key=lambda path: (-path.stat().st_mtime, path))


def _may_be_hub_id(name):
    """Whether a `name` that is no folder's looks like one of the Hub, rather than like a path."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if f"{name}/".startswith(f"{MODELS}/"):  # never the name of a maker there
        return False
    try:
        validate_repo_id(name)
        return not ("/" in name and find_path(name).parent.is_dir())
    except HFValidationError:
        return False
