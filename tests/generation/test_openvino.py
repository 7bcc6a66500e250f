"""GPT-2 by OpenVINO, its weights whole and in 8 and 4 bits, against transformers; and what is kept of them."""

import importlib
import json
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, read_to_write, save_tiny_gpt2, tiny_gpt2
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, save_file

from gpt2_korean.cli.generate_options import parse_generate_options
from gpt2_korean.device import choose_dtype
from gpt2_korean.generation import choose_decoder
from gpt2_korean.generation.choose_decoder import gpt2_decoder
from gpt2_korean.generation.decoder import GPT2Decoder
from gpt2_korean.generation.kept import begin_reading
from gpt2_korean.generation.loop import pad_left
from gpt2_korean.generation.weights import quantize_weights
from gpt2_korean.messages import UsageError
from gpt2_korean.speed.quantized import GROUP

pytest.importorskip("openvino", reason="requirements-openvino.txt is not installed")
from gpt2_korean.generation.openvino_decoder import CHUNK
from gpt2_korean.speed import openvino_graph
from gpt2_korean.speed.openvino_graph import BLOCK

CPU, VOCABULARY = torch.device("cpu"), 300
SHAPES = ({}, {"n_inner": 50}, {"tie_word_embeddings": False}, {"activation_function": "relu"}, {"n_embd": 2 * GROUP})
SHAPES += ({"activation_function": "gelu", "layer_norm_epsilon": 0.1, "initializer_range": 0.2},)


def restored(tensors, config, quantize):
    """A state_dict with the weights that quantising leaves, the head apart from the embeddings."""
    left = {}
    for name, weight in quantize_weights(tensors, config, quantize).items():
        if isinstance(weight, tuple):
            codes, scales = weight
            if codes.ndim == 3:
                codes = torch.stack([codes << 4, codes], -1).view(torch.int8).flatten(2) >> 4
            weight = (codes * scales).flatten(1)
            weight = weight if name in ("wte.weight", "lm_head.weight") else weight.t()
        left[name if name == "lm_head.weight" else f"transformer.{name}"] = weight
    return {"lm_head.weight": left["transformer.wte.weight"], **left}


@pytest.mark.parametrize("quantize", [None, "int8", "int4"])
def test_logits_are_those_of_transformers_with_the_weights_that_are_left(quantize):
    for changes in SHAPES:
        model = tiny_gpt2(VOCABULARY, **{"initializer_range": 0.1, **changes})
        config, tensors = model.config.to_dict(), dict(model.state_dict())
        decoder = gpt2_decoder(config, tensors, CPU, torch.float32, openvino=True, quantize=quantize)
        if quantize:
            model = tiny_gpt2(VOCABULARY, **{**changes, "tie_word_embeddings": False})
            model.load_state_dict(restored(tensors, config, quantize))
        ids = torch.randint(1, VOCABULARY, (4, 20))
        with torch.inference_mode():
            expected = model(ids).logits.log_softmax(-1)
            first = decoder.start(ids[:, :12], torch.ones_like(ids[:, :12]), 8).log_softmax(-1)
            later = [decoder.step(ids[:, place], decoder.reach(place + 1)).log_softmax(-1) for place in range(12, 20)]
            read = decoder.read(ids[0].tolist(), 3).log_softmax(-1)
        # Inputs are cut to 8 bits too where the weights are.
        near = {"rtol": 0, "atol": 0.2 if quantize else 1e-4}
        torch.testing.assert_close(torch.stack([first, *later], 1), expected[:, 11:], **near)
        torch.testing.assert_close(read, expected[0, 3:], **near)


