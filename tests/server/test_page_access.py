"""The page for everybody: by eye, by ear, by keyboard, on a small screen and in the dark."""

import importlib.util
import re
from importlib import resources

import pytest
from server.browser import Keys, Page

needs_axe = pytest.mark.skipif(not importlib.util.find_spec("axe_core_python"), reason="axe-core is not installed")


@pytest.fixture
def look(browser):
    """A function that sets the width of the screen and whether it is dark, until the test ends."""

    def set_to(width, dark):
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    yield set_to
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def violations(page):
    page.run(resources.files("axe_core_python").joinpath("axe.min.js").read_text("utf-8"))
    script = """axe.run().then(
        ({ violations }) => violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`),
        (error) => [String(error)],
    ).then(arguments[0])"""
    return page.browser.execute_async_script(script)


def states_of_a_text(page):
    yield "empty"
    page.type("오늘은")
    page.suggestions()
    yield "suggestions"
    page.write()
    yield "written"
    page.enter("top_p", "7")
    page.press("write")
    page.wait(lambda: page.part("top_p-error").text)
    yield "wrong setting"
    page.browser.execute_cdp_cmd("Input.insertText", {"text": "가" * 25_000})
    page.part("text").click()
    page.browser.execute_cdp_cmd("Input.insertText", {"text": "가" * 25_000})
    page.wait(lambda: page.part("error").text)
    yield "cut"


def states_of_a_conversation(page):
    yield "empty"
    for turns in (1, 2):
        page.type("가\n")
        page.wait(lambda turns=turns: page.count(".turn") == turns and page.part("write").is_displayed())
    yield "answered"
    page.browser.find_element("css selector", ".mine button").click()
    yield "changing a turn"


@needs_axe
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_in_any_state(page, browser, open_page, chat_model_folder, look, dark):
    look(1280, dark)
    found = {state: violations(page) for state in states_of_a_text(page)}
    chat = Page(browser, open_page("--length=5", "--min_length=5", folder=chat_model_folder))
    found |= {f"chat: {state}": violations(chat) for state in states_of_a_conversation(chat)}
    assert {state: wrong for state, wrong in found.items() if wrong} == {} and len(found) == 8


@needs_axe
def test_axe_finds_nothing_while_a_text_is_written(browser, endless_port):
    page = Page(browser, endless_port)
    page.type("가")
    page.press("write")
    page.wait(lambda: len(page.text) > 5)
    found = violations(page)
    page.press("stop")
    assert found == []


@pytest.mark.parametrize("width", [320, 768, 1280])
def test_nothing_is_wider_than_the_screen(page, browser, open_page, chat_model_folder, look, width):
    look(width, False)
    wide = "return [document.documentElement.scrollWidth, innerWidth]"
    page.run("document.getElementById('details').open = true")
    for _ in states_of_a_text(page):
        scroll, inner = page.run(wide)
        assert scroll <= inner
    chat = Page(browser, open_page("--length=5", "--min_length=5", folder=chat_model_folder))
    for _ in states_of_a_conversation(chat):
        scroll, inner = chat.run(wide)
        assert scroll <= inner


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("words", [(), ("--prompt_template=Q{prompt}A",)])
def test_the_button_that_stops_a_text_stands_still(browser, open_page, look, width, words):
    """From the first frame in which it is there; the text is long enough to fill its box."""
    look(width, False)
    page = Page(browser, open_page("--length=150", "--min_length=150", *words))
    page.type("가")
    page.run("""window.places = new Set();
        const stop = document.getElementById("stop");
        const note = () => {
          const { left, top } = stop.getBoundingClientRect();
          if (!stop.hidden) places.add(`${left} ${top + scrollY}`);
          requestAnimationFrame(note);
        };
        requestAnimationFrame(note)""")
    page.press("write")
    page.status("완료했습니다")
    assert len(page.run("return [...places]")) == 1


def test_a_phone_has_the_button_above_the_fold(page, look):
    look(320, False)
    page.open()
    assert page.run("return document.getElementById('write').getBoundingClientRect().bottom") < 568


