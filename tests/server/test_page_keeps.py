"""Nothing that is written on the page is lost: undone, done again, kept over a reload, in a file."""

import json

import pytest
from server.browser import Keys, Page


def test_each_step_is_undone_and_done_again_by_keys_and_buttons(page):
    page.type("오늘은")
    page.suggestions()
    states = [page.text]
    page.type(Keys.TAB)
    states.append(page.text)
    states.append(page.write())
    states.append(page.write("again"))
    page.type("끝")
    states.append(page.text)
    assert len(set(states)) >= 4
    for state in reversed(states[:-1]):
        page.type(Keys.CONTROL, "z", Keys.NULL)
        assert page.text == state
    for state in states[1:]:
        page.press("redo")
        assert page.text == state
    assert not page.part("redo").is_enabled()
    for key in (Keys.CONTROL, Keys.SHIFT), (Keys.CONTROL,):
        page.press("undo")
        assert page.text == states[-2]
        page.type(*key, "z" if len(key) == 2 else "y", Keys.NULL)
        assert page.text == states[-1]
    # The key is another with a Korean keyboard.
    korean = "{ key: 'ㅋ', code: 'KeyZ', ctrlKey: true, bubbles: true }"
    page.run(f"arguments[0].dispatchEvent(new KeyboardEvent('keydown', {korean}))", page.part("text"))
    assert page.text == states[-2] and "글 고치기" in page.part("status").text
    assert page.part("redo").is_enabled()
    page.type("새")  # what was undone would not fit behind it
    assert page.text == states[-2] + "새" and not page.part("redo").is_enabled()


def test_settings_and_presets_are_undone_too(page):
    before = page.part("temperature").get_property("value")
    page.browser.find_element("css selector", "[value=차분하게]").click()
    assert page.part("temperature").get_property("value") == "0.4"
    page.type(Keys.CONTROL, "z", Keys.NULL)
    assert page.part("temperature").get_property("value") == before
    page.press("redo")
    assert page.part("temperature").get_property("value") == "0.4"


def test_a_button_that_can_do_no_more_leaves_the_keys_to_the_text(page):
    page.type("가")
    for button in ("undo", "redo"):
        page.part(button).send_keys(Keys.ENTER)
        assert not page.part(button).is_enabled() and page.run("return document.activeElement.id") == "text"


def test_a_syllable_under_way_is_one_step_and_its_marks_stay(page):
    page.press("suggesting")
    page.type("가 ")
    page.write()
    written, marks = page.text, page.marked()
    assert "\n".join(marks) == written.removeprefix("가 ") != ""
    for syllable in "ㅎ", "하", "한":
        page.browser.execute_cdp_cmd(
            "Input.imeSetComposition", {"text": syllable, "selectionStart": 1, "selectionEnd": 1}
        )
    page.browser.execute_cdp_cmd("Input.insertText", {"text": "한"})
    page.wait(lambda: page.text == f"{written}한")
    assert page.marked() == marks
    page.type(Keys.CONTROL, "z", Keys.NULL)
    assert page.text == written and page.marked() == marks


def test_a_word_that_an_iphone_composes_is_one_step(page):
    """It tells of no composition: for each letter it deletes the syllable and types another at once."""
    page.press("suggesting")
    page.type("가 ")
    compose = """const field = document.getElementById("text"), [keys, done] = arguments;
        const press = () => {
          if (!keys.length) return done();
          const [gone, typed] = keys.shift();
          for (let count = 0; count < gone; count++) document.execCommand("delete");
          for (const letter of typed) document.execCommand("insertText", false, letter);
          setTimeout(press, 50);
        };
        press()"""
    keys = [[0, "ㅎ"], [1, "하"], [1, "한"], [1, "하느"], [1, "는"], [0, "ㄱ"], [2, "는그"], [1, "글"]]
    page.run("const now = Date.now(); Date.now = () => now")  # steps are of one second
    page.browser.execute_async_script(compose, keys)
    assert page.text == "가 하는글"
    page.press("undo")
    assert page.text == "가 "
    page.press("redo")
    assert page.text == "가 하는글"
    page.browser.execute_async_script(compose, [[1, ""]])
    page.press("undo")  # what was deleted for good is a step
    assert page.text == "가 하는글"


