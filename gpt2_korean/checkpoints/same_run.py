"""What a checkpoint is made from (corpus, vocabulary, starting model) and how, and whether a run may go on from it.

Told by contents, not by path or date, so that a corpus copied to another disk is the same corpus.
"""

import hashlib
import time
from pathlib import Path

from gpt2_korean.checkpoints.complete import (
    OWN,
    WEIGHTS,
    lacks_states,
    provenance_of,
    read_resume,
    when_started,
    whole_checkpoints,
)
from gpt2_korean.messages import UserError, particle, say, warn
from gpt2_korean.text.blocks import count_targets
from gpt2_korean.text.tokens import fingerprint, vocabulary_of

# What the optimizer's saved state decides: on a run that goes on these flags would have no effect.
OPTIMIZER = ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon")
# What may be another from some step on, which a run that goes on says.
TOLD = (
    "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "max_grad_norm", "label_smoothing_factor",
    "neftune_noise_alpha",
)  # fmt: skip
SHARE = "validation_split_percentage"
COLUMNS = ("text_column_name", "text_template", "prompt_column", "answer_column")
FILE_BEGINNING = 2**20  # bytes of each file of weights that tell it from another


def check_same_run(start, model, text, tokenizer, blocks, own, arguments):
    """What a run is made from, a dict for JSON; where it goes on from a checkpoint, the checkpoint's too.

    start: a Start. model, text: ModelOptions and TextOptions, as given on the command line. blocks: the Blocks that
    are learnt from. own: what learning takes that TrainingArguments does not know, by the names of OWN, and what else
    settle_plan tells of it. arguments: TrainingArguments.

    Raises UserError that names what checkpoint and command line do not share. What the command line leaves
    open is the checkpoint's own, and a checkpoint that says nothing of itself (Trainer's) is taken as it is.
    """
    now, checkpoint = _describe_run(model, text, tokenizer, blocks, own, arguments), start.checkpoint
    saved = {} if checkpoint is None else read_resume(checkpoint)
    if "corpus" not in saved:
        return now
    # The best model can only be chosen by evaluations of one text, even where that is asked for only now.
    measured = saved.get("held_out") if arguments.load_best_model_at_end else None
    differences = _differences(saved, now, text.train_on_prompt is not None, measured)
    if differences:
        raise UserError(
            f"{checkpoint}: 다른 학습의 체크포인트라 이어 갈 수 없습니다({_list(differences)}).\n"
            f"그때와 같은 글과 값을 주거나, 다른 --output_dir을 주어 처음부터 시작하세요. {start_anew(checkpoint)}"
        )
    if "learning" in saved:
        _check_same_learning(checkpoint, saved["learning"], now["learning"])
    kept = ("tokenizer", "vocab_size", "plan", *OWN)
    # Going on from an older checkpoint begins a new run, which must count as newer than those that it leaves behind.
    newest = whole_checkpoints(Path(checkpoint).parent)[-1:]
    if Path(checkpoint) in newest:
        kept = ("started", *kept)
    elif newest:  # even where the clock was set back
        now["started"] = max(now["started"], when_started(newest[0]) + 1)
    return {**now, **{name: saved.get(name) for name in kept}}


def _describe_run(model, text, tokenizer, blocks, own, arguments):
    """What a run is made from and how it learns, by contents; see check_same_run."""
    words = str(vocabulary_of(tokenizer)).encode()
    return {
        "started": time.time(),
        "model": _identify(model.model_type),
        "tokenizer": model.tokenizer and _identify(model.tokenizer),
        "vocab_size": model.vocab_size,
        **own,
        "vocabulary": {"tokens": len(tokenizer), "hash": hashlib.sha256(words).hexdigest()},
        "block_size": blocks.size,
        "packing": blocks.packing,
        "train_on_prompt": blocks.all_learnt,
        "corpus": _identify_text(blocks.train) or {"name": _name_stream(text)},
        "held_out": _identify_text(blocks.held_out),
        SHARE: text.validation_split_percentage,
        "learning": {
            "batch_size": arguments.train_batch_size,
            "accumulation": arguments.gradient_accumulation_steps,
            "processes": arguments.world_size,
            "seed": arguments.seed,
            "data_seed": _plain(arguments.data_seed),
            "train_sampling_strategy": arguments.train_sampling_strategy,
            "optim": "muon" if arguments.uses_muon else arguments.optim.value,
            "optim_args": _plain(arguments.optim_args),
            **{name: getattr(arguments, name) for name in OPTIMIZER},
            **{name: _plain(getattr(arguments, name)) for name in TOLD},
        },
    }


