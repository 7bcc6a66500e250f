"""Files from others run no code here and write nothing outside output_dir and logging_dir."""

import json
import pickle
import shutil
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file


@pytest.fixture
def model(tiny_model_folder, tmp_path):
    return shutil.copytree(tiny_model_folder, tmp_path / "from others" / "model")


@pytest.fixture
def run_both(run_main, train_words, tmp_path):
    """The outcomes of train.py and of generate.py with a model folder."""

    def run(model, *words):
        trained = run_main(
            "train.py", *train_words, f"--model_type={model}", "--do_train", "--max_steps=1", "--report_to=none", *words
        )
        return trained, run_main(
            "generate.py", f"--model_name_or_path={model}", "--device=cpu", "--length=2", "--prompt=가", *words
        )

    return run


class Payload:
    """What runs where a pickle is trusted."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickled_weights_run_no_code(model, tmp_path, run_both):
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    for content in ({**weights, "x": Payload(tmp_path / "ran")}, Payload(tmp_path / "ran")):
        torch.save(content, model / "pytorch_model.bin")
        for code, _, err in run_both(model):
            assert code == 1 and "오류" in err and "Traceback" not in err
        assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()  # so it would have run
    torch.save(weights, model / "pytorch_model.bin")
    assert [code for code, *_ in run_both(model)] == [0, 0]


def test_a_pickled_optimizer_runs_no_code(train_words, tmp_path, run_main):
    run = ["train.py", *train_words, "--do_train", "--report_to=none", "--resume_from_checkpoint=auto"]
    assert run_main(*run, "--max_steps=1")[0] == 0
    torch.save(Payload(tmp_path / "ran"), tmp_path / "out" / "checkpoint-1" / "optimizer.pt")
    assert zipfile.is_zipfile(tmp_path / "out" / "checkpoint-1" / "optimizer.pt")
    code, _, err = run_main(*run, "--max_steps=2")
    assert code == 1 and "checkpoint-1" in err[err.index("오류:") :]
    assert not (tmp_path / "ran").exists()


def add_code(model, ran):
    """Have a model folder come with code that leaves the file `ran`."""
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "others", "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}}
    (model / "config.json").write_text(json.dumps(config))
    (model / "code.py").write_text(
        f"open({str(ran)!r}, 'w')\n"
        "from transformers import GPT2Config, GPT2LMHeadModel\n"
        "class Config(GPT2Config):\n    model_type = 'others'\n"
        "class Model(GPT2LMHeadModel):\n    config_class = Config\n"
    )


def test_code_that_comes_with_a_model_runs_only_when_trusted(model, tmp_path, run_both):
    add_code(model, tmp_path / "ran")
    for code, _, err in run_both(model):
        assert code == 1 and "--trust_remote_code" in err and "Traceback" not in err
    assert not (tmp_path / "ran").exists()
    trained, written = run_both(model, "--trust_remote_code")
    assert (tmp_path / "ran").exists()
    assert (trained[0], written[0]) == (0, 0), trained[2] + written[2]


@pytest.mark.parametrize("adapter", [[], ["--lora_rank=2"]])
def test_a_run_whose_code_is_trusted_goes_on_and_its_checkpoint_writes(model, tmp_path, train_words, run_main, adapter):
    add_code(model, tmp_path / "ran")
    words = ["train.py", *train_words, f"--model_type={model}", "--do_train", "--report_to=none", *adapter]
    assert run_main(*words, "--max_steps=1", "--trust_remote_code")[0] == 0
    on = [*words, "--max_steps=2", "--resume_from_checkpoint=auto"]
    write = ["generate.py", f"--model_name_or_path={tmp_path / 'out' / 'checkpoint-1'}", "--device=cpu", "--length=2"]
    for run in (write, on):
        code, _, err = run_main(*run)
        assert code == 1 and "--trust_remote_code" in err, err
        code, _, err = run_main(*run, "--trust_remote_code")
        assert code == 0, err


def hostile_weights_index(model):
    weights = load_file(model / "model.safetensors")
    save_file(weights, model.parent / "weights.safetensors", {"format": "pt"})
    (model / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "../weights.safetensors")}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def hostile_tokenizer(model):
    path = model / "tokenizer_config.json"
    templates = [{"name": "default", "template": "x"}, {"name": "../../../outside", "template": "x"}]
    paths = {"name_or_path": "../../outside", "vocab_file": "../../outside", "save_directory": "../../outside"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": templates, **paths}))


def hostile_config(model):
    config = json.loads((model / "config.json").read_text())
    paths = {"_name_or_path": "../../outside", "output_dir": "../../outside", "custom_generate": "../../outside"}
    (model / "config.json").write_text(json.dumps({**config, **paths}))


@pytest.mark.parametrize("hostile", [hostile_weights_index, hostile_tokenizer, hostile_config])
def test_no_path_in_a_models_files_leads_outside(model, tmp_path, run_both, hostile):
    hostile(model)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    for _, _, err in run_both(model):
        assert "Traceback" not in err
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert all((tmp_path / "out") in path.parents for path in written), written


def test_no_column_or_checkpoint_state_leads_outside(train_words, tmp_path, run_main):
    (tmp_path / "글.jsonl").write_text(
        "\n".join(json.dumps({"../../outside": f"{number}번째 글입니다.", "output_dir": "x"}) for number in range(9))
    )
    run = [
        "train.py", *train_words, f"--dataset_path={tmp_path / '글.jsonl'}", "--text_column_name=../../outside",
        "--do_train", "--do_eval", "--eval_steps=1", "--save_steps=1", "--save_total_limit=1", "--report_to=none",
        "--load_best_model_at_end", "--resume_from_checkpoint=auto",
    ]  # fmt: skip
    assert run_main(*run, "--max_steps=2")[0] == 0
    mine = tmp_path / "mine" / "checkpoint-1"
    mine.parent.mkdir()
    checkpoint = max((tmp_path / "out").glob("checkpoint-*"))
    shutil.copytree(checkpoint, mine)
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    (checkpoint / "trainer_state.json").write_text(json.dumps({**state, "best_model_checkpoint": str(mine)}))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert run_main(*run, "--max_steps=4")[0] == 0
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    outside = {path for path in before.keys() | after.keys() if (tmp_path / "out") not in path.parents}
    assert all(before.get(path) == after.get(path) for path in outside)
