"""What runs where: the first device that is there, and Intel's extension only beside its own torch."""

import json
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainingArguments

from gpt2_korean import device
from gpt2_korean.messages import UsageError
from gpt2_korean.training.arguments import set_up_machine


@pytest.fixture
def present(monkeypatch):
    """Make this machine look as if it had just the given devices."""

    def set_present(*names):
        monkeypatch.setattr(torch.xpu, "is_available", lambda: "xpu" in names)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in names)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_86", "sm_120", "compute_120"])
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 9))
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in names)

    return set_present


@pytest.mark.parametrize(
    ("names", "first"), [(("xpu", "cuda"), "xpu"), (("cuda", "mps"), "cuda"), (("mps",), "mps"), ((), "cpu")]
)
def test_auto_takes_xpu_cuda_mps_cpu_in_that_order(present, names, first):
    present(*names)
    assert device.choose_device("auto").type == first
    assert device.choose_device("cpu").type == "cpu"


def test_an_absent_device_is_refused_naming_those_there_are(present):
    present("cuda")
    with pytest.raises(UsageError) as refusal:
        device.choose_device("xpu")
    assert "--device=xpu" in str(refusal.value) and "cuda, cpu" in str(refusal.value)


@pytest.fixture
def built_for(monkeypatch):
    """Make the installed PyTorch look as if it had been built for the given devices."""

    def set_builds(*names):
        monkeypatch.setattr(torch.version, "xpu", "20250302" if "xpu" in names else None, raising=False)
        monkeypatch.setattr(torch.version, "cuda", "13.0" if "cuda" in names else None)
        monkeypatch.setattr(torch.version, "hip", None)
        monkeypatch.setattr(torch.backends.mps, "is_built", lambda: "mps" in names)

    return set_builds


@pytest.mark.parametrize("name", ["xpu", "cuda", "mps"])
def test_a_torch_that_was_not_built_for_a_device_is_told_apart_from_a_device_that_is_absent(
    present, built_for, name, monkeypatch
):
    monkeypatch.setattr(sys, "platform", "darwin" if name == "mps" else "linux")
    present()
    built_for(name)
    with pytest.raises(UsageError) as absent:
        device.choose_device(name)
    built_for(*{"xpu", "cuda", "mps"} - {name})
    with pytest.raises(UsageError) as unbuilt:
        device.choose_device(name)
    assert "pip install" in str(unbuilt.value) and torch.__version__ in str(unbuilt.value)
    assert "pip install" not in str(absent.value) and "확인하세요" in str(absent.value)
    assert ("requirements-xpu.txt" in str(unbuilt.value)) == (name == "xpu")
    for refusal in (absent, unbuilt):
        assert f"--device={name}" in str(refusal.value) and len(str(refusal.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "platform", "way"),
    [("mps", "linux", "macOS에만"), ("cuda", "darwin", "Linux와 Windows에만"), ("cuda", "win32", "docs/windows.md")],
)
def test_nobody_is_told_to_install_what_his_system_does_not_have(present, built_for, name, platform, way, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    present()
    built_for()
    with pytest.raises(UsageError, match=way) as refusal:
        device.choose_device(name)
    assert "pip install" not in str(refusal.value)


@pytest.mark.parametrize(
    ("number", "there"), [((6, 0), False), ((7, 0), False), ((7, 5), True), ((9, 0), False), ((13, 0), True)]
)
def test_a_gpu_that_torch_has_no_kernels_for_is_passed_over_with_the_build_that_has(
    present, system, number, there, monkeypatch, capsys
):
    present("cuda")
    add_program(system)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: number)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla P100-PCIE-16GB")
    assert device.choose_device("auto").type == ("cuda" if there else "cpu")
    warning = capsys.readouterr().err
    assert warning.count("주의:") == len(warning.splitlines()) // 2 == (not there)
    if not there:
        assert "Tesla P100-PCIE-16GB" in warning and ("whl/cu126" in warning) == (number < (7, 5))
        with pytest.raises(UsageError, match=r"--device=cuda.*\n.*pip install"):
            device.choose_device("cuda")


def test_a_gpu_of_amd_whose_kernels_have_other_names_is_taken_and_its_build_known(present, built_for, monkeypatch):
    present("cuda")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["gfx90a", "gfx1100"])
    assert device.choose_device("auto").type == "cuda"
    present()
    built_for()
    monkeypatch.setattr(torch.version, "hip", "7.1")
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(UsageError, match="확인하세요"):
        device.choose_device("cuda")


