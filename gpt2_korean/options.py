"""The flags of train.py and generate.py, their defaults and their validation.

The only file that knows which flags there are. It imports neither torch nor transformers, so that
`--help` and every refusal come at once.
"""

import argparse
import json
import sys
from pathlib import Path

from gpt2_korean.argument_parser import (
    KoreanArgumentParser,
    boolean,
    choice,
    integer,
    nearest,
    number,
    spell_flag,
)
from gpt2_korean.messages import UsageError
from gpt2_korean.text_files import COLUMN
from gpt2_korean.trainer_flags import read_trainer_flags

REMOTE_CODE = "모델에 딸린 Python 코드를 실행합니다. 만든 이를 믿을 때만 주세요"
# What an interactive session can change as it goes.
SETTINGS = (
    "length", "min_length", "stop", "top_k", "top_p", "temperature", "repetition_penalty", "repetition_window",
    "penalize_prompt", "no_repeat_ngram_size",
)  # fmt: skip
DEVICES = ("auto", "xpu", "cuda", "mps", "cpu")


def parse_train_options(argv=None):
    """The options of train.py.

    `trainer_arguments` of the returned namespace holds, by name, all that TrainingArguments takes: our
    own flags that it shares and every other flag of its that was given.

    Raises UsageError.
    """
    trainer_flags = read_trainer_flags()
    parser = _train_parser()
    _add_trainer_flags(parser, trainer_flags)
    argv = list(sys.argv[1:] if argv is None else argv)
    options = parser.parse(argv)
    if options.config is not None:
        # What stands later on a command line wins, so the file's values go first.
        options = parser.parse(_config_words(options.config, parser.flag_names()) + argv)
    _check_train_options(options)
    options.trainer_arguments = {name: value for name, value in vars(options).items() if name in trainer_flags}
    return options


def parse_generate_options(argv=None):
    """The options of generate.py. Raises UsageError."""
    options = _generate_parser().parse(list(sys.argv[1:] if argv is None else argv))
    if not options.model_name_or_path:
        raise UsageError("--model_name_or_path가 필요합니다. 체크포인트 폴더나 Hub 이름을 주세요.")
    if options.prompt_file and options.prompt:
        raise UsageError("--prompt와 --prompt_file은 함께 쓸 수 없습니다. 하나만 주세요.")
    if options.interactive and (options.prompt or options.prompt_file):
        raise UsageError("--interactive에서는 앞글을 직접 치므로 --prompt나 --prompt_file을 함께 쓸 수 없습니다.")
    return options


def parse_setting(name, word):
    """The value of `/set name word` in an interactive session. Raises UsageError."""
    if name not in SETTINGS:
        raise UsageError(f"{name}: 그런 설정이 없습니다. 바꿀 수 있는 것: {', '.join(SETTINGS)}")
    return getattr(_generate_parser().parse([f"--{name}={word}"]), name)


