"""The command line: every flag of TrainingArguments, quick refusals that name flag, value and way on."""

import dataclasses
import re
import unicodedata
from types import SimpleNamespace

import pytest

from gpt2_korean.cli.generate_checks import check_chat
from gpt2_korean.cli.generate_flags import generate_parser
from gpt2_korean.cli.generate_options import parse_generate_options, parse_setting
from gpt2_korean.cli.train_flags import train_parser
from gpt2_korean.cli.train_options import parse_train_options
from gpt2_korean.cli.trainer_flags import read_trainer_flags
from gpt2_korean.messages import UsageError, width

TRAIN = ["--do_train", "--dataset_path=data/korean_texts.txt"]


def test_every_field_of_training_arguments_is_a_flag_of_its_type():
    from transformers import TrainingArguments

    flags = read_trainer_flags()
    fields = {field.name: field for field in dataclasses.fields(TrainingArguments) if field.init}
    assert flags.keys() == fields.keys()
    for name, field in fields.items():
        if isinstance(field.default, bool):
            assert flags[name].kind is bool, name
        elif isinstance(field.default, float):
            assert flags[name].kind is float, name
        elif isinstance(field.default, int):
            assert flags[name].kind in (int, float), name


def test_an_annotation_that_is_not_understood_is_named_and_not_taken_for_text(tmp_path, monkeypatch):
    for annotation in ("Optional[int]", "Sequence[str] | None"):
        (tmp_path / "training_args.py").write_text(f"class TrainingArguments:\n    new_field: {annotation} = None\n")
        (tmp_path / "trainer_utils.py").touch()
        package = SimpleNamespace(origin=tmp_path / "__init__.py")
        monkeypatch.setattr("gpt2_korean.cli.trainer_flags.find_spec", lambda name, package=package: package)
        with pytest.raises(TypeError) as refusal:
            read_trainer_flags()
        assert "new_field" in str(refusal.value) and annotation.split(" |")[0] in str(refusal.value)


def test_choices_are_those_of_the_enums_of_transformers():
    from transformers.trainer_utils import IntervalStrategy, SchedulerType
    from transformers.training_args import OptimizerNames

    flags = read_trainer_flags()
    enums = {"lr_scheduler_type": SchedulerType, "eval_strategy": IntervalStrategy}
    for name, enum in enums.items():
        assert set(flags[name].choices) == {member.value for member in enum}
    assert set(flags["optim"].choices) == {member.value for member in OptimizerNames} | {"muon"}


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--bf16"], "bf16", True),
        (["--bf16", "false"], "bf16", False),
        (["--no_bf16"], "bf16", False),
        (["--gradient_checkpointing"], "gradient_checkpointing", True),
        (["--max_steps", "7"], "max_steps", 7),
        (["--max-steps=7"], "max_steps", 7),
        (["--lr_scheduler_type=cosine"], "lr_scheduler_type", "cosine"),
        (["--report_to", "tensorboard", "wandb"], "report_to", ["tensorboard", "wandb"]),
        (["--adam_beta2", "0.95"], "adam_beta2", 0.95),
        (["--push_to_hub"], "push_to_hub", True),
        (["--no_dataloader_pin_memory"], "dataloader_pin_memory", False),
        (["--lr_scheduler_kwargs", '{"num_cycles": 2}'], "lr_scheduler_kwargs", '{"num_cycles": 2}'),
        (["--label_names", "labels", "more"], "label_names", ["labels", "more"]),
    ],
)
def test_trainer_flags_reach_trainer_in_both_spellings(words, name, value):
    assert parse_train_options(TRAIN + words).learning.trainer_arguments[name] == value


@pytest.mark.parametrize("make_parser", [generate_parser, train_parser])
def test_every_switch_can_be_turned_off_by_its_no(make_parser):
    switches = [action.dest for action in make_parser().listed() if action.metavar == "true|false"]
    assert len(switches) > 5
    for name in switches:
        off = f"--{name}=false" if name.startswith("no_") else f"--no_{name}"
        assert getattr(make_parser().parse([f"--{name}", off]), name) is False


