"""What the flags of train.py mean together: contradictions, missing companions, and what one settles for another.

Imports neither torch nor transformers, as train_options.py.
"""

import os

from gpt2_korean.messages import UsageError, particle
from gpt2_korean.text.folders import is_same

HUB = "https://huggingface.co/datasets/"
METRICS = ("bits_per_character", "loss", "perplexity")
# What only a run that learns can heed, and what is told of it where none does.
LEARNING = {
    "sample_prompts": "학습한 모델은 generate.py로 써 보세요.",
    "license": "모델 카드는 학습한 모델에 씁니다.",
    "push_to_hub": "학습한 모델만 올립니다.",
    "lora_rank": "학습한 어댑터는 이 플래그 없이 열립니다.",
    **dict.fromkeys(("tokenizer", "vocab_size"), "모델은 제 어휘로 평가합니다."),
    **dict.fromkeys(("embedding_learning_rate", "average_last", "dropout", "bpe_dropout"), "평가만 하려면 빼세요."),
}
# What only a run that uploads its model can heed.
UPLOADING = ("hub_model_id", "hub_strategy", "hub_private_repo", "hub_always_push", "hub_revision")


def check_together(options):
    """Raise UsageError for flags that contradict each other, or lack one that they need."""
    # What is shown is what a run that learns would read, and no evaluation is needed to compare it with.
    learns, evaluates = (wanted or options.show_data is not None for wanted in (options.do_train, options.do_eval))
    if not (learns or evaluates):
        raise UsageError("무엇을 할지 정해 주세요: 학습은 --do_train, 평가는 --do_eval.")
    if options.dataset_path and options.dataset_name:
        raise UsageError("--dataset_path와 --dataset_name은 함께 쓸 수 없습니다. 하나만 주세요.")
    if options.dataset_name:
        _check_hub_name(options.dataset_name)
    if not (options.dataset_path or options.dataset_name) and (options.do_train or not options.validation_file):
        raise UsageError("글이 필요합니다. --dataset_path=글.txt 또는 --dataset_name=이름을 주세요.")
    # A run that goes on would read the files of its model as text.
    if options.do_train and options.dataset_path and is_same(options.dataset_path, options.output_dir):
        raise UsageError(
            f"--output_dir={options.output_dir}: --dataset_path와 같아 모델과 글이 섞입니다. 다른 폴더를 주세요."
        )
    _check_columns(options)
    if options.bf16 and options.fp16:
        raise UsageError("--bf16과 --fp16은 함께 쓸 수 없습니다. 하나만 주세요.")
    if not evaluates:
        for name in ("validation_file", "eval_steps", "sample_prompts", "eval_strategy", "eval_on_start"):
            if getattr(options, name, None) not in (None, False, "no"):
                raise UsageError(f"--{name}에는 평가가 필요합니다. --do_eval을 더하세요.")
    if options.no_measure_texts and options.do_train:
        raise UsageError("--no_measure_texts는 평가만 할 때 씁니다. 학습할 때는 글을 측정하지 않으니 빼세요.")
    if not learns:
        _check_measuring(options)
    if options.vocab_size and options.tokenizer not in (None, "korean"):
        raise UsageError(
            f"--vocab_size는 어휘를 배울 때만 쓰입니다. --tokenizer={options.tokenizer} 대신 --tokenizer=korean을 "
            "주거나 --vocab_size를 빼세요."
        )
    if options.tokenizer and options.model_type == "scratch-mini":
        raise UsageError(
            "--tokenizer는 scratch-mini와 함께 쓸 수 없습니다. 처음부터 배우는 모델은 늘 글에서 어휘를 배우니 "
            "이 플래그를 빼세요."
        )
    if options.lora_alpha and not options.lora_rank:
        raise UsageError("--lora_alpha는 --lora_rank와 함께 써야 합니다. --lora_rank=16처럼 더하세요.")
    if options.lora_rank and options.model_type == "scratch-mini":
        raise UsageError(
            "--lora_rank는 scratch-mini와 함께 쓸 수 없습니다. 처음부터 배우는 모델은 모든 가중치를 학습해야 하니 "
            "이 플래그를 빼세요."
        )
    if options.lora_rank and getattr(options, "hub_strategy", "end") in ("checkpoint", "all_checkpoints"):
        raise UsageError(
            f"--hub_strategy={options.hub_strategy}: --lora_rank와 함께 쓸 수 없습니다. 합친 모델만 학습을 마칠 때 "
            "올리니 이 플래그를 빼세요."
        )
    for name in UPLOADING:
        if hasattr(options, name) and not getattr(options, "push_to_hub", False):
            raise UsageError(f"--{name} 플래그는 --push_to_hub와 함께 써야 합니다. 더하거나 이 플래그를 빼세요.")
    if options.fsdp or getattr(options, "deepspeed", None):
        _check_sharding(options)
    if getattr(options, "dataloader_drop_last", False):
        raise UsageError("--dataloader_drop_last: 글의 토큰은 모두 배웁니다. 이 플래그를 빼세요.")
    if getattr(options, "do_predict", False):
        raise UsageError("--do_predict: 예측은 하지 않습니다. 평가는 --do_eval, 글쓰기는 generate.py로 하세요.")
    sampling = getattr(options, "train_sampling_strategy", "random")
    if sampling not in ("random", "sequential"):
        raise UsageError(
            f"--train_sampling_strategy={sampling}: 블록의 길이가 거의 같아 얻는 것이 없습니다. 이 플래그를 빼세요."
        )
    if options.streaming:
        _check_streaming(options)
    if getattr(options, "use_cpu", False):
        if options.device not in ("auto", "cpu"):
            raise UsageError(
                f"--use_cpu와 --device={particle(options.device, '은/는')} 함께 쓸 수 없습니다. 하나만 주세요."
            )
        options.device = "cpu"


