"""The two scripts as a user meets them: texts on stdout, short Korean messages for every mistake."""

import io
import json
import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT, signal_self


@pytest.fixture
def write(run_main, tiny_model_folder):
    """Run generate.py on the tiny model."""

    def run(*words):
        return run_main(
            "generate.py", f"--model_name_or_path={tiny_model_folder}", "--device=cpu", "--length=5", *words
        )

    return run


def test_stdout_is_the_text_and_nothing_else(write):
    code, out, err = write("--prompt=한국어", "--seed=3")
    assert code == 0 and out.startswith("한국어") and "===" not in out
    assert "cpu" in err and "시드: 3" in err
    assert write("--prompt=한국어", "--seed=3")[1] == out


def test_several_texts_have_a_heading_each(write):
    _, out, _ = write("--prompt=하나", "--prompt=둘", "--num_return_sequences=3", "--batch_size=4")
    headings = [line for line in out.splitlines() if line.startswith("===")]
    assert headings == [f"=== {number}/6 ===" for number in range(1, 7)]
    assert out.count("\n하나") == out.count("\n둘") == 3


def test_greedy_texts_are_the_same_alone_and_in_a_batch(write, tmp_path):
    prompts = ["오늘은", "비가 오는 날이면 늘 그렇듯이", "그"]
    file = tmp_path / "앞글.txt"
    file.write_bytes("\r\n".join(prompts).encode("cp949"))
    alone = [write("--temperature=0", f"--prompt={prompt}")[1] for prompt in prompts]
    together = write("--temperature=0", f"--prompt_file={file}")[1]
    assert "".join(f"=== {number}/3 ===\n{text}" for number, text in enumerate(alone, 1)) == together


def test_an_output_file_gets_a_line_for_each_text_and_keeps_its_own(write, tmp_path):
    file = tmp_path / "out.jsonl"
    for _ in range(2):
        _, out, _ = write(
            "--prompt=한국어", "--num_return_sequences=2", "--seed=7", "--top_k=9", f"--output_file={file}"
        )
    records = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert len(records) == 4 and records[:2] == records[2:]
    for record in records:
        assert record["prompt"] == "한국어" and record["seed"] == 7 and record["settings"]["top_k"] == 9
        assert record["text"] in out


def test_an_empty_prompt_starts_a_document(write):
    assert write("--prompt=", "--seed=1")[0] == 0
    assert write("--seed=1")[1] == write("--prompt=", "--seed=1")[1]


def test_a_decomposed_prompt_is_composed_as_training_texts_are(write):
    import unicodedata

    decomposed = unicodedata.normalize("NFD", "한국어")
    assert write(f"--prompt={decomposed}", "--seed=1")[1] == write("--prompt=한국어", "--seed=1")[1]


def test_lengths_past_the_context_go_on_with_a_warning(write):
    code, _, err = write(f"--prompt={'가나다라마 ' * 50}", "--length=100")
    assert code == 0 and "문맥" in err
    code, _, err = write("--prompt=가", "--length=100")
    assert code == 0 and "문맥" in err
    assert "문맥" not in write("--prompt=가")[2]


@pytest.mark.parametrize("encoding", ["ascii", "cp949"])
def test_a_terminal_that_cannot_show_a_character_gets_it_escaped(write, monkeypatch, encoding):
    stdout = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stdout, encoding, write_through=True))
    assert write("--prompt=한국어 😀")[0] == 0
    shown = "한국어" if encoding == "cp949" else r"\ud55c\uad6d\uc5b4"
    assert stdout.getvalue().decode(encoding).startswith(rf"{shown} \U0001f600")


def test_a_reader_that_leaves_early_ends_the_run_quietly(tiny_model_folder):
    command = [
        sys.executable, "generate.py", f"--model_name_or_path={tiny_model_folder}", "--prompt=한국어", "--length=2",
        "--num_return_sequences=3", "--batch_size=1", "--device=cpu",
    ]  # fmt: skip
    pipe = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    pipe.stdout.close()
    stderr = pipe.communicate(timeout=120)[1]
    assert pipe.returncode == 0
    assert "Traceback" not in stderr and "BrokenPipe" not in stderr


@pytest.mark.parametrize(("words", "lines"), [(["--prompt=가", "--output_file=글.jsonl"], 1), (["--interactive"], 0)])
def test_a_run_whose_standard_streams_are_closed_is_done(fork_script, tiny_model_folder, tmp_path, words, lines):
    script = tmp_path / "closed.py"
    script.write_text(
        "import os, runpy, sys\nos.closerange(0, 3)\nsys.stdin = sys.stdout = sys.stderr = None\n"  # as Python does
        f"runpy.run_path({str(ROOT / 'generate.py')!r}, run_name='__main__')\n"
    )
    (tmp_path / "there").mkdir()
    flags = [f"--model_name_or_path={tiny_model_folder}", "--length=5", *words]
    assert fork_script(script, *flags, cwd=tmp_path / "there").returncode == 0
    written = [path.read_text("utf-8") for path in (tmp_path / "there").iterdir()]
    assert len(written) == lines and all(json.loads(text)["text"] for text in written)