def test_a_reload_and_a_new_tab_find_text_marks_and_settings(page, browser):
    page.type("가나")
    text = page.write()
    page.enter("temperature", "0.9")
    marks = page.marked()
    page.open()
    kept = (page.text, page.marked(), page.part("temperature").get_property("value"), page.part("again").is_enabled())
    assert kept == (text, marks, "0.9", True)
    page.type("다")
    browser.switch_to.new_window("tab")
    page.open()
    assert page.text == f"{text}다"
    page.type("라")
    page.open()
    browser.close()
    browser.switch_to.window(browser.window_handles[0])
    page.open()
    assert page.text == f"{text}다"  # a tab's own, whatever another has kept since


def test_forgetting_asks_and_then_leaves_nothing(page, browser):
    page.type("비밀")
    page.enter("temperature", "0.9")
    page.press("forget")
    browser.switch_to.alert.dismiss()
    assert page.text == "비밀"
    page.run("document.body.removeAttribute('data-ready')")
    page.press("forget")
    browser.switch_to.alert.accept()
    page.wait(lambda: page.run("return 'ready' in document.body.dataset"))
    assert page.text == "" and page.part("temperature").get_property("value") != "0.9"
    page.open()
    assert page.text == "" and "비밀" not in page.run("return JSON.stringify([localStorage, sessionStorage])")


def test_forgetting_leaves_nothing_of_the_other_page_of_this_address(page, browser):
    """A chat model's page was open here before."""
    page.run("localStorage.setItem('gpt2-korean chat', '{}'); localStorage.setItem('of others', '')")
    page.run("document.body.removeAttribute('data-ready')")
    page.press("forget")
    browser.switch_to.alert.accept()
    page.wait(lambda: page.run("return 'ready' in document.body.dataset"))
    left = page.run("return Object.keys(localStorage)")
    assert "of others" in left and "gpt2-korean chat" not in left


def test_a_text_that_is_still_coming_is_forgotten_too(browser, endless_port):
    page = Page(browser, endless_port)
    page.type("비밀")
    page.press("write")
    page.wait(lambda: len(page.text) > 20)
    page.run("document.body.removeAttribute('data-ready')")
    page.press("forget")
    browser.switch_to.alert.accept()
    page.wait(lambda: page.run("return 'ready' in document.body.dataset"))
    assert page.text == "" and "비밀" not in page.run("return JSON.stringify([localStorage, sessionStorage])")


def test_new_flags_win_over_what_was_kept_and_the_old_text_can_be_had_back(page, browser, open_page):
    """The page of another run at the same address."""
    page.type("쓰던 글")
    page.enter("temperature", "0.9")
    page.wait(lambda: "쓰던 글" in page.run("return localStorage.getItem('gpt2-korean text') ?? ''"))
    kept = page.run("return localStorage.getItem('gpt2-korean text')")
    other = Page(browser, open_page("--temperature=0.5", prompt="새 글"))
    assert other.text == "새 글"
    browser.get(f"{other.address}page.css")
    other.run("localStorage.setItem('gpt2-korean text', arguments[0]); sessionStorage.clear()", kept)
    other.open()
    assert (other.text, other.part("temperature").get_property("value")) == ("새 글", "0.5")
    other.press("undo")
    assert other.text == "쓰던 글"
    other.open()
    assert other.text == "쓰던 글"  # the prompt is no longer new


def test_a_file_brings_everything_back_and_other_files_are_refused(page, browser, tmp_path):
    folder = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", folder)
    page.type("가나")
    text = page.write()
    page.enter("temperature", "0.9")
    marks = page.marked()
    for button in ("export", "save"):
        page.press(button)
    page.wait(lambda: len([*tmp_path.glob("*.json"), *tmp_path.glob("*.txt")]) == 2)
    exported, plain = next(tmp_path.glob("*.json")), next(tmp_path.glob("*.txt"))
    assert plain.read_text("utf-8") == text

    page = Page(browser, page.address.split(":")[2].rstrip("/"))
    page.type("지금 글")
    page.part("file").send_keys(str(exported))
    page.wait(lambda: page.text == text)
    assert page.marked() == marks and page.part("temperature").get_property("value") == "0.9"
    page.press("undo")
    assert page.text == "지금 글" and page.part("temperature").get_property("value") != "0.9"

    for name, content, words in [
        ("가.json", b'{"text": "x"}', "내보낸 파일이 아닙니다"),
        ("가.json", b"{", "내보낸 파일이 아닙니다"),
        ("대화.json", b'{"format": "gpt2-korean", "turns": [["a", "b"]]}', "대화하는 웹 페이지에서"),
        ("가.txt", b"\x89PNG\r\n\xff\x00", "글로 읽을 수 없는"),
        ("큰.txt", b"a" * 5_000_001, "5MB까지"),
        ("긴.txt", ("나" * 20_005).encode(), "뒤의 5자를"),
    ]:
        (tmp_path / name).write_bytes(content)
        page.part("file").send_keys(str(tmp_path / name))
        page.wait(lambda words=words: words in page.part("file-error").text)
    assert page.text == "나" * 20_000 and page.count(".turn") == 0

    state = {"format": "gpt2-korean", "text": "나" * 19_999 + "😀끝", "marks": [[3, 20_002]]}
    (tmp_path / "긴.json").write_text(json.dumps(state), "utf-8")
    page.part("file").send_keys(str(tmp_path / "긴.json"))
    page.wait(lambda: "뒤의 3자를" in page.part("file-error").text)
    assert page.text == "나" * 19_999 and page.marked() == ["나" * 19_996]  # half a character is none
    page.type("끝")
    assert page.text == "나" * 19_999 + "끝" and page.marked() == ["나" * 19_996]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp949"])