def test_what_is_pressed_is_large_enough_for_a_finger(page, look):
    look(320, False)
    page.run("document.getElementById('details').open = true")
    heights = page.run("""return [...document.querySelectorAll("button, summary, label:has(input), [type=range]")]
        .filter((each) => each.offsetParent).map((each) => each.getBoundingClientRect().height)""")
    assert len(heights) > 10 and min(heights) >= 24  # WCAG 2.2, 2.5.8


def luminance(colour):
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_borders_have_a_contrast_of_3_and_text_of_4_and_a_half(page, look, dark):
    look(1280, dark)
    page.type("가")
    page.write()
    script = """const [selector, name] = arguments, element = document.querySelector(selector);
        let below = element;
        while (getComputedStyle(below).backgroundColor === "rgba(0, 0, 0, 0)") below = below.parentElement;
        const around = getComputedStyle(element.parentElement.closest("body")).backgroundColor;
        return [getComputedStyle(element)[name], getComputedStyle(below).backgroundColor, around]"""
    for selector in ("#paper", "#top_p", "#seed", "#again", "kbd"):
        border, inside, around = page.run(script, selector, "borderTopColor")
        assert contrast(border, around) >= 3 and contrast(border, inside) >= 3, selector
    line, _, around = page.run(script, "#mirror mark", "textDecorationColor")
    assert contrast(line, around) >= 3
    ink, around = page.run(script, "#text", "color")[0], page.run(script, "#mirror mark", "color")[1]
    assert contrast(ink, around) >= 4.5  # what the model wrote


def test_a_safari_before_26_2_draws_the_line_under_what_the_model_wrote():
    """It drops a declaration that has more than the line."""
    style = resources.files("gpt2_korean.server").joinpath("page", "page.css").read_text("utf-8")
    assert re.findall(r"text-decoration:([^;}]*)", style) == [" underline"]


