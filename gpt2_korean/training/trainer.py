"""transformers' Trainer as a run needs it; the only file that names Trainer's private parts.

Its checkpoints are whole and hold all that a run needs to go on, its evaluation is exact (evaluation.py), its steps can
be replayed as a graph of the device, and it tells how fast it takes them.
"""

import json
import math
import time
from functools import cache, partial
from operator import itemgetter
from pathlib import Path

from torch import bfloat16, distributed, float16
from torch.nn.utils import get_total_norm
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import IntervalStrategy, SaveStrategy, speed_metrics

from gpt2_korean.checkpoints import atomic_files
from gpt2_korean.checkpoints.complete import ADAPTER, AVERAGE, RESUME, STATE, read_resume
from gpt2_korean.checkpoints.rotation import REPLACES, publish_checkpoint, publish_model
from gpt2_korean.device import describe_device
from gpt2_korean.messages import say, warn
from gpt2_korean.model import lora
from gpt2_korean.model.elsewhere import tell_others
from gpt2_korean.model.embeddings import embedding_layers, split_off
from gpt2_korean.model.quiet import without_warnings
from gpt2_korean.speed.graphs import RecordedStep, average_over_ranks, start_alike
from gpt2_korean.speed.throughput import TokenMeter, flops_per_token, model_flops_utilization
from gpt2_korean.text.assemble import fill_up
from gpt2_korean.text.blocks import EpochOrder, PackedBlocks
from gpt2_korean.training import failures
from gpt2_korean.training.average import AverageWeights
from gpt2_korean.training.evaluation import EvaluationStopped, exact_loss, exact_metrics, leave_evaluation
from gpt2_korean.training.model_card import write_card
from gpt2_korean.training.muon import MuonWithAdamW, layer_matrices
from gpt2_korean.training.samples import own_prompts, write_samples
from gpt2_korean.training.stopping import ignore_in_worker


class NothingToTrain(Exception):
    """The evaluation that the run before this one left undone has ended the training."""


