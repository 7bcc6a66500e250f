"""What makes a run fast: whose functions compute a layer, whether they are compiled, whether steps are recorded.

Decided by the model, the device and the flags; Trainer's part of it is in training/trainer.py.
"""

from contextlib import suppress
from copy import deepcopy
from functools import partial
from importlib import import_module
from threading import Thread

import torch
from transformers.trainer_utils import unwrap_peft_model

from gpt2_korean.device import can_compile, dtype_of, has_graphs
from gpt2_korean.messages import UsageError, say, warn_of_failure
from gpt2_korean.model.gpt2 import NO_DROPOUT, can_be_fast, can_be_fused
from gpt2_korean.speed import forward, loss, pieces
from gpt2_korean.speed.throughput import flops_per_token

# Where the seconds of compiling a whole model are won back, in floating-point operations of a run: measured on an
# H100 (benchmarks/RESULTS.md). On a slower device they are won back sooner.
WORTH_COMPILING = 1.5e16


def begin_kernels(model, arguments):
    """Have the kernels that speed_up will load compiled in a thread, without dropout and with the model's own.

    Returns what waits for its end, which must be before random numbers are drawn: it puts their state back. What fails
    here fails there again, and is told there.
    """
    language_model, device = unwrap_peft_model(model), arguments.device
    dtype = dtype_of(arguments.bf16, arguments.fp16)
    if not _may_be_fused(language_model, arguments):
        return lambda: None

    def compile_kernels():
        with suppress(Exception), getattr(torch, device.type).device(device):  # a thread begins on the first device
            from gpt2_korean.speed import attention, layer

            for rates in (NO_DROPOUT, {}):
                config = deepcopy(language_model.config)
                config.update(rates)
                layer.try_out(config, device, dtype)
                if _multiplies_in_triton(device, dtype):
                    attention.try_out(config, device, dtype)

    thread = Thread(target=compile_kernels)
    thread.start()
    return thread.join


def _may_be_fused(model, arguments):
    return arguments.device.type in ("cuda", "xpu") and not _is_split(arguments) and can_be_fused(model)


def load_fused_layer(model, arguments):
    """The functions of layer.py, None where `model` needs others or this machine cannot compile them."""
    if not _may_be_fused(model, arguments):
        return None
    how = model.config, arguments.device, dtype_of(arguments.bf16, arguments.fp16)
    layer = load_kernels("layer", "Triton 커널을 쓸 수 없어 조금 느리게 학습합니다", *how)
    return None if layer is None else layer.FUNCTIONS


def load_kernels(name, failure, *how):
    """A module of this folder once its `try_out(*how)` has compiled what it needs.

    None where this machine cannot, which is told: the words of `failure`.
    """
    try:
        module = import_module(f"gpt2_korean.speed.{name}")
        module.try_out(*how)
    except Exception as error:  # whatever a compiler and a driver can raise
        warn_of_failure(error, f"{failure} ({type(error).__name__}).")
        return None
    return module


def load_attention(model, arguments):
    """`(how the fused layer keeps pieces apart, whether one text is attended to so as well)`.

    By attention.py, by a mask where this machine cannot compile it or its products would be slow.
    """
    from gpt2_korean.speed import layer as fused_layer

    dtype = dtype_of(arguments.bf16, arguments.fp16)
    if not _multiplies_in_triton(arguments.device, dtype):
        return fused_layer.masked, False
    how = model.config, arguments.device, dtype
    attention = load_kernels("attention", "어텐션의 Triton 커널을 쓸 수 없어 느리게 학습합니다", *how)
    return (fused_layer.masked, False) if attention is None else (attention.fused, True)


def _multiplies_in_triton(device, dtype):
    """Whether Triton's products run on tensor cores: in float32 they would round, and before Ampere it uses none."""
    return dtype != torch.float32 and (device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0))


def speed_up(model, arguments, machine, blocks, tokens=None):
    """Have `model` train fast; returns how KoreanTrainer is to step it, the keyword arguments of its take_steps.

    machine: MachineOptions. blocks: Blocks, for their shape. tokens: how many the whole run reads, which decides
    whether to compile, and that is said; None where it only evaluates. A GPT-2's layers are compiled in place of the
    fused ones, any other model whole. Steps are recorded where the device can and nothing in the run stands in the
    way; left open, on CUDA alone, since no XPU has shown yet that dropout differs when it replays. Raises UsageError
    for a backend or mode that torch.compile does not know.
    """
    language_model, functions, compilation = unwrap_peft_model(model), None, None
    if tokens is not None:
        functions = load_fused_layer(language_model, arguments)
        possible = functions is None and can_compile(arguments.device)
        compilation, reason = choose_compilation(machine, possible, tokens * flops_per_token(model, blocks.size))
        if reason:
            say(f"컴파일: {'하지 않음' if compilation is None else '함'} ({reason})")
    if _is_split(arguments) or not can_be_fast(language_model):
        if compilation is not None:
            language_model.compile(**compilation)
        return {}
    if compilation is not None:
        compiler = partial(torch.compile, dynamic=False, **compilation)
        try:
            compiled = compiler(forward.layer), compiler(loss.cross_entropy_in_place)
            functions = forward.embed, forward.start, *compiled
        except RuntimeError as error:
            words = str(error).splitlines()[0]
            raise UsageError(f"--torch_compile_backend, --torch_compile_mode: {words}") from None
    separate, always = pieces.separate if functions is None else pieces.masked, False
    if functions is not None and compilation is None:
        separate, always = load_attention(language_model, arguments)
    forward.use_fast_forward(language_model, functions, separate, always)
    recorded = (
        (arguments.device.type == "cuda" if machine.device_graphs is None else machine.device_graphs)
        and has_graphs(arguments.device)
        and not arguments.gradient_checkpointing  # what it does in the middle of a pass no graph can hold
        and (compilation or {}).get("mode") not in ("reduce-overhead", "max-autotune")  # graphs of their own
    )
    full_length = blocks.size if compilation or recorded else None
    return {"full_length": full_length, "recorded": recorded}


def choose_compilation(machine, possible, flops):
    """`(torch.compile's keyword arguments, or None for no compilation, why or None)`.

    machine: MachineOptions. possible: whether that would be faster where it works. flops: of the whole run.
    """
    wanted, backend, mode = machine.torch_compile, machine.torch_compile_backend, machine.torch_compile_mode
    how = {"backend": backend or "inductor", "mode": mode}
    if wanted is not None:
        return how if wanted else None, f"--torch_compile={str(wanted).lower()}"
    if backend or mode:
        return how, "--torch_compile_backend" if backend else "--torch_compile_mode"
    if not possible:
        return None, None
    if flops < WORTH_COMPILING:
        return None, "짧은 학습이라 컴파일하는 시간이 더 듦"
    return how, "긴 학습"


def _is_split(arguments):
    """Whether FSDP or DeepSpeed shards the model: they gather whole modules, in transformers' own forward."""
    return bool(arguments.fsdp or arguments.deepspeed)
