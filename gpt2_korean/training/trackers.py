"""The trackers of --report_to (TensorBoard, wandb, MLflow ...): one that fails ends no run that has begun to learn."""

from functools import partial

from transformers.integrations import TensorBoardCallback, get_reporting_integration_callbacks

from gpt2_korean.messages import UsageError, os_reason, warn_of_failure
from gpt2_korean.training.rehearsal import describe_cause


def go_on_without_trackers(callbacks, names):
    """Have transformers' callbacks for the trackers called `names` tell of what they fail in, once, and do no more.

    One that cannot begin, as where nobody has logged in, raises UsageError before anything is learnt, but for
    TensorBoard's files.
    """
    kinds = dict(zip(get_reporting_integration_callbacks(names), names, strict=True))
    for callback in callbacks:
        name = kinds.get(type(callback))
        for event in [event for event in dir(callback) if name and event.startswith("on_")]:
            setattr(callback, event, partial(_track, callback, name, event, getattr(callback, event)))


def _track(callback, name, event, tell, *args, **kwargs):
    if getattr(callback, "has_failed", False):
        return
    try:
        tell(*args, **kwargs)
    except Exception as error:
        writes = isinstance(callback, TensorBoardCallback) and isinstance(error, OSError)
        if event == "on_train_begin" and not writes:
            raise UsageError(
                f"--report_to={name}: 기록을 시작하지 못했습니다({describe_cause(error)}).\n"
                "그곳의 로그인과 주소, 버전을 확인하거나 --report_to=tensorboard 또는 none을 주세요."
            ) from error
        callback.has_failed = True
        # Without its way on, which is to begin again.
        reason = os_reason(error).partition(". ")[0] if writes else f"기록하지 못했습니다({describe_cause(error)})"
        place = callback.logging_dir if writes else f"--report_to={name}"
        warn_of_failure(error, f"{place}: {reason}. {'TensorBoard' if writes else name}의 기록 없이 이어 갑니다.")
