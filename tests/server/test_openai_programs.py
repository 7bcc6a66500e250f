"""The API of generate.py --serve by the requests that other programs send, as they sent them."""

import json

import pytest
import torch
from server.client import post

from gpt2_korean.generation.load import read_model
from gpt2_korean.generation.loop import generate_ids
from gpt2_korean.generation.sampling import Sampling

pytest.importorskip("starlette", reason="requirements-serve.txt is not installed")


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
    loaded = read_model(chat_model_folder, torch.device("cpu"), torch.float32)
    ids = loaded.chat.encode(messages)
    new = generate_ids(loaded.decoder, [ids], 12, Sampling(temperature=0), loaded.chat.end, loaded.utf8)[0]
    answer = json.loads(post(chat_port, "/v1/chat/completions", {"messages": messages}).read())
    assert answer["choices"][0]["message"]["content"] == loaded.tokenizer.decode(new).removeprefix(" ")
    assert answer["usage"]["prompt_tokens"] == len(ids)