def test_rows_of_many_blocks_are_as_alone_when_they_share_prompts_and_when_others_end():
    model = tiny_gpt2(VOCABULARY, initializer_range=0.1, n_positions=8 * BLOCK)
    decoder = gpt2_decoder(model.config.to_dict(), dict(model.state_dict()), CPU, torch.float32, openvino=True)
    rng = random.Random(0)

    def expected(rows):
        return torch.stack([model(torch.tensor([row])).logits[0, -1] for row in rows])

    one = [rng.randrange(1, VOCABULARY) for _ in range(BLOCK)]
    with torch.inference_mode():  # a token after each, which needs no block of its own
        logits = decoder.start(*pad_left([one], CPU), 0, torch.zeros(2, dtype=torch.long))
        torch.testing.assert_close(logits, expected([one, one]), rtol=0, atol=1e-4)
    for _ in range(8):
        lengths = [BLOCK * rng.randint(0, 3) + rng.choice([1, BLOCK - 1, BLOCK]) for _ in range(rng.randint(1, 4))]
        prompts = [[rng.randrange(1, VOCABULARY) for _ in range(length)] for length in lengths]
        shares = [*range(len(prompts)), *rng.choices(range(len(prompts)), k=rng.randint(0, 4))]
        rng.shuffle(shares)
        rows, steps = [[*prompts[share]] for share in shares], BLOCK + 2
        with torch.inference_mode():
            logits = decoder.start(*pad_left(prompts, CPU), steps, torch.tensor(shares))
            torch.testing.assert_close(logits, expected(rows), rtol=0, atol=1e-4)
            for step in range(steps):
                if len(rows) > 1 and step % 12 == 5:
                    left = sorted(rng.sample(range(len(rows)), len(rows) - 1))
                    rows = [rows[place] for place in left]
                    assert decoder.keep(torch.tensor(left))
                new = [rng.randrange(1, VOCABULARY) for _ in rows]
                rows = [[*row, token] for row, token in zip(rows, new, strict=True)]
                logits = decoder.step(torch.tensor(new), None)
                torch.testing.assert_close(logits, expected(rows), rtol=0, atol=1e-4)


@pytest.mark.parametrize("quantize", [None, "int8", "int4"])
def test_what_a_prompt_shares_with_the_one_before_is_read_once_and_no_bit_changes(quantize, monkeypatch):
    model = tiny_gpt2(VOCABULARY, initializer_range=0.1, n_positions=16 * BLOCK, n_embd=GROUP)

    def make_decoder():
        weights = dict(model.state_dict())
        return gpt2_decoder(model.config.to_dict(), weights, CPU, torch.float32, quantize=quantize, openvino=True)

    decoder, anew, rng, prompt, sizes = make_decoder(), make_decoder(), random.Random(0), [], []
    forward = decoder._forward
    monkeypatch.setattr(decoder, "_forward", lambda ids, *others: sizes.append(len(ids)) or forward(ids, *others))
    for number in range(25):
        before = prompt
        length = 2 * CHUNK if number in (9, 10) else rng.randint(1, 15 * BLOCK)
        prompt = [rng.randrange(1, VOCABULARY) for _ in range(length)]
        common = length if number == 10 else rng.randint(0, min(len(before), length))
        prompt[:common] = before[:common]
        anew.read([1], 0)  # it forgets
        shares, sizes[:] = rng.choice([None, torch.zeros(3, dtype=torch.long)]), []
        with torch.inference_mode():
            logits, expected = (each.start(*pad_left([prompt], CPU), 4, shares) for each in (decoder, anew))
            known = min(common, len(prompt) - 1) // CHUNK * CHUNK
            assert sum(sizes) == len(prompt) - known
            assert logits.equal(expected)
            for token in range(4):
                tokens = torch.full((len(logits),), token)
                assert decoder.step(tokens, None).equal(anew.step(tokens, None))


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_what_a_token_takes_of_memory_and_how_long_a_text_may_be_is_told(quantize):
    model = tiny_gpt2(VOCABULARY, n_layer=3)
    decoder = gpt2_decoder(
        model.config.to_dict(), dict(model.state_dict()), CPU, torch.float32, quantize=quantize, openvino=True
    )
    ids = torch.ones(4, 20, dtype=torch.long)
    decoder.start(ids, torch.ones_like(ids), 8)
    taken = sum(contents.nbytes for contents in decoder.contents) / (len(decoder.contents[0]) * BLOCK)
    assert taken <= decoder.cache_bytes <= 2 * taken  # in 16 bits or in 32
    assert (decoder.context, decoder.vocab_size) == (32, VOCABULARY)


@pytest.mark.parametrize("size", [8, 9, 15, 64])
def test_bfloat16_is_as_near_as_that_of_pytorch_whatever_the_size_of_a_head(size):
    model = tiny_gpt2(VOCABULARY, initializer_range=0.1, n_embd=2 * size)
    ids, config = torch.randint(1, VOCABULARY, (4, 20)), model.config.to_dict()
    with torch.inference_mode():
        expected = model(ids).logits[:, -1]
        errors = [
            gpt2_decoder(config, dict(model.state_dict()), CPU, torch.bfloat16, openvino=openvino)
            .start(ids, torch.ones_like(ids), 0)
            .sub(expected)
            .abs()
            .mean()
            for openvino in (False, True)
        ]
    assert 0 < errors[1] < 2 * errors[0]


