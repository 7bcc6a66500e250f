"""What a run takes where nobody said: by its text, how often it is read, the model's width and the tokens of a step.

The rule is for what is learnt anew, a vocabulary or a whole model. What was so learnt here and is taught more takes
half of its learning rate, its warm-up, and undoes merges as often. A model that others taught keeps the usual
defaults, but for an adapter's learning rate. A flag that is given is obeyed. How long a run is, is for its user to
say. The figures are those of benchmarks/RESULTS.md.
"""

import math
from pathlib import Path

from gpt2_korean.checkpoints.complete import OWN, provenance_of, read_resume
from gpt2_korean.messages import say
from gpt2_korean.model.gpt2 import is_gpt2
from gpt2_korean.text.merges import merged_pairs

# A text that is read more often than so many times is learnt by heart: then dropout stays, and the weights of a model
# that is carried over have to decay; one that begins with nothing learns more without (benchmarks/RESULTS.md).
OFTEN = 4
MUON = "muon"  # the value of --optim that is ours alone: see muon.py
# By Muon a wide model that is carried over learns it by heart sooner: after so many times divided by the root of its
# width, which is three times at 512, 2.5 at 768 and 2.2 at 1,024 (benchmarks/RESULTS.md).
OFTEN_BY_WIDTH = 70
# A text that is read more often than so many times Muon learns by heart sooner than AdamW: as the text is, and where
# merges are undone. Which pays from so many times on (benchmarks/RESULTS.md), with this chance of each.
MUON_EPOCHS = 8, 16
MERGES_EPOCHS = {MUON: 8, "adamw": 16}
BPE_DROPOUT = 0.01
# The peak learning rate where a text is read seldom, and often, by a power of the width; the most that it is.
# Muon's steps are so scaled that how far they move what comes out grows with its root (benchmarks/RESULTS.md).
RATES = {MUON: (0.064, 0.036, 0.5, 4e-3), "adamw": (0.5, 0.3, 1.0, 1e-3)}
# It is for steps of so many tokens. Of what is new it goes with this power of their number, from the fewest that were
# measured to the most: where a text is read often, many small steps learn it by heart (benchmarks/RESULTS.md).
STEP_TOKENS, BY_TOKENS, MEASURED_TOKENS = 2**14, (0.25, 0.5), ((2**10, 2**16), (2**10, 2**14))
# An adapter's, seldom and often: the same for any width of the model and rank of the adapter (benchmarks/RESULTS.md).
ADAPTER_RATES = {MUON: (3e-3, 3e-3), "adamw": (3e-3, 1.8e-3)}
# Of a model that others taught: ten times the usual default ("LoRA Without Regret", Schulman et al. 2025).
ADAPTER_RATE = 5e-4
# Muon's work is the same for any number of tokens: so many of them a step, for each of the width, make it pay.
MUON_TOKENS = 4
WARM_UP = 0.1  # of the run; runs of a few hundred steps need so much (benchmarks/RESULTS.md)
# The peak learning rate of new embeddings under Adam, whose steps are as long whatever the size of the model: the
# best of those measured, with 5e-5 for the other weights as with 6e-4 (benchmarks/RESULTS.md).
NEW_EMBEDDINGS = 2e-3
# It is for so many characters; of fewer it falls with their square root, down to the least. That is by the root of the
# steps where a text is read seldom: in few of them a row has to move as far (benchmarks/RESULTS.md).
CHARACTERS, LEAST_RATE, BY_STEPS = 24_000_000, 6e-4, 0.03
# Of the rate of what is new, where a model of ours is taught more: the whole of it is a little better on the new text
# and forgets much more of the old (benchmarks/RESULTS.md).
TAUGHT_MORE = 0.5
TAUGHT_HERE = "train.py가 어휘를 가르친 모델이므로"


def propose(
    characters,
    epochs,
    steps,
    width,
    tokens_per_step,
    new_vocabulary,
    from_scratch,
    settled,
    uses_muon=False,
    adapter=False,
    taught_here=False,
):
    """Flag → `(value, why)` for what is not among the `settled` flags; why: a few words that a user reads.

    characters: of the text, None for a stream, whose epochs are 0. steps: of the run. new_vocabulary: whether the model
    is carried over to one. from_scratch: whether all of the model is new. uses_muon: whether --optim=muon was given.
    adapter: whether there is LoRA. taught_here: whether the model has its vocabulary from an earlier run of train.py.
    """
    is_new = new_vocabulary or from_scratch
    if not (is_new or taught_here):
        learns_little = adapter and "learning_rate" not in settled
        return {"learning_rate": (ADAPTER_RATE, "어댑터이므로")} if learns_little else {}
    why = "어휘가 새것이므로" if new_vocabulary else "처음부터 배우므로" if from_scratch else TAUGHT_HERE
    times = f"{epochs:.3g}" if epochs < 1000 else f"{epochs:,.0f}"
    reading = f"글을 {times}번 읽으므로" if epochs else "스트리밍이므로"
    often, open_to_muon = epochs > OFTEN, not {"optim", "learning_rate"} & set(settled)
    undoes_merges = not adapter and "bpe_dropout" not in settled
    seldom_enough = epochs <= MUON_EPOCHS[undoes_merges]
    chooses_muon = is_new and open_to_muon and seldom_enough and tokens_per_step >= MUON_TOKENS * width
    optimizer = MUON if uses_muon or chooses_muon else "adamw"
    carried_by_muon = new_vocabulary and optimizer == MUON and not adapter
    by_heart = epochs > (min(OFTEN, OFTEN_BY_WIDTH / width**0.5) if carried_by_muon else OFTEN)
    tokens = tokens_per_step if is_new else STEP_TOKENS
    rate = ADAPTER_RATES[optimizer][often] if adapter else _rate_of_all(optimizer, often, width, tokens)
    rate = _rounded(rate if is_new else TAUGHT_MORE * rate)
    plan = {"learning_rate": (rate, why), "warmup_steps": (WARM_UP, why)}
    if chooses_muon:
        plan = {"optim": (MUON, why), **plan}
    if is_new and not by_heart:
        plan |= {"weight_decay": (0.3, reading), "dropout": (0.0, reading)}
    elif new_vocabulary:
        plan["weight_decay"] = 1.0, reading
    if undoes_merges and epochs > MERGES_EPOCHS[optimizer]:
        plan["bpe_dropout"] = BPE_DROPOUT, reading
    if new_vocabulary:
        known = CHARACTERS if characters is None else characters
        least = LEAST_RATE if often else max(LEAST_RATE, BY_STEPS / steps**0.5)
        fitting = max(least, NEW_EMBEDDINGS * (known / CHARACTERS) ** 0.5)
        plan["embedding_learning_rate"] = _rounded(min(NEW_EMBEDDINGS, fitting)), why
    return {name: value for name, value in plan.items() if name not in settled}


