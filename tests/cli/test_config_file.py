"""A --config file gives what the command line would, or is refused in a line."""

import json

import pytest

from gpt2_korean.cli.train_options import parse_train_options
from gpt2_korean.messages import UsageError

TRAIN = ["--do_train", "--dataset_path=data/korean_texts.txt"]


def refusal_of(path, content):
    """What a run is told whose config file holds `content`."""
    path.write_text(content)
    with pytest.raises(UsageError) as refusal:
        parse_train_options([*TRAIN, f"--config={path}"])
    return str(refusal.value)


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".yml"])
def test_a_config_file_gives_the_same_names_and_the_command_line_wins(tmp_path, suffix):
    values = {
        "learning_rate": "3e-4",
        "max_steps": 9,
        "bf16": True,
        "report_to": ["none"],
        "dataset_path": "a.txt",
        "do_train": True,
        "seed": None,
        "lr_scheduler_kwargs": {"num_cycles": 2},
    }
    path = tmp_path / f"run{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps(values))
    else:
        path.write_text(
            "learning_rate: 3e-4\nmax_steps: 9\nbf16: true\nreport_to: [none]\ndataset_path: a.txt\n"
            "do_train: true\nseed:\nlr_scheduler_kwargs: {num_cycles: 2}\n"
        )
    options = parse_train_options([f"--config={path}", "--max_steps", "5"])
    assert options.given["learning_rate"] == 3e-4
    assert options.given["max_steps"] == 5
    assert options.machine.bf16 is True
    assert options.given["report_to"] == ["none"]
    assert options.given["seed"] == 42
    assert json.loads(options.learning.trainer_arguments["lr_scheduler_kwargs"]) == {"num_cycles": 2}


@pytest.mark.parametrize(
    ("word", "value"),
    [("1e-5", 1e-5), ("-1E5", -1e5), ("1.5e3", 1500), ("2.5e-05", 2.5e-5), ("7", 7), ("1e", "1e"), ("1e5x", "1e5x")],
)
def test_a_number_within_a_mapping_of_yaml_is_a_number(tmp_path, word, value):
    path = tmp_path / "run.yaml"
    path.write_text(f"lr_scheduler_kwargs: {{min_lr: {word}}}")
    given = parse_train_options([*TRAIN, f"--config={path}"]).given
    assert json.loads(given["lr_scheduler_kwargs"]) == {"min_lr": value}


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("run.yaml", "lr: 1", "--learning_rate입니다"),
        ("run.yaml", "- a", "이름: 값"),
        ("run.yaml", "", "이름: 값"),
        ("run.yaml", "seed: 1\na: [", "줄"),
        ("run.yaml", "seed: *a", "1번째 줄"),
        ("run.yaml", "seed: 1\nreport_to: [[a]]", "2번째 줄"),
        ("run.yaml", "lr_scheduler_kwargs: {a: 2020-99-99}", "run.yaml"),
        ("run.yaml", "lr_scheduler_kwargs: {a: 2020-01-01}", "run.yaml"),
        ("run.yaml", "lr_scheduler_kwargs: !!python/object:os.system {}", "1번째 줄"),
        ("run.yaml", "lr_scheduler_kwargs: &a {b: *a}", "run.yaml"),
        ("run.yaml", "? [1]\n: 2", "run.yaml"),
        ("run.yaml", "~: 2", "이름입니다: ~"),
        ("run.yaml", "seed: " + "[" * 3000, "run.yaml"),
        ("run.yaml", "seed: \x01", "run.yaml"),
        ("run.json", '{"seed": 1,\n"a" 1}', "2번째 줄"),
        ("run.json", "[1]", "이름: 값"),
        ("run.json", '{"report_to": [["a"]]}', "run.json"),
        ("run.json", '{"seed": ' + "[" * 100_000, "run.json"),
        ("run.json", '{"seed": ' + "1" * 5000 + "}", "run.json"),
        ("run.json", '{"do_eval": []}', "do_eval"),
        ("run.json", '{"report_to": ["none", "--do_eval"]}', "report_to"),
        ("run.json", '{"help": ["x"]}', "help"),
        ("run.yml", "config: other.yml", "config"),
        ("run.json", '{"output_dir": "a\\u0000b"}', "NUL"),
        ("run.toml", "seed = 1", ".yaml"),
    ],
)
def test_a_wrong_config_file_is_refused_in_a_line(tmp_path, name, content, place):
    told = refusal_of(tmp_path / name, content)
    assert place in told and len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("run.yaml", "learning_rate: fast", "--learning_rate: 'fast'는 수가 아닙니다"),
        ("run.yaml", "seed: 1\nbf16: maybe", "--bf16: 'maybe'"),
        ("run.yaml", "max_steps: {a: 1}", "--max_steps: "),
        ("run.yaml", "max_steps: [1, 2]", "max_steps에는 값을 하나만"),
        (
            "run.json",
            '{"dataset_path": ["data/korean_texts.txt", "data/dialogue.csv"]}',
            "dataset_path에는 값을 하나만",
        ),
        ("run.json", '{"optim": "adan"}', "--optim: 'adan'"),
    ],
)
def test_a_wrong_value_of_a_config_file_is_told_with_the_file(tmp_path, name, content, said):
    assert refusal_of(tmp_path / name, content).startswith(f"{tmp_path / name}: {said}")


