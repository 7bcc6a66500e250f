"""What the documents say stays true: messages that exist, commands and flags that are accepted, links that lead
somewhere, tables made from the parsers, and twins in English that tell the same."""

import ast
import re
import runpy
import shlex
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from gpt2_korean.cli import generate_checks
from gpt2_korean.cli.generate_flags import generate_parser
from gpt2_korean.cli.generate_options import parse_generate_options
from gpt2_korean.cli.train_flags import train_parser
from gpt2_korean.cli.train_options import parse_train_options
from gpt2_korean.model.gpt2 import SCRATCH_SIZES

PAGES = sorted([*ROOT.glob("*.md"), *(page for name in ("docs", "data", "jobs") for page in ROOT.glob(f"{name}/*.md"))])
TWINS = [(page, page.with_name(page.name.replace(".en.md", ".md"))) for page in PAGES if page.name.endswith(".en.md")]
# Flags of other programs that the documents name.
OTHERS = [
    "contenders", "batches", "cold_only", "durations", "tb", "logdir", "flag",
    "nproc_per_node", "map_by", "signals_to_handle", "shutdown_timeout", "gpus_per_node", "nodes", "time", "signal",
    "extra_index_url", "index_url", "no_index", "find_links", "model", "model_args", "task", "tasks", "num_fewshot",
    "apply_chat_template", "wrap", "max_tokens", "ignore_chat_template", "hf_path", "mlx_path", "q_bits",
    "array", "batch",
    "rm", "init", "stop_timeout", "user", "userns", "build_arg", "gpus", "ipc", "cpus", "group_add", "yes", "include",
    "force_reinstall", "now",
]  # fmt: skip


def text_of(page):
    return page.read_text("utf-8")


def blocks(page, kind=""):
    """The code blocks of a page, of one kind such as bash or of all; those of a list are indented."""
    return re.findall(rf"^ *```{kind or '[^`]*?'}\n(.*?)^ *```$", text_of(page), re.DOTALL | re.MULTILINE)


SHELLS = {"bash": "\\", "powershell": "`"}  # and what each escapes a character or the end of a line with


def commands(page, shell="bash"):
    """The commands of a page's blocks for a shell, each as a list of words without comments."""
    escape = SHELLS[shell]
    lines = [line for block in blocks(page, shell) for line in block.replace(f"{escape}\n", " ").splitlines()]
    # What the reader is to fill in is <so>, and a loop of the shell is read as it goes for the first time.
    lines = [re.sub("<[^>]*>", "FILL", line).replace("$size", "1024") for line in lines]
    return [words for line in lines if (words := split_words(line, escape))]


def split_words(line, escape):
    reader = shlex.shlex(line, posix=True, punctuation_chars=False)
    reader.whitespace_split, reader.escape = True, escape
    return list(reader)


def test_every_message_of_the_troubleshooting_tables_is_in_the_program():
    source = "".join(text_of(path) for path in (ROOT / "gpt2_korean" / "server" / "page").glob("*.js"))
    for path in (*(ROOT / "gpt2_korean").rglob("*.py"), ROOT / "train.py", ROOT / "generate.py"):
        constants = (node.value for node in ast.walk(ast.parse(text_of(path))) if isinstance(node, ast.Constant))
        source += "\0".join(value for value in constants if isinstance(value, str)) + "\0"
    rows = re.findall(r"^\| (`.*?) \| ", text_of(ROOT / "docs" / "troubleshooting.md"), re.MULTILINE)
    messages = [message for row in rows for message in re.findall("`([^`]+)`", row)]
    assert len(messages) > 90
    assert [message for message in messages if message not in source] == []


def slug(title):
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", [*PAGES, ROOT / "benchmarks" / "RESULTS.md"], ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)]+)\)", text_of(page)):
        if re.match(r"https?:", target):
            continue
        name, _, heading = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if heading:
            assert heading in map(slug, re.findall(r"^#+ (.*)$", text_of(file), re.MULTILINE)), target


