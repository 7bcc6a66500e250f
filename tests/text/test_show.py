"""--show_data: what is shown as learnt is what the blocks' labels are, counts are those of an independent count."""

import json
import re
import shutil
import statistics
from collections import Counter

import numpy as np
import pytest
from conftest import ROOT
from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from gpt2_korean.text.assemble import IGNORED, assemble
from gpt2_korean.text.blocks import pack
from gpt2_korean.text.chat_template import prepare_tokenizer
from gpt2_korean.text.documents import Texts, read_corpus, read_texts
from gpt2_korean.text.packing import plan_windows
from gpt2_korean.text.show import _pieces
from gpt2_korean.text.tokens import Buffer


def number_in(out, words):
    """The number that follows the words in what is shown."""
    return int(re.search(rf"{words} ?([\d,]+)", out).group(1).replace(",", ""))


@pytest.fixture
def mixed(tmp_path, rng, sample_texts):
    """A file of conversations and documents, many of them twice."""
    words, rows = " ".join(sample_texts).split(), []
    for _ in range(60):
        said = [" ".join(rng.sample(words, rng.randint(1, 4))) for _ in range(rng.choice([2, 2, 4]))]
        roles = ["user", "assistant"] * 2
        turns = [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]
        turns[1]["weight"] = int(len(said) == 2)  # of several answers the first is not to be learnt
        rows.append({"messages": turns} if rng.random() < 0.7 else {"text": " ".join(said)})
    rows += rng.choices(rows, k=25) + [{"messages": [{"role": "user", "content": "답이 없음"}]}] * 3
    rng.shuffle(rows)
    path = tmp_path / "섞임.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def blocks_of(documents, tokenizer, all_learnt=False):
    """A block for each document, in their order."""
    blocks = pack(documents, tokenizer, 4096, plan_windows, all_learnt)
    pieces = sorted(blocks.plan.pieces.tolist())
    assert [document for document, *_ in pieces] == list(range(len(documents)))
    return [assemble(blocks.tokens, np.array([piece]), None, blocks.begin) for piece in pieces]


def decoded(blocks, tokenizer):
    """What is learnt in each block, piece by piece, and all that it holds."""
    for block in blocks:
        ids, labels = block["input_ids"].tolist(), block["labels"].tolist()
        runs = [[]]
        for label in labels:
            runs[-1].append(label) if label != IGNORED else runs.append([])
        yield [tokenizer.decode(run) for run in runs if run], tokenizer.decode(ids)


@pytest.mark.parametrize("words", [[], ["--train_on_prompt"]])
def test_what_is_shown_as_learnt_is_what_the_labels_of_the_blocks_are(run_main, mixed, tiny_model_folder, words):
    code, out, err = run_main(
        "train.py", "--show_data=1000", f"--dataset_path={mixed}", f"--model_type={tiny_model_folder}", *words
    )
    assert code == 0, err
    documents, tokenizer = read_corpus([mixed]), AutoTokenizer.from_pretrained(tiny_model_folder)
    prepare_tokenizer(tokenizer, documents)
    assert ("--train_on_prompt=false" in out) == bool(words)
    shown = re.split(r"\n── \d+ · [\d,]+토큰 ──\n", out.split("\n\n학습 글:")[0])[1:]
    expected = list(decoded(blocks_of(documents, tokenizer, bool(words)), tokenizer))
    assert len(shown) == len(documents) == 85
    learnt = [re.findall("⟦(.*?)⟧", text, re.DOTALL) for text in shown]
    assert [*zip(learnt, (re.sub("[⟦⟧]", "", text).rstrip("\n") for text in shown), strict=True)] == expected


@pytest.mark.parametrize("words", [[], ["--train_on_prompt"]])
@pytest.mark.parametrize("known", [True, False])
def test_an_answer_of_weight_0_is_shown_as_read_only(run_main, tmp_path, tiny_model_folder, known, words):
    said = [("user", "가"), ("assistant", "나"), ("user", "다"), ("assistant", "라")]
    turns = [{"role": role, "content": content, "weight": int(content != "나")} for role, content in said]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": turns}), "utf-8")
    words = [*words, f"--dataset_path={tmp_path}", f"--model_type={tiny_model_folder if known else 'gpt2'}"]
    code, out, err = run_main("train.py", "--show_data=1", *words)
    assert code == 0, err
    learnt = "".join(re.findall("⟦(.*?)⟧", out.split("── 1 ·")[1]))
    assert "라" in learnt and "나" not in learnt and ("다" in learnt) == (len(words) == 3)
    if not known:
        assert f"배우는 것 {6 if len(words) == 3 else 1}글자" in out