def _rate_of_all(optimizer, often, width, tokens_per_step):
    """The peak learning rate of a model of which all weights learn, as it is for what is new."""
    *by_width, power, most = RATES[optimizer]
    fewest, most_tokens = MEASURED_TOKENS[often]
    tokens = min(max(tokens_per_step, fewest), most_tokens)
    return min(most, by_width[often] / width**power) * (tokens / STEP_TOKENS) ** BY_TOKENS[often]


def _rounded(rate):
    return float(f"{rate:.2g}")


def settle_plan(start, blocks, learning, arguments, config, tokenizer, new_vocabulary, lora_rank=0):
    """Set in `arguments` (TrainingArguments) what the flags leave open, and say it; returns what these do not know.

    start: a Start; what goes on from a checkpoint keeps that one's plan. blocks: Blocks. learning: LearningOptions.
    config: the model's, which is to learn in the words of `tokenizer`. What is returned has the names of OWN, None for
    what is left to the model or the checkpoint, the "plan" and whether the model is "taught_here".
    """
    taught_here = new_vocabulary or start.from_scratch or _is_taught_here(start.source)
    settled = learning.chosen | _impossible(arguments, config, tokenizer if taught_here else None)
    if start.checkpoint is None:
        plan = propose(
            characters=blocks.train_characters,
            epochs=count_epochs(blocks, arguments),
            steps=count_steps(blocks, arguments),
            width=config.hidden_size,
            tokens_per_step=_blocks_per_step(arguments) * blocks.size,
            new_vocabulary=new_vocabulary,
            from_scratch=start.from_scratch,
            settled=settled,
            uses_muon=arguments.uses_muon,
            adapter=lora_rank > 0,
            taught_here=taught_here,
        )
        if "embedding_learning_rate" in plan:  # never below that of all, where that is given
            rate, why = plan["embedding_learning_rate"]
            plan["embedding_learning_rate"] = max(rate, arguments.learning_rate), why
    else:
        plan = read_resume(start.checkpoint).get("plan") or {}
    open_values = {name: value for name, (value, _) in plan.items() if name not in settled}
    for name in open_values.keys() - OWN.keys():
        _set(arguments, name, open_values[name])
    for line in describe_plan(plan):
        say(line)
    own = {name: getattr(learning, name) for name in OWN}
    own |= {name: open_values[name] for name in open_values.keys() & own.keys()}
    return {**own, "plan": plan, "taught_here": taught_here}


def _is_taught_here(source):
    """Whether a model's folder, or a checkpoint, says that its vocabulary is of an earlier run of train.py."""
    return bool(provenance_of(Path(source)).get("taught_here"))


def count_epochs(blocks, arguments):
    """How often a run reads its text, 0 where that is not known."""
    if arguments.max_steps <= 0:
        return arguments.num_train_epochs
    if blocks.train_characters is None:
        return 0
    return arguments.max_steps / _steps_per_epoch(blocks, arguments)


def count_steps(blocks, arguments):
    """The steps of a run."""
    if arguments.max_steps > 0:
        return arguments.max_steps
    return math.ceil(arguments.num_train_epochs * _steps_per_epoch(blocks, arguments))


def _steps_per_epoch(blocks, arguments):
    # The last step of an epoch has what is left of it: of a short text often far fewer blocks than the others.
    return math.ceil(len(blocks.train) / _blocks_per_step(arguments))


def _blocks_per_step(arguments):
    return arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size


def describe_plan(plan):
    """A plan in lines, one for each reason: its flags as they could be given."""
    reasons = {}
    for name, (value, why) in plan.items():
        reasons.setdefault(why, []).append(f"--{name}={value:g}" if isinstance(value, float) else f"--{name}={value}")
    return [f"자동으로 고른 값: {' '.join(flags)} ({why})" for why, flags in reasons.items()]


def _impossible(arguments, config, tokenizer):
    """The flags that are not for this run's plan to settle. tokenizer: None for a model that others taught."""
    sharded, adam = arguments.fsdp or arguments.deepspeed, "adam" in arguments.optim.value
    return {
        *(("optim",) if sharded else ()),
        *(() if is_gpt2(config.to_dict()) else ("dropout",)),
        *(() if merged_pairs(tokenizer) else ("bpe_dropout",)),
        *(() if adam else ("learning_rate", "embedding_learning_rate")),  # whose rates mean something else
    }


def _set(arguments, name, value):
    if name == "optim":
        arguments.uses_muon = value == MUON
    else:
        setattr(arguments, name, value)
