"""The flags of train.py, their defaults and what each of them takes.

Imports neither torch nor transformers, so that `--help` and every refusal come at once.
"""

import argparse

from gpt2_korean.cli.licenses import license_id
from gpt2_korean.cli.parser import (
    DEVICES,
    MOST_BLOCKS,
    MOST_TOKENS,
    REMOTE_CODE,
    KoreanArgumentParser,
    add_flag,
    add_switch,
    boolean,
    choice,
    escaped_text,
    file_path,
    folder_path,
    integer,
    number,
    path,
    text,
)
from gpt2_korean.text.files import COLUMN


def train_parser():
    parser = KoreanArgumentParser(
        prog="train.py",
        usage="python train.py --dataset_path=글.txt --output_dir=폴더 --do_train [플래그 ...]",
        description="영어 GPT-2를 한국어 글로 미세 조정합니다.",
        epilog="transformers의 TrainingArguments가 아는 다른 플래그(--max_steps, --optim, --push_to_hub 등)도 "
        "모두 그대로 쓸 수 있습니다. --no_bf16처럼 no_를 붙이면 끕니다.",
    )

    data = parser.add_argument_group("데이터")
    add_flag(
        data, "--dataset_path", path, "학습할 글: 파일, 폴더, 또는 글롭(.txt .jsonl .json .csv .tsv .parquet, .gz/.xz)"
    )
    add_flag(data, "--dataset_name", path, "파일 대신 쓸 Hugging Face Hub 데이터 세트 이름")
    add_flag(data, "--dataset_config_name", text, "Hub 데이터 세트의 설정 이름 (예: 20231101.ko)")
    add_switch(data, "--streaming", "Hub 데이터 세트를 내려받지 않고 스트리밍으로 읽습니다. --max_steps가 필요합니다")
    add_flag(data, "--text_column_name", text, "글이 들어 있는 열 이름. 주지 않으면 대화를 알아보고, 아니면 text")
    add_flag(data, "--text_template", template, '여러 열을 한 글로 엮는 틀 (예: "질문: {Q}\\n답변: {A}")')
    add_flag(data, "--prompt_column", text, "질문이 들어 있는 열 이름. 주지 않으면 질문, Q, prompt 등을 알아봅니다")
    add_flag(data, "--answer_column", text, "답이 들어 있는 열 이름. 주지 않으면 답변, A, completion 등을 알아봅니다")
    add_flag(data, "--encoding", text, "파일의 문자 인코딩. 주지 않으면 UTF-8, UTF-16, CP949 순으로 알아냅니다")
    add_switch(data, "--line_by_line", ".txt에서 빈 줄 대신 줄마다 문서 하나로 읽습니다")
    add_switch(data, "--skip_bad_rows", "칸의 수가 틀린 행(.csv, .tsv), JSON이 아닌 줄(.jsonl)을 건너뛰고 셉니다")
    add_flag(data, "--block_size", integer(2, MOST_TOKENS), "한 블록의 토큰 수. 주지 않으면 모델의 문맥 길이")
    add_flag(
        data,
        "--packing",
        choice("documents", "stream"),
        "블록을 채우는 법. documents는 문서마다 따로 읽고, stream은 이어 붙인 글로 읽습니다",
    )
    add_switch(data, "--train_on_prompt", "대화에서 답만이 아니라 모든 차례를 배웁니다")
    add_flag(data, "--validation_file", path, "평가에 쓸 파일, 폴더, 또는 글롭")
    add_flag(
        data, "--validation_split_percentage", number(above=0, maximum=90), "평가용으로 떼어 둘 문서의 비율(%%)", 5
    )

    add_flag(data, "--show_data", integer(0), "이만큼의 문서를 배울 대로 보여 주고, 길이와 겹침을 세고 끝냅니다")

    model = parser.add_argument_group("모델")
    add_flag(
        model,
        "--model_type",
        path,
        "Hub 이름(gpt2, gpt2-large, skt/kogpt2-base-v2 등), 모델 폴더, 또는 내려받지 않는 scratch-mini",
        "gpt2-medium",
    )
    add_flag(
        model,
        "--tokenizer",
        path,
        "korean(글에서 배운 어휘로 바꿈), original(모델의 것), 또는 토크나이저 폴더. 주지 않으면 글의 양으로 정함",
    )
    add_flag(
        model,
        "--vocab_size",
        vocabulary_size,
        "배울 어휘의 토큰 수, 128의 배수. 주지 않으면 32000(scratch-mini는 8192)",
    )

    add_switch(model, "--trust_remote_code", REMOTE_CODE)

    output = parser.add_argument_group("결과")
    add_flag(output, "--output_dir", folder_path, "모델과 체크포인트를 둘 폴더", "fine_tuned_models/")
    add_switch(output, "--overwrite_output_dir", "그 폴더에 있는 지난 학습의 결과를 새 결과로 바꿉니다")
    add_flag(
        output,
        "--resume_from_checkpoint",
        folder_path,
        "이어서 학습할 체크포인트 폴더. auto면 가장 새것",
        nargs="?",
        const="auto",
    )
    add_flag(
        output,
        "--max_hours",
        number(above=0, maximum=100_000),
        "이 시간이 지나면 체크포인트를 저장하고 코드 75로 멈춥니다. 1보다 작아도 됩니다",
    )
    add_flag(output, "--save_steps", number(above=0), "체크포인트를 저장할 간격(스텝). 1보다 작으면 전체의 비율", 500)
    add_flag(output, "--save_total_limit", integer(1), "남겨 둘 체크포인트 수. 주지 않으면 모두")
    add_flag(output, "--license", license_id, "모델 카드에 적을 라이선스 (예: apache-2.0, cc-by-sa-4.0, other)")
    add_flag(output, "--logging_dir", folder_path, "TensorBoard 기록을 둘 폴더", "./logs")
    add_flag(output, "--logging_steps", number(above=0), "손실을 기록할 간격(스텝). 1보다 작으면 전체의 비율", 100)
    add_flag(output, "--report_to", text, "기록할 곳(tensorboard, wandb, none 등)", ["tensorboard"], nargs="+")

    training = parser.add_argument_group("학습")
    add_switch(training, "--do_train", "학습합니다")
    add_switch(training, "--do_eval", "떼어 둔 문서로 평가합니다(손실, 혼란도, 글자당 비트)")
    add_flag(training, "--eval_steps", number(above=0), "학습하는 동안 평가할 간격(스텝). --do_eval과 함께")
    add_flag(training, "--sample_prompts", file_path, "평가할 때마다 모델이 이어 써 보일 앞글이 한 줄에 하나씩 든 파일")
    add_switch(training, "--no_measure_texts", "평가만 할 때 모델이 글을 써서 다양함과 반복을 재는 일을 건너뜁니다")
    add_flag(
        training,
        "--early_stopping_patience",
        integer(1),
        "평가가 이만큼 이어서 나아지지 않으면 일찍 마칩니다. --eval_steps와 함께",
    )
    add_flag(training, "--early_stopping_threshold", number(0), "이보다 많이 낮아져야 나아진 것으로 칩니다", 0.0)
    add_switch(
        training,
        "--load_best_model_at_end",
        "글자당 비트가 가장 낮았던 모델을 결과로 남깁니다. --early_stopping_patience를 주면 켭니다",
        default=None,
    )
    training.add_argument(
        "--no_load_best_model_at_end", dest="load_best_model_at_end", action="store_false", help=argparse.SUPPRESS
    )
    batch = integer(1, MOST_BLOCKS)
    add_flag(training, "--per_device_train_batch_size", batch, "장치마다 한 번에 학습할 블록 수", 8)
    add_flag(training, "--per_device_eval_batch_size", batch, "장치마다 한 번에 평가할 블록 수", 8)
    add_flag(training, "--gradient_accumulation_steps", batch, "기울기를 모아 한 스텝으로 칠 횟수", 1)
    add_flag(training, "--num_train_epochs", number(above=0), "전체 글을 되풀이할 횟수", 3)
    add_flag(training, "--max_steps", integer(-1), "학습할 스텝 수. 주면 --num_train_epochs보다 우선합니다", -1)
    rate = number(above=0, maximum=1000)
    add_flag(training, "--learning_rate", rate, "최대 학습률", 5e-5)
    add_flag(
        training,
        "--embedding_learning_rate",
        rate,
        "임베딩만의 최대 학습률. 주지 않으면 어휘를 새로 바꿀 때 0.002, 아니면 --learning_rate와 같음",
    )
    add_flag(training, "--warmup_steps", number(0), "학습률을 끌어올릴 스텝 수. 1보다 작으면 전체의 비율", 0)
    add_flag(training, "--weight_decay", number(0), "가중치 감쇠", 0.0)
    add_flag(training, "--adam_epsilon", number(above=0), "AdamW의 엡실론", 1e-8)
    add_flag(training, "--max_grad_norm", number(0), "기울기 크기의 한도. 0이면 자르지 않습니다", 1.0)
    add_flag(
        training,
        "--lora_rank",
        integer(0, 4096),
        "LoRA 어댑터의 계수. 주면 어댑터만 학습합니다. 0이면 모델 전체를 학습",
        0,
    )
    add_flag(
        training,
        "--lora_alpha",
        integer(1, 1_000_000),
        "어댑터의 세기(alpha / rank배로 더함). 주지 않으면 계수의 두 배",
    )
    add_flag(training, "--seed", integer(0, 2**32 - 1), "난수 시드", 42)

    machine = parser.add_argument_group("장치")
    add_flag(machine, "--device", choice(*DEVICES), "auto, xpu, cuda, mps, cpu. auto는 이 순서로 있는 것", "auto")
    add_switch(machine, "--bf16", "bfloat16 혼합 정밀도. 주지 않으면 장치가 지원할 때 켭니다", default=None)
    add_switch(machine, "--fp16", "float16 혼합 정밀도", default=None)
    add_switch(
        machine,
        "--torch_compile",
        "torch.compile로 컴파일합니다. 주지 않으면 GPT-2가 아닌 모델의 긴 학습에서 켭니다",
        default=None,
    )
    add_switch(
        machine, "--device_graphs", "GPU에서 한 단계를 기록해 되풀이합니다. 주지 않으면 CUDA에서 켭니다", default=None
    )
    add_switch(machine, "--auto_find_batch_size", "메모리가 모자라면 한 번에 학습할 블록을 줄이고 그만큼 더 모읍니다")
    add_switch(machine, "--fsdp", "장치 하나에 담기지 않는 모델을 여럿에 나눕니다. torchrun과 함께", default=None)
    for name in ("bf16", "fp16", "torch_compile", "device_graphs"):
        machine.add_argument(f"--no_{name}", dest=name, action="store_false", help=argparse.SUPPRESS)

    add_flag(parser, "--config", file_path, "같은 이름의 플래그를 담은 .yaml 또는 .json 파일. 명령줄의 값이 우선합니다")
    return parser


