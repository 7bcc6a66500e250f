"""Tiny models, tokenizers and corpora, made here: no test needs a network or a file from outside."""

import copy
import gc
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
sys.modules["conftest"] = sys.modules[__name__]  # what test modules import by this name is not loaded again


# A temporary folder of this test run alone, which its processes share, caches of each process, a Hub that answers at
# once that it is not there, and one thread: in models so small more of them only wait for each other, for minutes on a
# busy machine. The libraries read these when they are imported, so they are set before any test module is.
WORKER, OURS = os.environ.get("PYTEST_XDIST_WORKER", ""), "gpt2-korean-tests-"
# This file is read more than once where folders with a conftest.py of their own are named, and by runs within a run.
IS_THERE = Path(tempfile.gettempdir()).name.startswith(OURS)
TEMPORARY = None if WORKER or IS_THERE else tempfile.TemporaryDirectory(prefix=OURS, ignore_cleanup_errors=True)
if TEMPORARY:
    os.environ["TMPDIR"] = tempfile.tempdir = TEMPORARY.name
CACHES = f"{os.environ['TMPDIR']}/{WORKER or 'caches'}"
os.environ.update(
    HF_HOME=CACHES, TRITON_CACHE_DIR=f"{CACHES}/triton", HF_ENDPOINT="http://127.0.0.1:9", OMP_NUM_THREADS="1"
)
sys.modules.setdefault("openvino_telemetry", None)  # as generate.py does: each import would be told, by a fork of ours
gc.set_threshold(10_000)  # as a script does: what is imported is no garbage, and is looked through again and again

import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from gpt2_korean.device import available_devices  # noqa: E402

# The same examples every time, a few seconds of them a file; GPT2_KOREAN_EXAMPLES=10000 tries more.
settings.register_profile(
    "suite", deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck],
    max_examples=int(os.environ.get("GPT2_KOREAN_EXAMPLES", 50)),
)  # fmt: skip
settings.load_profile("suite")

# A GPU that has graphs and that Triton compiles for, or else the CPU.
GPU = torch.device(next(name for name in available_devices() if name in ("xpu", "cuda", "cpu")))
needs_gpu = pytest.mark.skipif(GPU.type == "cpu", reason="no GPU with graphs here")

if not torch.accelerator.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # Triton's kernels, where it is installed, run in NumPy


def pytest_collection_finish():
    gc.freeze()  # every run looks for garbage before its first step: for its own alone, not in all that was imported


def pytest_unconfigure():
    if TEMPORARY:
        TEMPORARY.cleanup()


# A shell's background job ignores Ctrl-C, and one of nohup SIGHUP: so would every program that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def own_lock_of_the_bars():
    """A signal may have ended the test before this one while a progress bar was drawn, and its lock stay held."""
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())


@pytest.fixture
def otherwise_spelt(monkeypatch):
    """A function (path, name) that has `name` lead to `path` too, as on a disk that takes both for one."""

    def spell(path, name):
        if not name.exists():  # else it is on such a disk
            name.symlink_to(path)
            monkeypatch.setattr(os.path, "realpath", lambda path, **_: os.path.abspath(path))

    return spell


@pytest.fixture(scope="session")
def sample_texts():
    return (ROOT / "data" / "korean_texts.txt").read_text("utf-8").strip().split("\n\n")


@pytest.fixture(scope="session")
def byte_tokenizer(sample_texts):
    """A tokenizer as GPT-2's, with 640 tokens."""
    from gpt2_korean.text.vocabulary import train_tokenizer

    return train_tokenizer(sample_texts[:40], 640, 32)


def tiny_gpt2(vocab_size, seed=0, **changes):
    """A random GPT-2 of 2 layers × 32 with a context of 32, its logits far enough apart to rank surely."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    shape = {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 32, "initializer_range": 0.5}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, **{**shape, **ends, **changes})).eval()


NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


def random_batch(rng, vocabulary=301, longest=32):
    """What a batch of 1 to 5 texts of random tokens is to a model: `input_ids`, `labels`."""
    from gpt2_korean.text.assemble import collate

    rows = [[rng.randrange(vocabulary) for _ in range(rng.randint(2, longest))] for _ in range(rng.randint(1, 5))]
    return collate([{"input_ids": np.array(row), "labels": np.array(row)} for row in rows], 0)


def save_tiny_gpt2(folder, tokenizer, **changes):
    """A folder with a tiny_gpt2 and its tokenizer."""
    tiny_gpt2(len(tokenizer), **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def read_to_write(folder, reading=None, **choices):
    """The LoadedModel of a model's folder or a hub id, in float32 on the CPU; choices: LoadOptions that are others."""
    from gpt2_korean.cli.generate_options import parse_generate_options
    from gpt2_korean.generation.load import read_model

    options = parse_generate_options([f"--model_name_or_path={folder}", "--device=cpu", "--dtype=float32"]).model
    return read_model(folder, replace(options, **choices), reading)


