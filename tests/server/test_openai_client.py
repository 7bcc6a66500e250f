"""The API of generate.py --serve by OpenAI's own client: what programs that speak it are answered."""

import copy
import threading

import pytest
import torch
from conftest import ROOT, read_to_write, save_tiny_gpt2
from server.client import post
from test_docs import blocks
from transformers import GPT2LMHeadModel

from gpt2_korean.cli.generate_options import parse_generate_options
from gpt2_korean.generation.loop import generate_ids
from gpt2_korean.generation.sampling import Sampling
from gpt2_korean.server import turns
from gpt2_korean.server.openai_requests import Refused, read_completion, read_messages
from gpt2_korean.server.openai_routes import served_name

openai = pytest.importorskip("openai")

SETTINGS = parse_generate_options(["--model_name_or_path=m"]).settings
GREEDY = {"temperature": 0, "max_tokens": 12, "extra_body": {"repetition_penalty": 1, "top_k": 0}}


def client_of(port):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def client(port):
    return client_of(port)


@pytest.fixture(scope="module")
def chat(open_page, chat_model_folder):
    return client_of(open_page("--dtype=float32", "--length=20", "--top_p=1", folder=chat_model_folder))


@pytest.fixture(scope="module")
def model(client):
    return client.models.list().data[0].id


@pytest.fixture(scope="module")
def loaded(model_folder):
    return read_to_write(model_folder)


def greedy(loaded, text, length=12, **penalties):
    """The ids that the model itself writes, and the text that they are."""
    ids, sampling = loaded.tokenizer.encode(text).ids, Sampling(temperature=0, **penalties)
    new = generate_ids(loaded.decoder, [ids], length, sampling, loaded.eos_token_id, loaded.utf8)[0]
    return new, loaded.tokenizer.decode(new)


@pytest.mark.parametrize("page", ["writing.md", "elsewhere.md"])
def test_the_program_that_the_documents_show_writes(port, page, capsys):
    (program,) = [block for block in blocks(ROOT / "docs" / page, "python") if "OpenAI" in block]
    assert ":7860/" in program
    exec(program.replace(":7860/", f":{port}/"), {})
    assert capsys.readouterr().out.strip()


def test_the_model_is_named_as_its_folder(client, model, model_folder):
    assert model == model_folder.name and client.models.retrieve(model).id == model
    assert client.completions.create(model=str(model_folder), prompt="가", max_tokens=1).model == model
    with pytest.raises(openai.NotFoundError) as refused:
        client.completions.create(model="gpt-4", prompt="가")
    assert refused.value.code == "model_not_found" and refused.value.param == "model"


def test_a_model_has_the_name_of_its_folder_from_within_it_too_and_one_of_the_hub_its_own(tmp_path, monkeypatch):
    folder = tmp_path / "나의 모델"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert [served_name(given) for given in (".", "../나의 모델/", str(folder))] == ["나의 모델"] * 3
    assert served_name("skt/kogpt2-base-v2") == "skt/kogpt2-base-v2"


def test_a_completion_is_the_greedy_text_of_the_model(client, model, loaded):
    for prompt in ("오늘은", "한국어 글을"):
        answer = client.completions.create(model=model, prompt=prompt, **GREEDY)
        new, text = greedy(loaded, prompt)
        assert answer.object == "text_completion" and answer.choices[0].text == text
        assert answer.choices[0].logprobs is None
        assert answer.choices[0].finish_reason == ("length" if len(new) == 12 else "stop")
        read = len(loaded.tokenizer.encode(prompt).ids)
        assert (answer.usage.prompt_tokens, answer.usage.total_tokens - answer.usage.completion_tokens) == (read, read)


