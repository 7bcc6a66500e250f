"""Adapters of other makers write what peft itself writes with them, or are refused with the reason."""

import json
import shutil

import pytest
import torch
from conftest import tiny_gpt2
from peft import IA3Config, LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpt2_korean.messages import UserError
from gpt2_korean.model.load import load_pretrained

IDS = torch.arange(1, 25).reshape(2, 12)
LORA = {"task_type": "CAUSAL_LM", "r": 4, "fan_in_fan_out": True}


def save_adapter(folder, base, config, words=0):
    """An adapter with random weights on the model in `base`, to which `words` are added, without a tokenizer; returns
    what it computes."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(model.config.vocab_size + words)
    model = get_peft_model(model, config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.normal_(0, 0.3)
        model.save_pretrained(folder)
        return model(input_ids=IDS).logits


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(**LORA, bias="all"),
        LoraConfig(**LORA, bias="lora_only"),
        LoraConfig(**LORA, modules_to_save=["wte"]),
        LoraConfig(**LORA, modules_to_save=["lm_head", "ln_f"]),
        LoraConfig(**LORA, trainable_token_indices=[1, 2]),
        LoraConfig(**LORA, use_dora=True),
        IA3Config(
            task_type="CAUSAL_LM", target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"],
            fan_in_fan_out=True,
        ),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_a_merged_adapter_computes_what_peft_does(config, tiny_model_folder, tmp_path):
    wanted = save_adapter(tmp_path, tiny_model_folder, config)
    model, tokenizer = load_pretrained(tmp_path, torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(input_ids=IDS).logits, wanted, rtol=1e-4, atol=1e-5)
    assert tokenizer.get_vocab() == AutoTokenizer.from_pretrained(tiny_model_folder).get_vocab()  # its base's


@pytest.mark.parametrize("saved", [["wte"], ["lm_head"], ["wte", "lm_head"], None])
@pytest.mark.filterwarnings("ignore")
def test_an_adapter_of_a_vocabulary_that_grew_computes_what_peft_does(saved, tiny_model_folder, tmp_path):
    wanted = save_adapter(tmp_path, tiny_model_folder, LoraConfig(**LORA, modules_to_save=saved), words=2)
    model, _ = load_pretrained(tmp_path, torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(input_ids=IDS).logits, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_is_opened_from_anywhere_though_its_base_was_given_from_where_it_was_trained(
    tiny_model_folder, tmp_path, monkeypatch
):
    folder, other = tmp_path / "out" / "adapter", tmp_path / "other"
    shutil.copytree(tiny_model_folder, tmp_path / "models" / "base")
    other.mkdir()
    monkeypatch.chdir(tmp_path)
    wanted = save_adapter(folder, "models/base", LoraConfig(**LORA))
    monkeypatch.chdir(other)
    with torch.no_grad():
        torch.testing.assert_close(load_pretrained(folder, torch.float32)[0].eval()(input_ids=IDS).logits, wanted)
    shutil.rmtree(tmp_path / "models")
    with pytest.raises(UserError, match="의 바탕 모델=models/base"):
        load_pretrained(folder, torch.float32)


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_in_a_pickle_is_the_same(tiny_model_folder, tmp_path):
    wanted = save_adapter(tmp_path, tiny_model_folder, LoraConfig(**LORA))
    torch.save(load_file(tmp_path / "adapter_model.safetensors"), tmp_path / "adapter_model.bin")
    (tmp_path / "adapter_model.safetensors").unlink()
    with torch.no_grad():
        found = load_pretrained(tmp_path, torch.float32)[0].eval()(input_ids=IDS).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("config", "named"),
    [
        (PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4), "PROMPT_TUNING"),
        (LoraConfig(**LORA, target_modules=["c_attn", "wte"]), "함께 쓰는 임베딩"),
        (LoraConfig(**LORA, target_modules=["c_attn", "lm_head"]), "함께 쓰는 임베딩"),
        (LoraConfig(**LORA, target_modules=["wte", "lm_head"]), "함께 쓰는 임베딩"),
    ],
)
def test_what_cannot_be_merged_is_refused_by_name(config, named, tiny_model_folder, tmp_path):
    save_adapter(tmp_path, tiny_model_folder, config)
    with pytest.raises(UserError, match=named):
        load_pretrained(tmp_path, torch.float32)


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_of_a_run_that_diverged_is_refused(tiny_model_folder, tmp_path):
    save_adapter(tmp_path, tiny_model_folder, LoraConfig(**LORA))
    path = tmp_path / "adapter_model.safetensors"
    save_file({name: weight * torch.nan for name, weight in load_file(path).items()}, path)
    with pytest.raises(UserError, match=f"{tmp_path}.*NaN"):
        load_pretrained(tmp_path, torch.float32)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "changes",
    [
        {"r": 10**15}, {"r": 3}, {"r": "4"}, {"rank_pattern": {"c_attn": 10**15}}, {"peft_type": "NONE"},
        {"base_model_name_or_path": None}, {"base_model_name_or_path": 5}, {"base_model_name_or_path": "모델"},
        {"base_model_name_or_path": "itself"}, {"target_modules": 5}, {"lora_alpha": "x"}, None,
    ],
)  # fmt: skip
def test_a_spoilt_adapter_config_is_named(changes, tiny_model_folder, tmp_path):
    save_adapter(tmp_path, tiny_model_folder, LoraConfig(**LORA))
    path = tmp_path / "adapter_config.json"
    if changes and changes.get("base_model_name_or_path") == "itself":
        changes = {"base_model_name_or_path": str(tmp_path)}
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes} if changes else []))
    with pytest.raises(UserError) as refusal:
        load_pretrained(tmp_path, torch.float32)
    assert str(tmp_path) in str(refusal.value) and len(str(refusal.value).splitlines()) <= 2


def test_tiny_is_what_it_was(tiny_model_folder):
    """No adapter above has changed the base."""
    fresh = tiny_gpt2(640, initializer_range=0.02).state_dict()
    saved = load_file(tiny_model_folder / "model.safetensors")
    assert all(torch.equal(fresh[name], weight) for name, weight in saved.items())
