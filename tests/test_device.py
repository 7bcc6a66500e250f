"""What runs where: the first device that is there, and Intel's extension only beside its own torch."""

import sys
from importlib import metadata

import pytest
import torch

from gpt2_korean import device
from gpt2_korean.messages import UsageError


@pytest.fixture
def present(monkeypatch):
    """Make this machine look as if it had just the given devices."""

    def set_present(*names):
        monkeypatch.setattr(torch.xpu, "is_available", lambda: "xpu" in names)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in names)
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


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((None, None), (True, False)),
        ((True, None), (True, False)),
        ((False, None), (False, False)),
        ((None, True), (False, True)),
    ],
)
def test_a_given_precision_wins_over_the_devices(flags, expected):
    assert device.choose_precision(torch.device("xpu"), *flags)[:2] == expected


def test_bfloat16_is_for_devices_that_compute_in_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    for name in ("cpu", "cuda", "mps"):
        assert device.choose_precision(torch.device(name))[:2] == (False, False)
        assert device.choose_dtype(torch.device(name), "auto") == torch.float32
    for capability in ("avx512_bf16", "amx_bf16"):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda capability=capability: {capability: True})
        assert device.choose_precision(torch.device("cpu"))[:2] == (True, False)
        assert device.choose_dtype(torch.device("cpu"), "auto") == torch.bfloat16
        assert device.choose_dtype(torch.device("cpu"), "auto", quantize="int8") == torch.float32
    assert device.choose_dtype(torch.device("cpu"), "bfloat16") == torch.bfloat16


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


@pytest.mark.parametrize("code", ["import os; os.exit(1)", "raise SystemExit(127)", "raise ImportError"])
def test_an_ipex_whose_import_fails_is_left_alone(installed_ipex, code):
    installed_ipex(torch.__version__, code)
    module, line = device.load_ipex(torch.device("xpu"))
    assert module is None and "IPEX" in line


def test_ipex_of_this_torch_is_used_and_keeps_off_stdout(installed_ipex, capsys):
    installed_ipex(torch.__version__, "print('hello from ipex')")
    module, line = device.load_ipex(torch.device("cpu"))
    assert module.__name__ == device.IPEX and "씁니다" in line
    assert capsys.readouterr().out == ""


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
        "arguments = build_arguments({'output_dir': 'none'}, torch.device('xpu'), False, False, 'none');"
        "print(arguments.device.type, Accelerator().device.type)"
    )
    finished = run_script("-c", code)
    assert finished.stdout.split() == ["xpu", "xpu"], finished.stderr
