"""What is written is whole, one's own, and readable by whom the umask lets; no link leads it elsewhere."""

import errno
import os
import stat

import pytest
import torch
from safetensors.torch import save_file

from gpt2_korean.checkpoints import atomic_files, complete, rotation


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077, 0o007, 0o000])
def test_files_have_the_mode_that_the_umask_gives_whoever_wrote_them(tmp_path, umask):
    before = os.umask(umask)
    try:
        (tmp_path / "made" / "adapter").mkdir(parents=True)
        for folder in (tmp_path / "made", tmp_path / "made" / "adapter"):
            save_file({"x": torch.ones(2)}, folder / "model.safetensors")
            (folder / "config.json").write_text("{}")
        atomic_files.sync(tmp_path / "made")
        atomic_files.write_file(tmp_path / "run.json", "{}")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 5 and {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o666 & ~umask}


def test_a_run_and_its_adapter_are_readable_by_others(train_words, tmp_path, run_main):
    words = ["train.py", *train_words, "--do_train", "--max_steps=1", "--report_to=none", "--lora_rank=2"]
    before = os.umask(0o022)
    try:
        assert run_main(*words)[0] == 0
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {"model.safetensors", "adapter_model.safetensors"} <= {path.name for path in files}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o644}


NAMES = ("_unfinished", "run.json", "README.md", "training_curve.png", "model.safetensors", "config.json", "adapter")


@pytest.mark.parametrize("kind", ["file", "folder", "nothing"])
def test_nothing_is_written_through_a_link(train_words, tmp_path, run_main, kind):
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    for name in (*NAMES, "checkpoint-1", "checkpoint-2"):
        target = outside / name
        if kind == "file":
            target.write_text("남의 것")
        elif kind == "folder":
            target.mkdir()
            (target / "config.json").write_text("남의 것")
        (out / name).symlink_to(target)
    before = {path: path.read_text() for path in outside.rglob("*") if path.is_file()}
    words = ["train.py", *train_words, "--do_train", "--max_steps=2", "--save_steps=1", "--logging_steps=1"]
    code, _, err = run_main(*words, "--report_to=none", "--lora_rank=2", "--overwrite_output_dir")
    assert code == 0, err
    assert {path: path.read_text() for path in outside.rglob("*") if path.is_file()} == before
    left = {path.name for path in out.iterdir() if path.is_symlink()}
    assert left == (set() if kind == "nothing" else {"README.md"})  # somebody's own stays
    assert all((out / name).exists() for name in NAMES[1:])


def test_a_file_planted_beside_is_not_written_through(tmp_path):
    (tmp_path / "mine").write_text("내 것")
    (atomic_files.staging_area(tmp_path) / "run.json").symlink_to(tmp_path / "mine")
    atomic_files.write_file(tmp_path / "run.json", "{}")
    assert (tmp_path / "mine").read_text() == "내 것" and (tmp_path / "run.json").read_text() == "{}"
    (tmp_path / "_unfinished").write_text("")
    atomic_files.write_file(tmp_path / "run.json", "[]")
    assert (tmp_path / "run.json").read_text() == "[]"


