"""Which run a checkpoint is of: what the command line and the text may not differ in, told by its flag."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch

from gpt2_korean.checkpoints.same_run import COLUMNS, SHARE, check_same_run, learns_prompts
from gpt2_korean.messages import UserError
from gpt2_korean.training.arguments import build_arguments

GIVEN = {
    "model": {"model_type": "gpt2", "tokenizer": None, "vocab_size": None},
    "text": {
        "train_on_prompt": None,
        "dataset_name": "a/b",
        "dataset_config_name": "ko",
        **dict.fromkeys(COLUMNS),
        SHARE: 5.0,
    },
    "blocks": {"size": 8, "packing": "documents", "all_learnt": False, "train": None, "held_out": None},  # of a stream
    "own": {
        "embedding_learning_rate": None,
        "average_last": None,
        "dropout": None,
        "bpe_dropout": None,
        "plan": {},
        "taught_here": False,
    },
    "arguments": {},
}


@pytest.fixture
def run_is(byte_tokenizer, tmp_path):
    """check_same_run of a run as GIVEN but for some changes by group."""

    def check(checkpoint=None, **changes):
        model, text, blocks, own, arguments = ({**GIVEN[group], **changes.get(group, {})} for group in GIVEN)
        arguments = build_arguments({"output_dir": str(tmp_path), **arguments}, torch.device("cpu"), False, False)
        start, groups = SimpleNamespace(checkpoint=checkpoint), [SimpleNamespace(**each) for each in (model, text)]
        return check_same_run(start, *groups, byte_tokenizer, SimpleNamespace(**blocks), own, arguments)

    return check


@pytest.fixture
def saved(run_is, tmp_path):
    """A function that saves a checkpoint of such a run, which leaves the names in `untold` out."""

    def save(untold=(), **changes):
        (tmp_path / "checkpoint-6").mkdir()
        told = {name: value for name, value in run_is(**changes).items() if name not in untold}
        (tmp_path / "checkpoint-6" / "resume.json").write_text(json.dumps(told), "utf-8")
        return tmp_path / "checkpoint-6"

    return save


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": {"model_type": "gpt2-medium"}}, "--model_type: 체크포인트는 gpt2, 지금은 gpt2-medium"),
        ({"model": {"tokenizer": "korean"}}, "--tokenizer: 체크포인트는 없음, 지금은 korean"),
        ({"model": {"vocab_size": 512}}, "--vocab_size: 체크포인트는 없음, 지금은 512"),
        ({"own": {"average_last": 3}}, "--average_last: 체크포인트는 0, 지금은 3"),
        ({"own": {"dropout": 0.5}}, "--dropout: 체크포인트는 없음, 지금은 0.5"),
        ({"own": {"embedding_learning_rate": 1e-3}}, "--embedding_learning_rate: 체크포인트는 없음, 지금은 0.001"),
        ({"blocks": {"size": 16}}, "--block_size: 체크포인트는 8, 지금은 16"),
        ({"blocks": {"packing": "stream"}}, "--packing: 체크포인트는 documents, 지금은 stream"),
        (
            {"text": {"train_on_prompt": True}, "blocks": {"all_learnt": True}},
            "--train_on_prompt: 체크포인트는 false, 지금은 true",
        ),
        ({"text": {"dataset_config_name": "en"}}, "학습할 글: 체크포인트는 a/b/ko, 지금은 a/b/en"),
        *(({"text": {name: "답"}}, f"체크포인트는 a/b/ko, 지금은 a/b/ko --{name}=답") for name in COLUMNS),
        ({"arguments": {"adam_epsilon": 1e-6}}, "--adam_epsilon: 체크포인트는 1e-08, 지금은 1e-06"),
        ({"arguments": {"adam_beta1": 0.8}}, "--adam_beta1: 체크포인트는 0.9, 지금은 0.8"),
        ({"arguments": {"adam_beta2": 0.9}}, "--adam_beta2: 체크포인트는 0.999, 지금은 0.9"),
        ({"arguments": {"learning_rate": 1e-3}}, "--learning_rate: 체크포인트는 5e-05, 지금은 0.001"),
        ({"arguments": {"weight_decay": 0.5}}, "--weight_decay: 체크포인트는 0.0, 지금은 0.5"),
        ({"arguments": {"optim": "adafactor"}}, "--optim: 체크포인트는 adamw_torch_fused, 지금은 adafactor"),
        ({"arguments": {"optim_args": "a=1"}}, "--optim_args: 체크포인트는 없음, 지금은 a=1"),
        ({"arguments": {"seed": 7}}, "--seed: 체크포인트는 42, 지금은 7"),
        ({"arguments": {"data_seed": 7}}, "--data_seed: 체크포인트는 없음, 지금은 7"),
        (
            {"arguments": {"train_sampling_strategy": "sequential"}},
            "--train_sampling_strategy: 체크포인트는 random, 지금은 sequential",
        ),
        (
            {"arguments": {"gradient_accumulation_steps": 2}},
            "--per_device_train_batch_size × --gradient_accumulation_steps: 체크포인트는 8×1, 지금은 8×2",
        ),
    ],
)
def test_what_a_run_may_not_change_is_told_by_its_flag_alone(run_is, saved, changes, told):
    with pytest.raises(UserError) as refusal:
        run_is(saved(), **changes)
    message = str(refusal.value)
    assert f"{told})" in message and message.count("체크포인트는") == 1, message
    assert "--output_dir" in message and len(message.splitlines()) == 2


def test_another_text_is_told_first_whatever_else_is_another(run_is, saved):
    others = {"model": {"model_type": "gpt2-medium"}, "own": {"dropout": 0.5}}
    with pytest.raises(UserError, match=r"학습할 글: .*a/b/en, --block_size: .*, --model_type: .*, --drop") as refusal:
        run_is(saved(), text={"dataset_config_name": "en"}, blocks={"size": 16}, **others)
    assert str(refusal.value).count("체크포인트는") == 4


@pytest.mark.parametrize(
    ("before", "held_out", "changes", "told"),
    [
        (None, "나", {}, ", --do_eval: 체크포인트는 false, 지금은 true)"),
        ("나", None, {}, ", --do_eval: 체크포인트는 true, 지금은 false)"),
        ("나", "다", {"arguments": {"seed": 7}}, ", --seed: 체크포인트는 42, 지금은 7)"),
        ("나", "다", {"text": {SHARE: 0.5}}, ", --validation_split_percentage: 체크포인트는 5.0, 지금은 0.5)"),
        (
            "나",
            "다",
            {"text": {SHARE: 0.5}, "arguments": {"seed": 7}},
            ", --validation_split_percentage: 체크포인트는 5.0, 지금은 0.5, --seed: 체크포인트는 42, 지금은 7)",
        ),
        ("나", "다", {}, ")"),
        (None, None, {"text": {SHARE: 0.5}, "arguments": {"seed": 7}}, ")"),
    ],
)
def test_where_another_part_of_the_text_is_held_out_the_flag_that_did_it_is_told(
    run_is, saved, monkeypatch, before, held_out, changes, told
):
    monkeypatch.setattr("gpt2_korean.checkpoints.same_run.fingerprint", str)

    def of(train, held_out):
        texts = {"train": train, "held_out": held_out}
        return {name: text and SimpleNamespace(tokens=text, targets=len(text)) for name, text in texts.items()}

    with pytest.raises(UserError) as refusal:
        run_is(saved(blocks=of("가가", before)), blocks=of("가나다", held_out), **changes)
    assert f"(학습할 글: 체크포인트는 토큰 2개(가가), 지금은 토큰 3개(가나다){told}" in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr_scheduler_type", "cosine"),
        ("lr_scheduler_kwargs", {"num_cycles": 2}),
        ("warmup_steps", 5),
        ("max_grad_norm", 0.5),
        ("label_smoothing_factor", 0.1),
        ("neftune_noise_alpha", 5.0),
    ],
)
def test_what_may_be_another_from_some_step_on_is_told_and_the_run_goes_on(run_is, saved, capsys, name, value):
    assert run_is(saved(), arguments={name: value})["learning"][name] == value
    told = capsys.readouterr().err
    assert f"(--{name}: 체크포인트는" in told and f"지금은 {value})" in told and told.count("체크포인트는") == 1, told


def test_a_step_may_have_its_blocks_in_other_parts(run_is, saved, capsys):
    parts = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    assert run_is(saved(), arguments=parts)["learning"]["accumulation"] == 4
    assert "블록 8개를 8×1 대신 2×4로" in capsys.readouterr().err


def test_what_the_command_line_leaves_open_is_the_checkpoints_own(run_is, saved):
    chosen = {"model": {"tokenizer": "korean", "vocab_size": 512}, "own": {"average_last": 3, "dropout": 0.1}}
    now = run_is(saved(**chosen), blocks={"all_learnt": True})  # which is asked of nobody who does not ask for it
    assert (now["tokenizer"], now["vocab_size"]) == ({"name": "korean"}, 512)
    assert (now["average_last"], now["dropout"]) == (3, 0.1)


def test_what_is_said_once_more_is_no_change(run_is, saved):
    chosen = {"model": {"tokenizer": "korean", "vocab_size": 512}, "own": {"average_last": 3, "dropout": 0.1}}
    checkpoint = saved(**chosen)
    assert run_is(checkpoint, **chosen, text={"train_on_prompt": False})["vocab_size"] == 512


def test_a_model_is_known_by_its_files_wherever_they_lie_and_by_its_name_where_they_are_gone(run_is, saved, tmp_path):
    folder = tmp_path / "모델"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"0" * 9)
    checkpoint, moved = saved(model={"model_type": str(folder)}), shutil.copytree(folder, tmp_path / "옮긴 것")
    assert run_is(checkpoint, model={"model_type": str(moved)})
    (moved / "model.safetensors").write_bytes(b"1" * 9)
    with pytest.raises(UserError, match="--model_type: 체크포인트는 모델, 지금은 옮긴 것"):
        run_is(checkpoint, model={"model_type": str(moved)})
    shutil.rmtree(folder)
    assert run_is(checkpoint, model={"model_type": str(folder)})


def test_a_checkpoint_that_tells_less_is_asked_no_more(run_is, saved):
    old = saved(untold=["packing", "average_last", "train_on_prompt", "learning"])
    with pytest.raises(UserError, match="예전 방식, 지금은 documents"):
        run_is(old)
    (old / "resume.json").write_text("{}")  # Trainer's own
    assert run_is(old, blocks={"size": 16})["block_size"] == 16


@pytest.mark.parametrize("learnt", [True, False])
def test_whether_questions_are_learnt_is_as_the_flag_says_or_the_checkpoint_or_the_vocabulary(saved, learnt):
    asked, unasked = (SimpleNamespace(train_on_prompt=value) for value in (learnt, None))
    first, goes_on = (SimpleNamespace(checkpoint=each) for each in (None, saved(blocks={"all_learnt": learnt})))
    assert {learns_prompts(start, asked, is_new) for start in (first, goes_on) for is_new in (True, False)} == {learnt}
    assert [learns_prompts(first, unasked, is_new) for is_new in (True, False)] == [True, False]
    assert [learns_prompts(goes_on, unasked, is_new) for is_new in (True, False)] == [learnt, learnt]
