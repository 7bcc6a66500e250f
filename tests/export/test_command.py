"""generate.py --export as a user meets it: what is refused and why, the messages, and nothing half-written."""

import copy
import json
import os
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
from conftest import save_tiny_gpt2, tiny_gpt2

from gpt2_korean.checkpoints import atomic_files
from gpt2_korean.cli.generate_options import parse_generate_options
from gpt2_korean.export import command
from gpt2_korean.export.modelfile import template
from gpt2_korean.export.turns import find_turns
from gpt2_korean.messages import UsageError, UserError
from gpt2_korean.text.chat_template import render


def test_flags_without_use_beside_export_are_refused():
    of_use = (
        "--temperature=0.5", "--stop=a", "--seed=1", "--raw", "--length=5", "--top_k=5", "--top_p=0.5", "--min_p=0.1",
        "--repetition_penalty=1.1", "--repetition_window=9", "--frequency_penalty=1", "--presence_penalty=1",
        "--prompt_template={prompt}",
    )  # fmt: skip
    parse_generate_options(["--model_name_or_path=m", "--export=m.gguf", *of_use])
    useless = (
        "--prompt=가", "--prompt_file=a.txt", "--interactive", "--serve", "--stream", "--batch_size=2", "--device=cpu",
        "--dtype=float16", "--quantize=int8", "--output_file=a.jsonl", "--min_length=3", "--no_repeat_ngram_size=2",
        "--allow_invalid_utf8", "--penalize_prompt=false", "--num_return_sequences=2", "--port=1",
        "--trust_remote_code",
    )  # fmt: skip
    for word in useless:
        name = word.partition("=")[0]
        with pytest.raises(UsageError, match=f"--export와 {name}"):
            parse_generate_options(["--model_name_or_path=m", "--export=m.gguf", word])
    with pytest.raises(UsageError, match="--export="):
        parse_generate_options(["--model_name_or_path=m", "--export_type=f32"])


def test_a_path_that_no_new_file_can_have_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path, named in (("model.bin", ".gguf"), ("no/model.gguf", "no 폴더가 없습니다")):
        with pytest.raises(UsageError, match=named):
            command.check_target(tmp_path.__class__(path))
    for there in ("model.gguf", "model.Modelfile"):
        (tmp_path / there).write_text("mine")
        with pytest.raises(UsageError, match="덮어쓰지"):
            command.check_target(tmp_path / "model.gguf")
        (tmp_path / there).unlink()
    # As of a disk mounted read-only: root may write all others.
    monkeypatch.setattr("os.access", lambda _, mode: not mode & os.W_OK)
    with pytest.raises(UsageError, match=r"--export=.*쓸 수 없습니다"):
        command.check_target(tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "llama"}, "llama"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"quantization_config": {"quant_method": "gptq"}}, "양자화"),
        ({"activation_function": "relu"}, "relu"),
        ({"activation_function": "gelu"}, "gelu_new"),
        ({"scale_attn_weights": False}, "scale_attn_weights=false"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=true"),
    ],
)
def test_what_llama_cpp_does_not_compute_is_refused_with_the_reason(changes, named):
    config = {"model_type": "gpt2", "activation_function": "gelu_new", "n_inner": 100, "reorder_and_upcast_attn": True}
    command.check_config(config)
    with pytest.raises(UserError, match="내보낼 수 없는") as refused:
        command.check_config(config | changes)
    assert named in str(refused.value)


def test_a_refusal_needs_no_torch(run_script, tmp_path, tiny_model_folder):
    (tmp_path / "model").mkdir()
    for file in tiny_model_folder.iterdir():
        shutil.copy(file, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"activation_function": "relu"}))
    code = (
        "import sys, generate; from gpt2_korean.ending import run_script\n"
        "code = run_script(generate.main)\n"
        "sys.exit(9 if 'torch' in sys.modules else code)"
    )
    words = [f"--model_name_or_path={tmp_path / 'model'}", f"--export={tmp_path / 'm.gguf'}"]
    finished = run_script("-c", code, *words)
    assert finished.returncode == 1 and "activation_function" in finished.stderr and finished.stdout == ""
    finished = run_script("-c", code, *words, "--prompt=가")
    assert finished.returncode == 2 and "--prompt" in finished.stderr


def changed(tokenizer, folder, change):
    """A folder with a tokenizer whose tokenizer.json is what `change` makes of it, and a tiny model."""
    save_tiny_gpt2(folder, tokenizer)
    path = folder / "tokenizer.json"
    parts = json.loads(path.read_text("utf-8"))
    change(parts)
    path.write_text(json.dumps(parts), "utf-8")
    return folder


def add_line(parts, **how):
    parts["added_tokens"].append({**parts["added_tokens"][0], "id": 640, "content": "[줄]", **how})


DIGITS = {"type": "Digits", "individual_digits": True}
TEXT = {"Sequence": {"id": "A", "type_id": 0}}
ENDS = [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}] * 2


