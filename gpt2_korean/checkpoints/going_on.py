"""Which checkpoint a run goes on from, none whose state is of another model, of no run at all, or written otherwise."""

import math
import os
from pathlib import Path

from gpt2_korean.checkpoints.complete import (
    OWN,
    RESUME,
    STATE,
    check_opens,
    describe_existing,
    has_weights,
    is_model,
    is_resumable,
    lacks_states,
    list_checkpoints,
    read_json,
    read_shapes,
    step_of,
    trainer_state,
    when_started,
    whole_checkpoints,
)
from gpt2_korean.messages import UsageError, UserError, particle, warn
from gpt2_korean.text.folders import find_path, is_same, name_some

AUTO = ("auto", "true", "True")
START_ANEW = "다른 체크포인트를 --resume_from_checkpoint로 주거나, 새 --output_dir에 그 모델을 --model_type으로 주세요."


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _is_named(value):
    return isinstance(value, dict) and isinstance(value.get("name"), str)


def _is_corpus(value):
    counted = isinstance(value, dict) and _is_whole(value.get("tokens")) and isinstance(value.get("hash"), str)
    return counted or _is_named(value)


def _is_learning(value):
    """As same_run.py compares it: numbers but for names and a schedule's own, and how many blocks are a step."""
    whole = isinstance(value, dict) and all(_is_whole(value.get(name, 1)) for name in ("batch_size", "accumulation"))
    return whole and all(isinstance(each, str | dict) or _is_number(each) for each in value.values())


def _is_plan(value):
    """As training/plan.py has it: by name a value and why."""
    return isinstance(value, dict) and all(isinstance(told, list) and len(told) == 2 for told in value.values())


def _is_history(value):
    return _is_list_of_dicts(value) and all(
        _is_number(number)
        for each in value
        for name, number in each.items()
        if name in ("step", "epoch", "loss") or name.startswith("eval_")
    )


def _is_list_of_dicts(value):
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _or_none(is_right):
    return lambda value: value is None or is_right(value)


# What a run that goes on computes with, of each file.
RIGHT = {
    STATE: {
        **dict.fromkeys(("global_step", "max_steps", "num_input_tokens_seen", "num_train_epochs"), _is_whole),
        **dict.fromkeys(("epoch", "logging_steps", "eval_steps", "save_steps", "total_flos"), _is_number),
        **dict.fromkeys(("best_global_step", "train_batch_size"), _or_none(_is_whole)),
        "best_metric": _or_none(_is_number),
        "best_model_checkpoint": _or_none(lambda value: isinstance(value, str)),
        "log_history": _is_history,
        "stateful_callbacks": lambda value: isinstance(value, dict) and "TrainerControl" in value,
    },
    RESUME: {
        "model": _is_named,
        "tokenizer": _or_none(_is_named),
        "corpus": _is_corpus,
        "held_out": _or_none(_is_corpus),
        "learning": _is_learning,
        **dict.fromkeys(("vocab_size", "block_size"), _or_none(_is_whole)),
        **dict.fromkeys(("started", "unlogged_loss", "logged_step"), _is_number),
        **dict.fromkeys(OWN, _or_none(_is_number)),
        "plan": _or_none(_is_plan),
    },
    "tokenizer.json": {},
    "tokenizer_config.json": {},
}
TOLD_WITH_CORPUS = ("model", "tokenizer", "vocab_size", "block_size")


def find_starting_point(output_dir, overwrite, resume, check_model=lambda folder, flag: None):
    """The checkpoint a training run goes on from, or None for a fresh start.

    `resume` is None, "auto" (the newest whole checkpoint of `output_dir`, if there is one) or a folder.
    check_model(folder, flag) raises UserError for a folder that is no model.

    Raises UsageError for a folder that holds an earlier run, unless `overwrite` or `resume` says what is to become of
    it; a checkpoint of another folder says nothing of it. With "auto", `overwrite` decides only where there is nothing
    to go on from.
    """
    output_dir, found = Path(output_dir), None
    if resume in AUTO:
        newest = _find_newest(output_dir, check_model)
        if newest is not None:
            return newest
    elif resume not in (None, "false", "False"):
        found = _find_named(resume, output_dir, check_model)
        if is_inside(found, output_dir):
            return found
    _check_overwriting(output_dir, overwrite, resume in AUTO, found)
    return found


