"""A GPT-2's folder is read without transformers, and as transformers would read it."""

import json
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import read_to_write, save_tiny_gpt2, tiny_gpt2
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

import gpt2_korean.speed
from gpt2_korean.generation import choose_decoder
from gpt2_korean.generation.choose_decoder import gpt2_decoder
from gpt2_korean.generation.decoder import GPT2Decoder
from gpt2_korean.generation.library_decoder import LibraryDecoder
from gpt2_korean.generation.write import encode
from gpt2_korean.messages import UsageError, UserError
from gpt2_korean.model.gpt2 import is_supported
from gpt2_korean.model.load import load_pretrained
from gpt2_korean.speed import linear

CPU = torch.device("cpu")


def logits_of(folder, engine="auto"):
    model = read_to_write(folder, engine=engine)
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        return model.decoder.start(ids, torch.ones_like(ids), 0)


def test_generation_of_a_gpt2_folder_imports_no_transformers(tiny_model_folder, run_script):
    flags = [f"--model_name_or_path={tiny_model_folder}", "--device=cpu", "--length=5"]
    code = f"import sys, generate; generate.main({flags}); print({{'transformers', 'tokenizers'}} & {{*sys.modules}})"
    result = run_script("-c", code)
    assert result.stdout.endswith("{'tokenizers'}\n"), result.stderr


def test_weights_are_read_as_transformers_reads_them(tmp_path, byte_tokenizer):
    shapes = [{}, {"n_inner": 50}, {"tie_word_embeddings": False}, {"activation_function": "relu"}]
    shapes += [{"activation_function": "gelu", "layer_norm_epsilon": 0.1}]
    for number, changes in enumerate(shapes):
        model, folder = tiny_gpt2(len(byte_tokenizer), **changes), tmp_path / str(number)
        model.save_pretrained(folder, max_shard_size="20KB" if number else "5GB")
        byte_tokenizer.save_pretrained(folder)
        with torch.inference_mode():
            expected = model(torch.tensor([[5, 6, 7]])).logits[:, -1]
        assert not isinstance(read_to_write(folder).decoder, LibraryDecoder)
        for engine in ("auto", "torch"):
            torch.testing.assert_close(logits_of(folder, engine), expected, rtol=1e-4, atol=1e-4)


def test_a_head_of_its_own_is_used_and_kept_whatever_the_config_says(tmp_path, byte_tokenizer):
    folder = save_tiny_gpt2(tmp_path / "model", byte_tokenizer, tie_word_embeddings=False)
    expected = logits_of(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}), "utf-8")
    assert logits_of(folder).equal(expected)
    model, _ = load_pretrained(folder, torch.float32)
    model.resize_token_embeddings(len(byte_tokenizer) + 3, mean_resizing=False)
    model.save_pretrained(tmp_path / "trained")
    byte_tokenizer.save_pretrained(tmp_path / "trained")
    assert json.loads((tmp_path / "trained" / "config.json").read_text("utf-8"))["tie_word_embeddings"] is False
    torch.testing.assert_close(logits_of(tmp_path / "trained")[:, : len(byte_tokenizer)], expected)


def test_the_hubs_gpt2_names_its_weights_without_a_prefix_and_has_masks_of_other_types_beside_them(
    tiny_model_folder, tmp_path
):
    folder = shutil.copytree(tiny_model_folder, tmp_path / "gpt2")
    tensors = load_file(folder / "model.safetensors")
    tensors = {name.removeprefix("transformer."): each for name, each in tensors.items()}
    masks = {"h.0.attn.bias": torch.ones(1, 1, 32, 32).tril().to(torch.uint8)}
    save_file(tensors | masks, folder / "model.safetensors")
    assert logits_of(folder).equal(logits_of(tiny_model_folder))


def test_what_the_decoder_does_not_compute_goes_through_transformers(tmp_path, byte_tokenizer):
    for number, changes in enumerate([{"scale_attn_by_inverse_layer_idx": True}, {"activation_function": "silu"}]):
        model, folder = tiny_gpt2(len(byte_tokenizer), **changes), tmp_path / str(number)
        assert not is_supported(model.config.to_dict())
        model.save_pretrained(folder)
        byte_tokenizer.save_pretrained(folder)
        assert isinstance(read_to_write(folder).decoder, LibraryDecoder)
        with torch.inference_mode():
            expected = model(torch.tensor([[5, 6, 7]])).logits[:, -1]
        torch.testing.assert_close(logits_of(folder), expected)


