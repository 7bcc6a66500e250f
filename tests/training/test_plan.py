"""What a run takes where nobody said: the tables' values, unless a flag is given; kept by a run that goes on."""

import json
from types import SimpleNamespace

import pytest
import torch
from conftest import NO_DROPOUT, save_tiny_gpt2, tiny_gpt2
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM

from gpt2_korean.cli.train_options import parse_train_options
from gpt2_korean.messages import UsageError
from gpt2_korean.model.embeddings import NEW_EMBEDDINGS
from gpt2_korean.model.prepare import set_dropout
from gpt2_korean.training import plan

pytestmark = pytest.mark.usefixtures("brief_texts")
TABLES = {
    "OWN_VOCABULARY": {"weight_decay": 0.1, "learning_rate": 3e-4},
    "NEW_VOCABULARY": {"weight_decay": 0.2, "embedding_learning_rate": 0.004},
    "FROM_SCRATCH": {"weight_decay": 0.3, "optim": "muon"},
    "LEARNT_BY_HEART": {"weight_decay": 0.4, "dropout": 0.25, "average_last": 0.5},
}


@pytest.fixture
def tables(monkeypatch):
    """All of them filled in, so that what is proposed differs from every default."""
    for name, table in TABLES.items():
        monkeypatch.setattr(plan, name, table)
    monkeypatch.setattr(plan, "OFTEN", 3)


def values_of(*situation, settled=()):
    return {name: value for name, (value, _) in plan.propose(*situation, settled).items()}


def test_all_tables_that_hold_are_taken_and_the_later_one_goes_first(tables):
    few, many = plan.SMALL - 1, plan.SMALL
    names = list(TABLES)
    for situation, held in (
        ((many, 9, False, False), names[:1]),
        ((few, 2.9, False, False), names[:1]),
        ((None, 9, False, False), names[:1]),  # a stream has no end
        ((few, 3, False, False), [names[0], names[3]]),
        ((many, 3, True, False), [names[1]]),
        ((few, 3, True, False), [names[1], names[3]]),
        ((few, 3, False, True), [names[2], names[3]]),
    ):
        expected = {name: value for table in held for name, value in TABLES[table].items()}
        assert values_of(*situation) == expected
        for name in expected:  # one that is given is obeyed, and the others stand
            rest = {other: value for other, value in expected.items() if other != name}
            assert values_of(*situation, settled={name}) == rest


def test_a_plan_is_told_as_flags_with_why(tables):
    told = "\n".join(plan.describe_plan(plan.propose(120_000, 60, True, False, {"dropout"})))
    assert "--embedding_learning_rate=0.004 (어휘가 새것이므로)" in told
    assert "--weight_decay=0.4 --average_last=0.5 (글 120,000자를 60번 읽으므로)" in told and "dropout" not in told


@pytest.mark.parametrize("given", ["--weight-decay=0.0", "--weight_decay=0", "config"])
def test_a_flag_counts_as_given_though_it_says_the_default(given, tmp_path):
    words = ["--do_train", "--dataset_path=x", "--dropout=0.5"]
    if given == "config":
        (tmp_path / "run.yaml").write_text("weight_decay: 0.0\n", "utf-8")
        given = f"--config={tmp_path / 'run.yaml'}"
    chosen = parse_train_options([*words, given]).learning.chosen
    assert {"weight_decay", "dropout", "do_train"} <= chosen
    assert not {"learning_rate", "average_last", "optim"} & chosen


def settle(words=(), characters=1000, new=True, **machine):
    """The arguments and what else is settled, of a run that reads its text 60 times."""
    learning = parse_train_options(["--do_train", "--dataset_path=x", "--num_train_epochs=60", *words]).learning
    given = {"fsdp": "", "deepspeed": None, "optim": SimpleNamespace(value="adamw_torch_fused"), "max_steps": -1}
    arguments = SimpleNamespace(
        **{**given, "num_train_epochs": 60, "learning_rate": 5e-5, "weight_decay": 0.0} | machine
    )
    start, blocks = SimpleNamespace(checkpoint=None, from_scratch=False), SimpleNamespace(train_characters=characters)
    return arguments, plan.settle_plan(start, blocks, learning, arguments, tiny_gpt2(300).config, new)


def test_what_a_run_cannot_have_is_not_proposed(tables):
    arguments, own = settle()
    assert (arguments.weight_decay, own["dropout"], own["average_last"]) == (0.4, 0.25, 0.5)
    assert own["embedding_learning_rate"] == 0.004
    assert settle(learning_rate=0.01)[1]["embedding_learning_rate"] == 0.01  # never below that of all
    assert settle(optim=SimpleNamespace(value="sgd"))[1]["embedding_learning_rate"] is None
    assert settle(fsdp="full_shard")[1]["average_last"] is None
    early = ["--do_eval", "--eval_steps=1", "--early_stopping_patience=1"]
    assert settle(early)[1]["average_last"] is None
    given = ["--average_last=3", "--embedding_learning_rate=1e-4", "--weight_decay=0", "--dropout=0"]
    arguments, own = settle([*given, *early], optim=SimpleNamespace(value="sgd"))
    assert arguments.weight_decay == 0.0
    assert {name: own[name] for name in plan.OWN} == {
        "embedding_learning_rate": 1e-4, "average_last": 3, "dropout": 0.0,
    }  # fmt: skip


