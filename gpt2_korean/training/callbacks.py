"""What happens at Trainer's events: going on, stopping, keeping checkpoints and the record, what a person sees."""

import sys
import time
from pathlib import Path
from shutil import get_terminal_size

from tqdm import tqdm
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import ProgressCallback

from gpt2_korean.checkpoints.atomic_files import write_file
from gpt2_korean.checkpoints.complete import CURVE
from gpt2_korean.checkpoints.rotation import drop_old_checkpoints
from gpt2_korean.messages import is_in_use, say, warn_of_failure
from gpt2_korean.training.curve import curve_of, draw, is_worth_drawing
from gpt2_korean.training.record import write_record
from gpt2_korean.training.report import shorten
from gpt2_korean.training.samples import as_markdown, write_samples

WIDE = 100  # columns that hold the progress bar with all its words


class GoOnAndStop(TrainerCallback):
    """Take up `checkpoint` (None: a first start) where it ends, and end at a step's end, with a checkpoint,
    once the trainer's StopRequest says so on any rank.

    `stopped` tells afterwards whether something was left to do.
    """

    def __init__(self, trainer, checkpoint):
        self.trainer, self.stop, self.checkpoint, self.stopped = trainer, trainer.stop, checkpoint, False

    def on_train_begin(self, args, state, control, **kwargs):
        if self.checkpoint is not None:
            self.trainer.go_on(self.checkpoint)

    def on_step_end(self, args, state, control, **kwargs):
        if self.stop.agreed(args.device) and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = True
            args.save_only_model = False  # the run that goes on needs more
            # An evaluation may take longer than there is time: the run that goes on makes up for it.
            self.trainer.evaluation_due, control.should_evaluate = control.should_evaluate, False

    def on_save(self, args, state, control, **kwargs):
        # No run can go on from a model alone, saved before the stop was asked for: the next step saves a checkpoint.
        if self.stop.agreed(args.device) and not args.save_only_model:
            control.should_training_stop = True

    def on_epoch_end(self, args, state, control, **kwargs):
        early = control.should_training_stop and state.global_step < state.max_steps and state.epoch % 1
        if self.stop.reason and early:  # Trainer takes an epoch that is left early for its end
            control.should_log = control.should_evaluate = control.should_save = False

    def on_train_end(self, args, state, control, **kwargs):
        unfinished = state.global_step < state.max_steps or self.trainer.evaluation_due
        self.stopped = self.stop.reason is not None and unfinished


class KeepCheckpoints(TrainerCallback):
    """Save and log at the last step whatever the interval, and keep the newest `limit` checkpoints (None: all).

    Trainer's own rotation deletes whole folders, by age, of any name that begins with checkpoint-.
    """

    def __init__(self, limit):
        self.limit = limit

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps:
            control.should_save = control.should_log = True

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            drop_old_checkpoints(args.output_dir, self.limit, keep=state.best_model_checkpoint)


class StopEarly(EarlyStoppingCallback):
    """transformers' early stopping, which also saves where it stops and counts on in a run that goes on."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.early_stopping_patience_counter = count_stalls(vars(state))

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        ending = control.should_training_stop
        super().on_evaluate(args, state, control, metrics, **kwargs)
        if control.should_training_stop and not ending:
            control.should_save = control.should_log = True
            stalls = self.early_stopping_patience_counter
            say(f"평가가 {stalls}번 연속으로 나아지지 않아 {state.global_step:,}스텝에서 일찍 마칩니다.")


def count_stalls(state):
    """How many evaluations in a row had brought nothing new when a Trainer's state (a dict) was saved."""
    saved = (state.get("stateful_callbacks") or {}).get(StopEarly.__name__, {})
    return saved.get("attributes", {}).get("early_stopping_patience_counter", 0)


class KeepRecord(TrainerCallback):
    """Keep run.json up to date, so that a run that is killed has one too."""

    def __init__(self, trainer):
        self.trainer = trainer

    def on_step_end(self, args, state, control, **kwargs):
        self.trainer.note_progress()

    def on_save(self, args, state, control, **kwargs):
        self.trainer.note_progress()
        write_record(args.output_dir, self.trainer.record)

    on_train_begin = on_save


