"""The API of generate.py --serve by the requests that other programs send, as they sent them."""

import json
import logging.handlers

import pytest
from conftest import read_to_write
from server.client import post

from gpt2_korean.cli.generate_options import parse_generate_options
from gpt2_korean.generation.loop import generate_ids
from gpt2_korean.generation.sampling import Sampling
from gpt2_korean.server import app
from gpt2_korean.server.openai_requests import Refused, read_completion, read_messages
from gpt2_korean.text.turns import conversation


@pytest.fixture(scope="module")
def chat_port(open_page, chat_model_folder):
    return open_page("--length=12", "--temperature=0", "--repetition_penalty=1", "--top_k=0", folder=chat_model_folder)


def test_a_conversation_that_ends_with_an_order_as_sillytavern_has_one_continued_is_answered(
    chat_port, chat_model_folder
):
    # Its Continue and Impersonate, and what a character is told behind the conversation.
    messages = [
        {"role": "system", "content": "너는 시인이야."},
        {"role": "assistant", "content": "안녕"},
        {"role": "user", "content": "가"},
        {"role": "assistant", "content": "나"},
        {"role": "system", "content": "[이어서]"},
    ]
    loaded = read_to_write(chat_model_folder)
    ids = loaded.chat.encode(messages)
    new = generate_ids(loaded.decoder, [ids], 12, Sampling(temperature=0), loaded.chat.end, loaded.utf8)[0]
    answer = json.loads(post(chat_port, "/v1/chat/completions", {"messages": messages}).read())
    assert answer["choices"][0]["message"]["content"] == loaded.tokenizer.decode(new).removeprefix(" ")
    assert answer["usage"]["prompt_tokens"] == len(ids)


@pytest.mark.parametrize("named", [{}, {"model": ""}, {"model": "dummy"}])
def test_who_names_no_model_is_answered_by_the_one_that_is_there(chat_port, chat_model_folder, named):
    # "dummy" is huggingface_hub's, of an InferenceClient that was given an address alone.
    asked = {**named, "messages": [{"role": "user", "content": "가"}], "stream": False}
    answer = json.loads(post(chat_port, "/v1/chat/completions", asked).read())
    assert answer["model"] == chat_model_folder.name and answer["choices"]


OF_JAVA = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAAAAIAAAABAAMAAABk"}


def test_javas_client_which_offers_http_2_each_time_is_answered_and_nothing_is_said_of_it(chat_port):
    told, log = logging.handlers.BufferingHandler(100), logging.getLogger("uvicorn.error")
    log.addHandler(told)
    answer = post(chat_port, "/v1/chat/completions", {"messages": [{"role": "user", "content": "가"}]}, **OF_JAVA)
    log.removeHandler(told)
    assert answer.status == 200 and told.buffer == []


def test_httptools_which_loses_what_javas_client_asks_is_not_taken_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(app, "build_app", lambda *_: None)
    assert app.build_server("127.0.0.1", None).config.http == "h11"


def test_an_answer_that_was_stopped_before_its_first_word_is_none():
    said = [("user", "가"), ("assistant", ""), ("user", "나")]
    assert read_messages([{"role": role, "content": content} for role, content in said]) == [
        {"role": "user", "content": "가\n나"}
    ]


@pytest.mark.parametrize("nothing", ["", " \n"])
def test_a_system_turn_that_says_nothing_is_none_as_in_training(nothing):
    # Many programs send one where their field for it is left empty; it would stand for --system's too.
    asked, nobody = {"role": "user", "content": "가"}, {"role": "system", "content": nothing}
    assert read_messages([nobody, asked, nobody]) == [asked]
    with pytest.raises(Refused, match="user의 말이 있어야"):
        read_messages([nobody])


def test_who_speaks_twice_in_a_row_says_it_in_one_turn_as_in_training():
    said = [
        ("system", "너는"),
        ("system", "시인이야."),
        ("user", "가"),
        ("user", "나 "),
        ("user", " 나"),
        ("assistant", "다"),
        ("user", "라"),
    ]
    learnt = conversation([*((role, content, 1) for role, content in said), ("assistant", "마", 1)], "")["turns"][:-1]
    read = read_messages([{"role": role, "content": content} for role, content in said])
    assert read == [{"role": turn["role"], "content": turn["content"]} for turn in learnt]
    assert [turn["role"] for turn in read] == ["system", "user", "assistant", "user"]
    answers = [{"role": "user", "content": "가"}, *[{"role": "assistant", "content": "나"}] * 2]
    assert read_messages(answers) == answers  # the second goes on


# SillyTavern's, of a server of vLLM; and what vLLM takes besides, as it is where nobody has set it.
OF_VLLM = {
    "prompt": "User: 비가 와\n",
    "max_tokens": 350,
    "temperature": 1,
    "top_p": 0.95,
    "min_p": 0.01,
    "repetition_penalty": 1.1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "top_k": -1,
    "min_tokens": 0,
    "stop": ["\nUser:", "\n***"],
    "skip_special_tokens": True,
    "n": 1,
    "ignore_eos": False,
    "spaces_between_special_tokens": True,
    "length_penalty": 1,
    "early_stopping": False,
    "stop_token_ids": [],
    "include_stop_str_in_output": False,
}


def test_what_a_program_sends_to_vllm_is_taken():
    settings = parse_generate_options(["--model_name_or_path=m"]).settings
    asked = read_completion(OF_VLLM, settings, None, 1000, chat=False).settings
    assert (asked.length, asked.top_k, asked.min_p, asked.stop) == (350, 0, 0.01, ["\nUser:", "\n***"])
    for name, value in {
        "skip_special_tokens": False,
        "stop_token_ids": [5],
        "include_stop_str_in_output": True,
    }.items():
        with pytest.raises(Refused, match=f"{name}: 지원하지 않습니다"):
            read_completion({**OF_VLLM, name: value}, settings, None, 1000, chat=False)


def test_there_is_a_stop_text_for_each_of_a_group_and_each_mark_as_sillytavern_sends_them():
    settings = parse_generate_options(["--model_name_or_path=m"]).settings
    stops = [f"\n{number}:" for number in range(40)]
    asked = {**OF_VLLM, "stop": stops}
    assert read_completion(asked, settings, None, 1000, chat=False).settings.stop == stops


# What litellm hands on to each server of a group, of which OpenAI's is one.
OF_OPENAI = {
    "messages": [{"role": "user", "content": "비가 와"}],
    "prompt_cache_key": "가",
    "prompt_cache_retention": "24h",
    "prompt_cache_options": {"mode": "implicit"},
    "prediction": {"type": "content", "content": "우산을 챙기세요."},
}


def test_what_only_makes_an_answer_of_openai_come_sooner_is_passed_over():
    settings = parse_generate_options(["--model_name_or_path=m"]).settings
    assert read_completion(OF_OPENAI, settings, None, 1000, chat=True).settings == settings
