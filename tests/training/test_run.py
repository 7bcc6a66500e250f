"""Training through Trainer: exact evaluation, a last state that is always saved, and what a failed save leaves."""

import json
import math
import re
import resource
import shutil

import pytest
import torch
from conftest import ROOT
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from gpt2_korean.messages import UserError
from gpt2_korean.training import failures

SAMPLE = ROOT / "data" / "korean_texts.txt"


def independent_bits_per_character(folder, texts, block_size):
    """Bits per character by the definition, token by token with plain cross entropy."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    end, nats, tokens = tokenizer.eos_token_id, 0.0, 0
    room = block_size - 1
    for text in texts:
        ids = torch.tensor([end, *tokenizer(text, add_special_tokens=False)["input_ids"], end])
        tokens += len(ids) - 1
        for place in range(1, len(ids)):
            # A window begins at every half of one, and the first that ends at this token or after it reads it.
            first = -(-max(0, place - room) // (room // 2)) * (room // 2)
            with torch.no_grad():
                logits = model(ids[None, first:place]).logits[0, -1]
            nats -= logits.log_softmax(-1)[ids[place]].item()
    return nats / math.log(2) / sum(map(len, texts)), nats / tokens


@pytest.fixture(scope="module")
def measured(tiny_model_folder, sample_texts):
    """`(bits per character, loss)` of the tiny model on the texts of small_corpus, in windows of 32."""
    return independent_bits_per_character(tiny_model_folder, sample_texts[:12], 32)


@pytest.mark.usefixtures("brief_texts")
def test_evaluation_is_exact_whatever_the_batch(tiny_model_folder, tmp_path, small_corpus, measured, run_main):
    bits, loss = measured
    expected = [loss, math.exp(loss), 2**bits, bits]
    for batch in (1, 3, 8):
        code, out, _ = run_main(
            "train.py", "--do_eval", f"--validation_file={small_corpus}", f"--model_type={tiny_model_folder}",
            f"--output_dir={tmp_path / 'out'}", "--device=cpu", f"--per_device_eval_batch_size={batch}",
            "--block_size=32", "--report_to=none", "--disable_tqdm",
        )  # fmt: skip
        assert code == 0
        *rows, last = out.splitlines()
        shown = dict(re.split(" {2,}", row)[:2] for row in rows[:4])
        assert list(shown) == ["손실(토큰당)", "혼란도(토큰당)", "혼란도(글자당)", "글자당 비트"]
        assert [float(value) for value in shown.values()] == pytest.approx(expected, rel=1e-4)
        names = ("loss", "perplexity", "perplexity_per_character", "bits_per_character")
        assert [json.loads(last)[name] for name in names] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("flag", ["--bf16_full_eval", "--fp16_full_eval"])
def test_a_model_that_is_only_measured_may_be_so_in_16_bits(tiny_model_folder, small_corpus, measured, run_main, flag):
    code, out, err = run_main(
        "train.py", "--do_eval", f"--validation_file={small_corpus}", f"--model_type={tiny_model_folder}", flag,
        "--bf16", "--device=cpu", "--block_size=32", "--report_to=none", "--disable_tqdm", "--no_measure_texts",
    )  # fmt: skip
    bits, _ = measured
    assert code == 0 and json.loads(out.splitlines()[-1])["bits_per_character"] == pytest.approx(bits, rel=1e-2), err


def test_the_last_state_is_saved_as_a_checkpoint_and_as_the_model(train_words, tmp_path, run_main):
    code, out, err = run_main(
        "train.py", *train_words, "--do_train", "--max_steps=5", "--save_steps=3", "--logging_steps=3"
    )
    assert code == 0 and out == "" and "[5/5] 손실" in err, err
    folder = tmp_path / "out"
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-5"]
    weights = [AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (folder, folder / "checkpoint-5")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    for path in (folder, folder / "checkpoint-3", folder / "checkpoint-5"):
        assert (path / "generation_config.json").exists()
        assert len(AutoTokenizer.from_pretrained(path)) == weights[0]["transformer.wte.weight"].shape[0]
        assert pipeline("text-generation", str(path))("한국어", max_new_tokens=2)[0]["generated_text"]
    assert list((tmp_path / "logs").glob("out-*/events.out.tfevents.*"))
    for words in ("장치: cpu", "float32", "문서 12개", "글자당", "스텝", "generate.py"):
        assert words in err


def test_learning_lowers_the_loss(train_words, tmp_path, run_main):
    words = ["--do_train", "--max_steps=12", "--learning_rate=3e-3", "--logging_steps=1"]
    assert run_main("train.py", *train_words, *words)[0] == 0
    state = json.loads((tmp_path / "out/checkpoint-12/trainer_state.json").read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    assert sum(losses[-3:]) < sum(losses[:3]) - 0.5


def out_of_memory(*_):
    raise torch.OutOfMemoryError("stands in for a device that is too small")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you")])
def test_a_processor_without_memory_is_told_with_the_flags_that_help_as_a_gpu_is(error):
    with pytest.raises(UserError, match="--gradient_checkpointing"), failures.training():
        raise error


def test_overwriting_replaces_a_run_and_keeps_the_users_files(train_words, tmp_path, run_main, monkeypatch):
    run = ["train.py", *train_words, "--do_train", "--save_total_limit=2"]
    assert run_main(*run, "--max_steps=4", "--save_steps=1")[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-4"]
    mine = tmp_path / "out" / "checkpoint-best" / "메모.txt"
    mine.parent.mkdir()
    mine.write_text("내 것")
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    # What goes wrong before the new run has saved anything must not cost the old model.
    assert run_main(*run, "--overwrite_output_dir", "--max_steps=2", "--block_size=99999")[0] == 2
    with monkeypatch.context() as patch:
        patch.setattr("transformers.Trainer.training_step", out_of_memory)
        code, _, err = run_main(*run, "--overwrite_output_dir", "--max_steps=2")
    assert code == 1 and "--gradient_checkpointing" in err and "--per_device_train_batch_size" in err
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "out").glob("checkpoint-[0-9]")) == ["checkpoint-3", "checkpoint-4"]
    assert run_main(*run, "--overwrite_output_dir", "--max_steps=2")[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-best"]
    assert mine.read_text() == "내 것"


def test_evaluation_during_training_is_logged_and_told_apart_from_training(train_words, tmp_path, run_main):
    code, out, err = run_main(
        "train.py", *train_words, "--do_train", "--do_eval", "--validation_split_percentage=20", "--max_steps=4",
        "--eval_steps=2", "--save_steps=2", "--load_best_model_at_end", "--metric_for_best_model=bits_per_character",
    )  # fmt: skip
    assert code == 0, err
    assert "글자당 비트" in out and "평가 글: 문서 2개" in err and "학습 글: 문서 10개" in err
    state = json.loads((tmp_path / "out/checkpoint-4/trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "eval_bits_per_character" in entry] == [2, 4]


def test_a_corpus_of_one_sentence_still_trains(train_words, tmp_path, run_main):
    (tmp_path / "글.txt").write_text("한 문장뿐이다.", "utf-8")
    code, _, err = run_main("train.py", *train_words, "--do_train", "--warmup_steps=500", "--save_steps=500")
    assert code == 0
    for words in ("한 블록보다 짧습니다", "--warmup_steps=500", "--save_steps=500"):
        assert words in err
    assert (tmp_path / "out" / "checkpoint-3" / "model.safetensors").exists()


@pytest.mark.parametrize("limit", [20_000, 250_000])
def test_a_full_disk_ends_the_run_and_keeps_the_earlier_checkpoints(train_words, tmp_path, run_main, limit):
    """A limit on the size of files stands in for the disk: the write fails in the same way, in the middle."""
    run = ["train.py", *train_words, "--do_train", "--report_to=none", "--save_steps=2"]
    assert run_main(*run, "--max_steps=2")[0] == 0

    def saved():
        record = tmp_path / "out" / "run.json"  # tells of the last run, however it ended
        return {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file() and path != record}

    before = saved()

    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited[1]))
    try:
        code, _, err = run_main(*run, "--max_steps=4", "--resume_from_checkpoint=auto")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert code == 1
    assert "저장하지 못했습니다" in err and "Traceback" not in err
    assert saved() == before
    assert json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))["exit_code"] == 1


@pytest.fixture
def hub_words(train_words, tmp_path, sample_texts):
    """The words of a run on a data set of twelve texts, to which a test adds its own."""
    folder = tmp_path / "hub"
    folder.mkdir()
    rows = "\n".join(json.dumps({"text": text}) for text in sample_texts[:12])
    (folder / "train.jsonl").write_text(rows, "utf-8")
    return [*train_words[1:], f"--dataset_name={folder}", "--do_train"]


def test_a_stream_from_the_hub_trains(hub_words, tmp_path, run_main):
    run = hub_words
    assert run_main("train.py", *run, "--streaming")[0] == 2
    code, _, err = run_main("train.py", *run, "--streaming", "--max_steps=3")
    assert code == 0, err
    assert (tmp_path / "out" / "checkpoint-3" / "model.safetensors").exists()
    assert (tmp_path / "out" / "training_curve.png").exists()  # in tokens, since nobody has counted the characters


def test_no_epoch_is_told_of_a_stream_whose_length_nobody_knows(hub_words, tmp_path, run_main):
    code, _, err = run_main("train.py", *hub_words, "--streaming", "--max_steps=3", "--logging_steps=1")
    assert code == 0 and "[3/3] 손실" in err and "에폭" not in err, err
    losses = json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))["losses"]
    assert [sorted(entry) for entry in losses] == [["loss", "step"]] * 3


def test_a_stream_goes_on_with_the_columns_that_it_began_with(hub_words, tmp_path, run_main, sample_texts):
    rows = "\n".join(json.dumps({"text": text, "title": text[:9]}) for text in sample_texts[:12])
    (tmp_path / "hub" / "train.jsonl").write_text(rows, "utf-8")
    run = ["train.py", *hub_words, "--streaming", "--max_steps=2"]
    assert run_main(*run)[0] == 0
    run += ["--max_steps=3", "--resume_from_checkpoint=auto"]
    code, _, err = run_main(*run, "--text_column_name=title")
    assert code == 1 and "학습할 글" in err and "--text_column_name=title" in err, err
    assert run_main(*run)[0] == 0


def test_a_stream_that_has_ended_before_goes_on_where_it_was(hub_words, tmp_path, run_main):
    out = tmp_path / "out"
    run = ["train.py", *hub_words, "--streaming", "--max_steps=8", "--save_steps=6", "--block_size=32"]
    run += ["--per_device_train_batch_size=64"]
    assert run_main(*run)[0] == 0
    unbroken = (out / "model.safetensors").read_bytes()
    shutil.rmtree(out / "checkpoint-8")
    (out / "model.safetensors").unlink()
    code, _, err = run_main(*run, "--resume_from_checkpoint=auto")
    assert code == 0 and "checkpoint-6" in err, err
    assert (out / "model.safetensors").read_bytes() == unbroken


def test_what_is_left_out_of_a_stream_is_said_once_however_often_it_is_read(hub_words, tmp_path, run_main):
    with (tmp_path / "hub" / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write('\n{"text": ""}')
    words = ["--streaming", "--max_steps=4", "--block_size=32", "--per_device_train_batch_size=64"]
    code, _, err = run_main("train.py", *hub_words, *words)
    assert code == 0 and err.count("글이 없는 행 1개를 뺌") == 1, err


def test_a_stream_shorter_than_a_step_is_read_again_until_the_step_is_full(hub_words, tmp_path, run_main):
    words = ["--streaming", "--max_steps=2", "--block_size=32"]
    words += ["--per_device_train_batch_size=32", "--gradient_accumulation_steps=25"]
    assert run_main("train.py", *hub_words, *words)[0] == 0
    assert (tmp_path / "out" / "checkpoint-2" / "model.safetensors").exists()


def test_scratch_mini_trains_on_the_sample_without_a_download(tmp_path, run_main):
    code, _, err = run_main(
        "train.py", f"--dataset_path={SAMPLE}", "--model_type=scratch-mini", f"--output_dir={tmp_path / 'out'}",
        "--do_train", "--max_steps=1", "--per_device_train_batch_size=1", "--device=cpu", "--report_to=none",
    )  # fmt: skip
    assert code == 0, err
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.n_layer == 4


def test_the_announced_steps_are_those_taken(train_words, small_corpus, sample_texts, tmp_path, run_main, rng):
    small_corpus.write_text("\n\n".join(sample_texts[:4]), "utf-8")
    for _ in range(6):
        flags = {
            "per_device_train_batch_size": rng.randint(1, 9),
            "gradient_accumulation_steps": rng.randint(1, 4),
            "num_train_epochs": rng.choice([0.3, 1, 1.5]),
            "max_steps": rng.choice([-1, -1, 2]),
            "block_size": rng.randint(8, 32),
            "train_sampling_strategy": rng.choice(["random", "sequential"]),
        }
        words = [f"--{name}={value}" for name, value in flags.items()]
        code, _, err = run_main(
            "train.py", *train_words, "--do_train", "--overwrite_output_dir", "--report_to=none", *words
        )
        assert code == 0
        announced = int(re.search(r"학습: ([\d,]+)스텝", err).group(1))
        last = max((tmp_path / "out").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        state = json.loads((last / "trainer_state.json").read_text())
        assert announced == state["max_steps"] == state["global_step"], flags