LOG_WORDS = {
    "loss": "손실",
    "grad_norm": "기울기 크기",
    "learning_rate": "학습률",
    "epoch": "에폭",
    "tokens_per_second": "초당 토큰",
    "train_tokens_per_second": "전체 초당 토큰",
    "train_mfu": "MFU",
    "eval_loss": "평가 손실",
    "eval_perplexity": "혼란도",
    "eval_bits_per_character": "글자당 비트",
}


def _brief(name, number):
    if name == "train_mfu":
        return f"{number:.1%}"
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


class LogLines(TrainerCallback):
    """A line on stderr for each log entry: Trainer's own go to stdout, which is for results."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        known = [f"{word} {_brief(name, float(logs[name]))}" for name, word in LOG_WORDS.items() if name in logs]
        # An evaluation alone, of no steps, has a table of its own.
        if len(known) > 1 and state.is_world_process_zero and state.max_steps:
            tqdm.write(f"[{state.global_step}/{state.max_steps}] " + " · ".join(known), file=sys.stderr)


class ProgressBar(ProgressCallback):
    """Trainer's progress bar with speed and loss in place of its log lines.

    To read the loss is to wait for the device, so that is done once a second at most.
    """

    def __init__(self, trainer):
        super().__init__()
        self.trainer, self.shown = trainer, 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        if state.is_world_process_zero:
            # Without the steps a second, which would leave half of the last number in a terminal's columns.
            self.training_bar.bar_format = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"

    def on_step_end(self, args, state, control, **kwargs):
        super().on_step_end(args, state, control, **kwargs)
        if state.is_world_process_zero and time.monotonic() - self.shown > 1:
            words = self.trainer.describe_progress()
            shown = words if get_terminal_size().columns >= WIDE else words[:2]  # a bar is cut in the midst of a number
            self.training_bar.set_postfix_str(" · ".join(shown))
            self.shown = time.monotonic()

    def on_log(self, *args, **kwargs):
        pass


class WriteSamples(TrainerCallback):
    """Have the model continue or answer `prompts` at each evaluation: each in a panel of TensorBoard and on stderr."""

    def __init__(self, trainer, prompts):
        self.trainer, self.prompts = trainer, prompts

    def on_evaluate(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        texts = write_samples(self.trainer, self.prompts)
        if texts is None:
            return
        talks = self.trainer.processing_class.chat_template is not None
        panels = {}
        for number, (prompt, text) in enumerate(zip(self.prompts, texts, strict=True), 1):
            panels[f"eval_sample_{number}"] = as_markdown(prompt, f"\n{text}" if talks else text)
            tqdm.write(f"  {shorten(f'{shorten(prompt, 48)} | {text}', 100)}", file=sys.stderr)
        # Not Trainer.log, which would keep them in every checkpoint and tell every tracker: MLflow and others warn of
        # each text at its full length.
        for callback in self.trainer.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback):
                callback.on_log(args, state, control, logs=panels)


class DrawCurve(TrainerCallback):
    """Draw the curve anew at every save and evaluation; what goes wrong there is told once and harms nothing.

    corpus: of curve.py.
    """

    def __init__(self, trainer, corpus):
        self.trainer, self.corpus, self.drawn = trainer, corpus, None

    def on_save(self, args, state, control, **kwargs):
        # Until this run has saved something, the picture is that of the run before it.
        if self.corpus is None or not state.is_world_process_zero or self.trainer.replaces_earlier_run:
            return
        try:
            curve = curve_of(state.log_history, self.corpus)
            if is_worth_drawing(curve) and curve != self.drawn:
                with self.trainer.meter.paused():
                    write_file(Path(args.output_dir) / CURVE, draw(curve))
                self.drawn = curve
        except Exception as error:
            if not is_in_use(error):  # a picture that somebody looks at is drawn again later
                self.corpus = None
            warn_of_failure(error, f"{CURVE}를 그릴 수 없습니다 ({type(error).__name__}: {error}).")

    on_evaluate = on_save
