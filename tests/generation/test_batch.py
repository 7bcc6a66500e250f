"""Many prompts at once: texts in their order that do not depend on the batch, on memory or on a kill."""

import io
import itertools
import json
import os
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from conftest import read_to_write, save_kogpt2

from gpt2_korean import device
from gpt2_korean.checkpoints.lock import hold_records
from gpt2_korean.cli.generate_options import parse_generate_options
from gpt2_korean.generation.batch import plan_batches, write_batches, write_each
from gpt2_korean.generation.batch_size import MOST, MOST_ON_CPU, UNKNOWN, choose_batch_size
from gpt2_korean.generation.output import describe_writing

CPU = torch.device("cpu")
SAMPLED = parse_generate_options(["--model_name_or_path=m", "--length=6"]).settings
GREEDY = parse_generate_options(["--model_name_or_path=m", "--length=6", "--temperature=0", "--stop=다"]).settings


@pytest.fixture(scope="module", params=["tiny_model_folder", "chat_model_folder"])
def model(request):
    """Of texts, and of conversations: in one type, so that rounding is the same."""
    return read_to_write(request.getfixturevalue(request.param))


@pytest.fixture
def jobs(model, sample_texts, rng):
    """Prompts of all lengths, some of them twice and more, as `model` takes them."""
    some = [rng.choice(sample_texts)[: rng.choice([1, 5, 20, 60])].strip() for _ in range(9)]
    texts = [text for text in some for _ in range(rng.randint(1, 3))]
    return texts if model.chat is None else [[{"role": "user", "content": text}] for text in texts]


def texts_of(model, jobs, settings, size, seed=1, done=0, told=lambda tokens: None):
    return [text for pieces in write_batches(model, jobs, settings, size, seed, done, told) for text in pieces]


def test_greedy_texts_are_those_of_each_prompt_alone_whatever_the_batch(model, jobs):
    alone = ["".join(pieces) for pieces in write_each(model, jobs, GREEDY, 1)]
    for size in (1, 2, 3, 7, 64):
        assert texts_of(model, jobs, GREEDY, size) == alone


def test_what_is_drawn_is_the_same_again_and_from_wherever_it_is_taken_up(model, jobs, rng):
    for size in (2, 3, 64):
        whole = texts_of(model, jobs, SAMPLED, size)
        assert whole == texts_of(model, jobs, SAMPLED, size) != texts_of(model, jobs, SAMPLED, size, seed=2)
        done = rng.randint(1, len(jobs))
        assert texts_of(model, jobs, SAMPLED, size, done=done) == whole[done:]
    streamed = ["".join(pieces) for pieces in write_each(model, jobs, SAMPLED, 1)]
    done = rng.randint(1, len(jobs))
    assert ["".join(pieces) for pieces in write_each(model, jobs, SAMPLED, 1, done)] == streamed[done:]


