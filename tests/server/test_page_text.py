"""The text on the page: whose words are whose, where the model goes on, and what it says when it cannot."""

import itertools
import random

from server.browser import Keys, Page, units

FOLLOW = """
  const [cases, done] = arguments;
  import("/marks.js").then(({ change, mark, difference, follow }) => done(cases.map((steps) => {
    let marks = [], last = null;
    return steps.map(({ before, after, caret, ours }) => {
      const made = difference(before, after, caret);
      marks = change(marks, made);
      last = last && follow(last, made);
      if (ours) marks = mark(marks, made.from, made.from + made.size);
      if (ours) last = [made.from, made.from + made.size];
      return { marks, last, made };
    });
  })));
"""


def random_edits(rng, letters):
    """Steps of an editing: the texts before and after, the caret, and whether the model has written what is new."""
    text = ""
    for _ in range(12):
        start = rng.randint(0, len(text))
        end = min(len(text), start + rng.choice([0, 0, 1, 5]))
        new = "".join(itertools.islice(letters, rng.randint(0, 6)))
        before, text = text, text[:start] + new + text[end:]
        if text != before:
            yield {"before": before, "after": text, "caret": start + len(new), "ours": rng.random() < 0.4}


def test_marks_follow_any_edit_as_the_letters_themselves_do(page):
    """Every letter is another, so that whose it is can be remembered with it."""
    rng = random.Random(0)
    cases = [[*random_edits(rng, map(chr, itertools.count(0xAC00)))] for _ in range(60)]
    for steps, answers in zip(cases, page.browser.execute_async_script(FOLLOW, cases), strict=True):
        ours, last = set(), ""
        for step, answer in zip(steps, answers, strict=True):
            before, after = step["before"], step["after"]
            new = [letter for letter in after if letter not in before]
            ours |= {*new} if step["ours"] else set()
            shown = {letter for start, end in answer["marks"] for letter in after[start:end]}
            assert shown == ours & {*after}
            assert all(one[1] < other[0] for one, other in itertools.pairwise(answer["marks"]))
            if step["ours"]:
                last = "".join(new)
            elif last and last not in after:  # changed within: what lies behind the change is left of it
                behind = after[step["caret"] :]
                last = "".join(letter for letter in last if letter in behind)
            if answer["last"]:
                start, end = answer["last"]
                assert after[start:end] == last


def test_marks_stay_within_the_text_where_letters_are_alike(page):
    rng = random.Random(1)
    cases = [[*random_edits(rng, iter(lambda: rng.choice("가나 "), None))] for _ in range(60)]
    for steps, answers in zip(cases, page.browser.execute_async_script(FOLLOW, cases), strict=True):
        for step, answer in zip(steps, answers, strict=True):
            before, after, made = step["before"], step["after"], answer["made"]
            new = after[made["from"] : made["from"] + made["size"]]
            assert before[: made["from"]] + new + before[made["to"] :] == after
            places = [*itertools.chain(*answer["marks"])]
            assert places == sorted(set(places)) and all(0 <= place <= len(after) for place in places)
            start, end = answer["last"] or (0, 0)
            assert 0 <= start <= end <= len(after)


