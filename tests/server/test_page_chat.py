"""A conversation on the page: kept in sight, stopped, changed, answered again."""

import pytest
from server.browser import Keys, Page
from server.client import post

TEMPLATE = "--prompt_template=Q{prompt}A"


@pytest.fixture(scope="module")
def chat_port(open_page):
    return open_page("--length=9", "--min_length=9", "--dtype=float32", TEMPLATE)


@pytest.fixture(scope="module")
def endless_chat_port(open_page):
    return open_page("--length=1000000", "--min_length=1000000", TEMPLATE)


@pytest.fixture
def chat(browser, chat_port):
    page = Page(browser, chat_port)
    page.press("suggesting")
    return page


def texts(page, side):
    return page.run("return [...document.querySelectorAll(arguments[0])].map((p) => p.textContent)", f".{side}")


def say(page, *questions):
    for question in questions:
        turns = page.count(".turn")
        page.type(f"{question}\n")
        page.wait(lambda turns=turns: page.count(".turn") == turns + 1 and page.part("write").is_displayed())


def is_seen(page, selector):
    """Whether the last of them is on the screen and in its box."""
    return page.run(
        """const all = document.querySelectorAll(arguments[0]), rect = all[all.length - 1].getBoundingClientRect();
        const at = document.elementFromPoint(rect.left + 5, rect.bottom - 5);
        return all[all.length - 1] === at || all[all.length - 1].contains(at)""",
        selector,
    )


def test_the_newest_answer_and_the_field_stay_in_sight(chat):
    say(chat, *"가나다라마바사아자")
    assert chat.count(".turn") == 9 and is_seen(chat, ".answered") and is_seen(chat, "#text")
    chat.run("document.getElementById('turns').scrollTop = 0")
    chat.press("again")
    chat.wait(lambda: chat.part("write").is_displayed())
    assert chat.run("return document.getElementById('turns').scrollTop") == 0  # one is reading


def test_a_conversation_survives_a_reload_and_its_end_is_undone(chat):
    say(chat, "가", "나")
    chat.type("아직")
    before = texts(chat, "asked"), texts(chat, "answered")
    chat.open()
    assert (texts(chat, "asked"), texts(chat, "answered")) == before and chat.text == "아직"
    chat.press("new")
    assert not chat.count(".turn") and chat.text == "아직"
    assert chat.run("return document.activeElement.id") == "text" and "새 대화" in chat.part("status").text
    chat.press("undo")
    assert (texts(chat, "asked"), texts(chat, "answered")) == before


def test_a_conversation_is_saved_as_a_text_with_who_said_what(chat, browser, tmp_path):
    folder = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", folder)
    say(chat, "가", "나")
    chat.press("save")
    chat.wait(lambda: [*tmp_path.glob("*.txt")])
    told = [
        f"나: {asked}\n모델: {answer.strip()}\n" for asked, answer in zip("가나", texts(chat, "answered"), strict=True)
    ]
    assert next(tmp_path.glob("*.txt")).read_text("utf-8") == "\n".join(told)


def test_a_turn_is_changed_and_what_followed_it_can_be_had_back(chat):
    say(chat, "가", "나", "다")
    chat.type("아직")
    answers = texts(chat, "answered")
    chat.browser.find_elements("css selector", ".mine button")[1].click()
    field = chat.wait(lambda: chat.browser.find_elements("css selector", ".editor textarea"))[0]
    field.send_keys(Keys.ESCAPE)
    assert texts(chat, "asked") == ["가", "나", "다"]
    chat.browser.find_elements("css selector", ".mine button")[1].click()
    field = chat.wait(lambda: chat.browser.find_elements("css selector", ".editor textarea"))[0]
    field.send_keys("라\n")
    chat.wait(lambda: chat.count(".turn") == 2 and chat.part("write").is_displayed())
    assert texts(chat, "asked") == ["가", "나라"] and texts(chat, "answered")[0] == answers[0] and chat.text == "아직"
    chat.press("undo")
    assert texts(chat, "asked") == ["가", "나", "다"] and texts(chat, "answered") == answers


def test_a_change_that_got_no_answer_is_still_there_to_be_sent(chat):
    say(chat, "가", "나")
    answers = texts(chat, "answered")
    chat.enter("temperature", "9999")
    chat.browser.find_elements("css selector", ".mine button")[0].click()
    field = chat.wait(lambda: chat.browser.find_elements("css selector", ".editor textarea"))[0]
    field.send_keys("다\n")
    chat.wait(lambda: chat.part("temperature-error").text and chat.count(".editor"))
    assert texts(chat, "answered") == answers and texts(chat, "asked") == ["나"]
    field = chat.browser.find_element("css selector", ".editor textarea")
    assert field.get_property("value") == "가다"
    chat.enter("temperature", "1")
    field.send_keys("\n")
    chat.wait(lambda: chat.part("write").is_displayed() and texts(chat, "asked") == ["가다"])


