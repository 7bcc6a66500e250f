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
PATIENCE_SECONDS = 5  # of retrying on Windows while another program, often a virus scanner, has a file open


def staging_area(output_dir, name=UNFINISHED):
    """The folder in which what is to become part of `output_dir` is written; `output_dir` must be there.

    name: a caller that may work beside a training run gives its own, since a run clears the default one.
    """
    area = Path(output_dir) / name
    if area.is_symlink() or area.is_file():  # writing through a link would put the files elsewhere
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
    """Flush all files below `folder` to the disk, and give them the permissions that the umask allows."""
    umask = os.umask(0o077)  # can only be read by setting it
    os.umask(umask)
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            with contextlib.suppress(OSError):  # some file systems have no modes
                # safetensors makes files that only their owner can read
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
        error.filename = error.filename or str(path)  # the error of a full disk names none
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
    """Call change(*paths); retry for some seconds while Windows refuses because a program has a file open."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return change(*paths)
        except PermissionError as error:
            if not is_in_use(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def _sync_path(path):
    # Windows cannot open a folder, and many network drives cannot sync one; each fails with an error of its own.
    with contextlib.suppress(OSError) if os.path.isdir(path) else contextlib.nullcontext():
        descriptor = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)  # Windows syncs no read-only file
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
