"""Nothing saved is lost: what stands in an output folder is found, refused or replaced, file by file."""

import errno
import json
import os
import shutil
import unicodedata
import zipfile
from pathlib import Path

import pytest
import safetensors

from gpt2_korean.checkpoints import complete, going_on, rotation
from gpt2_korean.messages import UsageError, UserError
from gpt2_korean.model.find import find_model


def make_checkpoint(folder, step, last_step=100, shape=4):
    import numpy
    from safetensors.numpy import save_file

    folder = folder / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    save_file({"w": numpy.zeros(shape, numpy.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "max_steps": last_step}))
    return folder


def test_an_earlier_run_is_refused_by_name_with_both_ways_on(tmp_path):
    make_checkpoint(tmp_path, 500)
    make_checkpoint(tmp_path, 1000)
    with pytest.raises(UsageError) as refusal:
        going_on.find_starting_point(tmp_path, overwrite=False, resume=None)
    for word in ("checkpoint-500", "checkpoint-1000", "--overwrite_output_dir", "--resume_from_checkpoint"):
        assert word in str(refusal.value)
    assert going_on.find_starting_point(tmp_path, overwrite=True, resume=None) is None


def test_of_a_run_with_many_checkpoints_the_newest_are_named(tmp_path):
    for step in range(1, 31):
        make_checkpoint(tmp_path, step)
    for words in ({"resume": None}, {"resume": str(tmp_path / "checkpoint-31")}):
        with pytest.raises(UsageError, match=r"checkpoint-30, .*checkpoint-29, .* 등") as refusal:
            going_on.find_starting_point(tmp_path, overwrite=False, **words)
        assert str(refusal.value).count("checkpoint-") <= 7
    (tmp_path / "checkpoint-30" / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"checkpoint-29, .* 등"):
        find_model(str(tmp_path / "checkpoint-30"))


def test_a_run_that_may_not_be_deleted_is_not_overwritten_but_gone_on_from(tmp_path, monkeypatch):
    """As another's of one's group is: its first save would end the new run, and each start after that."""
    checkpoint = make_checkpoint(tmp_path, 500)
    monkeypatch.setattr(os, "access", lambda path, mode: path != checkpoint or not mode & os.W_OK)
    with pytest.raises(UsageError, match=r"--output_dir.*checkpoint-500.*권한"):
        going_on.find_starting_point(tmp_path, overwrite=True, resume=None)
    assert going_on.find_starting_point(tmp_path, overwrite=True, resume="auto") == checkpoint


def test_who_begins_anew_what_is_not_over_is_told_how_to_go_on(tmp_path, capsys):
    make_checkpoint(tmp_path, 250)
    checkpoint = make_checkpoint(tmp_path, 500)
    assert going_on.find_starting_point(tmp_path, overwrite=True, resume=None) is None
    told = capsys.readouterr().err
    assert all(word in told for word in (str(checkpoint), "--overwrite_output_dir", "--resume_from_checkpoint=auto"))
    assert told.count("주의:") == 1
    shutil.copy(checkpoint / "model.safetensors", tmp_path)  # as at the end of a run
    assert going_on.find_starting_point(tmp_path, overwrite=True, resume=None) is None
    assert capsys.readouterr().err == ""


def test_a_folder_without_a_model_is_no_earlier_run(tmp_path):
    (tmp_path / "메모.txt").write_text("내 것")
    (tmp_path / "checkpoint-5").mkdir()
    assert going_on.find_starting_point(tmp_path, False, None) is None
    assert going_on.find_starting_point(tmp_path / "새 폴더", False, "auto") is None


