"""Marks of conversations get rows of their own in a model; what it knew stays bit for bit, and LoRA learns them too."""

import copy
from types import SimpleNamespace

import pytest
import torch
from conftest import save_tiny_gpt2, tiny_gpt2
from datasets import Dataset

from gpt2_korean.model import lora, prepare
from gpt2_korean.model.load import load_adapted
from gpt2_korean.model.prepare import prepare_model
from gpt2_korean.text.chat_template import MARKS, prepare_tokenizer
from gpt2_korean.text.vocabulary import train_tokenizer

CHATS = Dataset.from_list([{"turns": [{"role": "user", "content": "가"}]}])
START = SimpleNamespace(checkpoint=None)
WHOLE, LORA = SimpleNamespace(lora_rank=0), SimpleNamespace(lora_rank=4, lora_alpha=None)


@pytest.fixture
def tokenizer(sample_texts):
    return train_tokenizer(sample_texts[:40], 640, 32)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("spare", [0, 2, 64])
def test_marks_get_the_mean_of_the_rows_that_spell_them_and_all_others_stay(tokenizer, tied, spare):
    model = tiny_gpt2(640 + spare, tie_word_embeddings=tied)
    old = [layer.weight.detach().clone() for layer in (model.transformer.wte, model.lm_head)]
    spelt = [tokenizer(mark, add_special_tokens=False)["input_ids"] for mark in MARKS.values()]
    added = prepare_tokenizer(tokenizer, CHATS)
    model = prepare_model(model, tokenizer, tokenizer, added, None, None, START, WHOLE)
    assert added == [640, 641, 642] and model.config.vocab_size == max(643, 640 + spare)
    assert (model.lm_head.weight is model.transformer.wte.weight) == tied
    for before, layer in zip(old, (model.transformer.wte, model.lm_head), strict=True):
        assert layer.weight.shape[0] == model.config.vocab_size and torch.equal(layer.weight[:640], before[:640])
        assert torch.equal(layer.weight[643:], before[643:])
        for index, pieces in zip(added, spelt, strict=True):
            torch.testing.assert_close(layer.weight[index], before[pieces].mean(0))
    assert model(torch.tensor([[1, 640, 642]])).logits.shape[-1] == model.config.vocab_size


def test_a_model_ends_its_texts_as_its_new_vocabulary_does_and_by_nothing_else(tokenizer, monkeypatch):
    monkeypatch.setattr(prepare, "replace_vocabulary", lambda *given: None)
    old, model = copy.deepcopy(tokenizer), tiny_gpt2(640, bos_token_id=7, eos_token_id=7, pad_token_id=7)
    old.bos_token = old.eos_token = old.pad_token = old.convert_ids_to_tokens(7)
    model = prepare_model(model, old, tokenizer, [], None, None, START, WHOLE)
    for config in (model.config, model.generation_config):
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (0, 0, 0)


def test_an_adapter_is_saved_with_the_rows_of_its_marks_and_goes_on_with_them(tokenizer, tmp_path):
    base = save_tiny_gpt2(tmp_path / "base", tokenizer, initializer_range=0.02)
    model = tiny_gpt2(640, initializer_range=0.02)
    model.name_or_path = model.config.name_or_path = str(base)
    added = prepare_tokenizer(tokenizer, CHATS)
    model = prepare_model(model, tokenizer, tokenizer, added, None, None, START, LORA)
    assert model.get_input_embeddings().weight.requires_grad and lora.is_adapted(model)
    with torch.no_grad():
        model.get_input_embeddings().weight[added] += 1
    model.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    again, kept = load_adapted(tmp_path / "adapter", "--model_type")
    assert prepare_tokenizer(kept, CHATS) == [] and len(kept) == 643
    options = SimpleNamespace(lora_rank=4, lora_alpha=None)
    again = prepare_model(again, kept, kept, [], None, None, SimpleNamespace(checkpoint=tmp_path), options)
    assert torch.equal(again.get_input_embeddings().weight, model.get_input_embeddings().weight)
    ids = torch.tensor([[1, 640, 642, 3]])
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(ids).logits, model.eval()(ids).logits)
        torch.testing.assert_close(lora.merge(again)(ids).logits, model(ids).logits)


def test_without_new_tokens_an_adapter_learns_no_embeddings_and_how_much_it_learns_is_told(tokenizer, capsys):
    model = prepare_model(tiny_gpt2(640), tokenizer, tokenizer, [], None, None, START, LORA)
    assert not model.get_input_embeddings().weight.requires_grad
    own = sum(weight.numel() for name, weight in model.named_parameters() if "lora_" in name)
    whole = own + sum(weight.numel() for weight in tiny_gpt2(640).parameters())
    assert f"매개변수 {whole:,}개 가운데 {own:,}개" in capsys.readouterr().err