def words_of_kogpt2(texts, unknown="<unk>", also=()):
    """As skt/kogpt2-base-v2's, of tokenizers: words marked by ▁, `unknown` for what it lacks, `also` special."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=unknown))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<s>", "</s>", "<pad>", "<unk>", *also]
    tokenizer.train_from_iterator(
        [*texts, "< | > / a d e f i k m n o p r s t u x y"],
        trainers.BpeTrainer(vocab_size=2000, special_tokens=special, show_progress=False),
    )
    return tokenizer


def save_kogpt2(folder, texts):
    """A GPT-2 folder with words_of_kogpt2: </s> as the end, no tokenizer_config.json."""
    tokenizer = words_of_kogpt2(texts)
    tiny_gpt2(tokenizer.get_vocab_size(), bos_token_id=0, eos_token_id=1, pad_token_id=2).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="session")
def silent_model_folder(tmp_path_factory, byte_tokenizer):
    """A model that ends every text at once."""
    folder, model = tmp_path_factory.mktemp("models") / "silent", tiny_gpt2(len(byte_tokenizer))
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.copy_(10 * model.transformer.wte.weight[0])
    model.save_pretrained(folder)
    byte_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def english_tokenizer():
    """A tokenizer as GPT-2's that knows English alone, and so spends over two tokens on a Korean character."""
    from gpt2_korean.text.vocabulary import train_tokenizer

    pages = sorted([*ROOT.glob("*.en.md"), *ROOT.glob("docs/*.en.md")])
    lines = [line for page in pages for line in page.read_text("utf-8").splitlines()]
    return train_tokenizer([line for line in lines if line.isascii()], 640, 32)


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory, byte_tokenizer):
    """A saved model of about the least size that trains."""
    return save_tiny_gpt2(tmp_path_factory.mktemp("models") / "tiny", byte_tokenizer, initializer_range=0.02)


@pytest.fixture(scope="session")
def chat_tokenizer(byte_tokenizer):
    """The byte_tokenizer with our chat template and its marks; it puts the begin token in front by itself."""
    from gpt2_korean.text.chat_template import CHAT_TEMPLATE, MARKS
    from gpt2_korean.text.end_of_text import begin_with_end

    tokenizer = copy.deepcopy(byte_tokenizer)
    begin_with_end(tokenizer)
    tokenizer.add_tokens(list(MARKS.values()), special_tokens=True)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@pytest.fixture(scope="session")
def chat_model_folder(tmp_path_factory, chat_tokenizer):
    """A saved model that holds conversations, after a fashion: its weights are random."""
    return save_tiny_gpt2(tmp_path_factory.mktemp("models") / "chat", chat_tokenizer, n_positions=96)


@pytest.fixture
def small_corpus(tmp_path, sample_texts):
    path = tmp_path / "글.txt"
    path.write_text("\n\n".join(sample_texts[:12]), "utf-8")
    return path


@pytest.fixture
def no_picture(monkeypatch):
    """Draw no curves: one takes a quarter of a second, a run as short as those here has several."""
    monkeypatch.setattr("gpt2_korean.training.callbacks.draw", lambda curve: b"picture")


@pytest.fixture
def brief_texts(monkeypatch, no_picture):
    """Texts of a few tokens wherever a model writes while it trains or is measured: those of a save take 0.3 s."""
    from gpt2_korean.training import evaluation, samples

    monkeypatch.setattr(samples, "LENGTH", 4)
    monkeypatch.setattr(evaluation, "TEXTS", 5)
    monkeypatch.setattr(evaluation, "CHARACTERS", 20)


@pytest.fixture
def train_words(small_corpus, tiny_model_folder, tmp_path, brief_texts):
    """The words of a short run on the tiny model, to which a test adds its own."""
    return [
        f"--dataset_path={small_corpus}", f"--model_type={tiny_model_folder}", f"--output_dir={tmp_path / 'out'}",
        f"--logging_dir={tmp_path / 'logs'}", "--device=cpu", "--disable_tqdm",
        "--no_bf16",  # the same numbers on every processor
    ]  # fmt: skip


