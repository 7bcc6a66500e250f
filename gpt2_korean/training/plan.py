"""What a run takes where nobody said: by how much text there is, how often it is read, and what of the model is new.

The rule: of the tables below all that hold are taken, a later one going before an earlier one; a flag that is given is
obeyed; all else stays at its default. How long a run is, is for its user to say. The figures are those of
benchmarks/RESULTS.md.
"""

from transformers.trainer_utils import SchedulerType

from gpt2_korean.checkpoints.complete import RESUME, read_json
from gpt2_korean.checkpoints.same_run import OWN
from gpt2_korean.model.embeddings import NEW_EMBEDDINGS
from gpt2_korean.model.gpt2 import is_gpt2

# Flag → value: of TrainingArguments, and those of OWN.
OWN_VOCABULARY = {}
NEW_VOCABULARY = {"embedding_learning_rate": NEW_EMBEDDINGS}
FROM_SCRATCH = {}
LEARNT_BY_HEART = {}  # what is read OFTEN (in epochs) and has fewer than SMALL characters
OFTEN, SMALL = 5, 2_000_000


def propose(characters, epochs, new_vocabulary, from_scratch, settled):
    """Flag → `(value, why)` for what is not among the `settled` flags; why: a few words that a user reads.

    characters: of the text, None for a stream. new_vocabulary: whether the model is carried over to one. from_scratch:
    whether all of the model is new.
    """
    small = characters is not None and characters < SMALL and epochs >= OFTEN
    tables = (
        (not (new_vocabulary or from_scratch), "모델의 어휘로 배우므로", OWN_VOCABULARY),
        (new_vocabulary, "어휘가 새것이므로", NEW_VOCABULARY),
        (from_scratch, "처음부터 배우므로", FROM_SCRATCH),
        (small, f"글 {characters or 0:,}자를 {epochs:.3g}번 읽으므로", LEARNT_BY_HEART),
    )
    return {
        name: (value, why)
        for holds, why, values in tables
        for name, value in values.items()
        if holds and name not in settled
    }


def settle_plan(start, blocks, learning, arguments, config, new_vocabulary):
    """Set in `arguments` (TrainingArguments) what the flags leave open; returns what these do not know.

    start: a Start; what goes on from a checkpoint keeps that one's plan. blocks: Blocks. learning: LearningOptions.
    config: the model's. What is returned has the names of OWN, None for what is left to the model or the checkpoint.
    """
    settled = learning.chosen | _impossible(learning, arguments, config)
    if start.checkpoint is None:
        epochs = count_epochs(blocks, arguments)
        plan = propose(blocks.train_characters, epochs, new_vocabulary, start.from_scratch, settled)
        if "embedding_learning_rate" in plan:
            of_all, _ = plan.get("learning_rate", (arguments.learning_rate, None))
            rate, why = plan["embedding_learning_rate"]
            plan["embedding_learning_rate"] = max(rate, of_all), why
    else:
        plan = (read_json(start.checkpoint / RESUME) or {}).get("plan") or {}
    open_values = {name: value for name, (value, _) in plan.items() if name not in settled}
    for name in open_values.keys() - OWN.keys():
        _set(arguments, name, open_values[name])
    own = {name: getattr(learning, name) for name in OWN}
    return {**own, **{name: open_values[name] for name in open_values.keys() & own.keys()}, "plan": plan}


def count_epochs(blocks, arguments):
    """How often a run reads its text, 0 where that is not known."""
    if arguments.max_steps <= 0:
        return arguments.num_train_epochs
    if blocks.train_characters is None:
        return 0
    per_step = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    return arguments.max_steps * per_step / len(blocks.train)


def describe_plan(plan):
    """A plan in lines, one for each reason: its flags as they could be given."""
    reasons = {}
    for name, (value, why) in plan.items():
        reasons.setdefault(why, []).append(f"--{name}={value:g}" if isinstance(value, float) else f"--{name}={value}")
    return [f"자동으로 고른 값: {' '.join(flags)} ({why})" for why, flags in reasons.items()]


def _impossible(learning, arguments, config):
    """The flags of which this run can have none but the default."""
    sharded, adam = arguments.fsdp or arguments.deepspeed, "adam" in arguments.optim.value
    return {
        *(("average_last", "optim") if sharded else ()),
        *(("average_last",) if learning.early_stopping_patience else ()),  # it may end at any time
        *(() if is_gpt2(config.to_dict()) else ("dropout",)),
        *(() if adam else ("embedding_learning_rate",)),  # whose rates mean something else
    }


def _set(arguments, name, value):
    if name == "optim":
        arguments.uses_muon = value == "muon"
    else:
        setattr(arguments, name, SchedulerType(value) if name == "lr_scheduler_type" else value)
