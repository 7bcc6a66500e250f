"""Kill training with SIGKILL, again and again, and see that the same command goes on from what is left.

python tests/training/crash_harness.py FOLDER KILLS [CONFIGURATION...], where FOLDER holds `model` and `글.txt`: so many
kills in each configuration (all of them, if none is named).

A run is forked from this process, which has loaded the libraries already, and killed at one of its file operations in
output_dir, evenly chosen among all of them, or at any time; the run after it perhaps too. What an unkilled one leaves
at last must be what an unbroken run leaves: the same files, the same weights, the same modes.
"""

import gc
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import forks
import torch
from safetensors.torch import load_file

import train
from gpt2_korean.checkpoints import complete
from gpt2_korean.ending import run_script

SAVE_STEPS, LAST_STEP = 2, 5
OPERATIONS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "shutil.rmtree"}
RESUME = "--resume_from_checkpoint=auto"
EVALUATE = ["--do_eval", "--validation_split_percentage=20", "--eval_steps=1", "--learning_rate=0.3"]
CONFIGURATIONS = {
    "plain": ["--save_total_limit=1", RESUME],
    "overwriting": [],
    "best": [*EVALUATE, "--load_best_model_at_end", "--save_total_limit=1", RESUME],
    "lora": ["--lora_rank=2", RESUME],
    "early": [*EVALUATE, "--early_stopping_patience=2", RESUME],
    "average": [*EVALUATE, "--average_last=4", "--load_best_model_at_end", "--save_total_limit=1", RESUME],
    "vocabulary": ["--tokenizer=korean", "--vocab_size=384", "--save_total_limit=2", RESUME],
}
# What the run that is overwritten leaves: other steps and one of the same, and files that the new one does not write.
EARLIER = ["--max_steps=3", "--save_steps=1", "--lora_rank=2", RESUME]


def command(folder, out, words):
    return [
        f"--dataset_path={folder / '글.txt'}", f"--model_type={folder / 'model'}", f"--output_dir={out}", "--do_train",
        f"--max_steps={LAST_STEP}", f"--save_steps={SAVE_STEPS}", "--logging_steps=1", "--device=cpu", "--no_bf16",
        "--per_device_train_batch_size=2", "--block_size=16", "--learning_rate=1e-3", "--report_to=none",
        "--disable_tqdm", "--overwrite_output_dir", *words,
    ]  # fmt: skip


def start(folder, out, words, kill_at=None):
    """Fork a run; it kills itself at its `kill_at`-th file operation in `out`, or writes their number at its end."""
    (folder / "log").write_bytes(b"")  # it may be killed before it says anything
    process = os.fork()
    if process:
        return process
    try:
        descriptor = os.open(folder / "log", os.O_WRONLY)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        operations = count_operations(out, kill_at)
        code = run_script(lambda: train.main(command(folder, out, words)))
        (folder / "count").write_text(str(len(operations)))
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        code = 99
    os._exit(code)


def count_operations(out, kill_at):
    operations = []

    def hook(event, arguments):
        if event not in OPERATIONS or not isinstance(arguments[0], str | os.PathLike):
            return
        inside = event in ("os.remove", "os.rmdir") and arguments[-1] != -1  # named from the folder that is removed
        if inside or str(out) in str(arguments[0]):
            operations.append(event)
            if len(operations) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return operations


def finish(process):
    """The exit code of a run, -9 where it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def newest(out):
    """When the run of the newest whole checkpoint began, and its step."""
    whole = complete.whole_checkpoints(out)
    if not whole:
        return 0, 0
    return complete.read_json(whole[-1] / complete.RESUME)["started"], complete.trainer_state(whole[-1])["global_step"]


def check_nothing_lost(out, log, before, earlier):
    """Assert that a killed run left at least what stood there before it, and lost at most one save interval."""
    trained = [int(step) for step in re.findall(r"^\[(\d+)/", log, re.MULTILINE)]
    began, step = now = newest(out)
    assert now >= before, f"{before}의 체크포인트가 사라지고 {now}만 남았습니다"
    if began == earlier:
        step = 0
        assert complete.missing_weights(out) is None and (out / "config.json").exists(), "지난 모델이 사라졌습니다"
    assert step >= max(trained, default=0) - SAVE_STEPS, f"{max(trained)}스텝까지 배웠는데 {step}스텝만 남았습니다"
    return now


def content(out):
    """Each file in `out` → its mode, and its weights if it holds some."""
    files = {path.relative_to(out): path for path in out.rglob("*") if path.is_file()}
    return {
        name: (path.stat().st_mode, load_file(path) if path.suffix == ".safetensors" else {})
        for name, path in files.items()
    }


def check_finished(out, expected):
    found = content(out)
    assert found.keys() == expected.keys(), sorted(map(str, found.keys() ^ expected.keys()))
    for name, (mode, weights) in expected.items():
        assert found[name][0] == mode, f"{name}: {found[name][0]:o}, {mode:o}이어야 함"
        same = all(torch.equal(found[name][1][key], weights[key]) for key in weights)
        assert same, f"{name}: 이어서 배운 가중치가 다릅니다"
    record = json.loads((out / "run.json").read_text("utf-8"))
    assert record["exit_code"] == 0 and record["end"], f"run.json: {record['exit_code']}, {record['end']}"


def lay_out(folder, out, name):
    """Begin with what stands in `out` before the first run; returns when the earlier run began, None where none is."""
    shutil.rmtree(out, ignore_errors=True)
    if name != "overwriting":
        return None
    kept = folder / "earlier"
    if not kept.exists():
        assert finish(start(folder, kept, EARLIER)) == 0, (folder / "log").read_text("utf-8")
    shutil.copytree(kept, out)
    return newest(out)[0]


def kill(folder, name, kills, rng):
    out, words = folder / name, CONFIGURATIONS[name]
    lay_out(folder, out, name)
    begin = time.monotonic()
    assert finish(start(folder, out, words)) == 0, (folder / "log").read_text("utf-8")
    duration, total, expected = time.monotonic() - begin, int((folder / "count").read_text()), content(out)
    killed = finished = 0
    while killed < kills:
        earlier, before, resume = lay_out(folder, out, name), (0, 0), []
        kill_at = 1 + killed * total // kills
        while True:
            at_any_time = kill_at is not None and rng.random() < 0.2
            process = start(folder, out, [*words, *resume], None if at_any_time else kill_at)
            if at_any_time:
                time.sleep(rng.uniform(0, duration))
                os.kill(process, signal.SIGKILL)
            code, log = finish(process), (folder / "log").read_text("utf-8")
            assert code in (0, -9), f"{name}, {kill_at}: {code}\n{log}"
            try:
                if code == 0:
                    check_finished(out, expected)
                    break
                before = check_nothing_lost(out, log, before, earlier)
            except AssertionError as error:
                raise AssertionError(f"{name}, {kill_at}: {error}\n{log}") from None
            killed += 1
            # A run that is to overwrite goes on as soon as something of it is there.
            resume = [RESUME] if name == "overwriting" and before[0] != earlier else []
            kill_at = rng.randint(1, total) if rng.random() < 0.4 and killed < kills else None
        finished += 1
        print(f"{name}: {killed}", file=sys.stderr, flush=True)
    print(f"{name}: 파일을 다루는 {total}곳과 아무 때에 {killed}번 죽임, {finished}번 끝까지 감", flush=True)


if __name__ == "__main__":
    folder, kills, names = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] or CONFIGURATIONS
    forks.load_libraries()
    gc.freeze()  # a run looks for garbage of its own alone
    for name in names:
        kill(folder, name, kills, random.Random(name))