@pytest.mark.parametrize(
    ("name", "content", "line", "right"),
    [
        ("run.yaml", "seed: 1\nmax_steps 5\nbf16: true", 2, "`max_steps: 100`"),
        ("run.yaml", "seed: 1\nrun_name: 'a\nbf16: true\n", 2, "`max_steps: 100`"),
        ("run.yaml", "seed: 1\n bf16: true\n", 2, "`max_steps: 100`"),
        ("run.json", '{"seed": 1,\n"max_steps" 5}', 2, '`{"max_steps": 100'),
    ],
)
def test_a_wrong_line_of_a_config_file_is_named_and_how_it_is_right_in_its_format(tmp_path, name, content, line, right):
    told = refusal_of(tmp_path / name, content)
    assert f" {line}번째 줄의" in told and right in told


def test_a_config_file_that_is_no_utf8_or_not_there_is_refused(tmp_path):
    path = tmp_path / "run.yaml"
    for content, said in (
        (None, "없습니다"),
        ("seed: 1  # 시드".encode("cp949"), "UTF-8이 아닙니다"),
        ("seed: 1".encode("utf-16"), "UTF-8이 아닙니다"),
    ):
        if content:
            path.write_bytes(content)
        with pytest.raises(UsageError, match=rf"run\.yaml.*{said}"):
            parse_train_options([*TRAIN, f"--config={path}"])


@pytest.mark.parametrize(
    ("name", "value"),
    [("output_dir", "11:30"), ("output_dir", "no"), ("output_dir", "2020-01-01"), ("output_dir", "1_0"),
     ("lr_scheduler_type", "cosine"), ("eval_strategy", "no"), ("save_strategy", "no"), ("learning_rate", "3e-4"),
     ("max_steps", "010"), ("bf16", "no"), ("bf16", "True"), ("run_name", "0x10"), ("run_name", "~")],
)  # fmt: skip
def test_a_value_of_a_config_file_is_what_the_command_line_makes_of_it(tmp_path, name, value):
    path = tmp_path / "run.yaml"
    path.write_text(f"{name}: {value}" if value != "~" else f"{name}: '~'")
    assert (
        parse_train_options([*TRAIN, f"--config={path}"]).given[name]
        == (parse_train_options([*TRAIN, f"--{name}={value}"]).given[name])
    )


def test_of_several_config_files_all_are_read_and_the_later_wins(tmp_path):
    for name, content in (("a", "max_steps: 9\nseed: 1"), ("b", "seed: 2\nbf16: false")):
        (tmp_path / f"{name}.yaml").write_text(content)
    given = parse_train_options([*TRAIN, *(f"--config={tmp_path / name}.yaml" for name in "ab")]).given
    assert (given["max_steps"], given["seed"], given["bf16"]) == (9, 2, False)


@pytest.mark.parametrize(
    ("content", "name", "value"),
    [
        ("report_to: [tensorboard, wandb]", "report_to", ["tensorboard", "wandb"]),
        ("report_to:\n- none\n-\n", "report_to", ["none"]),
        ("max_steps: [9]", "max_steps", 9),
        ("<<: {seed: 1, max_steps: 9}\nseed: 2", "max_steps", 9),
        ("<<: {seed: 1, max_steps: 9}\nseed: 2", "seed", 2),
    ],
)
def test_lists_and_what_is_merged_into_a_config_file_are_what_yaml_says(tmp_path, content, name, value):
    path = tmp_path / "run.yaml"
    path.write_text(content)
    assert parse_train_options([*TRAIN, f"--config={path}"]).given[name] == value


def test_a_name_of_a_config_file_may_have_the_dashes_of_its_flag(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("--max_steps: 9\n--learning-rate: 3e-4\n--no_bf16: true\n")
    given = parse_train_options([*TRAIN, f"--config={path}"]).given
    assert (given["max_steps"], given["learning_rate"], given["bf16"]) == (9, 3e-4, False)


def test_json_is_read_as_json(tmp_path):
    path = tmp_path / "run.JSON"
    path.write_text('\ufeff{\n\t"run_name": "\\ud83d\\ude00 이름",\n\t"report_to": ["none"],\t"bf16": null\n}', "utf-8")
    given = parse_train_options([*TRAIN, f"--config={path}"]).given
    assert (given["run_name"], given["report_to"], given["bf16"]) == ("😀 이름", ["none"], None)


@pytest.mark.parametrize("name", ["bf16", "torch_compile", "load_best_model_at_end", "dataloader_pin_memory"])
def test_a_negated_switch_takes_a_value_as_every_other_does(tmp_path, name):
    path = tmp_path / "run.yaml"
    for value, expected in (("true", False), ("no", True)):
        path.write_text(f"no_{name}: {value}\n", "utf-8")
        words = ["--dataset_path=a.txt", "--do_train", "--do_eval", "--eval_steps=5", "--save_steps=5"]
        assert parse_train_options([*words, f"--config={path}"]).given[name] is expected
