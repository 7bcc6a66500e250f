"""The driver of a GPU is woken where it may be wanted, and only there."""

import ctypes
from types import SimpleNamespace

import pytest

from gpt2_korean.generation import driver


@pytest.mark.parametrize(("device", "wanted"), [("auto", True), ("cuda", True), ("cpu", False), ("xpu", False)])
@pytest.mark.parametrize("answer", [0, 100, None], ids=["a GPU", "no GPU", "no driver"])
def test_a_driver_sets_up_its_gpu_where_it_may_be_asked_for(monkeypatch, device, wanted, answer):
    asked, threads = [], []
    library = SimpleNamespace(
        cuInit=lambda flags: asked.append("cuInit") or answer,
        cuDevicePrimaryCtxRetain=lambda context, number: asked.append(number),
    )

    def load(name):
        if answer is None:
            raise OSError(name)
        return library

    class Thread(driver.Thread):
        def start(self):
            super().start()
            threads.append(self)

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(driver, "Thread", Thread)
    monkeypatch.delenv("CUDA_MODULE_LOADING", raising=False)
    driver.wake_driver(device)
    for thread in threads:
        thread.join()
    assert asked == {0: ["cuInit", 0], 100: ["cuInit"], None: []}[answer if wanted else None]
