"""LoRA (Hu et al. 2021): small matrices trained beside a model's frozen ones, merged into them at the end.

An adapter is saved in peft's layout and refers to the model that it was trained on, its base, by name. The
rows of a new vocabulary are new as a whole: with one, the embeddings are trained too, and saved with the adapter.
"""

import warnings
from pathlib import Path

from gpt2_korean.checkpoints.complete import read_json
from gpt2_korean.messages import UsageError, particle

CONFIG = "adapter_config.json"


def read_adapter(folder):
    """The settings of the adapter in `folder`, a dict in peft's words; None where there is none."""
    return read_json(Path(folder) / CONFIG)


def find_base(folder, name):
    """The base `name` of the adapter in `folder`: a path that leads nowhere from here, from where it was trained.

    That is the nearest of the folders above it from which the path leads to a model.
    """
    if Path(name).is_dir():
        return name
    above = (parent / name for parent in Path(folder).resolve().parents)
    return next((str(path) for path in above if (path / "config.json").is_file()), name)


def check_adapter(checkpoint, source, rank, alpha):
    """Raise UsageError where training cannot so go on from `checkpoint` or, where that is None, begin from `source`.

    `rank` is 0 for the training of a whole model, `alpha` is None where the command line leaves it open.
    """
    if checkpoint is None:
        if rank and read_adapter(source) is not None:
            raise UsageError(
                f"--model_type={source}: 어댑터 위에 새 어댑터를 둘 수 없습니다. 학습을 마친 --output_dir(합친 모델)을 "
                "주거나, 그 학습을 --resume_from_checkpoint로 이어 가세요."
            )
        return
    saved = read_adapter(checkpoint) or {"r": 0, "lora_alpha": None}
    for flag, before, now in (("--lora_rank", saved.get("r"), rank), ("--lora_alpha", saved.get("lora_alpha"), alpha)):
        if now is not None and now != before:
            value = particle(f"{flag}={before}", "으로/로")
            raise UsageError(
                f"{flag}={now}: 이어 갈 체크포인트({checkpoint})는 {value} 학습했습니다. 그 값을 주거나 "
                "--resume_from_checkpoint를 빼고 새로 시작하세요."
            )


def adapt(model, rank, alpha=None, train_embeddings=False):
    """`model` with an adapter on all its linear layers, which alone is trained, with the embeddings if asked for.

    alpha: the adapter counts alpha / rank times; twice the rank where it is None. The model is changed in place.
    Raises UsageError for one that takes none.
    """
    from peft import LoraConfig
    from transformers.pytorch_utils import Conv1D

    transposed = any(isinstance(module, Conv1D) for module in model.modules())  # as GPT-2's layers are
    config = LoraConfig(
        task_type="CAUSAL_LM", r=rank, lora_alpha=alpha or 2 * rank, target_modules="all-linear",
        fan_in_fan_out=transposed,
    )  # fmt: skip
    try:
        return wrap_in_adapter(model, config, train_embeddings)
    except ValueError as error:  # peft knows of no linear layers in it, or of some that compute past an adapter (Mamba)
        kind = model.config.model_type
        raise UsageError(
            f"--lora_rank={rank}: 이 모델({kind})에는 어댑터를 둘 수 없습니다. 이 플래그를 빼고 모델 전체를 학습하세요."
        ) from error


def is_adapted(model):
    from peft import PeftModel

    return isinstance(model, PeftModel)


def saved_embeddings(model, weights):
    """The embeddings of the base `model` as they are among an adapter's `weights` (name → tensor), a list."""
    layers = [layer for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None]
    names = [name for name, module in model.named_modules() if any(module is layer for layer in layers)]
    saved = (f"base_model.model.{name}{inner}.weight" for name in names for inner in ("", ".base_layer"))
    return [weights[name] for name in saved if name in weights]


def splits_tied_embeddings(model):
    """Whether an adapter stands on the input or the output embeddings of a `model` in which they are the same.

    Merged into them it would change both, also where the other ones have an adapter of their own.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    tied = model.config.tie_word_embeddings and outputs is not None
    return tied and any(isinstance(layer, BaseTunerLayer) for layer in (inputs, outputs))


def merge(model):
    """The base of an adapted model, the adapter added into its weights: a model like any other."""
    return model.merge_and_unload().requires_grad_(True)  # peft leaves them as frozen as the adapter wanted them


def merged_weights(model):
    """What merge() would give, name → weight, of a model as it stands: the base of an adapted one, or any other.

    Nothing of the model changes, and what has no adapter is the model's own memory.
    """
    named = model.state_dict().items()
    weights = {name.replace(".base_layer.", "."): weight for name, weight in named if ".lora_" not in name}
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight"):
            delta = module.get_delta_weight("default").detach()
            weights[f"{name}.weight"] = module.get_base_layer().weight.detach() + delta
    return weights


def describe_adapter(model):
    trained, whole = model.get_nb_trainable_parameters()
    return f"LoRA: 매개변수 {whole:,}개 가운데 {trained:,}개({trained / whole:.1%})를 학습합니다."


def wrap_in_adapter(model, config, train_embeddings):
    """`model` with the adapter of a peft `config` on it, changed in place; see adapt."""
    from peft import PeftModelForCausalLM

    class AdaptedModel(PeftModelForCausalLM):
        """A PeftModel that saves its embeddings just where they are trained, once where they are tied."""

        def save_pretrained(self, folder, state_dict=None, **keywords):
            inputs, outputs = self.get_input_embeddings(), self.get_output_embeddings()
            state_dict = dict(state_dict or self.state_dict())
            if outputs is not None and outputs.weight is inputs.weight:
                name = next(name for name, module in self.named_modules() if module is outputs)
                state_dict.pop(f"{name}.weight")
            # Left to itself, peft would ask the Hub how large the base's vocabulary is, at every save.
            keywords["save_embedding_layers"] = inputs.weight.requires_grad
            super().save_pretrained(folder, state_dict=state_dict, **keywords)

        def create_or_update_model_card(self, output_dir):
            """None: peft's is an empty form."""

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an older name
        adapted = AdaptedModel(model, config)
    if train_embeddings:
        for embedding in (adapted.get_input_embeddings(), adapted.get_output_embeddings()):
            embedding.weight.requires_grad_(True)
    return adapted
