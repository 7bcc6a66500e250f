"""Blocks and a model → a Trainer; its run from the start or a checkpoint to the end or a stop."""

from functools import partial
from pathlib import Path
from zlib import crc32

import torch
from datasets import IterableDataset
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerState
from transformers.trainer_utils import unwrap_peft_model

from gpt2_korean.checkpoints.complete import STATE, read_resume, trainer_state
from gpt2_korean.checkpoints.going_on import is_inside
from gpt2_korean.checkpoints.lock import is_held
from gpt2_korean.checkpoints.rotation import remove_earlier_run
from gpt2_korean.checkpoints.same_run import check_state
from gpt2_korean.messages import Stopped, UserError, say
from gpt2_korean.text.assemble import collate
from gpt2_korean.text.blocks import count_targets
from gpt2_korean.training import failures
from gpt2_korean.training.arguments import warn_of_plan
from gpt2_korean.training.average import take_average
from gpt2_korean.training.callbacks import (
    DrawCurve,
    GoOnAndStop,
    KeepCheckpoints,
    KeepRecord,
    LogLines,
    ProgressBar,
    StopEarly,
    WriteSamples,
    count_stalls,
)
from gpt2_korean.training.curve import Corpus
from gpt2_korean.training.evaluation import evaluate
from gpt2_korean.training.record import Record, has_ended, name_of_text, step_of_model
from gpt2_korean.training.samples import own_prompts
from gpt2_korean.training.stopping import leave_together
from gpt2_korean.training.trackers import go_on_without_trackers
from gpt2_korean.training.trainer import KoreanTrainer, NothingToTrain


def build_trainer(model, tokenizer, arguments, blocks, stop, record=None, output=None):
    """A KoreanTrainer over Blocks.

    stop: a StopRequest; from here on it is asked at the end of each step and at each evaluated batch.
    record: a Record, to which the trainer adds. output: OutputOptions, where it is to save checkpoints.
    """
    # GPT-2's class name does not tell transformers which loss is meant; it warns, then takes this one.
    language_model = unwrap_peft_model(model)
    language_model.loss_type = "ForCausalLM"
    # End-of-text stands between documents, and where it is the padding token too, transformers looks in
    # every batch for padding without a mask: a warning that is wrong here, and a stop of the device.
    language_model.base_model.warn_if_padding_and_no_attention_mask = lambda *_: None
    record = record or Record()
    record.characters, record.parameters = blocks.train_characters, count_parameters(model)
    # With several ranks the first reads a stream for all, in one batch, so its blocks must be of one length.
    length = blocks.size if arguments.world_size > 1 and blocks.train_characters is None else 0
    trainer = KoreanTrainer(
        model=model,
        args=arguments,
        data_collator=partial(collate, pad_token_id=tokenizer.pad_token_id, length=length),
        train_dataset=_without_end(blocks.train),
        eval_dataset=blocks.held_out,
        processing_class=tokenizer,
        callbacks=[KeepCheckpoints(output and output.save_total_limit)],
        stop=stop,
        record=record,
        # What evaluation is in, so that the two can be compared: see curve.py.
        tokens_per_character=blocks.held_out_spends or blocks.train_spends,
        eval_characters=blocks.held_out_characters,
    )
    trainer.pop_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback) is not None:  # absent where --disable_tqdm was given
        trainer.add_callback(ProgressBar(trainer))
    go_on_without_trackers(trainer.callback_handler.callbacks, arguments.report_to)
    trainer.add_callback(LogLines())
    stop.hold_back()
    return trainer


def count_parameters(model):
    """How many the model has, without an adapter, which is merged into it in the end, and how many are trained."""
    weights = dict(model.named_parameters())
    own = sum(weight.numel() for name, weight in weights.items() if ".lora_" not in name)
    return {"model": own, "trained": sum(weight.numel() for weight in weights.values() if weight.requires_grad)}


def _without_end(blocks):
    """A stream of blocks begun anew whenever it ends; others as they are.

    Trainer takes all steps on a stream for one epoch: a run that goes on passes over as many blocks as were learnt,
    and blocks that are too few for a step wait for those that follow.
    """
    return blocks.repeat(None) if isinstance(blocks, IterableDataset) else blocks


def show_progress(trainer, blocks, prompts):
    """Let a person see what `trainer` learns: the curve, and at each evaluation what it writes to `prompts`.

    prompts: a list of str; None for those of every run, of a chat model questions.
    """
    if prompts is None:
        prompts = own_prompts(trainer.processing_class)
    tokens_per_step = trainer.get_total_train_batch_size(trainer.args) * (blocks.size - 1)
    trainer.add_callback(WriteSamples(trainer, prompts))
    title = (trainer.record.provenance["model"]["name"], name_of_text(trainer.record.options))
    tokens = count_targets(blocks.train)
    corpus = Corpus(blocks.train_characters, tokens, tokens_per_step, blocks.held_out_spends, title)
    trainer.add_callback(DrawCurve(trainer, corpus))


