"""What is learnt where no document sees another, and where of a conversation the answers alone are learnt?

train.py itself adapts the same English start to each corpus in each way, with the same flags and over the same
characters. Then all held-out documents, or answers, are scored each by itself, by transformers' own forward pass.

    python benchmarks/documents.py --english=books.txt.xz --gpt2_tokenizer=FOLDER \\
        --chat=chat.csv.xz --reviews=reviews.txt.xz --judgments=judgments.jsonl.xz

Reviews are short documents, judgments long ones; of middling length are the judgments of half a block to a whole one,
for which documents apart leave the most of their blocks empty. The ways:

    stream     documents one after another in blocks; of a pair of question and answer, put into one text by
               --text_template, all is learnt: what train.py did before there were other ways
    documents  the same texts, but no document sees another
    answers    conversations in their template, answers alone learnt, in a stream
    turns      conversations in their template, all of their turns learnt, and none sees another
    both       conversations in their template, answers alone learnt, and none sees another: the default
    longer     as stream, but for as many steps as `documents` took, whose blocks are not all full
    fixed      as both, but every conversation begins at position 0, none farther on in the context

The column `late` scores answers whose conversation begins at position LATE, which no document reaches: as far into a
conversation as that, a model should answer as well.

Bits per character count the tokens that end a document or an answer. Texts that train.py learnt as a stream are scored
with an end-of-text token before them and without, as they were written before; the lower of the two counts. A way's
seconds are those between its first step and its last.
"""

import argparse
import csv
import json
import lzma
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

TEMPLATE = "질문: {Q}\n답변: {A}"
WAYS = {
    "stream": ["--packing=stream"],
    "documents": ["--packing=documents"],
    "answers": ["--packing=stream"],
    "turns": ["--packing=documents", "--train_on_prompt"],
    "both": ["--packing=documents"],
    "fixed": ["--packing=documents"],
    "longer": ["--packing=stream"],
}
OF_TEXTS = ("stream", "documents", "longer")
LATE = 500
HELD_OUT = {"chat": 600, "reviews": 4000, "judgments": 60, "middling": 60}
MIDDLING = range(1300, 2300)  # characters: with a Korean vocabulary half a block of 1,024 tokens to a whole one
# train.py without the positions farther on.
FIXED = "import sys; from gpt2_korean.text import packing; packing.FARTHER_ON = 0; import train; sys.exit(train.main())"


def main():
    options = parse()
    work = options.work or Path(tempfile.mkdtemp())
    work.mkdir(parents=True, exist_ok=True)
    start = options.start or english_start(options, work)
    gpus = Queue()
    for place in range(options.at_once):
        gpus.put(place % options.gpus)
    jobs, steps = [], {}  # steps: those of `documents`, by corpus and seed
    for corpus in options.corpora:
        file = options.judgments if corpus == "middling" else getattr(options, corpus)
        held_out = split(corpus, file, work, options.megabytes)
        for way in options.ways if corpus == "chat" else OF_TEXTS:
            jobs += [(corpus, way, seed, held_out) for seed in range(options.seeds)]
    jobs.sort(key=lambda job: job[1] == "longer")
    results = []
    for last in (False, True):
        now = [job for job in jobs if (job[1] == "longer") == last]
        with ThreadPoolExecutor(options.at_once) as threads:
            results += threads.map(lambda job: run(job, start, options, work, gpus, steps), now)
    print("| corpus | way | bits per character | ± | without a beginning | late | seconds of training |")
    print("|---|---|---|---|---|---|---|")
    for corpus in options.corpora:
        for way in WAYS:
            found = [result for job, result in zip(jobs, results, strict=True) if job[:2] == (corpus, way)]
            if found:
                bits, bare, late, seconds = zip(*found, strict=True)
                spread = statistics.stdev(bits) if len(bits) > 1 else 0.0
                bare, late = (f"{statistics.mean(each):.4f}" if each[0] is not None else "" for each in (bare, late))
                print(
                    f"| {corpus} | {way} | {statistics.mean(bits):.4f} | {spread:.4f} | {bare} | {late} "
                    f"| {statistics.mean(seconds):.1f} |"
                )


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--english", type=Path, help="text of the English start, .txt or .txt.xz")
    parser.add_argument("--gpt2_tokenizer", help="folder with GPT-2's vocab.json and merges.txt")
    parser.add_argument("--start", type=Path, help="a model to adapt instead of one made here")
    parser.add_argument("--chat", type=Path, help="a table with the columns Q and A, .csv or .csv.xz")
    parser.add_argument("--reviews", type=Path, help="short documents, one a line")
    parser.add_argument("--judgments", type=Path, help="long documents, .jsonl or .jsonl.xz")
    parser.add_argument("--corpora", nargs="+", default=["chat", "reviews", "middling", "judgments"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), help="of those with a chat")
    parser.add_argument("--megabytes", type=float, default=1000, help="of a corpus at most, UTF-8")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--vocab_size", type=int, default=32_000)
    parser.add_argument(
        "--epochs", nargs=5, type=float, default=[4, 8, 1, 4, 2], help="English, chat, reviews, middling, judgments"
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--learning_rate", type=float, default=5e-4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument(
        "--at_once", type=int, default=1, help="runs; more of them on a GPU take longer each, all alike"
    )
    parser.add_argument("--work", type=Path, help="folder for what is made on the way, the English start above all")
    return parser.parse_args()