@pytest.mark.parametrize("known", [True, False])
def test_of_a_stream_as_many_are_shown_as_asked_for_whatever_is_left_out(run_main, tmp_path, tiny_model_folder, known):
    rows = [{"text": text} for text in ("", "하나", None, "", "둘", "셋")]
    (tmp_path / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    words = [f"--dataset_name={tmp_path}", "--streaming", "--max_steps=1", "--show_data=2"]
    code, out, err = run_main("train.py", *words, f"--model_type={tiny_model_folder if known else 'gpt2'}")
    assert code == 0 and [word for word in ("하나", "둘", "셋") if word in out] == ["하나", "둘"], err
    assert "── 1 ·" in out and "── 2 ·" in out and "── 3 ·" not in out


OF_COLUMNS = ["--text_column_name=글", "--text_template={글}", "--prompt_column=Q --answer_column=A"]


@pytest.mark.parametrize("given", OF_COLUMNS)
def test_a_column_is_refused_where_no_file_has_any(run_main, tmp_path, tiny_model_folder, given):
    words = ["train.py", "--show_data=1", f"--model_type={tiny_model_folder}", f"--dataset_path={tmp_path}"]
    words += given.split()
    (tmp_path / "a.txt").write_text("글", "utf-8")
    code, out, err = run_main(*words)
    assert code == 2 and f"{given.split('=')[0]}: .txt에는 열이 없습니다" in err and not out, err
    (tmp_path / "b.jsonl").write_text('{"글": "가", "Q": "나", "A": "다"}\n', "utf-8")
    assert run_main(*words)[0] == 0


@pytest.mark.parametrize("given", OF_COLUMNS)
def test_the_columns_of_a_hub_data_set_are_chosen_beside_a_txt_that_has_none(run_main, tmp_path, given):
    (tmp_path / "valid.txt").write_text("라", "utf-8")
    hub = tmp_path / "hub"
    hub.mkdir()
    (hub / "train.jsonl").write_text('{"글": "가", "Q": "나", "A": "다"}\n', "utf-8")
    words = ["train.py", "--show_data=1", "--model_type=gpt2", f"--dataset_name={hub}", *given.split()]
    code, out, err = run_main(*words, f"--validation_file={tmp_path / 'valid.txt'}")
    assert code == 0 and ("다" if "Q" in given else "가") in out and "평가 글: 문서 1개" in out, (out, err)


def test_what_of_a_txt_is_a_document_is_chosen_by_datasets_name_for_it_and_refused_for_tables(run_main, tmp_path):
    words = ["train.py", "--show_data=0", "--model_type=gpt2", f"--dataset_path={tmp_path}"]
    (tmp_path / "a.txt").write_text("하나\n둘\n\n셋", "utf-8")
    (tmp_path / "b.txt").write_text("넷\n\n다섯", "utf-8")
    chosen = {"paragraph": 4, "line": 5, "document": 2}
    for flags, documents in [([], 4), (["--line_by_line"], 5), *(([f"--sample_by={k}"], v) for k, v in chosen.items())]:
        code, out, err = run_main(*words, *flags)
        assert code == 0 and f"학습 글: 문서 {documents}개" in out, (out, err)
    code, _, err = run_main(*words, "--sample_by=document", "--line_by_line")
    assert code == 2 and "--sample_by=document" in err and "--line_by_line" in err
    for file in tmp_path.glob("*.txt"):
        file.rename(file.with_suffix(".jsonl"))
    for flag in ("--line_by_line", "--sample_by=document"):
        code, _, err = run_main(*words, flag)
        assert code == 2 and flag in err and ".txt에만" in err


def test_the_counts_are_those_of_the_file_and_of_the_split_that_training_makes(run_main, mixed, tiny_model_folder):
    words = ["train.py", "--show_data=0", f"--dataset_path={mixed}", f"--model_type={tiny_model_folder}", "--do_eval"]
    code, out, err = run_main(*words, "--validation_split_percentage=30", "--seed=7", "--block_size=24")
    assert code == 0, err
    options = dict.fromkeys(("dataset_name", "text_column_name", "text_template", "prompt_column"))
    options |= dict.fromkeys(("answer_column", "answer_as", "encoding"))
    options |= {
        "sample_by": "paragraph",
        "skip_bad_rows": False,
        "validation_split_percentage": 30,
        "dataset_path": str(mixed),
    }
    texts = read_texts(Texts([mixed]), type("Options", (), options), True, 7)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)
    prepare_tokenizer(tokenizer, texts.train)
    train, held_out = (
        [json.dumps(row["turns"] or row["text"]) for row in part] for part in (texts.train, texts.held_out)
    )
    chats = [row["turns"] for row in texts.train if row["turns"]]
    assert number_in(out, "학습 글: 대화") == len(chats) and number_in(out, "차례") == sum(map(len, chats))
    assert number_in(out, "그 밖의 글") == len(train) - len(chats)
    assert sum(map(int, re.findall("뺀 잘못된 대화 ([0-9]+)개", out))) == 3  # those of the two parts together
    assert number_in(out, "앞의 것과 똑같은 것:") == sum(count - 1 for count in Counter(train).values()) > 0
    assert number_in(out, "학습 글에도 있는 것:") == sum(text in train for text in held_out) > 0
    asked, known = (
        [turn["content"] for row in part for turn in row["turns"] if turn["role"] == "user"]
        for part in (texts.held_out, texts.train)
    )
    assert number_in(out, "질문") == len(asked) and number_in(out, "가운데") == sum(text in known for text in asked) > 0

    blocks = blocks_of(texts.train, tokenizer)
    lengths = sorted(len(block["input_ids"]) - 1 for block in blocks)
    longer = sum(len(block["input_ids"]) > 24 for block in blocks)
    assert number_in(out, "가장 긴 것") == lengths[-1] and number_in(out, "토큰\\)보다 긴 것:") == longer > 0
    assert number_in(out, "중앙값") == statistics.median_low(lengths)
    assert sum(length <= number_in(out, "95%") for length in lengths) >= 0.95 * len(lengths)
    assert sum(length < number_in(out, "95%") for length in lengths) < 0.95 * len(lengths)
    assert number_in(out, "모두") == sum(lengths)
    assert number_in(out, "배우는 것") == sum(int((block["labels"] != IGNORED).sum()) for block in blocks)