def test_another_answer_keeps_the_draft_and_the_old_answer_can_be_had_back(chat):
    say(chat, "가")
    chat.type("아직")
    (old,) = texts(chat, "answered")
    chat.press("again")
    chat.wait(lambda: chat.part("write").is_displayed() and texts(chat, "answered") != [old])
    assert texts(chat, "asked") == ["가"] and chat.text == "아직"
    chat.press("undo")
    assert texts(chat, "answered") == [old]


def test_escape_in_a_changed_question_leaves_the_answer_that_is_being_written(browser, endless_chat_port):
    page = Page(browser, endless_chat_port)
    page.type("가\n")
    page.wait(lambda: len("".join(texts(page, "answered"))) > 20)
    page.press("stop")
    page.wait(page.part("write").is_displayed)
    page.browser.find_element("css selector", ".mine button").click()
    page.press("again")
    page.wait(lambda: not page.part("write").is_displayed())
    editor = page.browser.find_element("css selector", ".editor textarea")
    syllable = "new KeyboardEvent('keydown', {key: 'Escape', isComposing: true, bubbles: true})"
    page.run(f"arguments[0].dispatchEvent({syllable})", editor)  # ends a syllable alone
    assert page.count(".editor") == 1
    editor.send_keys("\ue00c")  # escape: the editor closes, the answer goes on
    assert page.count(".editor") == 0 and not page.part("write").is_displayed()
    page.press("stop")
    page.status("멈췄습니다")


def test_stop_keeps_what_is_there_and_a_question_that_got_no_answer_comes_back(browser, endless_chat_port):
    page, port = Page(browser, endless_chat_port), endless_chat_port
    page.type("가\n")
    page.wait(lambda: len("".join(texts(page, "answered"))) > 20)
    page.press("stop")
    page.status("멈췄습니다")
    assert texts(page, "asked") == ["가"] and len(texts(page, "answered")[0]) > 20

    first = post(port, "/write", {"prompt": "가"})
    first.readline()
    page.type("나\n")
    page.status("개가 대기 중")
    page.part("text").send_keys("\ue00c")  # escape
    page.status("멈췄습니다")
    first.close()
    assert texts(page, "asked") == ["가"] and page.text == "나"


def test_a_vanished_server_is_told_as_an_error_and_nothing_is_lost(chat):
    say(chat, "가")
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    chat.browser.execute_cdp_cmd("Network.enable", {})
    chat.browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    try:
        chat.type("나\n")
        chat.wait(lambda: "연결할 수 없습니다" in chat.part("error").text)
        assert chat.part("error").get_attribute("role") == "alert"
        assert texts(chat, "asked") == ["가"] and chat.text == "나"
    finally:
        online = {**offline, "offline": False, "downloadThroughput": -1, "uploadThroughput": -1}
        chat.browser.execute_cdp_cmd("Network.emulateNetworkConditions", online)
    chat.type("\n")
    chat.wait(lambda: chat.count(".turn") == 2)
    assert chat.part("error").text == ""


def test_a_conversation_longer_than_may_be_sent_goes_on(chat):
    turns = [["가" * 5000, "나"]] * 5
    chat.browser.get(f"{chat.address}page.css")
    script = "sessionStorage.setItem('gpt2-korean chat', JSON.stringify({ turns: arguments[0] }))"
    chat.run(script, turns)
    chat.open()
    assert chat.count(".turn") == 5
    say(chat, "다")
    assert chat.part("error").text == "" and chat.count(".turn") == 6


def test_a_browser_of_2022_writes_and_changes_a_turn(chat):
    """Safari 15.4, Chrome 105: without what browsers have learnt since that a page like this one might use."""
    since = """for (const name of ["toReversed", "toSorted", "toSpliced", "with"]) delete Array.prototype[name];
        for (const name of ["groupBy"]) { delete Object[name]; delete Map[name]; }
        for (const name of ["try", "withResolvers"]) delete Promise[name];
        for (const name of ["any", "timeout"]) delete AbortSignal[name];
        delete HTMLFormElement.prototype.requestSubmit"""
    added = chat.browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": since})
    try:
        chat.open()
        say(chat, "가", "나")
        chat.browser.find_elements("css selector", ".mine button")[0].click()
        chat.browser.find_element("css selector", ".editor textarea").send_keys("다\n")
        chat.wait(lambda: chat.part("write").is_displayed() and texts(chat, "asked") == ["가다"])
    finally:
        chat.browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": added["identifier"]})


def test_enter_that_ends_a_syllable_does_not_send(chat):
    enter = "arguments[0].dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', keyCode: 229, bubbles: true}))"
    chat.type("가")
    chat.run(enter, chat.part("text"))
    assert not chat.count(".turn") and chat.text == "가"


def test_who_speaks_is_heard(chat):
    say(chat, "가")
    heard = chat.run("return [...document.querySelectorAll('.turn .unseen')].map((span) => span.textContent)")
    assert heard == ["나:", "모델:"]
    assert chat.part("heard").get_property("textContent").strip() == texts(chat, "answered")[0].strip()
