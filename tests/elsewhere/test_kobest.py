"""KoBEST's files become the hub's data set, and lm-eval's own tasks ask it of a model of ours; made-up rows."""

import json
import subprocess
import sys
from random import Random

import pytest
import torch
from conftest import ROOT
from transformers import AutoModelForCausalLM, AutoTokenizer

SCRIPT = ROOT / "benchmarks" / "kobest.py"
# Each task's columns as KoBEST writes them, and five rows; the last column of a row here is the hub's label.
FILES = {
    "BoolQ": (["ID", "Text", "Question", "Answer"], [[n, f"글 {n}", f"참인가 {n}?", n % 2] for n in range(5)]),
    "COPA": (
        ["ID", "sentence", "question", "1", "2", "Answer"],
        [[n, f"비가 {n}번 왔다.", ("결과", "원인 ")[n % 2], "우산을 샀다.", "꽃이 폈다.", n % 2] for n in range(5)],
    ),
    "HellaSwag": (
        ["context", "choice1", "choice2", "choice3", "choice4", "label"],
        [[f"공이 {n}번 난다.", "잡는다.", "놓친다.", "친다.", "본다.", n % 4] for n in range(5)],
    ),
    "SentiNeg": (["ID", "Label", "Text"], [[n, f"{n}점 좋아요", n % 2] for n in range(5)]),
    "WiC": (
        ["ID", "Target", "SENTENCE1", "Dictionary 1", "SENTENCE2", "ANSWER"],
        [[n, "배", f"[배]를 {n}번 탔다.", 1, "[배]를 먹었다.", n % 2] for n in range(5)],
    ),
}
COLUMNS = {
    "boolq": ["paragraph", "question", "label"],
    "copa": ["premise", "question", "alternative_1", "alternative_2", "label"],
    "hellaswag": ["context", "ending_1", "ending_2", "ending_3", "ending_4", "label"],
    "sentineg": ["sentence", "label"],
    "wic": ["word", "context_1", "context_2", "label"],
}


def write_files(folder, split="dev", rows=5, apart=False):
    """The tsv files of one split, in folders of the tasks as KoBEST is published, or beside one another."""
    for task, (columns, all_rows) in FILES.items():
        lines = [columns]
        for *words, label in all_rows[:rows]:
            if task in ("BoolQ", "WiC"):
                label = ("False", "True", "FALSE", "TRUE")[label + 2 * (words[0] > 2)]
            label += task == "COPA" if isinstance(label, int) else ""
            lines.append([words[0], label, words[1]] if task == "SentiNeg" else [*words, label])
        path = folder / f"{task}_{split}.tsv" if apart else folder / task / f"{split}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes("\r\n".join("\t".join(map(str, line)) for line in lines).encode())


def prepare(folder, work):
    """The rows of the printed table, by task and metric."""
    done = subprocess.run(
        [sys.executable, SCRIPT, folder], cwd=work, capture_output=True, text=True, encoding="utf-8", check=True
    )
    lines = done.stdout.splitlines()
    table = lines[next(place for place, line in enumerate(lines) if line.startswith("task ")) + 1 :]
    return {tuple(line.split()[:2]): [*map(float, line.split()[2:])] for line in table}


@pytest.mark.parametrize("apart", [False, True])
def test_the_files_become_the_hubs_data_set(tmp_path, apart):
    from datasets import load_dataset

    write_files(tmp_path / "kobest", "dev", 3, apart)
    write_files(tmp_path / "kobest", "test", 5, apart)
    write_files(tmp_path / "kobest", "train", 4, apart)
    prepare(tmp_path / "kobest", tmp_path)
    for (name, (_, rows)), task in zip(FILES.items(), COLUMNS, strict=True):
        assert name.lower() == task
        found = load_dataset(str(tmp_path / "skt" / "kobest_v1"), task, cache_dir=str(tmp_path / "cache"))
        assert found["test"].column_names == COLUMNS[task]
        assert found["test"]["label"][:] == [row[-1] for row in rows]
        assert found["train"]["label"][:] == [row[-1] for row in rows[:4]]
        texts = [[row[column] for column in COLUMNS[task][:-1]] for row in found["test"]]
        assert texts == [[word for word in row[:-1] if isinstance(word, str)] for row in rows]


