"""Muon: torch's own is the reference for a matrix, AdamW for all else; embeddings and heads are never its."""

import json

import pytest
import torch
from conftest import tiny_gpt2
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch.optim import AdamW, Muon
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from gpt2_korean.training import muon
from gpt2_korean.training.muon import COEFFICIENTS, MuonWithAdamW, layer_matrices, orthogonalize


def random_steps(generator, optimizers, copies, steps=4):
    """Step all `optimizers` on the same random gradients; copies: for each weight those that are given it."""
    for _ in range(steps):
        for weights, take in copies:
            gradient = torch.randn(weights[0].shape, generator=generator)
            for weight, part in zip(weights, take, strict=True):
                weight.grad = gradient[part].to(weight.device, copy=True)
        for optimizer in optimizers:
            optimizer.step()


@pytest.fixture
def generator(rng):
    return torch.Generator().manual_seed(rng.randrange(2**32))


def parameter(generator, *shape, device="cpu"):
    return torch.nn.Parameter(torch.randn(shape, generator=generator).to(device))


@pytest.mark.parametrize("together", [muon.TOGETHER, 240])
def test_a_matrix_is_stepped_as_by_torch_and_all_else_as_by_adamw(generator, monkeypatch, together):
    monkeypatch.setattr(muon, "TOGETHER", together)  # of three that are alike, none with another
    slow = (1.875, -1.25, 0.375)  # where both come to the same
    monkeypatch.setattr(muon, "COEFFICIENTS", [slow] * 15)
    monkeypatch.setattr(muon, "_precision", lambda device: torch.float32)
    everything = slice(None)
    start = [parameter(generator, *shape) for shape in ((12, 20), (12, 20), (12, 20), (40, 12), (7,), (30, 6))]
    ours, theirs = ([torch.nn.Parameter(weight.detach().clone()) for weight in start] for _ in range(2))
    learning = {"lr": 0.01, "weight_decay": 0.3}
    groups = [{"params": ours[4:]}, {"params": ours[:4], "matrices": 1}]
    optimizers = [
        MuonWithAdamW(groups, **learning),
        Muon(theirs[:4], adjust_lr_fn="match_rms_adamw", ns_coefficients=slow, ns_steps=15, **learning),
    ]
    optimizers.append(AdamW(theirs[4:], **learning))
    random_steps(generator, optimizers, [(pair, (everything, everything)) for pair in zip(ours, theirs, strict=True)])
    for one, other, before in zip(ours[:4], theirs[:4], start[:4], strict=True):
        moved = (other - before).norm()
        assert (one - other).norm() < 0.02 * moved  # theirs rounds to bfloat16, ours too where that is fast
    assert all(torch.equal(one, other) for one, other in zip(ours[4:], theirs[4:], strict=True))


def test_matrices_side_by_side_are_stepped_each_by_itself(generator):
    whole = parameter(generator, 8, 24)
    parts = [torch.nn.Parameter(part.detach().clone()) for part in whole.chunk(3, 1)]
    optimizers = [
        MuonWithAdamW([{"params": [whole], "matrices": 3}]),
        MuonWithAdamW([{"params": parts, "matrices": 1}]),
    ]
    takes = (slice(None), *((slice(None), slice(start, start + 8)) for start in (0, 8, 16)))
    random_steps(generator, optimizers, [([whole, *parts], takes)])
    torch.testing.assert_close(whole.detach(), torch.cat(parts, 1).detach(), rtol=1e-3, atol=1e-5)


def polynomials(values):
    """What all iterations make of singular values."""
    for a, b, c in COEFFICIENTS:
        values = a * values + b * values**3 + c * values**5
    return values


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-4), (torch.bfloat16, 0.25)])
def test_singular_values_come_near_to_one_and_their_spaces_stay(generator, rng, monkeypatch, dtype, near):
    monkeypatch.setattr(muon, "_precision", lambda device: dtype)
    for _ in range(8):
        rows, columns, power = rng.randint(1, 90), rng.randint(1, 90), rng.uniform(0, 1)
        left, _, right = torch.linalg.svd(torch.randn(2, rows, columns, generator=generator), full_matrices=False)
        before = torch.arange(1.0, left.shape[2] + 1) ** -power
        done = orthogonalize(10 ** rng.uniform(-9, 3) * (left * before) @ right).float()
        expected = polynomials(before / (before**4).sum() ** 0.25)
        assert (done - left * expected @ right).norm(dim=(1, 2)).max() < near * expected.norm()


def test_the_iterations_are_those_that_bring_values_from_a_hundredth_on_nearest_to_one():
    """Each polynomial errs by the same at four places in turn, so no other of its kind errs by less (Chebyshev)."""
    low, high = 0.01, 1.0
    for a, b, c in COEFFICIENTS:
        values = torch.linspace(low, high, 100_001, dtype=torch.float64)
        wrong = a * values + b * values**3 + c * values**5 - 1
        turns = [0, *((wrong.diff().sign().diff() != 0).nonzero().flatten() + 1).tolist(), len(wrong) - 1]
        most = wrong.abs().max().item()
        assert wrong[turns].tolist() == pytest.approx([-most, most, -most, most], abs=2e-3)
        low, high = 1 - most, 1 + most
    assert high < 1.28


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_what_has_no_gradient_stays(rows):
    assert torch.equal(orthogonalize(torch.zeros(2, rows, 8)).float(), torch.zeros(2, rows, 8))