def test_a_full_disk_is_told_with_the_file_and_nothing_is_left_beside(tmp_path, monkeypatch):
    def no_space(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space") as failure:
        atomic_files.write_file(tmp_path / "run.json", "{}")
    assert failure.value.filename == str(tmp_path / "run.json") and not list(tmp_path.iterdir())


def test_what_becomes_visible_is_on_the_disk_and_so_is_its_name(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    made, target = tmp_path / "made", tmp_path / "out" / "checkpoint-1"
    (made / "adapter").mkdir(parents=True)
    target.parent.mkdir()
    for folder in (made, made / "adapter"):
        (folder / "config.json").write_text("{}")
    atomic_files.sync(made)
    assert {path.stat().st_ino for path in (made, *made.rglob("*"))} == set(synced)
    atomic_files.rename_into_place(made, target)
    assert synced[-1] == target.parent.stat().st_ino
    atomic_files.replace_files(target, target.parent, lambda path: 0)
    assert synced[-1] == target.parent.stat().st_ino and len(synced) == 6


def test_a_rename_that_fails_names_what_stands_in_the_way(tmp_path):
    (tmp_path / "made").write_text("")
    (tmp_path / "there").mkdir()
    for source, target, named in (("made", "there", "there"), ("lost", "new", "lost")):
        with pytest.raises(OSError, match=named) as failure:
            atomic_files.move(tmp_path / source, tmp_path / target)
        assert failure.value.filename == str(tmp_path / named) and failure.value.filename2 is None


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO, errno.ENOTSUP])
def test_a_drive_that_syncs_no_folder_and_knows_no_modes_keeps_what_is_written(tmp_path, monkeypatch, number):
    """As SMB, WSL's drives and mounted buckets: what they refuse is no reason to lose a checkpoint."""
    sync = os.fsync

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    def sync_files(descriptor):
        return refuse() if stat.S_ISDIR(os.fstat(descriptor).st_mode) else sync(descriptor)

    (tmp_path / "made").mkdir()
    save_file({"x": torch.ones(2)}, tmp_path / "made" / "model.safetensors")
    monkeypatch.setattr(os, "fsync", sync_files)
    monkeypatch.setattr(type(tmp_path), "chmod", refuse)
    atomic_files.sync(tmp_path / "made")
    atomic_files.rename_into_place(tmp_path / "made", tmp_path / "checkpoint-1")
    atomic_files.write_file(tmp_path / "run.json", "{}")
    assert (tmp_path / "run.json").read_text() == "{}"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOSYS, errno.EXDEV])
def test_where_no_folder_is_renamed_a_checkpoint_comes_and_goes_file_by_file(tmp_path, monkeypatch, number):
    """As in a mounted bucket (gcsfuse) and in the layers of an image: the mark of a whole one comes last."""
    rename, moved, move = os.rename, [], atomic_files.move

    def rename_files(source, target):
        if os.path.isdir(source):
            raise OSError(number, os.strerror(number))
        rename(source, target)

    monkeypatch.setattr(os, "rename", rename_files)
    made, target = tmp_path / "_unfinished" / "checkpoint-1", tmp_path / "checkpoint-1"
    made.mkdir(parents=True)
    names = ["trainer_state.json", "config.json", "optimizer.pt", "model.safetensors"]
    for name in names:
        (made / name).write_text(name)
    monkeypatch.setattr(atomic_files, "move", lambda path, *others: moved.append(path.name) or move(path, *others))
    rotation.publish_checkpoint(made, target, saved_before=False)
    assert sorted(path.name for path in target.iterdir()) == sorted(names)
    assert moved == ["checkpoint-1", "model.safetensors", "optimizer.pt", "config.json", "trainer_state.json"]
    rotation.remove_checkpoint(target)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mine", [None, "메모.txt"])
def test_an_adapter_is_replaced_as_a_whole_and_what_is_not_a_runs_stays(tmp_path, mine):
    old, new = tmp_path / "adapter", tmp_path / "_unfinished" / "model"
    (new / "adapter").mkdir(parents=True)
    old.mkdir()
    for folder, names in ((old, ["adapter_config.json", "merges.txt"]), (new / "adapter", ["adapter_config.json"])):
        for name in names:
            (folder / name).write_text(folder.parent.name)
    (old / "README.md").write_text(complete.CARD_MARK)
    if mine:
        (old / mine).write_text("내 것")
    (new / "config.json").write_text("{}")
    rotation.publish_model(new, tmp_path)
    found = {path.name: path.read_text() for path in old.iterdir()}
    assert found == {"adapter_config.json": "model", **({mine: "내 것"} if mine else {})}


def test_while_the_files_of_a_model_come_the_folder_is_none(tmp_path, monkeypatch):
    seen, move = [], atomic_files.move

    def look(source, target):
        seen.append((target.name, (target.parent / "config.json").exists()))
        move(source, target)

    for folder in (tmp_path, tmp_path / "made"):
        folder.mkdir(exist_ok=True)
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            (folder / name).write_text(folder.name)
    monkeypatch.setattr(atomic_files, "move", look)
    rotation.publish_model(tmp_path / "made", tmp_path)
    assert seen == [("model.safetensors", False), ("tokenizer.json", False), ("config.json", False)]
    assert {path.read_text() for path in tmp_path.iterdir()} == {"made"}