@pytest.fixture
def system(monkeypatch, tmp_path):
    """A system without any card, whose files a test adds."""
    monkeypatch.setattr(device, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def add_card(system, vendor, number=128):
    for path, content in ((f"dev/dri/renderD{number}", ""), (f"sys/class/drm/renderD{number}/device/vendor", vendor)):
        (system / path).parent.mkdir(parents=True, exist_ok=True)
        (system / path).write_text(f"{content}\n")


def add_program(system):
    (system / "bin").mkdir()
    (system / "bin" / "nvidia-smi").touch(0o755)


CARDS = {
    "xpu": lambda system: add_card(system, "0x8086"),
    "cuda": lambda system: add_card(system, "0x10de"),
    "driver of cuda": lambda system: (system / "proc/driver/nvidia").mkdir(parents=True),
    "program of cuda": add_program,
}


@pytest.mark.parametrize("card", CARDS)
def test_going_back_to_the_cpu_beside_a_card_is_said_once_with_the_way_on(card, present, built_for, system, capsys):
    present()
    CARDS[card](system)
    name = card.split()[-1]
    for builds, way in ((("mps",), "pip install"), ((name,), "드라이버")):
        built_for(*builds)
        assert device.choose_device("auto").type == "cpu"
        warning = capsys.readouterr().err
        assert warning.count("주의:") == 1 and "--device=cpu" in warning and way in warning
        assert device.NAMES[name] in warning
        assert device.choose_device("cpu").type == "cpu" and capsys.readouterr().err == ""


def test_nothing_is_said_where_no_card_is_or_it_is_used_or_hidden(present, built_for, system, capsys, monkeypatch):
    present()
    built_for()
    add_card(system, "0x1002")  # another maker's
    (system / "dev/dri/renderD130").touch()  # of a board whose graphics are part of it, and have no vendor
    assert device.choose_device("auto").type == "cpu"
    add_card(system, "0x10de", 129)
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert device.choose_device("auto").type == "cpu"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    present("cuda")
    assert device.choose_device("auto").type == "cuda"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((None, None), (True, False)),
        ((True, None), (True, False)),
        ((False, None), (False, False)),
        ((None, True), (False, True)),
        ((None, False), (False, False)),
    ],
)
def test_a_given_precision_wins_over_the_devices(flags, expected):
    assert device.choose_precision(torch.device("xpu"), *flags)[:2] == expected


def test_float16_is_not_said_of_a_cpu_on_which_nothing_computes_in_it(train_words, tmp_path, run_main):
    bf16, fp16, reason = device.choose_precision(torch.device("cpu"), fp16=True)
    assert not (bf16 or fp16) and "--fp16" in reason
    words = ["train.py", *train_words, "--do_train", "--max_steps=1", "--report_to=none"]
    code, _, err = run_main(*words, "--fp16")
    assert code == 0 and "정밀도: float32 (--fp16" in err, err
    assert json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))["precision"] == "float32"


def test_bfloat16_is_for_devices_that_compute_in_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (6, 1))
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    for name in ("cpu", "cuda", "mps"):
        assert device.choose_precision(torch.device(name))[:2] == (False, False)
        assert device.choose_precision(torch.device(name), bf16=True)[:2] == (True, False)
        assert device.choose_dtype(torch.device(name), "auto") == torch.float32
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert device.choose_precision(torch.device("cuda"))[:2] == (True, False)
    for capability in ("avx512_bf16", "amx_bf16"):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda capability=capability: {capability: True})
        assert device.choose_precision(torch.device("cpu"))[:2] == (True, False)
        assert device.choose_dtype(torch.device("cpu"), "auto") == torch.bfloat16
        assert device.choose_dtype(torch.device("cpu"), "auto", quantize="int8") == torch.float32
    assert device.choose_dtype(torch.device("cpu"), "float16") == torch.float16


