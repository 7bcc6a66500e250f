"""Who the API and the page let in, and what they refuse: keys, other sites, wrong addresses, too much at once."""

import base64
import json

import pytest
from server.browser import Page
from server.client import ask, get, post, written

from gpt2_korean.cli.generate_options import parse_generate_options, to_words
from gpt2_korean.messages import UsageError
from gpt2_korean.server.key import key_of
from gpt2_korean.server.openai_routes import MOST_BYTES

KEY = "k3y-of-a-test"
PAGE = {"Authorization": "Basic " + base64.b64encode(f"누구나:{KEY}".encode()).decode()}


@pytest.fixture(scope="module")
def guarded(open_page):
    return open_page(
        "--serve", f"--api_key={KEY}", "--cors_origin=https://a.example", "--cors_origin=http://b.example:81/",
        "--cors_origin=app://obsidian.md",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("POST", "/v1/", 404),
        ("GET", "/v1/models/nothing/here", 404),
        ("GET", "/v1/completions", 405),
        ("DELETE", "/v1/chat/completions", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/nothing", 404),
    ],
)
def test_wrong_addresses_are_refused_in_the_shape_of_the_api(port, method, path, status):
    answer = get(port, path, method)
    error = json.loads(answer.read())["error"]
    assert answer.status == status and error.keys() == {"message", "type", "param", "code"}
    assert status != 405 or answer.getheader("Allow")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/models"), ("POST", "/chat/completions"), ("POST", "/v1/responses")]
)
def test_who_has_left_out_v1_is_told_the_addresses(port, method, path):
    assert "/v1/chat/completions" in json.loads(get(port, path, method).read())["error"]["message"]


@pytest.mark.parametrize("name", ["host.docker.internal:7860", "evil.example", "", "[::1", "127.0.0.1.evil.example"])
def test_a_name_that_is_not_this_computers_is_refused_with_the_way_on(port, name):
    answer = get(port, "/v1/models", Host=name)
    assert answer.status == 400 and "--host=0.0.0.0" in json.loads(answer.read())["error"]["message"]
    for known in ("localhost", "LOCALHOST:1", "127.0.0.1:7860", "[::1]:7860"):
        assert get(port, "/v1/models", Host=known).status == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"5", b'{"prompt": "\\ud800"}', b"[" * 100_000, b'{"n": 1e999}'])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_what_is_no_request_is_refused(port, path, body):
    answer = post(port, path, body)
    assert answer.status == 400 and json.loads(answer.read())["error"]["type"] == "invalid_request_error"


def test_a_body_past_the_limit_and_one_of_another_type_are_refused(port):
    for size, status in ((MOST_BYTES, 400), (MOST_BYTES + 1, 413)):
        assert post(port, "/v1/completions", b" " * size).status == status
    assert post(port, "/v1/completions", {"prompt": "가"}, **{"Content-Type": "text/plain"}).status == 400
    typed = {"Content-Type": "application/json; charset=utf-8"}  # as PowerShell sends it
    assert post(port, "/v1/completions", {"prompt": "가", "max_tokens": 1}, **typed).status == 200


def test_answers_that_come_in_pieces_say_in_which_form(port):
    asked = {"prompt": "가", "max_tokens": 1, "stream": True}
    typed = {"Content-Type": "Application/JSON"}
    assert post(port, "/v1/completions", asked, **typed).getheader("Content-Type").startswith("text/event-stream")
    page = post(port, "/write", {"prompt": "가", "settings": {"length": "1", "min_length": "1"}})
    assert page.getheader("Content-Type") == "application/x-ndjson"


def test_health_and_what_llama_cpps_page_asks_are_told(port, guarded):
    assert json.loads(get(port, "/health").read()) == {"status": "ok"} and get(guarded, "/health").status == 200
    settings = json.loads(get(port, "/props").read())["default_generation_settings"]
    assert settings["n_ctx"] == 256 and settings["params"]["n_predict"] == 20


def test_the_key_guards_the_api_and_the_page_which_a_browser_opens_with_it(guarded):
    for path in ("/v1/models", "/props", "/", "/settings", "/page.js", "/v1/nothing"):
        refused = get(guarded, path)
        assert refused.status == 401 and json.loads(refused.read())["error"]["code"] == "invalid_api_key"
        scheme = "Bearer" if path.startswith(("/v1", "/props")) else "Basic"
        assert refused.getheader("WWW-Authenticate").startswith(scheme)
    for path in ("/write", "/suggest", "/v1/completions"):
        assert post(guarded, path, {"prompt": "가"}).status == 401
    assert get(guarded, "/v1/models", "OPTIONS").status == 401
    assert get(guarded, "/", **PAGE).status == 200 and get(guarded, "/settings", **PAGE).status == 200
    assert post(guarded, "/write", {"prompt": "가", "settings": {"length": "2"}}, **PAGE).status == 200
    assert get(guarded, "/v1/models", Authorization=f"bearer {KEY}").status == 200


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Basic {KEY}", "Basic !", KEY, "Basic a2V5"],
)
def test_a_wrong_key_is_none(guarded, header):
    assert get(guarded, "/v1/models", Authorization=header).status == 401


def test_a_key_is_read_as_its_senders_write_it():
    named = base64.b64encode(b"me:a:b").decode()  # a name has no colon, and a key may have one
    for header, key in (("BEARER  a:b ", b"a:b"), (f"basic {named}", b"a:b"), (f"BASIC  {named} ", b"a:b")):
        assert key_of(header) == key