@pytest.mark.parametrize("model", ["tiny", "scratch-mini", "gpt2"])
def test_it_shows_without_torch_and_writes_nothing(run_script, tiny_model_folder, mixed, tmp_path, model):
    words = [f"--model_type={tiny_model_folder if model == 'tiny' else model}", f"--dataset_path={mixed}", "--do_eval"]
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import train; "
    code += f"code = train.main({['--show_data=2', *words]!r}); print('torch' in sys.modules, code)"
    folder = tmp_path / "빈 폴더"
    folder.mkdir()
    finished = run_script("-c", code, cwd=folder)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.endswith("\nFalse 0\n") and "⟦" in finished.stdout
    assert ("글자로 셉니다" in finished.stdout) is (model == "gpt2")  # which nobody has fetched
    assert list(folder.iterdir()) == []


def test_a_file_to_evaluate_on_is_compared_without_asking_for_an_evaluation(run_main, mixed, small_corpus):
    words = ["train.py", "--show_data=0", "--model_type=scratch-mini", f"--dataset_path={mixed}"]
    code, out, err = run_main(*words, f"--validation_file={mixed}")
    assert code == 0, err
    assert number_in(out, "학습 글에도 있는 것:") == len(read_corpus([mixed])) and "⟦" not in out
    code, out, err = run_main(*words, f"--validation_file={small_corpus}")
    assert code == 0 and number_in(out, "학습 글에도 있는 것:") == 0, err
    code, out, err = run_main(*words[:-1], f"--validation_file={small_corpus}")
    assert code == 0 and out.startswith("평가 글: 문서 12개\n"), err


def test_in_a_terminal_what_is_learnt_stands_in_colour(run_main, mixed, tiny_model_folder, monkeypatch):
    words = ["train.py", "--show_data=9", f"--dataset_path={mixed}", f"--model_type={tiny_model_folder}"]
    _, plain, _ = run_main(*words)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    _, coloured, _ = run_main(*words)
    bare = re.sub("\033\\[2m(.*?)\033\\[0m", r"\1", coloured, flags=re.DOTALL)
    assert re.sub("\033\\[1;32m(.*?)\033\\[0m", r"⟦\1⟧", bare, flags=re.DOTALL).split("\n")[1:] == plain.split("\n")[1:]
    monkeypatch.setenv("NO_COLOR", "1")
    assert run_main(*words)[1] == plain


def test_what_a_template_of_others_writes_moves_no_cursor(run_main, mixed, tiny_model_folder, tmp_path):
    model = shutil.copytree(tiny_model_folder, tmp_path / "model")
    template = "{% for message in messages %}\x1b]0;x\x07{{ message.content }}{% endfor %}"
    (model / "chat_template.jinja").write_text(template, "utf-8")
    code, out, err = run_main("train.py", "--show_data=9", f"--dataset_path={mixed}", f"--model_type={model}")
    assert code == 0 and r"\x1b]0;x\x07" in out and "\x1b" not in out, err


def test_the_space_between_what_is_read_and_what_is_learnt_is_shown():
    """By a tokenizer such as Llama's, which leaves out the space before what stands first."""
    backend = Tokenizer(models.WordLevel({"</s>": 0, "▁비가": 1, "▁와요": 2}, "</s>"))
    backend.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    tokens = Buffer({"ids": np.array([1, 2, 0]), "lengths": np.array([3]), "learnt": np.array([0, 1, 1])})
    assert _pieces(tokens, 0, tokenizer) == (3, [("</s> 비가", False), (" 와요</s>", True)])
