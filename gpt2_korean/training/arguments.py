"""The machine and the flags → TrainingArguments, and what a run is about to do, said before its first step."""

import os
import tempfile
import time
from functools import partial
from pathlib import Path

from transformers import TrainingArguments, set_seed
from transformers.training_args import ParallelMode

from gpt2_korean.device import (
    choose_device,
    choose_precision,
    describe_device,
    describe_machine,
    load_ipex,
    name_precision,
)
from gpt2_korean.messages import UsageError, is_first_rank, particle, say, warn
from gpt2_korean.model.quiet import show_downloads_only
from gpt2_korean.text.blocks import count_targets
from gpt2_korean.training.plan import MUON
from gpt2_korean.training.rehearsal import check_reports, describe_cause, rehearse
from gpt2_korean.windows import WINDOWS

# Flags of TrainingArguments that are ours to carry out: see speed/choose.py. Trainer would compile the whole model,
# which takes several times as long, anew for each shape of a batch.
COMPILATION = ("torch_compile", "torch_compile_backend", "torch_compile_mode")
# By these `accelerate launch` tells Trainer, but not us, which precision and compilation its own settings ask for.
LAUNCHED = ("ACCELERATE_MIXED_PRECISION", "ACCELERATE_DYNAMO_BACKEND")
# By these it asks for a sharded model; we go by our own flags alone.
SHARDED = [f"ACCELERATE_USE_{way}" for way in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG")]

LEFT_BY_A_LAUNCHER = (
    "환경 변수 LOCAL_RANK, RANK, WORLD_SIZE(MPI는 PMI_, OMPI_)가 있어 여러 프로세스로 시작하려 했습니다.\n"
    "torchrun으로 시작하거나, 한 프로세스로 학습하려면 그 변수를 unset으로 지우세요."
)

WHOLE_STATE = "FULL_STATE_DICT"  # how FSDP saves a model as one

LONGEST_NAME = 239  # bytes: what the time in a folder's name leaves of its 255
# Bytes: what multiprocessing leaves of a socket's 107 for the name of the temporary folder.
LONGEST_TEMPORARY = 75


def set_up_machine(machine, learning, record=None):
    """TrainingArguments for the device and the precision that `machine` (MachineOptions) chooses, which are said.

    learning: LearningOptions. The random numbers begin here; `record` is told. Raises UsageError as build_arguments,
    and for flags with which Trainer could not train.
    """
    show_downloads_only()
    device = choose_device(machine.device)
    bf16, fp16, reason = choose_precision(device, machine.bf16, machine.fp16)
    say(describe_machine(device, bf16, fp16, reason))
    _, notice = load_ipex(device)
    if notice:
        say(notice)
    build = partial(build_arguments, device=device, bf16=bf16, fp16=fp16)
    rehearse(build, learning.trainer_arguments, learning.passed_on)
    arguments = build(learning.trainer_arguments)
    check_reports(arguments)
    if arguments.gpus > 1:
        way_on = f"torchrun --nproc_per_node={arguments.gpus} train.py ...로 실행하세요"
        say(f"GPU {arguments.gpus}개 가운데 하나만 씁니다. 모두 쓰려면 {way_on}.")
    set_seed(arguments.seed)
    if record is not None:
        record.device, record.precision = describe_device(device), name_precision(bf16, fp16)
        record.processes, record.seed = arguments.world_size, arguments.seed
    return arguments


def build_arguments(trainer_arguments, device, bf16, fp16):
    """TrainingArguments on `device`, of several GPUs (`gpus`) on one: the others are for processes of their own.

    Raises UsageError for values that only transformers can refuse, for FSDP in a single process, by other than our
    flags or whose checkpoints come in parts, for a temporary folder in which a loader's processes cannot speak to each
    other, and where transformers would choose another device than we did.
    """
    given = {**trainer_arguments, "bf16": bf16, "fp16": fp16, "use_cpu": device.type == "cpu"}
    # transformers wants the intervals of saving and evaluating to agree for this; ours saves a new best at once.
    load_best, uses_muon = given.pop("load_best_model_at_end", False), given.get("optim") == MUON
    if uses_muon:
        del given["optim"]  # Trainer's own is AdamW, which learns the rest
    if device.type == "xpu" and os.environ.get("WORLD_SIZE", "1") == "1":
        # Where both are present TrainingArguments takes the XPU and accelerate the CUDA device.
        os.environ.setdefault("ACCELERATE_TORCH_DEVICE", "xpu")
    if any(os.environ.get(name) == "true" for name in SHARDED) and not (given.get("fsdp") or given.get("deepspeed")):
        raise UsageError(
            "accelerate launch에 정해 둔 FSDP나 DeepSpeed로는 학습할 수 없습니다. 모델을 나누려면 --fsdp 또는 "
            "--deepspeed를 더하고,\n아니면 accelerate launch 대신 python이나 torchrun으로 실행하세요."
        )
    for name in LAUNCHED:
        os.environ.pop(name, None)
    if given.get("hub_token"):
        # In the environment the Hub's client finds it, and Trainer does not save it in training_args.bin.
        os.environ["HF_TOKEN"] = given.pop("hub_token")
    given = _with_our_defaults(given, device)
    try:
        arguments = TrainingArguments(**given)
    except Exception as error:  # also of the libraries that a flag needs
        # A shell below torchrun or mpirun has some of its variables, and a job's script may set one to no number.
        if "MASTER_ADDR" in str(error) or "invalid literal for int()" in str(error):
            raise UsageError(LEFT_BY_A_LAUNCHER) from error
        raise UsageError(f"학습 설정이 맞지 않습니다: {describe_cause(error)}") from error
    if not is_first_rank() and arguments.process_index == 0:  # it would say nothing, hold no lock and record nothing
        raise UsageError(LEFT_BY_A_LAUNCHER)
    arguments.uses_muon, arguments.load_best_model_at_end = uses_muon, load_best
    _check_trainable(arguments, device)
    # DataParallel copies the model in every pass: two H200s are six times slower by it than one of them.
    arguments.gpus, arguments._n_gpu = arguments.n_gpu, min(arguments.n_gpu, 1)
    return arguments


def _with_our_defaults(given, device):
    """`given` without what is not Trainer's to carry out, and with our values where no flag gives any."""
    ours = ("resume_from_checkpoint", "save_total_limit", "enable_jit_checkpoint", *COMPILATION)
    arguments = {name: value for name, value in given.items() if name not in ours} | {"remove_unused_columns": False}
    # transformers warns of the names by which people and our documents know it.
    for name in {"gradient_checkpointing", "gradient_checkpointing_kwargs"} & arguments.keys():
        arguments.setdefault(name.replace("gradient", "activation"), arguments.pop(name))
    # All weights of a language model have gradients in every pass; to look for others costs time.
    arguments.setdefault("ddp_find_unused_parameters", False)
    # Trainer would replace a loss that is not finite by the mean of the others and go on; in float16 the
    # step of such a loss is skipped, and that is right.
    arguments.setdefault("logging_nan_inf_filter", given["fp16"])
    if device.type in ("cuda", "xpu") and arguments.get("dataloader_pin_memory", True):
        # Otherwise the copy of each batch to the device waits for the step before it, and the device then for the next.
        arguments.setdefault("accelerator_config", {"non_blocking": True})
    if arguments.get("eval_steps") is not None:
        arguments.setdefault("eval_strategy", "steps")
    # A run shorter than --logging_steps has a curve too, from its first step to its last.
    arguments.setdefault("logging_first_step", True)
    return arguments


def _check_trainable(arguments, device):
    """Raise UsageError for TrainingArguments by which a run could not learn, save itself, or use the `device`."""
    way = (arguments.fsdp_plugin_args or {}).get("state_dict_type", WHOLE_STATE)
    if str(way).upper() != WHOLE_STATE:
        raise UsageError(
            f"--fsdp_config: {particle(f'state_dict_type={way}', '은/는')} 모델을 조각으로 저장해 이어 가거나 글을 쓸 "
            f"수 없습니다. 빼거나 {WHOLE_STATE}를 주세요."
        )
    if arguments.fsdp and arguments.parallel_mode != ParallelMode.DISTRIBUTED:
        raise UsageError("--fsdp: 프로세스가 여럿이어야 합니다. torchrun --nproc_per_node=2 train.py ...로 실행하세요.")
    folder = tempfile.gettempdir()
    if arguments.dataloader_num_workers and len(os.fsencode(folder)) > LONGEST_TEMPORARY and not WINDOWS:
        raise UsageError(
            f"--dataloader_num_workers: 임시 폴더의 이름이 너무 길어 프로세스들이 서로 연결되지 못합니다({folder}).\n"
            f"TMPDIR=/tmp처럼 짧은 폴더({LONGEST_TEMPORARY}바이트까지)를 주거나 이 플래그를 빼세요."
        )
    if arguments.device.type != device.type:
        way_on = "CUDA_VISIBLE_DEVICES 또는 ZE_AFFINITY_MASK로 다른 장치를 가리세요."
        if arguments.device.type == "cpu":
            way_on = "CPU로 학습하려면 --device=cpu를 더하고, 아니면 accelerate launch의 --cpu를 빼세요."
        raise UsageError(
            f"--device={device.type}: transformers는 {particle(arguments.device.type, '을/를')} 고릅니다. {way_on}"
        )


def send_logs_to(logging_dir, name, started=None):
    """Have TensorBoard's events of a run written into a folder of its own in `logging_dir`, so that runs stand apart.

    name: a path whose last part names the run. started: when it began (s since 1970, None: now), be it before a stop.
    """
    start = time.strftime("%Y%m%d-%H%M%S", time.localtime(started))
    # The writer of Trainer's callback knows no other way to be told where; see TensorBoardCallback.
    name = os.fsencode(Path(name).resolve().name)[:LONGEST_NAME].decode(errors="ignore")
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(Path(logging_dir) / f"{name}-{start}")


def announce(trainer, blocks):
    """Say what `trainer` is about to do with Blocks; returns how many steps that is, and how many tokens they read."""
    arguments, steps = trainer.args, trainer.planned_steps()
    blocks_per_step = trainer.get_total_train_batch_size(arguments)
    own = trainer.record.provenance.get("embedding_learning_rate")
    own = "" if own is None else f"(임베딩 {own:g})"
    each = f"스텝마다 블록 {blocks_per_step:,}개 × {blocks.size:,}토큰"
    say(f"학습: {steps:,}스텝 · {each} · 학습률 {arguments.learning_rate:g}{own}")
    return steps, steps * blocks_per_step * blocks.size


def warn_of_plan(arguments, steps, blocks, chosen):
    """Warn of what a user would want to know before waiting for hours.

    warmup_steps and save_steps below 1 are shares of the run, as in TrainingArguments. chosen: the flags that were
    given: that few steps need no checkpoint among them is how most short runs are meant.
    """
    tokens, warmup_steps = count_targets(blocks.train), arguments.warmup_steps
    save_steps = arguments.save_steps if "save_steps" in chosen and arguments.save_strategy == "steps" else None
    if tokens is not None and tokens < blocks.size:
        warn(f"글이 한 블록보다 짧습니다(토큰 {tokens:,}개 < {blocks.size:,}개). 더 많은 글이 있어야 제대로 배웁니다.")
    if warmup_steps >= max(steps, 1):
        warn(
            f"{particle(f'--warmup_steps={warmup_steps:.12g}', '이/가')} 전체 {steps:,}스텝 이상이라 학습률이 최댓값에 "
            f"이르지 못합니다. --warmup_steps={max(1, steps // 10)} 정도를 추천합니다."
        )
    if save_steps is not None and save_steps > steps:
        warn(
            f"{particle(f'--save_steps={save_steps:.12g}', '이/가')} 전체 {steps:,}스텝보다 길어 끝나기 전에는 "
            f"저장되지 않습니다. --save_steps={max(1, steps // 3)} 정도를 추천합니다."
        )
