"""Whatever stands in the files of a model's folder: it loads and writes, or a line or two say why not."""

import json
import shutil
import unicodedata

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import generate
from gpt2_korean.model import find
from gpt2_korean.model.files import weight_files

MORE_BYTES = 1500 * 2**20  # what a process may take besides the libraries; a tiny model takes a few of them
DEEP = "[" * 100_000 + "]" * 100_000
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([10**9, -(10**9), 10**30, 2**31, 2**63, float("nan"), float("inf"), 1e-300, 1e300, 0.5]),
    st.text(max_size=3),
    st.sampled_from([[], {}, [[]], {"": None}, "gpt2", "flash_attention_2", "eager", "float16", "../x", "\0"]),
)


@st.composite
def spoilt(draw, text):
    """The text of a JSON file with some of its values changed, added or gone, or with its end gone."""
    content = json.loads(text)
    for _ in range(draw(st.integers(1, 2))):
        place = content
        while isinstance(place, dict | list) and place and draw(st.integers(0, 3)):
            keys = sorted(place) if isinstance(place, dict) else range(min(len(place), 8))
            key = draw(st.sampled_from(list(keys)))
            if not isinstance(place[key], dict | list) or not place[key]:
                break
            place = place[key]
        if not place:
            continue
        keys = sorted(place) if isinstance(place, dict) else range(min(len(place), 8))
        key, kind = (
            draw(st.sampled_from(list(keys))),
            draw(st.sampled_from(["value", "value", "value", "gone", "more"])),
        )
        if kind == "gone":
            del place[key]
        elif kind == "more" and isinstance(place, dict):
            place[draw(st.sampled_from(MORE_KEYS))] = draw(ODD)
        else:
            place[key] = draw(ODD)
    whole = draw(st.sampled_from(["content"] * 12 + ["cut", "odd", "deep"]))
    text = json.dumps(draw(ODD) if whole == "odd" else content)
    return DEEP if whole == "deep" else text[: draw(st.integers(0, len(text)))] if whole == "cut" else text


MORE_KEYS = [
    "quantization_config", "attn_implementation", "num_hidden_layers", "hidden_size", "output_attentions", "auto_map",
    "add_cross_attention", "dtype", "architectures", "id2label", "chat_template", "pad_token", "unk_token",
]  # fmt: skip
FILES = ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"]


def check(finished):
    """Written, or refused in a few lines."""
    assert finished.returncode in (0, 1), finished.stderr[-3000:]
    for unforeseen in ("Traceback", "예상하지 못한 오류"):
        assert unforeseen not in finished.stderr, finished.stderr[-3000:]
    if finished.returncode:
        message = finished.stderr[finished.stderr.index("오류:") :].strip()
        assert len(message.splitlines()) <= 3, message
    return finished


@pytest.fixture
def written_by(fork_script):
    return lambda folder: fork_script(
        "generate.py", f"--model_name_or_path={folder}", "--device=cpu", "--length=2", "--prompt=한국", "--seed=1",
        more=MORE_BYTES,
    )  # fmt: skip


@pytest.fixture
def trained_by(fork_script, train_words):
    return lambda folder, *more: fork_script(
        "train.py", *train_words, f"--model_type={folder}", "--do_train", "--max_steps=1", "--report_to=none",
        "--overwrite_output_dir", *more, more=MORE_BYTES,
    )  # fmt: skip


@given(data=st.data())
def test_a_spoilt_file_is_read_or_named(data, tiny_model_folder, tmp_path, written_by, trained_by):
    folder = tmp_path / "model"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tiny_model_folder, folder)
    for name in data.draw(st.lists(st.sampled_from(FILES), min_size=1, max_size=2, unique=True)):
        (folder / name).write_text(data.draw(spoilt((folder / name).read_text("utf-8"))), "utf-8")
    check(written_by(folder))
    if data.draw(st.integers(0, 7)) == 0:  # which takes ten times as long
        check(trained_by(folder))


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def changed(**values):
    return lambda folder: (folder / "config.json").write_text(
        json.dumps({**json.loads((folder / "config.json").read_text()), **values})
    )


def pickled(folder, **values):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    changed(**values)(folder)


def beside_unfetched(folder, **values):
    (folder / "pytorch_model.bin").write_text(POINTER)
    changed(**values)(folder)


