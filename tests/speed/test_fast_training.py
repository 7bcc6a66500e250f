"""Fast training computes what transformers and PyTorch compute: losses, gradients, averages over ranks."""

import copy
import json
import shutil
import statistics
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, tiny_gpt2
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

import gpt2_korean.speed
from gpt2_korean import device
from gpt2_korean.speed import choose, loss
from gpt2_korean.speed import forward as fast_forward
from gpt2_korean.speed import graphs as recorded_step
from gpt2_korean.speed.forward import use_fast_forward
from gpt2_korean.speed.graphs import WARM_UP, RecordedStep
from gpt2_korean.speed.throughput import flops_per_token
from gpt2_korean.text.blocks import collate, fill_up
from gpt2_korean.training.plan import WORTH_COMPILING, choose_compilation

GPU = torch.device(device.available_devices()[0])
HAS_GRAPHS = GPU.type in ("cuda", "xpu")
needs_graphs = pytest.mark.skipif(not HAS_GRAPHS, reason="no GPU with graphs here")
# The compiler without its kernels: the same functions, formulas and types.
EAGER = partial(torch.compile, dynamic=False, backend="eager")
COMPILED = fast_forward.start, EAGER(fast_forward.layer), EAGER(loss.cross_entropy_in_place)
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


@pytest.fixture(autouse=True)
def forget_what_was_compiled():
    """A function is compiled for a few shapes at most, of all tests together; then it runs as it is."""
    yield
    torch.compiler.reset()


def random_batch(rng, vocabulary=301, longest=32):
    rows = [
        {"input_ids": torch.tensor([rng.randrange(vocabulary) for _ in range(rng.randint(2, longest))])}
        for _ in range(rng.randint(1, 5))
    ]
    return collate(rows, 0)


def gradients(model):
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("chunk", [1, 700, 10**9])
def test_the_chunked_loss_is_cross_entropy(rng, monkeypatch, chunk):
    monkeypatch.setattr(loss, "CHUNK", chunk)
    for _ in range(5):
        batch, length, width, vocabulary = rng.randint(1, 4), rng.randint(2, 9), rng.randint(1, 20), rng.randint(2, 400)
        hidden = torch.randn(batch, length, width, requires_grad=True)
        weight = torch.randn(vocabulary, width, requires_grad=True)
        labels = torch.randint(0, vocabulary, (batch, length))
        labels[torch.rand(batch, length) < 0.2] = -100
        ours = loss.summed_loss(hidden, weight, labels) / 7
        found = torch.autograd.grad(ours, (hidden, weight))
        logits = (hidden[:, :-1] @ weight.T).flatten(0, 1)
        expected = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum") / 7
        torch.testing.assert_close(ours, expected)
        for ours, reference in zip(found, torch.autograd.grad(expected, (hidden, weight)), strict=True):
            torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("functions", [None, COMPILED])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("activation", ["gelu_new", "relu"])
def test_the_fast_forward_gives_transformers_loss_and_gradients(rng, activation, checkpointing, functions):
    plain = tiny_gpt2(301, activation_function=activation, **NO_DROPOUT).train()
    fast = copy.deepcopy(plain)
    use_fast_forward(fast, functions)
    if checkpointing:
        fast.gradient_checkpointing_enable()
    for _ in range(4):
        batch = random_batch(rng)
        items = torch.tensor(rng.randint(1, 50))
        results = [model(**batch, num_items_in_batch=items, use_cache=False).loss for model in (plain, fast)]
        torch.testing.assert_close(*results)
        for model, result in zip((plain, fast), results, strict=True):
            model.zero_grad()
            result.backward()
        torch.testing.assert_close(gradients(fast), gradients(plain), rtol=1e-3, atol=1e-4)
    plain.eval(), fast.eval()
    torch.testing.assert_close(fast(**batch).loss, plain(**batch).loss)
    torch.testing.assert_close(fast(batch["input_ids"]).logits, plain(batch["input_ids"]).logits)


@pytest.mark.parametrize("functions", [None, COMPILED])
def test_the_fast_forward_trains_an_adapter_as_transformers_does(rng, functions):
    from gpt2_korean.model import lora

    plain = lora.adapt(tiny_gpt2(301, **NO_DROPOUT), 4, train_embeddings=True).train()
    fast = copy.deepcopy(plain)
    use_fast_forward(fast.base_model.model, functions)
    batch = random_batch(rng)
    for model in (plain, fast):
        model(**batch).loss.backward()
    found = gradients(fast)
    assert any("lora" in name for name in found) and any("wte" in name for name in found)
    torch.testing.assert_close(found, gradients(plain), rtol=1e-3, atol=1e-4)