def test_resuming_takes_the_newest_whole_checkpoint_whatever_the_names_say(tmp_path):
    whole = make_checkpoint(tmp_path, 500)
    half = make_checkpoint(tmp_path, 1000)
    (half / "trainer_state.json").unlink()
    cut = make_checkpoint(tmp_path, 1500)
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert going_on.find_starting_point(tmp_path, True, "auto") == whole
    assert going_on.find_starting_point(tmp_path, False, str(whole)) == whole
    for broken in (half, cut, tmp_path / "checkpoint-7"):
        with pytest.raises(UsageError, match=r"온전한.*checkpoint-500"):
            going_on.find_starting_point(tmp_path, False, str(broken))


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "training_args.bin"])
def test_a_checkpoint_with_half_a_state_is_not_whole(tmp_path, name):
    path = make_checkpoint(tmp_path, 500) / name
    with zipfile.ZipFile(path, "w") as file:  # as torch.save writes
        file.writestr("archive/data.pkl", "0" * 100)
    assert complete.is_resumable(path.parent)
    path.write_bytes(path.read_bytes()[:-50])
    assert not complete.is_resumable(path.parent)


def test_each_checkpoint_that_is_passed_over_is_told_be_its_name_the_beginning_of_anothers(tmp_path, capsys):
    whole, half, spoilt = (make_checkpoint(tmp_path, step) for step in (5, 50, 500))
    (half / "trainer_state.json").unlink()
    (spoilt / "config.json").unlink()
    assert going_on.find_starting_point(tmp_path, False, "auto") == whole
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and all(any(f"{each}: " in line for line in told) for each in (half, spoilt))


def test_each_checkpoint_past_the_one_that_is_gone_on_from_is_told_and_no_other(tmp_path, capsys):
    for step in (100, 1500):
        (make_checkpoint(tmp_path, step) / "trainer_state.json").unlink()
    for step, started in ((500, 5.5), (1000, 1.5), (2000, "x")):  # to 500 the run of 1000 has gone back
        (make_checkpoint(tmp_path, step) / "resume.json").write_text(json.dumps({"started": started}))
    assert going_on.find_starting_point(tmp_path, False, "auto") == tmp_path / "checkpoint-500"
    half, unreadable = sorted(capsys.readouterr().err.splitlines())
    assert f"{tmp_path / 'checkpoint-1500'}: 온전한 체크포인트가 아닙니다" in half
    assert f"{tmp_path / 'checkpoint-2000'}: resume.json" in unreadable


@pytest.mark.parametrize("number", [errno.ENODEV, errno.ENOMEM, errno.EIO])
def test_weights_that_cannot_be_opened_now_are_not_taken_for_half_ones_and_replaced(tmp_path, monkeypatch, number):
    """As on a drive that maps no file, or under a limit of memory: safetensors tells the system's number in words."""
    made = make_checkpoint(tmp_path, 500)

    def refuse(path, **_):
        raise OSError(f"{os.strerror(number)} (os error {number})")

    monkeypatch.setattr(safetensors, "safe_open", refuse)
    with pytest.raises(OSError, match=r"model\.safetensors") as refusal:
        going_on.find_starting_point(tmp_path, overwrite=True, resume="auto")
    assert (refusal.value.errno, refusal.value.filename) == (number, str(made / "model.safetensors"))
    with pytest.raises(OSError, match=r"model\.safetensors"):
        find_model(str(made))


def test_where_nothing_can_be_gone_on_from_the_newest_says_why_and_how_to_begin_anew(tmp_path):
    def refuse(folder, flag):
        raise UserError(f"{flag}={folder}: 모델이 아닙니다.")

    for step in (500, 1000):
        make_checkpoint(tmp_path, step)
    for overwrite in (False, True):  # auto never begins anew beside checkpoints that are whole
        with pytest.raises(UserError, match=r"(?s)checkpoint-1000: 모델이 아닙니다.*--output_dir.*--model_type"):
            going_on.find_starting_point(tmp_path, overwrite, "auto", refuse)
    for step in (500, 1000):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").unlink()
    with pytest.raises(UsageError, match=r"(?s)checkpoint-1000.*온전한 체크포인트가 없습니다.*--overwrite_output_dir"):
        going_on.find_starting_point(tmp_path, False, "auto")
    assert going_on.find_starting_point(tmp_path, True, "auto") is None