def test_without_test_files_dev_is_scored(tmp_path):
    write_files(tmp_path / "kobest", "dev", 3)
    assert {row[-1] for row in prepare(tmp_path / "kobest", tmp_path).values()} == {3}


def test_a_task_that_is_missing_is_named(tmp_path):
    write_files(tmp_path / "kobest")
    (tmp_path / "kobest" / "COPA" / "dev.tsv").unlink()
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "kobest"], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 1 and "COPA/dev.tsv" in done.stderr and "Traceback" not in done.stderr


def macro_f1(answers, given, choices):
    scores = []
    for choice in range(choices):
        right = sum(answer == choice == other for answer, other in zip(answers, given, strict=True))
        scores.append(2 * right / max(1, answers.count(choice) + given.count(choice)))
    return sum(scores) / choices


def test_chance_is_what_guessing_scores(tmp_path):
    write_files(tmp_path / "kobest")
    table = prepare(tmp_path / "kobest", tmp_path)
    random = Random(0)
    for name, (_, rows) in FILES.items():
        task, choices = name.lower(), 4 if name == "HellaSwag" else 2
        answers = [row[-1] for row in rows] * 4000
        guesses = [random.randrange(choices) for _ in answers]
        always = [0] * len(answers)  # the most frequent answer of all tasks here
        for metric, score in (("acc", None), ("f1", macro_f1)):
            for given, told in zip((guesses, always), table[task, metric], strict=False):
                right = sum(map(int.__eq__, answers, given)) / len(answers)
                assert told == pytest.approx(score(answers, given, choices) if score else right, abs=0.015)


def test_lm_eval_scores_a_model_of_ours_as_plain_transformers_do(saved, run_with, tmp_path):
    write_files(tmp_path / "kobest", apart=True)
    code = """
import json, os, runpy, sys
from pathlib import Path
script, folder, model, work = sys.argv[1:]
os.chdir(work)
os.environ["HF_HOME"] = work
sys.argv = [script, folder, "--model=" + model]
script = runpy.run_path(script)
options = script["parse"]()
script["write_data"](options.kobest)
found = script["evaluate"](options)
print(json.dumps({task: {name: value for name, value in each.items() if isinstance(value, float)}
                  for task, each in found.items()}))
"""
    scores = json.loads(run_with("lm_eval", code, SCRIPT, tmp_path / "kobest", saved["texts"], tmp_path))
    assert scores.keys() == {f"kobest_{task}" for task in COLUMNS}
    assert all(0 <= each[name] <= 1 for each in scores.values() for name in ("acc,none", "f1,none"))

    tokenizer, model = (kind.from_pretrained(saved["texts"]) for kind in (AutoTokenizer, AutoModelForCausalLM))

    def likelihood(prompt, answer):
        ids, start = (
            tokenizer(f"{prompt} {answer}", return_tensors="pt")["input_ids"],
            len(tokenizer(prompt)["input_ids"]),
        )
        with torch.no_grad():
            told = model(ids).logits[0, :-1].log_softmax(-1)
        return told.gather(1, ids[0, 1:, None])[start - 1 :].sum().item()

    asked = {
        "kobest_sentineg": [
            (f"문장: {text} 긍부정:", ["부정", "긍정"], label) for _, text, label in FILES["SentiNeg"][1]
        ],
        "kobest_hellaswag": [(f"문장: {text}", ends, label) for text, *ends, label in FILES["HellaSwag"][1]],
    }
    for task, rows in asked.items():
        chosen = [max(range(len(ends)), key=lambda n: likelihood(prompt, ends[n])) for prompt, ends, _ in rows]
        right = sum(choice == label for choice, (*_, label) in zip(chosen, rows, strict=True))
        assert scores[task]["acc,none"] == pytest.approx(right / len(rows)), task
