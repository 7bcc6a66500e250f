"""A name that a user gives for a model → the model that is meant, or a line that tells what is there."""

import datetime
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from conftest import hold_output_dir

from gpt2_korean.cli.train_options import ModelOptions
from gpt2_korean.messages import UsageError, UserError
from gpt2_korean.model.find import Start, check_fitting, find_model, find_start, models_below


@pytest.fixture
def stopped_run(tmp_path, tiny_model_folder):
    """A function: the folder of a run that was stopped with checkpoints at the given steps."""

    def make(*steps, name="멈춤"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for step in steps:
            shutil.copytree(tiny_model_folder, folder / f"checkpoint-{step}")
        return folder

    return make


def test_the_only_checkpoint_of_a_run_that_was_stopped_is_taken_with_a_notice(stopped_run, tiny_model_folder, capsys):
    folder = stopped_run(178)
    shutil.copytree(tiny_model_folder, folder / "다른 학습")
    for flag in ("--model_name_or_path", "--model_type"):
        assert find_model(str(folder), flag) == folder / "checkpoint-178"
        assert "checkpoint-178을 씁니다" in capsys.readouterr().err


def test_of_several_checkpoints_none_is_taken_by_itself(stopped_run):
    folder = stopped_run(20, 40)
    with pytest.raises(UserError) as refusal:
        find_model(str(folder))
    assert all(str(folder / f"checkpoint-{step}") in str(refusal.value) for step in (20, 40))


def test_a_lone_checkpoint_that_is_broken_is_refused(stopped_run):
    folder = stopped_run(20)
    file = folder / "checkpoint-20" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    said = r"^--model_type=.*checkpoint-20: 쓰다 만 모델입니다.*다시 저장하거나 내려받으세요"
    with pytest.raises(UserError, match=said):
        find_model(str(folder), "--model_type")


def test_the_last_of_a_run_that_ended_early_stands_for_a_checkpoint_that_will_never_be(stopped_run, capsys):
    folder = stopped_run(10, 20, 30)
    for step in (10, 20, 30):
        state = {"global_step": step, "max_steps": 30}
        (folder / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(state))
    assert find_model(str(folder / "checkpoint-500")) == folder / "checkpoint-30"
    assert "30스텝에서 끝났으므로 checkpoint-500 대신 마지막 checkpoint-30을" in capsys.readouterr().err
    with pytest.raises(UsageError, match="그런 모델 폴더가 없습니다"):
        find_model(str(folder / "checkpoint-15"))


@pytest.mark.parametrize(
    ("options", "steps", "first"),
    [
        ({"save_steps": 50}, 400, 50),
        ({"save_steps": 500}, 400, 400),
        ({"save_steps": 1}, 400, 1),
        ({"save_steps": 0.1}, 405, 41),
        ({"save_steps": 50, "save_strategy": "no"}, 400, 400),
        ({"save_steps": 50, "save_strategy": "epoch"}, 400, None),
        ({"save_steps": 50, "save_strategy": "best"}, 400, None),
        ({}, None, None),  # which still reads its texts
    ],
)
def test_a_run_that_has_saved_nothing_yet_is_told_apart_from_a_folder_that_is_no_model(
    tmp_path, tiny_model_folder, options, steps, first
):
    folder = tmp_path / "학습"
    shutil.copytree(tiny_model_folder, folder / "다른 학습")
    holder = hold_output_dir(folder)
    try:
        began = datetime.datetime.fromtimestamp(int((folder / "_lock").stat().st_mtime), datetime.UTC)
        record = {"start": began.isoformat(), "options": options, "steps": steps and {"done": 0, "of": steps}}
        (folder / "run.json").write_text(json.dumps(record))
        with pytest.raises(UserError) as refusal:
            find_model(str(folder))
        said = str(refusal.value)
        assert "학습하는 중" in said and f"프로세스 {holder.pid}" in said
        assert (f" {first:,}스텝에 저장합니다" in said) if first else ("스텝" not in said)
        # What an earlier run left there tells nothing of this one.
        earlier = {**record, "start": (began - datetime.timedelta(seconds=2)).isoformat()}
        for other in (earlier, {}):
            (folder / "run.json").write_text(json.dumps(other))
            with pytest.raises(UserError) as refusal:
                find_model(str(folder))
            assert "학습하는 중" in str(refusal.value) and "스텝" not in str(refusal.value)
        for step in (1, 2):  # of which one can be had
            shutil.copytree(tiny_model_folder, folder / f"checkpoint-{step}")
        with pytest.raises(UserError, match=r"모델 폴더가 아닙니다.*checkpoint-2"):
            find_model(str(folder))
    finally:
        holder.kill()
        holder.communicate()
    for _ in range(2):  # to ask takes no lock away, and a dead run holds none
        with pytest.raises(UserError, match="모델 폴더가 아닙니다"):
            find_model(str(folder))


def test_the_models_below_a_folder_are_told_newest_first(stopped_run, tiny_model_folder, tmp_path):
    whole = shutil.copytree(tiny_model_folder, tmp_path / "다 된 것")
    stopped = stopped_run(1, 3, 20) / "checkpoint-20"
    (tmp_path / "글").mkdir()
    for age, path in enumerate((whole, stopped)):
        os.utime(path, (1000 + age, 1000 + age))
    assert models_below(tmp_path) == [stopped, whole]
    assert models_below(whole) == [whole]
    assert models_below(tmp_path / "없음") == models_below(tmp_path / "글") == []


def test_a_folder_nearly_spelt_as_one_that_is_there_is_told(tiny_model_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = Path("fine_tuned_models", "demo")
    shutil.copytree(tiny_model_folder, folder)
    assert find_model("fine_tuned_model/demo") == "fine_tuned_model/demo"  # the Hub may have one
    told = capsys.readouterr().err
    assert "Hub" in told and f"혹시 {folder}인가요?" in told
    with pytest.raises(UsageError, match=f"혹시 {re.escape(str(folder))}인가요"):
        find_model("./fine_tuned_model/demo")
    for other in ("skt/kogpt2-base-v2", "fine_tuned_model", "fine_tuned_model/other"):
        assert find_model(other) == other
    assert not capsys.readouterr().err


def test_a_model_that_was_looked_for_from_another_folder_is_told_with_that_folder_and_not_asked_of_the_hub(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("fine_tuned_models/ko", "./fine_tuned_models/ko", "fine_tuned_models/checkpoint-500", "../없음/ko"):
        with pytest.raises(UsageError, match=re.escape(f"(지금 폴더: {os.getcwd()})")) as refused:
            find_model(name)
        assert "학습하세요" not in str(refused.value)
    with pytest.raises(UsageError, match="그런 모델 폴더가 없습니다"):
        find_model("fine_tuned_models")
    (tmp_path / "fine_tuned_models").mkdir()
    with pytest.raises(UsageError, match=r"먼저 train[.]py로 학습하세요"):
        find_model("fine_tuned_models/ko")


def test_a_folder_that_may_not_be_looked_into_is_not_what_was_meant(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    looks = Path.exists

    def exists(path, **keywords):
        if path.name == "demo" and path.parent.name == "models":
            raise PermissionError(13, "Permission denied", str(path))
        return looks(path, **keywords)

    monkeypatch.setattr(Path, "exists", exists)
    with pytest.raises(UsageError, match="경로를 확인하세요"):
        find_model(str(tmp_path / "model" / "demo"))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", ""])
def test_a_model_that_is_for_others_to_read_is_not_called_damaged(name, tiny_model_folder, monkeypatch):
    """As that of another user, whose weights save_pretrained gives to their owner alone."""
    closed = tiny_model_folder / name
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed)
    with pytest.raises(UserError, match="읽을 권한") as refusal:
        find_model(str(tiny_model_folder), "--model_type")
    assert f"--model_type={tiny_model_folder}: {name}" in str(refusal.value)


def test_a_missing_model_and_a_folder_of_runs_name_what_is_there(stopped_run, tmp_path):
    stopped = stopped_run(3, 20) / "checkpoint-20"
    for name in (tmp_path / "없음", tmp_path):  # whose only model is not its own
        with pytest.raises(UserError) as refusal:
            find_model(str(name))
        assert str(stopped) in str(refusal.value) and "checkpoint-3," not in str(refusal.value)


def test_a_file_of_a_model_in_its_place_is_called_so(tiny_model_folder):
    with pytest.raises(UsageError, match=r"--model_type=.*model\.safetensors: 파일이 아니라"):
        find_model(str(tiny_model_folder / "model.safetensors"), "--model_type")


@pytest.mark.parametrize("page", ["", "/", "/tree/main"])
def test_a_name_of_the_hub_is_found_in_its_address(page):
    with pytest.raises(UserError, match="혹시 --model_name_or_path=skt/kogpt2-base-v2인가요"):
        find_model(f"https://huggingface.co/skt/kogpt2-base-v2{page}")


def options(**changes):
    return ModelOptions(**{"model_type": "scratch-mini", "tokenizer": None, "vocab_size": None,
                           "trust_remote_code": False, "lora_rank": 0, "lora_alpha": None, **changes})  # fmt: skip


def test_a_tokenizer_that_is_not_there_is_refused_before_any_model_is_read(tmp_path):
    (tmp_path / "토크나이저").mkdir()
    for name in (None, "korean", "original", str(tmp_path / "토크나이저"), "someone/tokenizer"):
        assert find_start(options(tokenizer=name)).source == "scratch-mini"
    for name in ("./없음", f"{tmp_path}/없음", "a/b/c"):
        with pytest.raises(UsageError, match="--tokenizer"):
            find_start(options(tokenizer=name, model_type="gpt2-medium"))


def test_blocks_longer_than_the_context_are_refused_where_it_is_known(tiny_model_folder):
    for source, context in (("scratch-mini", 256), (tiny_model_folder, 32), (str(tiny_model_folder), 32)):
        check_fitting(Start(source), context)
        check_fitting(Start(source), None)
        with pytest.raises(UsageError, match=f"--block_size={context + 1}"):
            check_fitting(Start(source), context + 1)
    check_fitting(Start("someone/model"), 4096)


def test_a_dropout_that_cannot_be_set_is_refused_where_the_model_is_known(tiny_model_folder, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "opt"}')
    with pytest.raises(UsageError, match=r"--dropout=0\.1: .*\(opt\)"):
        check_fitting(Start(tmp_path), None, 0.1)
    for source in ("scratch-mini", tiny_model_folder, "someone/model"):
        check_fitting(Start(source), None, 0.1)
    check_fitting(Start(tmp_path), None)