def test_ctrl_c_ends_with_a_message_and_the_way_on(tiny_model_folder, tmp_path):
    command = [
        sys.executable, ROOT / "generate.py", f"--model_name_or_path={tiny_model_folder}", "--length=20",
        "--device=cpu", "--num_return_sequences=1000000", "--batch_size=1", "--output_file=글.jsonl",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(10):
        assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "Ctrl-C" in stderr and "Traceback" not in stderr and "--resume" in stderr


def test_ctrl_c_where_nothing_is_recorded_names_no_way_on(write, monkeypatch):
    monkeypatch.setattr("gpt2_korean.generation.batch.put_out", lambda *_: signal_self(signal.SIGINT))
    code, _, err = write("--prompt=가")
    assert code == 1 and "Ctrl-C" in err and "--resume" not in err


def test_invalid_utf8_from_the_shell_is_refused():
    command = [sys.executable.encode(), b"generate.py", b"--model_name_or_path=x", b"--prompt=\xc7\xd1\xb1\xdb"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONUTF8": "1"})
    assert finished.returncode == 2
    assert "--prompt" in finished.stderr and "UTF-8" in finished.stderr


def bad_datasets(folder):
    """(words of train.py, exit code, words of the message) for each kind of bad input."""
    files = {
        "빈.txt": b"",
        "빈칸.txt": b" \n\n\t\n",
        "이진.txt": bytes(range(256)) * 9,
        "열.csv": "제목,본문\n가,나\n".encode("cp949"),
        "줄.jsonl": b'{"text": "a"}\n{"text": \n',
        "배열.json": b"[1, 2]",
        "깨진.parquet": b"PAR1",
        "깨진.txt.gz": b"\x1f\x8b\x08\x00",
        "그림.png": b"\x89PNG",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [
        ("없음.txt", 2, ["--dataset_path", "없음.txt"]),
        ("그림.png", 2, ["--dataset_path", "그림.png"]),
        ("빈.txt", 1, ["빈.txt", "글이 없습니다"]),
        ("빈칸.txt", 1, ["빈칸.txt", "글이 없습니다"]),
        ("이진.txt", 1, ["이진.txt", "바이트"]),
        ("열.csv", 1, ["열.csv", "제목, 본문", "--text_column_name"]),
        ("줄.jsonl", 1, ["줄.jsonl", "2번째 줄"]),
        ("배열.json", 1, ["배열.json", "1번째 항목"]),
        ("깨진.parquet", 1, ["깨진.parquet", "Parquet"]),
        ("깨진.txt.gz", 1, ["깨진.txt.gz", "온전한지"]),
    ]


def test_every_bad_dataset_gets_a_short_message_and_nothing_is_written(tmp_path, run_main, tiny_model_folder):
    for name, expected, words in bad_datasets(tmp_path):
        code, out, err = run_main(
            "train.py", f"--dataset_path={tmp_path / name}", f"--model_type={tiny_model_folder}",
            f"--output_dir={tmp_path / 'out'}", f"--logging_dir={tmp_path / 'logs'}", "--do_train", "--device=cpu",
        )  # fmt: skip
        message = err[err.index("오류:") :]
        assert (code, out) == (expected, ""), name
        assert all(word in message for word in words), message
        assert len(message.strip().splitlines()) <= 2
        assert not (tmp_path / "out").exists() and not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (["--dataset_path=data/korean_texts.txt", "--do_train", "--output_dir=README.md"], 2, "--output_dir"),
        (["--dataset_path=data/korean_texts.txt", "--do_train", "--model_type=./없음"], 2, "--model_type"),
        (["--dataset_path=data/korean_texts.txt", "--do_train", "--model_type=gpt2-medium"], 1, "scratch-mini"),
        (["--dataset_path=data/korean_texts.txt", "--do_train", "--device=xpu"], 2, "--device=xpu"),
    ],
)
def test_train_mistakes_are_named(words, code, named, tmp_path, run_main, monkeypatch):
    import torch

    monkeypatch.setattr(torch.xpu, "is_available", lambda: False)
    if not any(word.startswith("--output_dir") for word in words):
        words = [*words, f"--output_dir={tmp_path / 'out'}"]
    got, out, err = run_main("train.py", *words)
    assert (got, out) == (code, "") and named in err[err.index("오류:") :]
    assert not (tmp_path / "out").exists()


def test_an_output_dir_that_cannot_be_made_is_named(run_main, tiny_model_folder):
    words = ["--dataset_path=data/korean_texts.txt", "--do_train", f"--model_type={tiny_model_folder}"]
    code, _, err = run_main("train.py", *words, "--output_dir=/proc/gpt2-korean", "--device=cpu")
    assert code in (1, 2) and "/proc" in err[err.index("오류:") :]


def test_a_table_whose_first_row_is_wrong_is_refused_before_torch_is_imported(run_script, tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"제목": ["가"]}), tmp_path / "열.parquet")
    (tmp_path / "열.csv").write_text("제목,본문\n가,나\n", "cp949")
    (tmp_path / "줄.jsonl").write_text('{"text": \n' + '{"text": "가"}\n' * 10)
    for name, named in (("열.parquet", "제목"), ("열.csv", "제목, 본문"), ("줄.jsonl", "1번째 줄")):
        words = ["train.py", f"--dataset_path={tmp_path / name}", "--do_train", f"--output_dir={tmp_path / 'out'}"]
        finished = run_script("-X", "importtime", *words)
        imported = {line.rsplit("|", 1)[-1].strip() for line in finished.stderr.splitlines() if "|" in line}
        assert finished.returncode == 1 and named in finished.stderr
        assert not imported & {"torch", "transformers", "datasets"}


