"""Which speed-ups a run takes, and what it says where one of them is not to be had."""

import json
import sys
import threading
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from conftest import needs_gpu, tiny_gpt2
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import gpt2_korean.speed
from gpt2_korean.model import lora
from gpt2_korean.speed import choose, pieces
from gpt2_korean.speed.choose import WORTH_COMPILING, choose_compilation
from gpt2_korean.speed.throughput import flops_per_token


def test_long_runs_compile_where_that_is_possible_and_a_flag_decides():
    def choice(wanted, possible, flops, backend=None):
        machine = SimpleNamespace(torch_compile=wanted, torch_compile_backend=backend, torch_compile_mode=None)
        return choose_compilation(machine, possible, flops)

    def compiles(*arguments):
        return choice(*arguments)[0] is not None

    assert compiles(None, True, 2 * WORTH_COMPILING)
    assert not compiles(None, True, WORTH_COMPILING / 2)
    assert not compiles(None, False, 2 * WORTH_COMPILING)
    assert compiles(True, False, 0) and not compiles(False, True, 2 * WORTH_COMPILING)
    how, reason = choice(None, False, 0, "eager")
    assert how == {"backend": "eager", "mode": None} and reason == "--torch_compile_backend"
    machine = SimpleNamespace(torch_compile=None, torch_compile_backend=None, torch_compile_mode="max-autotune")
    how, reason = choose_compilation(machine, False, 0)
    assert how == {"backend": "inductor", "mode": "max-autotune"} and reason == "--torch_compile_mode"


@pytest.fixture
def speed_up(monkeypatch):
    """Of a tiny GPT-2 or another model: `(how it is stepped, what its layers are computed by or None)`."""
    monkeypatch.setattr(choose, "has_graphs", lambda device: device.type != "cpu")
    monkeypatch.setattr(choose, "can_compile", lambda device: True)
    monkeypatch.setattr(torch, "compile", lambda function, **how: function)  # the compiler's import takes seconds
    monkeypatch.setattr(choose, "load_fused_layer", lambda *given: None)
    monkeypatch.setattr(choose, "load_attention", lambda *given: ("by attention.py", True))

    def call(device="cuda", model=None, tokens=1, fsdp=None, deepspeed=None, gradient_checkpointing=False, **flags):
        used, given = [], {"fsdp": fsdp, "deepspeed": deepspeed, "gradient_checkpointing": gradient_checkpointing}
        monkeypatch.setattr(choose.forward, "use_fast_forward", lambda *given: used.append(given))
        arguments = SimpleNamespace(device=torch.device(device), bf16=False, fp16=False, **given)
        names = ("torch_compile", "torch_compile_backend", "torch_compile_mode", "device_graphs")
        machine = SimpleNamespace(**{**dict.fromkeys(names), **flags})
        model = model or tiny_gpt2(301)
        steps = choose.speed_up(model, arguments, machine, SimpleNamespace(size=32), tokens)
        return steps, used[0] if used else None

    return call


def test_steps_are_recorded_where_the_device_can_and_nothing_stands_in_the_way(speed_up):
    recorded, plain = {"full_length": 32, "recorded": True}, {"full_length": None, "recorded": False}
    assert speed_up("cuda")[0] == speed_up("cuda", tokens=None)[0] == recorded
    assert speed_up("cuda", device_graphs=False)[0] == speed_up("cuda", gradient_checkpointing=True)[0] == plain
    assert speed_up("xpu")[0] == plain and speed_up("xpu", device_graphs=True)[0] == recorded
    assert speed_up("cpu")[0] == speed_up("cpu", device_graphs=True)[0] == plain
    for mode in ("reduce-overhead", "max-autotune"):  # which record graphs of their own
        assert speed_up("cuda", torch_compile_mode=mode)[0] == {"full_length": 32, "recorded": False}
    assert speed_up("cuda", torch_compile_mode="default")[0] == recorded


