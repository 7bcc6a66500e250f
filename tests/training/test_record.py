"""run.json and the model card tell what a run was, and nothing that must not be published."""

import errno
import json
import platform
import shutil
import subprocess

import accelerate
import datasets
import peft
import pytest
import safetensors
import tokenizers
import torch
import transformers
from conftest import signal_self
from transformers import AutoModelForCausalLM

from gpt2_korean.training.record import _own_version, publishable

SECRET = "hf_abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def run(train_words):
    return ["train.py", *train_words, "--do_train", "--max_steps=4", "--save_steps=2", "--logging_steps=1"]


def read_record(folder):
    return json.loads((folder / "run.json").read_text("utf-8"))


def test_run_json_tells_what_ran_and_how_it_ended(run, tmp_path, run_main, at_training_step, monkeypatch):
    out = tmp_path / "out"
    again = [*run, "--resume_from_checkpoint=auto", "--seed=7"]
    at_training_step(3, lambda _: signal_self())
    assert run_main(*again)[0] == 75
    stopped = read_record(out)
    assert stopped["exit_code"] == 75 and stopped["steps"] == {"done": 3, "of": 4} and stopped["resumed_from"] is None
    assert run_main(*again)[0] == 0
    record = read_record(out)
    assert record["command"] == again and record["options"]["max_steps"] == 4 and record["seed"] == 7
    assert record["exit_code"] == 0 and record["steps"] == {"done": 4, "of": 4}
    assert record["resumed_from"] == "checkpoint-3" and record["device"].startswith("cpu")
    assert [entry["step"] for entry in record["losses"]] == [1, 2, 3, 4]
    assert all(entry.keys() == {"step", "epoch", "loss"} for entry in record["losses"])
    # PyPI's package does not say for which device it is built, PyTorch itself does.
    assert record["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    for package in (transformers, datasets, accelerate, peft, tokenizers, safetensors):
        assert record["versions"][package.__name__] == package.__version__
    assert record["versions"]["python"] == platform.python_version()
    assert record["start"] <= record["end"] and record["end"].endswith("+00:00")  # whoever publishes it, wherever
    assert record["provenance"]["corpus"] == stopped["provenance"]["corpus"]
    assert record["provenance"]["vocabulary"]["tokens"] == 640
    # What is refused leaves the record of the run that made the model.
    assert run_main(*run)[0] == 2
    assert run_main(*again, "--max_steps=5", "--block_size=16")[0] == 1
    assert read_record(out) == record
    monkeypatch.setattr("train.read_texts", lambda *_: signal_self())
    assert run_main(*again)[0] == 75
    told = read_record(out)
    assert told.pop("exit_code") == 75 and told.pop("end") >= record["end"]
    assert told == {name: value for name, value in record.items() if name not in ("exit_code", "end")}
    assert run_main(*again, f"--output_dir={tmp_path / 'new'}")[0] == 75  # which no run was in before
    assert read_record(tmp_path / "new")["command"][: len(again)] == again


def test_a_run_that_fails_or_is_killed_has_its_record_too(run, tmp_path, run_main, at_training_step):
    left = []  # what kill -9 would leave

    def look(_):
        left.append(read_record(tmp_path / "out"))

    def look_then_fail(_):
        look(_)
        raise torch.OutOfMemoryError

    at_training_step(1, look)
    at_training_step(4, look_then_fail)
    assert run_main(*run)[0] == 1
    assert [(told["exit_code"], told["steps"]["done"]) for told in left] == [(None, 0), (None, 2)]
    told = read_record(tmp_path / "out")
    assert (told["exit_code"], told["steps"]["done"]) == (1, 3)


def test_a_record_that_cannot_be_written_does_not_hide_what_ended_the_run(run, run_main, at_training_step, monkeypatch):
    def is_full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fail(_):
        monkeypatch.setattr("gpt2_korean.training.record.write_file", is_full)
        raise torch.OutOfMemoryError

    at_training_step(3, fail)
    code, _, err = run_main(*run)
    assert code == 1 and "장치의 메모리가 모자랍니다" in err, err


def test_the_options_in_run_json_are_those_that_the_run_learnt_by(run, tmp_path, run_main, at_training_step):
    """A plan's values, which no flag gave, and not the defaults in whose place they are."""
    used = {}

    def look(trainer):
        used["learning_rate"], used["weight_decay"] = trainer.args.learning_rate, trainer.args.weight_decay

    words = [*run, "--tokenizer=korean", "--vocab_size=512", "--max_grad_norm=0.5", "--warmup_steps=2"]
    at_training_step(1, look)
    assert run_main(*words)[0] == 0
    options = read_record(tmp_path / "out")["options"]
    assert used["learning_rate"] != 5e-5 and used["weight_decay"] != 0
    assert {name: options[name] for name in used} == used
    assert (options["dropout"], options["max_grad_norm"], options["warmup_steps"]) == (0, 0.5, 2)
    assert options["embedding_learning_rate"] > 0 and options["vocab_size"] == 512
    assert not options.keys() & {"corpus", "vocabulary", "model"}  # which are no flags


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_run_json_tells_the_commit_of_the_program_and_whether_its_files_were_changed(tmp_path, monkeypatch):
    def git(*words):
        who = ("-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false")
        told = subprocess.run(["git", "-C", tmp_path, *who, *words], check=True, capture_output=True)
        return told.stdout.decode().strip()

    def own_version(root):
        monkeypatch.setattr(
            "gpt2_korean.training.record.__file__", str(root / "gpt2_korean" / "training" / "record.py")
        )
        return _own_version()

    program, copy = tmp_path / "train.py", tmp_path / "받은 것"
    program.write_text("1\n", "utf-8")
    copy.mkdir()
    assert own_version(tmp_path) == {}
    git("init")
    git("add", "train.py")
    git("commit", "-m", "1")
    commit = git("rev-parse", "HEAD")
    git("tag", "-a", "v1", "-m", "1")
    assert own_version(tmp_path) == {"gpt2-korean": commit}
    program.write_text("22\n", "utf-8")
    assert own_version(tmp_path) == {"gpt2-korean": f"{commit}-dirty"}
    assert own_version(copy) == {}  # in a repository of another project
    monkeypatch.setenv("PATH", "")  # nor is git in every container
    assert own_version(tmp_path) == {}


def test_run_json_and_the_card_tell_how_many_parameters_the_model_has_and_how_many_were_trained(
    run, tmp_path, run_main
):
    out = tmp_path / "out"
    for adapter, words in ((0, []), (4, ["--lora_rank=4", "--overwrite_output_dir"])):
        assert run_main(*run, *words)[0] == 0
        whole = AutoModelForCausalLM.from_pretrained(out).num_parameters()
        # Two layers of 32: the rank times what goes in and out of c_attn, c_proj, c_fc and the other c_proj.
        trained = 2 * adapter * (32 + 96 + 32 + 32 + 32 + 128 + 128 + 32) or whole
        assert read_record(out)["parameters"] == {"model": whole, "trained": trained}
        assert f"| 매개변수 | {whole:,}개 |" in (out / "README.md").read_text("utf-8")


def test_run_json_tells_which_text_the_model_was_measured_on(run, tmp_path, run_main):
    """By its contents, whether or not the best model is kept; what is held out is another text of another seed."""
    told = []
    for seed in (1, 2):
        words = [*run, "--do_eval", "--validation_split_percentage=50", "--overwrite_output_dir", f"--seed={seed}"]
        code, out, _ = run_main(*words)
        record, shown = read_record(tmp_path / "out"), json.loads(out.splitlines()[-1])
        told.append(record["provenance"]["held_out"])
        measured = record["losses"][-1]
        assert code == 0 and measured.keys() >= {"step", "epoch"}
        for name in ("loss", "perplexity", "bits_per_character"):
            assert measured[f"eval_{name}"] == pytest.approx(shown[name])
    assert told[0]["tokens"] > 0 and told[0]["hash"] != told[1]["hash"]


def test_the_model_card_is_one_and_a_readme_of_the_users_stays(run, tmp_path, run_main):
    out = tmp_path / "out"
    assert run_main(*run)[0] == 0
    assert "| 스텝 | 4 |" in (out / "README.md").read_text("utf-8")
    assert run_main(*run, "--overwrite_output_dir", "--max_steps=3")[0] == 0
    assert "| 스텝 | 3 |" in (out / "README.md").read_text("utf-8")
    (out / "README.md").write_text("내가 쓴 소개", "utf-8")
    assert run_main(*run, "--overwrite_output_dir")[0] == 0
    assert (out / "README.md").read_text("utf-8") == "내가 쓴 소개"


def test_a_hub_token_is_saved_nowhere(run, tmp_path, run_main, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "")
    code, _, err = run_main(*run, f"--hub_token={SECRET}", "--report_to=tensorboard")
    assert code == 0 and SECRET not in err
    everything = [path for folder in ("out", "logs") for path in (tmp_path / folder).rglob("*") if path.is_file()]
    assert any(path.name == "training_args.bin" for path in everything)
    assert not [path for path in everything if SECRET.encode() in path.read_bytes()]


def test_no_secret_name_or_home_is_published(run, tmp_path, run_main, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "plainsecret")
    assert publishable(["--run_name", "my-plainsecret"]) == ["--run_name", "my-***"]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("getpass.getuser", lambda: "gildong")
    monkeypatch.setattr("socket.gethostname", lambda: "node042.cluster.example")
    logs = tmp_path / "gildong" / "node042"
    secrets = [f"--hub_token={SECRET}", f"--run_name=/home/gildong/a-{SECRET}", f"--logging_dir={logs}"]
    code, _, err = run_main(*run, *secrets, "--report_to=tensorboard")
    assert code == 0
    published = "".join((tmp_path / "out" / name).read_text("utf-8") for name in ("run.json", "README.md"))
    for private in (SECRET, str(tmp_path), "gildong", "node042", "cluster.example"):
        assert private not in published, private
    assert "~/out" in published
    assert SECRET not in err
    # A misspelt flag quotes its value.
    assert SECRET not in run_main("train.py", "--do_train", SECRET)[2]


@pytest.mark.parametrize(
    ("private", "published"),
    [
        ({"hub_token": "x", "tokens": 3, "tokenizer": "k"}, {"hub_token": "***", "tokens": 3, "tokenizer": "k"}),
        (["--hub-token", "x", "--seed", "3"], ["--hub-token", "***", "--seed", "3"]),
        (["--answer_as", "민수", "--answer-as=민수"], ["--answer_as", "***", "--answer-as=***"]),
        ({"answer_as": "민수", "answer_column": "답"}, {"answer_as": "***", "answer_column": "답"}),
        (["--hub_token=x", "--tokenizer=korean"], ["--hub_token=***", "--tokenizer=korean"]),
        ("https://me:pass@hub.example/x", "https://***@hub.example/x"),
        ("/Users/gildong/글.txt", "~/글.txt"),
        ("C:\\Users\\gildong\\글.txt", "~\\글.txt"),
    ],
)  # fmt: skip
def test_what_is_private_is_hidden_and_the_rest_is_not(private, published):
    assert publishable(private) == published


def test_a_user_and_a_host_whose_names_are_words_are_hidden_where_these_stand_alone(monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "text")
    monkeypatch.setattr("socket.gethostname", lambda: "korea.cluster.example")
    for private, published in (
        ("/data/text/글.txt", "/data/***/글.txt"),
        ("--output_dir=/data/text", "--output_dir=/data/***"),
        ("/data/text 에서", "/data/*** 에서"),
        ("/data/context/texts/text.txt", "/data/context/texts/text.txt"),
        ("korea.cluster.example:8000", "***:8000"),
        ("korea southkorea koreans", "*** southkorea koreans"),
    ):
        assert publishable(private) == published


@pytest.mark.parametrize("host", ["pc", "localhost"])
def test_a_host_called_as_many_things_are_is_no_secret(monkeypatch, host):
    monkeypatch.setattr("socket.gethostname", lambda: host)
    assert publishable(f"http://{host}:8000") == f"http://{host}:8000"


def test_a_folder_whose_name_begins_as_that_of_the_home_is_not_a_part_of_it(monkeypatch):
    for home, path, published in (
        ("/home/gildong", "/home/gildong-2/글.txt", "~/글.txt"),  # another's home
        ("/data/gil", "/data/gilt/글.txt", "/data/gilt/글.txt"),
        ("/data/gil", "/data/gil/글.txt", "~/글.txt"),
        ("/data/gil", "--output_dir=/data/gil", "--output_dir=~"),
    ):
        monkeypatch.setenv("HOME", home)
        assert publishable(path) == published


@pytest.mark.parametrize("home", ["/", "", None])
def test_paths_are_as_they_are_where_a_user_has_no_home(monkeypatch, home):
    monkeypatch.delenv("HOME")
    if home is None:  # nor a name, by which the system knows one
        monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    else:
        monkeypatch.setenv("HOME", home)
    assert publishable(["--model_type=a/b", "data/글.txt"]) == ["--model_type=a/b", "data/글.txt"]