def test_each_text_is_planned_once_beside_those_about_as_long(rng):
    for _ in range(50):
        jobs, size = ["가" * rng.randint(0, 99) for _ in range(rng.randint(1, 60))], rng.randint(1, 20)
        batches = list(plan_batches(jobs, size))
        assert sorted(number for batch in batches for number in batch) == list(range(len(jobs)))
        assert all(batch == sorted(batch, key=lambda n: len(jobs[n])) and len(batch) <= size for batch in batches)
        assert len(batches) == -(-len(jobs) // size)
        numbers = iter(range(len(jobs)))
        in_order = [list(itertools.islice(numbers, len(batch))) for batch in batches]
        padded = [sum(max(len(jobs[n]) for n in batch) * len(batch) for batch in each) for each in (batches, in_order)]
        assert padded[0] <= padded[1]


def test_texts_come_before_all_are_written(model, jobs):
    tokens = []
    texts = write_batches(model, jobs * 4, GREEDY, 2, 1, 0, tokens.append)
    next(texts)
    assert sum(tokens) <= 8 * GREEDY.length
    assert len(list(texts)) == 4 * len(jobs) - 1 and sum(tokens) == 4 * len(jobs) * GREEDY.length


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("stands in for a device that is too small"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8388608 bytes."),
        MemoryError("Unable to allocate 1.00 GiB for an array"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_where_memory_runs_out_fewer_are_written_at_a_time_and_none_is_lost(model, jobs, monkeypatch, capsys, error):
    start, tried = model.decoder.start, []

    def start_with_little_memory(ids, mask, steps, rows=None, most=3):
        tried.append(len(ids) if rows is None else len(rows))
        if tried[-1] > most:
            raise error
        return start(ids, mask, steps, rows)

    alone = ["".join(pieces) for pieces in write_each(model, jobs, GREEDY, 1)]
    monkeypatch.setattr(model.decoder, "start", start_with_little_memory)
    assert texts_of(model, jobs, GREEDY, 8) == alone
    told = [line for line in capsys.readouterr().err.splitlines() if "메모리" in line]
    assert [line.split("--batch_size=")[1][0] for line in told] == ["4", "2"]
    assert tried[0] > 4 and tried[1:3] == [4, 2] and max(tried[2:]) <= 2
    monkeypatch.setattr(model.decoder, "start", partial(start_with_little_memory, most=0))
    with pytest.raises(type(error)):
        texts_of(model, jobs, GREEDY, 8)


def test_the_batch_is_chosen_by_the_memory_that_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "ROOT", tmp_path)
    shape = {"context": 1024, "vocab_size": 1000, "cache_bytes": 10**5, "room": lambda tokens: tokens}
    decoder = SimpleNamespace(device=CPU, captures=False, **shape)
    assert choose_batch_size(decoder, 10, 100) == UNKNOWN
    (tmp_path / "proc").mkdir()
    sizes = {}
    for gigabytes in (0.001, 0.5, 2, 2.1, 1000):
        (tmp_path / "proc" / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {int(gigabytes * 2**20)} kB\n")
        sizes[gigabytes] = choose_batch_size(decoder, 10, 100), choose_batch_size(decoder, 900, 900)
    assert sizes[0.001] == (1, 1) and sizes[1000] == (MOST_ON_CPU, MOST_ON_CPU) and sizes[2] == sizes[2.1]
    short, long = zip(*sizes.values(), strict=True)
    assert (
        [*short] == sorted(short) and [*long] == sorted(long) and all(a >= b for a, b in zip(short, long, strict=True))
    )
    # As much as it says it takes at most.
    assert sizes[0.5][0] * 110 * 10**5 <= 0.5 * 2**30 and sizes[2][1] * 1024 * 10**5 <= 2 * 2**30


def test_what_a_prompt_is_read_with_and_the_logits_count_where_they_take_memory(monkeypatch):
    monkeypatch.setattr("gpt2_korean.generation.batch_size.free_memory", lambda _: 10**9)

    def choose(read, length, device="cpu", **changes):
        shape = {"context": 1024, "vocab_size": 1000, "cache_bytes": 10**5, "captures": False}
        shape |= {"room": lambda tokens: tokens, **changes}
        return choose_batch_size(SimpleNamespace(device=torch.device(device), **shape), read, length)

    assert choose(900, 50) == 4 and choose(900, 50, captures=True) == 8  # a graph reads a few tokens at a time
    assert choose(10**6, 100) == choose(1024, 100) == 2  # no more is read than the context has
    assert choose(10, 10**6) == choose(10, 1014) == 4
    assert choose(3000, 100, context=None) == 1 and choose(100, 500, context=None) == 8
    assert choose(10, 90) == 64 and choose(10, 90, room=lambda tokens: 1024) == 4  # what a recording takes room for
    assert choose(1, 1, cache_bytes=1, vocab_size=10**6) == 16  # the logits
    assert choose(1, 1, device="cuda") == MOST


@pytest.mark.parametrize(
    "line, folder, limit, taken",
    [
        ("0::/", "", "memory.max", "anon"),  # of a container, which sees its own alone
        ("1:name=systemd:/x\n0::/slurm/job_7/step_0", "slurm/job_7", "memory.max", "anon"),
        ("8:pids:/\n4:memory:/docker/a:b", "memory", "memory.limit_in_bytes", "total_rss"),
    ],
)
def test_no_more_memory_counts_as_free_than_a_container_or_a_batch_job_may_take(
    tmp_path, monkeypatch, line, folder, limit, taken
):
    monkeypatch.setattr(device, "ROOT", tmp_path)
    group = tmp_path / "sys/fs/cgroup" / folder
    for path in (tmp_path / "proc/self", group):
        path.mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n")
    (tmp_path / "proc/self/cgroup").write_text(f"{line}\n")
    (group / "memory.stat").write_text(f"{taken} 1000000\nfile 500000000\n")
    for said, free in (("2000000000\n", 1_999_000_000), ("max\n", 8_192_000_000), (f"{2**63 - 4096}\n", 8_192_000_000)):
        (group / limit).write_text(said)
        assert device.free_memory(CPU) == free


@pytest.fixture
def write(run_main, tiny_model_folder, tmp_path, sample_texts):
    """Run generate.py over a file of prompts into a file of records."""
    prompts = tmp_path / "앞글.txt"
    prompts.write_text("\n".join([text.split("\n")[0][:size] for text, size in zip(sample_texts, SIZES, strict=False)]))
    words = [f"--model_name_or_path={tiny_model_folder}", "--device=cpu", "--dtype=float32", "--length=5"]
    words += [f"--prompt_file={prompts}", "--num_return_sequences=2"]

    def run(file, *more):
        return run_main("generate.py", *words, f"--output_file={file}", *more)

    return run


def test_a_record_stands_on_a_line_of_its_own_also_behind_one_that_has_no_end(write, tmp_path):
    file = tmp_path / "결과.jsonl"
    file.write_bytes("앞의 것".encode())
    assert write(file)[0] == 0
    first, *records = file.read_bytes().splitlines()  # of a str more ends a line, which a text may hold
    assert first.decode() == "앞의 것" and all(json.loads(record)["text"] for record in records)


def test_a_text_is_shown_as_it_comes_and_recorded_as_one_that_was_written_alone(
    run_main, write, tiny_model_folder, tmp_path, monkeypatch
):
    class Screen(io.BytesIO):
        def __init__(self, is_terminal):
            super().__init__()
            self.is_terminal, self.shown = is_terminal, []

        def isatty(self):
            return self.is_terminal

        def write(self, content):
            self.shown.append(bytes(content))
            return len(content)

    words = [
        f"--model_name_or_path={tiny_model_folder}",
        "--device=cpu",
        "--length=20",
        "--min_length=20",
        "--prompt=가",
    ]
    for is_terminal, more in ((True, []), (False, ["--stream"])):
        screen = Screen(is_terminal)
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BufferedWriter(screen), "utf-8"))
        assert run_main("generate.py", *words, *more)[0] == 0
        assert len(screen.shown) > 5
    monkeypatch.undo()
    write(tmp_path / "하나씩.jsonl", "--seed=1", "--stream")
    write(tmp_path / "따로.jsonl", "--seed=1", "--batch_size=1")
    assert (tmp_path / "하나씩.jsonl").read_text("utf-8") == (tmp_path / "따로.jsonl").read_text("utf-8")


SIZES = [4, 25, 9, 60, 2, 14, 33]


@pytest.mark.parametrize("flag", ["--stream", "--batch_size=1", "--batch_size=2"])
def test_that_the_context_is_short_is_said_once(run_main, tiny_model_folder, flag):
    words = [f"--model_name_or_path={tiny_model_folder}", "--device=cpu", "--prompt=가", "--prompt=나", "--length=40"]
    code, _, err = run_main("generate.py", *words, "--num_return_sequences=3", "--seed=1", flag)
    assert code == 0 and err.count("문맥") == 1, err


def test_what_a_model_cannot_read_of_prompts_is_said_once(run_main, pipe, tmp_path, sample_texts):
    save_kogpt2(tmp_path / "model", sample_texts)
    words = [
        "generate.py",
        f"--model_name_or_path={tmp_path / 'model'}",
        "--device=cpu",
        "--length=2",
        "--min_length=2",
    ]
    _, out, err = run_main(*words, "--prompt=오늘 😀", "--prompt=漢字 😀", "--num_return_sequences=2")
    assert "오늘 😀" in out and err.count("글자가 어휘에 없어 모델이 읽지 못합니다('😀' '漢' '字' 등)") == 1, err
    pipe("오늘", "오늘 😀", "")  # the last goes on
    code, _, err = run_main(*words, "--interactive")
    assert code == 0 and err.count("읽지 못합니다('😀' 등)") == 1, err


def test_a_file_that_was_cut_at_any_byte_is_taken_up_to_what_it_would_have_been(write, tmp_path, rng):
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    assert write(whole, "--batch_size=3", "--resume")[0] == 0  # the seed is drawn
    content = whole.read_bytes()
    lines = content.splitlines(keepends=True)
    for size in (0, 1, 20, len(lines[0]) - 1, len(lines[0]), *(rng.randint(1, len(content) - 1) for _ in range(5))):
        cut.write_bytes(content[:size])
        done = content[:size].count(b"\n")  # those tell the seed and the batch
        again = [] if done else [f"--seed={json.loads(lines[0])['seed']}", "--batch_size=3"]
        code, out, err = write(cut, "--resume", *again)
        assert code == 0 and cut.read_bytes() == content
        assert out.count("===\n") == len(lines) - done and (f"{done}편이 있습니다" in err) == (done > 0)
    code, out, err = write(whole, "--resume")
    assert (code, out) == (0, "") and "더 쓸 것이 없습니다" in err and "장치" not in err
    assert whole.read_bytes() == content


def test_another_device_and_another_batch_go_on_with_a_file_and_a_folder_may_end_in_a_slash(
    write, tmp_path, tiny_model_folder
):
    file = tmp_path / "글.jsonl"
    write(file, "--batch_size=3", "--seed=3")
    first, *lines = file.read_text("utf-8").splitlines(keepends=True)
    first = first.replace('"device": "cpu"', '"device": "cuda"').replace('"dtype": "float32"', '"dtype": "float16"')
    file.write_text(first, "utf-8")
    code, _, err = write(file, "--batch_size=2", "--resume", f"--model_name_or_path={tiny_model_folder}/")
    records = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert code == 0 and len(records) == 1 + len(lines), err
    assert [each["settings"]["batch_size"] for each in records] == [3] + [2] * len(lines)
    assert records[0]["settings"]["device"] == "cuda" and {each["seed"] for each in records} == {3}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (["--top_k=9"], "--top_k: 그때는 50, 지금은 9"),
        (["--stop=가"], '--stop: 그때는 없음, 지금은 ["가"]'),
        (["--seed=4"], "--seed: 그때는 3, 지금은 4"),
        (["--length=6"], "--length: 그때는 5"),
        (["--num_return_sequences=3"], "3번째 줄은 다른 앞글"),
        (["--num_return_sequences=1"], "2번째 줄은 다른 앞글"),
    ],
)
def test_a_file_of_another_run_is_refused_and_stays_as_it_was(write, tmp_path, changed, named):
    file = tmp_path / "글.jsonl"
    write(file, "--seed=3")
    content = file.read_bytes()[:-9]
    file.write_bytes(content)
    code, out, err = write(file, "--seed=3", "--resume", *changed)
    assert (code, out) == (2, "") and named in err and "--output_file" in err
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    "word",
    [
        "--allow_invalid_utf8",
        "--quantize=int8",
        "--prompt_template=물음: {prompt}",
        "--system=역할",
        "--raw",
        "--top_k=9",
    ],
)
def test_a_record_tells_each_flag_that_makes_another_text_of_a_prompt(word, monkeypatch):
    monkeypatch.setattr("gpt2_korean.cli.generate_checks.find_spec", lambda name: True)  # as where OpenVINO is there
    plain, changed = (parse_generate_options(["--model_name_or_path=m", *words]) for words in ([], [word]))
    told, told_then = (describe_writing(each.model, each.prompts, each.settings) for each in (plain, changed))
    name = word.removeprefix("--").split("=")[0]
    assert [key for key in told if told[key] != told_then[key]] == [name]


