"""Kill training with SIGKILL, again and again, and see that the same command goes on from what is left.

python tests/training/crash_harness.py FOLDER RANDOM_KILLS SAVE_KILLS, where FOLDER holds `model` and `글.txt`.

A run is forked from this process, which has loaded the libraries already. RANDOM_KILLS come at random times;
SAVE_KILLS at file operations in output_dir, evenly chosen among all of a run (0: at every one of them).
"""

import os
import random
import re
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from safetensors.torch import load_file

import train
from gpt2_korean import messages
from gpt2_korean.checkpoints import (
    complete,
    same_run,  # noqa: F401, loaded before the forks
)
from gpt2_korean.training import run  # noqa: F401, loaded before the forks

SAVE_STEPS = 2
OPERATIONS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}


def command(folder, out):
    return [
        f"--dataset_path={folder / '글.txt'}", f"--model_type={folder / 'model'}", f"--output_dir={out}", "--do_train",
        "--max_steps=7", f"--save_steps={SAVE_STEPS}", "--save_total_limit=1", "--logging_steps=1", "--device=cpu",
        "--per_device_train_batch_size=2", "--learning_rate=1e-3", "--report_to=none", "--disable_tqdm",
        "--overwrite_output_dir", "--resume_from_checkpoint=auto",
    ]  # fmt: skip


def start(folder, out, log, kill_at=None, count_file=None):
    """Fork a run; it kills itself at its `kill_at`-th file operation in `out`, or writes their number at its end."""
    process = os.fork()
    if process:
        return process
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        operations = count_operations(out, kill_at)
        code = messages.run_script(lambda: train.main(command(folder, out)))
        if count_file:
            count_file.write_text(str(len(operations)))
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        code = 99
    os._exit(code)


def count_operations(out, kill_at):
    operations = []

    def hook(event, arguments):
        if event in OPERATIONS and isinstance(arguments[0], str | os.PathLike) and str(out) in str(arguments[0]):
            operations.append(event)
            if len(operations) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return operations


def finish(process):
    """The exit code of a run, -9 where it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def newest_step(out):
    whole = complete.whole_checkpoints(out)
    return complete.trainer_state(whole[-1])["global_step"] if whole else 0


def check_nothing_lost(out, log, before):
    """Assert that a killed run left at least what stood there before it, and lost at most one save interval."""
    trained = [int(step) for step in re.findall(r"^\[(\d+)/", log.read_text("utf-8"), re.MULTILINE)]
    now = newest_step(out)
    assert now >= before, f"{before}스텝의 체크포인트가 사라지고 {now}만 남았습니다"
    assert now >= max(trained, default=0) - SAVE_STEPS, f"{max(trained)}스텝까지 배웠는데 {now}스텝만 남았습니다"
    return now


def check_finished(out, expected, log):
    weights = load_file(out / "model.safetensors")
    assert all(torch.equal(weights[name], expected[name]) for name in expected), "이어서 배운 가중치가 다릅니다"
    assert [path.name for path in out.glob("checkpoint-*")] == ["checkpoint-7"], sorted(out.iterdir())
    assert not [path for path in out.iterdir() if path.name.startswith("_")], sorted(out.iterdir())


def kill_at_random_times(folder, kills, rng):
    out, log = folder / "random", folder / "log"
    begin = time.monotonic()
    assert finish(start(folder, folder / "unbroken", log)) == 0, log.read_text("utf-8")
    duration = time.monotonic() - begin
    expected = load_file(folder / "unbroken" / "model.safetensors")
    killed = finished = step = 0
    while killed < kills:
        process = start(folder, out, log)
        time.sleep(rng.uniform(0.2, 1.0) * duration)
        os.kill(process, signal.SIGKILL)
        code = finish(process)
        assert code in (0, -9), log.read_text("utf-8")
        step = check_nothing_lost(out, log, step)
        killed += code == -9
        if code == 0:
            check_finished(out, expected, log)
            shutil.rmtree(out)
            finished, step = finished + 1, 0
    assert finish(start(folder, out, log)) == 0, log.read_text("utf-8")
    check_finished(out, expected, log)
    print(f"무작위 {killed}번 죽임, {finished + 1}번 끝까지 감")


def kill_in_saves(folder, kills):
    out, log, counted = folder / "saves", folder / "log", folder / "count"
    expected = load_file(folder / "unbroken" / "model.safetensors")
    assert finish(start(folder, out, log, count_file=counted)) == 0, log.read_text("utf-8")
    total = int(counted.read_text())
    kills = kills or total
    chosen = [1 + number * total // kills for number in range(kills)]
    for operation in chosen:
        shutil.rmtree(out)
        code = finish(start(folder, out, log, kill_at=operation))
        assert code == -9, f"{operation}: {code}\n{log.read_text('utf-8')}"
        check_nothing_lost(out, log, 0)
        code = finish(start(folder, out, log))
        assert code == 0, f"{operation}: {code}\n{log.read_text('utf-8')}"
        check_finished(out, expected, log)
    print(f"파일을 다루는 {total}곳 가운데 {len(chosen)}곳에서 죽임")


if __name__ == "__main__":
    folder, random_kills, save_kills = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    kill_at_random_times(folder, random_kills, random.Random(6))
    kill_in_saves(folder, save_kills)