def learn_blocks(trainer, start, blocks, steps, learning):
    """Train to the end of `steps` steps, from `start` (a Start), or say that nothing is left to do."""
    output_dir = trainer.args.output_dir
    trainer.record.resumed_from = start.checkpoint and start.checkpoint.name
    trainer.replaces_earlier_run = start.checkpoint is None or not is_inside(start.checkpoint, output_dir)
    patience = learning.early_stopping_patience
    if is_finished(start.checkpoint, steps, patience):
        complete(trainer, start.checkpoint)
        more = "--num_train_epochs나 --max_steps를, 일찍 마쳤다면 --early_stopping_patience를"
        say(f"이미 끝난 학습입니다: {output_dir} (더 하려면 {more} 늘리세요)")
    else:
        if start.checkpoint is not None:
            check_state(start.checkpoint, trainer.args)
        warn_of_plan(trainer.args, steps, blocks, learning.chosen)
        train(trainer, start.checkpoint, patience, learning.early_stopping_threshold)


def is_finished(checkpoint, steps, patience=None):
    """Whether a run of `steps` steps has nothing left to do after `checkpoint` (None: there is none).

    patience: after how many evaluations that bring nothing new it ends early, None for never.
    """
    if checkpoint is None:
        return False
    state = trainer_state(checkpoint)
    return state["global_step"] >= steps or (patience is not None and count_stalls(state) >= patience)


def train(trainer, checkpoint=None, patience=None, threshold=0.0):
    """Train to the end, from a checkpoint folder if one is given, and leave a whole model in output_dir itself.

    patience: end early after so many evaluations in a row that are not better by more than `threshold`.

    A run from elsewhere replaces what an earlier one left in output_dir, at its first save. Raises
    Stopped once it was asked to stop and has saved a checkpoint, UserError where something cannot be saved
    or read, the loss is no number, or the device's memory does not suffice.
    """
    _check_same_start(trainer, checkpoint)
    if patience is not None:
        trainer.add_callback(StopEarly(patience, threshold))
    stopping = GoOnAndStop(trainer, checkpoint)
    trainer.add_callback(stopping)
    trainer.add_callback(KeepRecord(trainer))
    try:
        with failures.training():
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except NothingToTrain:
        trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
    if stopping.stopped:
        leave_together()
        raise Stopped(
            f"{trainer.stop.reason} {trainer.state.global_step}스텝에서 멈추고 체크포인트를 저장했습니다.\n"
            "같은 명령에 --resume_from_checkpoint=auto를 넣어(이미 있으면 그대로) 다시 실행하면 이어집니다."
        )
    trainer.load_best()
    take_average(trainer)
    trainer.save_whole_model()


def complete(trainer, checkpoint):
    """Do what a run that ended right after its last checkpoint left undone: at most, save the whole model.

    At least, write the model's card and run.json, where the run did not come to that.
    `trainer` then holds the model and the state of the run's end.
    """
    output_dir = Path(trainer.args.output_dir)
    if trainer.replaces_earlier_run:
        with trainer.args.main_process_first():
            if trainer.args.should_save:
                remove_earlier_run(output_dir, keep=checkpoint)
        trainer.replaces_earlier_run = False
    saved, last = trainer_state(output_dir) or {}, trainer_state(checkpoint)
    log = last.get("log_history", [])  # its speeds tell this run from others of as many steps
    whole = saved.get("global_step") == last["global_step"] and saved.get("log_history", [])[: len(log)] == log
    trainer.state = TrainerState.load_from_json(str((output_dir if whole else checkpoint) / STATE))
    due = not whole and read_resume(checkpoint).get("evaluation_due")
    if due and trainer.eval_dataset is not None:
        trainer.take_up_evaluation(evaluate(trainer))
    left = step_of_model(output_dir)
    if whole and left not in (None, trainer.state.global_step):
        trainer.args.load_best_model_at_end = True  # which is what that run left, and is told of
    trainer.load_best(left if whole else None)
    trainer.load_average(checkpoint)
    take_average(trainer)
    is_replaced = trainer.holds_best and left != trainer.model_step()
    # A push may have failed, or is asked for only now.
    whole = whole and not is_replaced and not trainer.args.push_to_hub
    if whole:
        trainer.merge_adapter()
        if not has_ended(output_dir):
            trainer.note_progress()
            trainer.create_model_card()
        return
    trainer.note_progress()
    trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)  # rotation may be due too
    trainer.save_whole_model()


def _check_same_start(trainer, checkpoint):
    """Raise UserError where the ranks do not share output_dir, as nodes with disks of their own, found different
    checkpoints there, or different texts, from which they may have learnt different vocabularies too."""
    if trainer.args.world_size == 1:
        return
    step = -1 if checkpoint is None else trainer_state(checkpoint)["global_step"]
    learnt = crc32(repr([trainer.record.provenance[name] for name in ("vocabulary", "corpus")]).encode())
    shared = is_held(trainer.args.output_dir)
    found = trainer.accelerator.gather(torch.tensor([[shared, step, learnt]], device=trainer.args.device))
    shared, steps, learnt = found.T.tolist()
    if not all(shared):
        raise UserError(
            f"--output_dir={trainer.args.output_dir}: 노드마다 다른 디스크의 폴더입니다. 모든 노드가 함께 보는 폴더를 "
            "주세요."
        )
    if len(set(steps)) > 1:
        raise UserError(
            f"--output_dir={trainer.args.output_dir}: 프로세스마다 다른 체크포인트를 찾았습니다({steps}스텝).\n"
            "모든 노드가 함께 보는 폴더를 주세요."
        )
    if len(set(learnt)) > 1:
        raise UserError(
            "프로세스마다 학습할 글이나 어휘가 다릅니다. 모든 노드에 같은 글과 모델을 두세요.\n그래도 어휘가 다르면 한 "
            "번 배운 어휘의 폴더를 --tokenizer로 주세요."
        )