def add_trainer_flags(parser, trainer_flags):
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


# Of TrainingArguments' numbers, those whose bounds are not those of the others.
TRAINER_NUMBERS = {
    "adam_beta1": number(0, below=1),
    "adam_beta2": number(0, below=1),
    "label_smoothing_factor": number(0, 1),
    "neftune_noise_alpha": number(0, 1000),
    "data_seed": integer(0, 2**32 - 1),
    "dataloader_num_workers": integer(0, 1000),
    "dataloader_prefetch_factor": integer(1, 1000),
    "ddp_bucket_cap_mb": integer(1, 1_000_000),
    "ddp_timeout": integer(1),
    "eval_accumulation_steps": integer(1),
    "torch_empty_cache_steps": integer(1),
}


def _trainer_value(flag):
    if flag.name in TRAINER_NUMBERS:
        return TRAINER_NUMBERS[flag.name]
    if flag.kind is int:
        # None of its whole numbers may be negative but for -1, which leaves a thing to transformers.
        return integer(-1)
    if flag.kind is float:
        return number(0)
    if flag.name in ("accelerator_config", "deepspeed", "fsdp_config"):
        return file_path  # or JSON
    if flag.name.startswith("log_level"):
        return choice("debug", "info", "warning", "error", "critical", "detail", "passive")
    return choice(*flag.choices) if flag.choices else text


def vocabulary_size(word):
    """A multiple of 128 with room for the 256 bytes."""
    size = integer(384, MOST_TOKENS // 128 * 128)(word)
    if size % 128:
        raise argparse.ArgumentTypeError(f"{size}은(는) 128의 배수가 아닙니다. {size // 128 * 128 + 128}은 어떤가요?")
    return size


def template(word):
    r"""A template with at least one `{column}`; `\n` and `\t` mean what they say."""
    word = escaped_text(word)
    if not COLUMN.search(word):
        raise argparse.ArgumentTypeError(f'{word!r}: "질문: {{Q}}"처럼 중괄호 안에 열 이름을 쓰세요.')
    return word
