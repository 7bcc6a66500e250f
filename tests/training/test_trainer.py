"""What our Trainer does otherwise than transformers'."""

import io
import json
import math
import re
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from tqdm import tqdm

from gpt2_korean.speed import choose, graphs, throughput


def test_auto_find_batch_size_keeps_the_blocks_of_a_step(train_words, run_main, monkeypatch):
    from gpt2_korean.training.trainer import KoreanTrainer

    original, seen = KoreanTrainer.training_step, []

    def too_large_for_the_device(self, model, inputs, *rest):
        if len(inputs["input_ids"]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        seen.append(len(inputs["input_ids"]))
        return original(self, model, inputs, *rest)

    monkeypatch.setattr(KoreanTrainer, "training_step", too_large_for_the_device)
    code, _, err = run_main(
        "train.py", *train_words, "--do_train", "--max_steps=4", "--per_device_train_batch_size=8",
        "--gradient_accumulation_steps=2", "--auto_find_batch_size", "--block_size=8",
    )  # fmt: skip
    assert code == 0, err
    assert seen == [2] * 8 * 4
    assert "2개씩 8번" in err


@pytest.mark.parametrize("limit", [0.02, 1e9])
def test_recorded_steps_clip_gradients_as_all_others_do(train_words, tmp_path, run_main, monkeypatch, limit):
    """With an epsilon that lets AdamW's steps tell how large the gradients are."""
    words = [
        *train_words, "--do_train", "--max_steps=4", "--logging_steps=1", "--dropout=0", "--learning_rate=0.1",
        "--warmup_steps=0", "--adam_epsilon=1", f"--max_grad_norm={limit}", "--block_size=8", "--report_to=none",
    ]  # fmt: skip
    assert run_main("train.py", *words, f"--output_dir={tmp_path / 'plain'}")[0] == 0
    monkeypatch.setattr(choose, "has_graphs", lambda device: True)
    monkeypatch.setattr(graphs, "WARM_UP", 10**9)  # nothing is replayed
    code, _, err = run_main("train.py", *words, "--device_graphs", f"--output_dir={tmp_path / 'recorded'}")
    assert code == 0, err
    states = [json.loads((tmp_path / name / "trainer_state.json").read_text()) for name in ("plain", "recorded")]
    norms = [[entry["grad_norm"] for entry in state["log_history"] if "grad_norm" in entry] for state in states]
    assert len(norms[0]) == 4 and norms[1] == pytest.approx(norms[0], rel=1e-4)
    expected, found = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "recorded"))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_speed_that_is_told_is_that_of_the_steps_alone(evaluated_words, tmp_path, run_main, monkeypatch):
    """By a clock of which a step takes a second, an evaluation, a save and a picture a thousand."""
    from gpt2_korean.training import callbacks, trainer

    clock, tokens = SimpleNamespace(now=0.0), []
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def slow(function, seconds):
        def call(*args, **keywords):
            clock.now += seconds
            return function(*args, **keywords)

        return call

    def step(self, model, inputs, *rest, original=trainer.KoreanTrainer.training_step):
        tokens.append(inputs["input_ids"].numel())
        loss = original(self, model, inputs, *rest)
        clock.now += 1
        return loss

    monkeypatch.setattr(trainer.KoreanTrainer, "training_step", step)
    for owner, name in ((trainer, "exact_loss"), (trainer, "publish_checkpoint"), (callbacks, "draw")):
        monkeypatch.setattr(owner, name, slow(getattr(owner, name), 1000))
    assert run_main(*evaluated_words, "--max_steps=4", "--eval_steps=2")[0] == 0
    history = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
    assert [entry["tokens_per_second"] for entry in history if "loss" in entry] == tokens and len(tokens) == 4
    assert [entry["train_tokens_per_second"] for entry in history if "train_loss" in entry] == [sum(tokens) / 4]


def test_beside_the_bar_stand_the_speed_and_the_loss_since_the_last_line_of_the_log():
    from gpt2_korean.training.trainer import KoreanTrainer

    def told(speed, steps, tokens_per_character=0.5):
        meter, state = SimpleNamespace(overall=lambda: speed), SimpleNamespace(global_step=10 + steps)
        run = {"meter": meter, "state": state, "_globalstep_last_logged": 10, "_tr_loss": torch.tensor(8.0)}
        return KoreanTrainer.describe_progress(SimpleNamespace(**run, tokens_per_character=tokens_per_character))

    assert told(12345.6, 4) == ["초당 토큰 12,346", "글자당 비트 1.443", "손실 2.000"]
    assert told(None, 4, None) == ["손실 2.000"] and told(None, 0) == []