def test_heads_of_an_odd_size_are_not_computed_in_bfloat16_on_any_processor(monkeypatch):
    """Of which OpenVINO's attention makes wrong numbers; not every processor that tests has bfloat16."""
    asked = []
    core = SimpleNamespace(compile_model=lambda model, device, properties: asked.append(properties))
    monkeypatch.setattr(openvino_graph, "core", lambda: core)
    for size in (8, 9):
        openvino_graph.compile_graph(None, {"n_embd": 2 * size, "n_head": 2}, None, True)
    assert [properties["INFERENCE_PRECISION_HINT"] for properties in asked] == ["bf16", "f32"]


def test_where_openvino_falls_back_to_float32_bfloat16_is_written_all_the_same(monkeypatch):
    """As on processors with AVX512 but no BF16, of which PyTorch makes it out of float32."""
    asked = openvino_graph._properties
    monkeypatch.setattr(openvino_graph, "_properties", lambda *x: asked(*x) | {"INFERENCE_PRECISION_HINT": "f32"})
    monkeypatch.setattr(choose_decoder, "computes_bfloat16", lambda device: True)
    model = tiny_gpt2(VOCABULARY, initializer_range=0.1)
    decoder = gpt2_decoder(model.config.to_dict(), dict(model.state_dict()), CPU, torch.bfloat16, openvino=True)
    ids = torch.randint(1, VOCABULARY, (4, 20))
    with torch.inference_mode():
        expected = model(ids).logits[:, -1]
    torch.testing.assert_close(decoder.start(ids, torch.ones_like(ids), 0), expected, rtol=0, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_are_kept_in_the_16_bits_that_the_processor_does_not_compute_in(dtype, monkeypatch):
    monkeypatch.setattr(choose_decoder, "computes_bfloat16", lambda device: False)
    for changes in SHAPES:
        model = tiny_gpt2(VOCABULARY, **{"initializer_range": 0.1, **changes})
        config, tensors = model.config.to_dict(), {name: x.clone() for name, x in model.state_dict().items()}
        decoder = gpt2_decoder(config, tensors, CPU, dtype, openvino=True)
        infos = [op.get_rt_info() for op in decoder.request.get_compiled_model().get_runtime_model().get_ops()]
        kept = [info["outputPrecisions"].astype(str) for info in infos if info["layerType"].astype(str) == "Const"]
        matrices = sum(weight.ndim == 2 for weight in model.parameters())
        assert kept.count("f16" if dtype == torch.float16 else "bf16") == matrices
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(weight.to(dtype) if weight.ndim == 2 else weight)
            ids = torch.randint(1, VOCABULARY, (4, 20))
            expected = model(ids).logits[:, 11:].log_softmax(-1)
        first = decoder.start(ids[:, :12], torch.ones_like(ids[:, :12]), 8).log_softmax(-1)
        later = [decoder.step(ids[:, place], decoder.reach(place + 1)).log_softmax(-1) for place in range(12, 20)]
        torch.testing.assert_close(torch.stack([first, *later], 1), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_a_file_has_in_16_bits_is_nowhere_widened(monkeypatch, dtype):
    monkeypatch.setattr(choose_decoder, "computes_bfloat16", lambda device: True)  # as not every processor here does
    ids = torch.randint(1, VOCABULARY, (4, 20))
    for changes in SHAPES:
        model = tiny_gpt2(VOCABULARY, **{"initializer_range": 0.1, **changes}).to(dtype)
        weights, config = {name: x.clone() for name, x in model.state_dict().items()}, model.config.to_dict()
        with torch.inference_mode():
            expected = model.float()(ids).logits[:, -1]
        for computes_in, near in ((torch.float32, 1e-4), (torch.bfloat16, 0.2)):
            decoder = gpt2_decoder(config, dict(weights), CPU, computes_in, openvino=True)
            matrices = [weight for weight in decoder.weights.values() if weight.ndim == 2]
            assert {weight.data_ptr() for weight in matrices} <= {weight.data_ptr() for weight in weights.values()}
            logits = decoder.start(ids, torch.ones_like(ids), 0)
            torch.testing.assert_close(logits, expected, rtol=0, atol=near)


@pytest.fixture
def folder(tmp_path, byte_tokenizer):
    return save_tiny_gpt2(tmp_path / "model", byte_tokenizer, n_embd=2 * GROUP)


def logits_of(folder, quantize="int4", reading=None):
    decoder = read_to_write(folder, reading, quantize=quantize).decoder
    ids = torch.tensor([[5, 6, 7]])
    return decoder.start(ids, torch.ones_like(ids), 0)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The folder of what is kept."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gpt2-korean"


def test_what_is_kept_is_read_until_the_model_changes(folder, kept, monkeypatch):
    first = logits_of(folder)
    [file] = kept.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(choose_decoder, "quantize_weights", None)  # may not be called
        assert logits_of(folder).equal(first)
        patch.chdir(folder.parent)
        assert logits_of(folder.name).equal(first)
    other = tiny_gpt2(len(json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]), 1, n_embd=128)
    other.resize_token_embeddings(json.loads((folder / "config.json").read_text("utf-8"))["vocab_size"])
    other.save_pretrained(folder)
    second = logits_of(folder)
    assert not second.equal(first) and [*kept.iterdir()] == [file]
    assert not logits_of(folder, "int8").equal(second) and len([*kept.iterdir()]) == 2


@pytest.mark.parametrize("in_one_file", [True, False])
def test_what_is_kept_is_made_anew_for_other_weights_of_the_same_size_and_time(folder, kept, in_one_file):
    if not in_one_file:
        save_torch_state_dict(load_file(folder / "model.safetensors"), folder, max_shard_size="100KB")
    first, weights, other = logits_of(folder), max(folder.glob("model*.safetensors")), folder / "other"
    assert weights.name.startswith("model.") == in_one_file
    save_file({name: -tensor for name, tensor in load_file(weights).items()}, other, {"format": "pt"})
    shutil.copystat(weights, other)
    assert other.stat().st_size == weights.stat().st_size
    other.replace(weights)
    assert not logits_of(folder).equal(first)


@pytest.mark.parametrize(
    "made_by, other", [("openvino.get_version", lambda: "another"), ("gpt2_korean.generation.kept.CODE", ())]
)
def test_what_is_kept_is_made_anew_for_another_openvino_or_another_program(folder, kept, monkeypatch, made_by, other):
    first = logits_of(folder)
    [file] = kept.iterdir()
    made = file.stat().st_mtime_ns
    monkeypatch.setattr(made_by, other)
    assert logits_of(folder).equal(first) and [*kept.iterdir()] == [file] and file.stat().st_mtime_ns > made


def test_what_is_kept_can_be_read_before_the_rest(folder, kept, monkeypatch):
    options = parse_generate_options([f"--model_name_or_path={folder}", "--quantize=int4"]).model
    assert begin_reading(folder, options).result() is None
    (adapter := folder.parent / "adapter").mkdir()  # which is reduced anew each time
    assert begin_reading(adapter, options).result() is None
    first = logits_of(folder)
    reading = begin_reading(folder, options)
    for name in ("read_kept", "quantize_weights"):
        monkeypatch.setattr(choose_decoder, name, None)  # may not be called
    assert logits_of(folder, reading=reading).equal(first)
    assert begin_reading(folder, replace(options, quantize=None)) is begin_reading("an/id", options) is None


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_what_is_kept_computes_in_what_the_flag_says(folder, monkeypatch, dtype):
    monkeypatch.setattr("gpt2_korean.generation.kept.read_kept", lambda *words: words)
    words = [f"--model_name_or_path={folder}", "--quantize=int8", f"--dtype={dtype}"]
    options = parse_generate_options(words).model
    bfloat16 = choose_dtype(CPU, dtype, options.quantize) == torch.bfloat16  # as what is reduced anew is computed
    assert begin_reading(folder, options).result() == (folder, "int8", bfloat16)


@pytest.mark.parametrize(("quantize", "dtype"), [("int4", "float32"), ("int8", "bfloat16")])
def test_what_is_kept_is_computed_as_what_is_reduced_now(folder, kept, monkeypatch, quantize, dtype):
    asked, compile_graph = [], openvino_graph.compile_graph
    monkeypatch.setattr(
        openvino_graph, "compile_graph", lambda *given: asked.append(given[2:]) or compile_graph(*given)
    )
    for _ in range(2):
        read_to_write(folder, dtype=dtype, quantize=quantize)
    assert asked == [(quantize, dtype == "bfloat16")] * 2


def test_what_one_process_keeps_another_reads(folder, run_script, tmp_path):
    words = (
        "generate.py",
        f"--model_name_or_path={folder}",
        "--prompt=오늘",
        "--length=2",
        "--quantize=int8",
        "--seed=1",
    )
    first, second = (run_script(*words, env={"HF_HOME": str(tmp_path / "cache")}) for _ in range(2))
    assert "줄이는 중" in first.stderr and "줄이는 중" not in second.stderr, second.stderr
    assert first.stdout == second.stdout != "" and first.returncode == second.returncode == 0


def test_a_model_of_the_hub_and_one_with_anothers_template_are_kept_as_well(folder, kept, monkeypatch):
    expected = logits_of(folder)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}", "utf-8")
    assert logits_of(folder).equal(expected) and len([*kept.iterdir()]) == 1
    cache = kept.parent / "hub"
    snapshots = cache / "models--an--id" / "snapshots"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    for commit in ("0" * 40, "1" * 40):
        shutil.copytree(folder, snapshots / commit)
        info = SimpleNamespace(sha=commit, siblings=[])
        monkeypatch.setattr("huggingface_hub.model_info", lambda *_, info=info, **__: info)
        (cache / "models--an--id" / "refs").mkdir(exist_ok=True)
        (cache / "models--an--id" / "refs" / "main").write_text("0" * 40, "utf-8")
        assert logits_of("an/id").equal(expected) and len([*kept.iterdir()]) == 2
        with monkeypatch.context() as patch:
            patch.setattr(choose_decoder, "quantize_weights", None)  # may not be called
            assert logits_of("an/id").equal(expected)
    (same := snapshots / ("2" * 40)).mkdir()  # a commit of another file: the Hub's library links to those that stay
    for file in (snapshots / commit).iterdir():
        (same / file.name).symlink_to(file)
    monkeypatch.setattr(choose_decoder, "quantize_weights", None)
    assert logits_of(same).equal(expected)