def _find_newest(output_dir, check_model):
    """The newest checkpoint of a run's folder that training goes on from, None where none is whole.

    Each newer one that is passed over is named in a line of its own. Raises UserError where there are whole ones and
    nothing goes on from any, and OSError as check_opens does.
    """
    checkpoints = list_checkpoints(output_dir)
    for checkpoint in checkpoints:  # a failing drive must not make the run start over and replace them
        check_opens(checkpoint)
    troubles = {}  # checkpoint → what is the matter with it
    whole = whole_checkpoints(output_dir)
    for place, checkpoint in reversed([*enumerate(whole)]):
        try:
            _check(checkpoint, check_model)
            _check_states(checkpoint, whole[:place])
        except UserError as error:
            troubles[checkpoint] = error
            continue
        for later in checkpoints:  # half-written, or not telling when their run began
            if step_of(later) > step_of(checkpoint) and later not in troubles:
                trouble = find_trouble(later) if later in whole else "온전한 체크포인트가 아닙니다."
                troubles |= {later: f"--resume_from_checkpoint={later}: {trouble}"} if trouble else {}
        for trouble in troubles.values():
            warn(f"{trouble} 그 앞의 체크포인트에서 이어 갑니다.")
        return checkpoint
    if troubles:
        raise UserError(f"{next(iter(troubles.values()))} 이어 갈 다른 체크포인트도 없습니다.\n{START_ANEW}")
    return None


def _find_named(name, output_dir, check_model):
    """The checkpoint of --resume_from_checkpoint=`name`. Raises UsageError for what is none that is whole, and
    UserError for one that training cannot go on from."""
    checkpoint = find_path(name)
    inside = list_checkpoints(checkpoint)  # of a run's own folder, whose model has no state to go on with
    if inside or not is_resumable(checkpoint):
        there = describe_existing((inside or list_checkpoints(output_dir))[::-1])
        raise UsageError(f"--resume_from_checkpoint={checkpoint}: 온전한 체크포인트가 아닙니다. {there}")
    try:
        _check(checkpoint, check_model)
    except UserError as error:
        raise UserError(f"{error}\n{START_ANEW}") from None
    return checkpoint


def _check_overwriting(output_dir, overwrite, resumes, found):
    """Raise UsageError where `output_dir` holds an earlier run that is not to be overwritten, or may not be; warn where
    that run is not over.

    resumes: whether it was asked for to go on from there. found: the checkpoint of another folder, or None.
    """
    checkpoints = list_checkpoints(output_dir)
    held = (["모델"] if has_weights(output_dir) else []) + [path.name for path in reversed(checkpoints)]
    if held and not overwrite:
        way = "새로 시작하려면 --overwrite_output_dir, 이어서 하려면 --resume_from_checkpoint=auto를 더하세요."
        if resumes:
            way = "이어 갈 온전한 체크포인트가 없습니다. 새로 시작하려면 --overwrite_output_dir을 더하세요."
        elif found is not None:
            way = f"{found}에서 이어 간 결과로 바꾸려면 --overwrite_output_dir을 더하거나, 다른 --output_dir을 주세요."
        raise UsageError(f"--output_dir={output_dir}: 지난 학습의 결과가 있습니다({name_some(held)}).\n{way}")
    kept = next((path for path in checkpoints if not os.access(path, os.W_OK)), None)
    if kept is not None:  # refuse now rather than at the new run's first save
        raise UsageError(
            f"--output_dir={output_dir}: {particle(kept.name, '을/를')} 지울 권한이 없어 덮어쓸 수 없습니다. 권한을 "
            "바꾸거나 다른 --output_dir을 주세요."
        )
    if found is None and not resumes and not has_weights(output_dir):  # no run there has come to its end
        for newest in whole_checkpoints(output_dir)[-1:]:
            warn(
                f"{newest}: 끝나지 않은 학습을 처음부터 다시 합니다(--overwrite_output_dir). 새 체크포인트를 저장할 때 "
                "지워집니다.\n이어 가려면 지금 Ctrl-C를 두 번 눌러 멈추고 --resume_from_checkpoint=auto를 더하세요."
            )