@pytest.mark.parametrize("word", [None, "false", "False"])
def test_a_model_alone_is_an_earlier_run_too_and_false_is_as_if_the_flag_were_not_given(tmp_path, word):
    shutil.move(make_checkpoint(tmp_path, 500) / "model.safetensors", tmp_path)
    shutil.rmtree(tmp_path / "checkpoint-500")
    with pytest.raises(UsageError, match=r"(?s)--output_dir.*모델.*--resume_from_checkpoint=auto"):
        going_on.find_starting_point(tmp_path, False, word)
    assert going_on.find_starting_point(tmp_path, True, word) is None


def test_a_checkpoint_is_known_as_the_runs_own_whatever_it_is_called(tmp_path, monkeypatch):
    own, others = make_checkpoint(tmp_path / "out", 500), make_checkpoint(tmp_path / "other", 1)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    (tmp_path / "out" / "checkpoint-1").symlink_to(others)
    monkeypatch.chdir(tmp_path / "out")
    for checkpoint in (own, "checkpoint-500", "../link/checkpoint-500", "checkpoint-1"):
        assert all(going_on.is_inside(checkpoint, out) for out in (tmp_path / "out", tmp_path / "link", "."))
        assert not going_on.is_inside(checkpoint, tmp_path / "other") or checkpoint == "checkpoint-1"
    assert not going_on.is_inside(others, tmp_path / "out")


def test_a_shard_that_was_not_fetched_is_named(tmp_path):
    folder, shards = make_checkpoint(tmp_path, 500), [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    (folder / "model.safetensors").rename(folder / shards[0])
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict(zip("ab", shards, strict=True))})
    )
    assert complete.missing_weights(folder) == shards[1] and not complete.is_resumable(folder)
    shutil.copy(folder / shards[0], folder / shards[1])
    assert complete.missing_weights(folder) is None and complete.is_resumable(folder)


ARCHIVE, LEGACY, CUT = b"PK\x05\x06" + bytes(18), b"\x80\x02.", b"PK\x03\x04"  # as torch.save writes; half of one
OLD_SHARDS = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({}, "model.safetensors"),
        ({"config.json": b"{}"}, "model.safetensors"),
        ({"pytorch_model.bin": ARCHIVE}, None),
        ({"pytorch_model.bin": LEGACY}, None),
        ({"pytorch_model.bin": CUT}, "pytorch_model.bin"),
        ({"adapter_model.bin": ARCHIVE}, None),
        ({"adapter_model.bin": CUT}, "adapter_model.bin"),
        ({OLD_SHARDS["a"]: ARCHIVE}, OLD_SHARDS["b"]),
        ({OLD_SHARDS["a"]: ARCHIVE, OLD_SHARDS["b"]: CUT}, OLD_SHARDS["b"]),
        ({OLD_SHARDS["a"]: ARCHIVE, OLD_SHARDS["b"]: LEGACY}, None),
    ],
)
def test_of_an_older_format_what_is_not_there_or_not_whole_is_named(tmp_path, files, missing):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    if OLD_SHARDS["a"] in files:
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": OLD_SHARDS}))
    assert complete.missing_weights(tmp_path) == missing
    assert {*complete.weights_read(tmp_path)} == {*tmp_path.glob("*.bin")}
    shutil.copy(make_checkpoint(tmp_path, 1) / "model.safetensors", tmp_path)  # beside which none of it is read
    assert "adapter_model.bin" in files or complete.missing_weights(tmp_path) is None
    assert not {path.name for path in complete.weights_read(tmp_path)} & {"pytorch_model.bin", *OLD_SHARDS.values()}


@pytest.mark.parametrize(
    "index", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"w": 1}}', "{"]
)
def test_an_index_that_names_no_files_is_named_itself(tmp_path, index):
    make_checkpoint(tmp_path, 5).joinpath("model.safetensors").rename(tmp_path / "model-00001-of-00001.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert complete.missing_weights(tmp_path) == "model.safetensors.index.json"
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"w": "\\u0000"}}')
    assert complete.missing_weights(tmp_path) == "\0"


