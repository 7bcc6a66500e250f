"""The page of generate.py --serve: what it answers over loopback."""

import contextlib
import itertools
import json
import logging
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from conftest import ROOT, read_to_write, save_kogpt2
from server.client import ask, get, post, written
from starlette.testclient import TestClient

from gpt2_korean.cli.generate_options import parse_generate_options
from gpt2_korean.generation import write
from gpt2_korean.generation.loop import generate_ids
from gpt2_korean.generation.sampling import Sampling
from gpt2_korean.messages import UsageError, UserError
from gpt2_korean.server import app, events, turns
from gpt2_korean.server.events import SUGGESTIONS, Page
from gpt2_korean.server.port import open_port
from gpt2_korean.text.chat_prompt import as_turns


def test_the_last_events_tell_how_much_was_read_and_written_and_whether_it_ended(port):
    _, events = ask(port, "/write", prompt="가나", settings={"length": "12", "min_length": "12"})
    assert events[0]["read"] >= 1 and events[-1] == {"ended": False} and events[-2]["tokens"] == 12
    seconds = [event["seconds"] for event in events[1:-1]]
    assert seconds == sorted(seconds) and seconds[0] > 0
    _, events = ask(port, "/write", prompt="", settings={"length": "1"})
    assert events[0]["read"] == 1


def test_a_text_longer_than_the_context_is_told_beside_the_model(port, model_folder):
    for prompt, is_told in (("가", False), ("가나다라" * 300, True)):
        _, (first, *_) = ask(port, "/write", prompt=prompt, settings={"length": "2", "min_length": "2"})
        assert bool(first["notice"]) == is_told and first["model"].pop("device").startswith("cpu")
        assert first["model"] == {"name": str(model_folder), "context": 256}


def test_what_a_model_cannot_read_of_a_prompt_is_told_beside_its_text(open_page, tmp_path_factory, sample_texts):
    folder = tmp_path_factory.mktemp("models") / "kogpt2"
    save_kogpt2(folder, sample_texts)
    port = open_page("--length=2", "--min_length=2", folder=folder)
    for prompt, told in (("오늘 😀", "읽지 못합니다('😀' 등)"), ("오늘", None)):
        notice = ask(port, "/write", prompt=prompt)[1][0]["notice"]
        assert notice is told or told in notice


def test_presets_set_the_same_values_each_and_those_of_the_flags_come_first():
    plain, warm = (
        parse_generate_options(["--model_name_or_path=m", "--serve", *words]).settings
        for words in ([], ["--temperature=0.8"])
    )
    presets = app.list_presets(plain)
    assert [preset["name"] for preset in presets] == ["차분하게", "보통", "자유롭게"]
    sliders = {slider["name"]: slider for slider in app.describe_sliders(plain)}
    for preset in presets:
        assert preset["values"].keys() == {"top_k", "top_p", "temperature", "repetition_penalty"}
        assert all(sliders[name]["least"] <= value <= sliders[name]["most"] for name, value in preset["values"].items())
    values = presets[1]["values"] | {"temperature": 0.8}
    assert app.list_presets(warm) == [{"name": "처음 값", "values": values}, *presets]
    assert all(slider["words"] and "기본값" not in slider["words"] for slider in sliders.values())
    assert not any(slider["words"].startswith(slider["label"]) for slider in sliders.values())


def test_a_page_is_told_its_seed_to_the_last_digit_and_whether_its_model_talks(open_page, chat_model_folder):
    """A number of JavaScript's has 53 bits."""
    pages = [
        open_page(f"--seed={2**63 - 1}"),
        open_page("--prompt_template=질문: {prompt} 답변:"),
        open_page(folder=chat_model_folder),
    ]
    told = [json.loads(get(port, "/settings").read()) for port in pages]
    assert [(each["seed"], each["chat"], each["suggests"]) for each in told] == [
        (str(2**63 - 1), False, True), (None, True, True), (None, True, False)
    ]  # fmt: skip


def test_a_seed_repeats_a_text_and_no_seed_is_a_new_one(port):
    texts = [written(ask(port, "/write", prompt="가", seed=seed)[1]) for seed in ("7", "7", None, None)]
    assert texts[0] == texts[1] and len(set(texts)) == 3


def test_text_comes_in_whole_characters_while_it_is_written(port):
    _, events = ask(port, "/write", prompt="한국어")
    pieces = [event["text"] for event in events if event.get("text")]
    assert len(pieces) > 3 and "\ufffd" not in "".join(pieces)


