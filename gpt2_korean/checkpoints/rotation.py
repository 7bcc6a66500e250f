"""What becomes of the checkpoints and models that stand in an output folder when a newer one comes."""

import errno
import os
import secrets
import shutil
from pathlib import Path

from gpt2_korean.checkpoints import atomic_files
from gpt2_korean.checkpoints.complete import (
    ADAPTER,
    AVERAGE,
    CARD,
    CHECKPOINT,
    CURVE,
    RESUME,
    STATE,
    WEIGHTS,
    has_weights,
    is_our_card,
    read_resume,
    whole_checkpoints,
)
from gpt2_korean.messages import is_in_use, warn

# How file systems refuse to rename a folder: a mounted bucket (gcsfuse), an image's layer below a container's.
NO_RENAME = (errno.EMFILE, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV)
REPLACES = "replaces_earlier_run"  # in a checkpoint: what an earlier run left beside it is still to be removed
ESSENTIAL = (STATE, "config.json", "adapter_config.json")  # without them a folder is not whole, no model, no adapter

# All that Trainer, save_pretrained and train.py write into a folder of a model or checkpoint. Files are removed in this
# order and published in the reverse one: the marks of a model are never there without the rest, and the weights are
# there as long as any other file, since leftovers are recognised by them.
RUN_FILES = (
    *ESSENTIAL,
    REPLACES,
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "training_args.bin",
    RESUME,
    CURVE,
    AVERAGE,
    "optimizer*.pt",
    "optimizer*.bin",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*.pth",
    *WEIGHTS,
)


def publish_checkpoint(checkpoint, target, saved_before):
    """Make the synced folder `checkpoint` visible as `target`.

    saved_before: whether this run has saved this very step before. What an earlier run left beside one that is marked
    as REPLACES is deleted: only now, so that whatever ends a run before its first save, the old model is still there.
    """
    publish(checkpoint, target, replaced=not saved_before)
    if (target / REPLACES).exists():
        remove_earlier_run(target.parent, keep=target)
    atomic_files.tidy_staging_area(target.parent)


def publish(folder, target, replaced=True):
    """Make the synced `folder` visible as `target`; what a run wrote there before is removed, if it is `replaced`."""
    if replaced or target.is_symlink():
        remove_checkpoint(target)
    if not target.exists():  # else it is this very step, saved once more, or a folder that holds files of the user's
        try:
            return atomic_files.rename_into_place(folder, target)
        except OSError as error:
            if error.errno not in NO_RENAME:
                raise
        target.mkdir()
    atomic_files.replace_files(folder, target, _publication_order)


def publish_model(folder, output_dir):
    """Move the synced files of a model, and its adapter, from `folder` into `output_dir`: no half model is visible."""
    for name in ESSENTIAL:
        atomic_files.remove(output_dir / name)
    if (folder / ADAPTER).is_dir():
        publish(folder / ADAPTER, output_dir / ADAPTER)
    atomic_files.replace_files(folder, output_dir, _publication_order)


def finish_what_a_killed_run_began(output_dir):
    """Remove what a killed run left half-written, and what it had yet to remove of the run that it replaces."""
    marked = [checkpoint for checkpoint in whole_checkpoints(output_dir) if (checkpoint / REPLACES).exists()]
    if marked:
        remove_earlier_run(output_dir, keep=marked[-1])
    atomic_files.clear_staging_area(output_dir)


def remove_earlier_run(output_dir, keep):
    """Delete the model and all checkpoints but `keep` of `output_dir`, file by file: what no run wrote stays."""
    output_dir, keep = Path(output_dir), Path(keep)
    for path in output_dir.glob("checkpoint-*"):
        if CHECKPOINT.fullmatch(path.name) and path != keep:
            remove_checkpoint(path)
    if has_weights(output_dir):
        remove_run_files(output_dir)
    atomic_files.remove(output_dir / CURVE)  # a run that was stopped leaves one beside no model
    remove_checkpoint(output_dir / ADAPTER)
    atomic_files.remove(keep / REPLACES)


def drop_old_checkpoints(output_dir, limit, keep=None):
    """Delete all but the newest `limit` whole checkpoints (None: all of them) and `keep` (a folder, or None).

    One that was saved only for being the best so far does not count: it goes once it is neither that nor the newest.
    """
    whole = whole_checkpoints(output_dir)
    wanted = [path for path in whole if not read_resume(path).get("only_best")]
    kept = [*(wanted if limit is None else wanted[-limit:]), *whole[-1:], *([keep] if keep else [])]
    kept = {Path(path).resolve() for path in kept}
    for path in whole:
        if path.resolve() in kept:
            continue
        try:
            remove_checkpoint(path)
        except PermissionError as error:  # one that a user protects, or another's, is no reason to end a run
            why = "다른 프로그램이 열어 두어" if is_in_use(error) else "권한이 없어"
            warn(f"{path}: {why} 지우지 못했습니다. 다음에 저장할 때 다시 지웁니다.")


def remove_checkpoint(folder):
    """Delete a checkpoint, at once for all who look; its folder stays only where a file in it is not a run's."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.is_dir() and all(map(_is_run_file, folder.iterdir())):
        # A new name each time: under an old one NFS and FUSE may still keep a file that a program has open.
        removed = atomic_files.staging_area(folder.parent) / f"removed-{secrets.token_hex(8)}"
        try:
            atomic_files.move(folder, removed, os.rename)
        except OSError as error:
            if error.errno not in NO_RENAME:
                raise
            remove_run_files(removed := folder)  # the marks of a whole one first
        shutil.rmtree(removed, ignore_errors=True)  # what is left of it goes at the next start
        atomic_files.tidy_staging_area(folder.parent)
    else:
        remove_run_files(folder)
        if is_our_card(folder / CARD):  # an adapter's, which is of no use alone
            (folder / CARD).unlink()


def remove_run_files(folder):
    """Delete the files of `folder` that a training run writes, and nothing else."""
    for pattern in RUN_FILES:
        for path in Path(folder).glob(pattern):
            atomic_files.remove(path)


def _is_run_file(path):
    return path.is_file() and (any(path.match(pattern) for pattern in RUN_FILES) or is_our_card(path))


def _publication_order(path):
    return -next((position for position, pattern in enumerate(RUN_FILES) if path.match(pattern)), len(RUN_FILES))