def test_only_what_a_run_writes_is_removed(tmp_path):
    make_checkpoint(tmp_path, 500)
    kept = make_checkpoint(tmp_path, 1000) / "메모.txt"
    kept.write_text("내 것")
    mine = [tmp_path / "논문.md", tmp_path / "checkpoint-best" / "model.safetensors", tmp_path / "sub" / "config.json"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("내 것")
    (tmp_path / "model.safetensors").write_text("지난 모델")
    rotation.remove_earlier_run(tmp_path, keep=tmp_path / "checkpoint-9")
    left = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert left == sorted([kept, *mine])


def test_an_earlier_run_goes_when_a_checkpoint_that_replaces_it_is_there(tmp_path):
    make_checkpoint(tmp_path, 500)
    for name in ("model.safetensors", "config.json", complete.CURVE):
        (tmp_path / name).write_text("지난 학습")
    made = make_checkpoint(tmp_path / "_unfinished", 1)
    (made / rotation.REPLACES).touch()
    rotation.publish_checkpoint(made, tmp_path / "checkpoint-1", saved_before=False)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    assert complete.is_resumable(tmp_path / "checkpoint-1")
    assert not (tmp_path / "checkpoint-1" / rotation.REPLACES).exists()


@pytest.mark.parametrize("linked", [False, True])
def test_a_checkpoint_that_is_saved_once_more_is_there_at_every_moment_and_costs_no_other(
    tmp_path, monkeypatch, linked
):
    other, target = make_checkpoint(tmp_path, 500), make_checkpoint(tmp_path, 1)
    if linked:  # as where it was moved to another disk in between: nothing is written through it
        target.rename(tmp_path / "elsewhere")
        target.symlink_to(tmp_path / "elsewhere")
    made, there, move = make_checkpoint(tmp_path / "_unfinished", 1), [], rotation.atomic_files.move
    monkeypatch.setattr(
        rotation.atomic_files, "move", lambda *paths: (there.append(complete.is_resumable(target)), move(*paths))
    )
    rotation.publish_checkpoint(made, target, saved_before=True)
    assert there == ([False] if linked else [True] * 3) and complete.is_resumable(target)
    assert not target.is_symlink() and complete.is_resumable(other) and not (tmp_path / "_unfinished").exists()


def test_nothing_of_an_earlier_runs_checkpoint_of_the_same_step_is_left_in_the_new_one(tmp_path):
    target, made = make_checkpoint(tmp_path, 1), make_checkpoint(tmp_path / "_unfinished", 1)
    (target / "scaler.pt").write_text("지난 학습")
    rotation.publish_checkpoint(made, target, saved_before=False)
    assert complete.is_resumable(target) and not (target / "scaler.pt").exists()
    assert [*tmp_path.iterdir()] == [target]


def test_an_earlier_run_that_was_stopped_leaves_neither_its_picture_nor_its_adapter(tmp_path):
    adapter = make_checkpoint(tmp_path, 500).rename(tmp_path / complete.ADAPTER)
    for path in (adapter / complete.CARD, tmp_path / complete.CURVE):
        path.write_text(complete.CARD_MARK)
    rotation.remove_earlier_run(tmp_path, keep=tmp_path / "checkpoint-9")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_began_to_replace_is_replaced_at_the_next_start(tmp_path):
    made = [make_checkpoint(tmp_path, step) for step in (500, 9)]
    (tmp_path / "_unfinished" / "checkpoint-10").mkdir(parents=True)
    rotation.finish_what_a_killed_run_began(tmp_path)
    assert {*tmp_path.iterdir()} == {*made}
    (made[1] / rotation.REPLACES).touch()
    rotation.finish_what_a_killed_run_began(tmp_path)
    assert [*tmp_path.iterdir()] == made[1:] and not (made[1] / rotation.REPLACES).exists()


def test_of_a_checkpoint_that_lies_elsewhere_the_link_alone_is_removed(tmp_path):
    elsewhere, link = make_checkpoint(tmp_path / "disk", 500), tmp_path / "out" / "checkpoint-500"
    link.parent.mkdir()
    link.symlink_to(elsewhere)
    before = {*elsewhere.iterdir()}
    rotation.remove_checkpoint(link)
    assert [*link.parent.iterdir()] == [] and {*elsewhere.iterdir()} == before


def test_a_checkpoint_goes_while_what_was_open_of_one_of_its_name_is_not_let_go_of_yet(tmp_path, monkeypatch):
    """NFS keeps a file that is deleted while a program of this computer has it open, under a name of its own."""

    def remove_all_but_what_is_open(folder, **_):
        if Path(folder).is_dir():
            for path in Path(folder).iterdir():
                path.replace(path.with_name(".nfs1"))

    with monkeypatch.context() as nfs:
        nfs.setattr(shutil, "rmtree", remove_all_but_what_is_open)
        for _ in range(2):
            rotation.remove_checkpoint(checkpoint := make_checkpoint(tmp_path, 500))
            assert not checkpoint.exists()
    rotation.finish_what_a_killed_run_began(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_no_model_loses_nothing(tmp_path):
    (tmp_path / "config.json").write_text("내 설정")
    rotation.remove_earlier_run(tmp_path, keep=tmp_path / "checkpoint-9")
    assert (tmp_path / "config.json").exists()


@pytest.mark.parametrize("there", [True, False])
def test_rotation_keeps_the_newest_and_the_best(tmp_path, monkeypatch, there):
    made = [make_checkpoint(tmp_path, step) for step in (2, 10, 9, 100)]
    shutil.copytree(made[0], tmp_path / "checkpoint-backup")
    monkeypatch.chdir(tmp_path if there else tmp_path.parent)
    rotation.drop_old_checkpoints(Path("." if there else tmp_path.name), 2, keep=str(made[0]))
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoint-2",
        "checkpoint-10",
        "checkpoint-100",
        "checkpoint-backup",
    }


def test_a_checkpoint_saved_for_being_the_best_alone_takes_no_others_place(tmp_path):
    made = [make_checkpoint(tmp_path, step) for step in (1, 2, 3, 4)]
    (made[2] / "resume.json").write_text(json.dumps({"only_best": True}))
    rotation.drop_old_checkpoints(tmp_path, 2, keep=made[2])
    assert complete.whole_checkpoints(tmp_path) == made[1:]
    rotation.drop_old_checkpoints(tmp_path, 2)
    assert complete.whole_checkpoints(tmp_path) == [made[1], made[3]]


@pytest.mark.parametrize(("number", "why"), [(None, "권한이 없어"), (32, "다른 프로그램이 열어 두어")])
def test_a_checkpoint_that_may_not_be_deleted_stays_and_the_run_goes_on(tmp_path, monkeypatch, capsys, number, why):
    made = [make_checkpoint(tmp_path, step) for step in (1, 2, 3)]
    move = rotation.atomic_files.move

    def refuse_the_first(source, *more):  # as of a folder without w of one who is not root
        if source == made[0]:
            error = PermissionError(errno.EACCES, "Permission denied", str(source))
            error.winerror = number
            raise error
        move(source, *more)

    monkeypatch.setattr(rotation.atomic_files, "move", refuse_the_first)
    rotation.drop_old_checkpoints(tmp_path, 1)
    assert complete.whole_checkpoints(tmp_path) == [made[0], made[2]]
    assert f"{made[0]}: {why} 지우지 못했습니다" in capsys.readouterr().err


@pytest.mark.parametrize("inside", [".", "checkpoint-500"])
def test_the_model_a_run_starts_from_is_never_overwritten(tmp_path, inside, monkeypatch):
    make_checkpoint(tmp_path, 500)
    monkeypatch.chdir(tmp_path)
    for way, out in ((tmp_path, tmp_path), (".", tmp_path), (tmp_path, ".")):
        with pytest.raises(UsageError, match="--model_type"):
            complete.check_source_survives(os.path.join(way, inside), out)
    complete.check_source_survives("gpt2-medium", tmp_path)
    complete.check_source_survives(str(tmp_path / "other"), tmp_path)


@pytest.mark.parametrize("typed", ["OUT", unicodedata.normalize("NFD", "대화")])
def test_a_run_is_known_by_a_name_that_the_disk_takes_for_its_own(tmp_path, typed, otherwise_spelt):
    """A Mac's takes names in either case, and their Hangul composed or not."""
    out, name = tmp_path / unicodedata.normalize("NFC", typed.lower()), tmp_path / typed
    make_checkpoint(out, 500)
    otherwise_spelt(out, name)
    for model in (name, name / "checkpoint-500"):
        with pytest.raises(UsageError, match="--model_type"):
            complete.check_source_survives(str(model), out)
    assert going_on.is_inside(name / "checkpoint-500", out)
    assert not going_on.is_inside(make_checkpoint(tmp_path / "other", 500), out)


def test_a_folder_within_anothers_closed_one_is_refused_with_its_flag(tmp_path, monkeypatch):
    """As the home of another user: a Path there raises where it is asked whether it exists."""
    closed, looks = tmp_path / "home", os.stat

    def look(path, *args, **keywords):
        if os.fspath(path).startswith(f"{closed}{os.sep}"):
            raise PermissionError(13, "Permission denied", str(path))
        return looks(path, *args, **keywords)

    closed.mkdir()
    monkeypatch.setattr(os, "stat", look)
    monkeypatch.setattr(os, "access", lambda path, mode: path != closed)
    with pytest.raises(UsageError, match=f"--output_dir.*{closed.name}에 쓸 수 없습니다"):
        complete.check_writable(closed / "models" / "ko", "--output_dir")


@pytest.mark.parametrize("below", ["", "run"])
def test_an_output_dir_behind_a_link_to_nothing_is_refused_as_such(tmp_path, below):
    """As one to a disk that is not mounted."""
    (tmp_path / "models").symlink_to(tmp_path / "disk" / "models")
    with pytest.raises(UsageError, match=r"models는 없는 곳\(.*disk/models\)을 가리키는 링크입니다"):
        complete.check_writable(tmp_path / "models" / below, "--output_dir")
    (tmp_path / "disk" / "models").mkdir(parents=True)
    complete.check_writable(tmp_path / "models" / below, "--output_dir")


def test_a_missing_checkpoint_names_those_beside_it(tmp_path):
    make_checkpoint(tmp_path, 500)
    make_checkpoint(tmp_path, 1000, last_step=2000)
    for missing in ("checkpoint-700", "checkpoint-1500", "best"):
        with pytest.raises(UsageError) as refusal:
            find_model(str(tmp_path / missing))
        assert "checkpoint-500" in str(refusal.value) and "checkpoint-1000" in str(refusal.value)


def test_a_misspelt_folder_names_the_models_beside_it(tmp_path):
    for name in ("demo", "reviews"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "메모").mkdir()
    for given in ("dmeo", "review", "checkpoint-5", ""):
        with pytest.raises(UserError) as refusal:
            find_model(str(tmp_path / given))
        assert str(tmp_path / "demo") in str(refusal.value) and str(tmp_path / "reviews") in str(refusal.value)
        assert "메모" not in str(refusal.value)


def test_what_is_no_model_folder_is_told_from_a_hub_id(tmp_path):
    assert find_model("gpt2-medium") == "gpt2-medium"
    assert find_model("skt/kogpt2-base-v2") == "skt/kogpt2-base-v2"
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.bin").write_text("x")
    for wrong in (str(tmp_path / "empty"), str(tmp_path / "file.bin"), str(tmp_path / "none"), "./none", "a/b/c", ""):
        with pytest.raises(UserError, match="--model_name_or_path"):
            find_model(wrong)


@pytest.mark.parametrize("lost", ["model.safetensors", "half of model.safetensors", "tokenizer.json"])
def test_generate_refuses_a_half_checkpoint(tiny_model_folder, tmp_path, run_main, lost):
    folder = tmp_path / "checkpoint-4"
    shutil.copytree(tiny_model_folder, folder)
    path = folder / lost.removeprefix("half of ")
    content = path.read_bytes()
    path.unlink()
    if lost.startswith("half"):
        path.write_bytes(content[: len(content) // 2])
    code, out, err = run_main("generate.py", f"--model_name_or_path={folder}", "--device=cpu")
    assert (code, out) == (1, "") and "--model_name_or_path" in err and str(folder) in err
    assert len(err[err.index("오류:") :].strip().splitlines()) <= 2
