"""What our Trainer does otherwise than transformers'."""

import torch


def test_auto_find_batch_size_keeps_the_blocks_of_a_step(train_words, tmp_path, run_main, monkeypatch):
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