def test_prompts_may_be_several_and_token_ids(client, model, loaded):
    texts = ["오늘은", "가나", "한국어 글을"]
    ids = [loaded.tokenizer.encode(text).ids for text in texts]
    expected = [greedy(loaded, text)[1] for text in texts]
    for prompt in (texts, ids):
        answer = client.completions.create(model=model, prompt=prompt, **GREEDY)
        assert [choice.text for choice in answer.choices] == expected
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
    one = client.completions.create(model=model, prompt=ids[0], n=2, **GREEDY)
    assert [choice.text for choice in one.choices] == [expected[0]] * 2
    assert one.usage.prompt_tokens == len(ids[0])
    echoed = client.completions.create(model=model, prompt=ids[0], echo=True, **GREEDY)
    assert echoed.choices[0].text == texts[0] + expected[0]
    with pytest.raises(openai.BadRequestError, match="prompt"):
        client.completions.create(model=model, prompt=[*ids[0], loaded.decoder.vocab_size], **GREEDY)


def test_a_stream_is_the_text_in_pieces_and_tells_its_usage_if_asked(client, model):
    asked = {"model": model, "prompt": ["오늘은", "가"], **GREEDY}
    whole = client.completions.create(**asked)
    parts = list(client.completions.create(stream=True, stream_options={"include_usage": True}, **asked))
    texts, reasons = ["", ""], [None, None]
    for part in parts[:-1]:
        (choice,) = part.choices
        assert part.usage is None and reasons[choice.index] is None
        texts[choice.index] += choice.text
        reasons[choice.index] = choice.finish_reason
    assert texts == [choice.text for choice in whole.choices] and len(parts) > 10
    assert {part.object for part in parts} == {"text_completion"}
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert parts[-1].choices == [] and parts[-1].usage == whole.usage
    assert all(part.choices for part in client.completions.create(stream=True, **asked))


def test_a_stop_text_ends_a_text_before_it(client, model, loaded):
    _, text = greedy(loaded, "오늘은")
    stop = text[4:6]
    for stops in (stop, [stop, "나오지 않는 글"]):
        answer = client.completions.create(model=model, prompt="오늘은", stop=stops, **GREEDY).choices[0]
        assert answer.text == text.partition(stop)[0] and answer.finish_reason == "stop"


