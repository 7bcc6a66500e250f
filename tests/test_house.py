"""The house as it is meant: who may import whom, no circle, one file for Trainer's private parts."""

import ast
import importlib.util
import inspect
import symtable
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from types import FunctionType

import pytest
from conftest import ROOT

PACKAGE = "gpt2_korean"
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted([*(ROOT / PACKAGE).rglob("*.py"), ROOT / "train.py", ROOT / "generate.py"])
}
# Each folder, and each file beside them, with those that it may import besides itself; windows.py may everybody.
MAY_IMPORT = {
    "messages": "",
    "cgroups": "",
    "ending": "cgroups messages",
    "windows": "",
    "device": "cgroups messages",
    "text": "messages",
    "cli": "text messages",
    "checkpoints": "text messages",
    "model": "text checkpoints device messages",
    "speed": "model device messages",
    "generation": "speed model text device messages",
    "training": "generation speed model checkpoints text device messages",
    "export": "model checkpoints text device messages",
    "server": "generation cli speed model checkpoints text device ending messages",
}
HEAVY = ("torch", "transformers", "datasets")


def imports(path):
    """The names of all modules that a file imports, at its top or in a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # `from package import module` names a module, `from module import function` does not.
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def ours(path):
    found = {name for name in imports(path) if name in FILES}
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)} - {PACKAGE}


def room(module):
    """The folder of a module of ours, or its own name where it has none."""
    return module.split(".")[1]


@cache
def names_in(path):
    """The names that a file binds at its top level."""
    return set(symtable.symtable(path.read_text("utf-8"), str(path), "exec").get_identifiers())


MODULES = [name for name in FILES if name.startswith(f"{PACKAGE}.")]


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_only_those_below_it(folder):
    allowed = {folder, "windows", *MAY_IMPORT[folder].split()}
    own = [name for name in MODULES if room(name) == folder]
    seen = {name: {other for other in ours(FILES[name]) if room(other) not in allowed} for name in own}
    assert {name: others for name, others in seen.items() if others} == {}


def test_every_module_has_its_rule():
    assert {room(name) for name in MODULES} == MAY_IMPORT.keys()


def test_the_command_line_is_read_without_torch():
    heavy = {name: {module.split(".")[0] for module in imports(FILES[name])} & {*HEAVY} for name in MODULES}
    assert {name: found for name, found in heavy.items() if found and room(name) in ("cli", "ending", "messages")} == {}


def test_no_modules_import_each_other_in_a_circle():
    try:
        TopologicalSorter({name: ours(path) for name, path in FILES.items()}).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_only_one_file_names_the_private_parts_of_trainer():
    from transformers import Trainer

    own = f"{PACKAGE}.training.trainer"
    attributes = {
        node.attr for node in ast.walk(ast.parse(FILES[own].read_text("utf-8"))) if isinstance(node, ast.Attribute)
    }
    private = {name for name in dir(Trainer) if name.startswith("_") and not name.startswith("__")}
    # Those that an instance alone has, as far as ours knows of them.
    private |= {"_train_batch_size", "_tr_loss", "_total_loss_scalar", "_globalstep_last_logged"}
    assert private & attributes
    for name, path in FILES.items():
        if name != own:
            nodes = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Attribute)]
            assert {node.attr for node in nodes} & private == set(), name


@pytest.mark.parametrize("folder", ["gpt2_korean", "benchmarks", "tests", "."])
def test_what_is_imported_from_a_file_of_ours_stands_in_it(folder):
    files = (ROOT / folder).glob("*.py" if folder == "." else "**/*.py")
    taken = [
        (str(path.relative_to(ROOT)), node.module, alias.name)
        for path in files
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module in FILES
        for alias in node.names
    ]
    assert taken
    lacking = [
        each for each in taken if each[2] not in names_in(FILES[each[1]]) and f"{each[1]}.{each[2]}" not in FILES
    ]
    assert lacking == []


@pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks are for Linux")
@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.name)
def test_a_benchmark_calls_functions_as_they_are_defined(path, monkeypatch):
    """It may take hours, so none of the tests runs it."""
    monkeypatch.syspath_prepend(path.parent)
    spec = importlib.util.spec_from_file_location(f"benchmark_{path.stem}", path)
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    for call in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(call, ast.Call) and not any(isinstance(each, ast.Starred) for each in call.args):
            owner, _, name = ast.unparse(call.func).rpartition(".")
            function = getattr(vars(module).get(owner) if owner else module, name, None)
            if isinstance(function, FunctionType) and all(each.arg for each in call.keywords):
                inspect.signature(function).bind(*call.args, **{each.arg: each.value for each in call.keywords})