def english_start(options, work):
    """A GPT-2 trained on English text, made where it is not there yet."""
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

    start, blank = work / "english", work / "blank"
    if not (start / "config.json").exists():
        sizes = {"n_layer": options.layers, "n_embd": options.width, "n_head": options.width // 64}
        GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(blank)
        GPT2Tokenizer.from_pretrained(options.gpt2_tokenizer).save_pretrained(blank)
        learn(
            blank, start, [f"--dataset_path={options.english}", "--tokenizer=original"], options.epochs[0], 0, options
        )
    return start


def split(corpus, path, work, megabytes):
    """What is held out of the corpus: for a chat (question, answer) pairs, else documents. The rest is in a file."""
    opened = lzma.open if path.suffix == ".xz" else open
    rng = random.Random(0)
    with opened(path, "rt", encoding="utf-8") as file:
        if corpus == "chat":
            rows = {row["Q"].strip(): row["A"].strip() for row in csv.DictReader(file)}
            rows = [(question, answer) for question, answer in rows.items() if question and answer]
        elif corpus == "reviews":
            rows = sorted({line.strip() for line in file} - {""})
        else:
            rows = sorted({json.loads(line)["text"].strip() for line in file})
            rows = [row for row in rows if corpus == "judgments" or len(row) in MIDDLING]
    rng.shuffle(rows)
    held_out, rest = rows[: HELD_OUT[corpus]], rows[HELD_OUT[corpus] :]
    size = sum(len(str(row).encode()) for row in rest)
    rest = rest[: math.ceil(len(rest) * megabytes * 1e6 / size)]
    with open(learnt_file(corpus, work), "w", encoding="utf-8", newline="") as file:
        if corpus == "chat":
            writer = csv.writer(file)
            writer.writerows([("Q", "A"), *rest])
        elif corpus == "reviews":
            file.writelines(f"{text}\n" for text in rest)
        else:
            file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in rest)
    return held_out


def learnt_file(corpus, work):
    return work / {"chat": "chat.csv", "reviews": "reviews.txt"}.get(corpus, f"{corpus}.jsonl")