def put_around(single):
    """A post-processor that makes a text what `single` says."""
    end = {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}
    return {"type": "TemplateProcessing", "single": single, "pair": [TEXT], "special_tokens": {end["id"]: end}}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda parts: parts.update(normalizer={"type": "NFKC"}), "NFKC"),
        (lambda parts: parts["pre_tokenizer"].update(add_prefix_space=True), "add_prefix_space"),
        (lambda parts: parts["pre_tokenizer"].update(use_regex=False), "ByteLevel"),
        (
            lambda parts: parts.update(
                pre_tokenizer={"type": "Sequence", "pretokenizers": [DIGITS, parts["pre_tokenizer"]]}
            ),
            "Sequence",
        ),
        (lambda parts: parts["model"].update(ignore_merges=True), "ignore_merges"),
        (lambda parts: parts["model"].update(dropout=0.1), "dropout"),
        (lambda parts: parts.update(decoder={"type": "Fuse"}), "바이트"),
        (lambda parts: add_line(parts, special=False, lstrip=True), "빈칸"),
        (lambda parts: add_line(parts, special=False, rstrip=True), "빈칸"),
        (lambda parts: add_line(parts, special=False, single_word=True), "빈칸"),
        (lambda parts: parts.update(post_processor=put_around([*ENDS, TEXT])), "앞뒤"),
        (lambda parts: parts.update(post_processor=put_around([TEXT, *ENDS])), "앞뒤"),
    ],
)
def test_a_tokenizer_that_llama_cpp_would_not_be_true_to_is_refused(byte_tokenizer, tmp_path, change, named):
    from transformers import PreTrainedTokenizerFast

    from gpt2_korean.export.vocabulary import read_vocabulary

    # What is never read in a text may take its blanks along.
    folder = changed(byte_tokenizer, tmp_path / "model", lambda parts: add_line(parts, special=True, lstrip=True))
    read_vocabulary(PreTrainedTokenizerFast.from_pretrained(folder), 700, 0)
    folder = changed(byte_tokenizer, tmp_path / "other", change)
    with pytest.raises(UserError, match="내보낼 수 없는") as refused:
        read_vocabulary(PreTrainedTokenizerFast.from_pretrained(folder), 700, 0)
    assert named in str(refused.value)


def test_without_the_package_the_way_to_it_is_told(run_main, tmp_path, tiny_model_folder, monkeypatch):
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    code, _, err = run_main(
        "generate.py", f"--model_name_or_path={tiny_model_folder}", f"--export={tmp_path / 'm.gguf'}"
    )
    assert code == 1 and "pip install -r requirements-export.txt" in err and len(err.splitlines()) == 1


@pytest.fixture
def export(run_main, tmp_path):
    pytest.importorskip("gguf", reason="requirements-export.txt is not installed")
    (tmp_path / "나감").mkdir()

    def run(folder, *words):
        path = tmp_path / "나감" / "내 모델.gguf"
        finished = run_main("generate.py", f"--model_name_or_path={folder}", f"--export={path}", *words)
        return *finished, sorted(path.name for path in path.parent.iterdir())

    return run


def test_two_files_are_left_and_the_ways_to_open_them_told(export, tiny_model_folder, chat_model_folder, tmp_path):
    code, out, err, there = export(tiny_model_folder)
    assert code == 0 and there == ["내 모델.Modelfile", "내 모델.gguf"]
    assert out.splitlines() == [str(tmp_path / "나감" / name) for name in reversed(there)]
    assert "llama-completion -m '" in err and "ollama create gpt2-korean -f '" in err
    assert 'PARAMETER stop """<|endoftext|>"""\n' in (tmp_path / "나감" / there[0]).read_text("utf-8")
    code, out, err, _ = export(tiny_model_folder)
    assert code == 2 and "이미 있어" in err and out == ""
    for name in there:
        (tmp_path / "나감" / name).unlink()
    code, _, err, _ = export(chat_model_folder)
    assert code == 0 and "llama-cli -m" in err


def test_beside_the_file_stands_how_a_conversation_is_written_and_what_ends_it(
    export, chat_model_folder, chat_tokenizer, tmp_path
):
    code, _, err, _ = export(chat_model_folder, "--system=너는 상담원이야", "--stop=질문:", "--seed=7")
    written = (tmp_path / "나감" / "내 모델.Modelfile").read_text("utf-8")
    turns = find_turns(partial(render, chat_tokenizer, refusal=str, tokenize=False), "<|endoftext|>")
    assert code == 0 and f'TEMPLATE """{template(turns)}"""' in written and 'SYSTEM """너는 상담원이야"""' in written
    assert "PARAMETER num_ctx 96\n" in written and "PARAMETER seed 7\n" in written
    ends = ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "질문:"]
    assert re.findall('PARAMETER stop """(.*)"""', written) == ends and "옮기지 못했습니다" not in err
    assert ".gguf' -sys '너는 상담원이야'\n" in err


