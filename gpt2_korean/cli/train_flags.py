"""The flags of train.py, their defaults and what each of them takes.

Imports neither torch nor transformers, so that `--help` and every refusal come at once.
"""

import argparse
from unicodedata import normalize

from gpt2_korean.cli.licenses import license_id
from gpt2_korean.cli.model_names import start_name, tokenizer_name
from gpt2_korean.cli.other_names import TRAIN_NAMES
from gpt2_korean.cli.parser import DEVICE, DEVICES, REMOTE_CODE, KoreanArgumentParser, add_flag, add_switch
from gpt2_korean.cli.suggestions import flag_to_train_with
from gpt2_korean.cli.trainer_flags import add_trainer_flags
from gpt2_korean.cli.values import (
    MOST_BLOCKS,
    MOST_TOKENS,
    choice,
    composed_text,
    file_path,
    folder_path,
    integer,
    number,
    path,
    text,
)
from gpt2_korean.messages import particle
from gpt2_korean.text.files import COLUMN
from gpt2_korean.text.folders import MODELS

BY_PLAN = "어휘나 모델을 새로 배울 때는 글에 맞추어 고름"  # see training/plan.py
RATE_BY_PLAN = "어휘나 모델을 새로 배울 때, 그렇게 배운 모델을 더 가르칠 때는 글에 맞추어 고름"


