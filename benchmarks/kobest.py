"""How does a model answer KoBEST, by lm-evaluation-harness' own tasks, where no hub can be reached?

KoBEST (Kim et al., 2022; CC BY-SA 4.0) is published as tsv files: BoolQ/train.tsv, dev.tsv, test.tsv and so on, or as
here BoolQ_dev.tsv. They are written to skt/kobest_v1 in the current folder, with the columns of the hub's data set of
that name: there `datasets` looks before it asks the hub. In that folder `lm_eval --tasks kobest` runs as well.

    python benchmarks/kobest.py KOBEST --model=CHECKPOINT --device=cuda

Scored is test.tsv, or dev.tsv where there is no test; examples for --num_fewshot need train.tsv. Beside the model's
figures stand those of guessing evenly and of always giving the most frequent answer.
"""

import argparse
import csv
import json
import os
from collections import Counter
from pathlib import Path

DATA = Path("skt", "kobest_v1")
# Each task's folder, and its columns: the hub's name, that of the files.
TASKS = {
    "boolq": ("BoolQ", {"paragraph": "Text", "question": "Question", "label": "Answer"}),
    "copa": (
        "COPA",
        {
            "premise": "sentence",
            "question": "question",
            "alternative_1": "1",
            "alternative_2": "2",
            "label": "Answer",
        },
    ),
    "hellaswag": (
        "HellaSwag",
        {"context": "context", **{f"ending_{n}": f"choice{n}" for n in range(1, 5)}, "label": "label"},
    ),
    "sentineg": ("SentiNeg", {"sentence": "Text", "label": "Label"}),
    "wic": ("WiC", {"word": "Target", "context_1": "SENTENCE1", "context_2": "SENTENCE2", "label": "ANSWER"}),
}
CHOICES = {"hellaswag": 4}  # of all others 2


def main():
    options = parse()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    labels = write_data(options.kobest)
    scores = evaluate(options) if options.model else {}
    print(f"{'task':<10} {'metric':<9} {'model':>15} {'evenly':>7} {'always one':>11} {'rows':>5}")
    for task, answers in labels.items():
        answers = answers[: options.limit]
        counts = Counter(answers)
        shares = [counts[label] / len(answers) for label in range(CHOICES.get(task, 2))]
        for metric in ("acc", *(["acc_norm"] if task == "hellaswag" else []), "f1"):
            evenly, one = chance(shares, metric)
            found = scores.get(f"kobest_{task}", {})
            ours = f"{found[f'{metric},none']:.3f}" if found else ""
            if isinstance(spread := found.get(f"{metric}_stderr,none"), float):
                ours += f" ± {spread:.3f}"
            print(f"{task:<10} {metric:<9} {ours:>15} {evenly:>7.3f} {one:>11.3f} {len(answers):>5}")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kobest", type=Path, help="folder of the tsv files")
    parser.add_argument("--model", help="what lm-eval is to load; without it the data alone are written")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--num_fewshot", type=int, default=0)
    parser.add_argument("--limit", type=int, help="rows of each task, the first ones")
    return parser.parse_args()


def find(folder, task, split):
    """The file of a task's split, as KoBEST names it or with the task in its name; None where there is none."""
    return next(
        (path for path in (folder / task / f"{split}.tsv", folder / f"{task}_{split}.tsv") if path.exists()), None
    )


def read(path, task):
    """A file's rows with the hub's columns and labels, which count from 0."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [
            {ours: row[theirs] for ours, theirs in TASKS[task][1].items()}
            for row in csv.DictReader(file, delimiter="\t")
        ]
    for row in rows:
        word = row["label"].strip().lower()
        row["label"] = {"false": 0, "true": 1}[word] if task in ("boolq", "wic") else int(word) - (task == "copa")
    return rows


def write_data(folder):
    """Writes the tsv files of `folder` as the hub's data set; the labels of each task's test rows."""
    labels, card = {}, ["---", "configs:"]
    DATA.mkdir(parents=True, exist_ok=True)
    for task, (name, _) in TASKS.items():
        train, dev, test = (find(folder, name, split) for split in ("train", "dev", "test"))
        if not (scored := test or dev):
            raise SystemExit(f"{folder} has neither {name}/test.tsv nor {name}/dev.tsv.")
        rows = read(scored, task)
        # lm-eval opens the train split even where it needs no examples: one row then stands in.
        splits = {"train": read(train, task) if train else rows[:1], "test": rows}
        card += [f"- config_name: {task}", "  data_files:"]
        for split, each in splits.items():
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in each)
            (DATA / f"{task}_{split}.jsonl").write_text(lines, "utf-8")
            card += [f"  - split: {split}", f"    path: {task}_{split}.jsonl"]
        labels[task] = [row["label"] for row in rows]
        print(f"{task}: {len(rows)} rows of {scored}")
    (DATA / "README.md").write_text("\n".join([*card, "---", ""]), "utf-8")
    return labels


def evaluate(options):
    """lm-eval's results for each of its kobest tasks."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    own = Path(lm_eval.__file__).parent / "tasks" / "kobest"  # to look through all tasks takes a quarter of a minute
    return lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": options.model, "dtype": options.dtype},
        tasks=[f"kobest_{task}" for task in TASKS],
        task_manager=TaskManager(include_path=own, include_defaults=False),
        num_fewshot=options.num_fewshot,
        batch_size=options.batch_size,
        device=options.device,
        limit=options.limit,
    )["results"]


def chance(shares, metric):
    """What guessing evenly is expected to score, and what the most frequent answer alone scores; F1 is macro F1."""
    even, most = 1 / len(shares), max(shares)
    if metric != "f1":
        return even, most
    return even * sum(2 * share * even / (share + even) for share in shares), even * 2 * most / (1 + most)


if __name__ == "__main__":
    main()
