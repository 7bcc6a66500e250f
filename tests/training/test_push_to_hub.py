"""--push_to_hub: a Hub that cannot be reached is told of in two lines, and the same command pushes later."""

from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture
def hub(monkeypatch):
    """Stands in for the Hub: what was uploaded, the names of the files among it, and what fails."""
    hub = SimpleNamespace(fails=set(), uploaded=[], files=[])

    def reach(what):
        if what in hub.fails:
            raise ConnectionError(f"no {what}")

    def create_repo(name, **_):
        reach("create_repo")
        return SimpleNamespace(repo_id=f"someone/{name}")

    def upload_folder(repo_id, folder_path, **_):
        reach("upload_folder")
        hub.uploaded.append((repo_id, str(folder_path)))
        hub.files.append({path.name for path in Path(folder_path).iterdir() if path.is_file()})
        done = Future()
        done.set_result(None)
        return done

    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 30)
    monkeypatch.setattr("transformers.trainer.hf_api", lambda: SimpleNamespace(**vars(hub)))
    hub.create_repo, hub.upload_folder = create_repo, upload_folder
    return hub


@pytest.fixture
def words(train_words):
    return [*train_words, "--do_train", "--max_steps=2", "--report_to=none", "--resume_from_checkpoint=auto"]


@pytest.mark.parametrize("adapter", [[], ["--lora_rank=2"]])
def test_a_model_that_could_not_be_pushed_is_there_and_pushed_by_the_same_command(
    words, adapter, hub, run_main, tmp_path
):
    hub.fails.add("upload_folder")
    run = ["train.py", *words, *adapter, "--push_to_hub", "--hub_strategy=end"]
    code, _, err = run_main(*run)
    message = err[err.index("오류:") :]
    assert code == 1 and "--push_to_hub" in message and "no upload_folder" in message, err
    assert len(message.strip().splitlines()) == 2 and "예상하지" not in message
    assert (tmp_path / "out" / "model.safetensors").exists()
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    hub.fails.clear()
    code, _, err = run_main(*run)
    assert code == 0 and hub.uploaded == [("someone/out", str(tmp_path / "out"))], err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names


def test_a_finished_model_is_pushed_where_that_is_asked_for_afterwards(words, hub, run_main):
    assert run_main("train.py", *words)[0] == 0 and not hub.uploaded
    code, _, err = run_main("train.py", *words, "--push_to_hub", "--hub_strategy=end")
    assert code == 0 and len(hub.uploaded) == 1, err


def test_a_pushed_model_is_told_by_its_name_on_the_hub(words, hub, run_main):
    """Whose it is the token says, where the command does not."""
    code, _, err = run_main("train.py", *words, "--push_to_hub", "--hub_strategy=end")
    assert code == 0 and "Hub에 올렸습니다: someone/out" in err, err


@pytest.mark.parametrize(("adapter", "pushes"), [([], 3), (["--lora_rank=2"], 1)])
def test_the_hub_gets_the_model_at_every_save_and_never_an_adapter_that_would_stay_beside_the_merged_model(
    words, adapter, pushes, hub, run_main
):
    code, _, err = run_main("train.py", *words, *adapter, "--save_steps=1", "--push_to_hub")
    assert code == 0 and len(hub.files) == pushes, err
    assert all("model.safetensors" in names for names in hub.files)
    assert not any(name.startswith("adapter") for names in hub.files for name in names)


def test_a_hub_that_makes_no_repository_is_told_before_the_first_step(words, hub, run_main, tmp_path):
    hub.fails.add("create_repo")
    code, _, err = run_main("train.py", *words, "--push_to_hub")
    message = err[err.index("오류:") :]
    assert code == 1 and "no create_repo" in message and "예상하지" not in message
    assert not list(tmp_path.glob("out/checkpoint-*"))
