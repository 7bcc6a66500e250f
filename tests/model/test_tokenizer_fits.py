"""A tokenizer that is missing or does not fit its model is refused in a line, by both scripts and both loaders."""

import json
import shutil

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer


def nothing(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    return "tokenizer.json"


def settings_alone(folder):
    (folder / "tokenizer.json").unlink()
    return "tokenizer.json"


def merges_missing(folder):
    backend = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    nothing(folder)
    (folder / "vocab.json").write_text(json.dumps(backend["vocab"]), "utf-8")
    return "merges.txt"


def cut_off(folder):
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:500])
    return "온전하지 않습니다"


def an_end_of_text_alone(folder):
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    content["model"] |= {"vocab": {"<|endoftext|>": 0}, "merges": []}
    path.write_text(json.dumps(content), "utf-8")
    return "tokenizer.json"


def tokens_added(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<usr>", "<sys>"], "pad_token": "<pad>"})
    tokenizer.save_pretrained(folder)
    return "643"


def words_added(folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens(["한국어"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return "641"


def no_end(folder):
    for name, changed in (("config.json", {"eos_token_id": None}), ("tokenizer_config.json", {"eos_token": None})):
        content = json.loads((folder / name).read_text("utf-8"))
        (folder / name).write_text(json.dumps(content | changed), "utf-8")
    return "tokenizer_config.json"


def an_id_beyond(folder):
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    last = max(content["model"]["vocab"], key=content["model"]["vocab"].get)
    content["model"]["vocab"][last] = 5000
    path.write_text(json.dumps(content), "utf-8")
    return "5,001"


@pytest.mark.parametrize(
    "spoil",
    [
        nothing, settings_alone, merges_missing, cut_off, an_end_of_text_alone, tokens_added, words_added, an_id_beyond,
        no_end,
    ],
)  # fmt: skip
def test_a_tokenizer_that_is_missing_damaged_or_too_large_is_refused_by_name(
    spoil, tiny_model_folder, train_words, tmp_path, run_main
):
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    named = spoil(folder)
    reading = [f"--model_name_or_path={folder}", "--device=cpu", "--length=2", "--prompt=한국어"]
    train = ["train.py", *train_words, f"--model_type={folder}", "--max_steps=1", "--report_to=none"]
    for words in (
        ["generate.py", *reading],
        ["generate.py", *reading, "--allow_invalid_utf8"],
        [*train, "--do_train"],
        [*train, "--do_eval"],
        *([[*train, "--show_data=1"]] if (folder / "tokenizer.json").exists() else []),  # else it shows no tokens
    ):
        code, out, err = run_main(*words)
        message = err[err.index("오류:") :].strip()
        assert code == 1 and out == "" and "Traceback" not in err, err
        assert named in message and str(folder) in message and len(message.splitlines()) == 1, message
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_another_tokenizer_whose_ids_have_gaps_is_refused(tiny_model_folder, train_words, tmp_path, run_main):
    folder = shutil.copytree(tiny_model_folder, tmp_path / "other")
    an_id_beyond(folder)
    code, _, err = run_main("train.py", *train_words, "--do_train", "--max_steps=1", f"--tokenizer={folder}")
    assert code == 1 and f"--tokenizer={folder}" in err and "Traceback" not in err
