"""What a training run is about to do, said before its first step, and what looks wrong in it.

Arithmetic over numbers; knows no model and no Trainer.
"""

import math

from gpt2_korean.model.embeddings import NEW_EMBEDDINGS, choose_embedding_learning_rate  # noqa: F401

# Where the seconds of compiling a whole model are won back, in floating-point operations of a run: measured on an
# H100 (benchmarks/RESULTS.md). On a slower device they are won back sooner.
WORTH_COMPILING = 1.5e16


def total_steps(blocks, blocks_per_batch, accumulation, epochs, max_steps):
    """How many optimizer steps Trainer takes over `blocks` blocks; `max_steps` above 0 decides alone."""
    if max_steps > 0:
        return max_steps
    batches = math.ceil(blocks / blocks_per_batch)
    return math.ceil(epochs * math.ceil(batches / accumulation))


def describe_steps(steps, blocks_per_step, block_size, learning_rate, embedding_learning_rate):
    own = "" if embedding_learning_rate is None else f"(임베딩 {embedding_learning_rate:g})"
    each = f"스텝마다 블록 {blocks_per_step:,}개 × {block_size:,}토큰"
    return f"학습: {steps:,}스텝 · {each} · 학습률 {learning_rate:g}{own}"


def choose_compilation(wanted, possible, flops, backend=None, mode=None):
    """`(torch.compile's keyword arguments, or None for no compilation, why or None)`.

    wanted: the flag's value, None where it was not given. possible: whether that would be faster where it works.
    flops: of the whole run, in floating-point operations.
    """
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


def plan_warnings(steps, warmup_steps, save_steps, tokens, block_size):
    """What a user would want to know before waiting for hours: a list of sentences.

    `warmup_steps` and `save_steps` below 1 are shares of the run, as in TrainingArguments; None for
    `save_steps` saves at other times than steps, None for `tokens` is an endless stream.
    """
    warnings = []
    if tokens is not None and tokens < block_size:
        warnings.append(
            f"글이 한 블록보다 짧습니다(토큰 {tokens:,}개 < {block_size:,}개). 더 많은 글이 있어야 제대로 배웁니다."
        )
    if warmup_steps >= max(steps, 1):
        warnings.append(
            f"--warmup_steps={warmup_steps:g}이(가) 전체 {steps:,}스텝 이상이라 학습률이 최댓값에 이르지 못합니다. "
            f"--warmup_steps={max(1, steps // 10)} 정도를 권합니다."
        )
    if save_steps is not None and save_steps > steps:
        warnings.append(
            f"--save_steps={save_steps:g}이(가) 전체 {steps:,}스텝보다 길어 끝나기 전에는 저장되지 않습니다. "
            f"--save_steps={max(1, steps // 3)} 정도를 권합니다."
        )
    return warnings