def fused_functions():
    from gpt2_korean.speed import layer as fused_layer

    return fused_layer.FUNCTIONS


@pytest.mark.parametrize("fuses", [False, pytest.param(True, marks=needs_graphs)])
def test_over_200_steps_in_bfloat16_all_speed_ups_learn_what_transformers_does(fuses):
    """They differ no more than bfloat16's rounding makes transformers' own losses differ from float32's."""

    def losses(fast, bf16):
        torch.manual_seed(0)
        model = tiny_gpt2(301, **NO_DROPOUT).train()
        if fast:
            use_fast_forward(model, fused_functions() if fuses else None)
        model.to(GPU)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        found = []
        for _ in range(200):
            # Texts in which the next token can be told: each is the one before it times 2 and something.
            ids = torch.empty(4, 32, dtype=torch.long)
            ids[:, 0], steps = torch.randint(0, 301, (4,)), torch.randint(0, 5, (4, 32))
            for place in range(1, 32):
                ids[:, place] = (2 * ids[:, place - 1] + steps[:, place]) % 301
            ids = ids.to(GPU)
            with torch.autocast(GPU.type, torch.bfloat16, enabled=bf16):
                result = model(input_ids=ids, labels=ids).loss
            optimizer.zero_grad()
            result.backward()
            optimizer.step()
            found.append(result.item())
        return found

    ours, plain, exact = losses(True, True), losses(False, True), losses(False, False)
    assert statistics.mean(plain[-20:]) < 0.6 * plain[0]

    def gap(one, other):
        return statistics.mean(abs(a - b) for a, b in zip(one, other, strict=True))

    assert gap(ours, plain) < 3 * gap(plain, exact)


def test_filling_up_a_batch_changes_neither_loss_nor_gradients(rng):
    model = tiny_gpt2(301, **NO_DROPOUT).train()
    use_fast_forward(model)
    for _ in range(3):
        batch, found = random_batch(rng), []
        for given in (batch, fill_up(batch, 6, 32)):
            model.zero_grad()
            result = model(**given).loss
            result.backward()
            found.append((result.detach(), gradients(model)))
        assert given["labels"].shape == given["input_ids"].shape == (6, 32)
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_the_operations_of_a_token_are_those_that_pytorch_counts():
    for shape in ({}, {"n_layer": 5, "n_embd": 96, "n_head": 3}):
        model = tiny_gpt2(1000, **shape, **NO_DROPOUT, attn_implementation="eager")
        ids = torch.randint(0, 1000, (2, 32))
        with FlopCounterMode(display=False) as counter:
            model(ids, labels=ids).loss.backward()
        assert flops_per_token(model, 32) == pytest.approx(counter.get_total_flops() / ids.numel(), rel=0.05)


def test_long_runs_compile_where_that_is_possible_and_a_flag_decides():
    def compiles(*arguments):
        return choose_compilation(*arguments)[0] is not None

    assert compiles(None, True, 2 * WORTH_COMPILING)
    assert not compiles(None, True, WORTH_COMPILING / 2)
    assert not compiles(None, False, 2 * WORTH_COMPILING)
    assert compiles(True, False, 0) and not compiles(False, True, 2 * WORTH_COMPILING)
    how, reason = choose_compilation(None, False, 0, "eager")
    assert how == {"backend": "eager", "mode": None} and reason == "--torch_compile_backend"


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

    monkeypatch.setattr("gpt2_korean.training.plan.choose_compilation", lambda *_: ({"backend": fails}, None))
    code, _, err = run_main(*run)
    assert code == 1 and "--torch_compile=false" in err and "Traceback" not in err


def test_fsdp_in_one_process_is_told_how_to_have_more(train_words, run_main):
    code, out, err = run_main("train.py", *train_words, "--do_train", "--max_steps=1", "--fsdp")
    assert code == 2 and out == "" and "--fsdp" in err and "torchrun" in err and "Traceback" not in err