@pytest.mark.parametrize(
    "words", [["--serve", "--output_file=x"], ["--serve", "--resume"], ["--export=x.gguf", "--engine=torch"]]
)
def test_no_particle_is_guessed_from_the_spelling_of_an_english_flag(words):
    flag = words[1].partition("=")[0]
    with pytest.raises(UsageError, match=f"{flag} 플래그는"):
        parse_generate_options(["--model_name_or_path=x", *words])


def test_a_stream_needs_an_end_to_learn_from_and_texts_of_its_own_to_be_measured():
    stream = ["--dataset_name=x", "--streaming"]
    for words, named in (
        (["--do_train"], "--max_steps"),
        (["--do_train", "--max_steps=9", "--do_eval"], "--validation"),
    ):
        with pytest.raises(UsageError, match=named):
            parse_train_options([*stream, *words])
    parse_train_options([*stream, "--do_eval", "--validation_file=a.txt"])
    parse_train_options([*stream, "--do_train", "--max_steps=1"])


def test_use_cpu_is_the_device():
    for words in (["--use_cpu"], ["--use_cpu", "--device=cpu"]):
        assert parse_train_options([*TRAIN, *words]).machine.device == "cpu"
    assert parse_train_options(TRAIN).machine.device == "auto"


def test_ungiven_trainer_flags_are_left_to_trainer():
    given = parse_train_options(TRAIN).learning.trainer_arguments
    assert not {"adam_beta1", "push_to_hub", "label_names"} & given.keys()


def test_every_level_of_trainers_log_is_taken():
    from transformers.training_args import trainer_log_levels

    for level in trainer_log_levels:
        assert parse_train_options([*TRAIN, f"--log_level={level}"]).given["log_level"] == level


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--learning_rate=nan"], ["--learning_rate", "nan"]),
        (["--per_device_train_batch_size=1.5"], ["--per_device_train_batch_size", "1.5"]),
        (["--save_steps=1.5"], ["--save_steps", "1.5", "정수"]),
        (["--log_level=loud"], ["--log_level", "loud", "warning"]),
        (["--learning_rate=--"], ["--learning_rate", "--"]),
        (["--do_eval=--"], ["--do_eval", "--"]),
        (["--per_device_train_batch_size=" + "9" * 30], ["--per_device_train_batch_size"]),
        (["--max_steps=" + "9" * 5000], ["--max_steps"]),
        (["--bf16", "--fp16"], ["--bf16", "--fp16"]),
        (["--device=gpu"], ["--device", "gpu", "cuda"]),
        (["--text_template=없음"], ["--text_template", "없음"]),
        (["--eval_steps=5"], ["--eval_steps", "--do_eval"]),
        (["--eval_strategy=epoch"], ["--eval_strategy", "--do_eval"]),
        (["--eval_on_start"], ["--eval_on_start", "--do_eval"]),
        (["--validation_file=x"], ["--validation_file", "--do_eval"]),
        (["--sample_prompts=x"], ["--sample_prompts", "--do_eval"]),
        (["--tokenizer=korean", "--model_type=scratch-mini"], ["--tokenizer", "scratch-mini"]),
        (["--dataset_name=x"], ["--dataset_path", "--dataset_name"]),
        (["--output_dir=글/", "--dataset_path=글"], ["--dataset_path", "--output_dir", "글/"]),
        (["--lora_alpha=16"], ["--lora_alpha", "--lora_rank"]),
        (["--lora_rank=8", "--model_type=scratch-mini"], ["--lora_rank", "scratch-mini"]),
        (
            ["--lora_rank=8", "--push_to_hub", "--hub_strategy=all_checkpoints"],
            ["--lora_rank", "--hub_strategy=all_checkpoints"],
        ),
        (["--lora_rank=8", "--push_to_hub", "--hub_strategy=checkpoint"], ["--lora_rank", "--hub_strategy=checkpoint"]),
        (["--hub_model_id=나/모델"], ["--hub_model_id", "--push_to_hub"]),
        (["--hub_strategy=checkpoint"], ["--hub_strategy", "--push_to_hub"]),
        (["--no_hub_always_push", "--push_to_hub=false"], ["--hub_always_push", "--push_to_hub"]),
        (["--push_to_hub", "--do_train=false", "--do_eval"], ["--push_to_hub", "--do_train"]),
        (["--optim=muon", "--fsdp"], ["--optim=muon", "--fsdp"]),
        (["--optim=muon", "--deepspeed=x.json"], ["--optim=muon", "--deepspeed"]),
        (["--average_last=0.5", "--fsdp"], ["--average_last=0.5", "--fsdp"]),
        (["--average_last=4", "--deepspeed=x.json"], ["--average_last=4", "--deepspeed"]),
        (["--prompt_column=Q", "--answer_column=Q"], ["--answer_column=Q", "--prompt_column"]),
        (["--use_cpu", "--device=cuda"], ["--use_cpu", "--device=cuda"]),
        (["--streaming"], ["--streaming", "--dataset_name"]),
        (["--seed"], ["--seed"]),
        (["--dataloader_drop_last"], ["--dataloader_drop_last"]),
        (["--do_predict"], ["--do_predict", "--do_eval", "generate.py"]),
        (["--train_sampling_strategy=group_by_length"], ["--train_sampling_strategy", "group_by_length"]),
        (["--train_sampling_strategy=foo"], ["--train_sampling_strategy", "foo", "sequential"]),
        (["--ddp_backend=foo"], ["--ddp_backend", "foo", "nccl"]),
    ],
)
def test_a_wrong_flag_or_value_is_refused_by_name(words, named):
    with pytest.raises(UsageError) as refusal:
        parse_train_options(TRAIN + words)
    for word in named:
        assert word in str(refusal.value)
    assert len(str(refusal.value).splitlines()) <= 2


