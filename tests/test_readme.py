"""README's commands work as they stand there, with only the model swapped for a tiny one."""

import json
import re
import shutil

import pytest
from conftest import ROOT
from test_docs import blocks, commands, text_of
from transformers import AutoModelForCausalLM, pipeline

README = ROOT / "README.md"


def script_words(script):
    """README's commands that run a script with `python`, as the words after that."""
    return [words[1:] for words in commands(README) if words[:2] == ["python", script]]


def test_readme_is_short_and_has_the_words_that_people_search_for():
    assert len(text_of(README).splitlines()) <= 160
    words = ("속도", "반복", "프롬프트", "자동", "어텐션", "랭크", "챗봇", "메모리")
    assert [word for word in words if word not in text_of(README)] == []


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return copy_project(tmp_path_factory.mktemp("clone"))


def copy_project(folder):
    """Put the files of the project into a folder of their own, as after git clone; returns it."""
    for name in ("train.py", "generate.py", "gpt2_korean", "data"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    for name in ("fine_tuned_models", "logs"):
        (folder / name).mkdir()
        (folder / name / ".gitkeep").touch()
    return folder


def training_words(model):
    """README's first training command, with `model` in the place of gpt2-medium."""
    words = script_words("train.py")[0]
    assert "--model_type=gpt2-medium" in words
    return [f"--model_type={model}" if word == "--model_type=gpt2-medium" else word for word in words]


def test_train_and_generate_work_as_readme_says(clone, run_script, tiny_model_folder):
    trained = run_script(*training_words(tiny_model_folder), cwd=clone)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout == ""
    output = clone / "fine_tuned_models"
    checkpoints = sorted(path.name for path in output.glob("checkpoint-*"))
    assert "checkpoint-500" in checkpoints and len(checkpoints) == 2  # --save_total_limit=2
    assert (output / ".gitkeep").exists() and list((clone / "logs").glob("*/events.out.tfevents.*"))
    for folder in (output, *output.glob("checkpoint-*")):
        assert AutoModelForCausalLM.from_pretrained(folder).config.n_embd == 32
        assert pipeline("text-generation", str(folder))("한국어", max_new_tokens=2)

    written = run_script(*script_words("generate.py")[0], cwd=clone)
    assert written.returncode == 0, written.stderr
    texts = re.split(r"=== \d/5 ===\n", written.stdout)
    assert texts[0] == "" and len(texts) == 6
    assert all(text.startswith("한국어 텍스트 생성은") for text in texts[1:])


def test_generate_as_written_also_follows_a_run_shorter_than_500_steps(clone, fork_script, tiny_model_folder):
    """The sample corpus gives gpt2-medium fewer steps than the checkpoint that README names."""
    output = clone / "fine_tuned_models"
    (output / "checkpoint-500").mkdir(exist_ok=True)  # of a run before: --overwrite_output_dir stands in the command
    (output / "checkpoint-500" / "trainer_state.json").touch()
    assert fork_script(*training_words(tiny_model_folder), "--max_steps=1", cwd=clone).returncode == 0
    assert [path.name for path in output.glob("checkpoint-*")] == ["checkpoint-1"]
    written = fork_script(*script_words("generate.py")[0], "--length=3", cwd=clone)
    assert written.returncode == 0, written.stderr
    assert "checkpoint-500 대신 마지막 checkpoint-1" in written.stderr


def test_the_other_commands_of_readme_work_on_ones_own_text(clone, fork_script, tiny_model_folder, sample_texts):
    (clone / "글.txt").write_text("\n\n".join(sample_texts[:40]), "utf-8")
    shutil.copy(clone / "data" / "dialogue.csv", clone / "대화.csv")
    short = {"train.py": (f"--model_type={tiny_model_folder}", "--max_steps=1"), "generate.py": ("--length=3",)}
    said = {}
    shown = [words for script in short for words in script_words(script)[1:]]
    # The page and what other programs read have tests of their own.
    for words in [words for words in shown if not re.search("--(serve|export)", " ".join(words))]:
        done = fork_script(*words, *short[words[0]], cwd=clone)
        assert done.returncode == 0, (words, done.stderr)
        said[" ".join(words)] = done.stdout
    assert len(said) == 5
    assert any("⟦" in text for text in said.values())
    assert any(text.startswith("오늘은") for text in said.values())


TALK = (("지영", "내일 뭐 해?"), ("민수", "집에 있을 거야"))
PAGES_THAT_TRAIN = ("data", "evaluation", "lora", "recipes", "resuming")  # and write with what they have trained


@pytest.mark.usefixtures("brief_texts")
@pytest.mark.parametrize("page", PAGES_THAT_TRAIN)
def test_the_commands_of_the_documents_work_in_their_order(
    page, tmp_path, tiny_model_folder, run_main, monkeypatch, sample_texts, pipe
):
    """With a step each, and a tiny model in the place of one that is not here."""
    monkeypatch.chdir(copy_project(tmp_path))
    (tmp_path / "소설").mkdir()
    for name in ("글.txt", "소설/책.epub.txt", "reviews.txt", "train.txt", "valid.txt"):
        (tmp_path / name).write_text("\n\n".join(sample_texts[:60]), "utf-8")
    for name in ("대화.csv", "ChatbotData.csv"):
        shutil.copy(tmp_path / "data" / "dialogue.csv", name)
    said = "".join(f"2026. 11. {day}. 오후 3:12, {name} : {text}\n" for day in range(1, 9) for name, text in TALK)
    (tmp_path / "카톡.txt").write_text(
        f"지영 님과 카카오톡 대화\n저장한 날짜 : 2026. 11. 9. 오후 3:12\n\n{said}", "utf-8"
    )
    ran = [
        words[1:] for words in commands(ROOT / "docs" / f"{page}.md") if words[1:2] in (["train.py"], ["generate.py"])
    ]
    for script, *words in ran:
        words = [word.replace("v8192", "v1024") for word in words]  # of a loop over sizes the first alone was trained
        if script == "generate.py":
            pipe("안녕하세요", "고마워요")
            code, out, err = run_main(script, *words, "--length=3")
            assert (code, bool(out.strip())) == (0, True), (words, err)
            continue
        model = next((word.partition("=")[2] for word in words if word.startswith("--model_type=")), "gpt2-medium")
        if model != "scratch-mini" and not (tmp_path / model).is_dir():
            words.append(f"--model_type={tiny_model_folder}")
        code, out, err = run_main(script, *words, "--device=cpu", *["--max_steps=1"] * ("--do_train" in words))
        assert code == 0, (words, err)
    assert ran


@pytest.mark.usefixtures("brief_texts")
def test_the_programs_for_research_tell_what_the_runs_did(
    tmp_path, tiny_model_folder, run_main, monkeypatch, sample_texts, capsys
):
    """A model of a size of one's own, a table of runs, and bits of each document that add up to those of the whole."""

    def run_program(program):
        exec(program, {})
        return [line.split("\t") for line in capsys.readouterr().out.splitlines()]

    monkeypatch.chdir(tmp_path)
    lines = [line for text in sample_texts for line in text.splitlines() if line.strip()]
    (tmp_path / "train.txt").write_text("\n".join(lines[20:]), "utf-8")
    (tmp_path / "valid.txt").write_text("\n".join(line[:20] for line in lines[:20]), "utf-8")
    tabulate, make_model = blocks(ROOT / "docs" / "recipes.md", "python")
    run_program(make_model.replace('"gpt2"', repr(str(tiny_model_folder))))
    (train,) = [words for words in commands(ROOT / "docs" / "recipes.md") if "--model_type=models/2x128" in words]
    code, out, err = run_main(*train[1:], "--max_steps=2", "--seed=7", "--device=cpu", "--no_bf16", "--report_to=none")
    assert code == 0, err
    bits = json.loads(out.splitlines()[-1])["bits_per_character"]
    (row,) = run_program(tabulate)
    used = json.loads((tmp_path / "fine_tuned_models" / row[0] / "run.json").read_text("utf-8"))["options"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "fine_tuned_models" / row[0])
    assert row[1:] == ["7", str(used["learning_rate"]), str(model.num_parameters()), str(bits)]
    assert (model.config.n_layer, model.config.n_embd) == (2, 128)
    (score,) = blocks(ROOT / "docs" / "evaluation.md", "python")
    scored = run_program(score.replace("체크포인트", f"fine_tuned_models/{row[0]}"))
    assert len(scored) == 20
    whole = sum(float(each) for each, _ in scored) / sum(int(length) for _, length in scored)
    assert whole == pytest.approx(bits, rel=1e-4)