def test_auto_find_batch_size_keeps_the_blocks_of_a_step(train_words, tmp_path, run_main, monkeypatch):
    from gpt2_korean.training.trainer import KoreanTrainer

    original, seen = KoreanTrainer.training_step, []

    def too_large_for_the_device(self, model, inputs, *rest):
        if len(inputs["input_ids"]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        seen.append(len(inputs["input_ids"]))
        return original(self, model, inputs, *rest)

    monkeypatch.setattr(KoreanTrainer, "training_step", too_large_for_the_device)
    code, _, err = run_main(
        "train.py", *train_words, "--do_train", "--max_steps=4", "--per_device_train_batch_size=8",
        "--gradient_accumulation_steps=2", "--auto_find_batch_size", "--block_size=8",
    )  # fmt: skip
    assert code == 0, err
    assert seen == [2] * 8 * 4
    assert "2개씩 8번" in err


def test_ranks_average_their_gradients_and_start_alike(tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import torch, torch.distributed as dist\n"
        "from gpt2_korean.speed import graphs as recorded_step\n"
        "recorded_step.BUCKET = 10\n"
        "dist.init_process_group('gloo')\n"
        "torch.manual_seed(dist.get_rank())\n"
        "model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))\n"
        "recorded_step.start_alike(model)\n"
        "start = [weight.detach().clone() for weight in model.parameters()]\n"
        "for weight in list(model.parameters())[1:]: weight.grad = torch.randn_like(weight)\n"
        "own = [weight.grad.clone() for weight in list(model.parameters())[1:]]\n"
        "recorded_step.average_over_ranks(list(model.parameters()))\n"
        "found = [weight.grad for weight in list(model.parameters())[1:]]\n"
        "everyone = [None, None]\n"
        "dist.all_gather_object(everyone, (start, own))\n"
        "assert all(torch.equal(a, b) for a, b in zip(everyone[0][0], everyone[1][0]))\n"
        "for mine, a, b in zip(found, everyone[0][1], everyone[1][1]):\n"
        "    torch.testing.assert_close(mine, (a + b) / 2)\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert finished.returncode == 0, finished.stderr[-2000:]


def pretend_to_record(parameters):
    """A device's graph for a machine without: nothing is done at recording, and a replay works in the same tensors."""

    def record(work, device):
        found = [parameter.grad for parameter in parameters]
        values = [gradient if gradient is None else gradient.clone() for gradient in found]
        loss = work()
        made = [parameter.grad for parameter in parameters]
        for gradient, value in zip(made, values, strict=True):
            gradient.copy_(torch.full_like(gradient, torch.nan) if value is None else value)

        def replay():
            for parameter, gradient in zip(parameters, found, strict=True):
                parameter.grad = gradient
            loss.copy_(work())
            for parameter, gradient in zip(parameters, made, strict=True):
                gradient.copy_(parameter.grad)
                parameter.grad = gradient

        return SimpleNamespace(replay=replay), loss

    return record


@pytest.mark.parametrize("accumulates", [False, True])
@pytest.mark.parametrize("fuses", [False, pytest.param(True, marks=needs_graphs)])
def test_recorded_passes_learn_what_unrecorded_ones_do(rng, monkeypatch, fuses, accumulates):
    plain = tiny_gpt2(301, **NO_DROPOUT).train().to(GPU)
    recorded = copy.deepcopy(plain)
    use_fast_forward(plain)
    use_fast_forward(recorded, fused_functions() if fuses else None)
    # Not Adam: of the key biases, whose gradients are rounding errors around zero, it would make whole steps.
    optimizers = [torch.optim.SGD(model.parameters(), lr=1e-2) for model in (plain, recorded)]
    step = RecordedStep(recorded.parameters(), GPU, accumulates)
    if not HAS_GRAPHS:
        monkeypatch.setattr(recorded_step, "record_graph", pretend_to_record(step.parameters))
        monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)

    def pass_of(model):
        def run(inputs, items):
            result = model(**inputs, num_items_in_batch=items).loss
            result.backward()
            return result.detach()

        return run

    for _ in range(2 * WARM_UP + 4):
        for _ in range(rng.randint(1, 3) if accumulates else 1):
            batch = {name: tensor.to(GPU) for name, tensor in fill_up(random_batch(rng), 5, 32).items()}
            items = (batch["labels"] != -100).sum()
            losses = pass_of(plain)(batch, items), step(pass_of(recorded), batch, items)
            torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-4)
        for model, optimizer in zip((plain, recorded), optimizers, strict=True):
            optimizer.step()
            model.zero_grad()
    assert step.graph is not None
    torch.testing.assert_close(dict(recorded.named_parameters()), dict(plain.named_parameters()), rtol=1e-2, atol=1e-3)


@needs_graphs
@pytest.mark.parametrize("fuses", [False, True])
def test_recorded_dropout_differs_from_pass_to_pass(rng, fuses):
    model = tiny_gpt2(301).train().to(GPU)
    use_fast_forward(model, fused_functions() if fuses else None)
    step = RecordedStep(model.parameters(), GPU)
    batch = {name: tensor.to(GPU) for name, tensor in fill_up(random_batch(rng), 5, 32).items()}

    def run(inputs, items):
        result = model(**inputs, num_items_in_batch=items).loss
        result.backward()
        return result.detach()

    losses = set()
    for _ in range(WARM_UP + 8):
        losses.add(step(run, batch, torch.tensor(10, device=GPU)).item())
        model.zero_grad()
    assert len(losses) == WARM_UP + 8


