"""What is done without is told of in a line, and GPT2_KOREAN_DEBUG=1 shows what stood in its way."""

import pytest

from gpt2_korean import messages


@pytest.mark.parametrize("debug", [None, "0", "1"])
def test_a_failure_that_ends_nothing_shows_its_traceback_where_that_is_asked_for(monkeypatch, capsys, debug):
    monkeypatch.setenv("GPT2_KOREAN_DEBUG", debug) if debug else monkeypatch.delenv("GPT2_KOREAN_DEBUG", raising=False)
    try:
        {}["a name that hf_abcdefghijklmnopqrstuvwxyz is not"]
    except KeyError as error:
        messages.warn_of_failure(error, "조금 느리게 합니다")
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("주의: 조금 느리게 합니다\n")
    assert ("Traceback" in err and "test_messages.py" in err) == (debug == "1")
    assert len(err.splitlines()) == 1 or debug == "1"
    assert "hf_abc" not in err