def test_what_stands_on_the_command_line_is_refused_before_torch_is_imported(run_script, tmp_path):
    (tmp_path / "빈.txt").touch()
    train = ["train.py", "--do_train", f"--output_dir={tmp_path / 'out'}"]
    text = "--dataset_path=data/korean_texts.txt"
    for words, code, named in (
        ([*train, text, "--model_type=scratch-mini", "--block_size=257"], 2, "--block_size=257"),
        ([*train, text, "--model_type=scratch_mini"], 2, "scratch-mini인가요?"),
        ([*train, text, "--tokenizer=./없음"], 2, "--tokenizer=./없음"),
        ([*train, f"--dataset_path={tmp_path / '빈.txt'}"], 1, "글이 없습니다"),
        ([*train, "--dataset_path=data/korean_text.txt"], 2, "혹시 data/korean_texts.txt인가요?"),
        (["train.py", "--lenght=3"], 2, "--lenght"),
        (["generate.py", "--lenght=3"], 2, "--lenght"),
        (["train.py"], 2, "사용법:"),
        (["generate.py"], 2, "사용법:"),
    ):
        finished = run_script("-X", "importtime", *words)
        imported = {line.rsplit("|", 1)[-1].strip() for line in finished.stderr.splitlines() if "|" in line}
        assert (finished.returncode, finished.stdout) == (code, "") and named in finished.stderr, words
        assert not imported & {"torch", "transformers", "datasets"}, words


def test_a_log_holds_each_line_once_and_nothing_of_bars(run_script, train_words):
    words = [word for word in train_words if word != "--disable_tqdm"]
    finished = run_script(
        "train.py", *words, "--do_train", "--do_eval", "--max_steps=4", "--eval_steps=2", "--logging_steps=2",
        "--validation_split_percentage=30",
    )  # fmt: skip
    lines = finished.stderr.splitlines()
    assert finished.returncode == 0 and any(line.startswith("[4/4] ") for line in lines)
    assert "\r" not in finished.stderr and all(line.strip() for line in lines) and "%|" not in finished.stderr
    logged = [line for line in lines if line.startswith("[")]
    assert len(logged) == len(set(logged)) and not any("/s]" in line for line in lines)


def test_an_evaluation_alone_says_its_figures_once(run_main, train_words):
    code, out, err = run_main("train.py", *train_words, "--do_eval", "--validation_split_percentage=30")
    assert code == 0 and "글자당 비트" in out and "[0/0]" not in err and "평가 손실" not in err


def test_what_nobody_foresaw_is_written_beside_the_logs(run_main, train_words, tmp_path, monkeypatch):
    """A library that fails stands for it."""
    import datasets

    monkeypatch.setattr(datasets.DatasetBuilder, "download_and_prepare", lambda *_: {}["한글"])
    code, _, err = run_main("train.py", *train_words, "--do_train")
    message = err[err.index("오류:") :]
    assert code == 1 and "KeyError: '한글'" in message and len(message.splitlines()) == 2
    (file,) = (tmp_path / "logs").glob("gpt2-korean-error-*.txt")
    assert str(file) in message and "download_and_prepare" in file.read_text("utf-8")
