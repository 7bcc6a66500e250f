"""Models as train.py saves them, and Pythons that have other programs' packages."""

import os
import subprocess
import sys
from functools import cache

import pytest


@cache
def _python_with(*modules):
    """A Python that has all `modules`: this one, or one of GPT2_KOREAN_PYTHONS (paths, separated as PATH is)."""
    code = f"import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, {modules})))"
    for python in [sys.executable, *filter(None, os.environ.get("GPT2_KOREAN_PYTHONS", "").split(os.pathsep))]:
        if subprocess.run([python, "-c", code], stderr=subprocess.DEVNULL).returncode == 0:
            return python
    return None


def _run(python, code, *words):
    done = subprocess.run(
        [python, "-c", code, *map(str, words)], capture_output=True, text=True, encoding="utf-8", timeout=300,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture
def run_python():
    """Run Python code by a given Python, offline: the last line that it prints."""
    return _run


@pytest.fixture
def run_with():
    """Run Python code that needs `modules`, names with spaces between: the last line that it prints; skips where no
    Python has them all."""

    def run(modules, code, *words):
        python = _python_with(*modules.split())
        if python is None:
            pytest.skip(f"{modules}: not installed")
        return _run(python, code, *words)

    return run


@pytest.fixture(scope="session")
def saved(tmp_path_factory, sample_texts, english_tokenizer):
    """Folder of a run's output by what it learnt: "texts", "conversations", "adapter", each with a Korean vocabulary.

    The start is a random English GPT-2, which hardly changes: what it writes differs from token to token.
    """
    from conftest import save_tiny_gpt2

    import train
    from gpt2_korean.training import samples

    root = tmp_path_factory.mktemp("saved")
    start = save_tiny_gpt2(root / "start", english_tokenizer, n_positions=96, n_embd=64)  # vLLM wants heads of 32
    texts, talks = root / "글.txt", root / "대화.csv"
    texts.write_text("\n\n".join(sample_texts), "utf-8")
    talks.write_text("질문,답변\n" + "".join(f'"{text[:30]}","{text[30:60]}"\n' for text in sample_texts), "utf-8")
    runs = {"texts": [texts], "conversations": [talks], "adapter": [texts, "--lora_rank=2"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "LENGTH", 4)
        for name, (data, *more) in runs.items():
            train.main([
                f"--dataset_path={data}", f"--model_type={start}", "--tokenizer=korean", "--vocab_size=1280",
                f"--output_dir={root / name}", "--do_train", "--max_steps=1", "--device=cpu", "--no_bf16",
                "--report_to=none", "--disable_tqdm", "--per_device_train_batch_size=1", *more,
            ])  # fmt: skip
    return {"start": start, **{name: root / name for name in runs}}