def test_what_a_conversation_begins_with_stays_where_the_tokenizer_does_not_put_it_there(
    export, byte_tokenizer, tmp_path
):
    tokenizer = copy.deepcopy(byte_tokenizer)
    tokenizer.chat_template = "{{ bos_token }}{% for message in messages %}{{ message.content }}\n{% endfor %}"
    code, _, err, _ = export(save_tiny_gpt2(tmp_path / "begins", tokenizer))
    assert code == 0, err
    assert 'TEMPLATE """{{ "<|endoftext|>" }}' in (tmp_path / "나감" / "내 모델.Modelfile").read_text("utf-8")


def test_a_conversation_that_cannot_be_written_for_ollama_is_told(export, chat_tokenizer, tmp_path):
    tokenizer = copy.deepcopy(chat_tokenizer)
    tokenizer.chat_template = "{% for message in messages %}{{ loop.index }}. {{ message.content }}\n{% endfor %}"
    code, _, err, _ = export(save_tiny_gpt2(tmp_path / "counted", tokenizer))
    written = (tmp_path / "나감" / "내 모델.Modelfile").read_text("utf-8")
    assert code == 0 and "Ollama의 말로 옮기지 못했습니다" in err and 'TEMPLATE """{{ .Prompt }}"""' in written


def test_the_ways_to_open_a_file_are_those_of_its_name_and_kind():
    told = command.describe_use(Path("out/ko 모델_1.gguf"), True, 7)
    for line in ("llama-cli -m 'out/ko 모델_1.gguf'", "create ko-_1 -f 'out/ko 모델_1.Modelfile'", "run ko-_1"):
        assert any(each.endswith(line) for each in told.splitlines()), told
    told = command.describe_use(Path("ko.gguf"), True, 7, "너는 상담원이야")
    assert told.splitlines()[0].endswith("llama-cli -m ko.gguf -sys '너는 상담원이야'"), told
    told = command.describe_use(Path("ko.gguf"), False, 7)
    for line in ("llama-completion -m ko.gguf -p '오늘은' -n 7", "create ko -f ko.Modelfile", "run ko '오늘은'"):
        assert any(each.endswith(line) for each in told.splitlines()), told


def test_where_it_fails_nothing_is_left(export, tiny_model_folder, tmp_path, byte_tokenizer):
    code, _, err, there = export(tiny_model_folder, "--system=너는 상담원이야")
    assert (code, there) == (2, []) and "--system" in err
    model = tiny_gpt2(len(byte_tokenizer))
    model.transformer.h[0].mlp.c_fc.weight.data[0, 0] = 1e6
    model.save_pretrained(tmp_path / "large")
    byte_tokenizer.save_pretrained(tmp_path / "large")
    code, _, err, there = export(tmp_path / "large", "--export_type=f16")
    assert (code, there) == (1, []) and "--export_type=f16" in err and len(err.splitlines()) == 2
    model.transformer.h[0].mlp.c_fc.weight.data[0, 0] = float("inf")
    model.save_pretrained(tmp_path / "large")
    code, _, err, there = export(tmp_path / "large", "--export_type=bf16")
    assert (code, there) == (1, []) and "무한대" in err and "--export_type" not in err
    model.transformer.h[0].mlp.c_fc.weight.data[0, 0] = 1e6
    model.save_pretrained(tmp_path / "large")
    code, _, _, there = export(tmp_path / "large", "--export_type=bf16")
    assert code == 0 and len(there) == 2


def test_a_full_disk_is_told_of_before_anything_is_written(export, tiny_model_folder, monkeypatch):
    monkeypatch.setattr(command.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": command.SPARE}))
    code, _, err, there = export(tiny_model_folder)
    assert (code, there) == (1, []) and "디스크" in err and "8MB만" in err


def test_an_export_into_the_folder_of_a_run_outlives_its_saves(export, tiny_model_folder, tmp_path, monkeypatch):
    from gpt2_korean.export import gguf_file

    read = gguf_file.read_tensors

    def save_meanwhile(model):
        atomic_files.clear_staging_area(tmp_path / "나감")
        return read(model)

    monkeypatch.setattr(gguf_file, "read_tensors", save_meanwhile)
    code, _, err, there = export(tiny_model_folder)
    assert (code, there) == (0, ["내 모델.Modelfile", "내 모델.gguf"]), err


def test_a_disk_that_fills_up_meanwhile_is_told_of_and_nothing_is_left(export, tiny_model_folder):
    resource = pytest.importorskip("resource", reason="Windows has no limit to the size of a file")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        code, _, err, there = export(tiny_model_folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (code, there) == (1, []) and "ulimit -f" in err


def test_flags_that_a_chat_model_has_no_use_for_are_refused(export, chat_model_folder):
    code, _, err, there = export(chat_model_folder, "--prompt_template=질문: {prompt}")
    assert (code, there) == (2, []) and "--prompt_template" in err
    code, _, err, there = export(chat_model_folder, "--prompt_template=질문: {prompt}", "--raw")
    assert code == 0 and len(there) == 2