@pytest.fixture
def resumable_words(train_words):
    return [
        "train.py", *train_words, "--do_train", "--max_steps=8", "--save_steps=2", "--report_to=none",
        "--per_device_train_batch_size=2", "--resume_from_checkpoint=auto",
    ]  # fmt: skip


@pytest.fixture
def run_words(train_words):
    return ["train.py", *train_words, "--do_train", "--max_steps=6", "--save_steps=2", "--logging_steps=1"]


@pytest.fixture
def evaluated_words(run_words, small_corpus, tmp_path):
    prompts = tmp_path / "앞글.txt"
    prompts.write_text("오늘은\n\n그 사람\n", "utf-8")
    return [
        *run_words, "--do_eval", f"--validation_file={small_corpus}", "--eval_steps=3", f"--sample_prompts={prompts}"
    ]  # fmt: skip


@pytest.fixture
def at_training_step(monkeypatch):
    """Call a function with the Trainer at a chosen call of KoreanTrainer.training_step, once."""

    def arrange(call, function):
        from gpt2_korean.training.trainer import KoreanTrainer

        original, calls = KoreanTrainer.training_step, []

        def step(self, *args, **kwargs):
            calls.append(None)
            if len(calls) == call:
                function(self)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(KoreanTrainer, "training_step", step)
        return calls

    return arrange


@pytest.fixture
def at_evaluation(monkeypatch):
    """Call a function with the Trainer once, as the evaluation at a chosen step begins."""

    def arrange(at, function):
        from gpt2_korean.training.trainer import KoreanTrainer

        original = KoreanTrainer.evaluate

        def evaluate(self, *args, **kwargs):
            if self.state.global_step == at:
                monkeypatch.setattr(KoreanTrainer, "evaluate", original)
                function(self)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(KoreanTrainer, "evaluate", evaluate)

    return arrange


def signal_self(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.fixture
def pipe(monkeypatch):
    """Have the lines given to it stand in what is piped into a script."""

    def given(*lines):
        content = "".join(f"{line}\n" for line in lines).encode()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), "utf-8"))

    return given


@pytest.fixture
def run_script():
    """Run train.py or generate.py as a user does; returns the finished process with text output."""

    def run(*command, cwd=ROOT, env=None, text=True, timeout=300):
        return subprocess.run(
            [sys.executable, *map(str, command)], cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True,
            text=text, timeout=timeout,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def forks():
    command = [sys.executable, str(ROOT / "tests" / "forks.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def fork_script(forks, tmp_path_factory):
    """Run a script in a process that has the libraries loaded; with `ranks`, in so many: a list of what each did.

    `more` is how many bytes of memory it may take besides, None for as many as there are.
    """

    def said(path):
        return Path(path).read_text("utf-8")

    def run(*words, ranks=1, cwd=ROOT, more=None):
        words, output = [str(word) for word in words], tmp_path_factory.mktemp("fork") / "rank"
        request = {"words": words, "ranks": ranks, "folder": str(cwd), "output": str(output), "bytes": more}
        forks.stdin.write(json.dumps(request) + "\n")
        forks.stdin.flush()
        codes = json.loads(forks.stdout.readline())
        finished = [
            subprocess.CompletedProcess(words, code, said(f"{output}.{rank}.out"), said(f"{output}.{rank}.err"))
            for rank, code in enumerate(codes)
        ]
        return finished if ranks > 1 else finished[0]

    return run


def start_python(code):
    """Run Python code that prints a line once it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline()
    return process


def hold_output_dir(folder, seconds=600):
    """A process that holds an output folder for so long, as a run does."""
    return start_python(
        "import time\nfrom gpt2_korean.checkpoints.lock import own_output_dir\n"
        f"with own_output_dir({str(folder)!r}):\n    print('held', flush=True)\n    time.sleep({seconds})\n"
    )


@pytest.fixture
def run_main(capsys):
    """Run a script's main within this process: `(exit code, stdout, stderr)`, without the seconds of a start."""
    import generate
    import train
    from gpt2_korean.ending import run_script

    def run(script, *argv):
        main = {"train.py": train.main, "generate.py": generate.main}[script]
        code = run_script(lambda: main([str(word) for word in argv]))
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a run that ended by one is deaf to the next
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def rng(request):
    """Random numbers that differ from test to test and not from run to run."""
    return random.Random(request.node.name)