def base_has_changed(adapter, base):
    """Whether the files in the folder `base` are others than when `adapter` was trained on it, as far as it tells."""
    then = ((provenance_of(adapter) or provenance_of(adapter.parent)).get("model") or {}).get("hash")
    return bool(then) and base.is_dir() and then != _identify(base)["hash"]


def learns_prompts(start, options, is_new):
    """Whether all turns of conversations are learnt, and not the answers alone.

    start: a Start. options: TextOptions. is_new: whether the vocabulary is, or all of the model: questions then teach
    it Korean as well as answers do. What the command line leaves open, a run that goes on takes from its checkpoint.
    """
    if options.train_on_prompt is not None:
        return options.train_on_prompt
    if start.checkpoint is None:
        return is_new
    return bool(read_resume(start.checkpoint).get("train_on_prompt"))


def _name_stream(options):
    """What is known of a stream before it is read: the data set, and the flags (TextOptions) that say what of it."""
    given = ((name, getattr(options, name)) for name in COLUMNS)
    columns = (f"--{name}={value}" for name, value in given if value is not None)
    return " ".join([f"{options.dataset_name}/{options.dataset_config_name}", *columns])


def _differences(saved, now, asks_of_prompts, measured):
    """`(what, the checkpoint's, the run's)` for each thing in which they differ.

    asks_of_prompts: whether --train_on_prompt was given; a text without conversations has none either. measured: the
    held-out text that the run's must be, None where it may be any.
    """
    none = {"name": "없음"}
    found = []
    if asks_of_prompts and saved.get("train_on_prompt", False) != now["train_on_prompt"]:
        found.append(("--train_on_prompt", *(str(run.get("train_on_prompt", False)).lower() for run in (saved, now))))
    elif saved["corpus"] != now["corpus"]:  # its hash covers which tokens are learnt
        found.append(("학습할 글", _words(saved["corpus"]), _words(now["corpus"])))
        # One text has another part to learn where only one run holds some out, or another share, or by another seed.
        evaluates = [run.get("held_out", now["held_out"]) is not None for run in (saved, now)]
        if evaluates[0] != evaluates[1]:
            found.append(("--do_eval", *(str(each).lower() for each in evaluates)))
        elif evaluates[1]:
            shares = [run.get(SHARE, now[SHARE]) for run in (saved, now)]
            seeds = [run.get("learning", now["learning"])["seed"] for run in (saved, now)]
            flags = ((f"--{SHARE}", shares), ("--seed", seeds))
            found += [(flag, *values) for flag, values in flags if values[0] != values[1]]
    if measured not in (None, now["held_out"]):
        found.append(("평가할 글", _words(measured), _words(now["held_out"])))
    if saved["block_size"] != now["block_size"]:
        found.append(("--block_size", saved["block_size"], now["block_size"]))
    if saved.get("packing") != now["packing"]:
        found.append(("--packing", saved.get("packing") or "순서가 늘 같은 예전 방식", now["packing"]))
    if not _same(saved["model"], now["model"]):
        found.append(("--model_type", saved["model"]["name"], now["model"]["name"]))
    if now["tokenizer"] and not _same(saved["tokenizer"] or none, now["tokenizer"]):
        found.append(("--tokenizer", (saved["tokenizer"] or none)["name"], now["tokenizer"]["name"]))
    if now["vocab_size"] not in (None, saved["vocab_size"]):
        found.append(("--vocab_size", saved["vocab_size"] or "없음", now["vocab_size"]))
    for name in OWN:
        before = OWN[name] if saved.get(name) is None else saved[name]
        if now[name] not in (None, before):
            found.append((f"--{name}", "없음" if before is None else before, now[name]))
    return found


def _list(differences):
    """What _differences found, in words."""
    return ", ".join(
        f"{what}: 체크포인트는 {before}, 지금은 {now}" if before != now else f"{what}: {now}의 파일이 그때와 다름"
        for what, before, now in differences
    )


