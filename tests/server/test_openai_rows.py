"""What of a request a model is given to read, and in which shape it is answered."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from conftest import read_to_write
from server.client import get, post

from gpt2_korean.cli.generate_options import parse_generate_options
from gpt2_korean.generation import write
from gpt2_korean.server.events import Row, logprobs_of, write_rows
from gpt2_korean.server.openai_answers import (
    begin_answer,
    describe_choice,
    describe_piece,
    describe_refusal,
    stream_part,
)
from gpt2_korean.server.openai_requests import Refused, read_completion
from gpt2_korean.server.openai_rows import rows_of


def rows(page, most, chat=True, **asked):
    asked = read_completion({**asked, "max_tokens": 4}, page.options.settings, None, 1000, chat)
    return rows_of(page, asked, most)


def page_of(folder, *words):
    options = parse_generate_options([f"--model_name_or_path={folder}", "--device=cpu", *words])
    return SimpleNamespace(model=read_to_write(folder), options=options)


def test_a_text_that_ends_before_the_others_of_its_batch_is_told_of_once(monkeypatch):
    over = write.Piece([], "", "end")
    steps = [
        (1, [write.Piece([5], "가", "end"), write.Piece([6], "나", None)]),
        (1, [over, write.Piece([7], "다", "length")]),
    ]
    monkeypatch.setattr(write, "stream_pieces", lambda *_, **__: steps)
    page = SimpleNamespace(model=SimpleNamespace(eos_token_id=0))
    told = write_rows(page, [Row([1], 1, None, 3, number, None, None) for number in range(2)])
    assert list(told) == [
        [{"text": "가", "ended": "end", "tokens": 2}, {"text": "나"}],
        [None, {"text": "다", "ended": "length", "tokens": 2}],
    ]


def newest_that_fit(messages, stage, most):
    """The longest end of a conversation that is whole or begins with a question, behind the `stage` messages first."""
    for start in range(stage, len(messages)):
        kept = messages[:stage] + messages[start:]
        begins = start == stage or messages[start]["role"] == "user"
        if begins and sum(len(message["content"]) for message in kept) <= most:
            return kept
    return None


def test_of_a_conversation_that_is_too_long_the_newest_is_read(chat_model_folder, rng):
    page = page_of(chat_model_folder)
    page.model = replace(page.model, chat=replace(page.model.chat, answers=None))  # else it forgets more by itself
    kept = []
    for _ in range(200):
        stage, begins, most = rng.randrange(2), rng.randrange(2), rng.randrange(1, 30)
        roles = ["user", "assistant"] * 4
        roles = ["system"] * stage + roles[begins : rng.randrange(begins + 2, 9)]
        messages = [{"role": role, "content": "가" * rng.randrange(1, 5)} for role in roles]
        expected = newest_that_fit(messages, stage, most)
        if expected is None:
            with pytest.raises(Refused, match="너무 깁니다"):
                rows(page, most, messages=messages)
        else:
            assert rows(page, most, messages=messages)[0].prompt == expected
            kept.append(len(messages) - len(expected))
    assert max(kept) > 2 and min(kept) == 0


def test_a_prompt_of_as_many_characters_as_there_may_be_is_read_and_any_token_that_there_is(chat_model_folder):
    page = page_of(chat_model_folder)
    last = page.model.decoder.vocab_size - 1
    assert [row.prompt for row in rows(page, 3, chat=False, prompt=[[0], [last, 0]])] == [[0], [last, 0]]
    assert rows(page, 3, chat=False, prompt="가나다")[0].read == len(page.model.tokenizer.encode("가나다").ids)
    for wrong in ([last + 1], [0, -1]):
        with pytest.raises(Refused, match=f" {last:,} 이하"):
            rows(page, 3, chat=False, prompt=wrong)
    with pytest.raises(Refused, match="3자까지"):
        rows(page, 3, chat=False, prompt="가나다라")


def test_the_last_token_stays_as_it_is_where_tokens_are_given_or_their_probabilities_asked_for(
    tiny_model_folder, chat_model_folder
):
    page, ids = page_of(tiny_model_folder), [5, 6]
    for asked in ({"prompt": "가 "}, {"prompt": ["가 ", "나"]}, {"prompt": "가 ", "token_healing": True}):
        healing = asked.get("token_healing")
        assert {row.settings.token_healing for row in rows(page, 99, chat=False, **asked)} == {healing}
    for asked in ({"prompt": ids}, {"prompt": ["가 ", ids]}, {"prompt": "가 ", "logprobs": 0, "token_healing": True}):
        assert {row.settings.token_healing for row in rows(page, 99, chat=False, **asked)} == {False}
    messages = [{"role": "user", "content": "가"}, {"role": "assistant", "content": "나 "}]
    page = page_of(chat_model_folder)
    assert rows(page, 99, messages=messages)[0].settings.token_healing is None
    assert rows(page, 99, messages=messages, logprobs=True)[0].settings.token_healing is False


def test_what_is_echoed_changes_no_log_probability_wherever_the_context_ends(chat_model_folder, rng):
    page = page_of(chat_model_folder)
    context, settings = page.model.decoder.context, replace(page.options.settings, length=4)
    for read in range(context - 6, context + 3):
        for written in (1, 4):
            ids = [rng.randrange(1, 600) for _ in range(read + written)]
            row = Row(ids[:read], read, settings, None, number=0, logprobs=1, echo=None)
            told = [logprobs_of(page.model, replace(row, echo=echo), ids[read:]) for echo in (None, "글")]
            alone, echoed = ([each and each[0] for each in one["logprobs"]] for one in told)
            assert echoed[-written:] == pytest.approx(alone, abs=1e-3)
            assert [one["ids"] for one in told] == [ids[read:], ids] and len(echoed) == len(ids) and echoed[0] is None


@pytest.mark.parametrize("roles", ["assistant", "user assistant assistant", "assistant user", "system user"])
def test_a_template_takes_questions_and_answers_by_turns_alone(tiny_model_folder, roles):
    page = page_of(tiny_model_folder, "--prompt_template=Q{prompt}A")
    messages = [{"role": role, "content": "가"} for role in roles.split()]
    with pytest.raises(Refused, match="messages: "):
        rows(page, 100, messages=messages)


def test_answers_have_the_fields_of_openais_api_and_llama_cpps(port):
    def answer(path, **asked):
        return json.loads(post(port, path, {"max_tokens": 2, "min_tokens": 2, **asked}).read())

    text = answer("/v1/completions", prompt="가")
    assert text["id"].startswith("cmpl-") and text["object"] == "text_completion" and type(text["created"]) is int
    assert {*text} == {"id", "object", "created", "model", "choices", "usage"}
    assert {*text["choices"][0]} == {"index", "text", "logprobs", "finish_reason"}
    usage = text["usage"]
    assert {*usage} == {"prompt_tokens", "completion_tokens", "total_tokens"} and usage["completion_tokens"] == 2
    assert usage["total_tokens"] == usage["prompt_tokens"] + 2
    errors = [
        (answer("/v1/completions", prompt=5), ("invalid_request_error", "prompt", None)),
        (answer("/v1/completions", prompt="가", model="x"), ("invalid_request_error", "model", "model_not_found")),
    ]
    for told, (kind, param, code) in errors:
        assert told["error"].pop("message") and told == {"error": {"type": kind, "param": param, "code": code}}
    (model,) = json.loads(get(port, "/v1/models").read())["data"]
    assert model.pop("id") and type(model.pop("created")) is int
    assert model == {"object": "model", "owned_by": "gpt2-korean", "max_model_len": 256}
    told = json.loads(get(port, "/props").read())
    params = told["default_generation_settings"]["params"]
    assert told["default_generation_settings"]["n_ctx"] == 256 and told["model_path"] and told["role"] == "model"
    assert {*params} == {"temperature", "top_k", "top_p", "repeat_penalty", "n_predict"}
    assert told["total_slots"] == 1 and "chat_template" in told
    assert told["modalities"] == {"vision": False, "audio": False, "video": False}


@pytest.mark.parametrize(
    ("ended", "reason"), [("stop", "stop"), ("end", "stop"), ("sentence", "stop"), ("length", "length")]
)
def test_whatever_ends_a_text_is_one_of_openais_reasons_whole_and_in_pieces(ended, reason):
    for chat in (False, True):
        assert describe_choice(0, "가", ended, None, chat)["finish_reason"] == reason
        assert describe_piece(0, "가", ended, None, chat, first=False)["finish_reason"] == reason
        assert describe_piece(0, "가", None, None, chat, first=False)["finish_reason"] is None


def test_a_streamed_answer_is_of_its_kind_says_once_who_speaks_and_ends_without_a_word():
    for chat, kind, streamed in (
        (False, "text_completion", "text_completion"),
        (True, "chat.completion", "chat.completion.chunk"),
    ):
        begun = begin_answer("model", chat)
        assert begun["object"] == kind
        assert json.loads(stream_part(begun, []).removeprefix("data: "))["object"] == streamed
    pieces = [("", None, True), ("가", None, False), ("", "stop", False)]
    told = [describe_piece(0, text, ended, None, True, first)["delta"] for text, ended, first in pieces]
    assert told == [{"role": "assistant", "content": ""}, {"content": "가"}, {}]


def test_what_is_refused_is_of_the_kind_that_programs_try_again_or_do_not():
    told = {status: describe_refusal("", status)["error"]["type"] for status in (400, 401, 404, 429, 500, 503)}
    wrong, ours = "invalid_request_error", "server_error"
    assert told == {400: wrong, 401: wrong, 404: wrong, 429: "requests", 500: ours, 503: ours}