def _train_parser():
    parser = KoreanArgumentParser(
        prog="train.py",
        usage="python train.py --dataset_path=글.txt --output_dir=폴더 --do_train [플래그 ...]",
        description="영어 GPT-2를 한국어 글로 미세 조정합니다.",
        epilog="transformers의 TrainingArguments가 아는 다른 플래그(--max_steps, --optim, --push_to_hub 등)도 "
        "모두 그대로 쓸 수 있습니다. --no_bf16처럼 no_를 붙이면 끕니다.",
    )

    data = parser.add_argument_group("데이터")
    _add(
        data, "--dataset_path", text, "학습할 글: 파일, 폴더, 또는 글롭(.txt .jsonl .json .csv .tsv .parquet, .gz/.xz)"
    )
    _add(data, "--dataset_name", text, "파일 대신 쓸 Hugging Face Hub 데이터 세트 이름")
    _add(data, "--dataset_config_name", text, "Hub 데이터 세트의 설정 이름 (예: 20231101.ko)")
    _add_switch(data, "--streaming", "Hub 데이터 세트를 내려받지 않고 스트리밍으로 읽습니다. --max_steps가 필요합니다")
    _add(data, "--text_column_name", text, "글이 들어 있는 열 이름", "text")
    _add(data, "--text_template", template, '여러 열을 한 글로 엮는 틀 (예: "질문: {Q}\\n답변: {A}")')
    _add(data, "--encoding", text, "파일의 문자 인코딩. 주지 않으면 UTF-8, UTF-16, CP949 순으로 알아냅니다")
    _add_switch(data, "--line_by_line", ".txt에서 빈 줄 대신 줄마다 문서 하나로 읽습니다")
    _add(data, "--block_size", integer(2), "한 블록의 토큰 수. 주지 않으면 모델의 문맥 길이")
    _add(data, "--validation_file", text, "평가에 쓸 파일, 폴더, 또는 글롭")
    _add(data, "--validation_split_percentage", number(above=0, maximum=90), "평가용으로 떼어 둘 문서의 비율(%%)", 5)

    model = parser.add_argument_group("모델")
    _add(
        model,
        "--model_type",
        text,
        "Hub 이름(gpt2, gpt2-large, skt/kogpt2-base-v2 등), 모델 폴더, 또는 내려받지 않는 scratch-mini",
        "gpt2-medium",
    )
    _add(
        model,
        "--tokenizer",
        text,
        "korean(글에서 배운 어휘로 바꿈), original(모델의 것), 또는 토크나이저 폴더. 주지 않으면 글의 양으로 정함",
    )
    _add(
        model,
        "--vocab_size",
        vocabulary_size,
        "배울 어휘의 토큰 수, 128의 배수. 주지 않으면 32000(scratch-mini는 8192)",
    )

    _add_switch(model, "--trust_remote_code", REMOTE_CODE)

    output = parser.add_argument_group("결과")
    _add(output, "--output_dir", text, "모델과 체크포인트를 둘 폴더", "fine_tuned_models/")
    _add_switch(output, "--overwrite_output_dir", "그 폴더에 있는 지난 학습의 결과를 새 결과로 바꿉니다")
    _add(
        output,
        "--resume_from_checkpoint",
        text,
        "이어서 학습할 체크포인트 폴더. auto면 가장 새것",
        nargs="?",
        const="auto",
    )
    _add(
        output,
        "--max_hours",
        number(above=0),
        "이 시간이 지나면 체크포인트를 저장하고 코드 75로 멈춥니다. 1보다 작아도 됩니다",
    )
    _add(output, "--save_steps", number(above=0), "체크포인트를 저장할 간격(스텝). 1보다 작으면 전체의 비율", 500)
    _add(output, "--save_total_limit", integer(1), "남겨 둘 체크포인트 수. 주지 않으면 모두")
    _add(output, "--logging_dir", text, "TensorBoard 기록을 둘 폴더", "./logs")
    _add(output, "--logging_steps", number(above=0), "손실을 기록할 간격(스텝). 1보다 작으면 전체의 비율", 100)
    _add(output, "--report_to", text, "기록할 곳(tensorboard, wandb, none 등)", ["tensorboard"], nargs="+")

    training = parser.add_argument_group("학습")
    _add_switch(training, "--do_train", "학습합니다")
    _add_switch(training, "--do_eval", "떼어 둔 문서로 평가합니다(손실, 혼란도, 글자당 비트)")
    _add(training, "--eval_steps", number(above=0), "학습하는 동안 평가할 간격(스텝). --do_eval과 함께")
    _add(training, "--per_device_train_batch_size", integer(1), "장치마다 한 번에 학습할 블록 수", 8)
    _add(training, "--per_device_eval_batch_size", integer(1), "장치마다 한 번에 평가할 블록 수", 8)
    _add(training, "--gradient_accumulation_steps", integer(1), "기울기를 모아 한 스텝으로 칠 횟수", 1)
    _add(training, "--num_train_epochs", number(above=0), "전체 글을 되풀이할 횟수", 3)
    _add(training, "--max_steps", integer(-1), "학습할 스텝 수. 주면 --num_train_epochs보다 우선합니다", -1)
    _add(training, "--learning_rate", number(above=0), "최대 학습률", 5e-5)
    _add(training, "--warmup_steps", number(0), "학습률을 끌어올릴 스텝 수. 1보다 작으면 전체의 비율", 0)
    _add(training, "--weight_decay", number(0), "가중치 감쇠", 0.0)
    _add(training, "--adam_epsilon", number(above=0), "AdamW의 엡실론", 1e-8)
    _add(training, "--max_grad_norm", number(0), "기울기 크기의 한도. 0이면 자르지 않습니다", 1.0)
    _add(training, "--lora_rank", integer(0), "LoRA 어댑터의 계수. 주면 어댑터만 학습합니다. 0이면 모델 전체를 학습", 0)
    _add(training, "--lora_alpha", integer(1), "어댑터의 세기(alpha / rank배로 더함). 주지 않으면 계수의 두 배")
    _add(training, "--seed", integer(0, 2**32 - 1), "난수 시드", 42)

    machine = parser.add_argument_group("장치")
    _add(machine, "--device", choice(*DEVICES), "auto, xpu, cuda, mps, cpu. auto는 이 순서로 있는 것", "auto")
    _add_switch(machine, "--bf16", "bfloat16 혼합 정밀도. 주지 않으면 장치가 지원할 때 켭니다", default=None)
    _add_switch(machine, "--fp16", "float16 혼합 정밀도", default=None)
    for name in ("bf16", "fp16"):
        machine.add_argument(f"--no_{name}", dest=name, action="store_false", help=argparse.SUPPRESS)

    _add(parser, "--config", text, "같은 이름의 플래그를 담은 .yaml 또는 .json 파일. 명령줄의 값이 우선합니다")
    return parser


