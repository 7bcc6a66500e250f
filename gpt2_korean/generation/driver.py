"""NVIDIA's driver, which takes half a second to set up a GPU, woken beside the import of torch; imports no torch."""

import ctypes
import os
from threading import Thread

from gpt2_korean.windows import WINDOWS


def wake_driver(device):
    """Have the driver set up its first GPU meanwhile, where there is one and `--device` may mean it.

    What torch asks for later it then has. Whatever is wrong, torch will say.
    """
    if device in ("auto", "cuda"):
        os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")  # as torch sets it, too late for this
        Thread(target=_set_up, daemon=True).start()


def _set_up():
    try:
        driver = ctypes.CDLL("nvcuda.dll" if WINDOWS else "libcuda.so.1")
    except OSError:  # there is none
        return
    if driver.cuInit(0) == 0:
        driver.cuDevicePrimaryCtxRetain(ctypes.byref(ctypes.c_void_p()), 0)
