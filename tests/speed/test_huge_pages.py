"""Memory in huge pages: it holds what it held, and more of it is in them where the kernel can."""

import ctypes
import mmap
import subprocess
import sys
from pathlib import Path
from threading import Timer

import pytest

from gpt2_korean.speed import huge_pages
from gpt2_korean.speed.huge_pages import COLLAPSE, PAGE, use_huge_pages, use_huge_pages_later


def block(content):
    """Memory of this process alone, as large as `content`, in small pages where the kernel leaves it to us."""
    memory = mmap.mmap(-1, len(content), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(content)
    return memory


def in_huge_pages():
    """Bytes of this process."""
    return 1024 * int(Path("/proc/self/smaps_rollup").read_text("utf-8").split("AnonHugePages:")[1].split()[0])


def can_collapse():
    memory = block(b"a" * 2 * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    return madvise(start - start % -PAGE, PAGE, COLLAPSE) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone is asked for huge pages")
def test_what_is_in_memory_stays_as_it_is(rng):
    content = rng.randbytes(8 * PAGE)
    memory = block(content)
    use_huge_pages()
    assert memory[:] == content


@pytest.mark.skipif(sys.platform != "linux" or not can_collapse(), reason="this kernel has no huge pages")
def test_large_blocks_are_put_into_huge_pages():
    use_huge_pages()
    before, memory = in_huge_pages(), block(b"a" * 16 * PAGE)
    use_huge_pages()
    assert in_huge_pages() >= before + 14 * PAGE and memory[:1] == b"a"


def test_they_are_made_once_and_not_at_once(monkeypatch):
    begun = []
    monkeypatch.setattr(Timer, "start", lambda timer: begun.append(timer))
    use_huge_pages_later.cache_clear()
    for _ in range(3):
        use_huge_pages_later()
    (timer,) = begun
    assert timer.interval == huge_pages.LATER and timer.function is use_huge_pages


def test_a_process_that_ends_before_does_not_wait_for_them():
    code = "from gpt2_korean.speed import huge_pages as h; h.LATER = 600; h.use_huge_pages_later()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