def test_a_gpu_with_tensor_cores_for_float16_alone_trains_in_it_unless_told_otherwise(monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    for own in ((7, 0), (7, 5)):  # V100, T4
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None, own=own: own)
        assert device.choose_precision(gpu)[:2] == (False, True)
        assert device.choose_precision(gpu, fp16=False)[:2] == device.choose_precision(gpu, bf16=False)[:2]
        assert device.choose_precision(gpu, fp16=False)[:2] == (False, False)
        assert device.choose_precision(gpu, bf16=True)[:2] == (True, False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    assert device.choose_precision(gpu)[:2] == (True, False)


@pytest.mark.parametrize("name", ["cuda", "xpu"])
def test_the_line_of_the_machine_names_the_gpu_and_the_precision_of_training(name, monkeypatch):
    monkeypatch.setattr(getattr(torch, name), "get_device_name", lambda device: f"{device.type} 9000")
    for precision, told in (((True, False), "bfloat16"), ((False, True), "float16"), ((False, False), "float32")):
        line = device.describe_machine(torch.device(name), *precision, "까닭")
        assert f"{name} ({name} 9000)" in line and f" {told} (까닭)" in line
    for other in ("cpu", "mps"):
        assert other in device.describe_machine(torch.device(other), False, False, "까닭")


@pytest.mark.parametrize("name", ["cuda", "xpu"])
def test_what_torch_keeps_of_a_gpus_memory_for_what_comes_is_free_too(name, monkeypatch):
    memory = getattr(torch, name)
    for function, told in (("mem_get_info", (100, 1000)), ("memory_reserved", 70), ("memory_allocated", 30)):
        monkeypatch.setattr(memory, function, lambda device, told=told: told)
    assert device.free_memory(torch.device(name)) == 140


@pytest.mark.parametrize("compiler", ["CC", "cc", "gcc", "clang", None])
def test_kernels_are_compiled_on_a_gpu_where_triton_and_a_c_compiler_are(compiler, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(device, "find_spec", {"triton": "there"}.get)
    if compiler == "CC":
        monkeypatch.setenv("CC", "/opt/cc")
    elif compiler:
        (tmp_path / compiler).touch(0o755)
    assert [device.can_compile(torch.device(name)) for name in ("cuda", "xpu", "cpu", "mps")] == [
        compiler is not None, compiler is not None, False, False
    ]  # fmt: skip
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    assert not device.can_compile(torch.device("cuda"))


@pytest.fixture
def installed_ipex(monkeypatch, tmp_path):
    """An installed IPEX of a given version whose import does what `code` says."""

    def install(version, code):
        (tmp_path / f"{device.IPEX}.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(metadata, "version", lambda name: version)
        sys.modules.pop(device.IPEX, None)

    yield install
    sys.modules.pop(device.IPEX, None)


def test_ipex_of_another_torch_is_never_imported(installed_ipex):
    installed_ipex("1.13.0+cpu", "raise SystemExit")
    module, line = device.load_ipex(torch.device("cpu"))
    assert module is None
    assert "1.13.0" in line and torch.__version__ in line


@pytest.mark.parametrize(
    "code",
    ["import os; os.exit(1)", "raise SystemExit(127)", "raise ImportError", "raise OSError", "raise RuntimeError"],
)
def test_an_ipex_whose_import_fails_is_left_alone(installed_ipex, code):
    installed_ipex(torch.__version__, code)
    module, line = device.load_ipex(torch.device("xpu"))
    assert module is None and "IPEX" in line


def test_ipex_of_this_torch_is_used_and_keeps_off_stdout(installed_ipex, capsys):
    installed_ipex(torch.__version__, "print('hello from ipex')")
    module, line = device.load_ipex(torch.device("cpu"))
    assert module.__name__ == device.IPEX and "씁니다" in line
    assert capsys.readouterr().out == ""


def test_beside_a_device_that_is_not_intels_ipex_is_never_imported(installed_ipex):
    installed_ipex(torch.__version__, "raise ImportError")
    assert device.load_ipex(torch.device("cuda")) == device.load_ipex(torch.device("mps")) == (None, None)


def test_without_ipex_nothing_is_said(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert device.load_ipex(torch.device("cpu")) == (None, None)
    assert device.load_ipex(torch.device("cuda")) == (None, None)


def test_trainer_and_accelerate_take_the_same_xpu(run_script):
    """In a process of its own: what accelerate has chosen once, it keeps."""
    code = (
        "import torch; from accelerate import Accelerator; from gpt2_korean.training.arguments import build_arguments;"
        "arguments = build_arguments({'output_dir': 'none'}, torch.device('xpu'), False, False);"
        "print(arguments.device.type, Accelerator().device.type)"
    )
    finished = run_script("-c", code, env={"CUDA_VISIBLE_DEVICES": ""})  # which would be taken before it
    assert finished.stdout.split() == ["xpu", "xpu"], finished.stderr


def test_one_process_trains_on_one_of_several_gpus_and_says_so(tmp_path, monkeypatch, capsys):
    """Trainer's DataParallel would multiply the blocks of a step, and be slower than one GPU."""

    def see_two(arguments, post_init=TrainingArguments.__post_init__):
        post_init(arguments)
        arguments._n_gpu = 2

    monkeypatch.setattr(TrainingArguments, "__post_init__", see_two)
    values = {"output_dir": str(tmp_path), "per_device_train_batch_size": 3, "report_to": ["none"], "adam_beta2": 0.9}
    machine = SimpleNamespace(device="cpu", bf16=False, fp16=False)
    learning = SimpleNamespace(trainer_arguments=values, passed_on=["adam_beta2"], average_last=None)
    arguments = set_up_machine(machine, learning)  # which rehearses the flags that are passed on
    assert arguments.n_gpu == 1 and arguments.train_batch_size == 3
    assert capsys.readouterr().err.count("--nproc_per_node=2") == 1