@pytest.mark.parametrize("left", [slice(0), slice(5), slice(5000), slice(-1), slice(-200, None)])
def test_what_was_kept_by_half_is_made_anew(folder, kept, left, monkeypatch):
    first = logits_of(folder)
    [file] = kept.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[left].rjust(len(content) if left.start else 0, b"\0"))  # zeros, or nothing
    assert logits_of(folder).equal(first)
    monkeypatch.setattr(choose_decoder, "quantize_weights", None)  # may not be called
    assert logits_of(folder).equal(first)


@pytest.mark.parametrize("full", [False, True])
def test_where_nothing_can_be_kept_it_is_said_and_written(folder, kept, capsys, monkeypatch, full):
    def serialize(*_):
        raise RuntimeError("No space left on device")

    if full:
        monkeypatch.setattr("openvino.serialize", serialize)
    else:
        kept.parent.write_text("a file in the folder's place", "utf-8")
    logits_of(folder)
    assert "저장하지 못해" in capsys.readouterr().err
    assert not full or not [*kept.iterdir()]


@pytest.mark.parametrize("quantize", [(), ("--quantize=int8",)])
def test_that_somebody_writes_is_told_to_nobody(folder, run_script, tmp_path, monkeypatch, quantize):
    monkeypatch.delenv("CI", raising=False)  # there it tells nothing
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0)
        environment = {"HOME": str(tmp_path), "https_proxy": f"http://127.0.0.1:{proxy.getsockname()[1]}"}
        words = (f"--model_name_or_path={folder}", "--prompt=오늘", "--length=2", *quantize)
        done = run_script("generate.py", *words, env=environment)
        assert done.returncode == 0, done.stderr
        with pytest.raises(BlockingIOError):
            proxy.accept()
    assert not (tmp_path / "intel").exists()