def _generate_parser():
    parser = KoreanArgumentParser(
        prog="generate.py",
        usage='python generate.py --model_name_or_path=체크포인트 --prompt="글의 앞부분" [플래그 ...]',
        description="학습한 모델로 글을 이어 씁니다. 결과만 표준 출력에 씁니다.",
    )

    model = parser.add_argument_group("모델")
    _add(model, "--model_name_or_path", text, "체크포인트나 모델 폴더, 또는 Hub 이름. 꼭 필요합니다")
    _add(model, "--device", choice(*DEVICES), "auto, xpu, cuda, mps, cpu. auto는 이 순서로 있는 것", "auto")
    _add(
        model,
        "--dtype",
        choice("auto", "float32", "bfloat16", "float16"),
        "계산할 자료형. auto는 장치가 지원하면 bfloat16, 아니면 float32",
        "auto",
    )
    _add(model, "--quantize", choice("int8"), "가중치를 8비트로 줄여 더 빠르게 씁니다(CPU의 GPT-2)")

    _add_switch(model, "--trust_remote_code", REMOTE_CODE)

    prompt = parser.add_argument_group("앞글")
    prompt.add_argument(
        "--prompt", type=text, action="append", help="이어 쓸 글의 앞부분. 여러 번 줄 수 있습니다 (기본값: 빈 글)"
    )
    _add(prompt, "--prompt_file", text, "앞글이 한 줄에 하나씩 든 파일")

    sampling = parser.add_argument_group("샘플링")
    _add(sampling, "--length", integer(1), "새로 쓸 토큰 수", 100)
    _add(sampling, "--min_length", integer(0), "적어도 이만큼 새 토큰을 쓰기 전에는 글을 끝내지 않습니다", 0)
    stop_help = r'이 글이 나오면 그 앞에서 끝냅니다. 여러 번 줄 수 있습니다 (예: "\n")'
    sampling.add_argument("--stop", type=escaped_text, action="append", metavar="글", help=stop_help)
    _add(sampling, "--top_k", integer(0), "확률이 높은 k개에서만 고릅니다. 0이면 제한하지 않습니다", 50)
    _add(sampling, "--top_p", number(above=0, maximum=1), "확률의 합이 p가 될 때까지의 후보에서만 고릅니다", 1.0)
    _add(sampling, "--temperature", number(0), "낮을수록 뻔하고 높을수록 다양합니다. 0이면 늘 가장 높은 것", 1.0)
    _add(sampling, "--repetition_penalty", number(above=0), "이미 나온 토큰을 누르는 정도. 1이면 누르지 않습니다", 1.0)
    _add(sampling, "--repetition_window", integer(0), "최근 N개의 토큰만 누릅니다. 0이면 모두", 0)
    _add_switch(sampling, "--penalize_prompt", "앞글에 나온 토큰도 누릅니다 (기본값: true)", default=True)
    _add(sampling, "--no_repeat_ngram_size", integer(0), "이만큼 이어진 토큰은 다시 쓰지 않습니다. 0이면 제한 없음", 0)
    _add_switch(sampling, "--allow_invalid_utf8", "글자의 조각만 나와 깨지는 것(�)을 막지 않습니다")
    _add(sampling, "--seed", integer(0, 2**63 - 1), "난수 시드. 주지 않으면 새로 골라 알려 줍니다")

    output = parser.add_argument_group("결과")
    _add_switch(output, "--stream", "글을 쓰는 대로 보입니다. 터미널에 한 편만 쓸 때의 기본값", default=None)
    _add_switch(output, "--interactive", "앞글을 물어 가며 이어 씁니다. /help를 치면 쓸 수 있는 명령이 나옵니다")
    _add(output, "--num_return_sequences", integer(1), "앞글마다 쓸 글의 수", 1)
    _add(output, "--batch_size", integer(1), "한 번에 함께 쓸 글의 수", 32)
    _add(output, "--output_file", text, "결과를 한 줄에 하나씩 덧붙일 .jsonl 파일(앞글, 글, 시드, 설정)")
    return parser


