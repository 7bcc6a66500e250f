"""Flags of the engine that do not go together, or lack a package, are refused before torch is imported."""

import pytest

from gpt2_korean.cli import generate_checks
from gpt2_korean.cli.generate_options import parse_generate_options
from gpt2_korean.messages import UsageError


@pytest.mark.parametrize("asked", ["--quantize=int8", "--quantize=int4", "--engine=openvino"])
def test_what_openvino_computes_needs_it(asked, monkeypatch):
    words = ["--model_name_or_path=m", asked]
    monkeypatch.setattr(generate_checks, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=rf"{asked}: .*requirements-openvino\.txt"):
        parse_generate_options(words)
    monkeypatch.setattr(generate_checks, "find_spec", lambda name: name)
    assert parse_generate_options(words).model.engine in ("auto", "openvino")
    if "quantize" in asked:
        with pytest.raises(UsageError, match=f"{asked}: --dtype=float16"):
            parse_generate_options([*words, "--dtype=float16"])
        with pytest.raises(UsageError, match="--engine=torch를 빼세요"):
            parse_generate_options([*words, "--engine=torch"])


def test_without_openvino_everything_else_is_written_as_before(monkeypatch):
    monkeypatch.setattr(generate_checks, "find_spec", lambda name: None)
    for engine in ("auto", "torch"):
        assert parse_generate_options(["--model_name_or_path=m", f"--engine={engine}"]).model.engine == engine