@pytest.mark.skipif(not shutil.which("cc") or platform.libc_ver()[0] != "glibc", reason="no C compiler, or no glibc")
def test_another_allocator_may_be_preloaded(folder, run_script, tmp_path):
    """As Colab has tcmalloc, and guides to PyTorch on CPUs jemalloc: OpenVINO ended in 'free(): invalid pointer'."""
    library = tmp_path / "allocator.so"
    source = ROOT / "tests" / "generation" / "allocator.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-fno-builtin", "-o", library, source], check=True)
    words = (f"--model_name_or_path={folder}", "--prompt=오늘", "--length=2", "--device=cpu")
    done = run_script("generate.py", *words, env={"LD_PRELOAD": str(library)})
    assert done.returncode == 0 and done.stdout, done.stderr


def test_nobody_is_told_that_somebody_tests():
    with pytest.raises(ImportError):
        importlib.import_module("openvino_telemetry")


def test_another_openvino_is_refused_where_it_is_asked_for_and_else_said(folder, monkeypatch, capsys):
    assert f"openvino=={choose_decoder.OPENVINO}" in (ROOT / "requirements-openvino.txt").read_text("utf-8")
    expected = logits_of(folder, None)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2025.4.1")
    for asked in ({"quantize": "int8"}, {"engine": "openvino"}):
        with pytest.raises(UsageError, match=r"OpenVINO 2025\.4\.1.*requirements-openvino\.txt"):
            read_to_write(folder, **asked)
    decoder = read_to_write(folder).decoder
    assert isinstance(decoder, GPT2Decoder) and "PyTorch로 계산합니다" in capsys.readouterr().err
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(decoder.start(ids, torch.ones_like(ids), 0), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("architecture, needed", [("arm64", "SVE"), ("x86_64", "AVX2")])
def test_where_openvino_has_no_attention_it_is_refused_where_it_is_asked_for_and_else_said(
    folder, monkeypatch, capsys, architecture, needed
):
    """As on a Raspberry Pi 5, a Graviton 2, an Ampere Altra or an Apple processor; a Celeron or a Core of 2012."""
    capabilities = {"architecture": architecture, "avx": True, "neon": True, needed.lower(): False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    for asked in ({"quantize": "int8"}, {"quantize": "int4"}, {"engine": "openvino"}):
        ((name, value),) = asked.items()
        with pytest.raises(UsageError, match=f"--{name}={value}: .*{needed}"):
            read_to_write(folder, **asked)
    assert isinstance(read_to_write(folder).decoder, GPT2Decoder)
    told = capsys.readouterr().err
    assert needed in told and "PyTorch로 계산합니다" in told
    assert isinstance(read_to_write(folder, engine="torch").decoder, GPT2Decoder)
    assert not capsys.readouterr().err
    capabilities[needed.lower()] = True
    assert not isinstance(read_to_write(folder).decoder, GPT2Decoder)


@pytest.mark.parametrize("quantize", ["int8", "int4"])
@pytest.mark.parametrize("machine", ["aarch64", "arm64"])
def test_on_arm_keys_are_kept_in_the_one_type_that_openvino_has_there(machine, quantize, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: machine)
    model = tiny_gpt2(VOCABULARY, n_embd=GROUP)
    weights = dict(model.state_dict())
    decoder = gpt2_decoder(model.config.to_dict(), weights, CPU, torch.float32, quantize=quantize, openvino=True)
    caches = [
        each for each in decoder.request.get_compiled_model().inputs if each.any_name.endswith(("keys", "values"))
    ]
    assert caches and {each.element_type.get_type_name() for each in caches} == {"f32"}


@pytest.mark.parametrize("asked", ["1", "1,4", "", "많이"])
def test_openvino_takes_as_many_threads_as_the_environment_says_as_pytorch_does(asked, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    model = tiny_gpt2(VOCABULARY)
    decoder = gpt2_decoder(model.config.to_dict(), dict(model.state_dict()), CPU, torch.float32, openvino=True)
    threads = decoder.request.get_compiled_model().get_property("INFERENCE_NUM_THREADS")
    assert threads == 1 or not asked.startswith("1")


@pytest.mark.parametrize("flag", ["--quantize=int8", "--quantize=int4", "--engine=openvino"])
def test_a_model_that_is_no_gpt2_is_refused_by_the_flag(flag, tmp_path, byte_tokenizer):
    folder = save_tiny_gpt2(tmp_path / "model", byte_tokenizer, scale_attn_by_inverse_layer_idx=True)
    name, value = flag.removeprefix("--").split("=")
    with pytest.raises(UsageError, match=f"{flag}: GPT-2에만"):
        read_to_write(folder, **{name: value})


def test_a_signal_is_taken_after_several_models_have_come_and_gone():
    model = tiny_gpt2(VOCABULARY)
    config, weights = model.config.to_dict(), dict(model.state_dict())
    models = [gpt2_decoder(config, weights, CPU, torch.float32, openvino=True) for _ in range(2)]
    while models:
        del models[0]
    process = os.fork()  # a signal that is not taken ends it alone
    if process == 0:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
        os.kill(os.getpid(), signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 7
