"""What makes a run fast: whose functions compute a layer, whether they are compiled, whether steps are recorded.

Decided by the model, the device and the flags; Trainer's part of it is in stepping.py.
"""

from functools import partial

import torch
from transformers.trainer_utils import unwrap_peft_model

from gpt2_korean.device import has_graphs
from gpt2_korean.messages import UsageError, warn
from gpt2_korean.model.gpt2 import can_be_fast, can_be_fused
from gpt2_korean.speed import forward, loss


def load_fused_layer(model, arguments):
    """The functions of layer.py, None where `model` needs others or this machine cannot compile them."""
    language_model, device = unwrap_peft_model(model), arguments.device
    if device.type not in ("cuda", "xpu") or _is_split(arguments) or not can_be_fused(language_model):
        return None
    try:
        from gpt2_korean.speed import layer as fused_layer

        dtype = torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else torch.float32
        fused_layer.try_out(language_model.config, device, dtype)
    except Exception as error:  # whatever a compiler and a driver can raise
        warn(f"Triton 커널을 쓸 수 없어 조금 느리게 학습합니다 ({type(error).__name__}).")
        return None
    return fused_layer.FUNCTIONS


def speed_up(model, arguments, block_size, fused=None, compilation=None, device_graphs=None):
    """Have `model` train fast; returns how KoreanTrainer is to step it, as its keyword arguments.

    fused: what load_fused_layer returned. compilation: torch.compile's keyword arguments, None for no compilation; a
    GPT-2's layers are then compiled in place of the fused ones, any other model whole. device_graphs: record each
    step where the device can; None is for CUDA alone, since no XPU has shown yet that dropout differs when it replays.
    Raises UsageError for a backend or mode that torch.compile does not know.
    """
    language_model = unwrap_peft_model(model)
    if _is_split(arguments) or not can_be_fast(language_model):
        if compilation is not None:
            language_model.compile(**compilation)
        return {}
    functions = fused
    if compilation is not None:
        compiler = partial(torch.compile, dynamic=False, **compilation)
        try:
            functions = forward.start, compiler(forward.layer), compiler(loss.cross_entropy_in_place)
        except RuntimeError as error:
            words = str(error).splitlines()[0]
            raise UsageError(f"--torch_compile_backend, --torch_compile_mode: {words}") from None
    forward.use_fast_forward(language_model, functions)
    recorded = (
        (arguments.device.type == "cuda" if device_graphs is None else device_graphs)
        and has_graphs(arguments.device)
        # What they do between the passes, or in the middle of one, no graph can hold.
        and not (arguments.fp16 or arguments.gradient_checkpointing)
        and (compilation or {}).get("mode") not in ("reduce-overhead", "max-autotune")  # graphs of their own
    )
    return {"full_length": block_size if compilation or recorded else None, "recorded": recorded}


def _is_split(arguments):
    """Whether whole modules are what FSDP gathers or DataParallel copies: both call transformers' own forward."""
    return bool(arguments.fsdp or arguments.deepspeed or arguments.n_gpu > 1)
