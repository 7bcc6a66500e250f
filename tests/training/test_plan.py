"""What a run takes where nobody said: by a rule, unless a flag is given; kept by a run that goes on."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from conftest import NO_DROPOUT, save_tiny_gpt2, tiny_gpt2
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from gpt2_korean.cli.train_options import parse_train_options
from gpt2_korean.messages import UsageError
from gpt2_korean.model.prepare import set_dropout
from gpt2_korean.text import vocabulary
from gpt2_korean.training import plan


def values_of(
    characters=10**7, epochs=3, steps=10**4, width=1024, tokens=2**14, new=True, scratch=False, settled=(), **more
):
    told = plan.propose(characters, epochs, steps, width, tokens, new, scratch, settled, **more)
    return {name: value for name, (value, _) in told.items()}


def test_what_goes_on_with_its_own_vocabulary_keeps_the_defaults_but_for_an_adapters_rate():
    assert values_of(new=False) == values_of(new=False, epochs=60, characters=100) == {}
    assert values_of(new=False, adapter=True) == {"learning_rate": plan.ADAPTER_RATE}
    assert values_of(new=False, adapter=True, settled={"learning_rate"}) == {}


def test_what_was_taught_its_vocabulary_here_learns_on_at_half_the_rate_of_what_is_new():
    for case in ({}, {"epochs": 60}, {"width": 256}, {"uses_muon": True}, {"adapter": True}):
        case = {"settled": {"optim", "bpe_dropout"}, **case}
        anew, on = values_of(**case), values_of(new=False, taught_here=True, **case)
        assert on.pop("learning_rate") == pytest.approx(anew["learning_rate"] / 2, rel=0.05)  # two digits of either
        assert on == {"warmup_steps": plan.WARM_UP}
    assert "optim" not in values_of(new=False, taught_here=True)
    assert values_of(new=False, taught_here=True, settled={"learning_rate", "warmup_steps"}) == {}


def test_a_text_read_seldom_is_learnt_fast_and_one_read_often_is_not_learnt_by_heart():
    seldom, often = (values_of(epochs=epochs, width=256) for epochs in (plan.OFTEN, plan.OFTEN + 0.1))
    assert (seldom["optim"], seldom["dropout"], seldom["weight_decay"]) == ("muon", 0.0, 0.3)
    assert "dropout" not in often and often["weight_decay"] == 1.0
    assert often["learning_rate"] < seldom["learning_rate"]
    from_nothing = values_of(new=False, scratch=True, epochs=plan.OFTEN + 0.1)
    assert set(from_nothing) == {"optim", "learning_rate", "warmup_steps"}
    assert seldom["warmup_steps"] == often["warmup_steps"] == plan.WARM_UP


def test_a_wide_model_that_muon_carries_over_is_kept_from_learning_by_heart_sooner():
    for width, most in ((256, 4), (512, 3), (768, 2.5), (1024, 2.1), (1600, 1.7)):
        seldom, often = (values_of(epochs=epochs, width=width) for epochs in (most, most + 0.1))
        assert (seldom["optim"], seldom["dropout"], seldom["weight_decay"]) == ("muon", 0.0, 0.3)
        assert (often["optim"], often.get("dropout"), often["weight_decay"]) == ("muon", None, 1.0)
        assert (often["learning_rate"] < seldom["learning_rate"]) == (most == plan.OFTEN)  # as fast as before
    for other in ({"settled": {"optim"}}, {"adapter": True}, {"new": False, "scratch": True}):
        assert values_of(epochs=plan.OFTEN, **other)["dropout"] == 0.0


def test_wide_models_learn_at_lower_rates_and_none_above_the_most():
    widths = (64, 256, 512, 768, 1024, 1600)
    for optim in ({}, {"settled": {"optim"}}, {"settled": {"optim"}, "uses_muon": True}):
        rates = [values_of(width=width, tokens=10**6, **optim)["learning_rate"] for width in widths]
        assert rates == sorted(rates, reverse=True) and rates[0] == rates[1] >= rates[2] > rates[3] > rates[-1] > 1e-4
    by_muon, by_adamw = (values_of(settled={"optim"}, uses_muon=muon)["learning_rate"] for muon in (True, False))
    assert values_of()["learning_rate"] == by_muon > 2 * by_adamw  # which is chosen there


def test_steps_of_fewer_tokens_learn_at_lower_rates_the_more_so_where_a_text_is_read_often():
    for muon in (True, False):
        case = {"settled": {"optim"}, "uses_muon": muon}
        for epochs, times in ((plan.OFTEN, 2), (plan.OFTEN + 0.1, 4)):
            sizes = (1, 2**10, 2**14, 2**16, 2**20)
            rates = [values_of(epochs=epochs, tokens=tokens, **case)["learning_rate"] for tokens in sizes]
            assert rates[2] == pytest.approx(times * rates[1], rel=0.05)  # two digits of either
            assert (rates[3] > rates[2]) == (epochs == plan.OFTEN)  # larger steps were measured there alone
            assert rates[0] == rates[1] and rates[3] == rates[4]
    for other in ({"adapter": True}, {"new": False, "taught_here": True}):
        assert values_of(tokens=2**10, **case, **other) == values_of(tokens=2**14, **case, **other)


def test_an_adapter_takes_what_a_whole_model_takes_at_a_higher_rate_that_no_width_changes():
    by_muon, by_adamw = {"settled": {"optim"}, "uses_muon": True, "epochs": 6}, {"settled": {"optim"}}
    for case in ({"epochs": 2}, {"epochs": 60}, by_adamw, by_muon):
        whole, adapter = values_of(**case), values_of(**case, adapter=True)
        assert values_of(**case, width=256, tokens=4096, adapter=True) == adapter
        whole.pop("bpe_dropout", None)
        assert adapter.pop("learning_rate") > whole.pop("learning_rate") and adapter == whole
    often_enough = {"num_train_epochs": 2, "train_batch_size": 64}
    (whole, _), (adapter, _) = settle(**often_enough), settle(lora_rank=4, **often_enough)
    assert whole.uses_muon and adapter.uses_muon and adapter.learning_rate > whole.learning_rate
    assert settle(["--learning_rate=1e-4"], lora_rank=4, learning_rate=1e-4)[0].learning_rate == 1e-4


def test_muon_is_proposed_where_its_work_is_small_beside_that_of_the_tokens_and_a_text_is_not_learnt_by_heart():
    as_it_is, undone = plan.MUON_EPOCHS
    merges_stay = {"epochs": as_it_is + 0.1, "settled": {"bpe_dropout"}}
    assert values_of(tokens=4 * 1024)["optim"] == values_of(epochs=undone)["optim"] == "muon"
    assert values_of(**{**merges_stay, "epochs": as_it_is})["optim"] == "muon"
    too_often = {"epochs": undone + 0.1}
    for less in ({"tokens": 4 * 1024 - 1}, {"settled": {"optim"}}, {"settled": {"learning_rate"}}, too_often):
        assert "optim" not in values_of(**less)
    assert "optim" not in values_of(**merges_stay) and "optim" not in values_of(epochs=as_it_is + 0.1, adapter=True)


def test_merges_are_undone_where_a_text_is_read_so_often_that_it_pays():
    for muon, case in (
        (True, {}),
        (True, {"uses_muon": True}),
        (False, {"settled": {"optim"}}),
        (False, {"tokens": 1}),
    ):
        most = plan.MERGES_EPOCHS["muon" if muon else "adamw"]
        for new in ({}, {"new": False, "scratch": True}):
            assert "bpe_dropout" not in values_of(epochs=most, **case, **new)
            assert values_of(epochs=most + 0.1, **case, **new)["bpe_dropout"] == plan.BPE_DROPOUT
        for other in ({"new": False}, {"adapter": True}):
            assert "bpe_dropout" not in values_of(epochs=most + 50, **case, **other)
    by_adamw = plan.MERGES_EPOCHS["adamw"]  # as what is taught more learns
    for epochs, undoes in ((by_adamw, False), (by_adamw + 0.1, True)):
        assert ("bpe_dropout" in values_of(new=False, taught_here=True, epochs=epochs)) == undoes
    assert "bpe_dropout" not in values_of(epochs=60, settled={"bpe_dropout"})


def test_rows_of_a_short_text_move_less():
    rates = [values_of(size)["embedding_learning_rate"] for size in (10**5, 2 * 10**6, 6 * 10**6, 24 * 10**6, 10**9)]
    assert rates == [6e-4, 6e-4, 1e-3, 2e-3, 2e-3] and values_of(None)["embedding_learning_rate"] == 2e-3
    assert "embedding_learning_rate" not in values_of(new=False, scratch=True)


def test_rows_of_a_text_that_is_read_seldom_move_more_in_few_steps():
    for epochs, rates in ((plan.OFTEN, [2e-3, 2e-3, 1.5e-3, 8.5e-4, 6e-4]), (plan.OFTEN + 0.1, [6e-4] * 5)):
        told = [values_of(10**6, epochs, steps) for steps in (1, 200, 400, 1250, 10**4)]
        assert [each["embedding_learning_rate"] for each in told] == rates
    assert values_of(24 * 10**6, steps=10**4)["embedding_learning_rate"] == 2e-3


def test_what_is_given_is_not_proposed():
    everything = values_of(tokens=1)
    for name in everything:
        rest = {other: value for other, value in everything.items() if other != name}
        assert values_of(tokens=1, settled={name}) == rest


def test_a_plan_is_told_as_flags_with_why():
    told = "\n".join(plan.describe_plan(plan.propose(120_000, 60, 99, 256, 4096, True, False, {"warmup_steps"})))
    assert "--learning_rate=0.0005 --embedding_learning_rate=0.0006 (어휘가 새것이므로)" in told
    assert "--weight_decay=1 --bpe_dropout=0.01 (글을 60번 읽으므로)" in told and "warmup" not in told
    by_heart = plan.describe_plan(plan.propose(120, 1500.0, 99, 256, 4096, True, False, set()))
    assert any("(글을 1,500번 읽으므로)" in line for line in by_heart)
    of_a_stream = "\n".join(plan.describe_plan(plan.propose(None, 0, 99, 256, 4096, False, True, set())))
    assert "--weight_decay=0.3 --dropout=0 (스트리밍이므로)" in of_a_stream and "번 읽으므로" not in of_a_stream
    assert "--warmup_steps=0.1 (처음부터 배우므로)" in of_a_stream and "어휘" not in of_a_stream


@pytest.mark.parametrize("given", ["--weight-decay=0.0", "--weight_decay=0", "config"])
def test_a_flag_counts_as_given_though_it_says_the_default(given, tmp_path):
    words = ["--do_train", "--dataset_path=x", "--dropout=0.5"]
    if given == "config":
        (tmp_path / "run.yaml").write_text("weight_decay: 0.0\n", "utf-8")
        given = f"--config={tmp_path / 'run.yaml'}"
    chosen = parse_train_options([*words, given]).learning.chosen
    assert {"weight_decay", "dropout", "do_train"} <= chosen
    assert not {"learning_rate", "average_last", "optim"} & chosen


def settle(words=(), characters=1000, new=True, lora_rank=0, config=None, tokenizer=None, **machine):
    """The arguments and what else is settled, of a run that reads its text 60 times."""
    learning = parse_train_options(["--do_train", "--dataset_path=x", "--num_train_epochs=60", *words]).learning
    given = {"fsdp": "", "deepspeed": None, "optim": SimpleNamespace(value="adamw_torch_fused"), "max_steps": -1}
    given |= {"uses_muon": False, "train_batch_size": 4, "gradient_accumulation_steps": 1, "world_size": 1}
    arguments = SimpleNamespace(
        **{**given, "num_train_epochs": 60, "learning_rate": 5e-5, "weight_decay": 0.0} | machine
    )
    start = SimpleNamespace(checkpoint=None, from_scratch=False, source="somebody/gpt2")
    blocks = SimpleNamespace(train_characters=characters, size=32, train=range(8))
    config = config or tiny_gpt2(300).config
    tokenizer = tokenizer or vocabulary.train_tokenizer(["여러 번 읽는 글"] * 4, 300, 32)
    return arguments, plan.settle_plan(start, blocks, learning, arguments, config, tokenizer, new, lora_rank)


def test_what_a_run_cannot_have_is_not_proposed():
    arguments, own = settle()
    assert (arguments.weight_decay, arguments.learning_rate, own["embedding_learning_rate"]) == (1.0, 2.5e-4, 6e-4)
    arguments, own = settle(["--learning_rate=0.01"], learning_rate=0.01)
    assert (arguments.learning_rate, own["embedding_learning_rate"]) == (0.01, 0.01)  # never below that of all
    arguments, own = settle(optim=SimpleNamespace(value="sgd"))
    assert (arguments.learning_rate, own["embedding_learning_rate"]) == (5e-5, None)
    often_enough = {"num_train_epochs": 2, "train_batch_size": 64}
    assert settle(**often_enough)[0].uses_muon and settle(**often_enough)[1]["dropout"] == 0.0
    for sharded in ({"fsdp": "full_shard"}, {"deepspeed": "way.json"}):
        assert not settle(**sharded, **often_enough)[0].uses_muon
    assert settle(config=GPTNeoXConfig(hidden_size=64), **often_enough)[1]["dropout"] is None
    assert settle()[1]["bpe_dropout"] == plan.BPE_DROPOUT
    no_merges = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"글": 0, "?": 1}, "?")), eos_token="글")
    assert not settle(tokenizer=no_merges)[1]["bpe_dropout"] and not settle(new=False)[1]["bpe_dropout"]
    given = [
        "--average_last=3",
        "--embedding_learning_rate=1e-4",
        "--weight_decay=0",
        "--dropout=0",
        "--bpe_dropout=0.05",
    ]
    arguments, own = settle(given)
    assert arguments.weight_decay == 0.0
    assert {name: own[name] for name in plan.OWN} == {
        "embedding_learning_rate": 1e-4, "average_last": 3, "dropout": 0.0, "bpe_dropout": 0.05,
    }  # fmt: skip


def test_only_new_embeddings_get_a_rate_of_their_own_unasked():
    assert settle(characters=10**9)[1]["embedding_learning_rate"] == plan.NEW_EMBEDDINGS
    assert settle(new=False)[1]["embedding_learning_rate"] is None


def test_how_often_a_text_is_read_and_in_how_many_steps():
    arguments = SimpleNamespace(
        max_steps=9, train_batch_size=4, gradient_accumulation_steps=2, world_size=5, num_train_epochs=2.5
    )
    for length, times in ((9, 9), (40, 9), (41, 4.5), (60, 4.5), (81, 3)):  # in steps of 40, the last of an epoch fewer
        blocks = SimpleNamespace(train=range(length), train_characters=5)
        assert plan.count_epochs(blocks, arguments) == times and plan.count_steps(blocks, arguments) == 9
    assert plan.count_epochs(SimpleNamespace(train_characters=None), arguments) == 0
    arguments.max_steps = -1
    assert plan.count_epochs(blocks, arguments) == 2.5 and plan.count_steps(blocks, arguments) == 8  # of 3 an epoch


def test_a_run_takes_its_plan_and_one_that_goes_on_keeps_it_whatever_the_rule_says_then(
    train_words, tmp_path, run_main, monkeypatch
):
    monkeypatch.setattr(vocabulary, "LEAST_TOKENS", 1)
    monkeypatch.setattr(plan, "MUON_TOKENS", 0)
    monkeypatch.setattr(plan, "BY_STEPS", 0)  # else the embeddings have the rate of the others
    out = tmp_path / "out"
    run = [
        "train.py", *train_words, "--do_train", "--max_steps=6", "--save_steps=3", "--report_to=none",
        "--tokenizer=korean", "--per_device_train_batch_size=64", "--block_size=8", "--resume_from_checkpoint=auto",
    ]  # fmt: skip
    monkeypatch.setattr(plan, "OFTEN", 1000)
    monkeypatch.setattr(plan, "MERGES_EPOCHS", {"muon": 0})
    monkeypatch.setattr(plan, "BPE_DROPOUT", 0.3)
    code, _, err = run_main(*run)
    assert code == 0 and "--optim=muon --learning_rate=0.002 --warmup_steps=0.1" in err, err
    assert "--weight_decay=0.3 --dropout=0 --bpe_dropout=0.3 (글을" in err and "--bpe_dropout=0.3: 토큰이" in err
    assert err.index("자동으로 고른 값") < err.index("--bpe_dropout=0.3: 토큰이")  # why first, then what it does
    assert json.loads((out / "config.json").read_text("utf-8"))["resid_pdrop"] == 0.0
    whole = load_file(out / "model.safetensors")
    groups = torch.load(out / "checkpoint-3" / "optimizer.pt")["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.0, 0.3}
    assert {group["initial_lr"] for group in groups} == {2e-3, 6e-4}
    assert {group["matrices"] for group in groups} == {0, 1, 6}  # two heads
    for path in [*(out / "checkpoint-6").iterdir(), out / "model.safetensors"]:
        path.unlink()
    monkeypatch.setattr(plan, "OFTEN", 0)
    monkeypatch.setattr(plan, "MERGES_EPOCHS", {"muon": 1000})
    code, _, err = run_main(*run)
    assert code == 0 and "--weight_decay=0.3 --dropout=0 --bpe_dropout=0.3 (글을" in err, err
    resumed = load_file(out / "model.safetensors")
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())
    for other, was in (("--weight_decay=0", "0.3"), ("--dropout=0.1", "0"), ("--bpe_dropout=0", "0.3")):
        code, _, err = run_main(*run, other)
        assert code == 1 and f"체크포인트는 {was}" in err, err
    assert run_main(*run, "--weight_decay=0.3", "--dropout=0")[0] == 0


def test_a_checkpoint_from_before_there_were_plans_goes_on_without_one(train_words, tmp_path, run_main):
    run = ["train.py", *train_words, "--do_train", "--max_steps=2", "--save_steps=1", "--report_to=none"]
    assert run_main(*run)[0] == 0
    shutil.rmtree(tmp_path / "out" / "checkpoint-2")
    resume = tmp_path / "out" / "checkpoint-1" / "resume.json"
    told = json.loads(resume.read_text("utf-8"))
    del told["plan"]
    resume.write_text(json.dumps(told), "utf-8")
    code, _, err = run_main(*run, "--resume_from_checkpoint=auto")
    assert code == 0 and "checkpoint-1" in err, err


def test_a_model_of_an_earlier_run_is_taught_at_the_rates_of_the_plan_and_another_is_not(
    train_words, byte_tokenizer, tmp_path, run_main
):
    common = ["train.py", *train_words, "--do_train", "--max_steps=2", "--save_steps=1", "--report_to=none"]
    taught, told = tmp_path / "taught", "--warmup_steps=0.1 (train.py가 어휘를 가르친 모델이므로)"
    assert run_main(*common, "--model_type=scratch-mini", f"--output_dir={taught}", "--learning_rate=1e-3")[0] == 0
    for number, model in enumerate((taught, taught / "checkpoint-1", tmp_path / "again0")):
        code, _, err = run_main(*common, f"--model_type={model}", f"--output_dir={tmp_path / f'again{number}'}")
        assert code == 0 and f"--learning_rate=0.0005 {told}" in err, err
    goes_on = f"--output_dir={tmp_path / 'again0'}", "--resume_from_checkpoint=auto"
    code, _, err = run_main(*common, f"--model_type={taught}", "--max_steps=3", *goes_on)
    assert code == 0 and f"--learning_rate=0.0005 {told}" in err, err
    other = save_tiny_gpt2(tmp_path / "other", byte_tokenizer)
    for number, model in enumerate((other, tmp_path / "other-again0")):
        words = f"--model_type={model}", "--tokenizer=original", f"--output_dir={tmp_path / f'other-again{number}'}"
        code, _, err = run_main(*common, *words)
        assert code == 0 and "자동으로 고른 값" not in err, err


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
    theirs = LoraConfig(lora_dropout=0.3, target_modules=["c_attn"], fan_in_fan_out=True)  # another's adapter
    adapted = get_peft_model(tiny_gpt2(300, **NO_DROPOUT), theirs)
    set_dropout(adapted, 0.4)
    rates = {(".lora_" in name, part.p) for name, part in adapted.named_modules() if isinstance(part, torch.nn.Dropout)}
    assert rates == {(True, 0.3), (False, 0.4)}
    other = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    with pytest.raises(UsageError, match=r"--dropout=0\.4.*gpt_neox"):
        set_dropout(other, 0.4)