def test_the_layer_behind_the_field_shows_each_text_as_if_it_were_new(page):
    """Though it makes only the lines anew that have changed."""
    script = """
      const [texts, done] = arguments;
      import("/mirror.js").then(({ createMirror }) => {
        const layer = document.createElement("div"), mirror = createMirror(layer);
        done(texts.map(([text, marks]) => {
          mirror.draw(text, marks);
          return [...layer.children].map((line) =>
            [line.textContent, [...line.children].map((piece) => (piece.tagName === "MARK" ? piece.textContent : ""))]);
        }));
      });
    """
    rng = random.Random(2)
    texts = []
    for _ in range(60):
        text = "".join(rng.choices("가나 \n", k=rng.randint(0, 12)))
        places = sorted(rng.sample(range(len(text) + 1), 2 * rng.randint(0, len(text) // 4)))
        texts.append((text, [*zip(places[::2], places[1::2], strict=True)]))
    for (text, marks), lines in zip(texts, page.browser.execute_async_script(script, texts), strict=True):
        assert [line for line, _ in lines] == text.split("\n")
        ours = {place for start, end in marks for place in range(start, end)}
        expected = "".join(letter if letter == "\n" or place in ours else "" for place, letter in enumerate(text))
        assert ["".join(pieces) for _, pieces in lines] == expected.split("\n")


def test_again_keeps_what_one_has_changed_since(page):
    """Before, behind and within what the model wrote: only what it wrote behind the change is written anew."""
    page.press("suggesting")
    page.type("가나")
    page.write()
    page.type(" 내가 고친 글")
    page.type(Keys.CONTROL, Keys.HOME, Keys.NULL, "앞 ")
    assert page.write("again").startswith("앞 가나") and page.ends_with("내가 고친 글")
    assert "\n".join(page.marked()) == page.text.removeprefix("앞 가나").removesuffix(" 내가 고친 글")
    kept = "".join(page.letters(page.text)[: len("앞 가나") + 3])
    page.put_caret_behind(kept)
    page.type("고침")
    assert page.write("again").startswith(f"{kept}고침") and page.ends_with("내가 고친 글")


def test_line_ends_of_any_kind_leave_the_marks_in_place(page):
    """A field has one kind alone, whatever a model writes or a file holds."""
    page.type("가")
    script = """
      const [pieces, done] = arguments;
      window.fetch = async () => new Response(pieces.map((text) => JSON.stringify({ text }) + "\\n").join(""));
      document.getElementById("write").click();
      setTimeout(done, 200);
    """
    page.browser.execute_async_script(script, ["나\r", "\n다\r라", "\r\n마"])
    assert page.run("return document.getElementById('text').value") == "가나\n다\n라\n마"
    assert page.marked() == ["나", "다", "라", "마"]


def test_the_text_goes_on_at_the_caret(page):
    page.press("suggesting")
    page.type("가나다 라마바")
    page.put_caret_behind("가나다")
    text = page.write()
    assert text.startswith("가나다") and text.endswith(" 라마바") and len(text) > 7
    assert "\n".join(page.marked()) == text[3:-4]
    assert "--prompt=가나다" in page.part("command").text and "라마바" not in page.part("command").text
    assert page.part("text").get_property("selectionEnd") == units(text) - 4


def test_a_long_text_scrolls_with_its_marks_and_its_caret_stays_in_sight(page, browser):
    measure = """const [field, mirror, paper] = ["text", "mirror", "paper"].map((id) => document.getElementById(id));
        return [field.clientHeight, field.scrollHeight, mirror.scrollHeight, paper.scrollTop + paper.clientHeight]"""
    page.press("suggesting")
    line = "오늘은  날씨가\t좋다. averyveryverylongwordwithoutanyspaceatall_averyveryverylongword 😀 (ㅋㅋ)\n"
    browser.execute_cdp_cmd("Input.insertText", {"text": line * 40})
    for write in (lambda: page.type("끝", Keys.ENTER, Keys.ENTER), page.write):
        write()
        height, scrolled, layer, seen = page.run(measure)
        assert height == scrolled == layer and height - seen < 20
    page.type(Keys.CONTROL, Keys.HOME, Keys.NULL, "가")
    assert page.run("return document.getElementById('paper').scrollTop") < 20


def test_all_of_a_long_text_and_of_a_conversation_is_printed(page, browser, open_page):
    """On sheets as long as they may be: nothing of it stands in a box that scrolls, and what shows it can be cut."""
    seen = """const [box, letters] = [...arguments].map((selector) => document.querySelector(selector));
        return [box.scrollHeight - box.clientHeight, getComputedStyle(box).overflowY, letters.checkVisibility(),
                getComputedStyle(letters).color === getComputedStyle(document.body).color]"""
    page.press("suggesting")
    browser.execute_cdp_cmd("Input.insertText", {"text": "가\n" * 200})
    page.wait(lambda: len(page.marked()) == 201)
    chat = [["가", "나"]] * 50
    try:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        assert page.run(seen, "#paper", "#mirror") == [0, "visible", True, True]
        assert not page.part("text").is_displayed() and not page.part("write").is_displayed()
        page = Page(browser, open_page("--prompt_template=Q{prompt}A"))
        browser.get(f"{page.address}page.css")
        page.run("sessionStorage.setItem('gpt2-korean chat', JSON.stringify({ turns: arguments[0] }))", chat)
        page.open()
        assert page.count(".turn") == 50 and page.run(seen, "#turns", ".asked") == [0, "visible", True, True]
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_what_does_not_fit_is_told_and_takes_nothing_of_what_stands_there(page, browser):
    page.press("suggesting")
    page.type("처음끝")
    page.put_caret_behind("처음")
    browser.execute_cdp_cmd("Input.insertText", {"text": "가" * 24_000})
    page.wait(lambda: "4,003자를 넣지 않았습니다" in page.part("error").text)
    assert page.text == "처음" + "가" * 19_997 + "끝"
    assert page.part("text").get_attribute("aria-invalid") == "true"
    page.type(Keys.CONTROL, "z", Keys.NULL)
    assert page.text == "처음끝"
    browser.execute_cdp_cmd("Input.insertText", {"text": "나" * 19_996 + "😀"})
    page.wait(lambda: len(page.text) == 19_999)  # half a pair would be no text
    assert "\ud83d" not in page.text


def test_a_text_that_ends_at_once_says_so_and_min_length_helps(browser, open_page, silent_model_folder):
    page = Page(browser, open_page("--length=8", folder=silent_model_folder))
    page.type("가나")
    page.press("write")
    page.status("최소 길이(min_length)")
    assert page.text == "가나" and page.part("again").is_enabled() is False
    assert page.part("undo").is_enabled() and not page.part("redo").is_enabled()
    page.press("undo")
    page.press("write")
    page.status("최소 길이(min_length)")
    page.press("redo")  # nothing was written, and nothing is lost
    assert page.text == "가나"
    page.enter("min_length", "5")
    page.press("write")
    page.status("여기서 글을 끝냈습니다")
    assert page.text.startswith("가나") and len(page.text) > 2
