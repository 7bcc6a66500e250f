"""README's two commands work as they stand there, with only the model swapped for a tiny one."""

import re
import shlex

import pytest
from conftest import ROOT
from transformers import AutoModelForCausalLM, pipeline

READMES = ("README.md", "README.en.md")


def commands(readme, script):
    """The commands of `readme`'s code blocks that run `script`, each as a list of words."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / readme).read_text("utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line) for line in lines if line.strip().startswith(f"python {script}")]


def test_both_readmes_give_the_same_two_commands():
    for script in ("train.py", "generate.py"):
        first = [commands(readme, script)[0] for readme in READMES]
        assert first[0] == first[1]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The files of the project in a folder of their own, as after git clone."""
    import shutil

    folder = tmp_path_factory.mktemp("clone")
    for name in ("train.py", "generate.py", "gpt2_korean", "data"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    for name in ("fine_tuned_models", "logs"):
        (folder / name).mkdir()
        (folder / name / ".gitkeep").touch()
    return folder


def test_train_and_generate_work_as_readme_says(clone, run_script, fork_script, tiny_model_folder):
    _, *words = commands("README.md", "train.py")[0]
    swapped = [f"--model_type={tiny_model_folder}" if word.startswith("--model_type") else word for word in words]
    assert swapped != words and "--model_type=gpt2-medium" in words
    trained = run_script(*swapped, cwd=clone)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout == ""
    output = clone / "fine_tuned_models"
    checkpoints = sorted(path.name for path in output.glob("checkpoint-*"))
    assert "checkpoint-500" in checkpoints and len(checkpoints) == 2  # --save_total_limit=2
    assert (output / ".gitkeep").exists() and list((clone / "logs").glob("*/events.out.tfevents.*"))
    for folder in (output, *output.glob("checkpoint-*")):
        assert AutoModelForCausalLM.from_pretrained(folder).config.n_embd == 32
        assert pipeline("text-generation", str(folder))("한국어", max_new_tokens=2)

    _, *words = commands("README.md", "generate.py")[0]
    written = run_script(*words, cwd=clone)
    assert written.returncode == 0, written.stderr
    texts = re.split(r"=== \d/5 ===\n", written.stdout)
    assert texts[0] == "" and len(texts) == 6
    assert all(text.startswith("한국어 텍스트 생성은") for text in texts[1:])

    # The same training command once more: --overwrite_output_dir stands in it.
    assert fork_script(*swapped, "--max_steps=1", cwd=clone).returncode == 0
    assert [path.name for path in output.glob("checkpoint-*")] == ["checkpoint-1"]


def test_generate_as_written_also_follows_a_run_shorter_than_500_steps(clone, fork_script):
    """The sample corpus gives gpt2-medium fewer steps than the checkpoint that README names."""
    _, *words = commands("README.md", "generate.py")[0]
    written = fork_script(*words, "--length=3", cwd=clone)
    assert written.returncode == 0, written.stderr
    assert "checkpoint-500 대신 마지막 checkpoint-1" in written.stderr


def test_readme_lists_every_flag_and_its_default():
    from gpt2_korean.cli.generate_flags import generate_parser
    from gpt2_korean.cli.train_flags import train_parser

    for readme in READMES:
        text = (ROOT / readme).read_text("utf-8")
        for parser in (train_parser(), generate_parser()):
            for action in parser._actions:
                flag = action.option_strings[-1]
                if flag.startswith("--no_") or flag == "--help":
                    continue
                row = re.search(rf"^\| `{flag}` \|.*$", text, re.MULTILINE)
                assert row, f"{readme}: {flag}"
                if not (action.default is None or action.default is False):
                    shown = " ".join(action.default) if isinstance(action.default, list) else str(action.default)
                    shown = "true" if action.default is True else shown
                    assert f"`{shown}`" in row.group(), row.group()
