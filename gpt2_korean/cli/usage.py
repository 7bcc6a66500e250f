"""What a script says that was started without any flag, or without a model: how it is used, and a command that runs."""

from gpt2_korean.messages import UsageError, say
from gpt2_korean.text.folders import MODELS, name_some
from gpt2_korean.windows import join_command

MOST_SHOWN = 5
EXAMPLE = (
    f'python train.py --dataset_path="data/korean_texts.txt" --model_type="gpt2" --output_dir="{MODELS}/" --do_train'
)


def show_usage(parser, heading, commands):
    """End a run without any flag: the usage, `commands` under a `heading`, the way to all flags; exit code 2."""
    commands = [f"  {command}" for command in commands[:MOST_SHOWN]]
    help_line = f"모든 플래그: python {parser.prog} --help"
    say("\n".join([parser.format_usage().strip(), parser.description, "", heading, *commands, "", help_line]))
    raise SystemExit(UsageError.exit_code)


def show_training(parser):
    show_usage(parser, "예:", [EXAMPLE])


def show_writing(parser, models):
    """models: paths of those there are."""
    heading = "학습한 모델로 써 보기:" if models else "예 (먼저 train.py로 학습하세요):"
    words = [["python", "generate.py", f"--model_name_or_path={model}"] for model in models or [MODELS]]
    show_usage(parser, heading, [f'{join_command(each)} --prompt="오늘은"' for each in words])


def ask_for_model(models):
    """The UsageError for a command line without a model."""
    there = f"있는 모델: {name_some(models, MOST_SHOWN)}" if models else "체크포인트 폴더나 Hub 이름을 주세요."
    return UsageError(f"--model_name_or_path가 필요합니다. {there}")
