"""A session at a real terminal, a pseudo-terminal with someone who types; and one whose lines are piped in."""

import contextlib
import fcntl
import io
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from conftest import ROOT

from gpt2_korean.cli.generate_options import parse_generate_options
from gpt2_korean.generation.commands import Turn
from gpt2_korean.generation.load import load
from gpt2_korean.generation.output import (
    Output,
    describe_empty,
    is_empty,
    open_output,
    print_piece,
    put_out,
    record_text,
)
from gpt2_korean.generation.terminal import write_turn
from gpt2_korean.generation.write import Piece

SEQUENCE = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|[=>])")  # what moves the cursor, colours or erases
PASTE = "\x1b[200~{}\x1b[201~"


class Terminal:
    """A pseudo-terminal with generate.py --interactive in it."""

    def __init__(self, folder, *flags, kind="xterm-256color"):
        self.controller, self.side = os.openpty()
        self.resize(80)
        self.before = termios.tcgetattr(self.side)
        self.process = subprocess.Popen(
            [sys.executable, "generate.py", f"--model_name_or_path={folder}", "--interactive", "--device=cpu", *flags],
            cwd=ROOT, stdin=self.side, stdout=self.side, stderr=self.side, start_new_session=True,
            env=os.environ | {"TERM": kind}, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self.bytes, self.found = b"", 0

    def resize(self, columns):
        fcntl.ioctl(self.side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def type(self, keys):
        os.write(self.controller, keys.encode())

    def wait_for(self, words, keys=""):
        """Read what is shown until `words` come up after those found before; returns what stood before them.

        keys: are pressed again where that takes long, as whoever sits there would.
        """
        deadline = time.monotonic() + 300
        again = time.monotonic() + 20
        while (place := self.shown().find(words, self.found)) < 0:
            assert time.monotonic() < deadline, self.shown()[self.found :][-500:]
            if keys and time.monotonic() > again:
                self.type(keys)
                again += 20
            if select.select([self.controller], [], [], 0.1)[0]:
                self.bytes += os.read(self.controller, 65536)
        start, self.found = self.found, place + len(words)
        return self.shown()[start:place]

    def shown(self):
        return SEQUENCE.sub("", self.bytes.decode(errors="replace")).replace("\r", "")


@pytest.fixture
def terminal():
    with contextlib.ExitStack() as stack:

        def start(*words, **options):
            opened = Terminal(*words, **options)
            stack.callback(os.close, opened.side)
            stack.callback(os.close, opened.controller)
            stack.callback(opened.process.wait)
            stack.callback(opened.process.kill)
            return opened

        yield start


needs_terminals = pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")


@needs_terminals
def test_at_a_terminal_korean_is_edited_pasted_and_continued_and_keys_stay_out_of_the_text(terminal, tiny_model_folder):
    at = terminal(tiny_model_folder, "--length=4", "--min_length=4")
    at.wait_for("앞글>")
    at.type("오늘은 봄아\x1b[D\x7f가을\r")  # a wide letter to the left, one erased
    at.wait_for("\n오늘은 가을아")
    at.wait_for("시드")
    at.wait_for("앞글>")
    at.resize(40)
    at.type(PASTE.format("첫째 줄\n둘째 줄\n"))
    at.resize(100)
    at.type(" 끝\x1b\r뒤\r")  # Alt-Enter begins a line
    at.wait_for("\n첫째 줄\n둘째 줄\n 끝\n뒤")
    at.wait_for("시드")
    at.wait_for("앞글>")

    at.type("/set length=1500\r")
    at.wait_for("length = 1500")
    at.type("/set min_le\t1500\r")  # Tab completes it
    at.wait_for("min_length = 1500")
    at.wait_for("앞글>")
    at.type("긴 글\r")
    at.wait_for("\n주의")  # a line of its own, before the text
    at.wait_for("\n긴 글")
    at.type("\r\r/set length 3\r\r\x1b[D 끼어든" + PASTE.format(" 말\n두 줄"))
    text = at.wait_for("1500토큰")  # in which the model itself may write a few letters in a row, such as [D
    assert not [keys for keys in ("/set", "끼어든", "[[D", "[200~") if keys in text]
    at.wait_for("length = 3")  # no text was asked for by the empty lines before it
    at.wait_for("끼어든")  # it stands in the line, and waits
    at.type("\r")
    at.wait_for("끼어든 말\n두 줄")
    at.wait_for("3토큰")


@needs_terminals
def test_at_a_terminal_letters_that_are_not_utf_8_are_refused_and_not_left_out(terminal, tiny_model_folder):
    session = terminal(tiny_model_folder, "--length=4", "--min_length=4")
    session.wait_for("앞글>")
    os.write(session.controller, "오늘은\r".encode("cp949"))
    assert "시드" not in session.wait_for("UTF-8로 바꾸세요")
    session.type("오늘은\r")
    session.wait_for("4토큰")


@needs_terminals
def test_at_a_terminal_ctrl_c_stops_a_text_alone_and_ctrl_d_ends(terminal, tiny_model_folder):
    at = terminal(tiny_model_folder, "--length=100000", "--min_length=100000")
    at.wait_for("앞글>")
    for prompt in ("첫째 글", "둘째 글"):
        at.type(f"{prompt}\r")
        at.wait_for("주의")
        at.wait_for(f"\n{prompt}")
        time.sleep(0.2)
        at.type("잊을 말\x03")
        at.wait_for("멈췄습니다")
        assert "잊을" not in at.wait_for("앞글>")
    at.type("치다 만 줄\x03")
    at.wait_for("/quit")
    at.wait_for("앞글>")
    at.process.send_signal(signal.SIGINT)
    at.wait_for("/quit")
    at.wait_for("앞글>")
    at.type("/undo\r")
    at.wait_for("여기까지 있습니다")
    at.wait_for("앞글>")
    at.type("\x04")
    assert at.process.wait(300) == 0
    assert termios.tcgetattr(at.side) == at.before


@needs_terminals
def test_a_terminal_that_moves_no_cursor_is_sent_only_text(terminal, tiny_model_folder):
    at = terminal(tiny_model_folder, "--length=4", "--min_length=4", kind="dumb")
    at.wait_for("앞글> ")
    at.type("오늘은\n")
    at.wait_for("\n오늘은")
    at.wait_for("시드")
    at.wait_for("앞글> ")
    at.type("\x03")
    at.wait_for("/quit", "\x03")  # one just before Python begins to read waits for the next key
    at.wait_for("앞글> ")
    at.type("\x04")
    assert at.process.wait(300) == 0 and b"\x1b" not in at.bytes


@pytest.fixture
def piped(run_main, monkeypatch):
    """Run generate.py --interactive on lines of stdin; returns stdout and what stderr says after the start."""

    def run(folder, *lines, flags=()):
        content = b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)
        stdin = io.TextIOWrapper(io.BytesIO(content), "utf-8")
        monkeypatch.setattr("sys.stdin", stdin)
        words = [f"--model_name_or_path={folder}", "--interactive", "--device=cpu", "--dtype=float32", *flags]
        code, out, err = run_main("generate.py", *words)
        assert code == 0, err
        return out, err

    return run


def test_without_a_terminal_lines_are_followed_and_only_texts_are_on_stdout(piped, tiny_model_folder, tmp_path):
    flags = ["--length=5", "--seed=3", "--temperature=0"]
    whole = piped(tiny_model_folder, "오늘은", flags=["--length=10", "--temperature=0"])[0]
    out, err = piped(tiny_model_folder, "오늘은", "", f"/save {tmp_path / '글'}", flags=flags)
    assert out.replace("\n", "", 1) == whole and "앞글>" not in err
    assert (tmp_path / "글").read_text("utf-8") == whole
    assert len(re.findall(r"^5토큰 · 초당 \d+(\.\d)?토큰 · 시드 \d+$", err, re.MULTILINE)) == 2


def test_a_line_that_is_not_utf_8_is_refused_with_the_way_on_and_the_next_is_followed(piped, tiny_model_folder):
    out, err = piped(tiny_model_folder, "오늘은".encode("cp949"), "그런데\r", flags=["--length=5"])
    assert out.startswith("그런데") and "UTF-8로 읽을 수 없습니다" in err and "iconv" in err


def test_each_text_is_that_of_its_seed_as_it_is_recorded(piped, tiny_model_folder, run_main, tmp_path):
    file = tmp_path / "글.jsonl"
    flags = ["--length=6", "--seed=4", f"--output_file={file}"]
    piped(tiny_model_folder, "오늘은", "", "/again", "/seed 11", "그", flags=flags)
    records = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert [each["seed"] for each in records[::3]] == [4, 11] and len({each["seed"] for each in records}) == 4
    assert all(each["prompt"].isprintable() for each in records)  # the command line takes out what cannot be seen
    for each in records:
        _, out, _ = run_main(
            "generate.py", f"--model_name_or_path={tiny_model_folder}", "--device=cpu", "--dtype=float32", "--length=6",
            f"--prompt={each['prompt']}", f"--seed={each['seed']}",
        )  # fmt: skip
        assert out == each["text"] + "\n"


def test_an_answer_that_was_broken_off_is_not_remembered(chat_model_folder):
    words = [f"--model_name_or_path={chat_model_folder}", "--device=cpu", "--length=8", "--temperature=0"]
    options = parse_generate_options(words)
    model, settled = load(chat_model_folder, options.model)
    out = Output(None, True, options.prompts, settled)
    broken, whole = Turn("멈출 말", "반", broken=True), Turn("처음", "답")
    answers = [
        write_turn(model, out, earlier, Turn("나중"), options.settings, 1)
        for earlier in ([whole, broken], [whole], [whole, replace(broken, broken=False)])
    ]
    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize(("ended", "stop", "between"), [("stop", "\n", "\n"), ("stop", ".", ""), ("end", "", "")])
def test_only_the_blank_that_stopped_a_text_is_put_back_before_more(
    tiny_model_folder, monkeypatch, ended, stop, between
):
    monkeypatch.setattr(
        "gpt2_korean.generation.terminal.stream_pieces", lambda *_: [(1, [Piece([], "나", ended, stop)])]
    )
    flags = [f"--model_name_or_path={tiny_model_folder}", "--device=cpu", "--stop=.", "--stop=\n"]
    options = parse_generate_options(flags)
    model, settled = load(tiny_model_folder, options.model)
    out = Output(None, False, options.prompts, settled)
    turn = write_turn(model, out, [], Turn("가"), options.settings, 1)
    assert write_turn(model, out, [], turn, options.settings, 1).text == f"나{between}나"


@pytest.mark.parametrize(("alone", "recorded"), [(False, ("앞글 가", "앞글 가나")), (True, ("앞글", "가나"))])
def test_a_text_that_was_broken_off_is_recorded_as_far_as_it_was_shown(
    tiny_model_folder, tmp_path, monkeypatch, capsys, alone, recorded
):
    def stream(*_):
        yield 1, [Piece([], "나", None)]
        raise KeyboardInterrupt

    monkeypatch.setattr("gpt2_korean.generation.terminal.stream_pieces", stream)
    monkeypatch.setattr(
        "gpt2_korean.generation.terminal.time", SimpleNamespace(perf_counter=iter((10.0, 12.0)).__next__)
    )
    options = parse_generate_options([f"--model_name_or_path={tiny_model_folder}", "--device=cpu"])
    model, settled = load(tiny_model_folder, options.model)
    with open_output(tmp_path / "글.jsonl") as file:
        out = Output(file, alone, options.prompts, settled)
        turn = write_turn(model, out, [], Turn("앞글", "가" if alone else " 가"), options.settings, 5)
    record = json.loads((tmp_path / "글.jsonl").read_text("utf-8"))
    assert turn.broken and (record["prompt"], record["text"], record["seed"]) == (*recorded, 5)
    err = capsys.readouterr().err
    assert "이어 씁니다.)" in err and "1토큰 · 초당 0.5토큰 · 시드 5" in err


def test_a_text_is_in_its_file_before_the_next_is_begun(tmp_path):
    """So that it is there whatever ends the run."""
    options = parse_generate_options(["--model_name_or_path=m"])
    with open_output(tmp_path / "글.jsonl") as file:
        record_text(Output(file, True, options.prompts, options.model), "물음", "답", options.settings, "")
        assert json.loads((tmp_path / "글.jsonl").read_text("utf-8"))["text"] == "답"


def test_a_text_whose_reader_has_left_is_finished_where_it_is_recorded_and_ended_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr("gpt2_korean.generation.output.print_piece", lambda *_: False)
    options = parse_generate_options(["--model_name_or_path=m"])
    with open_output(tmp_path / "글.jsonl") as file:
        for where, done in ((file, ("나 다", True)), (None, ("나", False))):
            out = Output(where, True, options.prompts, options.model)
            assert put_out(out, "물음", ["나", " 다"], options.settings) == done
    assert json.loads((tmp_path / "글.jsonl").read_text("utf-8"))["text"] == "나 다"


def test_an_answer_begins_with_no_blank_but_goes_on_with_one(capsys):
    for written, shown in (("", "나 다\n"), ("가", "  나 다\n")):
        put_out(Output(None, True, None, None), "물음", [" ", " 나", " 다"], None, written=written)
        assert capsys.readouterr().out == shown


def test_what_a_model_writes_is_text_to_a_terminal_and_goes_elsewhere_as_it_is(monkeypatch, capsys):
    for is_terminal, shown in ((True, "글\t\\x1b]0;x\\x07\n"), (False, "글\t\x1b]0;x\x07\n")):
        monkeypatch.setattr(sys.stdout, "isatty", lambda is_terminal=is_terminal: is_terminal)
        assert print_piece("글\t\x1b]0;x\x07\n")
        assert capsys.readouterr().out == shown


@needs_terminals
@pytest.mark.parametrize("flags", [[], ["--output_file=글.jsonl"]])
def test_a_run_that_outlives_its_terminal_finishes_what_it_records(tiny_model_folder, tmp_path, flags):
    """As one in the background that a shell has disowned."""
    controller, side = os.openpty()
    words = [f"--model_name_or_path={tiny_model_folder}", "--device=cpu", "--length=9", "--min_length=9", *flags]
    process = subprocess.Popen(
        [sys.executable, ROOT / "generate.py", *words, "--num_return_sequences=300", "--batch_size=1"],
        cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=side, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    os.close(side)
    assert os.read(controller, 1000).startswith(b"=== 1/300 ===")  # more is to come than a terminal keeps for a reader
    os.close(controller)
    assert "오류" not in process.communicate(timeout=300)[1] and process.returncode == 0
    assert [path.read_bytes().count(b"\n") for path in tmp_path.iterdir()] == [300] * len(flags)


def test_texts_that_end_at_once_are_counted_and_the_way_on_is_named(run_main, silent_model_folder, piped):
    words = [f"--model_name_or_path={silent_model_folder}", "--device=cpu", "--temperature=0", "--length=30"]
    for more, said in (
        ([], "모델이 글을 바로 끝냈습니다."),
        (["--num_return_sequences=3"], "글 3편 가운데 3편을 모델이"),
    ):
        code, _, err = run_main("generate.py", *words, "--prompt=가", *more)
        assert code == 0 and err.count("바로 끝냈습니다") == 1 and said in err and "--min_length=20" in err
    code, out, err = run_main("generate.py", *words, "--prompt=가", "--min_length=30")
    assert len(out) > 3 and "끝냈습니다" not in err
    out, err = piped(silent_model_folder, "가", "", flags=words[1:])
    assert err.count("/set min_length 20") == 1 and len(out) > 3  # more was asked for: a token at least


def test_a_text_without_a_letter_is_empty_unless_it_may_only_have_been_cut():
    settings = parse_generate_options(["--model_name_or_path=m", "--length=9"]).settings
    for text, empty in (
        *((text, True) for text in ("", " \n", "?!", "\u200b", "……")),
        *((text, False) for text in ("가", "...\n1", "🙂", ".........", "………")),
    ):
        assert is_empty(text, settings) == empty, text


def test_how_to_have_longer_texts_than_empty_ones_is_told_by_what_was_asked_for():
    def told(*words, texts=1):
        return describe_empty(1, texts, parse_generate_options(["--model_name_or_path=m", *words]).settings)

    assert told() == "모델이 글을 바로 끝냈습니다. 더 길게 쓰려면: --min_length=20"
    assert told("--min_length=15").endswith("=30") and told("--length=9").endswith("=9")
    assert told(texts=3).startswith("글 3편 가운데 1편을 모델이 바로") and "(stop)" in told("--stop=가")


def test_more_goes_on_behind_the_blank_that_stopped_a_text(piped, tiny_model_folder, tmp_path):
    file = tmp_path / "글.jsonl"
    lines = ["가", "", *["/again"] * 12]
    flags = ["--length=60", "--stop=없는 글", "--stop= ", "--seed=1", f"--output_file={file}"]
    out, _ = piped(tiny_model_folder, *lines, flags=flags)
    first, *others = (json.loads(line) for line in file.read_text("utf-8").splitlines())
    assert {each["prompt"] for each in others} == {first["text"] + " "} and out.startswith(f"{first['text']}\n ")
    assert any(len(each["text"]) > len(each["prompt"]) for each in others)
