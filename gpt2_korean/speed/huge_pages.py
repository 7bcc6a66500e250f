"""Memory in pages of 2 MiB. A step reads all weights, and in pages of 4 KiB the processor has to look up each next one.
Most Linux systems give larger pages only to programs that ask for them.
"""

import ctypes
from functools import cache
from pathlib import Path
from threading import Timer

PAGE = 2**21
COLLAPSE = 25  # MADV_COLLAPSE, since Linux 6.1
LATER = 30  # seconds: who has written for so long will write on, and win back the one or two that it takes


@cache
def use_huge_pages_later():
    """Call use_huge_pages once in this process, in a thread: by then its user most often reads a text."""
    timer = Timer(LATER, use_huge_pages)
    timer.daemon = True  # no process waits for it to end
    timer.start()


def use_huge_pages():
    """Put what this process has in memory into huge pages where it fills them; nothing happens where there are none."""
    maps = Path("/proc/self/maps")
    if not maps.exists():  # Linux alone
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    for line in maps.read_text("utf-8", "replace").splitlines():
        addresses, rights, _, _, file, *name = line.split(maxsplit=5)
        start, end = (int(address, 16) for address in addresses.split("-"))
        if rights == "rw-p" and file == "0" and name in ([], ["[heap]"]) and end - start >= PAGE:
            madvise(start, end - start, COLLAPSE)  # what it cannot do it leaves as it is