def test_no_run_goes_on_with_a_file_that_another_still_writes(write, tmp_path, monkeypatch):
    """As where cron starts the command anew: the texts of both would stand there, and no run could go on with them."""
    monkeypatch.setattr("gpt2_korean.checkpoints.lock.PATIENCE_SECONDS", 0)
    file = tmp_path / "글.jsonl"
    write(file, "--seed=3")
    content = file.read_bytes()[:-9]
    file.write_bytes(content)
    for theirs, ours in ((False, ["--resume"]), (True, ["--resume"]), (True, [])):
        with open(file, "ab") as other:
            hold_records(other, alone=theirs)
            code, out, err = write(file, "--seed=3", *ours)
        assert (code, out) == (1, "") and f"--output_file={file}: 다른 generate.py가 쓰고 있습니다" in err
        assert file.read_bytes() == content
    with open(file, "ab") as other:
        hold_records(other, alone=False)
        assert write(tmp_path / "둘.jsonl", "--seed=3", "--resume")[0] == 0
    assert write(file, "--seed=3", "--resume")[0] == 0
    with open(file, "ab") as other:
        hold_records(other, alone=False)
        assert write(file, "--seed=3")[0] == 0  # two that only add to it


def test_the_file_of_the_prompts_is_no_file_for_the_texts(write, tmp_path):
    (tmp_path / "글.jsonl").symlink_to("앞글.txt")
    for name in ("앞글.txt", "글.jsonl"):
        code, out, err = write(tmp_path / name)
        assert (code, out) == (2, "") and f"--output_file={tmp_path / name}" in err and "--prompt_file" in err
    assert '"text"' not in (tmp_path / "앞글.txt").read_text("utf-8")