@pytest.mark.parametrize(
    "words",
    [
        ["--lora_rank=8", "--push_to_hub", "--hub_strategy=every_save"],
        ["--push_to_hub", "--hub_model_id=나/모델", "--hub_strategy=checkpoint"],
        ["--train_sampling_strategy=sequential"],
        ["--optim=muon", "--average_last=4", "--no_fsdp"],
        ["--optim=adafactor", "--average_last=0", "--fsdp"],
        ["--show_data=3", "--do_train=false", "--sample_prompts=x", "--license=mit", "--lora_rank=8"],
    ],
)
def test_what_a_run_can_do_is_taken(words):
    parse_train_options([*TRAIN, *words])


def test_a_letter_that_is_no_utf8_is_told_by_its_place():
    with pytest.raises(UsageError, match="--prompt: 3번째 글자"):
        parse_generate_options(["--model_name_or_path=x", "--prompt=가나\udcc7\udcd1"])


@pytest.mark.parametrize(
    "words",
    [
        ["--temperature=inf"],
        ["--dry_sequence_breaker="],
        ["--repetition_penalty=1e39"],
        ["--repetition_penalty=1e-320"],
        ["--temperature=1e-320"],
        ["--length=" + "9" * 30],
        ["--min_length=" + "9" * 30],
        ["--min_length=101"],
        ["--min_length=9", "--length=8"],
        ["--seed=" + "9" * 30],
        ["--stop="],
        ["--prompt=\udcc7\udcd1"],
        ["--prompt=a", "--prompt_file=b"],
    ],
)
def test_generate_refuses_what_it_cannot_do(words):
    with pytest.raises(UsageError) as refusal:
        parse_generate_options(["--model_name_or_path=x", *words])
    assert words[0].split("=")[0] in str(refusal.value)


PATHS = {
    parse_train_options: [
        "dataset_path", "dataset_name", "validation_file", "model_type", "tokenizer", "output_dir", "logging_dir",
        "resume_from_checkpoint", "sample_prompts", "deepspeed",
    ],
    parse_generate_options: ["model_name_or_path", "prompt_file", "output_file"],
}  # fmt: skip