def train_words(words):
    """The flags for train.py of a command that starts it, itself or as a job; None of another."""
    if "train.py" in words:
        return words[words.index("train.py") + 1 :]
    if "jobs/slurm.sbatch" in words:
        return words[words.index("jobs/slurm.sbatch") + 1 :]
    variable = next((word for word in words if word.startswith("TRAIN_ARGS=")), None)
    return variable and shlex.split(variable.removeprefix("TRAIN_ARGS="))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_shown_is_accepted(page, tmp_path, monkeypatch):
    (tmp_path / "run.yaml").write_text("dataset_path: 글.txt\ndo_train: true\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(generate_checks, "find_spec", lambda name: name)  # whether OpenVINO is installed or not
    units = re.findall("^ExecStart=(.*)$", "".join(blocks(page, "ini")), re.MULTILINE)  # of systemd
    for words in [words for shell in SHELLS for words in commands(page, shell)] + [unit.split() for unit in units]:
        if flags := train_words(words):
            parse_train_options(flags)
        elif "generate.py" in words:
            parse_generate_options(words[words.index("generate.py") + 1 :])


def test_every_flag_that_is_named_is_one():
    flags = [*train_parser().flag_names(), *generate_parser().flag_names(), *OTHERS]
    known = {name.lstrip("-") for name in flags}
    for page in PAGES:
        code = " ".join([*re.findall("`[^`\n]+`", text_of(page)), *blocks(page)])
        named = {name.replace("-", "_") for name in re.findall(r"(?<![\w-])--([a-z][\w-]*)", code, re.ASCII)}
        assert named <= known, (page.name, named - known)


def test_the_tables_of_flags_are_what_the_parsers_say():
    made = runpy.run_path(str(ROOT / "docs" / "make_flags.py"))["page"]()
    assert text_of(ROOT / "docs" / "flags.md") == made, "python docs/make_flags.py"
    assert "``" not in made  # which is shown as it is


def test_the_dropout_that_is_told_of_scratch_mini_is_its_own():
    assert {SCRATCH_SIZES["scratch-mini"][f"{part}_pdrop"] for part in ("embd", "attn", "resid")} == {0}
    told = {"flags.md": "scratch-mini는 0 |", "flags.en.md": "0 of scratch-mini |", "speed.md": "`scratch-mini`는 0) |"}
    assert [name for name, words in told.items() if words not in text_of(ROOT / "docs" / name)] == []


def test_the_english_tables_have_the_same_flags_and_values():
    def rows(name):
        found = re.findall(r"^\| (`--\w+`) \| ?(.*?) ?\| .* \|$", text_of(ROOT / "docs" / name), re.MULTILINE)
        return [(flag, default if re.fullmatch("`[^`-][^`]*`|`-1`", default) else "") for flag, default in found]

    english = [(flag, "" if default == "`text`" else default) for flag, default in rows("flags.en.md")]
    assert english == rows("flags.md") != []


def test_the_pythons_that_are_asked_for_are_everywhere_those_of_pyproject():
    least, beyond = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', text_of(ROOT / "pyproject.toml")).groups()
    newest = f"3.{int(beyond) - 1}"
    korean = [ROOT / name for name in ("README.md", "Makefile", "docs/windows.md", "docs/troubleshooting.md")]
    assert all(f"Python 3.{least}~{newest}" in text_of(page) for page in korean)
    english = ROOT / "README.en.md", ROOT / "docs" / "troubleshooting.en.md"
    assert all(f"Python 3.{least} to {newest}" in text_of(page) for page in english)
    assert f"(3, {least}) <= sys.version_info < (3, {beyond})" in text_of(ROOT / "Makefile")
    assert f"sys.version_info < (3, {least})" in text_of(ROOT / "gpt2_korean" / "__init__.py")


def test_pip_install_of_this_folder_installs_what_requirements_has(tmp_path):
    pytest.importorskip("setuptools")
    for name in ("pyproject.toml", "README.md", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("gpt2_korean", "data", "logs"):  # which setuptools would take for packages, and refuse
        (tmp_path / name).mkdir()
    build = "import sys; from setuptools import build_meta; build_meta.prepare_metadata_for_build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, tmp_path], cwd=tmp_path, check=True, capture_output=True)
    (metadata,) = tmp_path.glob("*.dist-info/METADATA")
    pinned = re.findall(r"^[\w-]+==\S+$", text_of(ROOT / "requirements.txt"), re.MULTILINE)
    assert re.findall(r"^Requires-Dist: (.+)$", text_of(metadata), re.MULTILINE) == pinned


def test_windows_is_told_the_commands_of_readme_and_of_the_demo():
    def of_scripts(lines):
        return [words[1:] for words in lines if words[1:2] in (["train.py"], ["generate.py"])]

    told = of_scripts(commands(ROOT / "docs" / "windows.md", "powershell"))
    recipe = text_of(ROOT / "Makefile").replace("\\\n", " ").replace("$(DEMO)", "fine_tuned_models/demo")
    demo = of_scripts(shlex.split(line) for line in re.findall(r"^\t@?(\$\(RUN\) .*)$", recipe, re.MULTILINE))
    assert demo == told[:2]
    steps = of_scripts(commands(ROOT / "README.md"))[:2]
    assert len(steps) == 2 and [words for words in told if words in steps] == steps


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_for_powershell_have_nothing_that_it_reads_in_its_own_way(page):
    """A line that goes on ends in a backtick, and what it would fill in or split stands in single quotes."""
    for block in blocks(page, "powershell"):
        lines = block.splitlines()
        for line, after in zip(lines, [*lines[1:], ""], strict=True):
            assert not line.endswith((" ", "\\")) and line.endswith("`") == after.startswith("  "), line
            assert not re.search(r"[$`]", re.sub("'[^']*'", "", line.removesuffix("`").removeprefix("$env:"))), line
            assert " && " not in line  # PowerShell 5.1 knows none


@pytest.mark.parametrize("english, korean", TWINS, ids=lambda page: page.name)
def test_twins_have_the_same_parts_commands_and_links(english, korean):
    def parts(page):
        shown = [line for line in text_of(page).splitlines() if re.match(r"#+ |\|[-|]+\|$|- |\d\. |!\[", line)]
        return [re.match(r"#+|\||-|\d\.|!", line).group() for line in shown]

    def links(page):
        targets = re.findall(r"\]\(([^)#]+)", text_of(page))
        return {target.replace(".en.md", ".md") for target in targets} - {korean.name}

    assert parts(english) == parts(korean)
    for shell in SHELLS:
        assert commands(english, shell) == commands(korean, shell)
    assert links(korean) <= links(english)


def test_the_two_tables_of_messages_have_the_same_rows():
    def rows(name):
        found = re.findall(r"^\| (`.*?) \| ", text_of(ROOT / "docs" / name), re.MULTILINE)
        return [re.sub(r" \([^`]*\)$", "", row) for row in found]

    assert rows("troubleshooting.en.md") == rows("troubleshooting.md")


def test_readme_in_english_names_every_page_that_is_korean_alone():
    head = text_of(ROOT / "README.en.md").split("\n## ")[0]
    alone = {*PAGES} - {page for pair in TWINS for page in pair}
    named = {ROOT / target for target in re.findall(r"\]\(([^)]+\.md)\)", head)}
    assert alone <= named
