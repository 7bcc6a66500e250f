"""A model measured: its loss on held-out blocks, and the texts that it writes beside those of people."""

from tqdm import tqdm
from transformers.trainer_utils import unwrap_peft_model

from gpt2_korean.device import dtype_of
from gpt2_korean.messages import Stopped
from gpt2_korean.text.documents import sample_texts
from gpt2_korean.training.diversity import cut, measure
from gpt2_korean.training.exact_evaluation import EvaluationStopped
from gpt2_korean.training.samples import write_stretches, writing
from gpt2_korean.training.stopping import leave_together

TEXTS, CHARACTERS = 100, 100  # how many are measured, and how long each is


def evaluate(trainer):
    """The metrics of the held-out blocks, logged for the step that the model is of; not asked twice of one step.

    Raises Stopped once the run was asked to stop.
    """
    last, trainer.state.global_step = trainer.state.global_step, trainer.model_step()
    try:
        return trainer.evaluated.get(trainer.state.global_step) or trainer.evaluate()
    except EvaluationStopped:
        raise _stopped(trainer) from None
    finally:
        trainer.state.global_step = last


def measure_texts(trainer, documents):
    """`(measures, measures)`, see measures.py: of texts that the model writes, and of `documents` cut as long.

    The latter are None where the documents are too short, both on all ranks but the first. Raises Stopped
    once the run was asked to stop.
    """
    if not trainer.is_world_process_zero():
        return None, None
    total, disable = TEXTS * CHARACTERS, trainer.args.disable_tqdm
    model, dtype = unwrap_peft_model(trainer.model), dtype_of(trainer.args.bf16, trainer.args.fp16)
    with (
        writing(model, trainer.processing_class, dtype) as loaded,
        tqdm(total=total, desc="글 써 보기", unit="글자", leave=False, disable=disable) as progress,
    ):
        for texts in write_stretches(loaded, TEXTS, CHARACTERS):
            progress.update(sum(map(len, texts)) - progress.n)
            if trainer.stop.reason:
                raise _stopped(trainer)
    people = cut(sample_texts(documents, 1_000_000), TEXTS, CHARACTERS)
    return measure(texts), people and measure(people)


def _stopped(trainer):
    leave_together()
    return Stopped(f"{trainer.stop.reason} 평가를 마치지 않고 멈췄습니다. 같은 명령이 다시 평가합니다.")