def train_parser():
    parser = KoreanArgumentParser(
        TRAIN_NAMES,
        flag_to_train_with,
        prog="train.py",
        usage="python train.py --dataset_path=글.txt --output_dir=폴더 --do_train [플래그 ...]",
        description="영어 GPT-2를 한국어 글로 미세 조정합니다.",
        epilog="transformers의 TrainingArguments가 아는 다른 플래그(--optim, --lr_scheduler_type, --push_to_hub 등)도 "
        "모두 그대로 쓸 수 있습니다. --no_bf16처럼 no_를 붙이면 끕니다.",
    )

    data = parser.add_argument_group("데이터")
    files = "파일, 폴더(그 아래 모두), 또는 와일드카드(glob) 패턴"
    add_flag(data, "--dataset_path", path, f"학습할 글: {files}. .txt .jsonl .json .csv .tsv .parquet와 그 .gz .xz")
    add_flag(data, "--dataset_name", path, "파일 대신 쓸 Hugging Face Hub 데이터 세트 이름 (예: wikimedia/wikipedia)")
    add_flag(data, "--dataset_config_name", text, "Hub 데이터 세트의 설정 이름 (예: 20231101.ko)")
    add_switch(data, "--streaming", "Hub 데이터 세트를 내려받지 않고 스트리밍으로 읽습니다. --max_steps가 필요합니다")
    add_flag(data, "--text_column_name", column, "글이 들어 있는 열 이름 (기본값: 대화의 열이 없으면 text)")
    add_flag(data, "--text_template", template, '여러 열을 한 글로 엮는 틀 (예: "질문: {Q}\\n답변: {A}")')
    add_flag(
        data, "--prompt_column", column, "질문이 들어 있는 열 이름. Q, 질문, prompt 등을 알아봅니다 (기본값: 자동)"
    )
    add_flag(
        data, "--answer_column", column, "답이 들어 있는 열 이름. A, 답변, completion 등을 알아봅니다 (기본값: 자동)"
    )
    add_flag(data, "--answer_as", text, "카카오톡에서 내보낸 대화에서, 말을 답으로 배울 사람의 이름")
    add_flag(data, "--encoding", text, "파일의 문자 인코딩. UTF-8, UTF-16(BOM), CP949 순으로 알아냅니다 (기본값: 자동)")
    add_flag(
        data,
        "--sample_by",
        choice("paragraph", "line", "document"),
        ".txt에서 문서 하나로 읽는 것: 빈 줄 사이(paragraph), 줄(line), 파일(document) (기본값: paragraph)",
    )
    add_switch(data, "--line_by_line", ".txt에서 줄마다 문서 하나로 읽습니다. --sample_by의 line과 같습니다")
    add_switch(
        data,
        "--skip_bad_rows",
        "칸의 수가 열의 수와 다른 행(.csv .tsv), JSON 객체가 아니거나 글의 열이 없는 줄(.jsonl)을 건너뛰고 몇 개인지 "
        "알려 줍니다",
    )
    add_flag(data, "--block_size", integer(2, MOST_TOKENS), "한 블록의 토큰 수 (기본값: 모델의 문맥 길이, 2048까지)")
    add_flag(
        data,
        "--packing",
        choice("documents", "stream"),
        "documents는 문서마다 따로, stream은 이어 붙인 글로 배웁니다 (기본값: 모델이 할 수 있으면 documents)",
    )
    add_switch(
        data,
        "--train_on_prompt",
        "대화에서 답만이 아니라 모든 차례를 배웁니다 (기본값: 어휘가 새것이면 켬)",
        default=None,
    )
    add_flag(data, "--validation_file", path, f"평가에 쓸 글: {files}")
    add_flag(
        data,
        "--validation_split_percentage",
        number(above=0, maximum=90),
        "--validation_file이 없을 때 떼어 둘 문서의 비율(%%)",
        5,
    )

    add_flag(
        data,
        "--show_data",
        integer(0),
        "문서나 대화를 이만큼 배우는 모습 그대로 보여 주고(⟦ ⟧ 안이 배우는 것), 길이와 겹침을 세고 끝냅니다. "
        "0이면 세기만 합니다",
    )

    model = parser.add_argument_group("모델")
    add_flag(
        model,
        "--model_type",
        start_name,
        "Hub 이름(gpt2, gpt2-large, skt/kogpt2-base-v2 등), 모델 폴더, 또는 내려받지 않는 scratch-mini",
        "gpt2-medium",
    )
    add_flag(
        model,
        "--tokenizer",
        tokenizer_name,
        "korean(글에서 배운 어휘로 바꿈), original(모델의 것), 또는 토크나이저 폴더 (기본값: 글의 양에 따라 자동)",
    )
    vocabulary_help = "배울 어휘의 토큰 수. 128의 배수 (기본값: 글의 양에 따라 4096~32000, scratch-mini는 8192까지)"
    add_flag(model, "--vocab_size", vocabulary_size, vocabulary_help)

    add_switch(model, "--trust_remote_code", REMOTE_CODE)

    output = parser.add_argument_group("결과")
    add_flag(output, "--output_dir", folder_path, "모델과 체크포인트를 둘 폴더", f"{MODELS}/")
    add_switch(
        output,
        "--overwrite_output_dir",
        "그 폴더에 있는 지난 학습의 결과를 새 결과로 바꿉니다. 다른 파일은 그대로입니다",
    )
    add_flag(
        output,
        "--resume_from_checkpoint",
        folder_path,
        "이어서 학습할 체크포인트 폴더. auto면 온전한 체크포인트 중 가장 최근 것, 없으면 처음부터",
        nargs="?",
        const="auto",
    )
    add_flag(
        output,
        "--max_hours",
        number(above=0, maximum=100_000),
        "이 시간이 지나면 체크포인트를 저장하고 코드 75로 멈춥니다. 1보다 작아도 됩니다",
    )
    interval = steps(number(above=0))
    add_flag(output, "--save_steps", interval, "체크포인트를 저장할 간격(스텝). 1보다 작으면 전체의 비율", 500)
    add_flag(output, "--save_total_limit", integer(1), "남겨 둘 체크포인트 수 (기본값: 모두)")
    license_help = "모델 카드에 적을 라이선스(apache-2.0, cc-by-sa-4.0, other 등. 기본값: 시작한 모델의 것)"
    add_flag(output, "--license", license_id, license_help)
    add_flag(output, "--logging_dir", folder_path, "TensorBoard 기록을 둘 폴더", "./logs")
    add_flag(output, "--logging_steps", interval, "손실을 기록할 간격(스텝). 1보다 작으면 전체의 비율", 100)
    add_flag(output, "--report_to", text, "기록할 곳(tensorboard, wandb, none 등)", ["tensorboard"], nargs="+")

    training = parser.add_argument_group("학습")
    add_switch(training, "--do_train", "학습합니다")
    add_switch(
        training,
        "--do_eval",
        "떼어 둔 문서로 평가해 손실, 혼란도, 글자당 비트를 표준 출력에 씁니다. 마지막 줄은 JSON입니다",
    )
    eval_help = "학습하는 동안 평가할 간격(스텝). --do_eval과 함께 (기본값: 끝에 한 번)"
    add_flag(training, "--eval_steps", interval, eval_help)
    add_flag(
        training,
        "--sample_prompts",
        file_path,
        "평가할 때마다 모델이 이어 쓰거나 답해 보일 앞글(프롬프트)이 한 줄에 하나씩 든 파일 (기본값: 앞글 셋)",
    )
    add_switch(training, "--no_measure_texts", "평가만 할 때 모델이 글을 써서 다양성과 반복을 측정하는 일을 건너뜁니다")
    add_flag(
        training,
        "--early_stopping_patience",
        integer(1),
        "평가가 이 횟수만큼 연속으로 나아지지 않으면 일찍 마칩니다. --eval_steps와 함께",
    )
    add_flag(
        training,
        "--early_stopping_threshold",
        number(0),
        "글자당 비트가 이보다 많이 낮아져야 나아진 것으로 봅니다",
        0.0,
    )
    add_switch(
        training,
        "--load_best_model_at_end",
        "글자당 비트가 가장 낮았던 모델을 결과로 남깁니다 (기본값: --early_stopping_patience를 주면 켬)",
        default=None,
    )
    batch = integer(1, MOST_BLOCKS)
    add_flag(training, "--per_device_train_batch_size", batch, "장치마다 한 번에 학습할 블록 수", 8)
    add_flag(training, "--per_device_eval_batch_size", batch, "장치마다 한 번에 평가할 블록 수", 8)
    add_flag(training, "--gradient_accumulation_steps", batch, "기울기를 몇 번 모아 한 스텝으로 할지(기울기 누적)", 1)
    add_flag(training, "--num_train_epochs", number(above=0), "전체 글을 반복할 횟수(에폭)", 3)
    add_flag(training, "--max_steps", most_steps, "학습할 스텝 수. 1 이상이면 --num_train_epochs보다 우선합니다", -1)
    rate = number(above=0, maximum=1000)
    add_flag(training, "--learning_rate", rate, f"최대 학습률. {RATE_BY_PLAN}. 그 밖의 LoRA는 5e-4", 5e-5)
    add_flag(
        training,
        "--embedding_learning_rate",
        rate,
        "임베딩만의 최대 학습률 (기본값: 새 어휘는 글과 스텝의 양에 따라 0.0006~0.002, 아니면 --learning_rate와 같음)",
    )
    warmup_help = f"학습률을 0에서 최댓값까지 올리는 스텝 수(워밍업). 1보다 작으면 전체의 비율. {RATE_BY_PLAN}"
    add_flag(training, "--warmup_steps", steps(number(0)), warmup_help, 0)
    add_flag(training, "--weight_decay", number(0), f"가중치 감쇠. {BY_PLAN}", 0.0)
    dropout_help = (
        f"배우는 동안 GPT-2의 값을 이 비율로 끕니다(드롭아웃). 덜 외웁니다. {BY_PLAN} "
        "(기본값: 모델의 값, GPT-2는 0.1, scratch-mini는 0)"
    )
    add_flag(training, "--dropout", number(0, below=1), dropout_help)
    merges_help = "글을 토큰으로 나눌 때 병합을 이 비율로 빼, 읽을 때마다 다르게 나눕니다(BPE 드롭아웃). 덜 외웁니다"
    add_flag(training, "--bpe_dropout", number(0, below=1), f"{merges_help}. {RATE_BY_PLAN} (기본값: 0)")
    add_flag(training, "--adam_epsilon", number(above=0), "AdamW의 엡실론", 1e-8)
    add_flag(training, "--max_grad_norm", number(0), "기울기 크기의 한도. 0이면 자르지 않습니다", 1.0)
    average_help = (
        "마지막 몇 스텝의 가중치를 평균한 모델을 결과로 남길지. 1보다 작으면 전체의 비율 (기본값: 0, 평균하지 않음)"
    )
    add_flag(training, "--average_last", steps(number(0)), average_help)
    lora_help = "LoRA 어댑터의 랭크(rank). 주면 어댑터만 학습합니다. 0이면 모델 전체를 학습합니다"
    add_flag(training, "--lora_rank", integer(0, 4096), lora_help, 0)
    alpha_help = "어댑터의 세기. 어댑터를 alpha / rank배로 더합니다 (기본값: 랭크의 두 배)"
    add_flag(training, "--lora_alpha", integer(1, 1_000_000), alpha_help)
    add_flag(training, "--seed", integer(0, 2**32 - 1), "난수 시드", 42)

    machine = parser.add_argument_group("장치")
    add_flag(machine, "--device", choice(*DEVICES), DEVICE, "auto")
    add_switch(machine, "--bf16", "bfloat16 혼합 정밀도 (기본값: 장치가 bfloat16으로 계산하면 켬)", default=None)
    add_switch(
        machine,
        "--fp16",
        "float16 혼합 정밀도. GPU에서만 (기본값: 장치가 float16으로만 빠르게 계산하면 켬)",
        default=None,
    )
    add_switch(
        machine,
        "--torch_compile",
        "torch.compile로 컴파일합니다 (기본값: GPT-2가 아닌 모델의 긴 학습에서 켬)",
        default=None,
    )
    add_switch(machine, "--device_graphs", "GPU의 계산을 통째로 기록해 반복합니다 (기본값: CUDA에서 켬)", default=None)
    add_switch(
        machine,
        "--auto_find_batch_size",
        "메모리가 모자라면 한 번에 학습할 블록을 줄이고 그만큼 더 모읍니다. 한 스텝의 블록 수는 그대로입니다",
    )
    add_switch(machine, "--fsdp", "장치 하나에 담기지 않는 모델을 여럿에 나눕니다(FSDP). torchrun과 함께", default=None)

    config_help = (
        "같은 이름의 플래그를 담은 .yaml 또는 .json 파일. 여러 번 주면 뒤의 파일이, 그보다도 명령줄의 값이 우선합니다"
    )
    add_flag(parser, "--config", file_path, config_help, action="append")
    add_trainer_flags(parser)
    return parser