def test_who_has_chosen_colours_sees_what_the_model_wrote_and_which_suggestion_tab_takes(page, browser, look):
    forced = {"features": [{"name": "forced-colors", "value": "active"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", forced)
    page.type("오늘은")
    chosen, other, *_ = page.suggestions()
    assert chosen.value_of_css_property("border-color") != other.value_of_css_property("border-color")
    page.write()
    for selector in ("#text", "#mirror mark", "#write"):  # the others have a plate behind their letters
        part = browser.find_element("css selector", selector)
        assert part.value_of_css_property("forced-color-adjust") == "none", selector


def test_a_refused_setting_is_told_beside_its_field_until_it_is_changed(page):
    page.type("가")
    page.enter("top_p", "7")
    page.press("write")
    page.wait(lambda: page.part("top_p-error").text)
    field, words = page.part("top_p"), page.part("top_p-error")
    assert field.get_attribute("aria-invalid") == "true" and words.get_attribute("role") == "alert"
    assert words.get_attribute("id") in field.get_attribute("aria-describedby") and "--top_p" not in words.text
    assert page.browser.switch_to.active_element == field and page.text == "가" and page.part("status").text == ""
    page.enter("top_p", "0.5")
    assert page.part("top_p-error").text == "" and field.get_attribute("aria-invalid") is None


def test_a_refused_setting_has_another_border_than_the_others_wherever_the_keys_go(page):
    page.type("가")
    page.enter("top_p", "7")
    page.press("write")
    page.wait(lambda: page.part("top_p-error").text)
    page.part("text").click()
    wrong, border = page.part("top_p-error").value_of_css_property("color"), "border-top-color"
    assert page.part("top_p").value_of_css_property(border) == wrong != page.part("seed").value_of_css_property(border)


def test_suggestions_and_texts_are_heard_and_how_they_join_is_seen(page):
    page.type("오늘은")
    buttons = page.suggestions()
    heard = page.part("heard")
    assert heard.get_attribute("aria-live") == "polite"
    assert f"이어질 말 {len(buttons)}개" in heard.get_property("textContent")
    for button in buttons:
        sign, words = page.run("return [...arguments[0].childNodes].map((node) => node.textContent)", button)
        name = button.get_attribute("aria-label")
        assert (sign, name) in [("␣", f"띄고 {words}"), ("…", f"붙여서 {words}")]
    assert [button.get_attribute("aria-current") for button in buttons] == ["true"] + [None] * (len(buttons) - 1)
    before = page.text
    text = page.write()
    assert heard.get_property("textContent").strip() == text.removeprefix(before).strip()


def test_suggestions_go_when_the_caret_does_and_never_come_within_a_word(page):
    page.type("오늘은 날씨가")
    page.suggestions()
    page.type(Keys.ARROW_LEFT)
    page.wait(lambda: not page.count("#suggestions button"))
    asked = "performance.clearResourceTimings(); window.asked = () => performance.getEntriesByType('resource').filter("
    page.run(f"{asked}({{ name }}) => name.endsWith('suggest')).length")
    page.type("도")  # within 날씨가
    page.run("return new Promise((done) => setTimeout(done, 600))")
    assert page.run("return window.asked()") == 0
    page.run("document.getElementById('text').setSelectionRange(3, 3)")
    page.type("요")
    page.wait(lambda: page.run("return window.asked()") == 1)


def test_the_header_names_the_model_and_counts(page, model_folder):
    assert page.part("model").text == str(model_folder) and page.part("device").text.startswith("cpu")
    assert page.part("context").text == "256토큰"
    page.type("가")
    page.write()
    speed, context = page.part("speed").text, page.part("context").text
    assert float(re.fullmatch(r"초당 ([\d.]+)토큰", speed)[1]) > 0
    used, most = map(int, re.fullmatch(r"(\d+)/(\d+)토큰", context).groups())
    assert 20 < used <= 30 and most == 256


def test_the_header_names_the_model_of_a_server_that_was_started_anew(page):
    page.run("document.getElementById('model').textContent = 'another'")
    name = page.run("return fetch('/settings').then((its) => its.json()).then(({ model }) => model.name)")
    page.type("가")
    page.write()
    assert page.part("model").text == name


def test_presets_start_at_normal_and_flags_come_first(browser, open_page):
    chosen = "return document.querySelector('[name=preset]:checked')?.value"
    normal = Page(browser, open_page("--serve"))
    values = {name: normal.part(name).get_property("value") for name in ("top_k", "top_p", "temperature")}
    assert values == {"top_k": "50", "top_p": "0.95", "temperature": "0.7"} and normal.run(chosen) == "보통"
    assert normal.part("repetition_penalty").get_property("value") == "1.2"
    hot = Page(browser, open_page("--serve", "--temperature=1"))
    assert hot.part("temperature").get_property("value") == "1" and hot.run(chosen) == "처음 값"
    hot.browser.find_element("css selector", "[value=자유롭게]").click()
    assert hot.part("top_k").get_property("value") == "0"
    hot.enter("top_k", "7")
    assert hot.run(chosen) is None
    hot.browser.find_element("css selector", "[value='처음 값']").click()
    assert hot.part("top_k").get_property("value") == "50" and hot.part("top_p").get_property("value") == "0.95"


def test_the_command_is_shown_for_two_shells(page):
    page.press("suggesting")
    page.type("오늘은 비")
    page.write()
    assert "'--prompt=오늘은 비'" in page.part("command").text
    page.press("windows")
    assert '"--prompt=오늘은 비"' in page.part("command").text and "'" not in page.part("command").text
    page.enter("text", '"예"')
    page.write()
    assert "Windows의 명령줄에" in page.part("command").text and not page.part("copy").is_enabled()
    page.press("posix")
    assert '--prompt="예"' in page.part("command").text and page.part("copy").is_enabled()


def test_what_is_copied_can_be_pasted_from_a_page_of_another_computer_too(page):
    """Which has no clipboard of its own: it came by http from another address than this computer's."""
    page.press("suggesting")
    page.type("오늘은\n  비 ")
    page.write()
    command = page.part("command").get_property("textContent")
    page.run("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.press("copy")
    page.wait(lambda: "복사했습니다" in page.part("copy").text)
    page.type(Keys.CONTROL, "av", Keys.NULL)
    page.wait(lambda: page.text == command)


def test_a_button_that_copies_has_its_own_name_again_however_often_it_was_pressed(page):
    page.type("오늘은 비")
    page.write()
    name = page.part("copy").text
    page.run("window.timers = []; window.setTimeout = (end) => timers.push(end)")
    page.press("copy")
    page.wait(lambda: page.part("copy").text != name)
    waiting = page.run("return timers.length")
    page.press("copy")
    page.wait(lambda: page.run("return timers.length") > waiting)
    page.run("timers.forEach((end) => end())")
    assert page.part("copy").text == name