@pytest.mark.parametrize("ties", [True, False])
def test_embeddings_and_head_are_never_of_muon_whatever_they_share(ties):
    model = tiny_gpt2(301, tie_word_embeddings=ties)
    found = layer_matrices(model)
    names = {id(weight): name for name, weight in model.named_parameters()}
    named = {count: [names[id(weight)] for weight in weights] for count, weights in found.items()}
    blocks = range(model.config.n_layer)
    assert named[3 * model.config.n_head] == [f"transformer.h.{block}.attn.c_attn.weight" for block in blocks]
    others = ("attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert named[1] == [f"transformer.h.{block}.{name}.weight" for block in blocks for name in others]


def test_of_an_adapter_its_factors_alone_are_of_muon():
    model = get_peft_model(
        tiny_gpt2(301, tie_word_embeddings=False),
        LoraConfig(r=2, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, modules_to_save=["wte", "lm_head"]),
    )
    found = {id(weight) for weights in layer_matrices(model).values() for weight in weights}
    names = {name for name, weight in model.named_parameters() if id(weight) in found}
    assert names == {name for name, _ in model.named_parameters() if "lora_" in name}


def test_where_pytorch_is_built_without_distributed_a_step_is_taken_alone(generator, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    monkeypatch.delattr(torch.distributed, "is_initialized")
    matrices = torch.randn(2, 3, 4, generator=generator)
    assert muon.share(torch.neg, matrices).equal(-matrices)


def test_other_models_have_their_layers_matrices_whole():
    config = GPTNeoXConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )  # fmt: skip
    model = GPTNeoXForCausalLM(config)
    found = layer_matrices(model)
    assert found[3] == [] and len(found[1]) == 8
    ends = {id(layer.weight) for layer in (model.get_input_embeddings(), model.get_output_embeddings())}
    assert not ends & {id(weight) for weight in found[1]}


WORDS = ["--do_train", "--optim=muon", "--learning_rate=1e-3", "--report_to=none"]


def test_a_run_with_muon_goes_on_to_the_last_bit_and_learns_otherwise_than_adamw(train_words, tmp_path, run_main):
    run, out = [*train_words, *WORDS, "--save_steps=2"], tmp_path / "out"
    code, _, err = run_main("train.py", *run, "--max_steps=4")
    assert code == 0, err
    whole = load_file(out / "checkpoint-4" / "model.safetensors")
    groups = torch.load(out / "checkpoint-2" / "optimizer.pt")["param_groups"]
    heads = json.loads((out / "checkpoint-2" / "config.json").read_text())["n_head"]
    assert sorted({group["matrices"] for group in groups}) == [0, 1, 3 * heads]
    assert json.loads((out / "checkpoint-2" / "resume.json").read_text())["learning"]["optim"] == "muon"
    for path in (out / "checkpoint-4").iterdir():
        path.unlink()
    code, _, err = run_main("train.py", *run, "--max_steps=4", "--resume_from_checkpoint=auto")
    assert code == 0 and "checkpoint-2" in err, err
    resumed = load_file(out / "checkpoint-4" / "model.safetensors")
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())
    others = [word for word in run if word != "--optim=muon"]
    code, _, err = run_main("train.py", *others, "--max_steps=6", "--resume_from_checkpoint=auto")
    assert code == 1 and "--optim" in err and "muon" in err
    assert run_main("train.py", *others, "--max_steps=4", "--overwrite_output_dir")[0] == 0
    assert not all(torch.equal(load_file(out / "model.safetensors")[name], weight) for name, weight in whole.items())


# Without a GPU Triton's interpreter runs the kernels.
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def kernels():
    pytest.importorskip("triton")
    from gpt2_korean.speed import momentum

    return momentum.FUNCTIONS


def test_the_kernels_pass_over_memory_as_pytorch_does(generator, rng, kernels):
    for count in (1, 3, 6):
        for dtype in (torch.float32, torch.bfloat16):
            rows, width = rng.randint(1, 40), count * rng.randint(1, 600)
            weights, gradients, momenta = torch.randn(3, 4, rows, width, generator=generator).to(DEVICE)
            steps = torch.randn(4, count, rows, width // count, generator=generator).to(DEVICE, dtype)
            found = []
            for look_ahead, take_step, kept in (kernels, muon.PLAIN):
                moved, ahead, stepped = momenta.to(kept, copy=True), torch.empty_like(steps), weights.clone()
                look_ahead([*gradients], [*moved], ahead, 0.05, 0.0526)
                take_step([*stepped], steps, 0.97)
                found.append((moved.float(), ahead.float(), stepped))
            torch.testing.assert_close(found[0][:2], found[1][:2], rtol=1e-2, atol=1e-2)
            torch.testing.assert_close(found[0][2], found[1][2])


def test_with_kernels_too_a_saved_state_goes_on_to_the_bit(generator, monkeypatch, kernels):
    monkeypatch.setattr(muon, "_passes", lambda device: kernels)
    start = [parameter(generator, 12, 24, device=DEVICE) for _ in range(3)]
    learning = {"lr": 0.01, "weight_decay": 0.3}
    through = MuonWithAdamW([{"params": start, "matrices": 3}], **learning)
    everything = [slice(None)] * 2
    random_steps(generator, [through], [([weight], everything[:1]) for weight in start], steps=2)
    again = [torch.nn.Parameter(weight.detach().clone()) for weight in start]
    resumed = MuonWithAdamW([{"params": again, "matrices": 3}], **learning)
    resumed.load_state_dict(through.state_dict())
    random_steps(generator, [through, resumed], [(pair, everything) for pair in zip(start, again, strict=True)])
    assert all(torch.equal(one, other) for one, other in zip(start, again, strict=True))
    assert through.state[start[0]]["momentum_buffer"].dtype == torch.bfloat16
