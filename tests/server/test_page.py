"""The page of generate.py --serve in a real browser."""

import json
import shlex

from server.browser import Keys, Page
from server.client import ask, post

from gpt2_korean.server.turns import FULL
from gpt2_korean.text.normalise import normalise


def test_a_suggestion_is_taken_with_tab_or_a_click(page):
    page.type("오늘은")
    first = page.words(page.suggestions()[0])
    page.type(Keys.TAB)
    assert page.text.startswith("오늘은") and page.ends_with(first)

    before, last = page.text, page.suggestions()[-1]
    clicked = page.words(last)
    last.click()
    assert page.text.startswith(before) and page.ends_with(clicked)

    second = page.words(page.suggestions()[1])
    page.type(Keys.ALT, Keys.ARROW_DOWN, Keys.NULL, Keys.TAB)
    assert page.ends_with(second)

    page.suggestions()
    page.type(Keys.ESCAPE)
    assert not page.browser.find_elements("css selector", "#suggestions button")
    page.type(Keys.TAB)  # moves on, as anywhere else
    assert page.browser.switch_to.active_element.get_attribute("id") == "write"


def test_a_syllable_under_way_is_not_doubled_by_tab(page):
    page.type("오늘")
    page.browser.execute_cdp_cmd("Input.imeSetComposition", {"text": "은", "selectionStart": 1, "selectionEnd": 1})
    page.wait(lambda: page.text == "오늘은")
    taken = page.words(page.wait(lambda: page.browser.find_elements("css selector", "#suggestions button"))[0])
    page.type(Keys.TAB)
    assert page.text.startswith("오늘은") and page.text.count("은") == 1 + taken.count("은")


def test_tab_takes_a_suggestion_though_safari_ends_the_syllable_before_it_tells_of_the_key(page):
    """It deletes the syllable and puts it there again, and that is no edit."""
    page.type("오늘은")
    taken = page.words(page.suggestions()[0])
    script = """const field = document.getElementById("text");
        const put = (value, inputType) => {
          field.value = value;
          const event = new InputEvent("input", { isComposing: true });
          Object.defineProperty(event, "inputType", { value: inputType }); // one that Chromium does not know
          field.dispatchEvent(event);
        };
        field.dispatchEvent(new CompositionEvent("compositionstart"));
        put("오늘", "deleteCompositionText");
        put("오늘은", "insertFromComposition");
        field.dispatchEvent(new CompositionEvent("compositionend", { data: "은" }));
        field.dispatchEvent(new KeyboardEvent("keydown", { key: "Tab", keyCode: 229, bubbles: true }))"""
    page.run(script)
    assert page.text.startswith("오늘은") and page.text != "오늘은" and page.ends_with(taken)


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


def test_a_text_that_the_closing_server_broke_off_is_kept_and_not_called_done(browser, open_page):
    port = open_page("--length=1000000", "--min_length=1000000")
    page = Page(browser, port)
    page.type("오늘은")
    page.press("write")
    page.wait(lambda: len(page.text) > 20)
    open_page.close(port)
    page.wait(lambda: "연결할 수 없습니다" in page.part("error").text)
    assert page.part("status").text == "" and len(page.text) > 20 and page.part("write").is_displayed()


def test_a_slider_and_the_seed_are_in_the_command_and_again_writes_the_same(page, run_main):
    for _ in range(2):
        page.part("sliders").find_element("css selector", "[aria-label*=확률]").send_keys("\ue012")  # arrow left
    page.type("오늘은")
    page.press("write")
    page.status("완료했습니다")
    words = shlex.split(page.part("command").text)
    assert "--top_p=0.98" in words and f"--seed={page.part('seed').get_property('value')}" in words
    text = page.text
    assert normalise(run_main(*words[1:])[1])[0] == normalise(f"{text}\n")[0]  # a field has its own line ends
    page.press("fixed")
    page.browser.execute_script("document.getElementById('status').textContent = ''")
    page.press("again")
    page.status("완료했습니다")
    assert page.text == text and shlex.split(page.part("command").text) == words


