"""What libraries and the system raise while a run trains, told as a UserError with a flag and the way on."""

import signal
import threading
from contextlib import contextmanager

from torch import OutOfMemoryError

from gpt2_korean.checkpoints import atomic_files
from gpt2_korean.checkpoints.complete import as_os_error, list_checkpoints
from gpt2_korean.checkpoints.same_run import start_anew
from gpt2_korean.messages import (
    UserError,
    describe_os_error,
    is_first_rank,
    is_of_lost_rank,
    is_out_of_memory,
    particle,
)
from gpt2_korean.training.rehearsal import describe_cause

UNANSWERED = (ConnectionError, EOFError)  # what asking a process that has died raises


@contextmanager
def training():
    """Explain a device out of memory, kernels that do not compile, and data loader processes that died."""
    try:
        with _logs_left():
            yield
    except (RuntimeError, MemoryError, *UNANSWERED) as error:
        if is_out_of_memory(error) and not _is_of_a_reader(error):
            raise UserError(
                "장치의 메모리가 모자랍니다. --per_device_train_batch_size를 줄이고 --gradient_accumulation_steps를 "
                "그만큼 늘리거나,\n--gradient_checkpointing을 더하거나, --block_size를 줄이세요."
            ) from error
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise UserError(
                f"커널을 컴파일하지 못했습니다({str(error).strip().splitlines()[0]}).\n"
                "--torch_compile=false를 더하면 컴파일하지 않고 학습합니다."
            ) from error
        # Found out by a signal (RuntimeError) or by reading what the process no longer sends, whichever is first.
        if not (isinstance(error, UNANSWERED) or _is_of_a_reader(error)):
            raise
        if hasattr(signal, "SIGCHLD"):  # PyTorch's handler would raise again, wherever we are
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        raise UserError(
            "글을 읽는 프로세스(--dataloader_num_workers)가 죽었습니다. 앞서 저장된 체크포인트가 있다면 그대로 "
            "있습니다.\n메모리가 모자라면 그 수를 줄이고, --resume_from_checkpoint=auto를 넣어 다시 실행하세요."
        ) from error


@contextmanager
def _logs_left():
    """Leave what ends the thread that writes TensorBoard's logs to trackers.py, which meets it again."""
    show = threading.excepthook
    threading.excepthook = lambda thread: None if isinstance(thread.exc_value, OSError) else show(thread)
    try:
        yield
    finally:
        threading.excepthook = show


@contextmanager
def opening(checkpoint, names):
    """Explain files of a checkpoint, `names`, that hold another state than this run's."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f"{checkpoint}: {particle(names, '이/가')} 이 모델을 학습하던 상태가 아닙니다({type(error).__name__}).\n"
            f"{start_anew(checkpoint)}"
        ) from error


@contextmanager
def saving(output_dir, name=""):
    """Explain why `name` in `output_dir`, or all of it, cannot be written, and remove what was begun."""
    try:
        yield
    except (UserError, OutOfMemoryError):
        raise
    except Exception as error:
        if _is_of_a_reader(error):  # which died meanwhile
            raise
        if is_first_rank():  # the others' files lie there too
            atomic_files.clear_staging_area(output_dir)
        if is_of_lost_rank(error):
            raise
        known = as_os_error(error)  # of the libraries each has errors of its own, tokenizers a bare Exception
        quoted = " ".join(f"{type(error).__name__}: {error}".split())
        words = f"디스크의 남은 공간과 폴더의 권한을 확인하세요 ({quoted})."
        reason = describe_os_error(known) if isinstance(known, OSError) else words
        kept = "\n앞서 저장된 체크포인트는 그대로 있습니다." if list_checkpoints(output_dir) else ""
        raise UserError(f"{output_dir / name}: 저장하지 못했습니다. {reason}{kept}") from error


@contextmanager
def reaching_hub(way_on):
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of httpx, of the Hub's client, of the system
        raise UserError(f"--push_to_hub: Hub에 올리지 못했습니다({describe_cause(error)}).\n{way_on}") from error


def diverged(step):
    """The UserError for a loss or weights that are no numbers."""
    return UserError(
        f"{step}스텝까지의 손실이나 가중치에 NaN 또는 무한대가 나와 멈춥니다. 앞서 저장된 체크포인트가 있다면 "
        "그대로 있습니다.\n--learning_rate를 낮추거나, --warmup_steps를 늘리거나, float16이었다면 --no_fp16을 더하세요."
    )


def _is_of_a_reader(error):
    return "DataLoader worker" in str(error)
