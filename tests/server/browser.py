"""The page as a user has it: in Chromium."""

import shutil

import pytest

try:
    from selenium.webdriver import Keys
except ImportError:  # open_chromium then skips the tests that press them
    Keys = None

PATIENCE_SECONDS = 200  # a machine with much else to do shows nothing for half a minute at times


def open_chromium():
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
    browser.set_script_timeout(PATIENCE_SECONDS)
    return browser


class Page:
    """What the tests do on the page and see of it, by the ids of its parts."""

    def __init__(self, browser, port):
        self.browser, self.address = browser, f"http://127.0.0.1:{port}/"
        browser.get(f"{self.address}page.css")
        self.run("localStorage.clear(); sessionStorage.clear()")  # what the test before has left
        self.open()

    def open(self, address=None):
        self.browser.get(address or self.address)
        self.wait(lambda: self.run("return 'ready' in document.body.dataset"))

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def count(self, selector):
        return len(self.browser.find_elements("css selector", selector))

    def part(self, name):
        return self.browser.find_element("id", name)

    @property
    def text(self):
        return self.part("text").get_property("value")

    def type(self, *words):
        self.part("text").send_keys(*words)

    def put_caret_behind(self, text):
        self.run("document.getElementById('text').setSelectionRange(arguments[0], arguments[0])", units(text))

    def letters(self, text):
        """As a caret steps through them: one may be several characters, which no caret parts."""
        return self.run("return [...new Intl.Segmenter().segment(arguments[0])].map(({ segment }) => segment)", text)

    def enter(self, name, words):
        self.part(name).clear()
        self.part(name).send_keys(words)

    def press(self, name):
        self.part(name).click()

    def wait(self, question):
        """Until `question()` has an answer, which is returned."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, PATIENCE_SECONDS, 0.02).until(lambda _: question())

    def status(self, words):
        from selenium.common.exceptions import TimeoutException

        try:
            return self.wait(lambda: words in self.part("status").text)
        except TimeoutException:
            raise AssertionError(f"{words!r} never stood in {self.part('status').text!r}") from None

    def write(self, button="write"):
        """The text once the model has written."""
        self.press(button)
        self.wait(self.part("write").is_displayed)
        return self.text

    def suggestions(self):
        """The buttons, once there are several; what random weights suggest may be one text three times. Behind a blank,
        where a word of its own alone goes on, it may be none."""
        if self.text.endswith(" "):
            self.type("가")
        self.wait(lambda: self.count("#suggestions button"))
        buttons = self.browser.find_elements("css selector", "#suggestions button")
        if len(buttons) > 1:
            return buttons
        self.type("가")
        return self.suggestions()

    def words(self, button):
        """Of a suggestion, without the sign that tells how it is joined."""
        return self.run("return arguments[0].lastChild.textContent", button)

    def marked(self):
        """What is shown as the model's, line by line; "" for a line without."""
        script = """return [...document.getElementById("mirror").children].map(
            (line) => [...line.querySelectorAll("mark")].map((mark) => mark.textContent).join(""))"""
        return self.run(script)

    def ends_with(self, text):
        """But for white space, which browsers and drivers see each in their own way."""
        return "".join(self.text.split()).endswith("".join(text.split()))


def units(text):
    """How long a browser says that a text is, in units of UTF-16."""
    return len(text.encode("utf-16-le")) // 2
