"""A Trainer whose checkpoints are whole and hold all that a run needs to go on."""

import json
import math
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from safetensors import SafetensorError
from torch import distributed
from transformers.trainer_utils import SaveStrategy

from gpt2_korean.checkpoints import atomic_files
from gpt2_korean.checkpoints.complete import ADAPTER, RESUME, STATE, read_json, remove_checkpoint, remove_earlier_run
from gpt2_korean.messages import UserError, describe_os_error
from gpt2_korean.model import lora
from gpt2_korean.training.exact_evaluation import EvaluatingTrainer, EvaluationStopped
from gpt2_korean.training.record import write_card
from gpt2_korean.training.stopping import ignore_in_worker


class NothingToTrain(Exception):
    """The evaluation that the run before this one left undone has ended the training."""


class KoreanTrainer(EvaluatingTrainer):
    """A Trainer that leaves no half checkpoint, and whose runs can go on from any.

    record: what is to be told of the run (see run_record.py); its `provenance` is saved in each checkpoint.
    """

    def __init__(self, *args, record=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.record = record or {}
        self.replaces_earlier_run = False
        self.saved_step = None
        self._saves_only_best = self._holds_best = False
        self._staging = None

    def _get_dataloader(self, *args, **kwargs):
        loader = super()._get_dataloader(*args, **kwargs)
        loader.worker_init_fn = partial(ignore_in_worker, loader.worker_init_fn)
        return loader

    def _maybe_log_save_evaluate(self, tr_loss, grad_norm, model, trial, *args, **kwargs):
        try:
            super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)
        except EvaluationStopped:
            self.evaluation_due = True
            self.control.should_training_stop, self.control.should_evaluate = True, False
            self._save_checkpoint(model, trial)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)

    def _determine_best_metric(self, metrics, trial):
        """Have a new best saved whatever the interval, if it is to be loaded at the end.

        Returns whether --save_strategy=best is to save: the last state too, as a run that has ended has it.
        """
        is_best = super()._determine_best_metric(metrics, trial)
        if is_best and self.args.load_best_model_at_end and not self.control.should_save:
            self.control.should_save = True
            self._saves_only_best = self.args.save_strategy != SaveStrategy.BEST
        return is_best or self.control.should_training_stop

    def _load_best_model(self):
        super()._load_best_model()
        self._holds_best = True

    def model_step(self):
        """After how many steps the model was as it is now."""
        return self.state.best_global_step if self._holds_best else self.state.global_step

    def _issue_warnings_after_load(self, load_result):
        tied = getattr(self.model, "_tied_weights_keys", None) or ()  # saved once, under the other's name
        load_result.missing_keys[:] = [name for name in load_result.missing_keys if name not in tied]
        super()._issue_warnings_after_load(load_result)

    def go_on(self, checkpoint):
        """Take up what Trainer's own state lacks: the losses since the last log line, an evaluation cut short."""
        self.saved_step = self.state.global_step
        saved = read_json(checkpoint / RESUME) or {}
        self._tr_loss += saved.get("unlogged_loss", 0.0)
        self._total_loss_scalar -= self._tr_loss.item()  # Trainer's mean at the end is over this run's own steps
        self._globalstep_last_logged = saved.get("logged_step", self.state.global_step)
        self._find_best_checkpoint()
        if saved.get("evaluation_due") and self.eval_dataset is not None:
            self.control.should_evaluate = True
            self._maybe_log_save_evaluate(
                self._tr_loss, None, self.model_wrapped, None, self.state.epoch, None, time.time()
            )
            if self.control.should_training_stop:
                raise NothingToTrain  # Trainer would take one step more

    def note_progress(self):
        """Add to the record how far the run has come."""
        self.record["steps"] = {"done": self.state.global_step, "of": self.state.max_steps}
        self.record["losses"] = self.state.log_history

    def create_model_card(self, *args, **kwargs):
        """Ours in place of the one that Trainer would write before it pushes to the Hub."""
        if self.is_world_process_zero():
            write_card(self.args.output_dir, self.record)

    def log(self, logs, start_time=None):
        for name in ("loss", "train_loss"):
            # In float16 a step that overflows is skipped and its loss filtered out; a loss of 0 means all were.
            if name in logs and (not math.isfinite(logs[name]) or (self.args.fp16 and logs[name] == 0)):
                raise self._diverged()
        super().log(logs, start_time)

    def _diverged(self):
        return UserError(
            f"{self.state.global_step}스텝까지의 손실이나 가중치에 NaN 또는 무한대가 나와 멈춥니다. 앞서 저장된 "
            "체크포인트는 그대로 있습니다.\n--learning_rate를 낮추거나 --warmup_steps를 늘리거나 --fp16을 끄세요."
        )

    def _get_output_dir(self, trial):
        """Where Trainer saves its next checkpoint: beside, until it is whole."""
        return str(self._staging or super()._get_output_dir(trial))

    def _save_checkpoint(self, model, trial):
        if not (self._tr_loss.isfinite() and all(weight.isfinite().all() for weight in model.parameters())):
            raise self._diverged()
        output_dir, name = Path(self.args.output_dir), f"checkpoint-{self.state.global_step}"
        unlogged_loss = self.accelerator.gather(self._tr_loss).mean().item()
        with self._saving(output_dir / name), self.meter.paused():
            self._staging = self._make_staging_area()
            super()._save_checkpoint(model, trial)
            checkpoint, self._staging = self._staging / name, None
            self._find_best_checkpoint()  # Trainer looked for it beside this one, which is not in its place yet
            if self.args.should_save:
                self.state.save_to_json(str(checkpoint / STATE))
                self._save_resume(checkpoint, unlogged_loss)
            self._wait_for_all_ranks()  # each writes the state of its random numbers, some a part of the model
            atomic_files.sync(checkpoint)
            self._wait_for_all_ranks()  # each machine has its own files on the disk
            if self.args.should_save:
                self._publish(checkpoint, output_dir / name)
            self._wait_for_all_ranks()
        self.replaces_earlier_run = self._saves_only_best = False
        self.saved_step = self.state.global_step
        if self.args.push_to_hub:
            super()._push_from_checkpoint(str(output_dir / name))

    def _push_from_checkpoint(self, checkpoint_folder):
        """Called by Trainer before the checkpoint is in its place: _save_checkpoint pushes it then."""

    def _make_staging_area(self):
        # Only the first rank may make it, and only in an output_dir that is still there.
        output_dir = Path(self.args.output_dir)
        if self.args.should_save:
            atomic_files.staging_area(output_dir)
        self._wait_for_all_ranks()
        return atomic_files.staging_area(output_dir)

    def _find_best_checkpoint(self):
        step = self.state.best_global_step
        folder = Path(self.args.output_dir) / f"checkpoint-{step}"
        there = step is not None and (step == self.state.global_step or folder.is_dir())
        self.state.best_model_checkpoint = str(folder) if there else None

    def _save_resume(self, checkpoint, unlogged_loss):
        resume = {
            **self.record.get("provenance", {}),
            "unlogged_loss": unlogged_loss,
            "logged_step": self._globalstep_last_logged,
            "evaluation_due": self.evaluation_due,
            "only_best": self._saves_only_best,  # no interval asked for it: see drop_old_checkpoints
        }
        (checkpoint / RESUME).write_text(json.dumps(resume, ensure_ascii=False, indent=1), "utf-8")

    def _publish(self, checkpoint, target):
        if self.state.global_step != self.saved_step:
            remove_checkpoint(target)  # another run's
        if target.exists():  # this very step, saved once more, or a folder that holds files of the user's
            atomic_files.replace_files(checkpoint, target, last=(STATE,))
        else:
            atomic_files.rename_into_place(checkpoint, target)
        # An earlier run gives way only once this one has a checkpoint to show: whatever ends it before,
        # the old model is still there.
        if self.replaces_earlier_run:
            remove_earlier_run(self.args.output_dir, keep=target)
        atomic_files.tidy_staging_area(self.args.output_dir)

    def _wait_for_all_ranks(self):
        if self.args.world_size > 1:
            distributed.barrier()

    def save_whole_model(self):
        """Save the model and the state it is of into output_dir itself: no half model ever stands there."""
        output_dir = Path(self.args.output_dir)
        with self._saving(output_dir):
            folder = self._make_staging_area() / "model"
            if lora.is_adapted(self.model):
                self.save_model(str(folder / ADAPTER), _internal_call=True)
                # Prepared as the one before it was: it is evaluated in the precision of the run.
                self.model = self.accelerator.prepare_model(lora.merge(self.model), evaluation_mode=True)
                self.evaluated.clear()  # merged weights round a little otherwise
            self.save_model(str(folder), _internal_call=True)
            if self.is_world_process_zero():
                self.state.save_to_json(str(folder / STATE))
                atomic_files.sync(folder)
                (output_dir / STATE).unlink(missing_ok=True)
                # Without config.json a folder is no model; the state says that all before it is there.
                atomic_files.replace_files(folder, output_dir, last=("config.json", STATE))
                self.create_model_card()
                atomic_files.tidy_staging_area(output_dir)
        if self.args.push_to_hub:
            self.push_to_hub()

    @contextmanager
    def _saving(self, what):
        """Turn a failure to write into a UserError, and remove what was written."""
        try:
            yield
        except (OSError, RuntimeError, SafetensorError) as error:
            # torch and safetensors raise errors of their own, in which the system's is lost or only quoted.
            words = f"디스크의 남은 공간과 폴더의 권한을 확인하세요 ({str(error).splitlines()[0]})."
            reason = describe_os_error(error) if isinstance(error, OSError) else words
            atomic_files.clear_staging_area(self.args.output_dir)
            raise UserError(
                f"{what}: 저장하지 못했습니다. {reason}\n앞서 저장된 체크포인트는 그대로 있습니다."
            ) from error
        finally:
            self._staging = None
