"""Whatever becomes of a tracker of --report_to, a run is learnt to its end or refused before its first step."""

import errno
from types import SimpleNamespace

import pytest
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback, integration_utils

from gpt2_korean.checkpoints import complete
from gpt2_korean.training.trackers import go_on_without_trackers


@pytest.fixture
def track(monkeypatch):
    """Have a callback of these events stand for MLflow's."""

    def install(**events):
        kind = type("Callback", (TrainerCallback,), events)
        monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "mlflow", kind)

    return install


def fail(*_, **__):
    raise RuntimeError("no server")


def test_a_run_goes_on_without_a_tracker_whose_server_goes_away(resumable_words, tmp_path, run_main, track):
    begun = []
    track(on_train_begin=lambda self, *_, **__: begun.append(self), on_log=fail, on_save=fail, on_train_end=fail)
    code, _, err = run_main(*resumable_words, "--report_to=mlflow", "--logging_steps=1")
    told = [line for line in err.splitlines() if "no server" in line]
    assert code == 0 and len(begun) == len(told) == 1 and "--report_to=mlflow" in told[0], err
    assert complete.has_weights(tmp_path / "out") and complete.is_resumable(tmp_path / "out" / "checkpoint-8")


def test_a_tracker_that_cannot_begin_is_refused_with_its_flag(resumable_words, tmp_path, run_main, track):
    track(on_train_begin=fail)
    code, _, err = run_main(*resumable_words, "--report_to=mlflow")
    assert code == 2 and "--report_to=mlflow" in err and "no server" in err and "이슈" not in err, err
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_tracker_that_is_not_installed_is_refused_before_any_text_is_read(run_words, run_main, track):
    track(__init__=fail)
    code, _, err = run_main(*run_words, "--report_to=mlflow")
    assert code == 2 and "--report_to=mlflow" in err and "no server" in err and "문서" not in err, err


def test_trackers_are_told_numbers_and_no_texts(evaluated_words, run_main, track):
    told = []
    track(on_log=lambda *_, logs, **__: told.append(logs))
    code, _, err = run_main(*evaluated_words, "--report_to=mlflow")
    values = [value for logs in told for value in logs.values()]
    assert code == 0 and any("eval_loss" in logs for logs in told), err
    assert all(isinstance(value, int | float) for value in values), values


@pytest.mark.parametrize("file", [None, "logs/out"])
def test_a_disk_that_is_full_before_the_first_log_ends_no_run_either(tmp_path, capsys, file):
    def full(*_):
        raise OSError(errno.ENOSPC, "no space", file)

    logs, arguments = TensorBoardCallback(SimpleNamespace(add_text=full)), TrainingArguments(output_dir=tmp_path)
    other = type("Callback", (TrainerCallback,), {"on_log": fail})()
    go_on_without_trackers([logs, other], ["tensorboard"])
    events = {"args": arguments, "state": TrainerState(), "control": TrainerControl()}
    logs.on_train_begin(**events)
    logs.on_log(**events, logs={"loss": 1.0})
    logs.on_train_end(**events)
    assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(RuntimeError):  # who is no tracker fails as ever
        other.on_log(**events)
