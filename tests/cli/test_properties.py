"""Whatever stands on a command line or in a config file: options within their bounds, or a refusal of a line or two."""

import json
import math
import os
import tempfile
from pathlib import Path

import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from gpt2_korean.cli.generate_flags import generate_parser
from gpt2_korean.cli.generate_options import parse_generate_options
from gpt2_korean.cli.train_flags import train_parser
from gpt2_korean.cli.train_options import parse_train_options
from gpt2_korean.messages import UserError

TRAIN = ["--do_train", "--dataset_path=x"]
WRITE = ["--model_name_or_path=x"]

TRAIN_FLAGS, WRITE_FLAGS = train_parser().flag_names(), generate_parser().flag_names()
NUMBERS = st.one_of(
    st.integers(), st.integers(10**25, 10**31), st.floats(), st.sampled_from([0, 1, -1, 1e39, 1e300, 5e-324, 2**63])
)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.binary(max_size=6).map(os.fsdecode),
    st.sampled_from(["--", "-", "", " ", "~", "$HOME/x", "$NONE/x", "${NONE}", "/", "=", "{", "{}", "[]"]),
    st.sampled_from(["auto", "none", "no", "true", "{prompt}", "{text}", "\ud800", "\udcea\udcb0\udc80", "9" * 5000]),
)
VALUES = st.one_of(NUMBERS.map(str), TEXTS)


def command_lines(flags):
    names = st.sampled_from(flags).filter(lambda flag: flag not in ("--help", "--config"))
    words = st.tuples(names, VALUES).map("=".join)
    return st.lists(
        st.one_of(words, words, names, VALUES.filter(lambda word: word not in ("-h", "--help"))), max_size=6
    )


def outcome(parse, words):
    """The options by name, or None for a refusal, which is in short."""
    try:
        options = parse(words)
    except UserError as refusal:
        lines = str(refusal).splitlines()
    else:
        return options.given if parse is parse_train_options else values_of(options)
    assert 1 <= len(lines) <= 2
    return None


def values_of(options):
    return {name: value for group in vars(options).values() for name, value in vars(group).items()}


def assert_within_bounds(values):
    for name, value in values.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str):
                one.encode("utf-8")
                assert "\0" not in one, name
            elif isinstance(one, float):
                assert math.isfinite(one) and 0 <= one <= 1e9, name
            elif isinstance(one, int):
                assert -1 <= one < 2 ** (63 if name == "seed" else 32), name


@given(command_lines(TRAIN_FLAGS))
@example(["--learning_rate=--"])
@example(["--report_to=--"])
@example(["--do_eval=--"])
def test_any_command_line_of_train_gives_options_or_a_refusal(words):
    assert_within_bounds(outcome(parse_train_options, TRAIN + words) or {})


@given(command_lines(WRITE_FLAGS))
@example(["--prompt=--"])
@example(["--stop=--"])
@example(["--length=--"])
def test_any_command_line_of_generate_gives_options_or_a_refusal(words):
    assert_within_bounds(outcome(parse_generate_options, WRITE + words) or {})


def with_config(suffix, content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"run{suffix}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return outcome(parse_train_options, [*TRAIN, f"--config={path}"])


CONFIGS = st.dictionaries(
    st.sampled_from([flag[2:] for flag in TRAIN_FLAGS if flag not in ("--help", "--config")]),
    st.one_of(NUMBERS, st.booleans(), st.text(max_size=20), st.sampled_from(["--", "~/x", "", "no", "11:30", "$NONE"])),
    max_size=4,
)


@given(CONFIGS)
def test_a_config_file_gives_what_the_command_line_gives(config):
    typed = {name: value if isinstance(value, str) else json.dumps(value) for name, value in config.items()}
    expected = outcome(parse_train_options, [f"--{name}={word}" for name, word in typed.items()] + TRAIN)
    plain = "".join(
        f"{name}: {yaml.safe_dump(value) if isinstance(value, str) else json.dumps(value)}\n"
        for name, value in config.items()
    )
    for suffix, content in ((".json", json.dumps(config)), (".yaml", plain)):
        if config or suffix == ".json":
            given_there = with_config(suffix, content)
            assert (given_there is None) == (expected is None)
            assert given_there is None or {**given_there, "config": None} == expected


@given(st.sampled_from([".json", ".yaml"]), st.one_of(st.text(), st.binary(), st.text("{}[]:,-'\"&*!#|>%@ \n\tab1~")))
def test_any_file_as_a_config_gives_options_or_a_refusal(suffix, content):
    assert_within_bounds(with_config(suffix, content) or {})
