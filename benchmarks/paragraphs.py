"""What does a novel lose whose paragraphs, with blank lines between them, are learnt as documents of their own?

train.py learns the same novels, a .txt each, by --sample_by=paragraph (the default) and =document, with the same flags
otherwise; each model is measured on held-out novels whole, by train.py --do_eval, and then continues the beginnings of
these by generate.py: how many characters it writes before it ends the text.

    python benchmarks/paragraphs.py --novels=ko_novels.jsonl.xz [flags of train.py ...]
"""

import argparse
import json
import lzma
import os
import random
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
WAYS, SEEDS, HELD_OUT, PROMPTS, LENGTH = ("paragraph", "document"), range(3), 20, 100, 400


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--novels", type=Path, required=True)
    parser.add_argument("--at_once", type=int, default=1, help="runs side by side")
    options, flags = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        write_novels(options.novels, work)
        jobs = [(way, seed) for seed in SEEDS for way in WAYS]
        with ThreadPoolExecutor(options.at_once) as pool:
            found = dict(zip(jobs, pool.map(lambda job: learn(work, flags, *job), jobs), strict=True))
    print("| --sample_by | bits per character of whole novels | characters written |\n|---|---|---|")
    for way in WAYS:
        columns = zip(*(found[way, seed] for seed in SEEDS), strict=True)
        print(f"| {way} | {' | '.join(told(column) for column in columns)} |")


def write_novels(file, work):
    """A .txt a novel in work/learnt and work/held_out, a blank line between its paragraphs; work/prompts.txt."""
    with lzma.open(file, "rt", encoding="utf-8") as lines:
        novels = [[part for part in json.loads(line)["text"].split("\n") if part.strip()] for line in lines]
    random.Random(0).shuffle(novels)
    for folder, some in (("held_out", novels[:HELD_OUT]), ("learnt", novels[HELD_OUT:])):
        (work / folder).mkdir()
        for number, paragraphs in enumerate(some):
            (work / folder / f"{number}.txt").write_text("\n\n".join(paragraphs), "utf-8")
    prompts = [" ".join(" ".join(paragraphs[:5]).split()) for paragraphs in novels[:HELD_OUT]]
    (work / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt in prompts), "utf-8")


def learn(work, flags, way, seed):
    """`(bits per character of the held-out novels, characters written)`."""
    model = work / f"{way}-{seed}"
    run(
        "train.py", f"--dataset_path={work / 'learnt'}", f"--sample_by={way}", f"--output_dir={model}", "--do_train",
        f"--seed={seed}", "--save_strategy=no", "--report_to=none", f"--logging_dir={model}-logs", *flags,
    )  # fmt: skip
    measured = run(
        "train.py", f"--validation_file={work / 'held_out'}", "--sample_by=document", f"--model_type={model}",
        "--do_eval", "--no_measure_texts", "--report_to=none", f"--logging_dir={model}-logs",
    )  # fmt: skip
    written = model / "written.jsonl"
    run(
        "generate.py", f"--model_name_or_path={model}", f"--prompt_file={work / 'prompts.txt'}", f"--length={LENGTH}",
        f"--num_return_sequences={PROMPTS // HELD_OUT}", f"--seed={seed}", f"--output_file={written}",
    )  # fmt: skip
    records = map(json.loads, written.read_text("utf-8").splitlines())
    lengths = [len(each["text"]) - len(each["prompt"]) for each in records]
    return json.loads(measured.splitlines()[-1])["bits_per_character"], statistics.mean(lengths)


def run(script, *words):
    done = subprocess.run(
        [sys.executable, ROOT / script, *words], capture_output=True, text=True, encoding="utf-8", check=False,
        env={**os.environ, "PYTHONUTF8": "1"},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{script} {' '.join(words)}\n{done.stderr[-3000:]}")
    return done.stdout


def told(values):
    return f"{statistics.median(values):,.4g} ({min(values):,.4g} to {max(values):,.4g})"


if __name__ == "__main__":
    main()
