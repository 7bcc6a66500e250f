"""What the package leans on in other packages though it is private there: raising a pin begins with reading this list.

A second of test for each name: it is still there, and takes what we give it.
"""

import ast
import inspect
from importlib import import_module

import pytest
import torch
from conftest import ROOT

# File of the package → name → what it takes: the parameters of a function, the schema of an operator of torch, or
# ATTRIBUTE for what an instance sets of itself.
ATTRIBUTE = "attribute"
PRIVATE = {
    "cli/parser.py": {
        "argparse.ArgumentParser._actions": ATTRIBUTE,
        "argparse.ArgumentParser._optionals": ATTRIBUTE,
        "argparse.ArgumentParser._get_value": "self action arg_string",
        "argparse.ArgumentParser._get_values": "self action arg_strings",
        "argparse.HelpFormatter._format_action": "self action",
        "argparse.HelpFormatter._format_action_invocation": "self action",
    },
    "text/cache.py": {
        "datasets.Dataset._fingerprint": ATTRIBUTE,
        "datasets.ArrowBasedBuilder._generate_tables": "self kwargs",
        "datasets.ArrowBasedBuilder._info": "self",
        "datasets.ArrowBasedBuilder._split_generators": "self dl_manager",
    },
    "text/corpus.py": {"datasets.Dataset._indices": ATTRIBUTE},
    "text/tokens.py": {"datasets.Dataset._fingerprint": ATTRIBUTE},
    "model/gpt2.py": {"transformers.PretrainedConfig._attn_implementation": ATTRIBUTE},
    "model/tokenizer.py": {
        "transformers.utils.hub.cached_files._raise_exceptions_for_missing_entries": "keyword",
    },
    "speed/forward.py": {
        "transformers.modeling_layers.GradientCheckpointingLayer._gradient_checkpointing_func": ATTRIBUTE,
    },
    "speed/graphs.py": {
        "torch._foreach_add_": "(Tensor(a!)[] self, Tensor[] other, *, Scalar alpha=1) -> ()",
        "torch._foreach_copy_": "(Tensor(a!)[] self, Tensor[] src, bool non_blocking=False) -> ()",
    },
    "speed/linear.py": {
        "torch.ops.mkldnn._is_mkldnn_bf16_supported": "() -> bool _0",
        "torch.ops.mkldnn._reorder_linear_weight": "(Tensor self, int? batch_size=None) -> Tensor Y",
        "torch.ops.mkldnn._linear_pointwise": "(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, "
        "str? algorithm) -> Tensor Y",
    },
    "speed/openvino_graph.py": {"openvino.op._PagedAttentionExtension": "class"},
    "speed/writing_kernels.py": {
        "torch._addmm_activation": "(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1, "
        "bool use_gelu=False) -> Tensor",
        "triton.runtime.cache.triton_key": "",
        "triton.backends.driver.GPUDriver.get_current_device": ATTRIBUTE,
    },
    "training/arguments.py": {
        "transformers.TrainingArguments._n_gpu": ATTRIBUTE,
        "transformers.integrations.TensorBoardCallback.TENSORBOARD_LOGGING_DIR": "environment",
        "accelerate.state.PartialState.ACCELERATE_TORCH_DEVICE": "environment",
    },
    "training/run.py": {
        "transformers.PreTrainedModel.warn_if_padding_and_no_attention_mask": "self input_ids attention_mask",
        "transformers.PreTrainedModel.loss_type": ATTRIBUTE,
    },
    "training/stopping.py": {"multiprocessing.queues.Queue._on_queue_feeder_error": "e obj"},
    "training/trainer.py": {
        "accelerate.Accelerator._models": ATTRIBUTE,
        "transformers.PreTrainedModel._tied_weights_keys": ATTRIBUTE,
        "transformers.Trainer._clip_grad_norm": "self model",
        "transformers.Trainer._determine_best_metric": "self metrics trial",
        "transformers.Trainer._evaluate": "self trial ignore_keys_for_eval skip_scheduler",
        "transformers.Trainer._get_dataloader": "self dataset description batch_size sampler_fn is_training "
        "dataloader_key",
        "transformers.Trainer._get_output_dir": "self trial",
        "transformers.Trainer._get_train_sampler": "self train_dataset",
        "transformers.Trainer._globalstep_last_logged": ATTRIBUTE,
        "transformers.Trainer._init_training_state": "self max_steps num_update_steps_per_epoch num_train_epochs "
        "resume_from_checkpoint trial",
        "transformers.Trainer._issue_warnings_after_load": "self load_result",
        "transformers.Trainer._load_best_model": "self",
        "transformers.Trainer._load_optimizer_and_scheduler": "self checkpoint",
        "transformers.Trainer._load_rng_state": "self checkpoint",
        "transformers.Trainer._load_scaler": "self checkpoint",
        "transformers.Trainer._maybe_log_save_evaluate": "self tr_loss grad_norm model trial epoch "
        "ignore_keys_for_eval start_time learning_rate",
        "transformers.Trainer._prepare_inputs": "self inputs",
        "transformers.Trainer._push_from_checkpoint": "self checkpoint_folder",
        "transformers.Trainer._run_epoch": "self model epoch train_dataloader steps_in_epoch "
        "num_update_steps_per_epoch trial ignore_keys_for_eval start_time resume_from_checkpoint epochs_trained "
        "steps_trained_in_current_epoch",
        "transformers.Trainer._save_checkpoint": "self model trial",
        "transformers.Trainer._total_loss_scalar": ATTRIBUTE,
        "transformers.Trainer._tr_loss": ATTRIBUTE,
        "transformers.Trainer._train_batch_size": ATTRIBUTE,
        "transformers.Trainer._update_auto_batch_size": "self batch_size",
        "transformers.Trainer._wrap_model": "self model training dataloader",
        "transformers.Trainer.save_model._internal_call": "keyword",
    },
}
NAMES = sorted({(name, takes) for names in PRIVATE.values() for name, takes in names.items()})