def is_inside(checkpoint, output_dir):
    """Whether a checkpoint, a link to one too, is of the run in `output_dir`, and not of another folder's."""
    checkpoint = Path(os.path.abspath(checkpoint))
    return is_same(checkpoint, output_dir) or is_same(checkpoint.parent, output_dir)


def _check(checkpoint, check_model):
    check_model(checkpoint, "--resume_from_checkpoint")
    trouble = find_trouble(checkpoint)
    if trouble is not None:
        raise UserError(f"--resume_from_checkpoint={checkpoint}: {trouble}")


def _check_states(checkpoint, earlier):
    """Raise UserError where a run that is not over lost the state that one of its `earlier` checkpoints still has."""
    if not lacks_states(checkpoint):
        return
    state, start = trainer_state(checkpoint), when_started(checkpoint)
    of_run = (each for each in earlier if when_started(each) == start)
    if state["global_step"] < state["max_steps"] and not all(map(lacks_states, of_run)):
        raise UserError(f"--resume_from_checkpoint={checkpoint}: 학습하던 상태(optimizer.pt 등)가 없습니다.")


def find_trouble(checkpoint):
    """Why no run can go on from a checkpoint whose files are whole, a line; None where one can.

    Its states are opened without their numbers, and no code in them is run.
    """
    import torch
    from transformers.trainer_callback import TrainerState

    checkpoint = Path(checkpoint)
    if not is_model(checkpoint):
        return "config.json이 없습니다."
    for name, right in RIGHT.items():
        broken = []
        content = read_json(checkpoint / name, broken.append) or {}
        wrong = broken + [key for key, is_right in right.items() if key in content and not is_right(content[key])]
        if name == RESUME and "corpus" in content:
            wrong += [key for key in TOLD_WITH_CORPUS if key not in content]
        if wrong:
            return f"{particle(name, '이/가')} 온전하지 않습니다({wrong[0]})."
    try:
        TrainerState.load_from_json(str(checkpoint / STATE))
    except Exception as error:  # a key that this transformers does not know
        return f"{particle(STATE, '을/를')} 이 transformers로 읽을 수 없습니다({error})."
    for name, is_right in (("optimizer.pt", _is_optimizer), ("scheduler.pt", _is_scheduler)):
        if (checkpoint / name).exists():
            try:
                state = torch.load(checkpoint / name, map_location="meta", weights_only=True)
            except Exception:
                return f"{name}에 학습의 상태가 아닌 것이 들어 있어 열지 않았습니다."
            if not is_right(state, checkpoint):
                return f"{particle(name, '이/가')} 이 모델을 학습하던 상태가 아닙니다."
    return None


def _is_optimizer(state, checkpoint):
    """Whether an optimizer's `state` is as large as the weights in `checkpoint`, where it has averages of them."""
    if not (isinstance(state, dict) and _is_list_of_dicts(state.get("param_groups"))):
        return False
    kept = state.get("state")
    if not (isinstance(kept, dict) and _is_list_of_dicts(list(kept.values()))):
        return False
    averages = [each.get("exp_avg", each.get("momentum_buffer")) for each in kept.values()]
    averages = sum(each.numel() for each in averages if hasattr(each, "numel"))
    weights = sum(map(math.prod, read_shapes(checkpoint).values()))
    return not (averages and weights) or 0.9 * weights <= averages <= weights  # buffers are no optimizer's


def _is_scheduler(state, checkpoint):
    return isinstance(state, dict) and _is_whole(state.get("last_epoch"))
