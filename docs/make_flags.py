"""docs/flags.md from the help of the two parsers: python docs/make_flags.py"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "flags.md"
HEAD = """# 플래그

두 명령의 모든 플래그입니다([English](flags.en.md)). `--help`와 같은 글이고, `python docs/make_flags.py`가 만드므로 여기를 고치지 말고 `gpt2_korean/cli/`의 도움말을 고치세요.

`--플래그=값`과 `--플래그 값`은 서로 같고, `--learning_rate`와 `--learning-rate`도 서로 같습니다. 참·거짓 플래그는 `--bf16`, `--bf16=false`, `--no_bf16`처럼 씁니다. `train.py`의 플래그는 `--config run.yaml`에 같은 이름으로 적어 두어도 되고, 명령줄에 준 값이 우선합니다. 아래에 없는 `TrainingArguments`의 플래그(`--optim`, `--lr_scheduler_type`, `--gradient_checkpointing`, `--push_to_hub` 등)도 `train.py`에 모두 쓸 수 있습니다.
"""  # noqa: E501
# Where each group is explained.
MORE = {
    ("train.py", "데이터"): "[데이터](data.md)",
    ("train.py", "모델"): "[어휘](vocabulary.md)",
    ("train.py", "결과"): "[멈추고 이어 가기](resuming.md), [평가](evaluation.md)",
    ("train.py", "학습"): "[평가](evaluation.md), [어휘](vocabulary.md), [LoRA](lora.md)",
    ("train.py", "장치"): "[장치](devices.md), [속도](speed.md)",
    ("generate.py", "모델"): "[장치](devices.md), [속도](speed.md)",
    ("generate.py", "앞글(프롬프트)"): "[쓰기](writing.md)",
    ("generate.py", "샘플링"): "[쓰기](writing.md), [동작 원리](how-it-works.md#7-고르기-샘플링)",
    ("generate.py", "웹 페이지와 API"): "[쓰기](writing.md#웹-페이지에서)",
}


def page():
    """The text of docs/flags.md."""
    sys.path.insert(0, str(ROOT))
    from gpt2_korean.cli.generate_flags import generate_parser
    from gpt2_korean.cli.train_flags import train_parser

    parts = [HEAD]
    for parser in (train_parser(), generate_parser()):
        parts.append(f"## {parser.prog}\n")
        _, others, *groups = parser._action_groups  # what has no group of its own comes last
        for group in (*groups, others):
            parts.append(f"### {group.title}\n")
            if more := MORE.get((parser.prog, group.title)):
                parts.append(f"자세히: {more}\n")
            rows = [row(action) for action in group._group_actions if action.help != "==SUPPRESS=="]
            parts.append("\n".join(["| 플래그 | 기본값 | 뜻 |", "|---|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def row(action):
    meaning, _, default = action.help.replace("%%", "%").partition(" (기본값: ")
    default = default.removesuffix(")")
    given = default and action.default is not None and action.default is not False
    return f"| `{action.option_strings[-1]}` | {f'`{default}`' if given else marked(default)} | {marked(meaning)} |"


def marked(words):
    """What is to be typed as code."""
    words = re.sub(r"\(예: (.*?)\)", r"(예: `\1`)", words)
    words = re.sub(r"(?<!`)--[a-z_0-9]+", r"`\g<0>`", words)
    return words.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