def test_a_gpt2s_layers_are_fused_or_compiled_or_plain_and_another_models_stay_its_own(speed_up, monkeypatch, capsys):
    plain, adapted = tiny_gpt2(301), lora.adapt(tiny_gpt2(301), 2)
    long = int(2 * WORTH_COMPILING / flops_per_token(plain, 32))
    for model, own in ((plain, plain), (adapted, adapted.base_model.model)):
        assert speed_up(model=model)[1] == (own, None, pieces.separate, False)
    _, (_, functions, *others) = speed_up(torch_compile=True)
    assert len(functions) == 4 and others == [pieces.masked, False]
    assert "컴파일: 함" in capsys.readouterr().err
    assert speed_up(torch_compile=True, tokens=None)[1][1] is None and not capsys.readouterr().err  # only measured
    speed_up(torch_compile=False)
    assert "컴파일: 하지 않음" in capsys.readouterr().err

    shape = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    for changes in ({"fsdp": True}, {"deepspeed": "stage.json"}, {"model": GPTNeoXForCausalLM(GPTNeoXConfig(**shape))}):
        for compiles in (False, True):
            compiled, model = [], changes.get("model") or tiny_gpt2(301)
            monkeypatch.setattr(type(model), "compile", lambda self, compiled=compiled, **how: compiled.append(how))
            assert speed_up(**{**changes, "model": model}, torch_compile=compiles) == ({}, None)
            assert compiled == [{"backend": "inductor", "mode": None}] * compiles

    monkeypatch.setattr(choose, "load_fused_layer", lambda *given: "fused")
    for tokens in (1, long):  # where the fused layer can be had a long run is not compiled
        assert speed_up(model=plain, tokens=tokens)[1] == (plain, "fused", "by attention.py", True)
    monkeypatch.setattr(choose, "load_fused_layer", lambda *given: None)
    assert speed_up(tokens=long)[1][1] is not None
    monkeypatch.setattr(choose, "can_compile", lambda device: False)
    assert speed_up(tokens=long)[1][1] is None


def test_a_compiled_run_on_a_cpu_learns_what_an_uncompiled_one_does(train_words, tmp_path, run_main, monkeypatch):
    """The compiler's eager backend stands in for a GPU's: the same path, no kernels."""
    losses, compiled, original = [], [], torch.compile

    def compile_and_note(function, **keywords):
        assert keywords["backend"] == "eager" and keywords["dynamic"] is False
        compiled.append(function.__name__)
        return original(function, **keywords)

    monkeypatch.setattr(torch, "compile", compile_and_note)
    for words in ([], ["--torch_compile", "--torch_compile_backend=eager"]):
        code, _, err = run_main(
            "train.py", *train_words, "--do_train", "--overwrite_output_dir", "--max_steps=6", "--logging_steps=1",
            "--per_device_train_batch_size=4", *words,
        )  # fmt: skip
        assert code == 0, err
        history = json.loads((tmp_path / "out/checkpoint-6/trainer_state.json").read_text())["log_history"]
        losses.append([entry["loss"] for entry in history if "loss" in entry])
        assert all(entry["tokens_per_second"] > 0 for entry in history if "loss" in entry)
    assert "--torch_compile=true" in err
    assert compiled == ["layer", "cross_entropy_in_place"]
    assert losses[0][:2] == pytest.approx(losses[1][:2], rel=0.02)


def test_a_compiler_that_is_not_there_or_fails_is_told_of_in_two_lines(train_words, run_main, monkeypatch):
    run = ["train.py", *train_words, "--do_train", "--max_steps=1", "--report_to=none"]
    code, _, err = run_main(*run, "--torch_compile_backend=none-such")
    assert code == 2 and "--torch_compile_backend" in err and "none-such" in err

    def fails(graph, inputs):
        raise ValueError("no such kernel")

    monkeypatch.setattr(choose, "choose_compilation", lambda *_: ({"backend": fails}, None))
    code, _, err = run_main(*run)
    assert code == 1 and "--torch_compile=false" in err and "Traceback" not in err


def test_where_the_fused_layer_cannot_be_compiled_training_goes_the_plain_way_and_says_so(monkeypatch, capsys):
    tried = []

    def fails(config, *_):
        tried.append(config)
        raise RuntimeError("no compiler")

    monkeypatch.setitem(sys.modules, "gpt2_korean.speed.layer", SimpleNamespace(try_out=fails))
    monkeypatch.setattr(gpt2_korean.speed, "layer", SimpleNamespace(try_out=fails), raising=False)
    arguments = SimpleNamespace(device=torch.device("cuda"), bf16=True, fp16=False, fsdp=None, deepspeed=None)
    assert choose.load_fused_layer(tiny_gpt2(301), arguments) is None and len(tried) == 1
    assert "Triton" in capsys.readouterr().err
    stand_in = SimpleNamespace(try_out=lambda *_: None, FUNCTIONS="ours")
    monkeypatch.setitem(sys.modules, "gpt2_korean.speed.layer", stand_in)
    for device in ("cuda", "xpu"):
        arguments.device = torch.device(device)
        assert choose.load_fused_layer(tiny_gpt2(301), arguments) == "ours"
    monkeypatch.setitem(sys.modules, "gpt2_korean.speed.layer", SimpleNamespace(try_out=fails))
    # What it does not compute is not asked of it, nor is anything of a machine without a GPU.
    assert choose.load_fused_layer(tiny_gpt2(301, activation_function="relu"), arguments) is None
    assert choose.load_fused_layer(tiny_gpt2(301, scale_attn_by_inverse_layer_idx=True), arguments) is None
    arguments.fsdp = True
    assert choose.load_fused_layer(tiny_gpt2(301), arguments) is None
    arguments.fsdp = None
    for device in ("cpu", "mps"):
        arguments.device = torch.device(device)
        assert choose.load_fused_layer(tiny_gpt2(301), arguments) is None
    assert len(tried) == 1 and capsys.readouterr().err == ""