def test_a_seed_repeats_a_text_whatever_else_is_asked(client, model):
    def write(seed=None):
        asked = {"prompt": "가", "temperature": 1, "n": 3, "max_tokens": 20}
        return [choice.text for choice in client.completions.create(model=model, seed=seed, **asked).choices]

    alone, others = write(7), []
    threads = [threading.Thread(target=lambda: others.append(write())) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert write(7) == alone and len(set(alone)) == 3 and write() != alone != write(8)
    for thread in threads:
        thread.join()
    # Texts beyond one batch are no copies of its own.
    texts = client.completions.create(model=model, prompt="가", temperature=1, n=40, seed=1, max_tokens=20).choices
    assert len({choice.text for choice in texts}) == 40


def reference(loaded, ids):
    """Log-probabilities [len(ids) - 1, vocab] of transformers' own forward."""
    own = GPT2LMHeadModel.from_pretrained(loaded).eval()
    with torch.no_grad():
        return own(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)


def test_log_probabilities_are_those_of_the_model(client, model, loaded, model_folder):
    ids, (new, _) = loaded.tokenizer.encode("오늘은").ids, greedy(loaded, "오늘은")
    answer = client.completions.create(model=model, prompt="오늘은", logprobs=2, echo=True, **GREEDY).choices[0]
    told, scores = answer.logprobs, reference(model_folder, ids + new)
    assert answer.text.startswith("오늘은") and len(told.tokens) in (len(ids + new), len(ids + new) + 1)
    assert told.token_logprobs[0] is None and told.top_logprobs[0] is None
    for place, index in enumerate((ids + new)[1:]):
        assert told.token_logprobs[place + 1] == pytest.approx(scores[place, index].item(), abs=1e-3)
        assert max(told.top_logprobs[place + 1].values()) == pytest.approx(scores[place].max().item(), abs=1e-3)
        assert told.top_logprobs[place + 1][told.tokens[place + 1]] == told.token_logprobs[place + 1]
    alone = client.completions.create(model=model, prompt="오늘은", logprobs=2, **GREEDY).choices[0].logprobs
    assert alone.tokens == told.tokens[len(ids) :]


def test_the_log_probabilities_of_several_texts_are_each_ones_own(client, model):
    asked, prompts = {"model": model, "logprobs": 1, **GREEDY}, ["오늘은", "가나", "한국어 글을"]
    alone = [client.completions.create(prompt=prompt, **asked).choices[0].logprobs for prompt in prompts]
    together = [choice.logprobs for choice in client.completions.create(prompt=prompts, **asked).choices]
    for one, other in zip(alone, together, strict=True):
        assert other.tokens == one.tokens and other.token_logprobs == pytest.approx(one.token_logprobs, abs=1e-3)


def test_echo_changes_no_log_probability_of_a_text_past_the_context(client, model):
    asked = {"model": model, "prompt": "가나다라마바사 " * 30, "logprobs": 1, **GREEDY}
    alone, echoed = (client.completions.create(echo=echo, **asked).choices[0].logprobs for echo in (False, True))
    assert len(echoed.tokens) > 256 and alone.tokens == echoed.tokens[-len(alone.tokens) :]
    assert echoed.token_logprobs[-len(alone.tokens) :] == pytest.approx(alone.token_logprobs, abs=1e-4)
    assert all(each is not None for each in echoed.token_logprobs[1:])


def test_text_offsets_are_places_in_the_text(chat):
    # With the begin token in front, which the text has not, and characters of several tokens.
    answer = chat.completions.create(model="chat", prompt="뷁 a오늘🧑🏿b", echo=True, logprobs=0, **GREEDY).choices[0]
    told, places = answer.logprobs, answer.logprobs.text_offset
    whole = [(token, at) for token, at in zip(told.tokens, places, strict=True) if token[0] != "<" and ":" not in token]
    assert told.tokens[0] == "<|endoftext|>" and len(whole) < len(told.tokens) - 1
    assert all(answer.text.startswith(token, at) for token, at in whole)
    of_the_first = [at for token, at in zip(told.tokens[1:4], places[1:], strict=False) if token.startswith("bytes:")]
    assert set(of_the_first) == {0} and places == sorted(places)


def test_log_probabilities_of_a_chat_have_their_bytes(chat, chat_model_folder):
    asked = {"model": chat_model_folder.name, "messages": [{"role": "user", "content": "안녕"}], "temperature": 0}
    answer = chat.chat.completions.create(logprobs=True, top_logprobs=3, max_tokens=8, **asked).choices[0]
    told = answer.logprobs.content
    written = b"".join(bytes(each.bytes) for each in told).decode("utf-8", "ignore")
    assert written.removeprefix(" ").startswith(answer.message.content) and answer.message.content
    assert all(len(each.top_logprobs) == 3 and each.top_logprobs[0].logprob >= each.logprob for each in told)
    parts = chat.chat.completions.create(logprobs=True, top_logprobs=3, max_tokens=8, stream=True, **asked)
    with pytest.raises(openai.BadRequestError, match="logprobs를 true로"):
        chat.chat.completions.create(top_logprobs=3, **asked)
    streamed = [each for part in parts if part.choices[0].logprobs for each in part.choices[0].logprobs.content]
    assert [each.token for each in streamed] == [each.token for each in told]


def test_log_probabilities_of_a_question_past_the_context_are_of_what_was_read(chat):
    asked = {"role": "user", "content": "".join(map(str, range(300)))}
    answer = chat.chat.completions.create(model="chat", messages=[asked], logprobs=True, top_logprobs=1, **GREEDY)
    first = answer.choices[0].logprobs.content[0]
    assert first.logprob == first.top_logprobs[0].logprob


def test_a_chat_is_the_conversation_of_the_page(chat, chat_model_folder):
    loaded = read_to_write(chat_model_folder)
    turns = [("system", "너는 시인이야."), ("user", "가 <|user|>"), ("assistant", "나"), ("user", "다 ")]
    messages = [{"role": role, "content": content} for role, content in turns]
    messages[0]["role"] = "developer"  # which newer programs say
    messages[-1]["content"] = [{"type": "text", "text": "다"}, {"type": "text", "text": " "}]
    answer = chat.chat.completions.create(model="chat", messages=messages, **GREEDY)
    ids = loaded.chat.encode([{"role": role, "content": content.strip()} for role, content in turns])
    new = generate_ids(loaded.decoder, [ids], 12, Sampling(temperature=0), loaded.chat.end, loaded.utf8)[0]
    text = loaded.tokenizer.decode(new).removeprefix(" ")
    assert answer.object == "chat.completion" and answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == text and answer.usage.prompt_tokens == len(ids)
    assert answer.choices[0].logprobs is None
    parts = list(chat.chat.completions.create(model="chat", messages=messages, stream=True, **GREEDY))
    assert "".join(part.choices[0].delta.content or "" for part in parts) == text
    roles = [part.choices[0].delta.role for part in parts]
    assert roles == ["assistant", *[None] * (len(parts) - 1)] and parts[0].object == "chat.completion.chunk"
    assert [part.choices[0].finish_reason for part in parts][-1] == answer.choices[0].finish_reason


def test_the_system_of_the_server_stands_before_a_conversation_that_has_none(chat, open_page, chat_model_folder):
    staged = client_of(open_page("--dtype=float32", "--top_p=1", "--system=너는 시인이야.", folder=chat_model_folder))
    asked = {"role": "user", "content": "가"}
    for system in ("너는 시인이야.", "너는 의사야."):
        messages = [{"role": "system", "content": system}, asked]
        expected = chat.chat.completions.create(model="chat", messages=messages, **GREEDY)
        same = staged.chat.completions.create(model="chat", messages=messages, **GREEDY)
        assert (same.choices, same.usage) == (expected.choices, expected.usage)
        if system == "너는 시인이야.":
            alone = staged.chat.completions.create(model="chat", messages=[asked], **GREEDY)
            assert (alone.choices, alone.usage) == (expected.choices, expected.usage)


def test_a_conversation_that_is_too_long_loses_its_oldest_exchanges(chat, chat_model_folder):
    encode = read_to_write(chat_model_folder).chat.encode
    system, last = {"role": "system", "content": "시인"}, {"role": "user", "content": "마지막"}
    pairs = [[{"role": "user", "content": f"가{n}"}, {"role": "assistant", "content": f"나{n}"}] for n in range(2000)]
    longest = [system, last]
    for pair in reversed(pairs):
        longer = [system, *pair, *longest[1:]]
        if len(encode(longer)) > 96 - 12 + 1:
            break
        longest = longer
    long = [system, *(turn for pair in pairs for turn in pair), last]
    answer, same = (chat.chat.completions.create(model="chat", messages=each, **GREEDY) for each in (long, longest))
    assert len(longest) > 4 and answer.choices == same.choices and answer.usage == same.usage


def test_an_answer_that_has_begun_goes_on_behind_its_last_space_with_a_word_or_as_it_is(chat, chat_model_folder):
    loaded = read_to_write(chat_model_folder)
    asked = [{"role": "user", "content": "가"}, {"role": "assistant", "content": "나는 "}]
    plain = GREEDY | {"extra_body": GREEDY["extra_body"] | {"token_healing": False}}
    rest = chat.chat.completions.create(model="chat", messages=asked, **plain)
    begun = loaded.tokenizer.encode(f"{loaded.chat.lead}나는 ", add_special_tokens=False).ids
    ids = loaded.chat.encode(asked[:1]) + begun
    new = generate_ids(loaded.decoder, [ids], 12, Sampling(temperature=0), loaded.chat.end, loaded.utf8)[0]
    assert rest.choices[0].message.content == loaded.tokenizer.decode(new)
    healed = chat.chat.completions.create(model="chat", messages=asked, **GREEDY)
    assert not healed.choices[0].message.content.startswith(" ")
    assert rest.usage.prompt_tokens == healed.usage.prompt_tokens == len(ids)


def test_a_model_whose_conversations_have_no_system_holds_them_and_refuses_one(chat_tokenizer, open_page, tmp_path):
    tokenizer = copy.deepcopy(chat_tokenizer)
    tokenizer.chat_template = (
        "{% for message in messages %}{% if message.role != 'system' %}<|{{ message.role }}|>{{ message.content }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    client = client_of(open_page("--length=2", folder=save_tiny_gpt2(tmp_path / "m", tokenizer)))
    asked = [{"role": "user", "content": "가"}]
    assert client.chat.completions.create(model="m", messages=asked).usage.prompt_tokens
    for system in ({"role": "system", "content": "너는 시인이야."}, {"role": "system", "content": "가"}):
        with pytest.raises(openai.BadRequestError, match="system"):
            client.chat.completions.create(model="m", messages=[system, *asked])


@pytest.mark.parametrize("place", ["", " \n"])
def test_an_empty_place_for_the_answer_is_no_answer_that_has_begun(chat, place):
    asked = [{"role": "user", "content": "가"}]
    sent = [*asked, {"role": "assistant", "content": place}]
    whole, same = (chat.chat.completions.create(model="chat", messages=each, **GREEDY) for each in (asked, sent))
    assert same.choices == whole.choices and same.usage == whole.usage
    with pytest.raises(openai.BadRequestError, match="messages"):
        chat.chat.completions.create(model="chat", messages=sent[1:])


def test_a_model_without_a_template_names_the_way_on_and_takes_one_of_the_server(client, open_page, model, loaded):
    messages = [
        {"role": "user", "content": "가"},
        {"role": "assistant", "content": " 답"},
        {"role": "user", "content": "나"},
    ]
    with pytest.raises(openai.BadRequestError, match="--prompt_template") as refused:
        client.chat.completions.create(model=model, messages=messages)
    assert refused.value.code == "no_chat_template"
    templated = client_of(open_page("--dtype=float32", "--prompt_template=Q{prompt}A"))
    answer = templated.chat.completions.create(model=model, messages=messages, **GREEDY)
    assert answer.choices[0].message.content == greedy(loaded, "Q가A 답\nQ나A")[1]
    long = [{"role": "user", "content": "다" * 15_000}, {"role": "assistant", "content": "라" * 6_000}, messages[-1]]
    answer = templated.chat.completions.create(model=model, messages=long, **GREEDY)
    assert answer.choices[0].message.content == greedy(loaded, "Q나A")[1]  # whole exchanges are forgotten
    begun = [*messages, {"role": "assistant", "content": " 음"}]
    answer = templated.chat.completions.create(model=model, messages=begun, **GREEDY)
    assert answer.choices[0].message.content == greedy(loaded, "Q가A 답\nQ나A 음")[1]
    with pytest.raises(openai.BadRequestError, match="system"):
        templated.chat.completions.create(model=model, messages=[{"role": "system", "content": "시"}, *messages])


def test_an_answer_by_a_template_may_end_by_itself(open_page, silent_model_folder):
    client = client_of(open_page("--prompt_template=Q{prompt}A", folder=silent_model_folder))
    answer = client.chat.completions.create(model="silent", messages=[{"role": "user", "content": "가"}])
    assert answer.choices[0].finish_reason == "stop" and answer.usage.completion_tokens == 1


@pytest.mark.parametrize("logprobs", [None, 0])
def test_a_prompt_is_echoed_once_also_before_a_text_that_ends_at_once(open_page, silent_model_folder, logprobs):
    asked = {"model": "silent", "prompt": ["가나", "다"], "echo": True, "logprobs": logprobs}
    client = client_of(open_page(folder=silent_model_folder))
    assert [choice.text for choice in client.completions.create(**asked).choices] == asked["prompt"]
    texts = ["", ""]
    for part in client.completions.create(stream=True, **asked):
        texts[part.choices[0].index] += part.choices[0].text
    assert texts == asked["prompt"]


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": "뜨겁게"}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "많이"}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"n": 129}, "n"),
        ({"n": 100, "prompt": ["가", "나"]}, "n"),
        ({"stop": ""}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"stop": ["끝", ""]}, "stop"),
        ({"stop": ["가"] * 129}, "stop"),
        ({"seed": "하나"}, "seed"),
        ({"logprobs": 21}, "logprobs"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"frequency_penalty": "많이"}, "frequency_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"best_of": 3}, "best_of"),
        ({"suffix": "끝"}, "suffix"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[1], "가"]}, None),
        ({"prompt": [10**9]}, "prompt"),
        ({"prompt": [[1, "가"]]}, "prompt"),
        ({"extra_body": {"echo": "예"}}, "echo"),
        ({"prompt": {"text": "가"}}, "prompt"),
        ({"prompt": "가" * 20_001}, "prompt"),
        ({"extra_body": {"top_k": 1.5}}, "top_k"),
        ({"extra_body": {"repetition_penalty": [1]}}, "repetition_penalty"),
        ({"extra_body": {"output_file": "x"}}, "output_file"),
        ({"extra_body": {"modalities": ["text", "audio"]}}, "modalities"),
        ({"extra_body": {"tools": [{}], "tool_choice": "required"}}, "tool_choice"),
    ],
)
def test_what_is_wrong_or_not_supported_is_refused_by_name(client, model, changed, param):
    asked = {"model": model, "prompt": "가", "max_tokens": 4, **changed}
    if param is None:
        assert client.completions.create(**asked).choices
        return
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(**asked)
    assert refused.value.param == param and refused.value.type == "invalid_request_error"
    assert param in refused.value.message and "1,000,000 이하" not in refused.value.message