def most_steps(word):
    """A number of steps, -1 where the epochs count; so it is with 0, of which Trainer makes a run of one step."""
    return integer(-1)(word) or -1


def steps(accept):
    """A type for a number of steps that `accept` takes: a whole one, or below 1 a share of all steps."""

    def parse(word):
        value = accept(word)
        if value > 1 and value % 1:
            raise argparse.ArgumentTypeError(
                f"{particle(word, '은/는')} 쓸 수 없습니다. 1보다 크면 정수를, 전체의 비율이면 1보다 작은 수를 주세요."
            )
        return value

    return parse


def vocabulary_size(word):
    """A multiple of 128 with room for the 256 bytes."""
    size = integer(384, MOST_TOKENS // 128 * 128)(word)
    if size % 128:
        other = particle(str(size // 128 * 128 + 128), "은/는")
        raise argparse.ArgumentTypeError(f"{particle(word, '은/는')} 128의 배수가 아닙니다. {other} 어떤가요?")
    return size


def column(word):
    """The name of a column, composed (NFC) as those that are read are."""
    return normalize("NFC", text(word))


def template(word):
    """A composed_text with at least one `{column}` in it."""
    word = composed_text(word)
    if not COLUMN.search(word):
        raise argparse.ArgumentTypeError(f'{word!r}: "질문: {{Q}}"처럼 중괄호 안에 열 이름을 쓰세요.')
    return word
