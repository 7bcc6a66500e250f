"""The page of generate.py --serve: what it answers over loopback, and how it feels in a real browser."""

import contextlib
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT, save_tiny_gpt2

from gpt2_korean.cli.generate_flags import parse_generate_options
from gpt2_korean.messages import UsageError
from gpt2_korean.server import app
from gpt2_korean.text.documents import normalise

pytest.importorskip("starlette", reason="requirements-serve.txt is not installed")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, byte_tokenizer):
    """A model with a context long enough to write for minutes."""
    return save_tiny_gpt2(tmp_path_factory.mktemp("models") / "long", byte_tokenizer, n_positions=256)


@pytest.fixture(scope="module")
def open_page(model_folder):
    """A function that opens the page with flags, in a thread of this process; returns its port."""
    import torch

    from gpt2_korean.generation.load import read_model

    model = read_model(model_folder, torch.device("cpu"), torch.float32)
    servers = []

    def start(*words):
        options = parse_generate_options([f"--model_name_or_path={model_folder}", "--device=cpu", *words])
        listener = app.open_port("127.0.0.1", 0)
        server = app.build_server("127.0.0.1", app.Page(model, options, ""))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        servers.append((server, thread))
        return listener.getsockname()[1]

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def port(open_page):
    return open_page("--dtype=float32", "--length=20", "--top_k=0")


@pytest.fixture(scope="module")
def endless_port(open_page):
    """Of a page whose texts take minutes, so that they are broken off for sure."""
    return open_page("--length=1000000", "--min_length=1000000")


