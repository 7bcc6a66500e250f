"""The first text on a GPU waits for no kernel: all are compiled while torch is imported. The GPU here is pretended:
what tells of it, and the driver's library, whose functions do nothing. Triton, and what compiles for it, are real.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from gpt2_korean.speed import compile_ahead

SHAPE = {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 512, "vocab_size": 320}

# Writes as on a GPU that has compiled nothing yet, with kernels that are launched without effect.
WRITING = """
from types import SimpleNamespace
import torch, triton
from triton.backends.compiler import GPUTarget
driver = SimpleNamespace(
    get_current_target=lambda: GPUTarget("cuda", 90, 32),
    get_current_device=lambda: 0,
    get_current_stream=lambda device: 0,
    launcher_cls=lambda source, metadata: lambda *arguments: None,
    utils=SimpleNamespace(
        load_binary=lambda *arguments: (1, 1, 0, 0, 1024),
        get_device_properties=lambda device: {"max_shared_mem": 2**17},
    ),
)
triton.runtime.driver.set_active(driver)
from gpt2_korean.generation import loop
from gpt2_korean.speed import fused
from gpt2_korean.speed.compile_ahead import kernel_sizes
from gpt2_korean.generation.decoder import GPT2Decoder, weight_shapes
from gpt2_korean.generation.sampling import Sampling
config, cpu, dtype = CONFIG, torch.device("cpu"), torch.bfloat16
loop.record_graph = lambda work, device: (SimpleNamespace(replay=work), None)
fused.compile_kernels(*kernel_sizes(config), cpu, dtype)
tensors = {name: torch.zeros(shape) for name, shape in weight_shapes(config).items()}
decoder = GPT2Decoder(config, tensors, cpu, dtype, fused.fused, fused.attend, captures=True)
for rows in (1, 3):
    for length in (200, 400):
        loop.generate_ids(decoder, [[1, 2, 3]] * rows, length, Sampling(temperature=0), None)
"""


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """What a process finds on a machine with an NVIDIA GPU of capability 9.0 and an empty Triton cache."""
    pytest.importorskip("triton")
    if shutil.which("gcc") is None:
        pytest.skip("no gcc, which Triton compiles its helpers with")
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "nvidia-smi").write_text("#!/bin/sh\necho 9.0\necho 9.0\n")
    (commands / "nvidia-smi").chmod(0o755)
    backend = Path(find_spec("triton").origin).parent / "backends" / "nvidia"
    sources = "".join(path.read_text() for path in backend.glob("driver.*"))
    functions = sorted(set(re.findall(r"\bcu[A-Z]\w+", sources)))
    (tmp_path / "cuda.c").write_text("".join(f"void {name}(void) {{}}\n" for name in functions))
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", tmp_path / "libcuda.so.1", tmp_path / "cuda.c"], check=True)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TRITON_LIBCUDA_PATH", str(tmp_path))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.fixture
def model_folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", **SHAPE}))
    return folder


def cached(folder):
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def test_writing_asks_for_no_kernel_that_was_not_compiled_ahead(gpu, model_folder, tmp_path, run_script):
    compile_ahead.start(model_folder, "auto", "auto").join()
    before = cached(tmp_path / "cache")
    assert {path.stem for path in before if path.suffix == ".cubin"} == {
        "linear_kernel",
        "norm_kernel",
        "attention_kernel",
    }
    assert compile_ahead.DONE in {path.name for path in before}
    written = run_script("-c", WRITING.replace("CONFIG", repr(SHAPE)))
    assert written.returncode == 0, written.stderr
    assert cached(tmp_path / "cache") == before


def test_what_is_compiled_is_not_compiled_again_and_another_type_is(gpu, model_folder, monkeypatch):
    started, popen = [], subprocess.Popen

    def record(command, *arguments, **keywords):
        started.append(command[0])
        return popen(command, *arguments, **keywords)

    monkeypatch.setattr(subprocess, "Popen", record)
    for dtype, processes in (("auto", 1), ("auto", 1), ("float16", 2)):
        compile_ahead.start(model_folder, "cuda", dtype).join()
        assert started.count(sys.executable) == processes


def test_nothing_is_prepared_without_a_gpu_or_for_another_device(gpu, model_folder, monkeypatch):
    assert compile_ahead.start(model_folder, "cpu", "auto") is None
    assert compile_ahead.start(model_folder, "xpu", "auto") is None
    monkeypatch.setenv("PATH", "")
    assert compile_ahead.start(model_folder, "auto", "auto") is None


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model_type": "llama"}', '{"model_type": "gpt2"}', None])
def test_what_cannot_be_prepared_is_left_without_a_word(gpu, tmp_path, capfd, content):
    folder = tmp_path / "model"
    if content is not None:
        folder.mkdir()
        (folder / "config.json").write_text(content)
    compile_ahead.start(folder, "auto", "auto").join()
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "cache").exists() or not cached(tmp_path / "cache")


def test_a_driver_that_fails_is_no_reason_not_to_write(gpu, tiny_model_folder, tmp_path, run_script):
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\necho failed >&2\nexit 9\n")
    words = [f"--model_name_or_path={tiny_model_folder}", "--prompt=한국어", "--length=5", "--seed=1"]
    done = run_script("generate.py", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("한국어") and len(done.stderr.splitlines()) == 1