SAID = [{"role": "user", "content": "가"}]
PICTURE = [{"type": "text", "text": "가"}, {"type": "image_url"}]


@pytest.mark.parametrize(
    ("asked", "chat", "param"),
    [
        ({"prompt": "가", "messages": SAID}, False, "messages"),
        ({"prompt": "가", "top_logprobs": 1}, False, "top_logprobs"),
        ({"prompt": [True]}, False, "prompt"),
        ({"prompt": "가", "messages": SAID}, True, "prompt"),
        ({"messages": SAID, "echo": True}, True, "echo"),
        ({"messages": 5}, True, "messages"),
        ({"messages": [{"role": "user", "content": PICTURE}]}, True, "messages[0].content"),
    ],
)
def test_what_is_no_field_of_a_text_or_of_a_conversation_is_refused(asked, chat, param):
    with pytest.raises(Refused) as refused:
        read_completion(asked, SETTINGS, None, 1000, chat)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("options", "told"), [({"include_usage": True}, True), ({"include_usage": False}, False), ("x", False)]
)
def test_a_stream_tells_its_usage_where_it_is_asked_for(options, told):
    asked = {"prompt": "가", "stream": True, "stream_options": options}
    assert read_completion(asked, SETTINGS, None, 1000, chat=False).include_usage is told


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "length"])
@pytest.mark.parametrize(("asked", "length"), [(4096, 1000), (1001, 1000), (1000, 1000), (7, 7), (-1, 100)])
def test_who_asks_for_more_tokens_than_a_text_may_have_or_none_is_given_as_many(name, asked, length):
    read = read_completion({"prompt": "가", name: asked}, SETTINGS, None, 1000, chat=False)
    assert read.settings.length == length


