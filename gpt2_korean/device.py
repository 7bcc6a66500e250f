"""What runs where, and why: xpu | cuda | mps | cpu, the precision, and Intel's extension (IPEX).

XPU is stock PyTorch's. IPEX is used only where the installed one was built for the running torch:
imported beside another it ends the whole program, so its version is looked up before the import.
"""

import contextlib
import importlib
import os
import re
import shutil
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import torch

from gpt2_korean.cgroups import memory_left
from gpt2_korean.messages import UsageError, particle, warn

AUTO_ORDER = ("xpu", "cuda", "mps", "cpu")
NAMES = {"xpu": "Intel GPU(XPU)", "cuda": "NVIDIA GPU(CUDA)", "mps": "Apple GPU(MPS)"}
VENDORS = {"0x8086": "xpu", "0x10de": "cuda"}  # of PCI
GUIDE = "docs/devices.md"
OLDER_GPUS = "https://download.pytorch.org/whl/cu126"  # PyTorch's build for those before Turing, and older drivers
ROOT = Path("/")
IPEX = "intel_extension_for_pytorch"


def available_devices():
    """The device types of this machine, best first; "cpu" is always the last."""
    present = {
        "xpu": hasattr(torch, "xpu") and torch.xpu.is_available(),
        "cuda": torch.cuda.is_available() and has_kernels(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    return [name for name in AUTO_ORDER if present[name]]


def has_kernels():
    """Whether the installed PyTorch was built for the model of the NVIDIA GPU that it found."""
    built = re.findall(r"(sm|compute)_(\d+)(\d)", " ".join(torch.cuda.get_arch_list()))  # none of AMD's
    own = torch.cuda.get_device_capability()
    return not built or any(
        (int(major), int(minor)) <= own and (kind == "compute" or int(major) == own[0]) for kind, major, minor in built
    )


def choose_device(name):
    """The torch.device for `--device`; raises UsageError where it is absent, warns where "auto" passes over a GPU."""
    present = available_devices()
    if name == "auto":
        passed_over = gpus_in_sight() if present[0] == "cpu" else []
        if passed_over:
            seen = NAMES[passed_over[0]]
            warn(f"{seen}가 보이지만 CPU로 계산합니다(이대로 좋다면 --device=cpu).\n{_why_absent(passed_over[0])}")
        return torch.device(present[0])
    if name not in present:
        there = f"쓸 수 있는 장치: {', '.join(present)}"
        raise UsageError(
            f"--device={name}: 이 컴퓨터에서 쓸 수 있는 {NAMES[name]}가 없습니다. {there}\n{_why_absent(name)}"
        )
    return torch.device(name)


def is_built_for(name):
    """Whether the installed PyTorch was built for a device type, present or not."""
    builds = {
        "xpu": getattr(torch.version, "xpu", None),
        "cuda": torch.version.cuda or torch.version.hip,
        "mps": torch.backends.mps.is_built(),
    }
    return bool(builds[name])


def gpus_in_sight():
    """The device types of which the system shows a card or a driver, whether or not PyTorch can use it; best first."""
    nodes = [node.name for node in (ROOT / "dev/dri").glob("renderD*")]
    files = [ROOT / "sys/class/drm" / node / "device/vendor" for node in nodes]
    seen = {VENDORS.get(file.read_text().strip()) for file in files if file.exists()}
    if (ROOT / "proc/driver/nvidia").exists() or shutil.which("nvidia-smi"):
        seen.add("cuda")
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):  # hidden on purpose
        seen.discard("cuda")
    return [name for name in AUTO_ORDER if name in seen]


def _why_absent(name):
    """What is missing, the right system, PyTorch's build or the driver, and the way on."""
    if (name == "mps") != (sys.platform == "darwin"):
        here = "macOS에만" if name == "mps" else "Linux와 Windows에만"
        return f"{particle(NAMES[name], '은/는')} {here} 있습니다. --device를 빼면 있는 것을 고릅니다({GUIDE})."
    if name == "cuda" and torch.cuda.is_available():
        own = torch.cuda.get_device_capability()
        gpu = f"{torch.cuda.get_device_name()}(계산 능력 {own[0]}.{own[1]})"
        way_on = f"{_pip()} --index-url {OLDER_GPUS}" if own < (7, 5) else _how_to_install(name)
        return f"설치된 PyTorch({torch.__version__})는 {gpu}용이 아닙니다. 설치: {way_on} ({GUIDE})"
    if is_built_for(name):
        driver = {"xpu": "Intel GPU의 드라이버", "cuda": "NVIDIA 드라이버(nvidia-smi)", "mps": "macOS의 버전"}[name]
        return (
            f"PyTorch는 {NAMES[name]}용이지만 장치를 열 수 없습니다. {particle(driver, '을/를')} 확인하세요({GUIDE})."
        )
    return f"설치된 PyTorch({torch.__version__})는 {NAMES[name]}용이 아닙니다. 설치: {_how_to_install(name)} ({GUIDE})"


def _how_to_install(name):
    if name == "xpu":
        return "pip install -r requirements-xpu.txt"  # which knows where the wheels are
    if sys.platform == "win32":  # where pip by itself finds the build for CPUs
        return "docs/windows.md의 ‘설치’를 보세요"
    return _pip()


def _pip():
    return f"pip install --force-reinstall torch=={torch.__version__.split('+')[0]}"


def computes_bfloat16(device):
    """Whether the device itself computes in bfloat16: every XPU, CUDA from Ampere (8.0) on, CPUs that have it.

    torch.cuda.is_bf16_supported() alone also counts emulation, which is slower than float32. A CPU with AVX512-BF16
    trains 1.4 times as fast in it, one with AMX up to 1.7 times (benchmarks/RESULTS.md).
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = cpu_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return device.type == "xpu"


def computes_float16(device):
    """Whether float16 is much faster than float32 on the device, which has no bfloat16: CUDA from 7.0 to 7.5."""
    is_cuda = device.type == "cuda" and not computes_bfloat16(device)
    return is_cuda and torch.cuda.get_device_capability(device) >= (7, 0)


def cpu_capabilities():
    """What the processor is and can do, by PyTorch's names for it; {} where PyTorch is too old to tell."""
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


def choose_precision(device, bf16=None, fp16=None):
    """`(bf16, fp16, reason)` for TrainingArguments; a flag that was given (not None) wins."""
    if fp16 and device.type == "cpu":  # where accelerate computes in float32 all the same, and does not say so
        return False, False, "--fp16은 GPU에서만 씀"
    if bf16 or fp16:
        return bool(bf16), bool(fp16), f"--{'bf16' if bf16 else 'fp16'} 플래그"
    if bf16 is False or fp16 is False:
        return False, False, f"--no_{'bf16' if bf16 is False else 'fp16'} 플래그"
    if computes_bfloat16(device):
        return True, False, "장치가 bfloat16으로 계산함"
    if computes_float16(device):
        return False, True, "장치가 float16으로 계산함"
    return False, False, "bfloat16이 이 장치에서 기본이 아님"


def choose_dtype(device, name, quantize=None):
    """The torch.dtype for generate.py's `--dtype`; with weights in fewer bits the rest is faster in float32."""
    if name != "auto":
        return getattr(torch, name)
    return torch.bfloat16 if computes_bfloat16(device) and not quantize else torch.float32


def name_dtype(dtype):
    """`float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")


def describe_device(device):
    """The device in a few words, such as `cuda (NVIDIA H100 80GB HBM3)`."""
    if device.type in ("cuda", "xpu"):
        return f"{device.type} ({getattr(torch, device.type).get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu (스레드 {torch.get_num_threads()}개)"
    return device.type


def free_memory(device):
    """How many bytes can still be had on the device, None where it does not say."""
    if device.type in ("cuda", "xpu"):
        memory = getattr(torch, device.type)
        kept = memory.memory_reserved(device) - memory.memory_allocated(device)  # by PyTorch, for what comes
        return memory.mem_get_info(device)[0] + kept
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    with contextlib.suppress(OSError):
        lines = (ROOT / "proc/meminfo").read_text().splitlines()
        free = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
        return min([*free, *memory_left(ROOT)], default=None)
    return None


def record_graph(work, device, before=None):
    """`(graph, what work() returned)`: what `work` submits to the device, recorded as a graph without being done.

    before: None, or a graph that is never replayed at the same time, whose memory this one is to use too: on its
    stream, since on another nothing of it counts as free.
    """
    graph = torch.cuda.CUDAGraph() if device.type == "cuda" else torch.xpu.XPUGraph()
    graph.stream = torch.Stream(device) if before is None else before.stream
    torch.accelerator.synchronize()
    with graph.stream:
        graph.capture_begin(*([] if before is None else [before.pool()]))
        try:
            result = work()
        except BaseException:
            with contextlib.suppress(RuntimeError):
                graph.capture_end()
            raise
        graph.capture_end()
    # A recording begins by setting the place among the random numbers back, on its own stream. A device that other
    # programs keep busy may come to that only after the replay has set it, which would then draw again what was drawn.
    graph.stream.synchronize()
    return graph, result


def has_graphs(device):
    """Whether work on the device can be recorded as a graph: tried, since drivers differ."""
    if device.type not in ("cuda", "xpu"):
        return False
    try:
        number = torch.zeros(1, device=device)
        record_graph(lambda: number.add_(1), device)[0].replay()
        return number.item() == 1
    except (RuntimeError, AttributeError):  # an older PyTorch has no XPUGraph
        return False


def can_compile(device):
    """Whether torch.compile can make kernels for the device: it needs Triton, and Triton a C compiler."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    return device.type in ("cuda", "xpu") and find_spec("triton") is not None and compiler is not None


def dtype_of(bf16, fp16):
    """The torch.dtype that a run of this precision computes in."""
    return torch.bfloat16 if bf16 else torch.float16 if fp16 else torch.float32


def name_precision(bf16, fp16):
    return name_dtype(dtype_of(bf16, fp16))


def describe_machine(device, bf16, fp16, reason):
    """One line: the device, the precision of training and why."""
    return f"장치: {describe_device(device)} · 정밀도: {name_precision(bf16, fp16)} ({reason})"


def load_ipex(device):
    """Import IPEX where it serves; return `(module or None, a line that says why or None)`.

    None and no line where it is not installed, or the device is neither an XPU nor a CPU.
    """
    if device.type not in ("xpu", "cpu"):
        return None, None
    try:
        version = metadata.version(IPEX)
    except metadata.PackageNotFoundError:
        return None, None
    ipex_is, ipex = (particle(f"IPEX {version}", pair) for pair in ("은/는", "을/를"))
    if version.split(".")[:2] != torch.__version__.split(".")[:2]:
        return None, f"{ipex_is} torch {torch.__version__}의 것이 아니어서 쓰지 않습니다."
    try:
        with contextlib.redirect_stdout(sys.stderr):  # it prints; stdout is for results
            return importlib.import_module(IPEX), f"{ipex} 씁니다."
    except (ImportError, AttributeError, OSError, RuntimeError, SystemExit) as error:
        # On a processor without AVX2 its import calls sys.exit.
        return None, f"{ipex} 불러올 수 없어 쓰지 않습니다 ({type(error).__name__})."
