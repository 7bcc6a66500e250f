"""One run at a time in an output folder."""

import errno
import os
import shutil
import time
from types import SimpleNamespace

import pytest
from conftest import hold_output_dir

from gpt2_korean.checkpoints import lock
from gpt2_korean.checkpoints.lock import own_output_dir
from gpt2_korean.messages import UserError


def test_two_runs_in_one_output_dir_are_told_apart_and_a_dead_one_holds_nothing(
    resumable_words, tmp_path, run_main, monkeypatch
):
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setenv("PBS_JOBID", "4711.pbs-host.example")
    holder = hold_output_dir(tmp_path / "out")
    code, _, err = run_main(*resumable_words)
    assert code == 1 and "--output_dir" in err and "작업 4711" in err and f"프로세스 {holder.pid}" in err
    assert "pbs-host" not in err and "pbs-host" not in (tmp_path / "out" / "_lock").read_text()
    holder.kill()
    monkeypatch.undo()
    assert run_main(*resumable_words)[0] == 0
    holder.wait()
    assert not list((tmp_path / "out").glob("_*"))


def test_the_lock_of_another_user_is_heeded_while_its_run_lives_and_no_longer(tmp_path, monkeypatch):
    """In the folder of a group it may be read and removed, and not be written to."""
    holder = hold_output_dir(tmp_path / "out")
    path, opens = tmp_path / "out" / "_lock", lock._open_no_link

    def refuse(name, flags):
        if flags & os.O_RDWR and path.exists() and f'"process": {holder.pid}' in path.read_text():
            raise PermissionError(13, "Permission denied", name)
        return opens(name, flags)

    monkeypatch.setattr(lock, "_open_no_link", refuse)
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.2)
    with pytest.raises(UserError, match=f"다른 학습.프로세스 {holder.pid}"), own_output_dir(tmp_path / "out"):
        pass
    holder.kill()
    holder.wait()
    with own_output_dir(tmp_path / "out"):
        assert f'"process": {os.getpid()}' in path.read_text()
    assert not path.exists()


def test_a_run_that_wrote_nothing_leaves_nothing_and_takes_no_folder_that_was_there(tmp_path, monkeypatch):
    there, opened, opens = tmp_path / "models", [], lock._open
    monkeypatch.setattr(lock, "_open", lambda path: opened.append(path) or opens(path))
    for out in (there, there / "한국어" / "1"):
        (there / "_unfinished" / "checkpoint-1").mkdir(parents=True, exist_ok=True)  # of a run that was killed
        with own_output_dir(out):
            assert (out / "_lock").exists() and (there / "_unfinished").exists() == (out != there)
        shutil.rmtree(there / "_unfinished", ignore_errors=True)
        assert [*tmp_path.rglob("*")] == [there]
    with own_output_dir(there / "1"):
        (there / "1" / "config.json").touch()
    assert [*there.rglob("*")] == [there / "1", there / "1" / "config.json"]
    assert len(opened) == 3  # nobody was waited for


def test_a_lock_that_was_removed_and_made_anew_since_it_was_opened_is_not_the_one_held(tmp_path, monkeypatch):
    """As by a run that was just ending and one that begins: two would hold a lock each."""
    path, holds = tmp_path / "_lock", lock._hold

    def hold(file, alone=True):
        monkeypatch.setattr(lock, "_hold", holds)
        path.unlink()
        path.write_text("{}")
        holds(file, alone)

    monkeypatch.setattr(lock, "_hold", hold)
    with own_output_dir(tmp_path):
        assert f'"process": {os.getpid()}' in path.read_text()


def test_a_lock_that_is_a_link_is_refused_by_name_and_empties_nothing(resumable_words, tmp_path, run_main):
    (tmp_path / "out").mkdir()
    for content in ("내 글", None):
        mine = tmp_path / f"{content}.txt"
        if content:
            mine.write_text(content)
        (tmp_path / "out" / "_lock").symlink_to(mine)
        code, _, err = run_main(*resumable_words)
        assert code == 2 and "_lock" in err and "--output_dir" in err and "Traceback" not in err
        assert mine.exists() == bool(content) and (not content or mine.read_text() == content)
        (tmp_path / "out" / "_lock").unlink()
    assert run_main(*resumable_words, "--max_steps=1")[0] == 0


def test_a_run_that_was_killed_just_now_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 60)
    holder = hold_output_dir(tmp_path / "out", seconds=0.5)
    with own_output_dir(tmp_path / "out"):
        assert (tmp_path / "out" / "_lock").exists()
    assert holder.wait() == 0


def test_a_drive_that_gives_a_file_a_new_number_each_time_holds_up_no_run(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.05)
    end = time.monotonic() + 60

    def are_other_files(*_):
        assert time.monotonic() < end
        return False

    monkeypatch.setattr(os.path, "samestat", are_other_files)
    with own_output_dir(tmp_path / "out"):
        assert (tmp_path / "out" / "_lock").exists()


def test_a_run_that_ends_on_another_node_meanwhile_ends_no_run_that_waits_for_it(tmp_path, monkeypatch, capsys):
    """NFS has a number of its own for a lock that was removed from elsewhere."""
    hold, refused = lock._hold, []

    def refuse_once(file, alone=True):
        if not refused:
            refused.append(True)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        hold(file, alone)

    monkeypatch.setattr(lock, "_hold", refuse_once)
    with own_output_dir(tmp_path / "out"):
        assert refused and (tmp_path / "out" / "_lock").exists()
    assert not capsys.readouterr().err


def test_a_drive_that_never_knows_the_lock_again_ends_a_run_with_the_folder(tmp_path, monkeypatch):
    tries = []

    def refuse(*_, **__):
        tries.append(True)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(lock, "_hold", refuse)
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 2)
    monkeypatch.setattr(lock, "time", SimpleNamespace(monotonic=lambda: len(tries), sleep=lambda _: None))
    with pytest.raises(OSError, match="out") as failure, own_output_dir(tmp_path / "out"):
        pass
    assert failure.value.errno == errno.ESTALE and len(tries) == 3


def test_on_a_drive_without_locks_a_run_says_so_and_goes_on(tmp_path, monkeypatch, capsys):
    def refuse(*_, **__):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock, "_hold", refuse)
    with own_output_dir(tmp_path / "out"):
        assert f'"process": {os.getpid()}' in (tmp_path / "out" / "_lock").read_text()
    assert capsys.readouterr().err.count("잠금이 없는 파일 시스템") == 1
    (tmp_path / "_lock").write_text("{}")
    assert lock.describe_run(tmp_path) is None  # nobody knows


@pytest.mark.parametrize("content", ["", "{}", "[]", "글"])
def test_a_lock_that_does_not_tell_whose_it_is_is_one_all_the_same(tmp_path, monkeypatch, content):
    (tmp_path / "_lock").write_text(content, "utf-8")
    assert lock.describe_run(tmp_path) is None

    def refuse(*_, **__):
        raise BlockingIOError

    monkeypatch.setattr(lock, "_hold", refuse)
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0)
    assert lock.describe_run(tmp_path) == "아직 학습하는 중이고 저장된 것이 없습니다."
    with pytest.raises(UserError, match="다른 학습이 쓰고"), own_output_dir(tmp_path):
        pass
    assert (tmp_path / "_lock").read_text("utf-8") == content


def test_a_full_disk_is_told_with_the_folder_and_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("waited"))
    resource = pytest.importorskip("resource")  # Windows has none
    most, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(OSError, match="too large") as failure, own_output_dir(tmp_path / "out"):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    assert failure.value.filename == str(tmp_path / "out")