def test_a_top_p_of_0_writes_what_is_likeliest(client, model, loaded):
    asked = {"model": model, "prompt": "가", **GREEDY, "temperature": 1, "top_p": 0}
    assert client.completions.create(**asked).choices[0].text == greedy(loaded, "가")[1]


def test_the_apis_own_penalties_are_those_of_the_flags(client, model, loaded):
    asked = {"model": model, "prompt": "가", **GREEDY, "max_tokens": 20}
    penalties = {"frequency_penalty": 1.5, "presence_penalty": 0.5}
    text = client.completions.create(**asked, **penalties).choices[0].text
    assert text == greedy(loaded, "가", length=20, **penalties)[1] != client.completions.create(**asked).choices[0].text


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user"}],
        [{"role": "robot", "content": "가"}, {"role": "user", "content": "가"}],
        [{"role": "user", "content": " "}],
        [{"role": "system", "content": "가"}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
        [{"role": "user", "content": "가" * 20_001}],
        [{"role": "user", "content": 5}],
        [{"role": "user", "content": ["가"]}],
        [{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}, {"role": "user", "content": "가"}],
    ],
)
def test_a_conversation_that_is_none_is_refused(chat, messages):
    with pytest.raises(openai.BadRequestError, match="messages"):
        chat.chat.completions.create(model="chat", messages=messages)


