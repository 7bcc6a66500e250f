"""Make docs/page.png and docs/chat.png: the page of generate.py --serve as Chromium shows it.

Both models are trained here first, in some minutes: one on data/conversations.jsonl, as make demo does, the other on
some essays, which it has learnt by heart.

Needs requirements-dev.txt, Chromium with its driver and a Korean font (fonts-nanum).
"""

import base64
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from server.browser import Page, open_chromium  # noqa: E402

ESSAYS, CHAT = "fine_tuned_models/essays", "fine_tuned_models/chat"
FLAGS = "--model_type=scratch-mini --learning_rate=1e-3 --warmup_steps=0.1 --do_train"
WIDTH, HEIGHT = 1120, 760


def main():
    longer = "--vocab_size=2048 --block_size=256 --per_device_train_batch_size=2 --num_train_epochs=30 --bpe_dropout=0"
    train(ESSAYS, write_essays(), longer)
    train(
        CHAT,
        "data/conversations.jsonl",
        "--vocab_size=2048 --block_size=128 --per_device_train_batch_size=4 --max_steps=1000",
    )
    browser = open_chromium()
    size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
    try:
        with served(ESSAYS, "--length=50", "--seed=1") as port:
            picture_a_text(Page(browser, port))
        with served(CHAT, "--temperature=0.3", "--seed=1") as port:
            picture_a_conversation(Page(browser, port))
    finally:
        browser.quit()


def write_essays(count=60):
    """A file of the essays among the sample texts; the others are dialogues."""
    texts = (ROOT / "data/korean_texts.txt").read_text("utf-8").strip().split("\n\n")
    essays = [text for text in texts if not re.match(r"[^\n:]{1,12}: ", text)]
    file = ROOT / f"{ESSAYS}.txt"
    file.write_text("\n\n".join(essays[:count]), "utf-8")
    return file


def train(model, file, flags):
    """Train `model`, a folder, unless it is there."""
    if not (ROOT / model / "config.json").exists():
        words = [f"--dataset_path={file}", f"--output_dir={model}", *FLAGS.split(), *flags.split()]
        subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, check=True)


@contextmanager
def served(model, *flags):
    """The port of generate.py --serve."""
    command = [sys.executable, "generate.py", f"--model_name_or_path={model}", "--serve", "--port=0", *flags]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield next(int(found[1]) for line in process.stderr if (found := re.search(r"http://\S+:(\d+)", line)))
        finally:
            process.terminate()


def picture_a_text(page):
    page.type("우리 동네에는")
    page.write()
    page.type(" 받으면")
    page.wait(lambda: page.count("#suggestions button"))
    page.type("\t")
    page.type(" 것이었다.\n어느")
    page.wait(lambda: page.count("#suggestions button"))
    save(page, "page.png")


def picture_a_conversation(page):
    for turns, question in enumerate(["안녕하세요", "오늘 너무 피곤해요", "친구랑 크게 싸웠어요", "바다 보고 싶어"], 1):
        page.type(f"{question}\n")
        page.wait(lambda turns=turns: page.count(".turn") == turns and page.part("write").is_displayed())
    save(page, "chat.png")


def save(page, name):
    shot = page.browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    (ROOT / "docs" / name).write_bytes(base64.b64decode(shot["data"]))


if __name__ == "__main__":
    main()
