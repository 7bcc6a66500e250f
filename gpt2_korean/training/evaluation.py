"""A model measured: its loss on held-out blocks, and the texts that it writes beside those of people."""

import math

import torch
from torch import distributed
from tqdm import tqdm

from gpt2_korean.device import dtype_of
from gpt2_korean.messages import Stopped, say
from gpt2_korean.text.assemble import IGNORED, collate
from gpt2_korean.text.blocks import NO_BLOCK, count_targets
from gpt2_korean.text.corpus import sample_conversations, sample_texts
from gpt2_korean.training.diversity import cut_stretches, measure
from gpt2_korean.training.samples import write_answers, write_stretches, writing
from gpt2_korean.training.stopping import is_distributed, leave_together

TEXTS, CHARACTERS = 100, 100  # how many are measured, and how long each is


class EvaluationStopped(Exception):
    """The run was asked to stop while it evaluated."""


@torch.no_grad()
def exact_loss(model, blocks, batch_size, device, stop, progress=False):
    """The summed loss (nats) of `model` over all targets of `blocks`, the same on every rank; each target counts once.

    model: in evaluation mode, as its precision and its ranks want it called. blocks: PackedBlocks; each rank takes its
    share. stop: a StopRequest, asked at every batch; raises EvaluationStopped once it says so.
    """
    together = is_distributed()
    rank, ranks = (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
    losses = []
    hidden = not progress or None  # None: unless stderr is a terminal
    for start in tqdm(range(0, len(blocks), batch_size * ranks), desc="평가", leave=False, disable=hidden):
        if stop.agreed(device):
            raise EvaluationStopped
        mine = range(start + rank * batch_size, min(start + (rank + 1) * batch_size, len(blocks)))
        # Sharded models want all ranks to call them, one that has no blocks left too.
        rows = [blocks[index] for index in mine or [NO_BLOCK]]
        inputs = {name: tensor.to(device) for name, tensor in collate(rows, pad_token_id=0).items()}
        targets = (inputs["labels"][:, 1:] != IGNORED).sum()
        loss = model(**inputs).loss  # a mean over targets
        losses.append(torch.where(targets > 0, loss.float() * targets, 0.0))  # a mean over no targets is NaN
    nats = torch.stack(losses).cpu().double().sum().item()
    if not together:
        return nats
    shares = [None] * ranks
    distributed.all_gather_object(shares, nats)
    return sum(shares)


def exact_metrics(nats, blocks, characters):
    """The metrics of a summed loss over `blocks`, whose documents have so many `characters`.

    Trainer's own eval_loss is a mean over blocks, in which a short block weighs as much as a full one, and a loss
    per token says nothing across tokenizers. Here `loss` is the mean over tokens, and `bits_per_character` the sum
    of -log2 p(token), end-of-text tokens included, over the characters.
    """
    loss = nats / count_targets(blocks)
    return {
        "loss": loss,
        "perplexity": math.exp(loss) if loss < 700 else math.inf,
        "bits_per_character": nats / math.log(2) / characters,
    }


def evaluate(trainer):
    """The metrics of the held-out blocks, logged for the step that the model is of; not asked twice of one step.

    Raises Stopped once the run was asked to stop.
    """
    last, trainer.state.global_step = trainer.state.global_step, trainer.model_step()
    try:
        return trainer.evaluated.get(trainer.state.global_step) or trainer.evaluate()
    except EvaluationStopped:
        raise leave_evaluation(trainer) from None
    finally:
        trainer.state.global_step = last


def measure_texts(trainer, documents):
    """`(measures, measures)`, see diversity.py: of texts that the model writes, and of `documents` cut as long.

    Of a chat model and conversations both are answers, to the same questions. The latter are None where the documents
    are too short, both on all ranks but the first. Raises Stopped once the run was asked to stop.
    """
    if not trainer.is_world_process_zero():
        return None, None
    total, disable = TEXTS * CHARACTERS, trainer.args.disable_tqdm or None  # None: unless stderr is a terminal
    dtype = dtype_of(trainer.args.bf16, trainer.args.fp16)
    with (
        writing(trainer.model, trainer.processing_class, dtype) as loaded,
        tqdm(total=total, desc="글 써 보기", unit="글자", leave=False, disable=disable) as progress,
    ):
        chats = [] if loaded.chat is None else sample_conversations(documents)
        people = [turns[-1]["content"] for turns in chats] or sample_texts(documents, 1_000_000)
        written = write_answers(loaded, chats, TEXTS, CHARACTERS) if chats else None
        for texts in written or write_stretches(loaded, TEXTS, CHARACTERS):
            progress.update(sum(map(len, texts)) - progress.n)
            if trainer.stop.reason:
                raise leave_evaluation(trainer)
    people = cut_stretches(people, TEXTS, CHARACTERS)
    if people is None:
        say(f"평가 글이 {total:,}자가 되지 않아 모델의 글만 측정했습니다(표에 ‘평가 글’ 열이 없습니다).")
    return measure(texts), people and measure(people)


def leave_evaluation(trainer):
    """The Stopped of a run that was asked to stop while it evaluated and has nothing to save; all ranks take leave."""
    leave_together()
    way_on = "같은 명령이 다시 평가합니다."
    if trainer.state.global_step:  # which without that flag the same command would learn anew
        way_on = (
            "학습한 모델은 저장되어 있습니다.\n같은 명령에 --resume_from_checkpoint=auto를 넣어(이미 있으면 그대로) "
            "다시 실행하면 평가만 다시 합니다."
        )
    return Stopped(f"{trainer.stop.reason} 평가를 마치지 않고 멈췄습니다. {way_on}")