def choose_sample_by(options):
    """Settle what of a .txt is a document; raise where two flags say it each in its own way."""
    if options.line_by_line and options.sample_by not in (None, "line"):
        raise UsageError(f"--sample_by={options.sample_by}: --line_by_line과 함께 쓸 수 없습니다. 하나만 주세요.")
    options.sample_by = "line" if options.line_by_line else options.sample_by or "paragraph"


def choose_best_by_bits(options):
    """Settle what --early_stopping_patience and --load_best_model_at_end leave open; raise what they lack."""
    strategy = getattr(options, "eval_strategy", "no" if options.eval_steps is None else "steps")
    evaluates = options.do_train and options.do_eval and strategy != "no"
    wanted = ("early_stopping_patience", "load_best_model_at_end")
    given = [f"--{name}" for name in wanted if getattr(options, name)]
    saves_best = getattr(options, "save_strategy", "steps") == "best"
    if saves_best and options.do_train:
        given.append("--save_strategy=best")
    if given and not evaluates:
        way_on = "--eval_strategy=no를 빼고 " if getattr(options, "eval_strategy", None) == "no" else ""
        way_on += "--do_train --do_eval --eval_steps=100처럼 더하세요."
        raise UsageError(f"{given[0]}에는 학습하는 동안의 평가가 필요합니다. {way_on}")
    if given and getattr(options, "save_strategy", "steps") == "no":
        raise UsageError(f"{given[0]}에는 체크포인트가 필요합니다. --save_strategy=no를 빼세요.")
    if options.early_stopping_threshold and not options.early_stopping_patience:
        raise UsageError(
            "--early_stopping_threshold는 --early_stopping_patience와 함께 써야 합니다. "
            "--early_stopping_patience=3처럼 더하세요."
        )
    if options.load_best_model_at_end is None:
        options.load_best_model_at_end = options.early_stopping_patience is not None
    if given or saves_best:
        options.metric_for_best_model = getattr(options, "metric_for_best_model", METRICS[0])
    if getattr(options, "metric_for_best_model", None) is not None:
        metric = options.metric_for_best_model.removeprefix("eval_")
        if metric not in METRICS:
            raise UsageError(
                f"--metric_for_best_model={options.metric_for_best_model}: {', '.join(METRICS)} 가운데 하나여야 합니다."
            )
        options.metric_for_best_model = f"eval_{metric}"
        options.greater_is_better = False  # of all of them; transformers knows it of losses alone