def test_the_page_writes_with_a_key_and_shows_it_in_no_command(guarded, port):
    answer = post(guarded, "/write", {"prompt": "가", "settings": {"length": "5", "min_length": "5"}}, **PAGE)
    events = [json.loads(line) for line in answer.read().decode().splitlines()]
    assert written(events) and KEY not in str(events)
    options = parse_generate_options(["--model_name_or_path=x", "--serve", f"--api_key={KEY}"])
    assert KEY not in str(to_words(options)) and ask(port, "/write", prompt="가")[0] == 200


def test_the_key_may_be_an_environment_variable(monkeypatch):
    monkeypatch.setenv("GPT2_KOREAN_API_KEY", KEY)
    words = ["--model_name_or_path=x"]
    assert parse_generate_options([*words, "--serve"]).page.api_key == KEY
    assert parse_generate_options([*words, "--serve", "--api_key=other"]).page.api_key == "other"
    assert parse_generate_options(words).page.api_key is None
    monkeypatch.setenv("GPT2_KOREAN_API_KEY", "두 낱말")
    with pytest.raises(UsageError, match="GPT2_KOREAN_API_KEY"):
        parse_generate_options([*words, "--serve"])


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("--api_key=", "--api_key"),
        ("--api_key=키", "--api_key"),
        ("--api_key=a b", "--api_key"),
        ("--cors_origin=example.com", "--cors_origin"),
        ("--cors_origin=localhost:3000", "--cors_origin"),
        ("--cors_origin=https://a.example/page", "--cors_origin"),
        ("--cors_origin=", "--cors_origin"),
        ("--cors_origin=https://", "--cors_origin"),
        ("--cors_origin=https://가..kr", "--cors_origin"),
        ("--cors_origin=htps://a.example", "--cors_origin.*혹시 https://a.example인가요"),
        ("--cors_origin=htttp://localhost:3000", "--cors_origin.*혹시 http://localhost:3000인가요"),
    ],
)
def test_keys_and_origins_that_are_none_are_refused(word, named):
    with pytest.raises(UsageError, match=named):
        parse_generate_options(["--model_name_or_path=x", "--serve", word])


def test_an_origin_is_the_one_that_a_browser_sends():
    given = ["HTTPS://한글.kr", "https://A.example:443/", "http://b.example:80", "http://[::1]:3000", "*"]
    words = ["--model_name_or_path=x", "--serve", *(f"--cors_origin={word}" for word in given)]
    sent = ["https://xn--bj0bj06e.kr", "https://a.example", "http://b.example", "http://[::1]:3000", "*"]
    assert parse_generate_options(words).page.cors_origin == sent


@pytest.mark.parametrize("word", ["app://obsidian.md", "tauri://localhost", "chrome-extension://abcdefghijklmnop"])
def test_a_program_that_is_made_of_pages_may_ask_by_its_own_origin(word):
    options = parse_generate_options(["--model_name_or_path=x", "--serve", f"--cors_origin={word}"])
    assert options.page.cors_origin == [word]


@pytest.mark.parametrize("word", ["--api_key=k", "--cors_origin=*"])
def test_they_belong_to_a_server(word):
    with pytest.raises(UsageError, match="--serve"):
        parse_generate_options(["--model_name_or_path=x", word])


def test_other_sites_may_ask_where_the_flag_names_them_alone(port, guarded):
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    for origin in ("https://a.example", "http://b.example:81", "app://obsidian.md"):
        allowed = get(guarded, "/v1/completions", "OPTIONS", Origin=origin, **asked)
        assert allowed.status == 200 and allowed.getheader("Access-Control-Allow-Origin") == origin
        assert get(guarded, "/v1/models", Origin=origin).getheader("Access-Control-Allow-Origin") == origin  # a 401 too
    for server, origin in ((guarded, "https://c.example"), (port, "https://a.example")):
        refused = get(server, "/v1/completions", "OPTIONS", Origin=origin, **asked)
        assert refused.status in (400, 401, 405) and refused.getheader("Access-Control-Allow-Origin") is None
        assert get(server, "/v1/models", Origin=origin).getheader("Access-Control-Allow-Origin") is None


def test_a_public_site_that_the_flag_names_may_reach_this_computer_and_no_other_may(guarded):
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Private-Network": "true"}
    allowed = get(guarded, "/v1/completions", "OPTIONS", Origin="https://a.example", **asked)
    assert allowed.status == 200 and allowed.getheader("Access-Control-Allow-Private-Network") == "true"
    assert get(guarded, "/v1/completions", "OPTIONS", Origin="https://c.example", **asked).status == 400


@pytest.mark.parametrize("name_and_key", ["", f"anyone:{KEY}@"])
def test_a_browser_that_has_asked_its_user_for_the_key_writes_with_it(browser, guarded, name_and_key):
    browser.get(f"http://anyone:{KEY}@127.0.0.1:{guarded}/page.css")  # as its dialog would send it
    page = Page(browser, guarded)
    page.open(f"http://{name_and_key}127.0.0.1:{guarded}/")
    page.type("오늘은")
    assert page.write().startswith("오늘은") and page.count("#error:not(:empty)") == 0


def test_the_page_tells_in_words_that_its_key_is_no_longer_the_right_one(browser, guarded):
    browser.get(f"http://anyone:{KEY}@127.0.0.1:{guarded}/page.css")
    page = Page(browser, guarded)
    page.run("const own = fetch; window.fetch = (url, how) => own(url, { ...how, credentials: 'omit' })")
    page.type("오늘은")
    page.press("write")
    assert "API 키가 없거나 맞지 않습니다" in page.wait(lambda: page.part("error").text)
    assert page.text == "오늘은" and page.part("write").is_displayed()