def test_a_file_is_read_in_any_encoding_of_notepad(page, tmp_path, encoding):
    (tmp_path / "글.txt").write_bytes("똠방각하\r\n가나".encode(encoding))
    page.part("file").send_keys(str(tmp_path / "글.txt"))
    page.wait(lambda: page.text == "똠방각하\n가나")


def test_a_file_that_is_dropped_is_imported_and_text_that_is_dropped_is_left_to_the_browser(page):
    page.type("앞")
    dropped = """
        const data = new DataTransfer(), [names, content] = arguments;
        for (const name of names) data.items.add(new File([content], name));
        if (!names.length) data.setData("text/plain", content);
        const event = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
        document.getElementById("text").dispatchEvent(event);
        return event.defaultPrevented;
    """
    assert page.run(dropped, ["글.txt"], "가나")
    page.wait(lambda: page.text == "가나")
    page.press("undo")
    assert page.text == "앞"
    assert not page.run(dropped, [], "가나")
    assert page.run(dropped, ["하나.txt", "둘.txt"], "가나")
    page.wait(lambda: "하나만" in page.part("file-error").text)
    page.run("File.prototype.arrayBuffer = () => Promise.reject(Error('A requested file'))")  # as of a folder
    assert page.run(dropped, ["폴더"], "")
    page.wait(lambda: "글로 읽을 수 없는" in page.part("file-error").text)
    assert page.text == "앞"


def test_a_kept_state_that_is_broken_is_as_none(page):
    for broken in (
        "{",
        "null",
        "[]",
        json.dumps({"text": 3, "marks": [[0, 9], "x"], "turns": [["가"]], "last": [5, 1]}),
    ):
        page.browser.get(f"{page.address}page.css")
        page.run("sessionStorage.setItem('gpt2-korean text', arguments[0])", broken)
        page.open()
        assert page.text == "" and page.marked() == [""]
    page.browser.get(f"{page.address}page.css")
    outside = {"text": "가나", "marks": [[0, 1], [1, 9], [2, 1], [-1, 2], [0.5, 2]], "last": [0, 9]}
    page.run("sessionStorage.setItem('gpt2-korean text', arguments[0])", json.dumps(outside))
    page.open()
    assert page.text == "가나" and page.marked() == ["가"] and not page.part("again").is_enabled()


def test_where_the_browser_keeps_nothing_the_page_says_so_and_asks_before_it_goes(page, browser):
    script = """for (const name of ["localStorage", "sessionStorage"])
        Object.defineProperty(window, name, { get() { throw Error("no") } })"""
    leave = """const leaving = document.createEvent("BeforeUnloadEvent");
        leaving.initEvent("beforeunload", false, true);
        dispatchEvent(leaving);
        return leaving.defaultPrevented"""
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    try:
        page.open()
        page.type("가")
        page.wait(lambda: "저장할 수 없어" in page.part("kept").text)
        assert page.run(leave) is True
        page.type(Keys.CONTROL, "a", Keys.NULL, Keys.DELETE)
        assert page.run(leave) is False
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": added["identifier"]})


def test_a_browser_that_has_room_again_keeps_the_text_and_says_so(page):
    kept = page.part("kept").text
    page.run("window.fill = Storage.prototype.setItem; Storage.prototype.setItem = () => { throw Error('full') }")
    page.type("가")
    page.wait(lambda: page.part("kept").text != kept)
    page.run("Storage.prototype.setItem = fill")
    page.type("나")
    page.wait(lambda: page.part("kept").text == kept)
    assert page.run("return window.onbeforeunload") is None
    page.open()
    assert page.text == "가나"