class KoreanTrainer(Trainer):
    """A Trainer that leaves no half checkpoint, whose runs can go on from any, and that evaluates exactly.

    stop: a StopRequest; an evaluation that it cuts short is made up for by the run that goes on.
    record: a Record; its provenance is saved in each checkpoint, and tells the embeddings' own learning rate.
    tokens_per_character: that losses are told at, None where it is not known. eval_characters: of the evaluated text.
    """

    def __init__(self, model, *args, stop, record, tokens_per_character=None, eval_characters=None, **kwargs):
        self.uses_cache = getattr(model.config, "use_cache", True)
        super().__init__(model, *args, **kwargs)
        self.stop, self.record = stop, record
        self.tokens_per_character, self.eval_characters = tokens_per_character, eval_characters
        self.full_length = self.recorded_step = self.order = None
        self.blocks_per_step = self._train_batch_size * self.args.gradient_accumulation_steps
        self.meter = TokenMeter()
        self.flops_per_token = cache(partial(flops_per_token, self.model))  # asked of at every pass
        self.evaluation_due = False
        self.evaluated = {}  # step → metrics, of this process and the weights as they are
        self.replaces_earlier_run = False
        self.can_write = True  # see samples.py
        self.saved_step = None
        self.average = self.averaged_steps = None
        self._saves_only_best = self.holds_best = False
        self._staging = None
        if last := record.provenance.get("average_last"):
            self.average = AverageWeights(self, last)
            self.add_callback(self.average)

    # How it steps

    def take_steps(self, full_length=None, recorded=False):
        """full_length: fill each batch up to the same number of blocks of this length, as compiled and recorded steps
        need. recorded: replay each pass as a graph of the device. Several ranks then average their gradients here,
        since the hooks of DistributedDataParallel stand in the way of a recording.
        """
        self.full_length = full_length
        self.recorded_step = RecordedStep(self.model.parameters(), self.args.device) if recorded else None
        if recorded and self.args.world_size > 1:
            self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)
            start_alike(self.model)

    def planned_steps(self):
        """How many steps the whole run takes, by Trainer's own count."""
        return self.set_initial_training_values(self.args, self.get_train_dataloader())[-1]

    def create_optimizer(self, model=None):
        if self.optimizer is not None:
            return self.optimizer
        trained, uses_muon = self.model if model is None else model, self.args.uses_muon
        own_rate = self.record.provenance.get("embedding_learning_rate")
        if uses_muon:
            adamw = self.get_optimizer_cls_and_kwargs(self.args)[1]
            # A fused step leaves it to AdamW alone to pass over gradients that overflow in float16.
            self.optimizer_cls_and_kwargs = (MuonWithAdamW, adamw | {"fused": not self.args.fp16})
        optimizer = super().create_optimizer(model)
        if uses_muon:
            for count, weights in layer_matrices(trained).items():
                split_off(optimizer, weights, matrices=count)
        if own_rate is not None:
            weights = [layer.weight for layer in embedding_layers(trained)]
            if not split_off(optimizer, weights, lr=own_rate):
                warn("임베딩이 따로 있지 않아(--fsdp 등) --embedding_learning_rate 대신 --learning_rate로 배웁니다.")
        return optimizer

    def training_step(self, model, inputs, num_items_in_batch=None):
        self.meter.add(inputs["input_ids"].numel() * self.args.world_size)
        inputs = self._prepare_inputs(inputs)
        if num_items_in_batch is not None:  # nothing may be learnt in a step: in the midst of a long question
            num_items_in_batch = num_items_in_batch.clamp(min=1)
        if self.full_length is not None:
            inputs = fill_up(inputs, self._train_batch_size, self.full_length)
        if self.recorded_step is None:
            return super().training_step(model, inputs, num_items_in_batch)
        loss = self.recorded_step(partial(super().training_step, model), inputs, num_items_in_batch)
        if self.args.world_size > 1 and self.accelerator.sync_gradients:
            average_over_ranks(self.recorded_step.parameters, bfloat16 if self.args.bf16 else None)
        return loss

    def _clip_grad_norm(self, model):
        """The norm of the gradients, clipped at the next step of the optimizer.

        A fused AdamW divides them itself as it reads them, by what torch.amp.GradScaler would hand it: a pass less.
        """
        optimizer = getattr(self.optimizer, "optimizer", None)
        is_fused = type(optimizer) is AdamW and optimizer.defaults["fused"]
        if self.recorded_step is None or self.args.fp16 or not is_fused:  # in float16 they are scaled already
            return super()._clip_grad_norm(model)
        norm = get_total_norm([weight.grad for weight in model.parameters() if weight.grad is not None])
        optimizer.grad_scale = ((norm + 1e-6) / self.args.max_grad_norm).clamp(min=1)
        return norm

    def _update_auto_batch_size(self, batch_size):
        """The most blocks at a time up to `batch_size` with which a step of the optimizer sees as many as before."""
        fitting = max(size for size in range(1, batch_size + 1) if self.blocks_per_step % size == 0)
        self.args.gradient_accumulation_steps = self.blocks_per_step // fitting
        if self.recorded_step is not None:
            self.recorded_step = RecordedStep(self.model.parameters(), self.args.device)
        super()._update_auto_batch_size(fitting)
        if fitting < self.args.per_device_train_batch_size:
            say(
                f"--auto_find_batch_size: 한 번에 블록 {fitting}개씩 {self.args.gradient_accumulation_steps}번을 "
                "한 스텝으로 학습합니다."
            )

    def _get_train_sampler(self, train_dataset=None):
        if not isinstance(train_dataset, PackedBlocks):
            return super()._get_train_sampler(train_dataset)
        # One process needs no filling up; and a mean over no targets is NaN, where a sum divided by those of all is 0.
        fills = self.args.world_size > 1 and self.model_accepts_loss_kwargs
        together = self._train_batch_size * self.args.world_size if fills else 1
        self.order = EpochOrder(train_dataset, together, self.args.train_sampling_strategy == "random")
        return self.order

    def _run_epoch(self, epoch, **rest):
        if self.order is not None:  # accelerate does not tell it of ranks that go on within an epoch
            self.order.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, **rest)

    def _get_dataloader(self, *args, **kwargs):
        loader = super()._get_dataloader(*args, **kwargs)
        # On the inner loader: accelerate's wrapper passes reads on to it, but keeps what is set.
        loader.base_dataloader.worker_init_fn = partial(ignore_in_worker, loader.worker_init_fn)
        return loader

    # What it tells

    def floating_point_ops(self, inputs):
        return self.flops_per_token(inputs["input_ids"].shape[1]) * inputs["input_ids"].numel()

    def log(self, logs, start_time=None):
        for name in ("loss", "train_loss"):
            # In float16 a step that overflows is skipped and its loss filtered out; a loss of 0 means all were.
            if name in logs and (not math.isfinite(logs[name]) or (self.args.fp16 and logs[name] == 0)):
                raise failures.diverged(self.state.global_step)
        speeds = {}
        if "loss" in logs:
            speeds["tokens_per_second"] = self.meter.read()
        elif "train_runtime" in logs:
            speeds["train_tokens_per_second"] = speed = self.meter.overall()
            if self.full_length:  # on a device as fast as those whose peak is known, batches are of one shape
                flops, name = self.flops_per_token(self.full_length), describe_device(self.args.device)
                speeds["train_mfu"] = model_flops_utilization(speed, flops, name, self.args.world_size)
        logs |= {name: speed for name, speed in speeds.items() if speed is not None}
        epoch = self.state.epoch
        if self.record.characters is None:  # of a stream, all steps on which are one epoch to Trainer
            self.state.epoch = None
        super().log(logs, start_time)
        self.state.epoch = epoch

    def describe_progress(self):
        """What the progress bar shows beside the steps, the least important last. Waits for the device."""
        speed, steps = self.meter.overall(), self.state.global_step - self._globalstep_last_logged
        words = [] if speed is None else [f"초당 토큰 {speed:,.0f}"]
        if steps:
            loss = self._tr_loss.item() / steps
            if self.tokens_per_character is not None:
                words.append(f"글자당 비트 {loss / math.log(2) * self.tokens_per_character:.3f}")
            words.append(f"손실 {loss:.3f}")
        return words

    def note_progress(self):
        """Add to the record how far the run has come."""
        self.record.steps = {"done": self.state.global_step, "of": self.state.max_steps}
        self.record.losses = self.state.log_history

    def create_model_card(self, *args, **kwargs):
        """Ours, where steps were taken, in place of the one that Trainer would write before it pushes to the Hub."""
        if self.is_world_process_zero() and self.record.steps is not None:
            if self.record.model is None:
                prompts = own_prompts(self.processing_class)[:1]
                written = write_samples(self, prompts)
                sample = written and {"prompt": prompts[0], "text": written[0]}
                self.record.model = {"step": self.model_step(), "averaged": self.averaged_steps, "sample": sample}
            talks = self.processing_class.chat_template is not None
            write_card(self.args.output_dir, self.record, self.hub_model_id, talks)

    # How it evaluates

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """The exact metrics of blocks (None: those given at the start), logged and told to the callbacks."""
        blocks, size = eval_dataset or self.eval_dataset, self.args.eval_batch_size
        start, progress = time.time(), not self.args.disable_tqdm and self.is_local_process_zero()
        with self.meter.paused():
            model = self._model_to_evaluate().eval()
            nats = exact_loss(model, blocks, size, self.args.device, self.stop, progress)
            metrics = exact_metrics(nats, blocks, self.eval_characters)
            metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
            steps = math.ceil(len(blocks) / (size * self.args.world_size))
            metrics |= speed_metrics(metric_key_prefix, start, num_samples=len(blocks), num_steps=steps)
            self.log(metrics)
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.evaluated[self.state.global_step] = metrics
        return metrics

    def _model_to_evaluate(self):
        """The model in the precision of the run, prepared here where no training has prepared it, as Trainer does."""
        model = self._wrap_model(self.model, training=False)
        if not self.accelerator._models and model is self.model:
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                self.model = self.model_wrapped = model = self.accelerator.prepare(model)
            else:
                model = self.accelerator.prepare_model(model, evaluation_mode=True)
        if self.train_dataset is None and (self.args.fp16_full_eval or self.args.bf16_full_eval):
            # Never a model that learns: it would be saved so. Autocast to one type takes no weights of the other.
            is_float16 = self.args.fp16 or (self.args.fp16_full_eval and not self.args.bf16)
            model = model.to(device=self.args.device, dtype=float16 if is_float16 else bfloat16)
        if callable(getattr(self.optimizer, "eval", None)):  # one whose weights in training are others
            self.optimizer.eval()
        return model

    def take_up_evaluation(self, metrics):
        """Judge the metrics that a run before this one owed, at its end."""
        self._determine_best_metric(metrics, None)

    def _determine_best_metric(self, metrics, trial):
        """Have a new best saved whatever the interval, if it is to be loaded at the end.

        Returns whether --save_strategy=best is to save: the last state too, as a run that has ended has it.
        """
        is_best = super()._determine_best_metric(metrics, trial)
        if is_best and self.args.load_best_model_at_end and not self.control.should_save:
            self.control.should_save = True
            by_interval = self.args.save_strategy == SaveStrategy.BEST or self.state.global_step == self.saved_step
            self._saves_only_best = not by_interval
        return is_best or self.control.should_training_stop

    def load_best(self, left=None):
        """Load the best checkpoint, where --load_best_model_at_end asks for it; say so where it is not there.

        left: the step of the model in output_dir itself, which is the best one where its checkpoint is gone.
        """
        self._find_best_checkpoint()
        if not self.args.load_best_model_at_end or self.holds_best:
            return
        step, output_dir = self.state.best_global_step, Path(self.args.output_dir)
        kept = output_dir / ADAPTER if lora.is_adapted(self.model) else output_dir
        if not self.state.best_model_checkpoint and step is not None and step == left and kept.is_dir():
            self.state.best_model_checkpoint = str(kept)
        if self.state.best_model_checkpoint:
            self._load_best_model()
        elif step is not None:  # of a run that was gone on from in another folder
            warn(f"평가가 가장 좋았던 {step:,}스텝의 체크포인트가 {output_dir}에 없어 마지막 모델을 남깁니다.")

    def _load_best_model(self):
        super()._load_best_model()
        self.holds_best = True

    def _issue_warnings_after_load(self, load_result):
        tied = getattr(self.model, "_tied_weights_keys", None) or ()  # saved once, under the other's name
        load_result.missing_keys[:] = [name for name in load_result.missing_keys if name not in tied]
        super()._issue_warnings_after_load(load_result)

    def _find_best_checkpoint(self):
        metric, step = self.args.metric_for_best_model, self.state.best_global_step
        told = [entry for entry in self.state.log_history if metric in entry and entry["step"]]  # 0: --eval_on_start's
        if step is None and self.args.load_best_model_at_end:  # asked for later
            step = min(told, key=itemgetter(metric), default={}).get("step")
        for best in [entry for entry in told if entry["step"] == step][:1]:  # its metric may be another from here on
            self.state.best_global_step, self.state.best_metric = step, best[metric]
        folder = Path(self.args.output_dir) / f"checkpoint-{step}"
        is_own = folder.is_dir() and not self.replaces_earlier_run
        there = step is not None and (step == self.state.global_step or is_own)
        self.state.best_model_checkpoint = str(folder) if there else None

    def model_step(self):
        """After how many steps the model was as it is now."""
        return self.state.best_global_step if self.holds_best else self.state.global_step

    # How it goes on

    def _init_training_state(self, max_steps, *rest):
        """Trainer's own, which would save, evaluate and log as often as the checkpoint's run did, not as asked now."""
        with without_warnings():  # of that, and of a best checkpoint that go_on finds where it is now
            begun = super()._init_training_state(max_steps, *rest)
        self.state.compute_steps(self.args, max_steps)
        # Early stopping may have been turned on or off since; the state has to fit the callbacks of now.
        callbacks = [*self.callback_handler.callbacks, self.control]
        now = {type(each).__name__: each.state() for each in callbacks if isinstance(each, ExportableState)}
        before = self.state.stateful_callbacks
        self.state.stateful_callbacks = {name: before.get(name, state) for name, state in now.items()}
        return begun

    def _load_optimizer_and_scheduler(self, checkpoint):
        with failures.opening(checkpoint, "optimizer.pt, scheduler.pt"):
            super()._load_optimizer_and_scheduler(checkpoint)
            for weight, kept in getattr(self.optimizer, "state", {}).items():
                averages = kept.get("exp_avg", kept.get("momentum_buffer"))
                if getattr(averages, "shape", weight.shape) != weight.shape:
                    raise ValueError("of other weights")  # PyTorch's fused step would read beyond its end
        scheduler = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)
        if isinstance(scheduler, LambdaLR):
            # The next rate by the schedule of now: at the end of a run that was to be shorter it was 0.
            scheduler.last_epoch -= 1
            scheduler.step()

    def _load_rng_state(self, checkpoint):
        with failures.opening(checkpoint, "rng_state.pth"):
            super()._load_rng_state(checkpoint)

    def _load_scaler(self, checkpoint):
        if self.accelerator.scaler is not None:  # else the run that was saved had --fp16, and this one has not
            with failures.opening(checkpoint, "scaler.pt"):
                super()._load_scaler(checkpoint)

    def load_average(self, checkpoint):
        """Take up the mean of the weights that stands in a checkpoint, where --average_last asks for one."""
        if self.average is not None:
            with failures.opening(checkpoint, AVERAGE):
                self.average.load(checkpoint)

    def go_on(self, checkpoint):
        """Take up what Trainer's own state lacks: the losses since the last log line, an evaluation cut short."""
        self.saved_step = None if self.replaces_earlier_run else self.state.global_step
        self.load_average(checkpoint)
        saved = read_resume(checkpoint)
        self._tr_loss += saved.get("unlogged_loss", 0.0)
        self._total_loss_scalar -= self._tr_loss.item()  # Trainer's mean at the end is over this run's own steps
        self._globalstep_last_logged = saved.get("logged_step", self.state.global_step)
        self._find_best_checkpoint()
        if saved.get("evaluation_due") and self.eval_dataset is not None:
            self._load_rng_state(str(checkpoint))  # a new best is saved over the checkpoint before Trainer has read it
            self.control.should_evaluate = True
            self._maybe_log_save_evaluate(
                self._tr_loss, None, self.model_wrapped, None, self.state.epoch, None, time.time()
            )
            if self.control.should_training_stop:
                raise NothingToTrain  # Trainer would take one step more

    def _evaluate(self, trial, ignore_keys_for_eval, skip_scheduler=False):
        if not skip_scheduler:
            return super()._evaluate(trial, ignore_keys_for_eval)
        # What --eval_on_start asks for: a run that goes on has had it.
        if self.state.global_step == 0:
            try:
                super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler)
            except EvaluationStopped:
                raise leave_evaluation(self) from None

    def _maybe_log_save_evaluate(self, tr_loss, grad_norm, model, trial, *args, **kwargs):
        try:
            super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)
        except EvaluationStopped:
            self.evaluation_due, self.args.save_only_model = True, False
            self.control.should_training_stop, self.control.should_evaluate = True, False
            self._save_checkpoint(model, trial)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)

    # How it saves

    def save_model(self, output_dir=None, _internal_call=False):
        """Save model and tokenizer: each checkpoint's, an adapter's, the last."""
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            tell_others(output_dir or self.args.output_dir, self.uses_cache)

    def _get_output_dir(self, trial):
        """Where Trainer saves its next checkpoint: beside, until it is whole."""
        return str(self._staging or super()._get_output_dir(trial))

    def _save_checkpoint(self, model, trial):
        if not (self._tr_loss.isfinite() and all(weight.isfinite().all() for weight in model.parameters())):
            raise failures.diverged(self.state.global_step)
        output_dir, name = Path(self.args.output_dir), f"checkpoint-{self.state.global_step}"
        unlogged_loss = self.accelerator.gather(self._tr_loss).mean().item()
        with failures.saving(output_dir, name), self.meter.paused():
            self._staging = self._make_staging_area()
            try:
                super()._save_checkpoint(model, trial)
            finally:
                checkpoint, self._staging = self._staging / name, None
            self._find_best_checkpoint()  # Trainer looked for it beside this one, which is not in its place yet
            if self.args.should_save:
                self.state.save_to_json(str(checkpoint / STATE))
                self._save_resume(checkpoint, unlogged_loss)
                if self.average is not None:
                    self.average.save(checkpoint)
                if self.replaces_earlier_run:
                    (checkpoint / REPLACES).touch()
            self._wait_for_all_ranks()  # each writes the state of its random numbers, some a part of the model
            atomic_files.sync(checkpoint)
            self._wait_for_all_ranks()  # each machine has its own files on the disk
            if self.args.should_save:
                saved_before = self.state.global_step == self.saved_step
                publish_checkpoint(checkpoint, output_dir / name, saved_before)
            self._wait_for_all_ranks()
        self.replaces_earlier_run = self._saves_only_best = False
        self.saved_step = self.state.global_step
        if self.args.push_to_hub and not lora.is_adapted(self.model):  # it would stay there beside the merged model
            super()._push_from_checkpoint(str(output_dir / name))

    def _push_from_checkpoint(self, checkpoint_folder):
        """Called by Trainer before the checkpoint is in its place: _save_checkpoint pushes it then."""

    def _make_staging_area(self):
        # Only the first rank may make it, and only in an output_dir that is still there.
        output_dir = Path(self.args.output_dir)
        if self.args.should_save:
            atomic_files.clear_staging_area(output_dir)
            atomic_files.staging_area(output_dir)
        self._wait_for_all_ranks()
        return atomic_files.staging_area(output_dir)

    def _save_resume(self, checkpoint, unlogged_loss):
        resume = {
            **self.record.provenance,
            "unlogged_loss": unlogged_loss,
            "logged_step": self._globalstep_last_logged,
            "evaluation_due": self.evaluation_due or self._is_before_its_epochs_evaluation(),
            "only_best": self._saves_only_best,  # no interval asked for it: see drop_old_checkpoints
        }
        (checkpoint / RESUME).write_text(json.dumps(resume, ensure_ascii=False, indent=1), "utf-8")

    def _is_before_its_epochs_evaluation(self):
        """Whether --eval_strategy=epoch evaluates at this step yet: Trainer does so behind what it saves at a step."""
        ends = self.state.epoch % 1 == 0 or self.state.global_step >= self.state.max_steps
        by_epoch = self.args.eval_strategy == IntervalStrategy.EPOCH and self.args.eval_delay <= self.state.epoch
        return by_epoch and ends and self.state.global_step not in self.evaluated

    def _wait_for_all_ranks(self):
        if self.args.world_size > 1:
            distributed.barrier()

    def save_whole_model(self):
        """Save the model and the state it is of into output_dir itself: no half model ever stands there."""
        output_dir = Path(self.args.output_dir)
        with failures.saving(output_dir):
            folder = self._make_staging_area() / "model"
            if lora.is_adapted(self.model):
                self.save_model(str(folder / ADAPTER), _internal_call=True)
                self.merge_adapter()
            self.save_model(str(folder), _internal_call=True)
            if self.is_world_process_zero():
                self.state.save_to_json(str(folder / STATE))
                atomic_files.sync(folder)
                publish_model(folder, output_dir)
                self.create_model_card()
                atomic_files.tidy_staging_area(output_dir)
        if self.args.push_to_hub:
            self.push_to_hub()

    def merge_adapter(self):
        """Make of an adapted model the one that is left of the run, as which it is measured at the end."""
        if lora.is_adapted(self.model):
            self.model = lora.merge(self.model)
            if self.accelerator._models:  # as the one before it was: it is evaluated in the precision of the run
                self.model = self.accelerator.prepare_model(self.model, evaluation_mode=True)
            self.evaluated.clear()  # merged weights round a little otherwise

    # How it reaches the Hub

    def init_hf_repo(self, token=None, private=None):
        with failures.reaching_hub("토큰과 이름(--hub_model_id)과 네트워크를 확인하거나 --push_to_hub를 빼세요."):
            super().init_hf_repo(token, private)

    def push_to_hub(self, *args, **kwargs):
        model = f"모델은 {self.args.output_dir}에 있습니다"
        with failures.reaching_hub(f"{model}. --resume_from_checkpoint=auto를 넣어 다시 실행하면 올립니다."):
            super().push_to_hub(*args, **kwargs)
        say(f"Hub에 올렸습니다: {self.hub_model_id}")
