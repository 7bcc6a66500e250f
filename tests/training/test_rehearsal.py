"""A flag of Trainer's own that cannot be carried out is refused by name before any text is read."""

import os

import pytest
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import integration_utils
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from gpt2_korean.messages import UsageError, UserError
from gpt2_korean.training.rehearsal import rehearse

REFUSED = [
    ["--report_to=somewhere"], ["--report_to", "tensorboard", "nowhere"], ["--optim=lomo"], ["--optim_args=x"],
    ["--deepspeed=none.json"], ["--lr_scheduler_type=warmup_stable_decay"], ["--lr_scheduler_kwargs={x"],
    ['--lr_scheduler_kwargs={"x": 1}'], ["--dataloader_prefetch_factor=2"], ["--dataloader_persistent_workers"],
    ["--accelerator_config=none.json"], ["--debug=x"], ["--push_to_hub", "--hub_model_id=a b"],
    ["--optim_args=momentum=x", "--optim=sgd", "--lr_scheduler_type=cosine"],
]  # fmt: skip


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_it_is_refused_by_name_before_any_text_is_read(words, train_words, run_main, tmp_path):
    code, out, err = run_main("train.py", *train_words, "--do_train", *words)
    unset_hf_deepspeed_config()  # transformers keeps the half one for the next run of this process
    message = err[err.index("오류:") :]
    assert (code, out) == (2, "")
    assert words[-1 if "push_to_hub" in words[0] else 0].split("=")[0] in message
    assert "cosine" not in message or len(words) == 1  # what is not to blame is not blamed
    assert len(message.strip().splitlines()) <= 2
    assert "문서" not in err and not list(tmp_path.glob("out/*.*"))


def test_what_can_be_carried_out_changes_nothing_of_a_run(train_words, run_main, tmp_path):
    """The rehearsal leaves neither random numbers nor states behind: weights are the same with one and without."""
    from safetensors.torch import load_file

    weights = []
    for number, words in enumerate([[], ["--lr_scheduler_type=linear", "--adam_beta1=0.9", "--data_seed=42"]]):
        run = [
            *train_words,
            f"--output_dir={tmp_path / str(number)}",
            "--do_train",
            "--max_steps=3",
            "--report_to=none",
        ]
        assert run_main("train.py", *run, *words)[0] == 0
        weights.append(load_file(tmp_path / f"{number}" / "model.safetensors"))
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])


def test_what_libraries_leave_in_the_environment_while_they_are_tried_is_taken_back(monkeypatch):
    monkeypatch.setenv("KEPT", "as it was")

    def build(given):
        os.environ.update(KEPT="changed", LEFT="for others")
        if "optim_args" in given:
            raise ValueError("no such value")
        return TrainingArguments(**given, use_cpu=True)

    with pytest.raises(UsageError, match=r"--optim_args=x: .*no such value"):
        rehearse(build, {"optim_args": "x", "adam_beta1": 0.9}, ["optim_args", "adam_beta1"])
    assert os.environ["KEPT"] == "as it was" and "LEFT" not in os.environ


def test_a_rehearsal_is_one_step_that_tells_nobody_and_keeps_nothing(monkeypatch, tmp_path, capsys):
    told, steps, step = [], [], Trainer.training_step
    tracker = type("Callback", (TrainerCallback,), {"on_train_begin": lambda *_, **__: told.append("begun")})
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "mlflow", tracker)
    monkeypatch.setattr(Trainer, "training_step", lambda *words, **more: steps.append(1) or step(*words, **more))
    given = {
        "output_dir": str(tmp_path / "out"), "report_to": ["mlflow"], "push_to_hub": True, "disable_tqdm": False,
        "max_steps": 9, "save_strategy": "steps", "save_steps": 1, "logging_steps": 1, "eval_strategy": "steps",
        "eval_steps": 1, "load_best_model_at_end": True, "metric_for_best_model": "bits", "adam_beta1": 0.8,
    }  # fmt: skip
    rehearse(lambda given: TrainingArguments(**given, use_cpu=True), given, ["adam_beta1"])
    assert (told, len(steps), list(tmp_path.iterdir()), *capsys.readouterr()) == ([], 1, [], "", "")


def test_the_flags_to_blame_are_those_without_which_it_can_be_carried_out(tmp_path):
    def refusal(fails, error):
        def build(given):
            if fails(given.keys()):
                raise error
            return TrainingArguments(**given, use_cpu=True)

        given = {"output_dir": str(tmp_path), "adam_beta1": 0.8, "adam_beta2": 0.9, "adam_epsilon": 1e-6}
        try:
            rehearse(build, given, ["adam_beta1", "adam_beta2", "adam_epsilon"])
        except UserError as told:
            return str(told).partition(":")[0]

    wrong = ValueError("no such value")
    assert refusal(lambda names: "adam_beta2" in names, wrong) == "--adam_beta2=0.9"
    assert refusal(lambda names: {"adam_beta1", "adam_beta2"} <= names, wrong) == "--adam_beta1=0.8, --adam_beta2=0.9"
    # Each wrong by itself: which of all it is nobody can tell.
    every = "--adam_beta1=0.8, --adam_beta2=0.9, --adam_epsilon=1e-06"
    assert refusal(lambda names: {"adam_beta1", "adam_beta2"} & names, wrong) == every
    # Not for them at all: the run itself will tell, but for a flag that the error names.
    assert refusal(lambda names: True, wrong) is None
    assert refusal(lambda names: True, ValueError("of adam_beta2")) == "--adam_beta2=0.9"
    assert refusal(lambda names: "adam_beta2" in names, UsageError("--adam: told already")) == "--adam"


def test_a_push_that_cannot_be_is_refused_before_any_text_is_read(run_words, run_main, tmp_path, monkeypatch):
    monkeypatch.setattr("gpt2_korean.training.rehearsal.get_token", lambda: None)
    for name, told in (("한국어 모델", "--hub_model_id=한국어 모델"), ("out", "hf auth login")):
        code, _, err = run_main(*run_words, "--push_to_hub", f"--output_dir={tmp_path / name}")
        assert code == 2 and told in err and "문서" not in err, err


def test_a_schedule_that_needs_evaluations_is_rehearsed_with_one(train_words, run_main):
    words = ["--do_train", "--do_eval", "--eval_steps=1", "--max_steps=2", "--report_to=none"]
    code, _, err = run_main("train.py", *train_words, *words, "--lr_scheduler_type=reduce_lr_on_plateau")
    assert code == 0, err


def test_a_polynomial_schedule_is_rehearsed_whatever_its_warmup(train_words, run_main):
    words = ["--do_train", "--max_steps=3", "--report_to=none", "--warmup_steps=0.1"]
    code, _, err = run_main("train.py", *train_words, *words, "--lr_scheduler_type=polynomial")
    assert code == 0, err
