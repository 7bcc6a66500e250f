"""The control groups of this process, as a container or a batch job has them: its share of memory and of cores."""

import contextlib
import math
from pathlib import Path

# Of version 2 and 1: what tells the limit of a group's memory, and what of memory.stat is taken of it.
MEMORY = {2: ("memory.max", "anon"), 1: ("memory.limit_in_bytes", "total_rss")}


def memory_left(root=Path("/")):
    """Yield how many bytes each group may still take.

    The system kills a process that takes more. It frees cached files first, so these do not count.
    """
    for version, group in _groups("memory", root):
        limit, taken = MEMORY[version]
        with contextlib.suppress(OSError, ValueError, LookupError):  # without a limit, or not to be seen
            counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            yield int((group / limit).read_text()) - int(counts[taken])


def core_limit(root=Path("/")):
    """How many cores' time the process may take, a part counted as a whole; None where nothing limits it."""
    shares = []
    for version, group in _groups("cpu", root):
        files = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        with contextlib.suppress(OSError, ValueError):  # without a limit, or not to be seen
            quota, period = map(int, " ".join((group / file).read_text() for file in files).split())
            shares += [quota / period] if quota > 0 else []
    return math.ceil(min(shares)) if shares else None


def _groups(controller, root):
    """Yield `(version, folder)` of each group that may limit what `controller` gives."""
    file = root / "proc/self/cgroup"
    for line in file.read_text().splitlines() if file.exists() else ():
        _, kinds, place = line.split(":", 2)
        if not kinds or controller in kinds.split(","):
            folder = root / "sys/fs/cgroup" / (controller if kinds else "") / place.lstrip("/")
            for group in (folder, *folder.parents):  # in a container its own is the topmost
                yield 1 if kinds else 2, group