def _add(group, flag, kind, help_text, default=None, **keywords):
    if default not in (None, argparse.SUPPRESS):
        shown = " ".join(default) if isinstance(default, list) else default
        help_text += f" (기본값: {shown})"
    group.add_argument(flag, type=kind, default=default, help=help_text, metavar="값", **keywords)


def _add_switch(group, flag, help_text, default=False):
    group.add_argument(flag, nargs="?", const=True, type=boolean, default=default, help=help_text, metavar="true|false")


def _add_trainer_flags(parser, trainer_flags):
    """Accept every other field of TrainingArguments; its own default stands where the flag is not given."""
    declared = set(parser.flag_names())
    for flag in trainer_flags.values():
        name = f"--{flag.name}"
        if name in declared:
            continue
        hidden = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
        if flag.kind is bool:
            parser.add_argument(name, nargs="?", const=True, type=boolean, **hidden)
            parser.add_argument(f"--no_{flag.name}", dest=flag.name, action="store_false", **hidden)
        elif flag.kind is list:
            parser.add_argument(name, nargs="+", type=text, **hidden)
        else:
            parser.add_argument(name, type=_trainer_value(flag), **hidden)


def _trainer_value(flag):
    if flag.kind is int:
        # None of its whole numbers may be negative but for -1, which leaves a thing to transformers.
        return integer(-1)
    if flag.kind is float:
        return number(0, 1 if flag.name in ("adam_beta1", "adam_beta2", "label_smoothing_factor") else None)
    return choice(*flag.choices) if flag.choices else text


def _config_words(path, known_flags):
    """The flags of a `--config` file as command-line words."""
    words = []
    for name, value in _read_config(path).items():
        flag = spell_flag(f"--{name}")
        if flag not in known_flags or flag == "--config":
            raise UsageError(f"{path}: 알 수 없는 이름입니다: {name}. {nearest(flag, known_flags)}")
        if isinstance(value, list):
            words += [flag, *map(_config_value, value)]
        elif value is not None:
            words.append(f"{flag}={_config_value(value)}")
    return words


def _read_config(path):
    if Path(path).suffix not in (".json", ".yaml", ".yml"):
        raise UsageError(f"--config={path}: .yaml이나 .json 파일이어야 합니다.")
    import yaml

    try:
        # JSON is YAML as well, so one reader serves both.
        config = yaml.safe_load(Path(path).read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"--config={path}: 읽을 수 없습니다 ({error.strerror}).") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" {mark.line + 1}번째 줄" if mark else ""
        raise UsageError(f"--config={path}:{where} 형식이 잘못되었습니다.") from None
    if not isinstance(config, dict):
        raise UsageError(f"--config={path}: '이름: 값' 꼴이어야 합니다.")
    return config