def find(dotted):
    """The module, class or function of a dotted name."""
    module, *rest = dotted.split(".")
    found = import_module(module)
    for depth, part in enumerate(rest, 1):
        if not hasattr(found, part):
            import_module(".".join([module, *rest[:depth]]))
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(("name", "takes"), NAMES)
def test_it_is_there_and_takes_what_we_give(name, takes):
    if (package := name.split(".")[0]) in ("triton", "openvino"):
        pytest.importorskip(package)
    owner, _, last = name.rpartition(".")
    if name.startswith("torch."):
        operators = torch.ops.aten if owner == "torch" else find(owner)
        if owner.endswith("mkldnn") and not torch.backends.mkldnn.is_available():
            pytest.skip("this torch is built without oneDNN")
        operator = getattr(operators, last)
        schema = str((operator.default if "default" in operator.overloads() else operator.List)._schema)
        assert schema.partition("(")[1] + schema.partition("(")[2] == takes
    elif takes in (ATTRIBUTE, "environment"):
        classes = inspect.getmro(find(owner))
        assert any(last in inspect.getsource(each) for each in classes if each.__module__ != "builtins")
    elif takes == "class":  # of C++, which tells nothing more
        assert inspect.isclass(find(name))
    elif takes == "keyword":
        assert last in inspect.signature(find(owner)).parameters
    else:
        assert list(inspect.signature(find(name)).parameters) == takes.split()


def private_names(tree):
    """The names with one underscore that a file uses of others, as attributes, keywords or in getattr."""
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    found, passed_on = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) != "os._exit":
            of_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            of_super = ast.unparse(node.value) == "super()"
            if of_self and isinstance(node.ctx, ast.Store):
                own.add(node.attr)  # what an instance of ours sets of itself
            (passed_on if of_super or not of_self else found).add(node.attr)
        elif isinstance(node, ast.keyword) and node.arg:
            passed_on.add(node.arg)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr":
            passed_on.add(ast.literal_eval(node.args[1]) if isinstance(node.args[1], ast.Constant) else "")
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("gpt2_korean"):
            passed_on |= {alias.name for alias in node.names} | set((node.module or "").split("."))
    names = (found - own) | passed_on
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def test_the_list_names_all_that_the_package_uses():
    missing = {}
    for path in sorted((ROOT / "gpt2_korean").rglob("*.py")):
        file = path.relative_to(ROOT / "gpt2_korean").as_posix()
        listed = {name.rpartition(".")[2] for name in PRIVATE.get(file, ())}
        missing[file] = private_names(ast.parse(path.read_text("utf-8"))) - listed
    assert {file: names for file, names in missing.items() if names} == {}


def test_the_list_names_nothing_that_the_package_no_longer_uses():
    for file, names in PRIVATE.items():
        text = (ROOT / "gpt2_korean" / file).read_text("utf-8")
        assert [name for name in names if name.rpartition(".")[2] not in text] == [], file
