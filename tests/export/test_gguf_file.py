"""What is exported reads back as the checkpoint has it: weights, words, merges, ends, chat template, sampling."""

import copy
import json

import numpy as np
import pytest
import torch
from conftest import save_tiny_gpt2, tiny_gpt2
from tokenizers.processors import TemplateProcessing

gguf = pytest.importorskip("gguf", reason="requirements-export.txt is not installed")

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5


@pytest.fixture
def exported(run_main, tmp_path):
    """Export a model's folder; returns what a GGUFReader reads of it."""

    def export(folder, *words):
        path = tmp_path / f"model{len(list(tmp_path.glob('*.gguf')))}.gguf"
        code, out, err = run_main("generate.py", f"--model_name_or_path={folder}", f"--export={path}", *words)
        assert code == 0, err
        assert out.splitlines() == [str(path), str(path.with_suffix(".Modelfile"))]
        return gguf.GGUFReader(path)

    return export


def field(reader, name):
    return reader.fields[name].contents() if name in reader.fields else None


def tensors(reader):
    """Name → array in float32, in the order of rows that NumPy has."""
    return {tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}


# Spelt out, and not made from the table that the export goes by.
NAMES = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}
IN_LAYER = {
    "ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip


def wanted(model):
    """GGUF's name → array of a GPT2LMHeadModel."""
    found = {}
    for name, weight in model.transformer.state_dict().items():
        part, kind = name.rsplit(".", 1)
        if part.startswith("h."):
            _, layer, part = part.split(".", 2)
            weight = weight.T if kind == "weight" and ".c_" in part else weight
            found[f"blk.{layer}.{IN_LAYER[part]}.{kind}"] = weight.numpy()
        else:
            found[f"{NAMES[part]}.{kind}"] = weight.numpy()
    if not model.config.tie_word_embeddings:
        found["output.weight"] = model.lm_head.weight.detach().numpy()
    return found


CHANGES = [
    {},
    {"tie_word_embeddings": False},
    {"n_inner": 96, "n_layer": 3},
    {"n_embd": 48, "layer_norm_epsilon": 1e-3},
]


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0"])
def test_every_tensor_is_the_checkpoints(exported, tmp_path, byte_tokenizer, changes, kind):
    folder, model = tmp_path / "model", tiny_gpt2(len(byte_tokenizer), **changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    byte_tokenizer.save_pretrained(folder)
    reader = exported(folder, f"--export_type={kind}")
    read, model = tensors(reader), wanted(model)
    assert read.keys() == model.keys()
    for name, array in model.items():
        own = next(tensor.tensor_type.name for tensor in reader.tensors if tensor.name == name)
        whole_blocks = array.shape[-1] % 32 == 0
        always = array.ndim < 2 or name == "position_embd.weight"
        assert own == ("F32" if always else "F16" if kind == "q8_0" and not whole_blocks else kind.upper())
        if own == "F32":
            assert np.array_equal(read[name], array), name
        elif own == "Q8_0":  # half a step of 127 of the largest of a block, which is a float16 itself
            largest = np.abs(array.reshape(*array.shape[:-1], -1, 32)).max(-1, keepdims=True)
            steps = np.broadcast_to(largest / 127 * (0.5 + 127 * 2**-11), (*largest.shape[:-1], 32))
            assert (np.abs(read[name] - array) <= 1.01 * steps.reshape(array.shape)).all(), name
        else:
            rounded = torch.from_numpy(array.copy()).to({"F16": torch.float16, "BF16": torch.bfloat16}[own]).float()
            assert np.array_equal(read[name], rounded.numpy()), name
    config = json.loads((folder / "config.json").read_text())
    assert field(reader, "general.architecture") == "gpt2"
    assert field(reader, "gpt2.context_length") == config["n_positions"]
    assert field(reader, "gpt2.embedding_length") == config["n_embd"]
    assert field(reader, "gpt2.block_count") == config["n_layer"]
    assert field(reader, "gpt2.attention.head_count") == config["n_head"]
    assert field(reader, "gpt2.feed_forward_length") == (config["n_inner"] or 4 * config["n_embd"])
    assert field(reader, "gpt2.attention.layer_norm_epsilon") == pytest.approx(config["layer_norm_epsilon"])


def test_words_merges_and_their_kinds_are_the_tokenizers(exported, tmp_path, byte_tokenizer):
    tokenizer = copy.deepcopy(byte_tokenizer)
    tokenizer.add_tokens(["[사람]", "[PAD645]"])  # the latter as a row without a token would be called
    tokenizer.add_tokens(["<|표시|>"], special_tokens=True)
    tiny_gpt2(len(tokenizer) + 6).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    reader = exported(tmp_path / "model")
    tokens, kinds = field(reader, "tokenizer.ggml.tokens"), field(reader, "tokenizer.ggml.token_type")
    assert len(tokens) == len(kinds) == len(set(tokens)) == len(tokenizer) + 6
    assert {token: index for index, token in enumerate(tokens) if kinds[index] != UNUSED} == tokenizer.get_vocab()
    unused = list(range(len(tokenizer), len(tokenizer) + 6))
    assert [index for index, kind in enumerate(kinds) if kind == UNUSED] == unused
    assert field(reader, "tokenizer.ggml.suppress_tokens") == unused
    special = {"<|endoftext|>": CONTROL, "<|표시|>": CONTROL, "[사람]": USER_DEFINED, "[PAD645]": USER_DEFINED}
    assert {token: kind for token, kind in zip(tokens, kinds, strict=True) if kind not in (NORMAL, UNUSED)} == special
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    assert field(reader, "tokenizer.ggml.merges") == [" ".join(pair) for pair in merges]
    assert field(reader, "tokenizer.ggml.model") == "gpt2" and field(reader, "tokenizer.ggml.pre") == "gpt-2"


def test_ends_are_put_around_a_text_as_the_tokenizer_does(
    exported, tiny_model_folder, chat_model_folder, byte_tokenizer, tmp_path
):
    for folder, begins in ((tiny_model_folder, False), (chat_model_folder, True)):
        reader = exported(folder)
        assert field(reader, "tokenizer.ggml.add_bos_token") is begins
        assert field(reader, "tokenizer.ggml.add_eos_token") is False
        assert field(reader, "tokenizer.ggml.bos_token_id") == field(reader, "tokenizer.ggml.eos_token_id") == 0
    tokenizer = copy.deepcopy(byte_tokenizer)
    tokenizer.add_tokens(["<s>"], special_tokens=True)
    ends = [(name, tokenizer.convert_tokens_to_ids(name)) for name in ("<s>", "<|endoftext|>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<s> $0 <|endoftext|>", special_tokens=ends)
    reader = exported(save_tiny_gpt2(tmp_path / "model", tokenizer))
    told = [field(reader, f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")]
    assert told == [number for _, number in ends]
    assert field(reader, "tokenizer.ggml.add_bos_token") is field(reader, "tokenizer.ggml.add_eos_token") is True


def test_a_chat_template_has_no_marks_that_transformers_alone_knows(exported, chat_model_folder, chat_tokenizer):
    import jinja2

    template = field(exported(chat_model_folder), "tokenizer.chat_template")
    assert "generation" not in template.replace("add_generation_prompt", "")
    turns = [{"role": role, "content": f" {role} 말 "} for role in ("system", "user", "assistant", "user")]
    rendered = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(template).render(
        messages=turns, bos_token="<|endoftext|>", eos_token="<|endoftext|>", add_generation_prompt=True
    )  # fmt: skip
    assert rendered == chat_tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert field(exported(chat_model_folder, "--raw"), "tokenizer.chat_template") is None


def test_an_answer_ends_where_the_chat_template_ends_it(exported, tmp_path, byte_tokenizer):
    tokenizer = copy.deepcopy(byte_tokenizer)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    reader = exported(save_tiny_gpt2(tmp_path / "model", tokenizer))
    assert field(reader, "tokenizer.ggml.eot_token_id") == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert field(reader, "tokenizer.ggml.eos_token_id") == 0


def test_an_adapter_is_exported_merged(exported, tmp_path, tiny_model_folder):
    from gpt2_korean.model import lora
    from gpt2_korean.model.load import load_pretrained

    model, _ = load_pretrained(tiny_model_folder, torch.float32)
    adapted = lora.adapt(model, 4, None, False)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    adapted.peft_config["default"].base_model_name_or_path = str(tiny_model_folder)
    adapted.save_pretrained(tmp_path / "adapter")
    read = tensors(exported(tmp_path / "adapter", "--export_type=f32"))
    merged, plain = wanted(adapted.merge_and_unload()), tensors(exported(tiny_model_folder, "--export_type=f32"))
    assert read.keys() == merged.keys()
    for name, array in merged.items():
        np.testing.assert_allclose(read[name], array, rtol=1e-5, atol=1e-6, err_msg=name)
    assert not np.allclose(read["blk.0.attn_qkv.weight"], plain["blk.0.attn_qkv.weight"])


def test_sampling_starts_as_the_page_does_or_as_the_flags_say(exported, tiny_model_folder):
    names = ("temp", "top_k", "top_p", "min_p", "penalty_repeat", "penalty_last_n")
    reader = exported(tiny_model_folder)
    assert [field(reader, f"general.sampling.{name}") for name in names] == pytest.approx([0.7, 50, 0.95, 0, 1.2, -1])
    words = [
        "--temperature=0.5",
        "--top_k=3",
        "--top_p=0.9",
        "--min_p=0.1",
        "--repetition_penalty=1.5",
        "--repetition_window=64",
    ]
    reader = exported(tiny_model_folder, *words)
    assert [field(reader, f"general.sampling.{name}") for name in names] == pytest.approx([0.5, 3, 0.9, 0.1, 1.5, 64])


def test_name_licence_and_language_are_told(exported, tmp_path, byte_tokenizer):
    folder = save_tiny_gpt2(tmp_path / "model", byte_tokenizer)
    (folder / "README.md").write_text("---\nlanguage: ko\nlicense: apache-2.0\n---\n", "utf-8")
    reader = exported(folder)
    assert field(reader, "general.license") == "apache-2.0" and field(reader, "general.languages") == ["ko"]
    assert field(reader, "general.name") == "model0"
    for told, licence, languages in (
        ("language: [ko, en]\nlicense: unknown", None, ["ko", "en"]),
        ("language: [ko, 1]\nlicense: [mit]", None, None),
        ("language: [: }", None, None),
    ):
        (folder / "README.md").write_text(f"---\n{told}\n---\n", "utf-8")
        reader = exported(folder)
        assert (field(reader, "general.license"), field(reader, "general.languages")) == (licence, languages), told


@pytest.mark.parametrize(("kind", "number"), [("f32", 0), ("f16", 1), ("q8_0", 7)])
def test_what_a_file_holds_is_told_by_llama_cpps_numbers_for_it(exported, tiny_model_folder, kind, number):
    reader = exported(tiny_model_folder, f"--export_type={kind}")
    assert field(reader, "general.file_type") == number and field(reader, "general.type") == "model"
    assert field(reader, "general.quantization_version") == 2 and field(reader, "general.size_label").endswith("K")
    words = json.loads((tiny_model_folder / "config.json").read_text("utf-8"))["vocab_size"]
    assert field(reader, "gpt2.vocab_size") == len(field(reader, "tokenizer.ggml.tokens")) == words
