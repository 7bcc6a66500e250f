"""What is saved says to other programs what they ask of it: whichever way it is saved, whatever it is made from."""

import json
import shutil

import pytest
import torch
from conftest import ROOT, tiny_gpt2
from huggingface_hub import ModelCard
from huggingface_hub.utils import validate_repo_id
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpt2_korean.cli.licenses import LICENSES
from gpt2_korean.model.elsewhere import tell_others

PIECES = [
    *"가나다라힣ㄱㅏ한글 \n\t  　",
    "😀",
    "👩‍👩‍👧",
    "é",
    "e\u0301",
    "\u1112\u1161",
    "\u200b",
    "\x00",
    "日本",
    "'s",
    "12",
    "  ",
]
PIECES += ["<|endoftext|>", "<|user|>", "def f(x):\n    return", "\r\n", "한국어", "the "]


def folders(saved):
    adapter = saved["adapter"]
    whole = [*(saved[name] for name in ("texts", "conversations")), saved["texts"] / "checkpoint-1", adapter]
    return whole, [adapter / "adapter", adapter / "checkpoint-1"]


def read(folder, name):
    return json.loads((folder / f"{name}.json").read_text("utf-8"))


def random_texts(rng, count=300):
    return ["".join(rng.choice(PIECES) for _ in range(rng.randint(0, 12))) for _ in range(count)]


def test_each_way_of_saving_names_a_tokenizer_that_all_know_and_keeps_the_cache(saved):
    whole, adapters = folders(saved)
    for folder in (*whole, *adapters):
        settings = read(folder, "tokenizer_config")
        assert settings["tokenizer_class"] == "GPT2Tokenizer"
        assert {settings[f"{end}_token"] for end in ("bos", "eos", "unk", "pad")} == {"<|endoftext|>"}
    for folder in whole:
        config = read(folder, "config")
        assert config["use_cache"] is True and config["n_ctx"] == config["n_positions"] == 96


def test_ids_and_texts_are_those_of_the_file_alone(saved, rng):
    whole, adapters = folders(saved)
    for folder in (*whole, *adapters):
        loaded, file = AutoTokenizer.from_pretrained(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
        assert type(loaded).__name__ == "GPT2Tokenizer" and len(loaded) == file.get_vocab_size()
        assert json.loads(loaded.backend_tokenizer.to_str()) == json.loads(file.to_str())
        for text in random_texts(rng):
            ids = file.encode(text).ids
            assert loaded(text)["input_ids"] == ids and ids[0] == loaded.bos_token_id
            assert loaded.decode(ids) == file.decode(ids, skip_special_tokens=False)


def with_normalizer(tokenizer):
    tokenizer.normalizer = normalizers.NFC()


def with_space_in_front(tokenizer):
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def with_digits_apart(tokenizer):
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])


def with_other_spaces(tokenizer):
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()


def with_unknown_words(tokenizer):
    tokenizer.model = models.BPE(vocab={"<|endoftext|>": 0, "a": 1, "b": 2}, merges=[], unk_token="<|endoftext|>")


@pytest.mark.parametrize(
    "change", [with_normalizer, with_space_in_front, with_digits_apart, with_other_spaces, with_unknown_words]
)
def test_a_tokenizer_that_is_not_gpt2s_is_not_called_one(change, byte_tokenizer, tmp_path, rng):
    byte_tokenizer.save_pretrained(tmp_path)
    tiny_gpt2(len(byte_tokenizer)).save_pretrained(tmp_path)
    file = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    change(file)
    file.save(str(tmp_path / "tokenizer.json"))
    tell_others(tmp_path, True)
    assert read(tmp_path, "tokenizer_config")["tokenizer_class"] == "PreTrainedTokenizerFast"
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in random_texts(rng, 50):
        assert loaded(text)["input_ids"] == file.encode(text).ids


@pytest.mark.parametrize(
    ("config", "before", "after"),
    [
        ({"model_type": "gpt2", "n_positions": 8, "use_cache": False}, False, True),  # left so by a Trainer before
        ({"model_type": "gpt2", "n_positions": 8, "n_ctx": 4, "use_cache": False}, True, True),
        ({"model_type": "other", "use_cache": False}, True, True),
        ({"model_type": "other", "use_cache": False}, False, False),
        ({"model_type": "other"}, True, None),
    ],
)
def test_the_cache_is_as_it_was_before_training_and_a_gpt2_has_one(config, before, after, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    tell_others(tmp_path, before)
    written = read(tmp_path, "config")
    assert written.get("use_cache") is after
    assert written.get("n_ctx") == (config.get("n_ctx", 8) if config["model_type"] == "gpt2" else None)


def test_a_checkpoint_of_an_older_version_goes_on_as_the_same_run(resumable_words, tmp_path, run_main):
    words = [word for word in resumable_words if not word.startswith("--output_dir")]
    assert run_main(*words, f"--output_dir={tmp_path / 'whole'}")[0] == 0
    older = tmp_path / "older" / "checkpoint-4"
    shutil.copytree(tmp_path / "whole" / "checkpoint-4", older)
    settings, config, file = (read(older, name) for name in ("tokenizer_config", "config", "tokenizer"))
    settings["tokenizer_class"] = "TokenizersBackend"
    del settings["unk_token"], config["n_ctx"]
    config["use_cache"] = False
    file["model"] |= {"continuing_subword_prefix": None, "end_of_word_suffix": None}
    for name, content in (("tokenizer_config", settings), ("config", config), ("tokenizer", file)):
        (older / f"{name}.json").write_text(json.dumps(content), "utf-8")
    code, _, err = run_main(*words, f"--output_dir={tmp_path / 'older'}")
    assert code == 0, err
    one, other = tmp_path / "whole", tmp_path / "older"
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert read(one, "config") == read(other, "config")
    assert read(other, "tokenizer_config")["tokenizer_class"] == "GPT2Tokenizer"


def test_the_lines_of_an_adapters_readme_load_what_was_merged(saved):
    folder = saved["adapter"]
    card = ModelCard.load(folder / "adapter" / "README.md")
    (code,) = card.text.split("```python\n")[1:]
    code = code.split("```")[0].replace('adapter = "adapter/adapter"', f"adapter = {str(folder / 'adapter')!r}")
    names = {}
    exec(code, names)
    ids = names["tokenizer"]("오늘은 영화가", return_tensors="pt")["input_ids"]
    merged = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(names["model"](ids).logits, merged(ids).logits, rtol=1e-4, atol=1e-4)
    assert "resize_token_embeddings" in code and "tokenizer=" in card.text and card.data.library_name == "peft"


def test_the_hubs_client_reads_the_cards_as_the_hub_wants_them(saved):
    for path in (saved["texts"], saved["conversations"], saved["adapter"], saved["adapter"] / "adapter"):
        data = ModelCard.load(path / "README.md").data
        assert data.to_dict().keys() <= {
            "language", "license", "base_model", "datasets", "library_name", "pipeline_tag", "tags"
        }  # fmt: skip
        assert data.language == "ko" and data.license in (*LICENSES, "unknown")
        assert data.pipeline_tag == "text-generation" and data.library_name in ("transformers", "peft")
        assert all(isinstance(tag, str) for tag in data.tags)
        if data.base_model is not None:
            validate_repo_id(data.base_model)


def test_the_page_on_other_programs_names_what_is_tested():
    page = (ROOT / "docs" / "elsewhere.md").read_text("utf-8")
    for name in ("ctranslate2", "optimum-cli", "openvino_genai", "trl", "lm_eval", "peft", "openai", "vllm"):
        assert name in page