def run(job, start, options, work, gpus, steps):
    """`(bits per character, the same without a beginning, the same late, seconds)` of one way by one seed."""
    corpus, way, seed, held_out = job
    gpu = gpus.get()
    try:
        flags = [f"--dataset_path={learnt_file(corpus, work)}", "--tokenizer=korean", *WAYS[way]]
        flags.append(f"--vocab_size={options.vocab_size}")
        if corpus == "chat" and way in OF_TEXTS:
            flags.append(f"--text_template={TEMPLATE}")
        if corpus == "reviews":
            flags.append("--line_by_line")
        folder = work / f"{corpus}-{way}-{seed}"
        if way == "longer":
            flags.append(f"--max_steps={steps[corpus, seed]}")
        epochs = options.epochs[1 + ["chat", "reviews", "middling", "judgments"].index(corpus)]
        script = ["-c", FIXED] if way == "fixed" else [ROOT / "train.py"]
        seconds, taken = learn(start, folder, flags, epochs, seed, options, gpu, script)
        if way == "documents":
            steps[corpus, seed] = taken
        bits = score(folder, corpus, way, held_out, gpu)
        bare = score(folder, corpus, way, held_out, gpu, begins=False) if way in OF_TEXTS else None
        late = score(folder, corpus, way, held_out, gpu, first=LATE) if corpus == "chat" else None
        print(f"{corpus} {way} {seed}: {bits:.4f} {bare} {late} {seconds:.0f} s, {taken} steps", file=sys.stderr)
        if way == "both" and seed == 0:
            shutil.copytree(
                folder, work / "chat-model", ignore=shutil.ignore_patterns("checkpoint-*"), dirs_exist_ok=True
            )
        shutil.rmtree(folder)
        return bits, bare, late, seconds
    finally:
        gpus.put(gpu)


def learn(start, folder, flags, epochs, seed, options, gpu=0, script=(ROOT / "train.py",)):
    """Train; returns the seconds between the first step and the last, and how many steps there were."""
    command = [
        sys.executable, *script, f"--model_type={start}", f"--output_dir={folder}", "--do_train", *flags,
        f"--num_train_epochs={epochs}", f"--seed={seed}", f"--learning_rate={options.learning_rate}",
        f"--per_device_train_batch_size={options.batch}", "--warmup_steps=0.05", "--overwrite_output_dir",
        "--save_strategy=no", "--disable_tqdm", "--report_to=none", f"--logging_dir={folder}/logs",
    ]  # fmt: skip
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": str(gpu)}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stderr[-3000:]}")
    print(done.stderr if folder.name == "english" else "", file=sys.stderr)
    state = json.loads((folder / "trainer_state.json").read_text("utf-8"))
    seconds = next(entry["train_runtime"] for entry in reversed(state["log_history"]) if "train_runtime" in entry)
    return seconds, state["global_step"]


def score(folder, corpus, way, held_out, gpu, begins=True, first=0):
    """Bits per character of `held_out`, each document or answer by itself."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = torch.device("cuda", gpu) if torch.cuda.is_available() else torch.device("cpu")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    end = tokenizer.eos_token_id

    def ids(text):
        return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    texts, characters = [], 0  # texts: (what is read, how much of it is not scored)
    for row in held_out:
        if corpus != "chat":
            read, known, answer = [end] * begins + ids(row), max(1, begins), row
        elif way not in OF_TEXTS:
            messages = [{"role": "user", "content": row[0]}]
            read = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
            known, answer = len(read), row[1]
            read = read + ids(" " + answer)  # as the template writes it
        else:
            question, answer = TEMPLATE.replace("{Q}", row[0]).replace("{A}", ""), row[1]
            # The blank before an answer is a part of its first token.
            known = begins + len(ids(question.rstrip()))
            read = [end] * begins + ids(question.rstrip()) + ids(" " + answer)
        texts.append(([*read, end], known))
        characters += len(answer)
    nats = 0.0
    context = model.config.n_positions
    windows = [window for text in texts for window in windows_of(*text, context)]
    windows.sort(key=lambda window: len(window[0]))
    with torch.inference_mode():
        for batch in (windows[start : start + 32] for start in range(0, len(windows), 32)):
            longest = max(len(window) for window, _ in batch)
            input_ids = torch.tensor([window + [end] * (longest - len(window)) for window, _ in batch])
            labels = torch.tensor(
                [[-100] * known + window[known:] + [-100] * (longest - len(window)) for window, known in batch]
            )
            positions = torch.arange(first, first + longest, device=device).expand(len(batch), -1)
            logits = model(input_ids.to(device), position_ids=positions).logits[:, :-1].float()
            nats += torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), labels[:, 1:].flatten().to(device), reduction="sum"
            ).item()
    return nats / math.log(2) / characters


def windows_of(read, known, context):
    """Yield `(ids, how many are not scored)`: one that is too long in windows that overlap by half."""
    yield read[:context], known
    for stop in range(context + context // 2, len(read) + context // 2, context // 2):
        first = stop - context
        yield read[first:stop], context // 2


if __name__ == "__main__":
    main()
