"""The flags as Trainer gets them, and what a user is warned of before a run of hours."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DynamoBackend, TorchDynamoPlugin

from gpt2_korean.messages import UsageError
from gpt2_korean.training import arguments


@pytest.fixture
def build(tmp_path):
    def build(device="cpu", fp16=False, **values):
        return arguments.build_arguments({"output_dir": str(tmp_path), **values}, torch.device(device), False, fp16)

    return build


def test_a_loss_that_is_no_number_is_seen_but_in_float16_whose_step_is_skipped(build):
    assert not build().logging_nan_inf_filter and build(fp16=True).logging_nan_inf_filter
    assert build(logging_nan_inf_filter=True).logging_nan_inf_filter


def test_a_short_run_has_a_curve_from_its_first_step_and_an_interval_of_evaluation_is_one_of_steps(build):
    assert build().logging_first_step and not build(logging_first_step=False).logging_first_step
    assert (build(eval_steps=5).eval_strategy, build().eval_strategy) == ("steps", "no")
    assert build(eval_steps=5, eval_strategy="epoch").eval_strategy == "epoch"


def test_a_run_computes_as_it_says_whatever_accelerate_launch_is_set_to(build, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    assert build().mixed_precision == "no" and build(fp16=True).mixed_precision == "fp16"
    assert TorchDynamoPlugin().backend == DynamoBackend.NO


def test_trainer_is_not_told_of_what_is_ours_to_carry_out(build):
    for given in ({"torch_compile": True}, {"torch_compile_backend": "inductor"}, {"torch_compile_mode": "default"}):
        assert not build(**given).torch_compile  # by it all of the model, anew for each shape of a batch
    ours = {"save_total_limit": 2, "resume_from_checkpoint": "auto", "enable_jit_checkpoint": True}
    arguments = build(**ours)
    assert not any(getattr(arguments, name) for name in ours)


@pytest.mark.parametrize("way", ["FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"])
def test_a_model_that_accelerate_launch_alone_would_have_in_parts_is_refused(build, elsewhere, monkeypatch, way):
    monkeypatch.setenv(f"ACCELERATE_USE_{way}", "true")
    with pytest.raises(UsageError, match=r"accelerate launch.*--fsdp.*--deepspeed"):
        build()
    elsewhere("cuda")
    assert build("cuda", fsdp=True).fsdp and build("cuda", deepspeed="way.json").deepspeed


@pytest.fixture
def elsewhere(monkeypatch):
    """TrainingArguments as they would be on a GPU, and in one of several processes."""
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "as it was")

    def arrange(device):
        known = {"fsdp_plugin_args": None, "fsdp": False, "deepspeed": None, "dataloader_num_workers": 0, "n_gpu": 1}
        known |= {"parallel_mode": arguments.ParallelMode.DISTRIBUTED, "device": torch.device(device)}
        monkeypatch.setattr(arguments, "TrainingArguments", lambda **given: SimpleNamespace(**{**known, **given}))

    return arrange


# The second is how `accelerate launch --cpu` starts a run where there is a GPU.
@pytest.mark.parametrize(("taken", "way_on"), [("xpu", "CUDA_VISIBLE_DEVICES"), ("cpu", "--device=cpu.*--cpu")])
def test_a_device_that_transformers_would_not_take_is_refused_with_the_way_on(build, elsewhere, taken, way_on):
    elsewhere(taken)
    with pytest.raises(UsageError, match=rf"--device=cuda: transformers는 {taken}.*{way_on}"):
        build("cuda")


@pytest.mark.parametrize("device", ["cuda", "xpu", "mps", "cpu"])
def test_a_gpu_is_sent_its_next_batch_while_it_works_unless_memory_is_not_pinned(build, elsewhere, device):
    elsewhere(device)
    way = getattr(build(device), "accelerator_config", None)
    assert way == ({"non_blocking": True} if device in ("cuda", "xpu") else None)
    assert not hasattr(build(device, dataloader_pin_memory=False), "accelerator_config")
    assert build(device).use_cpu == (device == "cpu")


@pytest.mark.parametrize("name", ["ko", "models/ko/", ".", "가" * 80, "a" * 250])
def test_the_events_of_each_run_have_a_folder_that_is_called_as_it_and_when_it_began(name, monkeypatch, tmp_path):
    (tmp_path / "ko").mkdir()
    monkeypatch.chdir(tmp_path / "ko")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "")
    arguments.send_logs_to(tmp_path, name, started=0)
    folder = Path(os.environ["TENSORBOARD_LOGGING_DIR"])
    folder.mkdir()  # which a name that is too long could not be
    called, began = folder.name[:-16], folder.name[-15:]
    assert folder.parent == tmp_path and began == time.strftime("%Y%m%d-%H%M%S", time.localtime(0))
    assert called == "ko" or (len(name) > 50 and name.startswith(called) and len(called.encode()) > 230)


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ({"warmup_steps": 12, "steps": 12}, ("--warmup_steps=12", "--warmup_steps=1 ")),
        ({"warmup_steps": 100, "steps": 50}, ("--warmup_steps=100", "--warmup_steps=5 ")),
        ({"save_steps": 500, "steps": 50}, ("--save_steps=500", "--save_steps=16 ")),
        ({"save_steps": 500, "steps": 2}, ("--save_steps=500", "--save_steps=1 ")),
        ({"save_steps": 1e6, "steps": 50}, ("--save_steps=1000000이 ", "--save_steps=16 ")),
        ({"tokens": 31}, ("31개 < 32개",)),
        ({"warmup_steps": 11, "steps": 12, "save_steps": 12, "tokens": 32}, ()),
        ({"warmup_steps": 0.5, "save_steps": 0.5, "steps": 1}, ()),
        ({"save_steps": 500, "save_strategy": "epoch", "tokens": None}, ()),
        ({"save_steps": 500, "chosen": ()}, ()),  # the default
    ],
)
def test_a_run_too_short_for_its_warm_up_its_saves_or_its_text_is_told_with_a_better_value(
    plan, told, monkeypatch, capsys
):
    given = SimpleNamespace(**{"warmup_steps": 0, "save_steps": 1, "save_strategy": "steps"} | plan)
    monkeypatch.setattr(arguments, "count_targets", lambda _: plan.get("tokens", 1000))
    arguments.warn_of_plan(given, plan.get("steps", 10), SimpleNamespace(size=32, train=None), plan.get("chosen", plan))
    warned = capsys.readouterr().err
    assert warned.count("주의:") == bool(told) and all(words in warned for words in told), warned