def post(port, path, body, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": "application/json", **headers}
    connection.request("POST", path, json.dumps(body) if isinstance(body, dict) else body, headers)
    return connection.getresponse()


def ask(port, path, **body):
    """`(status, events)`"""
    answer = post(port, path, body)
    return answer.status, [json.loads(line) for line in answer.read().decode().splitlines()]


def written(events):
    return "".join(event.get("text", "") for event in events)


@pytest.mark.parametrize("prompt", ["오늘은", "", "\"따옴표\"와 '$HOME'\n- 둘째 줄\\n"])
def test_the_command_that_is_shown_writes_the_same_text(port, run_main, prompt):
    changed = {"length": "30", "temperature": "0.9", "repetition_penalty": "1.3", "top_p": "0.95", "top_k": "40"}
    status, events = ask(port, "/write", prompt=prompt, settings=changed)
    assert status == 200 and written(events)
    python, script, *words = shlex.split(events[0]["command"])
    assert python == "python" and f"--seed={events[0]['seed']}" in words
    code, out, _ = run_main(script, *words)
    assert (code, out) == (0, prompt + written(events) + "\n")


def test_a_seed_repeats_a_text_and_no_seed_is_a_new_one(port):
    texts = [written(ask(port, "/write", prompt="가", seed=seed)[1]) for seed in ("7", "7", None, None)]
    assert texts[0] == texts[1] and len(set(texts)) == 3


def test_text_comes_in_whole_characters_while_it_is_written(port):
    _, events = ask(port, "/write", prompt="한국어")
    pieces = [event["text"] for event in events[1:] if event["text"]]
    assert len(pieces) > 3 and "\ufffd" not in "".join(pieces)


def test_suggestions_differ_and_go_on_where_the_text_ends(port):
    for prompt in ("오늘은", "오늘은 "):
        _, events = ask(port, "/suggest", prompt=prompt)
        suggestions = events[-1]["suggestions"]
        assert len(suggestions) == len(set(suggestions)) <= app.SUGGESTIONS
        assert all(text.strip() and "\n" not in text for text in suggestions)
    assert ask(port, "/suggest", prompt="오늘은")[1][-1]["suggestions"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"prompt": "가", "settings": {"length": "1001"}}, "length"),
        ({"prompt": "가", "settings": {"length": "0"}}, "--length"),
        ({"prompt": "가", "settings": {"top_p": "nan"}}, "--top_p"),
        ({"prompt": "가", "settings": {"min_length": "999999"}}, "min_length"),
        ({"prompt": "가", "settings": {"output_file": "x"}}, "output_file"),
        ({"prompt": "가", "seed": "-1"}, "--seed"),
        ({"prompt": "가" * 20_001}, "20,000"),
        ({"prompt": "가", "turns": [["나", "다" * 20_000]]}, "20,000"),
        ({"prompt": "가", "turns": [["나"]]}, "읽을 수 없는"),
        ({"settings": {}}, "읽을 수 없는"),
        (b'{"prompt": "\\ud800"}', "읽을 수 없는"),
        (b"[" * 100_000, "읽을 수 없는"),
        (b" " * 2_000_000, "20,000"),
    ],
)
def test_requests_past_the_limits_are_refused_whoever_sends_them(port, body, named):
    for path in ("/write", "/suggest"):
        try:
            answer = post(port, path, body)
        except (BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
            continue
        assert answer.status == 400 and named in json.loads(answer.read())["error"]


def test_a_length_given_as_a_flag_is_a_limit_that_may_be_reached(open_page):
    longer = open_page("--length=1200")
    assert ask(longer, "/write", prompt="가", settings={"length": "1201"})[0] == 400
    assert ask(longer, "/suggest", prompt="가")[0] == 200


def test_other_sites_get_no_answer(port):
    assert post(port, "/write", b'{"prompt": "a"}', **{"Content-Type": "text/plain"}).status == 400
    assert post(port, "/write", {"prompt": "가"}, Host="evil.example").status == 400
    policy = post(port, "/settings", {}).getheader("Content-Security-Policy")
    assert "default-src 'self'" in policy


def test_hanging_up_ends_the_work_and_the_next_in_line_goes_on(endless_port, monkeypatch):
    """One text at a time: a second request is told that it waits, and is served once the first has hung up."""
    from gpt2_korean.generation import write

    steps = []
    original = write._push_chunks

    def counted(streams, chunks):
        for chunk in original(streams, chunks):
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
    monkeypatch.setattr(app, "MOST_WAITING", 2)
    waiting = [post(endless_port, "/write", {"prompt": "가"}) for _ in range(3)]
    assert [json.loads(answer.readline()).get("waiting") for answer in waiting] == [None, 1, 2]
    assert "너무 많습니다" in ask(endless_port, "/suggest", prompt="가")[1][0]["error"]
    for answer in waiting:
        answer.close()
    for _ in range(100):  # a moment until all three are known to have left
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
        assert code == 2 and "이미 쓰이는 포트" in err
    code, _, err = run_main("generate.py", *words, "--host=192.0.2.1", "--port=0")
    assert code == 2 and "--host=192.0.2.1" in err


def test_missing_packages_are_named_with_the_command_that_installs_them(run_main, model_folder, monkeypatch):
    monkeypatch.setattr(app.importlib.util, "find_spec", lambda name: None)
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
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "Ctrl-C" in err and "Traceback" not in err and out == ""


@pytest.fixture(scope="module")
def browser():
    """A Chromium without a window, driven as a user would."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("neither Chromium nor its driver is installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,900"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture
def page(browser, port):
    return Page(browser, port)


class Page:
    """What the tests do on the page and see of it, by the ids of its parts."""

    def __init__(self, browser, port):
        self.browser = browser
        browser.get(f"http://127.0.0.1:{port}/")
        self.wait(lambda: self.part("seed-words").text)  # it has heard what it starts with

    def part(self, name):
        return self.browser.find_element("id", name)

    @property
    def text(self):
        return self.part("text").get_property("value")

    def type(self, *words):
        self.part("text").send_keys(*words)

    def enter(self, name, words):
        self.part(name).clear()
        self.part(name).send_keys(words)

    def press(self, name):
        self.part(name).click()

    def wait(self, question):
        """Until `question()` has an answer, which is returned."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, 30, 0.02).until(lambda _: question())

    def status(self, words):
        return self.wait(lambda: words in self.part("status").text)

    def suggestions(self):
        """The buttons, once there are several; what random weights suggest may be one text three times."""
        self.wait(lambda: self.browser.find_elements("css selector", "#suggestions button"))
        buttons = self.browser.find_elements("css selector", "#suggestions button")
        if len(buttons) > 1:
            return buttons
        self.type("가")
        return self.suggestions()

    def ends_with(self, text):
        """But for white space, which browsers and drivers see each in their own way."""
        return "".join(self.text.split()).endswith("".join(text.split()))


def test_a_suggestion_is_taken_with_tab_or_a_click(page):
    from selenium.webdriver.common.keys import Keys

    page.type("오늘은")
    first = page.suggestions()[0].text
    page.type(Keys.TAB)
    assert page.text.startswith("오늘은") and page.ends_with(first)

    before, last = page.text, page.suggestions()[-1]
    clicked = last.text
    last.click()
    assert page.text.startswith(before) and page.ends_with(clicked)

    second = page.suggestions()[1].text
    page.type(Keys.SHIFT, Keys.TAB, Keys.NULL, Keys.TAB)
    assert page.ends_with(second)

    page.suggestions()
    page.type(Keys.ESCAPE)
    assert not page.browser.find_elements("css selector", "#suggestions button")
    page.type(Keys.TAB)  # moves on, as anywhere else
    assert page.browser.switch_to.active_element.get_attribute("id") == "write"


def test_a_syllable_under_way_is_not_doubled_by_tab(page):
    from selenium.webdriver.common.keys import Keys

    page.type("오늘")
    page.browser.execute_cdp_cmd("Input.imeSetComposition", {"text": "은", "selectionStart": 1, "selectionEnd": 1})
    page.wait(lambda: page.text == "오늘은")
    taken = page.wait(lambda: page.browser.find_elements("css selector", "#suggestions button"))[0].text
    page.type(Keys.TAB)
    assert page.text.startswith("오늘은") and page.text.count("은") == 1 + taken.count("은")


def test_text_grows_until_stop_and_the_work_ends_with_it(browser, endless_port):
    page = Page(browser, endless_port)
    page.type("오늘은")
    page.press("write")
    page.status("쓰는 중")
    page.wait(lambda: len(page.text) > 20)
    assert not page.part("write").is_displayed()
    page.press("stop")
    page.status("멈췄습니다")
    stopped = page.text
    assert stopped.startswith("오늘은") and ask(endless_port, "/suggest", prompt="가")[1][-1]["suggestions"]
    assert page.text == stopped and page.part("write").is_displayed()


def test_a_slider_and_the_seed_are_in_the_command_and_again_writes_the_same(page, run_main):
    for _ in range(2):
        page.part("sliders").find_element("css selector", "[aria-label=top_p]").send_keys("\ue012")  # arrow left
    page.type("오늘은")
    page.press("write")
    page.status("다 썼습니다")
    words = shlex.split(page.part("command").text)
    assert "--top_p=0.98" in words and f"--seed={page.part('seed').get_property('value')}" in words
    text = page.text
    assert normalise(run_main(*words[1:])[1])[0] == normalise(f"{text}\n")[0]  # a field has its own line ends
    page.press("fixed")
    page.browser.execute_script("document.getElementById('status').textContent = ''")
    page.press("again")
    page.status("다 썼습니다")
    assert page.text == text and shlex.split(page.part("command").text) == words


def test_text_is_shown_as_text_and_nothing_is_asked_of_others(browser, open_page):
    browser.get_log("performance")
    chat = open_page("--length=5", "--prompt_template=Q{prompt}A")
    page = Page(browser, chat)
    prompt = "<img src=x onerror=\"document.title='!'\"> **가** <script>document.title='!'</script>"
    for turns in (1, 2):
        page.type(f"{prompt}\n")
        page.wait(lambda turns=turns: len(browser.find_elements("css selector", ".answered")) == turns)
        page.status("다 썼습니다")
    assert [asked.text for asked in browser.find_elements("css selector", ".asked")] == [prompt] * 2
    assert prompt in shlex.split(page.part("command").text)[-3] and page.text == ""
    assert browser.title == "gpt2-korean" and not browser.find_elements("css selector", "img, main script")
    page.press("new")
    assert not browser.find_elements("css selector", ".asked")

    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [entry["params"]["request"]["url"] for entry in messages if entry["method"] == "Network.requestWillBeSent"]
    assert asked and all(url.startswith((f"http://127.0.0.1:{chat}/", "data:,")) for url in asked)
    assert not browser.get_log("browser")  # neither an error nor a broken policy


def test_a_wait_for_others_and_a_refusal_are_told(browser, endless_port):
    page = Page(browser, endless_port)
    first = post(endless_port, "/write", {"prompt": "가"})
    first.readline()
    page.press("suggesting")
    page.enter("length", "5")
    page.type("오늘은")
    page.press("write")
    page.status("1개를 기다립니다")
    first.close()
    page.status("다 썼습니다")
    page.enter("length", "1000001")
    page.press("write")
    page.status("1,000,000까지")


def test_a_phone_shows_it_all_without_scrolling_sideways(page):
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.type("가" * 100)
        page.press("write")
        page.status("다 썼습니다")
        assert page.browser.execute_script("return document.documentElement.scrollWidth") == 390
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