TWO_RANKS = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
import train
from transformers import Trainer
from gpt2_korean.checkpoints import atomic_files
from gpt2_korean.speed import graphs as recorded_step
from gpt2_korean.speed import choose
from gpt2_korean.messages import run_script

if sys.argv.pop(1) == "recorded":  # as on GPUs that have graphs, but for the replay
    choose.has_graphs, recorded_step.WARM_UP = lambda device: True, 10**9
    sys.argv.append("--device_graphs")
save, sync = Trainer._save, atomic_files.sync


def save_slowly(self, output_dir=None, state_dict=None):
    if not self.args.should_save:
        return save(self, output_dir, state_dict)
    passing = [Path(output_dir) / f"passing-{{number}}" for number in range(20)]
    Path(output_dir).mkdir(exist_ok=True)
    for path in passing:
        path.touch()
    time.sleep(0.4)
    save(self, output_dir, state_dict)
    for path in passing:
        path.unlink()


def sync_slowly(folder):
    time.sleep(0.2)
    atomic_files._sync_path, at_once = lambda path: (time.sleep(0.02), at_once(path)), atomic_files._sync_path
    sync(folder)
    atomic_files._sync_path = at_once


# The first rank still writes, and files come and go, when the second has nothing left to save.
Trainer._save, atomic_files.sync = save_slowly, sync_slowly
sys.exit(run_script(train.main))
"""


def test_two_ranks_learn_and_measure_what_one_process_does(
    train_words, tiny_model_folder, tmp_path, run_main, run_script
):
    """With DistributedDataParallel, with the averaging that takes its place where steps are recorded, and with FSDP."""
    model = tmp_path / "model"
    tiny_gpt2(640, initializer_range=0.02, **NO_DROPOUT).save_pretrained(shutil.copytree(tiny_model_folder, model))
    (tmp_path / "ranks.py").write_text(TWO_RANKS)
    words = [*train_words, "--do_train", "--do_eval", "--validation_split_percentage=30", "--max_steps=6"]
    words += [
        "--gradient_accumulation_steps=2",
        "--report_to=none",
        "--overwrite_output_dir",
        "--learning_rate=0.1",
        "--optim=sgd",
        "--block_size=8",
        "--train_sampling_strategy=sequential",
        f"--model_type={model}",
    ]
    code, alone, err = run_main("train.py", *words, "--per_device_train_batch_size=4")
    assert code == 0, err
    expected = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    files = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for way, *more in (("wrapped",), ("recorded",), ("sharded", "--fsdp")):
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", tmp_path / "ranks.py", way]
        finished = run_script(*start, *words, "--per_device_train_batch_size=2", *more)
        assert finished.returncode == 0, finished.stderr
        together, by_itself = (json.loads(out.splitlines()[-1]) for out in (finished.stdout, alone))
        assert together == pytest.approx(by_itself, rel=1e-4)
        found = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
        for name, weight in expected.items():
            torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=1e-5, msg=f"{way}: {name}")
        there = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()}
        assert {path for path in files if "rng_state" not in path.name} <= there


def test_where_the_fused_layer_cannot_be_compiled_training_goes_the_plain_way_and_says_so(monkeypatch, capsys):
    tried = []

    def fails(config, *_):
        tried.append(config)
        raise RuntimeError("no compiler")

    monkeypatch.setitem(sys.modules, "gpt2_korean.speed.layer", SimpleNamespace(try_out=fails))
    monkeypatch.setattr(gpt2_korean.speed, "layer", SimpleNamespace(try_out=fails), raising=False)
    arguments = SimpleNamespace(device=torch.device("cuda"), bf16=True, fp16=False, fsdp=None, deepspeed=None, n_gpu=1)
    assert choose.load_fused_layer(tiny_gpt2(301), arguments) is None and len(tried) == 1
    assert "Triton" in capsys.readouterr().err
    # What it does not compute is not asked of it, nor is anything of a machine without a GPU.
    assert choose.load_fused_layer(tiny_gpt2(301, activation_function="relu"), arguments) is None
    assert choose.load_fused_layer(tiny_gpt2(301, scale_attn_by_inverse_layer_idx=True), arguments) is None
    arguments.device = torch.device("cpu")
    assert choose.load_fused_layer(tiny_gpt2(301), arguments) is None
    assert len(tried) == 1 and capsys.readouterr().err == ""