def test_suggestions_differ_and_go_on_where_the_text_ends(port):
    for prompt in ("오늘은", "오늘은 "):
        _, events = ask(port, "/suggest", prompt=prompt)
        suggestions = events[-1]["suggestions"]
        assert len(suggestions) == len(set(suggestions)) <= SUGGESTIONS
        assert all(text.strip() and "\n" not in text for text in suggestions)
    assert ask(port, "/suggest", prompt="오늘은")[1][-1]["suggestions"]


@pytest.mark.parametrize(
    ("prompt", "suggested"),
    [("오늘은", [" 날씨가", "도", " 비"]), ("오늘은 ", ["날씨가", "도", "비"]), ("", [" 날씨가", "도", " 비"])],
)
def test_suggestions_are_whole_words_that_join_what_was_typed(monkeypatch, prompt, suggested):
    asked = []

    def write_them(model, prompts, settings, *_):
        asked.append((prompts, settings))
        yield 5, [" 날씨가", "도 비", " 비", "도 ", "  "]
        yield 5, [" 좋", "", "", "", ""]

    options = parse_generate_options(["--model_name_or_path=x", "--end_at_sentence", "--min_length=9", "--stop=끝"])
    monkeypatch.setattr("gpt2_korean.generation.write.put_in_context", lambda *words: words[3])
    monkeypatch.setattr("gpt2_korean.generation.write.stream_texts", write_them)
    monkeypatch.setattr(events, "SUGGESTIONS", 5)
    page = Page(SimpleNamespace(chat=None), options, "")
    *_, last = events.suggest_texts(page, events.Asked(prompt, [], options.settings, 1))
    assert last == {"suggestions": suggested}
    ((prompts, settings),) = asked
    assert prompts == [prompt] * 5 and settings.stop == ["끝", "\n"]
    assert (settings.length, settings.min_length, settings.end_at_sentence) == (10, 0, False)
    assert settings.token_healing is True  # a word may be under way


def test_a_question_is_suggested_as_it_stands_in_the_template(monkeypatch):
    read = []
    monkeypatch.setattr("gpt2_korean.generation.write.put_in_context", lambda *words: words[3])
    monkeypatch.setattr(
        "gpt2_korean.generation.write.stream_texts", lambda _, prompts, *more: read.extend(prompts) or []
    )
    options = parse_generate_options(["--model_name_or_path=x", "--prompt_template=질문: {prompt} 답변:"])
    list(
        events.suggest_texts(Page(SimpleNamespace(chat=None), options, ""), events.Asked("왜", [], options.settings, 1))
    )
    assert set(read) == {"질문: 왜"}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"prompt": "가", "settings": {"length": "1001"}}, "length"),
        ({"prompt": "가", "settings": {"length": "0"}}, "length"),
        ({"prompt": "가", "settings": {"top_p": "nan"}}, "top_p"),
        ({"prompt": "가", "settings": {"min_length": "999999"}}, "min_length"),
        ({"prompt": "가", "settings": {"output_file": "x"}}, "output_file"),
        ({"prompt": "가", "seed": "-1"}, "seed"),
        ({"prompt": "가" * 20_001}, "20,000"),
        ({"prompt": "가", "turns": [["나", "다" * 20_000]]}, "20,000"),
        ({"prompt": "가", "turns": [["나"]]}, "읽을 수 없는"),
        ({"prompt": "가", "turns": 5}, "읽을 수 없는"),
        ({"settings": {}}, "읽을 수 없는"),
        (b'{"prompt": "\\ud800"}', "읽을 수 없는"),
        (b"[" * 100_000, "읽을 수 없는"),
        (b" " * 20_000_000, "20,000"),
    ],
)
def test_requests_past_the_limits_are_refused_whoever_sends_them(port, body, named):
    for path in ("/write", "/suggest"):
        answer = post(port, path, body, Connection="close")  # as urllib sends it, all of it before it reads
        refused = json.loads(answer.read())
        assert answer.status == 400 and named in (refused["field"] or refused["error"])


def test_a_length_given_as_a_flag_is_a_limit_that_may_be_reached(open_page):
    longer = open_page("--length=1200")
    for length in ("0", "1201"):
        status, (refused,) = ask(longer, "/write", prompt="가", settings={"length": length})
        assert status == 400 and refused["error"].endswith("쓸 수 없습니다. 1 이상 1,200 이하인 정수를 주세요.")
    assert ask(longer, "/suggest", prompt="가")[0] == 200


