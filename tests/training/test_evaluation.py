"""Evaluation counts each target once, whatever the batches, and stops where it is asked to."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import tiny_gpt2

from gpt2_korean.training.evaluation import EvaluationStopped, exact_loss, exact_metrics
from gpt2_korean.training.stopping import StopRequest


def random_blocks(rng, vocab_size, lengths):
    rows = [[rng.randrange(vocab_size) for _ in range(length)] for length in lengths]
    return [{"input_ids": np.array(row), "labels": np.array([-100, *row[1:]])} for row in rows]


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_the_summed_loss_is_that_of_every_token_by_itself(rng, batch):
    model = tiny_gpt2(301)
    blocks = random_blocks(rng, 301, [32, 1, *(rng.randint(1, 32) for _ in range(9))])  # 1: no target
    expected = 0.0
    with torch.no_grad():
        exact = model.double()
        for block in blocks:
            for place in range(1, len(block["input_ids"])):
                log_probabilities = (
                    exact(torch.from_numpy(block["input_ids"])[None, :place]).logits[0, -1].log_softmax(-1)
                )
                expected -= log_probabilities[block["input_ids"][place]].item()
    found = exact_loss(model.float(), blocks, batch, torch.device("cpu"), StopRequest())
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_model_that_is_surer_of_what_is_wrong_than_numbers_can_tell_has_a_perplexity():
    blocks = SimpleNamespace(targets=2)
    assert exact_metrics(2 * 3.0, blocks, 5)["perplexity"] == pytest.approx(math.exp(3))
    assert exact_metrics(2 * 800.0, blocks, 5)["perplexity"] == math.inf


def test_it_asks_at_every_batch_whether_to_stop(rng):
    asked = []

    class Counting(StopRequest):
        def agreed(self, device="cpu"):
            asked.append(device)
            return len(asked) == 3

    with pytest.raises(EvaluationStopped):
        exact_loss(tiny_gpt2(301), random_blocks(rng, 301, [8] * 9), 2, torch.device("cpu"), Counting())
    assert len(asked) == 3


def test_it_is_said_which_model_is_measured_where_the_words_of_a_training_are_given(
    run_main, tiny_model_folder, small_corpus, tmp_path
):
    words = ["train.py", "--do_eval", f"--dataset_path={small_corpus}", "--no_measure_texts", "--use_cpu"]
    words += ["--report_to=none"]
    for more, model in (
        ([f"--model_type={tiny_model_folder}"], None),
        ([f"--model_type={tiny_model_folder}", f"--output_dir={tmp_path}"], tiny_model_folder),
        (["--model_type=scratch-mini"], "scratch-mini"),
    ):
        code, _, err = run_main(*words, *more)
        told = err.count("평가할 모델은"), err.count(f"--model_type={model}입니다")
        assert code == 0 and told == (model is not None,) * 2