@pytest.mark.parametrize(("parse", "name"), [(parse, name) for parse, names in PATHS.items() for name in names])
def test_the_home_folder_is_meant_wherever_a_path_is_taken(parse, name, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/집")
    train = parse is parse_train_options
    words = ["--do_train", "--do_eval"] if train else []
    words += {"dataset_path": [], "dataset_name": [], "model_name_or_path": []}.get(
        name, ["--dataset_path=x"] if train else ["--model_name_or_path=x"]
    )

    def value(*more):
        options = parse([*words, *more])
        given = options.given if train else {k: v for group in vars(options).values() for k, v in vars(group).items()}
        return given[name]

    for shown, meant in (("~/글", "/집/글"), ("a/~", "a/~"), ("~", "/집"), ("./~/a", "./~/a")):
        assert value(f"--{name}={shown}") == value(f"--{name}", shown) == meant
        if train:
            config = tmp_path / "run.yaml"
            config.write_text(f'{name}: "{shown}"', "utf-8")
            assert value(f"--config={config}") == meant
    monkeypatch.setenv("WORK", "/일")
    monkeypatch.setenv("EMPTY", "")
    for shown, meant in (("$WORK/글", "/일/글"), ("~/${WORK}x", "/집//일x"), ("/a/$", "/a/$")):
        assert value(f"--{name}={shown}") == meant
    for empty in ("", " "):
        with pytest.raises(UsageError, match=f"--{name}: 값이 비었습니다"):
            value(f"--{name}={empty}")
    for wrapped in ("글\r", "글\n", "글\n글"):
        with pytest.raises(UsageError, match=f"--{name}: .*줄 바꿈이 있습니다"):
            value(f"--{name}={wrapped}")
    with pytest.raises(UsageError, match=f"--{name}: .*이름이 너무 깁니다"):
        value(f"--{name}={'가' * 86}")
    for unknown in ("$EMPTY/x", "a/${NOWHERE}", "$5"):
        with pytest.raises(UsageError, match=f"--{name}: .*환경 변수"):
            value(f"--{name}={unknown}")


def test_a_name_with_a_dollar_sign_that_is_there_is_meant(tmp_path):
    file = tmp_path / "값$5.txt"
    file.touch()
    assert parse_generate_options(["--model_name_or_path=x", f"--prompt_file={file}"]).prompts.prompt_file == str(file)


FILES = ("sample_prompts", "config", "deepspeed", "accelerator_config", "fsdp_config")


@pytest.mark.parametrize(
    ("parse", "name", "wanted"),
    [(parse_train_options, name, "file") for name in FILES]
    + [(parse_train_options, name, "folder") for name in ("output_dir", "logging_dir", "resume_from_checkpoint")]
    + [(parse_generate_options, name, "file") for name in ("prompt_file", "output_file")],
)
def test_a_folder_for_a_file_and_a_file_for_a_folder_are_called_so(parse, name, wanted, tmp_path):
    words = ["--model_name_or_path=x"] if parse is parse_generate_options else [*TRAIN, "--do_eval"]
    (tmp_path / "file").touch()
    given = tmp_path if wanted == "file" else f"{tmp_path / 'file'}/"
    if wanted == "file":
        with pytest.raises(UsageError, match=f"--{name}: .*폴더입니다"):
            parse([*words, f"--{name}={tmp_path}/new/"])  # which is not there yet
    said = f"--{name}: .*{'폴더입니다. 파일을' if wanted == 'file' else '파일입니다. 폴더를'} 주세요"
    with pytest.raises(UsageError, match=said):
        parse([*words, f"--{name}={given}"])
    if parse is parse_train_options and name != "config":
        (tmp_path / "run.yaml").write_text(f"{name}: {given}")
        with pytest.raises(UsageError, match=said):
            parse([*words, f"--config={tmp_path / 'run.yaml'}"])


@pytest.mark.parametrize("name", ["output_dir", "logging_dir", "output_file"])
@pytest.mark.parametrize(("made", "typed"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_what_is_written_goes_into_the_folder_that_is_there_however_its_hangul_is_composed(tmp_path, name, made, typed):
    """As one that macOS made, seen on a network's drive: else a twin of it would be made beside it."""
    (there := tmp_path / unicodedata.normalize(made, "내 드라이브")).mkdir()
    word = f"--{name}={tmp_path / unicodedata.normalize(typed, '내 드라이브')}/new"
    if name == "output_file":
        found = parse_generate_options(["--model_name_or_path=x", word]).output.output_file
    else:
        found = parse_train_options([*TRAIN, word]).given[name]
    assert found == str(there / "new")


def test_two_hyphens_are_a_value_like_any_other():
    options = parse_generate_options(["--model_name_or_path=x", "--prompt=--", "--stop=--", "--stop=a"])
    assert (options.prompts.prompt, options.settings.stop) == (["--"], ["--", "a"])
    assert parse_train_options([*TRAIN, "--run_name=--", "--report_to=--"]).given["report_to"] == ["--"]
    with pytest.raises(UsageError, match="--length"):
        parse_setting("length", "--")


def test_a_text_to_stop_at_that_was_typed_in_parts_is_the_one_that_a_model_writes():
    parts = unicodedata.normalize("NFD", "끝")
    words = [f"--stop={parts}", f"--dry_sequence_breaker={parts}"]
    settings = parse_generate_options(["--model_name_or_path=x", *words]).settings
    assert settings.stop == settings.dry_sequence_breaker == ["끝"] == [parse_setting("stop", parts)[0]]


def test_given_breakers_stand_in_place_of_the_default_ones():
    from gpt2_korean.cli.generate_options import to_words

    for words in ([], ["--dry_sequence_breaker=\\n"], ["--dry_sequence_breaker=다.", '--dry_sequence_breaker="']):
        options = parse_generate_options(["--model_name_or_path=x", *words])
        given = [word.partition("=")[2].replace("\\n", "\n") for word in words]
        assert options.settings.dry_sequence_breaker == (given or ["\n", ":", '"', "*"])
        assert to_words(options) == ["--model_name_or_path=x", *words]


def test_bytes_that_are_utf8_are_read_whatever_the_locale():
    as_in_posix = "한글".encode().decode("ascii", "surrogateescape")
    options = parse_generate_options([f"--model_name_or_path=모델/{as_in_posix}", f"--prompt={as_in_posix}"])
    assert (options.model.model_name_or_path, options.prompts.prompt) == ("모델/한글", ["한글"])


@pytest.mark.parametrize("flag", ["output_dir", "logging_dir", "model_type", "tokenizer", "resume_from_checkpoint"])
def test_a_folder_that_libraries_could_not_save_to_in_this_locale_is_refused_at_once(flag, tmp_path, monkeypatch):
    folder = tmp_path / "모델"
    folder.mkdir()
    words = [*TRAIN, f"--{flag}={folder}", "--dataset_path=글.txt"]
    assert parse_train_options(words).given[flag] == str(folder)
    monkeypatch.setattr("sys.getfilesystemencoding", lambda: "euc_kr")  # of a terminal set to ko_KR.EUC-KR
    with pytest.raises(UsageError, match=f"--{flag}: .*모델.*euc_kr.*영문 이름.*UTF-8"):
        parse_train_options(words)
    assert (
        parse_train_options([*TRAIN, "--output_dir=models/ko", "--dataset_path=글.txt"]).text.dataset_path == "글.txt"
    )


def test_a_config_file_is_found_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run.yaml").write_text("seed: 7")
    assert parse_train_options([*TRAIN, "--config=~/run.yaml"]).given["seed"] == 7


def test_nothing_to_do_is_said():
    with pytest.raises(UsageError, match="--do_train"):
        parse_train_options(["--dataset_path=x"])


def test_texts_are_needed_to_learn_from_and_a_file_of_its_own_is_enough_to_be_measured_on():
    for words in (["--do_train"], ["--do_eval"], ["--do_train", "--do_eval", "--validation_file=x"]):
        with pytest.raises(UsageError, match="--dataset_path"):
            parse_train_options(words)
    parse_train_options(["--do_eval", "--validation_file=x"])


@pytest.mark.parametrize("script", ["train.py", "generate.py"])
def test_help_is_korean_and_loads_neither_torch_nor_transformers(script, run_script):
    finished = run_script("-X", "importtime", script, "--help")
    assert finished.returncode == 0
    assert "사용법:" in finished.stdout and "기본값" in finished.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in finished.stderr.splitlines()}
    assert "argparse" in imported
    assert not imported & {"torch", "transformers", "datasets", "numpy"}


@pytest.mark.parametrize("columns", [80, 120])
def test_help_fits_the_terminal(columns, monkeypatch):
    """A Korean letter takes two columns; what is too long would go on below the flags."""
    monkeypatch.setenv("COLUMNS", str(columns))
    for parser in (train_parser(), generate_parser()):
        lines = parser.format_help().splitlines()
        told = [line for line in lines if not line.startswith("사용법:")]  # a command is not broken
        assert columns - 20 < max(map(width, told)) <= columns
        text = " ".join(" ".join(lines).split())
        assert [action.dest for action in parser.listed() if action.help.replace("%%", "%") not in text] == []


@pytest.mark.parametrize("parser", [train_parser, generate_parser])
def test_the_column_of_help_is_straight_beside_values_with_a_korean_name(parser, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    starts = re.findall(r"^( {20,}|  -.*?  +)\S", parser().format_help(), re.MULTILINE)
    assert len(starts) > 50 and len(set(map(width, starts))) == 1


# Of each number what is just taken, and what is just refused.
BOUNDS = {
    generate_parser: {
        "length": ("1 1000000", "0 1000001"), "min_length": ("0", "-1"), "seed": (f"0 {2**63 - 1}", f"-1 {2**63}"),
        "top_k": ("0", "-1"), "top_p": ("0.001 1", "0 1.001"), "min_p": ("0 1", "-0.001 1.001"),
        "typical_p": ("0.001 1", "0 1.001"), "temperature": ("0 0.001 1000", "-0.001 0.0009 1000.1"),
        "repetition_penalty": ("0.001 1000", "0 0.0009 1000.1"), "repetition_window": ("0", "-1"),
        "frequency_penalty": ("-2 2", "-2.001 2.001"), "presence_penalty": ("-2 2", "-2.001 2.001"),
        "dry_multiplier": ("0", "-0.001"), "dry_base": ("1", "0.999"), "dry_allowed_length": ("1", "0"),
        "dry_penalty_last_n": ("0", "-1"), "no_repeat_ngram_size": ("0", "-1"), "port": ("0 65535", "-1 65536"),
        "num_return_sequences": ("1 1000000", "0 1000001"), "batch_size": ("1 4096", "0 4097"),
    },
    train_parser: {
        "block_size": ("2 1000000", "1 1000001"), "validation_split_percentage": ("0.001 90", "0 90.001"),
        "show_data": ("0", "-1"), "vocab_size": ("384 512 999936", "256 383 385 1000064"),
        "max_hours": ("0.001 100000", "0 100001"), "save_steps": ("0.001 1 2", "0 1.001"),
        "logging_steps": ("0.001 1 2", "0 1.001"), "eval_steps": ("0.001 1 2", "0 1.001"),
        "save_total_limit": ("1", "0"), "early_stopping_patience": ("1", "0"), "early_stopping_threshold": ("0", "-1"),
        "per_device_train_batch_size": ("1 65536", "0 65537"), "per_device_eval_batch_size": ("1 65536", "0 65537"),
        "gradient_accumulation_steps": ("1 65536", "0 65537"), "num_train_epochs": ("0.001", "0"),
        "max_steps": ("-1 1", "-2 0.5"), "learning_rate": ("1e-9 1000", "0 1001"), "adam_epsilon": ("1e-30", "0"),
        "embedding_learning_rate": ("1e-9 1000", "0 1001"), "warmup_steps": ("0 0.5 2", "-1 2.5"),
        "weight_decay": ("0", "-0.001"), "dropout": ("0 0.999", "-0.001 1"),
        "bpe_dropout": ("0 0.999", "-0.001 1"), "max_grad_norm": ("0", "-0.001"),
        "average_last": ("0 0.5 2", "-1 2.5"), "lora_rank": ("0 4096", "-1 4097"),
        "lora_alpha": ("1 1000000", "0 1000001"), "seed": (f"0 {2**32 - 1}", f"-1 {2**32}"),
        "adam_beta1": ("0 0.999", "-0.001 1"), "adam_beta2": ("0 0.999", "-0.001 1"),
        "label_smoothing_factor": ("0 1", "-0.001 1.001"), "neftune_noise_alpha": ("0 1000", "-0.001 1000.1"),
        "data_seed": (f"0 {2**32 - 1}", f"-1 {2**32}"), "dataloader_num_workers": ("0 1000", "-1 1001"),
        "dataloader_prefetch_factor": ("1 1000", "0 1001"), "ddp_bucket_cap_mb": ("1 1000000", "0 1000001"),
        "ddp_timeout": ("1", "0"), "eval_accumulation_steps": ("1", "0"), "torch_empty_cache_steps": ("1", "0"),
        "eval_delay": ("0 0.5", "-0.001"), "local_rank": ("-1 0", "-2 0.5"),
    },
}  # fmt: skip


@pytest.mark.parametrize(("make_parser", "name"), [(parser, name) for parser in BOUNDS for name in BOUNDS[parser]])
def test_the_least_and_the_most_that_a_flag_takes_are_taken_and_no_more(make_parser, name):
    taken, refused = (words.split() for words in BOUNDS[make_parser][name])
    for word in taken:
        value = getattr(make_parser().parse([f"--{name}={word}"]), name)
        assert value == type(value)(word)
    for word in refused:
        with pytest.raises(UsageError, match=f"--{name}: "):
            make_parser().parse([f"--{name}={word}"])


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--tokenizer=korean"], "--tokenizer"),
        (["--tokenizer=original"], "--tokenizer"),
        (["--vocab_size=512"], "--vocab_size"),
        (["--embedding_learning_rate=1e-3"], "--embedding_learning_rate"),
        (["--average_last=2"], "--average_last"),
        (["--dropout=0.1"], "--dropout"),
        (["--bpe_dropout=0.1"], "--bpe_dropout"),
        (["--lora_rank=8"], "--lora_rank"),
        (["--sample_prompts=x"], "--sample_prompts"),
        (["--license=mit"], "--license"),
        (["--resume_from_checkpoint=auto"], "--resume_from_checkpoint"),
    ],
)
def test_what_only_learning_heeds_is_refused_with_evaluation_alone(words, named):
    measuring = ["--do_eval", "--dataset_path=x"]
    with pytest.raises(UsageError, match=f"{named}.*--do_train") as refusal:
        parse_train_options([*measuring, *words])
    assert ("어휘" in str(refusal.value)) == (named in ("--tokenizer", "--vocab_size"))
    parse_train_options([*measuring, "--do_train", *words])
    parse_train_options([*measuring, "--model_type=scratch-mini", "--vocab_size=512"])
    for word in ("false", "False"):  # as a script writes what is no flag
        parse_train_options([*measuring, f"--resume_from_checkpoint={word}"])


@pytest.mark.parametrize("tokenizer", ["original", "다른/폴더"])
def test_the_size_of_a_vocabulary_that_is_not_learnt_is_refused(tokenizer):
    with pytest.raises(UsageError, match=r"--vocab_size.*--tokenizer"):
        parse_train_options([*TRAIN, f"--tokenizer={tokenizer}", "--vocab_size=512"])
    parse_train_options([*TRAIN, "--tokenizer=korean", "--vocab_size=512"])


@pytest.mark.parametrize("mode", ["--interactive", "--serve"])
@pytest.mark.parametrize("flag", ["--stream", "--stream=false", "--batch_size=32", "--batch-size=4", "--resume"])
def test_what_a_session_and_the_page_settle_themselves_is_refused(mode, flag):
    with pytest.raises(UsageError) as refusal:
        parse_generate_options(["--model_name_or_path=x", mode, flag])
    assert mode in str(refusal.value) and flag.split("=")[0].replace("batch-", "batch_") in str(refusal.value)


TEMPLATE, SYSTEM = "--prompt_template=질문: {prompt}", "--system=너는 시인이야."


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ("--interactive", "--prompt=가"),
        ("--interactive", "--prompt_file=x"),
        ("--raw", SYSTEM),
        (TEMPLATE, SYSTEM),
        ("--serve", "--num_return_sequences=2"),
    ],
)
def test_flags_that_do_not_go_together_are_refused_and_each_is_taken_alone(first, other):
    model = "--model_name_or_path=x"
    with pytest.raises(UsageError, match=other.partition("=")[0]):
        parse_generate_options([model, first, other])
    for word in (first, other):
        parse_generate_options([model, word])


