"""Muon: torch's own is the reference for a matrix, AdamW for all else; embeddings and heads are never its."""

import json

import pytest
import torch
from conftest import tiny_gpt2
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch.optim import AdamW, Muon
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from gpt2_korean.training.muon import STEPS, MuonWithAdamW, layer_matrices, orthogonalize


def random_steps(generator, optimizers, copies, steps=4):
    """Step all `optimizers` on the same random gradients; copies: for each weight those that are given it."""
    for _ in range(steps):
        for weights, take in copies:
            gradient = torch.randn(weights[0].shape, generator=generator)
            for weight, part in zip(weights, take, strict=True):
                weight.grad = gradient[part].clone()
        for optimizer in optimizers:
            optimizer.step()


@pytest.fixture
def generator(rng):
    return torch.Generator().manual_seed(rng.randrange(2**32))


def parameter(generator, *shape):
    return torch.nn.Parameter(torch.randn(shape, generator=generator))


def test_a_matrix_is_stepped_as_by_torch_and_all_else_as_by_adamw(generator):
    everything = slice(None)
    start = [parameter(generator, *shape) for shape in ((12, 20), (12, 20), (40, 12), (7,), (30, 6))]
    ours, theirs = ([torch.nn.Parameter(weight.detach().clone()) for weight in start] for _ in range(2))
    learning = {"lr": 0.01, "weight_decay": 0.3}
    groups = [{"params": ours[3:]}, {"params": ours[:3], "matrices": 1}]
    optimizers = [
        MuonWithAdamW(groups, **learning),
        Muon(theirs[:3], adjust_lr_fn="match_rms_adamw", ns_steps=STEPS, **learning),
    ]
    optimizers.append(AdamW(theirs[3:], **learning))
    random_steps(generator, optimizers, [(pair, (everything, everything)) for pair in zip(ours, theirs, strict=True)])
    for one, other, before in zip(ours[:3], theirs[:3], start[:3], strict=True):
        moved = (other - before).norm()
        assert (one - other).norm() < 0.02 * moved  # theirs rounds to bfloat16, ours too where that is fast
    assert all(torch.equal(one, other) for one, other in zip(ours[3:], theirs[3:], strict=True))


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


@pytest.mark.parametrize("shape", [(16, 16), (9, 31), (31, 9)])
def test_all_singular_values_but_the_least_come_near_to_one(generator, shape):
    matrices = torch.randn(3, *shape, generator=generator)
    left, before, right = torch.linalg.svd(matrices, full_matrices=False)
    done = orthogonalize(matrices).float()
    values = (left.mT @ done @ right.mT).diagonal(dim1=1, dim2=2)
    assert values[before > 0.01 * matrices.norm(dim=(1, 2))[:, None]].min() > 0.4 and values.max() < 1.4
    assert (torch.linalg.svdvals(done) - values.sort(1, descending=True).values).abs().max() < 0.1  # the same spaces


@pytest.mark.parametrize("ties", [True, False])
def test_embeddings_and_head_are_never_of_muon_whatever_they_share(ties):
    model = tiny_gpt2(301, tie_word_embeddings=ties)
    found = layer_matrices(model)
    names = {id(weight): name for name, weight in model.named_parameters()}
    named = {count: [names[id(weight)] for weight in weights] for count, weights in found.items()}
    blocks = range(model.config.n_layer)
    assert named[3] == [f"transformer.h.{block}.attn.c_attn.weight" for block in blocks]
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
    assert sorted({group["matrices"] for group in groups}) == [0, 1, 3]
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