def test_other_sites_get_no_answer(port):
    assert post(port, "/write", b'{"prompt": "a"}', **{"Content-Type": "text/plain"}).status == 400
    assert post(port, "/write", {"prompt": "가"}, Host="evil.example").status == 400
    policy = post(port, "/settings", {}).getheader("Content-Security-Policy")
    assert "default-src 'self'" in policy


def test_a_browser_asks_for_the_page_anew_after_an_update():
    """It would go on with some of the scripts that it has kept."""
    assert ("Cache-Control", "no-cache") in app.HEADERS


def test_hanging_up_ends_the_work_and_the_next_in_line_goes_on(endless_port, monkeypatch):
    """One text at a time: a second request is told that it waits, and is served once the first has hung up."""
    steps = []
    original = write._push_chunks

    def counted(streams, *arguments):
        for chunk in original(streams, *arguments):
            steps.append(len(streams))
            yield chunk

    monkeypatch.setattr(write, "_push_chunks", counted)
    first = post(endless_port, "/write", {"prompt": "가"})
    assert "seed" in json.loads(first.readline()) and "text" in json.loads(first.readline())
    second = post(endless_port, "/suggest", {"prompt": "나"})
    assert json.loads(second.readline()) == {"waiting": 1}
    first.close()
    assert json.loads(second.read().splitlines()[-1])["suggestions"] is not None
    worked = steps.count(1)
    time.sleep(0.2)
    assert steps.count(1) == worked < 1_000_000


def test_more_than_a_line_of_waiting_requests_is_turned_away(endless_port, monkeypatch):
    monkeypatch.setattr(turns, "MOST_WAITING", 2)
    waiting = [post(endless_port, "/write", {"prompt": "가"}) for _ in range(3)]
    assert [json.loads(answer.readline()).get("waiting") for answer in waiting] == [None, 1, 2]
    assert "너무 많습니다" in ask(endless_port, "/suggest", prompt="가")[1][0]["error"]
    for answer in waiting:
        answer.close()
    for _ in range(1000):  # a moment until all three are known to have left
        if "suggestions" in ask(endless_port, "/suggest", prompt="가")[1][-1]:
            return
        time.sleep(0.05)
    pytest.fail("the line did not empty")


def test_a_conversation_goes_on_from_the_turns_that_the_page_keeps(open_page, run_main, model_folder):
    page = open_page("--dtype=float32", "--temperature=0", "--length=8", "--prompt_template=Q{prompt}A")
    _, events = ask(page, "/write", prompt="나", turns=[["가", " 답"]])
    words = [f"--model_name_or_path={model_folder}", "--device=cpu", "--dtype=float32", "--temperature=0", "--length=8"]
    assert run_main("generate.py", *words, "--prompt=Q가A 답\nQ나A")[1] == f"Q가A 답\nQ나A{written(events)}\n"
    assert ask(page, "/suggest", prompt="나", turns=[["가", " 답"]])[0] == 200


def test_a_chat_model_holds_a_conversation_without_any_flag(open_page, run_main, chat_model_folder):
    words = ["--dtype=float32", "--temperature=0", "--length=8", "--system=너는 시인이야."]
    page = open_page(*words, folder=chat_model_folder)
    _, first = ask(page, "/write", prompt="가 <|user|>")
    code, out, _ = run_main(*shlex.split(first[0]["commands"]["posix"])[1:])
    assert (code, out) == (0, written(first).lstrip() + "\n")
    _, second = ask(page, "/write", prompt="나", turns=[["가 <|user|>", written(first)]])
    assert second[0]["commands"] is None
    model = read_to_write(chat_model_folder)
    ids = model.chat.encode(as_turns("너는 시인이야.", [("가 <|user|>", written(first))], "나"))
    new = generate_ids(model.decoder, [ids], 8, Sampling(temperature=0), model.chat.end, model.utf8)[0]
    assert written(second) == model.tokenizer.decode(new)
    assert ask(page, "/suggest", prompt="가") == (200, [{"suggestions": []}])
    status, refused = ask(page, "/write", prompt=" \n")
    assert status == 400 and "말을 입력하세요" in refused[0]["error"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--interactive"], "--interactive"),
        (["--prompt_file=x"], "--prompt_file"),
        (["--output_file=x"], "--output_file"),
        (["--num_return_sequences=2"], "--num_return_sequences"),
        (["--prompt=가", "--prompt=나"], "--prompt"),
        (["--port=70000"], "--port"),
    ],
)
def test_flags_that_a_page_has_no_use_for_are_refused(words, named):
    with pytest.raises(UsageError, match=named):
        parse_generate_options(["--model_name_or_path=x", "--serve", *words])


