"""Several ranks learn, measure and stop as one process does."""

import json
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import NO_DROPOUT, ROOT, tiny_gpt2
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpt2_korean.checkpoints import complete
from gpt2_korean.messages import UserError
from gpt2_korean.training.run import train

RANKS = Path(__file__).parent / "ranks.py"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def test_fsdp_in_one_process_is_told_how_to_have_more(train_words, run_main):
    code, out, err = run_main("train.py", *train_words, "--do_train", "--max_steps=1", "--fsdp")
    assert code == 2 and out == "" and "--fsdp" in err and "torchrun" in err and "Traceback" not in err


@pytest.mark.parametrize(
    "left", [{"LOCAL_RANK": "0"}, {"PMI_RANK": "0", "PMI_SIZE": "2"}, {"WORLD_SIZE": ""}, {"RANK": "1"}, {"RANK": ""}]
)
def test_what_a_launcher_has_left_in_a_shell_is_named_with_the_way_on(train_words, tmp_path, fork_script, left):
    script = tmp_path / "left.py"
    script.write_text(
        f"import os, sys\nos.environ |= {left}\nimport train\nfrom gpt2_korean.ending import run_script\n"
        "sys.exit(run_script(train.main))\n"
    )
    finished = fork_script(script, *train_words, "--do_train", "--max_steps=1")
    assert finished.returncode == 2 and "Error" not in finished.stderr, finished.stderr
    assert next(iter(left))[:4] in finished.stderr and "unset" in finished.stderr and "torchrun" in finished.stderr


@pytest.mark.parametrize("key", ["state_dict_type", "fsdp_state_dict_type"])
def test_checkpoints_in_parts_are_refused_before_anything_is_trained(train_words, tmp_path, run_main, key):
    words = ["--do_train", "--max_steps=1", "--fsdp", f'--fsdp_config={{"{key}": "SHARDED_STATE_DICT"}}']
    code, _, err = run_main("train.py", *train_words, *words)
    assert code == 2 and "--fsdp_config" in err and "SHARDED_STATE_DICT" in err and "Traceback" not in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("way", ["average", "products", "muon"])
def test_ranks_average_their_gradients_start_alike_and_share_muons_work(fork_script, way):
    if way == "products":
        pytest.importorskip("triton")
    for finished in fork_script(RANKS, way, ranks=2):
        assert finished.returncode == 0 and "Warning" not in finished.stderr, finished.stderr


@pytest.mark.parametrize(
    ("way", "words"), [("wrapped", []), ("recorded", ["--average_last=4"]), ("sharded", ["--fsdp"])]
)
def test_two_ranks_learn_and_measure_what_one_process_does(
    train_words, tiny_model_folder, tmp_path, run_main, fork_script, way, words
):
    """With DistributedDataParallel, with the averaging that takes its place where steps are recorded, and with FSDP."""
    model, out = tmp_path / "model", tmp_path / "out"
    tiny_gpt2(640, initializer_range=0.02, **NO_DROPOUT).save_pretrained(shutil.copytree(tiny_model_folder, model))
    run = [
        *train_words, "--do_train", "--do_eval", "--validation_split_percentage=30", "--max_steps=6",
        "--gradient_accumulation_steps=2", "--report_to=none", "--overwrite_output_dir", "--learning_rate=0.1",
        "--optim=sgd", "--block_size=8", "--train_sampling_strategy=sequential", f"--model_type={model}",
    ]  # fmt: skip
    on_any = [word for word in words if word != "--fsdp"]
    code, alone, err = run_main("train.py", *run, *on_any, "--per_device_train_batch_size=4")
    assert code == 0, err
    expected = AutoModelForCausalLM.from_pretrained(out).state_dict()
    files = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    first, second = fork_script(RANKS, way, *run, "--per_device_train_batch_size=2", *words, ranks=2)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    together, by_itself = (json.loads(text.splitlines()[-1]) for text in (first.stdout, alone))
    assert together == pytest.approx(by_itself, rel=1e-4)
    found = AutoModelForCausalLM.from_pretrained(out).state_dict()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    there = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    assert {path for path in files if "rng_state" not in path.name} <= there