def test_only_new_embeddings_get_a_rate_of_their_own_unasked():
    assert settle()[1]["embedding_learning_rate"] == NEW_EMBEDDINGS
    assert settle(new=False)[1]["embedding_learning_rate"] is None


def test_how_often_a_text_is_read():
    blocks = SimpleNamespace(train=range(60), train_characters=5)
    arguments = SimpleNamespace(
        max_steps=9, train_batch_size=4, gradient_accumulation_steps=2, world_size=5, num_train_epochs=2.5
    )
    assert plan.count_epochs(blocks, arguments) == 6
    assert plan.count_epochs(SimpleNamespace(train_characters=None), arguments) == 0
    arguments.max_steps = -1
    assert plan.count_epochs(blocks, arguments) == 2.5


def test_a_run_takes_its_plan_and_one_that_goes_on_keeps_it_whatever_the_tables_say_then(
    tables, train_words, tmp_path, run_main, monkeypatch
):
    monkeypatch.setattr(plan, "OFTEN", 0.5)
    out = tmp_path / "out"
    run = [
        "train.py", *train_words, "--do_train", "--max_steps=6", "--save_steps=3", "--report_to=none",
        "--per_device_train_batch_size=64", "--block_size=8", "--resume_from_checkpoint=auto",
    ]  # fmt: skip
    code, _, err = run_main(*run)
    assert code == 0 and "--weight_decay=0.4 --dropout=0.25 --average_last=0.5 (글" in err, err
    assert "--learning_rate=0.0003 (모델의 어휘로 배우므로)" in err
    assert json.loads((out / "config.json").read_text("utf-8"))["resid_pdrop"] == 0.25
    whole = load_file(out / "model.safetensors")
    groups = torch.load(out / "checkpoint-3" / "optimizer.pt")["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.0, 0.4} and groups[0]["initial_lr"] == 3e-4
    for path in [*(out / "checkpoint-6").iterdir(), out / "model.safetensors"]:
        path.unlink()
    for name in TABLES:
        monkeypatch.setattr(plan, name, {"weight_decay": 0.9, "dropout": 0.9})
    code, _, err = run_main(*run)
    assert code == 0 and "--weight_decay=0.4 --dropout=0.25" in err, err
    resumed = load_file(out / "model.safetensors")
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())
    for other, told in (("--weight_decay=0", "체크포인트는 0.4"), ("--dropout=0.1", "체크포인트는 0.25")):
        code, _, err = run_main(*run, other)
        assert code == 1 and told in err, err
    assert run_main(*run, "--weight_decay=0.4", "--dropout=0.25")[0] == 0


def test_dropout_is_of_all_of_a_gpt2_and_goes_with_a_resumed_adapter(train_words, byte_tokenizer, tmp_path, run_main):
    base = save_tiny_gpt2(tmp_path / "still", byte_tokenizer, **NO_DROPOUT)
    words = ["train.py", *train_words, f"--model_type={base}", "--do_train", "--save_steps=2", "--report_to=none"]
    words += ["--lora_rank=2", "--dropout=0.5", "--max_steps=4"]
    assert run_main(*words)[0] == 0
    whole = load_file(tmp_path / "out" / "model.safetensors")
    for path in (tmp_path / "out" / "checkpoint-4").iterdir():
        path.unlink()
    left_open = [word for word in words if not word.startswith("--dropout")]
    code, _, err = run_main(*left_open, "--resume_from_checkpoint=auto")
    assert code == 0, err
    resumed = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())
    assert run_main(*left_open, "--overwrite_output_dir")[0] == 0
    assert not all(torch.equal(load_file(tmp_path / "out" / "model.safetensors")[name], whole[name]) for name in whole)


def test_a_model_drops_as_one_that_was_made_so(tmp_path):
    torch.manual_seed(0)
    made, changed = tiny_gpt2(300, **dict.fromkeys(NO_DROPOUT, 0.4)), tiny_gpt2(300, **NO_DROPOUT)
    changed.load_state_dict(made.state_dict())
    set_dropout(changed, 0.4)
    changed.save_pretrained(tmp_path)
    losses = []
    for model in (made, changed, AutoModelForCausalLM.from_pretrained(tmp_path)):
        torch.manual_seed(1)
        ids = torch.arange(20)[None]
        losses.append(model.train()(ids, labels=ids).loss.item())
    assert losses[0] == losses[1] == losses[2]
    other = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    with pytest.raises(UsageError, match=r"--dropout=0\.4.*gpt_neox"):
        set_dropout(other, 0.4)