@pytest.mark.parametrize(("columns", "last"), [(80, "글자당 비트 2.605]"), (100, "손실 6.331]")])
def test_the_bar_shows_its_numbers_whole(columns, last, monkeypatch):
    """Of a run of hours; a terminal has 80 columns, as a notebook's, or more."""
    from gpt2_korean.training.callbacks import ProgressBar

    monkeypatch.setenv("COLUMNS", str(columns))
    bar = partial(tqdm, disable=False, file=io.StringIO())
    monkeypatch.setattr("transformers.trainer_callback.tqdm", bar)
    words = ["초당 토큰 199,499", "글자당 비트 2.605", "손실 6.331"]
    shown = ProgressBar(SimpleNamespace(describe_progress=lambda: words))
    state = SimpleNamespace(is_world_process_zero=True, max_steps=150_000, global_step=75_000)
    shown.on_train_begin(None, state, None)
    shown.on_step_end(None, state, None)
    told = {"elapsed": 36_000, "ncols": columns - 1}
    line = tqdm.format_meter(**{**shown.training_bar.format_dict, **told})
    shown.training_bar.close()
    assert line.endswith(last) and "75000/150000" in line and "10:00:00<10:00:00" in line


def test_a_run_shows_its_bar_on_stderr_with_our_numbers_unless_none_is_asked_for(train_words, run_main):
    words = [word for word in train_words if word != "--disable_tqdm"]
    words += ["--do_train", "--max_steps=2", "--logging_steps=1", "--report_to=none", "--overwrite_output_dir"]
    for hidden in ([], ["--disable_tqdm"]):
        code, out, err = run_main("train.py", *words, *hidden)
        assert (code, out) == (0, "") and "[2/2] 손실" in err
        assert bool(re.search(r"\| 1/2 \[.*글자당 비트", err)) != bool(hidden) and ("%|" in err) != bool(hidden), err


def test_the_bar_tells_bits_at_what_the_evaluated_text_spends(train_words, tmp_path, run_main, at_training_step):
    """Beside which they are read."""
    other, told = tmp_path / "다른 글.txt", []
    other.write_text("The quick brown fox.", "utf-8")
    at_training_step(1, lambda trainer: told.append(trainer.tokens_per_character))
    words = ["--do_train", "--do_eval", f"--validation_file={other}", "--max_steps=1", "--eval_steps=1"]
    assert run_main("train.py", *train_words, *words, "--report_to=none")[0] == 0
    history = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
    [measured] = [entry for entry in history if "eval_loss" in entry][:1]
    bits = measured["eval_loss"] / math.log(2)
    assert told == [pytest.approx(measured["eval_bits_per_character"] / bits)]


def test_the_bar_is_told_once_a_second_at_most(monkeypatch):
    from gpt2_korean.training import callbacks

    clock, told = SimpleNamespace(now=0.0), []
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda: clock.now))
    bar = callbacks.ProgressBar(SimpleNamespace(describe_progress=lambda: ["초당 토큰 3", f"손실 {clock.now}"]))
    bar.training_bar, bar.current_step = SimpleNamespace(update=lambda steps: None, set_postfix_str=told.append), 0
    for step, clock.now in enumerate((100, 100.5, 101.5, 102), 1):
        bar.on_step_end(None, SimpleNamespace(is_world_process_zero=True, global_step=step), None)
    assert told == ["초당 토큰 3 · 손실 100", "초당 토큰 3 · 손실 101.5"]


def test_what_is_logged_is_a_line_of_words_and_short_numbers(capsys):
    from gpt2_korean.training.callbacks import LogLines

    logs = {"loss": 2.345678, "learning_rate": 5e-5, "tokens_per_second": 12345.6, "train_mfu": 0.3152, "x": 1}
    for first, steps, told in ((True, 6, logs), (False, 6, logs), (True, 0, logs), (True, 6, {"epoch": 1.0, "x": 1})):
        LogLines().on_log(
            None, SimpleNamespace(is_world_process_zero=first, global_step=3, max_steps=steps), None, told
        )
    shown = capsys.readouterr()
    assert (
        shown.err.splitlines() == ["[3/6] 손실 2.346 · 학습률 5e-05 · 초당 토큰 12,346 · MFU 31.5%"] and not shown.out
    )


def test_a_run_in_float16_whose_steps_all_overflow_is_told_as_one_that_diverged():
    from gpt2_korean.messages import UserError
    from gpt2_korean.training.trainer import KoreanTrainer

    run = SimpleNamespace(args=SimpleNamespace(fp16=True), state=SimpleNamespace(global_step=3))
    for name in ("loss", "train_loss"):
        with pytest.raises(UserError, match=r"3스텝까지.*체크포인트가 있다면"):  # there may be none
            KoreanTrainer.log(run, {name: 0.0})


def test_an_optimizer_whose_weights_in_training_are_others_is_told_of_each_evaluation(
    evaluated_words, run_main, at_training_step
):
    """As those without a schedule have (Defazio et al. 2024)."""
    told = []

    def watch(trainer):
        optimizer = trainer.optimizer.optimizer
        optimizer.train = lambda: None
        optimizer.eval = lambda: told.append(trainer.state.global_step)

    at_training_step(1, watch)
    code, _, err = run_main(*evaluated_words, "--report_to=none")
    assert code == 0 and told == [3, 6], err