def test_where_attention_cannot_be_compiled_a_mask_keeps_documents_apart_and_it_is_said(monkeypatch, capsys):
    def fails(*_):
        raise RuntimeError("no compiler")

    pytest.importorskip("triton")
    from gpt2_korean.speed import layer

    stand_in = SimpleNamespace(try_out=fails, fused="ours")
    monkeypatch.setitem(sys.modules, "gpt2_korean.speed.attention", stand_in)
    monkeypatch.setattr(gpt2_korean.speed, "attention", stand_in, raising=False)
    own = [(9, 0)]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: own[0])
    arguments = SimpleNamespace(device=torch.device("cuda"), bf16=True, fp16=False)
    assert choose.load_attention(tiny_gpt2(301), arguments) == (layer.masked, False)
    assert "Triton" in capsys.readouterr().err
    stand_in.try_out = lambda *_: None
    for own[0] in ((9, 0), (8, 0)):
        assert choose.load_attention(tiny_gpt2(301), arguments) == ("ours", True)
    in_float32 = SimpleNamespace(**{**vars(arguments), "bf16": False})
    assert choose.load_attention(tiny_gpt2(301), in_float32) == (layer.masked, False)
    own[0] = (7, 5)  # a T4, for which Triton multiplies without tensor cores
    assert choose.load_attention(tiny_gpt2(301), arguments) == (layer.masked, False)
    assert not capsys.readouterr().err


def test_kernels_are_compiled_meanwhile_with_dropout_and_without_and_say_nothing_where_they_cannot_be(
    monkeypatch, capsys
):
    tried, on = [], []

    def try_out(config, *_):
        tried.append((config.attn_pdrop, threading.current_thread() is threading.main_thread()))
        if len(tried) > 4:
            raise RuntimeError("no compiler")

    for name in ("layer", "attention"):
        stand_in = SimpleNamespace(try_out=try_out)
        monkeypatch.setitem(sys.modules, f"gpt2_korean.speed.{name}", stand_in)
        monkeypatch.setattr(gpt2_korean.speed, name, stand_in, raising=False)
    monkeypatch.setattr(torch.cuda, "device", lambda device: on.append(device) or nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    device, model = torch.device("cuda:1"), tiny_gpt2(301, attn_pdrop=0.5)
    arguments = SimpleNamespace(device=device, bf16=True, fp16=False, fsdp=None, deepspeed=None)
    choose.begin_kernels(model, arguments)()
    # A thread of its own has a device of its own, and what the model says of dropout stays.
    assert tried == [(0.0, False)] * 2 + [(0.5, False)] * 2 and on == [device] and model.config.attn_pdrop == 0.5
    choose.begin_kernels(model, arguments)()
    arguments.device = torch.device("cpu")
    choose.begin_kernels(model, arguments)()
    assert len(tried) == 5 and capsys.readouterr() == ("", "")


class Bold(torch.amp.GradScaler):
    """Multiplies the losses of the first steps by so much that their gradients overflow, which halves it each time."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **{**keywords, "init_scale": 2.0**32})


@needs_gpu
@pytest.mark.parametrize("passes", [1, 2])
def test_recorded_steps_in_float16_learn_what_unrecorded_ones_do(train_words, tmp_path, run_main, monkeypatch, passes):
    monkeypatch.setattr(torch.amp, "GradScaler", Bold)
    losses, plain = [], ["--device_graphs=false"]
    for words in (plain, []):
        code, _, err = run_main(
            "train.py", *train_words, "--do_train", "--overwrite_output_dir", "--max_steps=60", "--logging_steps=1",
            "--fp16", "--dropout=0", "--optim=adamw_torch", "--learning_rate=1e-3", "--warmup_steps=0",
            "--per_device_train_batch_size=4", f"--gradient_accumulation_steps={passes}", *words,
        )  # fmt: skip
        assert code == 0 and "float16" in err, err
        history = json.loads((tmp_path / "out/checkpoint-60/trainer_state.json").read_text())["log_history"]
        losses.append([entry["loss"] for entry in history if "loss" in entry])
    assert losses[1] == pytest.approx(losses[0], rel=0.02) and losses[1][-1] < 0.95 * losses[1][0]