def test_flags_that_go_together_are_taken(tmp_path):
    (tmp_path / "글.txt").touch()
    (tmp_path / "답.jsonl").touch()
    files = f"--prompt_file={tmp_path / '글.txt'}"
    for words in (
        ["--interactive", TEMPLATE, "--num_return_sequences=1"],
        ["--interactive", "--num_return_sequences=2"],
        [TEMPLATE, "--num_return_sequences=2"],
        ["--min_length=8", "--length=8"],
        ["--serve", "--prompt=가", "--num_return_sequences=1"],
        ["--export=a.gguf", "--export_type=f32", SYSTEM, "--temperature=0.5"],
        [files, f"--output_file={tmp_path / '답.jsonl'}"],
        [files, f"--output_file={tmp_path / '새.jsonl'}"],
    ):
        parse_generate_options(["--model_name_or_path=x", *words])


def test_taking_up_needs_the_file_of_what_is_written():
    with pytest.raises(UsageError, match=r"--resume.*--output_file"):
        parse_generate_options(["--model_name_or_path=x", "--resume"])
    assert parse_generate_options(["--model_name_or_path=x", "--resume", "--output_file=글.jsonl"]).output.resume


@pytest.mark.parametrize("flag", ["--host=127.0.0.1", "--port=7860"])
def test_the_pages_address_without_the_page_is_refused(flag):
    with pytest.raises(UsageError, match="--serve"):
        parse_generate_options(["--model_name_or_path=x", flag])
    parse_generate_options(["--model_name_or_path=x", flag, "--serve"])


@pytest.mark.parametrize("word", ["0", "-1"])
def test_no_steps_leave_the_length_of_a_run_to_its_epochs(word):
    options = parse_train_options(["--dataset_path=a.txt", "--do_train", f"--max_steps={word}"])
    assert options.learning.trainer_arguments["max_steps"] == -1


def test_switches_that_a_run_settles_itself_are_left_open():
    settled = ["train_on_prompt", "load_best_model_at_end", "bf16", "fp16", "torch_compile", "device_graphs", "fsdp"]
    for make_parser, names in ((train_parser, settled), (generate_parser, ["stream"])):
        options = make_parser().parse(["--seed=1"])
        assert {getattr(options, name) for name in names} == {None}


def test_a_page_that_holds_conversations_needs_no_prompt_as_a_command_does():
    command, page = (parse_generate_options(["--model_name_or_path=m", *words]) for words in ([], ["--serve"]))
    with pytest.raises(UsageError, match="건넬 말이 없습니다"):
        check_chat(command, object(), [""])
    check_chat(page, object(), [""])