def _config_value(value):
    if isinstance(value, (bool, dict)):
        return json.dumps(value)
    return str(value)


def _check_train_options(options):
    if not (options.do_train or options.do_eval):
        raise UsageError("할 일이 없습니다. 학습하려면 --do_train, 평가하려면 --do_eval을 주세요.")
    if options.dataset_path and options.dataset_name:
        raise UsageError("--dataset_path와 --dataset_name은 함께 쓸 수 없습니다. 하나만 주세요.")
    if not (options.dataset_path or options.dataset_name) and (options.do_train or not options.validation_file):
        raise UsageError("글이 필요합니다. --dataset_path=글.txt 또는 --dataset_name=이름을 주세요.")
    if options.bf16 and options.fp16:
        raise UsageError("--bf16과 --fp16은 함께 쓸 수 없습니다. 하나만 주세요.")
    if not options.do_eval:
        for name in ("validation_file", "eval_steps"):
            if getattr(options, name) is not None:
                raise UsageError(f"--{name}은 --do_eval과 함께 써야 합니다. --do_eval을 더하세요.")
    if options.tokenizer and options.model_type == "scratch-mini":
        raise UsageError(
            "--tokenizer는 scratch-mini와 함께 쓸 수 없습니다. 처음부터 배우는 모델은 늘 글에서 어휘를 배웁니다."
        )
    if options.lora_alpha and not options.lora_rank:
        raise UsageError("--lora_alpha는 --lora_rank와 함께 써야 합니다. --lora_rank=16처럼 더하세요.")
    if options.lora_rank and not options.do_train:
        raise UsageError("--lora_rank는 --do_train과 함께 써야 합니다. 학습한 어댑터는 이 플래그 없이 열립니다.")
    if options.lora_rank and options.model_type == "scratch-mini":
        raise UsageError(
            "--lora_rank는 scratch-mini와 함께 쓸 수 없습니다. 처음부터 배우는 모델은 모든 가중치를 학습해야 합니다."
        )
    if options.streaming:
        _check_streaming(options)
    if getattr(options, "use_cpu", False):
        if options.device not in ("auto", "cpu"):
            raise UsageError(f"--use_cpu와 --device={options.device}는 함께 쓸 수 없습니다. 하나만 주세요.")
        options.device = "cpu"


def _check_streaming(options):
    if not options.dataset_name:
        raise UsageError("--streaming은 --dataset_name과 함께 써야 합니다.")
    if options.do_train and options.max_steps < 1:
        raise UsageError("--streaming에는 --max_steps가 필요합니다. 스트리밍하는 글은 끝을 미리 알 수 없습니다.")
    if options.do_eval and not options.validation_file:
        raise UsageError("--streaming으로 평가하려면 --validation_file을 주세요.")


def vocabulary_size(word):
    """A multiple of 128 with room for the 256 bytes."""
    size = integer(384)(word)
    if size % 128:
        raise argparse.ArgumentTypeError(f"{size}은(는) 128의 배수가 아닙니다. {size // 128 * 128 + 128}은 어떤가요?")
    return size


def text(word):
    """A value that is valid Unicode: bytes of another encoding reach us as lone surrogates."""
    try:
        word.encode("utf-8")
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError(
            f"{error.start + 1}번째 글자가 올바른 UTF-8이 아닙니다. 터미널의 문자 인코딩을 UTF-8로 맞추세요."
        ) from None
    return word


def escaped_text(word):
    r"""A text in which `\n` and `\t` mean what they say."""
    word = text(word).replace("\\n", "\n").replace("\\t", "\t")
    if not word:
        raise argparse.ArgumentTypeError("빈 글은 줄 수 없습니다.")
    return word


def template(word):
    r"""A template with at least one `{column}`; `\n` and `\t` mean what they say."""
    word = escaped_text(word)
    if not COLUMN.search(word):
        raise argparse.ArgumentTypeError(f'{word!r}: "질문: {{Q}}"처럼 중괄호 안에 열 이름을 쓰세요.')
    return word
