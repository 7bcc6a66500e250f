"""Pages that are open while a file's tests run."""

import threading
import time
from importlib.util import find_spec

import pytest
from conftest import read_to_write, save_tiny_gpt2
from server.browser import Page as BrowserPage
from server.browser import open_chromium

from gpt2_korean.cli.generate_options import parse_generate_options
from gpt2_korean.server.events import Page
from gpt2_korean.server.port import open_port
from gpt2_korean.server.turns import Line

collect_ignore_glob = [] if find_spec("starlette") and find_spec("uvicorn") else ["test_*"]  # requirements-serve.txt


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, byte_tokenizer):
    """A model with a context long enough to write for minutes."""
    return save_tiny_gpt2(tmp_path_factory.mktemp("models") / "long", byte_tokenizer, n_positions=256)


@pytest.fixture(scope="module")
def open_page(model_folder):
    """A function that opens the page with flags, in a thread of this process; returns its port. Its `close(port)` ends
    one as Ctrl-C does; `lines` are those of all its pages."""
    from gpt2_korean.server import app

    models, servers, lines = {}, {}, []

    class KnownLine(Line):
        def __init__(self, closing):
            super().__init__(closing)
            lines.append(self)

    def start(*words, folder=model_folder, prompt=""):
        if folder not in models:
            models[folder] = read_to_write(folder)
        model = models[folder]
        options = parse_generate_options([f"--model_name_or_path={folder}", "--device=cpu", *words])
        listener = open_port("127.0.0.1", 0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(app, "Line", KnownLine)
            server = app.build_server("127.0.0.1", Page(model, options, prompt))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        port = listener.getsockname()[1]
        servers[port] = server, thread
        return port

    def close(port):
        servers[port][0].should_exit = True

    start.close, start.lines = close, lines
    yield start
    for port in servers:
        close(port)
    for _, thread in servers.values():
        thread.join()


@pytest.fixture(autouse=True)
def left_alone(request):
    """Waits after each test until no text of it is being written: the pages of a file share their model, which no two
    may write by at a time."""
    yield
    if "browser" in request.fixturenames:
        request.getfixturevalue("browser").get("about:blank")  # hangs up
    if "open_page" in request.fixturenames:
        lines = request.getfixturevalue("open_page").lines
        while any(line.waiting or line.working for line in lines):
            time.sleep(0.01)


@pytest.fixture(scope="module")
def port(open_page):
    """Of a page whose texts are never empty: in one of a hundred the random model would end at once."""
    return open_page("--dtype=float32", "--length=20", "--min_length=20", "--top_k=0")


@pytest.fixture(scope="module")
def endless_port(open_page):
    """Of a page whose texts take minutes, so that they are broken off for sure."""
    return open_page("--length=1000000", "--min_length=1000000")


@pytest.fixture(scope="module")
def browser():
    browser = open_chromium()
    yield browser
    browser.quit()


@pytest.fixture
def page(browser, port):
    return BrowserPage(browser, port)