def test_the_tokenizers_end_of_text_is_found(tiny_model_folder, tmp_path, byte_tokenizer):
    for number, token in enumerate(("<|endoftext|>", {"content": "<|endoftext|>"}, None, "없는 토큰")):
        folder = shutil.copytree(tiny_model_folder, tmp_path / str(number))
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": token}), "utf-8")
        assert read_to_write(folder).eos_token_id == byte_tokenizer.eos_token_id


def test_a_tokenizer_that_would_cut_or_fill_up_texts_reads_them_whole(chat_model_folder, tmp_path):
    folder = shutil.copytree(chat_model_folder, tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=64)
    tokenizer.save(str(folder / "tokenizer.json"))
    asked, read = [{"role": "user", "content": "오늘은 날씨가 좋다"}], []
    for each in (chat_model_folder, folder):
        model = read_to_write(each, engine="torch")
        read.append((model.eos_token_id, model.chat and encode(model, asked), encode(model, "오늘은 날씨가 좋다")))
    assert read[0] == read[1] and None not in read[0]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_file_is_named(tiny_model_folder, tmp_path, name):
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    (folder / name).write_bytes((folder / name).read_bytes()[:50])
    for _ in range(2):
        with pytest.raises(UserError, match="온전하지 않습니다"):
            read_to_write(folder)
        (folder / "chat_template.jinja").write_text("{{ messages }}")  # of others: transformers reads the tokenizer


def test_a_model_whose_texts_nothing_ends_is_refused(tiny_model_folder, tmp_path):
    for number, (token, told) in enumerate([(None, r"글의 끝.*tokenizer_config\.json"), (5, "온전하지 않습니다")]):
        folder = shutil.copytree(tiny_model_folder, tmp_path / str(number))
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": token}), "utf-8")
        config = json.loads((folder / "config.json").read_text("utf-8"))
        (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": None}), "utf-8")
        with pytest.raises(UserError, match=told):
            read_to_write(folder)


@pytest.mark.parametrize(("name", "value"), [("quantize", "int4"), ("engine", "openvino")])
def test_what_openvino_computes_is_refused_on_another_device_than_the_cpu(tiny_model_folder, name, value):
    with pytest.raises(UsageError, match=f"--{name}={value}: CPU.*--device=cpu"):
        read_to_write(tiny_model_folder, device="cuda", **{name: value})


def test_weights_of_another_shape_are_refused(tiny_model_folder, tmp_path):
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    for name in ("n_layer", "vocab_size"):
        (folder / "config.json").write_text(json.dumps({**config, name: config[name] + 1}), "utf-8")
        with pytest.raises(UserError, match=r"config\.json과 맞지 않습니다"):
            read_to_write(folder)


@pytest.mark.parametrize("compiles", [True, False])
def test_where_kernels_cannot_be_compiled_the_weights_are_read_once_more_and_it_is_said(monkeypatch, capsys, compiles):
    def compile_kernels(config, device, dtype):
        assert config == model.config.to_dict()
        if not compiles:
            raise RuntimeError("no compiler")

    kernels = SimpleNamespace(fused=linear.plain, attend=None, compile_kernels=compile_kernels)
    monkeypatch.setitem(sys.modules, "gpt2_korean.speed.writing_kernels", kernels)
    monkeypatch.setattr(gpt2_korean.speed, "writing_kernels", kernels, raising=False)
    monkeypatch.setattr(choose_decoder, "has_graphs", lambda device: False)
    model = tiny_gpt2(301, n_inner=50)
    monkeypatch.setattr(GPT2Decoder, "__init__", on_the_cpu(GPT2Decoder.__init__))
    decoder = gpt2_decoder(model.config.to_dict(), model.state_dict(), torch.device("cuda"), torch.float32)
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        logits = decoder.start(ids, torch.ones_like(ids), 0)
        torch.testing.assert_close(logits, model(ids).logits[:, -1], rtol=1e-4, atol=1e-4)
    assert ("Triton" in capsys.readouterr().err) != compiles


def on_the_cpu(make):
    def init(self, config, tensors, device, *rest, **keywords):
        make(self, config, tensors, CPU, *rest, **keywords)

    return init