def test_a_seed_that_is_fixed_before_there_is_one_is_drawn_and_stays(page):
    page.press("fixed")
    page.type("오늘은")
    text = page.write()
    seed = page.part("seed").get_property("value")
    assert seed.isdecimal() and page.part("seed-error").text == "" and page.part("fixed").is_selected()
    assert page.write("again") == text and page.part("seed").get_property("value") == seed
    page.press("fixed")
    page.write("again")
    assert page.part("seed").get_property("value") != seed and not page.part("fixed").is_selected()
    page.enter("seed", "7")
    assert page.part("fixed").is_selected()
    page.write("again")
    assert page.part("seed").get_property("value") == "7"


def test_text_is_shown_as_text_and_nothing_is_asked_of_others(browser, open_page):
    browser.get_log("performance")
    chat = open_page("--length=5", "--min_length=5", "--prompt_template=Q{prompt}A")
    page = Page(browser, chat)
    prompt = "<img src=x onerror=\"document.title='!'\"> **가** <script>document.title='!'</script>"
    for turns in (1, 2):
        page.type(f"{prompt}\n")
        page.wait(lambda turns=turns: len(browser.find_elements("css selector", ".answered")) == turns)
        page.status("완료했습니다")
    assert [asked.text for asked in browser.find_elements("css selector", ".asked")] == [prompt] * 2
    assert any(prompt in word for word in shlex.split(page.part("command").text)) and page.text == ""
    assert browser.title == "gpt2-korean" and not browser.find_elements("css selector", "img, main script")
    assert "/" in page.part("context").text
    page.press("new")
    assert not browser.find_elements("css selector", ".asked")
    assert not page.part("sharing").is_displayed() and "/" not in page.part("context").text
    page.press("undo")
    assert page.part("sharing").is_displayed() and "/" in page.part("context").text

    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [entry["params"]["request"]["url"] for entry in messages if entry["method"] == "Network.requestWillBeSent"]
    assert asked and all(url.startswith((f"http://127.0.0.1:{chat}/", "data:,")) for url in asked)
    assert not browser.get_log("browser")  # neither an error nor a broken policy


def test_the_command_shown_is_that_of_the_text_which_undoing_brings_back(page):
    page.type("가")
    page.write()
    first = page.part("command").text
    page.write("again")
    second = page.part("command").text
    assert first != second  # of another seed
    page.press("undo")
    assert page.part("command").text == first
    page.press("redo")
    assert page.part("command").text == second
    page.press("undo")
    page.press("undo")
    assert page.text == "가" and not page.part("sharing").is_displayed()


def test_a_chat_models_page_is_a_conversation_by_itself(browser, open_page, chat_model_folder):
    page = Page(browser, open_page("--length=5", "--min_length=5", folder=chat_model_folder))
    assert not page.part("suggesting").is_displayed() and page.part("new").is_displayed()
    for turns in (1, 2):
        page.type("가나\n")
        page.wait(lambda turns=turns: len(browser.find_elements("css selector", ".answered")) == turns)
        page.status("완료했습니다")
        assert page.part("sharing").is_displayed() == (turns == 1)  # no command asks with earlier turns
    assert [asked.text for asked in browser.find_elements("css selector", ".asked")] == ["가나"] * 2


def test_a_wait_for_others_and_a_refusal_are_told(browser, endless_port):
    page = Page(browser, endless_port)
    first = post(endless_port, "/write", {"prompt": "가"})
    first.readline()
    page.press("suggesting")
    page.enter("length", "5")
    page.type("오늘은")
    page.press("write")
    page.status("1개가 대기 중")
    first.close()
    page.status("완료했습니다")
    page.enter("length", "1000000001")
    page.press("write")
    page.wait(lambda: "1,000,000 이하" in page.part("length-error").text)


def test_a_full_line_is_told_and_is_no_server_that_is_gone(browser, endless_port, monkeypatch):
    monkeypatch.setattr("gpt2_korean.server.turns.MOST_WAITING", 1)
    page = Page(browser, endless_port)
    waiting = [post(endless_port, "/write", {"prompt": "가"}) for _ in range(2)]
    page.type("오늘은")
    page.press("write")
    page.wait(lambda: FULL in page.part("error").text)
    assert page.text == "오늘은" and page.part("write").is_displayed()
    for answer in waiting:
        answer.close()
