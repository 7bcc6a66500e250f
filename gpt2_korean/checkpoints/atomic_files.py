"""A file or folder is whole or invisible: written beside, synced to the disk, then renamed.

What is still being written or removed lies in `_unfinished` of the output folder. No tool takes that name
for a checkpoint, and Trainer's uploads leave out names that begin with an underscore.
"""

import contextlib
import os
import shutil
import stat
import time
from functools import partial
from pathlib import Path

from gpt2_korean.messages import is_in_use
from gpt2_korean.windows import WINDOWS

UNFINISHED = "_unfinished"
PATIENCE_SECONDS = 5  # for a program that has a file open on Windows: a scanner of viruses looks at each new one


def staging_area(output_dir, name=UNFINISHED):
    """The folder in which what is to become part of `output_dir` is written; `output_dir` must be there.

    name: another one for what is written while a run may work there, which clears its own.
    """
    area = Path(output_dir) / name
    if area.is_symlink() or area.is_file():  # what is written through a link would lie elsewhere
        area.unlink()
    area.mkdir(exist_ok=True)
    return area


def clear_staging_area(output_dir):
    """Remove what a killed run left half-written or half-removed."""
    shutil.rmtree(Path(output_dir) / UNFINISHED, ignore_errors=True)


def tidy_staging_area(output_dir):
    """Remove the staging area where nothing is in it."""
    with contextlib.suppress(OSError):
        (Path(output_dir) / UNFINISHED).rmdir()


def sync(folder):
    """Return once all files below `folder` are on the disk, to be read by whom the umask lets."""
    umask = os.umask(0o077)  # cannot be asked without being set
    os.umask(umask)
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            with contextlib.suppress(OSError):  # some file systems have one mode for all
                # safetensors gives its files to their owner alone
                path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o666 & ~umask)
            _sync_path(path)
        _sync_path(root)


def rename_into_place(folder, target):
    """Make a synced folder visible as `target`, which must not exist: before or after, never half."""
    move(folder, target, os.rename)
    _sync_path(target.parent)


def replace_files(folder, target, order):
    """Move the synced files of `folder` into the folder `target` one by one, sorted by `order` (path → number)."""
    for path in sorted(folder.iterdir(), key=lambda path: (order(path), path.name)):
        move(path, target / path.name)
    folder.rmdir()
    _sync_path(target)


def write_file(path, content):
    """Write `path` (a str as UTF-8, or bytes) so that it holds the old content or the new one, whatever happens."""
    try:
        beside = staging_area(path.parent) / path.name
        remove(beside)
        try:
            with beside.open("xb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
            _sync_path(beside)
            move(beside, path)
        finally:
            remove(beside)  # half of it, where the disk is full
            tidy_staging_area(path.parent)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk is told of without
        raise


def move(source, target, change=os.replace):
    """Rename a file or folder; an OSError names the one of the two that stands in the way."""
    try:
        patiently(change, source, target)
    except OSError as error:
        error.filename, error.filename2 = str(target if os.path.lexists(target) else source), None
        raise


def remove(path):
    """Delete a file, where it is there."""
    patiently(partial(path.unlink, missing_ok=True))


def patiently(change, *paths):
    """change(*paths), tried for some seconds where Windows refuses it since a program has a file of them open."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return change(*paths)
        except PermissionError as error:
            if not is_in_use(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def _sync_path(path):
    # No folder is opened on Windows, nor synced on many a network's drive, which refuses it in words of its own each.
    with contextlib.suppress(OSError) if os.path.isdir(path) else contextlib.nullcontext():
        descriptor = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)  # there none that is open to be read alone
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
