"""A file or folder is whole or invisible: written beside, synced to the disk, then renamed.

What is still being written or removed lies in `_unfinished` of the output folder. No tool takes that name
for a checkpoint, and Trainer's uploads leave out names that begin with an underscore.
"""

import contextlib
import os
import shutil
from pathlib import Path

UNFINISHED = "_unfinished"


def staging_area(output_dir):
    """The folder in which what is to become part of `output_dir` is written; `output_dir` must be there."""
    area = Path(output_dir) / UNFINISHED
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
    """Return once all files below `folder` are on the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            _sync_path(Path(root) / name)
        _sync_path(root)


def rename_into_place(folder, target):
    """Make a synced folder visible as `target`, which must not exist: before or after, never half."""
    os.rename(folder, target)
    _sync_path(target.parent)


def replace_files(folder, target, last=()):
    """Move the synced files of `folder` into the folder `target` one by one, those named in `last` after the others."""
    order = {name: position for position, name in enumerate(last, 1)}
    for path in sorted(folder.iterdir(), key=lambda path: (order.get(path.name, 0), path.name)):
        if path.is_dir():
            shutil.copytree(path, target / path.name, dirs_exist_ok=True)
            shutil.rmtree(path)
        else:
            os.replace(path, target / path.name)
    folder.rmdir()
    _sync_path(target)


def write_file(path, content):
    """Write `path` (a str as UTF-8, or bytes) so that it holds the old content or the new one, whatever happens."""
    beside = staging_area(path.parent) / path.name
    beside.write_bytes(content.encode() if isinstance(content, str) else content)
    _sync_path(beside)
    os.replace(beside, path)
    tidy_staging_area(path.parent)


def _sync_path(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
