"""A process of its own makes of the texts what it can while torch is imported; what fails is told by others."""

import multiprocessing
import os
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from gpt2_korean.text.ahead import begin_ahead

SCRIPT = """
import multiprocessing, sys
from gpt2_korean.cli.train_options import parse_train_options
from gpt2_korean.model.find import Start
from gpt2_korean.model.tokenizer import find_tokenizer
from gpt2_korean.text import ahead, documents, vocabulary
options = parse_train_options(["--do_train", "--model_type=scratch-mini", f"--dataset_path={sys.argv[1]}"])
files = documents.find_texts(options.text)
def read():
    return documents.read_texts(files, options.text, False, 0)
def find():
    return find_tokenizer(Start("scratch-mini"), read().main, options.model)[0]
ahead.begin_ahead(find)
children = multiprocessing.active_children()
print(len(children), "torch" in sys.modules)
for child in children:
    if "killed" in sys.argv:
        child.kill()
    child.join()
if "kept" in sys.argv:
    documents.read_documents = vocabulary.train_tokenizer = None  # may not be called again
print(read().train["text"][:])
print(len(find()))
"""


def read(path, *words, **environment):
    words = [sys.executable, "-c", SCRIPT, str(path), *words]
    done = subprocess.run(
        words, env={**os.environ, **environment}, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=300
    )
    return done.stdout.splitlines(), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process is not forked")
def test_texts_are_read_and_learnt_ahead_once_and_by_half_is_as_not_at_all(tmp_path):
    (tmp_path / "글.txt").write_text("가나\n\n다라\n", "utf-8")
    lines, err = read(tmp_path / "글.txt", "kept")
    assert lines == ["1 False", str(["가나", "다라"]), "257"], err
    assert err.count("글.txt") == 2, err  # told by the two that read here; the fork read in silence
    (tmp_path / "또.txt").write_text("마바\n\n사아\n", "utf-8")
    assert read(tmp_path / "또.txt", "killed")[0] == ["1 False", str(["마바", "사아"]), "257"]
    # Of several ranks the first reads, the others wait where they need it.
    assert read(tmp_path / "또.txt", RANK="1")[0] == ["0 False", str(["마바", "사아"]), "257"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process is not forked")
def test_what_cannot_be_read_is_told_once(tmp_path):
    (tmp_path / "글.jsonl").write_text('{"text": "가나"}\n{"text": \n', "utf-8")
    lines, err = read(tmp_path / "글.jsonl")
    assert lines == ["1 False"] and err.count("2번째 줄") == 1, err


def test_where_torch_is_there_already_with_its_threads_nothing_is_forked():
    before = multiprocessing.active_children()
    begin_ahead(lambda: time.sleep(60))
    assert {*multiprocessing.active_children()} <= {*before}


ENDING = """
import os, time
from gpt2_korean.text.ahead import begin_ahead
from gpt2_korean.training.stopping import stop_requests
begun, begins = os.pipe()
with stop_requests():
    begin_ahead(lambda: os.write(begins, b"!") and time.sleep(600))
    os.read(begun, 1)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process is not forked")
def test_a_run_that_ends_early_ends_that_process_too_whose_work_may_take_minutes():
    done = subprocess.run([sys.executable, "-c", ENDING], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
