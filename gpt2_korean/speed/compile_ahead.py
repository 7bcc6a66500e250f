"""Kernels before they are asked for: compiled and looked up while generate.py imports torch, which takes longer.

Triton compiles without torch. What its cache lacks is compiled in a process of its own, since a thread and the
import would wait for the same lock. A thread of this process imports Triton and has it hash its own libraries,
half a second that it wants once in every process, most of it without that lock.

What fails here is not told: it fails again where the kernels are asked for, and is told there.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

from gpt2_korean.checkpoints.complete import read_json

DONE = "gpt2_korean_kernels"  # a file of Triton's cache: what belongs to its key is all there


def start(folder, device, dtype):
    """Begin; returns a thread to join before kernels are asked for, None where there is nothing to prepare.

    folder: a model's, or a hub id, of which nothing is known yet. device, dtype: as `--device` and `--dtype` have them.
    """
    # NVIDIA's driver brings nvidia-smi along, which knows what to compile for.
    if device not in ("auto", "cuda") or shutil.which("nvidia-smi") is None or find_spec("triton") is None:
        return None
    thread = Thread(target=_prepare, args=(folder, dtype), daemon=True)
    thread.start()
    return thread


def kernel_sizes(config):
    """What a GPT-2's kernels are made for, from its `config`, a dict: `(width, inner width of the MLP, heads)`."""
    width = config["n_embd"]
    return width, config.get("n_inner") or 4 * width, config["n_head"]


def _prepare(folder, dtype):
    with contextlib.suppress(Exception):
        config = read_json(Path(folder) / "config.json")
        if config["model_type"] != "gpt2":
            return
        query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10).stdout
        capability = answer.split()[0].replace(".", "")  # such as 90
        import triton
        from triton.runtime.cache import get_cache_manager, triton_key

        wanted = [*map(str, kernel_sizes(config)), dtype, capability]
        source = Path(__file__).with_name("writing_kernels.py").read_text("utf-8")
        key = hashlib.sha256(repr((triton.__version__, wanted, source)).encode()).hexdigest()
        process = None
        if get_cache_manager(key).get_file(DONE) is None:
            paths = filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")))
            process = subprocess.Popen(
                [sys.executable, "-m", __name__, *wanted, key],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        triton_key()
        if process is not None:
            process.wait()


def _compile(width, inner, heads, dtype, capability, key):
    """Compile into Triton's cache what fused.compile_kernels will call, and what Triton calls it by.

    dtype: as `--dtype`. capability: the GPU's, such as 90. key: of the file that then says so.
    """
    sys.modules["torch"] = None  # Triton looks whether there is one, and would import it
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.backends.nvidia.driver import CudaLauncher, CudaUtils
    from triton.runtime.cache import get_cache_manager, triton_key

    from gpt2_korean.speed.writing_kernels import calls_of

    # In place of Triton's own, which asks torch for the device.
    driver = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", capability, 32),
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
    )
    triton.runtime.driver.set_active(driver)
    if dtype == "auto":  # as device.computes_bfloat16 has it
        dtype = "bfloat16" if capability >= 80 else "float32"
    calls = calls_of(width, inner, heads, triton.MockTensor(dtype), triton.MockTensor("int64"))
    with ThreadPoolExecutor() as threads:
        utilities = threads.submit(CudaUtils)
        triton_key()  # or each thread would hash for itself
        kernels = [
            threads.submit(kernel.warmup, *arguments, grid=(1,), **options) for kernel, arguments, options in calls
        ]
        driver.utils = utilities.result()
        kernels = [kernel.result() for kernel in kernels]
        for launcher in [threads.submit(CudaLauncher, kernel.src, kernel.metadata) for kernel in kernels]:
            launcher.result()
    get_cache_manager(key).put("", DONE, binary=False)


if __name__ == "__main__":
    *sizes, dtype, capability, key = sys.argv[1:]
    _compile(*map(int, sizes), dtype, int(capability), key)