def _check_same_learning(checkpoint, before, now):
    """Raise UserError where a run would take other blocks than `checkpoint` left it, or wants another optimizer.

    Say so where a step has the same blocks in other parts, which several processes fill up the last of, and what of
    TOLD is another from here on.
    """
    flags = ("seed", "data_seed", "train_sampling_strategy", "optim", "optim_args", *OPTIMIZER)
    named = {"processes": "프로세스의 수"} | {name: f"--{name}" for name in flags}
    before = {**now, **before}
    found = [(words, before[name], now[name]) for name, words in named.items() if before[name] != now[name]]
    parts = [(each["batch_size"], each["accumulation"]) for each in (before, now)]
    if parts[0] != parts[1]:
        (size, times), (new_size, new_times) = parts
        if size * times != new_size * new_times or now["processes"] > 1:
            flags = "--per_device_train_batch_size × --gradient_accumulation_steps"
            found.append((flags, f"{size}×{times}", f"{new_size}×{new_times}"))
        elif not found:
            parts = particle(f"{new_size}×{new_times}", "으로/로")
            say(f"한 스텝의 블록 {size * times}개를 {size}×{times} 대신 {parts} 나누어 이어 갑니다.")
    if found:
        raise UserError(
            f"{checkpoint}: 그때와 다르게 배우는 학습이라 이어 갈 수 없습니다({_list(found)}).\n"
            f"그때와 같은 값을 주세요. {start_anew(checkpoint)}"
        )
    changed = [(f"--{name}", before[name], now[name]) for name in TOLD if before[name] != now[name]]
    if changed:
        warn(f"그때와 다른 값으로 이어 갑니다({_list(changed)}).")


def check_state(checkpoint, arguments):
    """Raise UserError where `checkpoint` is a model alone, and lacks a state that the run would begin anew.

    arguments: TrainingArguments. Sharded optimizers have files of their own, which are left to who reads them.
    """
    wanted = ["optimizer.pt", "scheduler.pt"] if not (arguments.fsdp or arguments.deepspeed) else []
    rank = f"_{arguments.process_index}" if arguments.world_size > 1 else ""
    if "learning" in read_resume(checkpoint) or not any(Path(checkpoint).glob("rng_state*.pth")):
        wanted.append(f"rng_state{rank}.pth")  # else of another number of processes, perhaps
    missing = [name for name in wanted if not (Path(checkpoint) / name).exists()]
    if missing:
        names = particle(", ".join(missing), "이/가")
        beside = [each for each in whole_checkpoints(Path(checkpoint).parent) if not lacks_states(each)]
        way_on = f"--resume_from_checkpoint={beside[-1]}에서 이어 가거나, " if beside else ""
        raise UserError(
            f"{checkpoint}: {names} 없어 이어 갈 수 없습니다(--save_only_model은 모델만 저장합니다).\n"
            f"{way_on}{start_anew(checkpoint)}"
        )


def start_anew(checkpoint):
    """The way on from a checkpoint that training cannot go on from."""
    return f"새 --output_dir에 {particle(f'--model_type={checkpoint}', '을/를')} 주면 그 모델에서 새로 시작합니다."


def _plain(value):
    """A value of TrainingArguments as JSON has it and a reader understands it."""
    return "없음" if value is None else getattr(value, "value", value)


def _words(corpus):
    return corpus["name"] if "name" in corpus else f"토큰 {corpus['tokens']:,}개({corpus['hash'][:8]})"


def _same(one, other):
    """Whether two models or tokenizers are one: by contents where both are folders that are there."""
    return one["hash"] == other["hash"] if one.get("hash") and other.get("hash") else one["name"] == other["name"]


def _identify_text(blocks):
    """What tells the text of Blocks' `train` or `held_out` from another; None of a stream, and where there is none."""
    tokens = count_targets(blocks)
    return None if tokens is None else {"tokens": tokens, "hash": fingerprint(blocks.tokens)}


def _identify(name):
    """`{"name", "hash"}` of a folder, only its name of a hub id or word."""
    folder = Path(name)
    if not folder.is_dir():
        return {"name": folder.name if folder.is_absolute() else name}
    digest = hashlib.sha256()
    for pattern in ("config.json", "tokenizer.json", *WEIGHTS):
        for path in sorted(folder.glob(pattern)):
            with path.open("rb") as file:
                digest.update(f"{path.name} {path.stat().st_size}".encode() + file.read(FILE_BEGINNING))
    return {"name": folder.resolve().name, "hash": digest.hexdigest()}