def test_a_file_that_cannot_be_there_is_refused_with_its_flag(write, tmp_path):
    for place in ("없음", "앞글.txt"):  # no folder, and a file
        code, out, err = write(tmp_path / place / "글.jsonl")
        assert (code, out) == (2, "") and f"--output_file={tmp_path / place / '글.jsonl'}: " in err
        assert "폴더" in err and len(err.splitlines()) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no disk is full here")
def test_a_full_disk_is_told_with_the_file_of_the_texts(write):
    code, _, err = write("/dev/full")
    assert code == 1 and "남은 공간이 없습니다" in err and "(/dev/full)" in err


@pytest.mark.parametrize("content", ["일기", "첫 줄\n둘째 줄\n", "[1]\n", '{"prompt": 1}\n', '{"text": "가"}', "\n"])
def test_a_file_that_is_no_records_is_left_alone(write, tmp_path, content):
    file = tmp_path / "글.jsonl"
    file.write_text(content, "utf-8")
    code, out, err = write(file, "--resume")
    assert (code, out) == (2, "") and "1번째 줄은 글의 기록이 아닙니다" in err
    assert file.read_text("utf-8") == content


def test_more_prompts_and_more_texts_of_the_last_are_added_to_what_there_is(run_main, tiny_model_folder, tmp_path):
    file = tmp_path / "글.jsonl"
    words = ["generate.py", f"--model_name_or_path={tiny_model_folder}", "--device=cpu", "--length=4"]
    words += [f"--output_file={file}", "--resume", "--temperature=0"]
    for more in (["--prompt=가"], ["--prompt=가", "--prompt=나"]):
        assert run_main(*words, *more)[0] == 0
    assert [json.loads(line)["prompt"] for line in file.read_text("utf-8").splitlines()] == ["가", "나"]
    code, _, err = run_main(*words, "--prompt=가")
    assert code == 2 and "2번째 줄은 다른 앞글" in err