def test_a_port_in_use_and_a_host_that_is_not_here_are_named(run_main, model_folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = [f"--model_name_or_path={model_folder}", "--serve"]
        code, _, err = run_main("generate.py", *words, f"--port={taken.getsockname()[1]}")
        assert code == 2 and "이미 사용 중인 포트" in err
    code, _, err = run_main("generate.py", *words, "--host=192.0.2.1", "--port=0")
    assert code == 2 and "--host=192.0.2.1" in err and "127.0.0.1" in err and "Errno" not in err


def test_an_empty_host_opens_the_page_to_nobody():
    with pytest.raises(UsageError, match="--host: 값이 비었습니다"):
        open_port("", 0).close()


def test_a_port_that_the_system_keeps_is_named(monkeypatch):
    monkeypatch.setattr("socket.create_server", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "x")))
    with pytest.raises(UsageError, match=r"--port=80: .*1024"):
        open_port("127.0.0.1", 80)


def test_missing_packages_are_named_with_the_command_that_installs_them(run_main, model_folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = run_main("generate.py", f"--model_name_or_path={model_folder}", "--serve")
    assert code == 1 and "pip install -r requirements-serve.txt" in err and len(err.splitlines()) == 1


@contextlib.contextmanager
def served(model_folder, *words):
    """generate.py --serve as a user starts it: `(process, the lines of stderr so far, port)`."""
    command = [sys.executable, "generate.py", f"--model_name_or_path={model_folder}", "--serve", "--port=0", *words]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said = []
        while not (said and (address := re.search(r"http://\S+:(\d+)", said[-1]))):
            said.append(process.stderr.readline())
            assert said[-1], said
        yield process, said, int(address.group(1))
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
def test_ctrl_c_ends_the_page_though_a_text_is_being_written(model_folder):
    with served(model_folder, "--device=cpu", "--host=0.0.0.0") as (process, said, port):
        assert any("암호가 없습니다" in line for line in said)
        answer = post(port, "/write", {"prompt": "가", "settings": {"length": "1000"}}, Host="a-name-of-this-computer")
        answer.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and "닫았습니다" in err and out == ""
    assert "오류" not in err and "Traceback" not in err
    assert "시드" not in "".join(said)  # the page draws its own


def test_a_client_that_leaves_before_all_is_sent_is_not_logged(port, capfd):
    logged, handler = [], logging.Handler()
    handler.emit = logged.append
    logging.getLogger("uvicorn.error").addHandler(handler)
    lines = ("Host: 127.0.0.1", "Content-Type: application/json", "Content-Length: 99", "", "")
    for path, body in itertools.product(("/write", "/v1/completions"), ("", '{"prompt": "')):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(("\r\n".join((f"POST {path} HTTP/1.1", *lines)) + body).encode())
    assert ask(port, "/write", prompt="가")[0] == 200
    logging.getLogger("uvicorn.error").removeHandler(handler)
    assert logged == [] and "오류" not in capfd.readouterr().err


def test_a_text_that_fails_is_told_and_the_page_goes_on(model_folder, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    options = parse_generate_options([f"--model_name_or_path={model_folder}"])
    model = SimpleNamespace(chat=None, decoder=SimpleNamespace(context=None))
    application = app.build_app(None, lambda: False, Page(model, options, ""))
    client = TestClient(application)
    for _ in range(2):
        answer = client.post("/write", json={"prompt": "가"})
        assert answer.status_code == 200 and "error" in json.loads(answer.text)
    err = capfd.readouterr().err
    assert "Traceback" not in err and err.count("오류: ") == 2 and list(tmp_path.glob("gpt2-korean-error-*.txt"))


def test_the_page_and_the_api_are_told_why_a_template_does_not_take_its_words(model_folder, monkeypatch, capfd):
    def refuse(*_):
        raise UserError("이 말은 받지 않습니다")

    monkeypatch.setattr("gpt2_korean.generation.write.read_after_turns", refuse)
    options = parse_generate_options([f"--model_name_or_path={model_folder}"])
    model = SimpleNamespace(chat=None, decoder=SimpleNamespace(context=None))
    application = app.build_app(None, lambda: False, Page(model, options, ""))
    client = TestClient(application)
    assert json.loads(client.post("/write", json={"prompt": "가"}).text) == {"error": "이 말은 받지 않습니다"}
    monkeypatch.setattr("gpt2_korean.server.openai_routes.rows_of", refuse)
    answer = client.post("/v1/completions", json={"prompt": "가"})
    assert answer.status_code == 400 and answer.json()["error"]["message"] == "이 말은 받지 않습니다"
    assert "오류" not in capfd.readouterr().err