def test_a_conversation_may_end_with_anybodys_words_but_needs_some_of_the_user():
    for messages in ([{"role": "assistant", "content": "가"}], [{"role": "system", "content": "가"}]):
        with pytest.raises(Refused, match="user의 말이 있어야 합니다"):
            read_messages(messages)
    asked = [{"role": "user", "content": "가"}]
    for messages in (asked, *([*asked, {"role": role, "content": "나"}] for role in ("assistant", "system"))):
        assert read_messages(messages) == messages


def test_what_means_nothing_is_taken(client, model):
    off = {"presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "best_of": 2, "n": 2, "user": "나"}
    extra = {
        "tools": [{"type": "function"}],
        "tool_choice": "auto",
        "top_k": -1,
        "min_tokens": 3,
        "repetition_penalty": 1.1,
        "no_repeat_ngram_size": 3,
        "seed": -1,
        "response_format": {"type": "text"},
        "modalities": ["text"],
    }
    answer = client.completions.create(model=model, prompt="가", max_tokens=5, **off, extra_body=extra)
    assert len(answer.choices) == 2 and answer.usage.completion_tokens >= 6


def test_what_a_request_leaves_out_is_as_the_flags_say(open_page, model):
    flags = ["--length=7", "--min_length=7", "--temperature=0", "--seed=3"]
    answers = [client_of(open_page(*flags)).completions.create(model=model, prompt="가") for _ in range(2)]
    assert answers[0].usage.completion_tokens == 7 and answers[0].choices[0].text == answers[1].choices[0].text


def test_a_full_line_says_when_to_come_again(open_page, model, monkeypatch):
    monkeypatch.setattr(turns, "MOST_WAITING", 1)
    port = open_page("--length=1000000", "--min_length=1000000")
    busy = [post(port, "/v1/completions", {"prompt": "가", "stream": True, "seed": seed}) for seed in range(2)]
    with pytest.raises(openai.RateLimitError) as refused:
        client_of(port).completions.create(model=model, prompt="가")
    assert refused.value.response.headers["retry-after"] == "5"
    for answer in busy:
        answer.close()


def test_settings_that_were_added_are_fields_by_their_names(client, model):
    more = {
        "min_tokens": 20,  # of so few as 5 none may end with a character
        "min_p": 0.1,
        "typ_p": 0.9,
        "dry_multiplier": 0.8,
        "dry_sequence_breaker": ["\n", "가"],
        "end_at_sentence": True,
    }
    assert client.completions.create(model=model, prompt="가", max_tokens=20, extra_body=more).choices[0].text
    with pytest.raises(openai.BadRequestError, match="min_p"):
        client.completions.create(model=model, prompt="가", extra_body={"min_p": 2})