def check_two_ranks(fork_script, run, out):
    """Two ranks that take two blocks each learn by `run` the weights that stand in `out`, a process' of four."""
    expected = AutoModelForCausalLM.from_pretrained(out).state_dict()
    for finished in fork_script(RANKS, "wrapped", *run, "--per_device_train_batch_size=2", ranks=2):
        assert finished.returncode == 0, finished.stderr
    found = AutoModelForCausalLM.from_pretrained(out).state_dict()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("smoothing", ["0", "0.1"])
def test_two_ranks_learn_the_last_blocks_of_an_epoch_once(train_words, tmp_path, run_main, fork_script, smoothing):
    short, out = tmp_path / "short.txt", tmp_path / "out"
    short.write_text("\n\n".join(["가나다라마바사"] * 6), "utf-8")
    run = [
        *train_words, f"--dataset_path={short}", "--do_train", "--num_train_epochs=1", "--report_to=none",
        "--overwrite_output_dir", "--learning_rate=0.1", "--optim=sgd", "--block_size=8", "--packing=stream",
        "--dropout=0", f"--label_smoothing_factor={smoothing}",
    ]  # fmt: skip
    code, _, err = run_main("train.py", *run, "--per_device_train_batch_size=4")
    assert code == 0 and "블록 9개" in err, err
    check_two_ranks(fork_script, run, out)


def test_two_ranks_learn_from_a_stream_what_one_process_does(train_words, tmp_path, run_main, fork_script):
    """Blocks as long as their pieces come, a text each: what the ranks take of a step is not of one length."""
    hub, out = tmp_path / "hub", tmp_path / "out"
    hub.mkdir()
    rows = (json.dumps({"text": "가나다라마"[: 3 + number % 3]}) for number in range(9))
    (hub / "train.jsonl").write_text("\n".join(rows), "utf-8")
    run = [
        *train_words[1:], f"--dataset_name={hub}", "--streaming", "--do_train", "--max_steps=6", "--report_to=none",
        "--overwrite_output_dir", "--learning_rate=0.1", "--optim=sgd", "--block_size=8", "--dropout=0",
    ]  # fmt: skip
    code, _, err = run_main("train.py", *run, "--per_device_train_batch_size=4")
    assert code == 0, err
    check_two_ranks(fork_script, run, out)


def test_two_ranks_stop_together_when_one_is_signalled_and_go_on(resumable_words, tmp_path, run_script, fork_script):
    """The second rank signals itself alone, in the middle of its third step; torchrun sees how it ends."""
    words = [*resumable_words[1:], "--max_steps=6", "--save_steps=100"]
    stopped = run_script(*TORCHRUN, RANKS, "stopped", *words)
    assert stopped.returncode != 0 and "exitcode  : 75" in stopped.stderr and "3스텝에서 멈추고" in stopped.stderr
    checkpoint = tmp_path / "out" / "checkpoint-3"
    assert complete.is_resumable(checkpoint)
    assert {path.name for path in checkpoint.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}
    for gone_on in fork_script("train.py", *words, ranks=2):
        assert gone_on.returncode == 0, gone_on.stderr
    assert json.loads((tmp_path / "out" / "trainer_state.json").read_text())["global_step"] == 6


def test_two_ranks_that_go_on_within_a_later_epoch_learn_its_blocks_as_if_they_had_not_stopped(
    train_words, tmp_path, fork_script
):
    out = tmp_path / "out"
    run = [
        *train_words, "--do_train", "--max_steps=7", "--save_steps=5", "--report_to=none", "--learning_rate=0.1",
        "--optim=sgd", "--dropout=0", "--per_device_train_batch_size=16",
    ]  # fmt: skip
    for finished in fork_script("train.py", *run, ranks=2):
        assert finished.returncode == 0, finished.stderr
    epoch = json.loads((out / "checkpoint-5" / "trainer_state.json").read_text())["epoch"]
    assert epoch > 1 and epoch % 1
    expected = load_file(out / "model.safetensors")
    shutil.rmtree(out / "checkpoint-7")
    for finished in fork_script("train.py", *run, "--resume_from_checkpoint=auto", ranks=2):
        assert finished.returncode == 0 and "이미 끝난" not in finished.stderr, finished.stderr
    torch.testing.assert_close(load_file(out / "model.safetensors"), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("way", "code"), [("killed", -signal.SIGKILL), ("full", 1)])