def diverged(folder):
    weights = load_file(folder / "model.safetensors")
    weights = {name: torch.full_like(weight, torch.nan) for name, weight in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def broken_index(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text("[]")


def of_tensorflow(folder):
    (folder / "model.safetensors").rename(folder / "tf_model.h5")


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (changed(n_layer=10**9), "n_layer=1000000000"),
        (changed(n_layer="2"), 'n_layer="2"'),
        (changed(n_head=-2), "n_head=-2"),
        (changed(learnt_answers=-3), "learnt_answers=-3"),
        (changed(n_head=3), "n_head=3"),
        (changed(n_embd=None), "n_embd=null"),
        (changed(layer_norm_epsilon=None), "layer_norm_epsilon=null"),
        (changed(n_positions=10**7), "wpe.weight"),
        (changed(model_type=["gpt2"]), "모델을 불러올 수 없습니다"),
        (changed(model_type="llama", num_hidden_layers=10**9), "num_hidden_layers=1000000000"),
        (changed(model_type="llama", hidden_size=2**13), "바이트뿐"),
        (changed(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), "bitsandbytes"),
        (lambda folder: pickled(folder, n_positions=10**7), "바이트뿐"),
        (lambda folder: pickled(folder, n_layer=10**9), "n_layer=1000000000"),
        (lambda folder: beside_unfetched(folder, n_layer=10**9), "n_layer=1000000000"),
        (lambda folder: (folder / "model.safetensors").write_text(POINTER), "git lfs pull"),
        (lambda folder: (folder / "tokenizer.json").write_text(POINTER), "git lfs pull"),
        (broken_index, "model.safetensors.index.json"),
        (of_tensorflow, "tf_model.h5"),
        (diverged, "NaN"),
        (lambda folder: (diverged(folder), pickled(folder)), "NaN"),
    ],
)
def test_the_true_reason_is_named(spoil, named, tiny_model_folder, tmp_path, written_by, trained_by):
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    spoil(folder)
    for finished in (written_by(folder), trained_by(folder), trained_by(folder, "--do_train=false", "--do_eval")):
        assert check(finished).returncode == 1 and finished.stdout == "", finished.stderr
        message = finished.stderr[finished.stderr.index("오류:") :]
        assert named in message and str(folder) in message, message


@pytest.mark.parametrize("name", ["pytorch_model.bin.index.json", "model.safetensors.index.json"])
def test_an_index_of_weights_that_are_not_read_is_no_fault(name, tiny_model_folder, tmp_path):
    """As where the older format of a model was not downloaded, or a model was saved where one in shards had been."""
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    (folder / name).write_text(json.dumps({"weight_map": {"wte.weight": "gone-00001-of-00002.safetensors"}}))
    assert find.find_model(folder) == folder and weight_files(folder, "") == [folder / "model.safetensors"]


@pytest.mark.parametrize(
    "words",
    [
        ("generate.py", "--model_name_or_path", "--prompt=한국", "--length=2", "--device=cpu"),
        ("generate.py", "--model_name_or_path", "--export=한국.gguf"),
        ("train.py", "--model_type", "--do_train", "--max_steps=1", "--report_to=none", "--device=cpu"),
    ],
)
def test_a_checkpoint_that_goes_while_it_is_read_is_told_as_such(
    words, tiny_model_folder, tmp_path, monkeypatch, run_main, train_words
):
    folder = shutil.copytree(tiny_model_folder, tmp_path / "checkpoint-5")
    script, flag, *more = words
    if "--export=한국.gguf" in more:
        pytest.importorskip("gguf", reason="requirements-export.txt is not installed")
    monkeypatch.chdir(tmp_path)

    def find_and_lose(name, flag=flag):
        shutil.rmtree(folder)
        return folder

    monkeypatch.setattr(find if script == "train.py" else generate, "find_model", find_and_lose)
    code, out, err = run_main(script, *(train_words if script == "train.py" else ()), f"{flag}={folder}", *more)
    assert (code, out) == (1, "") and f"{flag}={folder}: 읽는 동안 지워진 모델입니다" in err, err


@pytest.mark.parametrize("content", [POINTER, "잘린 파일"])
def test_an_older_format_that_was_not_fetched_whole_is_no_fault(content, tiny_model_folder, tmp_path):
    """As where git lfs pull --include='*.safetensors' fetched what is read."""
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    (folder / "pytorch_model.bin").write_text(content)
    assert find.find_model(folder) == folder


def test_a_bound_above_what_is_there_is_no_fault(tiny_model_folder, tmp_path, written_by):
    """As Qwen2's max_window_layers, 28 by itself whatever the layers."""
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    changed(max_window_layers=10**6)(folder)
    assert check(written_by(folder)).returncode == 0


def test_a_model_that_wants_flash_attention_is_computed_without(tiny_model_folder, tmp_path, written_by, trained_by):
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    weights = []
    for wanted in ("sdpa", "flash_attention_2"):
        changed(attn_implementation=wanted)(folder)
        finished = check(trained_by(folder))
        assert finished.returncode == 0 and check(written_by(folder)).returncode == 0
        assert ("flash_attn" in finished.stderr) == (wanted != "sdpa")
        weights.append(load_file(tmp_path / "out" / "model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("name", ["모델", "한국어/모델", "gpt2--x", "a..b", "-x", "x.git", "a:b", "x" * 97])
def test_a_name_that_the_hub_has_for_none_is_no_model(name, run_main):
    code, out, err = run_main("generate.py", f"--model_name_or_path={name}", "--device=cpu")
    assert (code, out) == (2, "") and name in err and "Traceback" not in err


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_folder_is_found_however_its_name_is_composed(forms, tiny_model_folder, tmp_path, run_main):
    there, asked = (unicodedata.normalize(form, "한국어 모델") for form in forms)
    shutil.copytree(tiny_model_folder, tmp_path / there)
    words = ["--device=cpu", "--length=2", "--prompt=한국", "--seed=1"]
    code, out, err = run_main("generate.py", f"--model_name_or_path={tmp_path / asked}", *words)
    assert code == 0 and out.startswith("한국"), err


def test_weights_of_another_head_are_refused(tiny_model_folder, tmp_path, written_by):
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    changed(tie_word_embeddings=False)(folder)
    weights = {**load_file(folder / "model.safetensors"), "lm_head.weight": torch.zeros(3, 3)}
    (folder / "model.safetensors").unlink()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "lm_head.weight" in check(written_by(folder)).stderr