def _check_measuring(options):
    """Raise UsageError for what only a run that learns can heed."""
    for name, why in LEARNING.items():
        # scratch-mini learns its vocabulary even to be measured untrained.
        if getattr(options, name, None) and not (name == "vocab_size" and options.model_type == "scratch-mini"):
            raise UsageError(f"--{name} 플래그는 --do_train과 함께 써야 합니다. {why}")
    if options.resume_from_checkpoint not in (None, "false", "False"):
        raise UsageError(
            "--resume_from_checkpoint는 --do_train과 함께 써야 합니다. 체크포인트를 평가하려면 --model_type으로 주세요."
        )


def _check_hub_name(name):
    if os.path.isfile(name):
        raise UsageError(
            f"--dataset_name={name}: Hub의 데이터 세트가 아니라 파일입니다. 혹시 --dataset_path={name}인가요?"
        )
    if name.startswith(HUB):
        meant = "/".join(name.removeprefix(HUB).split("/")[:2])
        raise UsageError(f"--dataset_name={name}: 주소가 아니라 이름을 주세요. 혹시 --dataset_name={meant}인가요?")


def _check_columns(options):
    if (options.prompt_column is None) != (options.answer_column is None):
        raise UsageError("--prompt_column과 --answer_column은 함께 써야 합니다. 질문과 답의 열을 모두 주세요.")
    if options.prompt_column is not None and options.prompt_column == options.answer_column:
        raise UsageError(
            f"--answer_column={options.answer_column}: --prompt_column과 같은 열이라 질문을 그대로 따라 하게 됩니다. "
            "답의 열을 주세요."
        )
    if options.text_column_name is not None and options.text_template is not None:
        raise UsageError("--text_column_name과 --text_template은 함께 쓸 수 없습니다. 하나만 주세요.")
    plain = next((name for name in ("text_template", "text_column_name") if getattr(options, name) is not None), None)
    for name in ("prompt_column", "train_on_prompt"):
        if plain and getattr(options, name):
            raise UsageError(f"--{name} 플래그는 대화에, --{plain} 플래그는 한 글로 읽을 때 쓰입니다. 하나만 주세요.")


def _check_sharding(options):
    """Raise UsageError for what a model whose weights are in parts cannot have."""
    if getattr(options, "optim", None) == "muon":
        raise UsageError(
            "--optim=muon: --fsdp, --deepspeed와 함께 쓸 수 없습니다. 나뉘지 않은 행렬이 있어야 하니 둘 가운데 하나를 "
            "빼세요."
        )
    if options.average_last:
        raise UsageError(
            f"--average_last={options.average_last:g}: --fsdp, --deepspeed와 함께 쓸 수 없습니다. 가중치가 조각나 "
            "있습니다. 둘 가운데 하나를 빼세요."
        )


def _check_streaming(options):
    if not options.dataset_name:
        raise UsageError("--streaming은 --dataset_name과 함께 써야 합니다.")
    if options.do_train and options.max_steps < 1:
        raise UsageError("--streaming에는 --max_steps가 필요합니다. 스트리밍하는 글은 끝을 미리 알 수 없습니다.")
    if options.bpe_dropout:
        raise UsageError("--bpe_dropout은 --streaming과 함께 쓸 수 없습니다. 둘 가운데 하나를 빼세요.")
    if options.do_eval and not options.validation_file:
        raise UsageError("--streaming으로 평가하려면 --validation_file을 주세요.")