def test_a_rank_whose_peer_ended_says_so_and_calls_it_no_fault_of_ours(resumable_words, fork_script, way, code):
    first, second = fork_script(RANKS, way, *resumable_words[1:], "--max_steps=6", ranks=2)
    assert second.returncode == code and first.returncode == 1, first.stderr
    assert "프로세스 하나가 먼저 끝나" in first.stderr and first.stderr.count("오류:") == 1, first.stderr
    assert "저장하지 못했습니다" not in first.stderr
    assert ("저장하지 못했습니다. 디스크에 남은 공간이 없습니다" in second.stderr) == (way == "full")


@pytest.fixture
def learning_words(train_words, tmp_path):
    """A run that learns a vocabulary from a file of its own, which no test before it can have left in the cache."""
    texts = shutil.copy(ROOT / "data" / "korean_texts.txt", tmp_path / "배울 글.txt")
    words = ["--do_train", "--tokenizer=korean", "--vocab_size=1024", "--max_steps=1", "--report_to=none"]
    return [*train_words, f"--dataset_path={texts}", *words]


def test_the_vocabulary_is_learnt_by_one_rank_and_read_by_the_other(learning_words, tmp_path, fork_script):
    first, second = fork_script(RANKS, "learnt", *learning_words, ranks=2)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "rank 0 learns" in first.stderr and "learns" not in second.stderr
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) == 1024


def test_ranks_with_different_texts_do_not_train(train_words, fork_script):
    for finished in fork_script(RANKS, "other texts", *train_words, "--do_train", "--max_steps=1", ranks=2):
        assert finished.returncode == 1 and "글이나 어휘가 다릅니다" in finished.stderr, finished.stderr


def test_nodes_without_a_common_disk_are_told_before_they_train(train_words, tmp_path, fork_script):
    """Where they began, their first save failed, or what it left was nothing to go on from."""
    for finished in fork_script(RANKS, "other disk", *train_words, "--do_train", "--max_steps=1", ranks=2):
        assert finished.returncode == 1 and "--output_dir" in finished.stderr, finished.stderr
        assert "모든 노드가 함께 보는 폴더" in finished.stderr and "[1/1]" not in finished.stderr, finished.stderr
    assert not (tmp_path / "out").exists()


def test_ranks_that_found_different_checkpoints_do_not_train(tmp_path, monkeypatch):
    """As one whose network disk does not show the newest yet: the other has none, or an earlier one."""
    monkeypatch.setattr("gpt2_korean.training.run.is_held", lambda folder: True)
    checkpoint = tmp_path / "checkpoint-3"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text('{"global_step": 3, "max_steps": 9}', "utf-8")
    arguments = SimpleNamespace(world_size=2, output_dir=tmp_path, device="cpu")
    record = SimpleNamespace(provenance={"vocabulary": 1, "corpus": 2})
    for mine, other, told in ((checkpoint, -1, r"\[3, -1\]"), (checkpoint, 2, r"\[3, 2\]"), (None, 3, r"\[-1, 3\]")):

        def gather(found, other=other):
            [[shared, _, learnt]] = found.tolist()
            return torch.cat([found, torch.tensor([[shared, other, learnt]])])

        trainer = SimpleNamespace(args=arguments, record=record, accelerator=SimpleNamespace(gather=gather))
        with pytest.raises(UserError, match=f"프로세스마다 다른 체크포인트를 찾았습니다.{told}스텝"):
            train(trainer, mine)


def test_ranks_with_different_vocabularies_do_not_train(learning_words, tmp_path, fork_script):
    for finished in fork_script(RANKS, "learnt otherwise", *learning_words, ranks=2):
        assert finished.returncode == 1 and "글이나 어휘가 다릅니다" in finished.stderr, finished.stderr
    assert not list((tmp_path / "out").glob("checkpoint-*"))
