"""What docs/ says stays true: messages that exist, commands that are accepted, links that lead somewhere."""

import ast
import re
import shlex

import pytest
from conftest import ROOT

from gpt2_korean.cli.generate_flags import parse_generate_options
from gpt2_korean.cli.train_options import parse_train_options

PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "README.en.md"]


def test_every_message_of_the_troubleshooting_tables_is_in_the_program():
    source = (ROOT / "gpt2_korean" / "server" / "page" / "page.js").read_text("utf-8")
    for path in (*(ROOT / "gpt2_korean").rglob("*.py"), ROOT / "train.py", ROOT / "generate.py"):
        constants = (
            node.value for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Constant)
        )
        source += "\0".join(value for value in constants if isinstance(value, str)) + "\0"
    rows = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    for name, heading in (("README.md", "## 종료 코드와 오류"), ("README.en.md", "## Exit codes and errors")):
        rows += (ROOT / name).read_text("utf-8").split(heading)[1].split("\n## ")[0]
    messages = re.findall(r"^\| `([^`]+)` [(|]", rows, re.MULTILINE)
    assert len(messages) > 40
    assert [message for message in messages if message not in source] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
        if re.match(r"https?:", target):
            continue
        name, _, heading = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
            assert heading in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings], target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_shown_is_accepted(page):
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    # Lists in README are indented.
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    for line in lines:
        words = shlex.split(line.replace("$size", "1024"), comments=True)  # a loop of the shell
        if words[:2] == ["python", "train.py"]:
            parse_train_options(words[2:])
        elif words[:2] == ["python", "generate.py"]:
            parse_generate_options(words[2:])
