"""Conversations are read as they come, whatever they are called and wherever they stand; what is none stays a text."""

import csv
import json
import math
import os
import unicodedata

import pyarrow
import pyarrow.parquet
import pytest
from conftest import ROOT
from datasets import Dataset

from gpt2_korean.cli.train_options import parse_train_options
from gpt2_korean.messages import UsageError, UserError
from gpt2_korean.text import documents as corpus
from gpt2_korean.text.blocks import count_learnt
from gpt2_korean.text.corpus import count_characters, document_batches
from gpt2_korean.text.turns import BrokenConversation, turns_reader

LETTERS = [*"가나다라힣ab1 \t\"',:{}[]\\", "\n", "\r\n", "\x07", unicodedata.normalize("NFD", "각")]


def random_content(rng):
    return "말" * rng.randrange(2) + "".join(rng.choice(LETTERS) for _ in range(rng.randrange(12))) + rng.choice("가1.")


def random_conversation(rng, exchanges, system):
    turns = [{"role": "system", "content": random_content(rng)}] if system else []
    for _ in range(exchanges):
        turns += [{"role": role, "content": random_content(rng)} for role in ("user", "assistant")]
    return turns


def as_messages(turns):
    return {"messages": turns}


def as_parts(turns):
    return {"messages": [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]}


def as_sharegpt(turns):
    names = {"system": "System", "user": "human", "assistant": " GPT"}
    return {"id": 1, "conversations": [{"from": names[turn["role"]], "value": turn["content"]} for turn in turns]}


def as_trl(turns):
    return {"prompt": turns[:-1], "completion": turns[-1:]}


def as_columns(*names):
    return lambda turns: dict(zip(names, (turn["content"] for turn in turns), strict=True))


def as_alpaca(turns):
    return {"instruction": turns[0]["content"], "input": "", "output": turns[1]["content"]}


LAYOUTS = {
    "messages": as_messages,
    "parts": as_parts,
    "conversations": as_sharegpt,
    "trl": as_trl,
    "completion": as_columns("prompt", "completion"),
    "alpaca": as_alpaca,
    "question": as_columns(" Question", "answer "),
    "qa": as_columns("Q", "A"),
    "input": as_columns("input", "output"),
    "korean": as_columns("질문", "답변"),
    "short": as_columns("질문", "답"),
    "human": as_columns("human", "assistant"),
    "instruction": as_columns("instruction", "response"),
    "system": as_columns("system", "question", "response"),
}
LISTS = ("messages", "parts", "conversations", "trl")


def write_rows(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), "utf-8")
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(
                {name: json.dumps(cell) if isinstance(cell, list) else cell for name, cell in row.items()}
                for row in rows
            )


def written(text):
    """`text` as it is learnt: composed, with plain line ends, without control characters and blanks around it."""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\x07", "")).strip()


def expected(conversations):
    return [[{**turn, "content": written(turn["content"]), "weight": 1} for turn in turns] for turns in conversations]


def conversations_for(layout, rng, number=20):
    if layout in LISTS:
        return [random_conversation(rng, rng.randint(1, 4), rng.random() < 0.3) for _ in range(number)]
    return [random_conversation(rng, 1, layout == "system") for _ in range(number)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_any_conversation_is_read_back_from_any_format(tmp_path, rng, layout, suffix):
    if layout == "trl" and suffix in (".csv", ".tsv"):
        pytest.skip("a cell of text that begins with [ is a text")
    conversations = conversations_for(layout, rng)
    path = tmp_path / f"a{suffix}"
    write_rows(path, [LAYOUTS[layout](turns) for turns in conversations])
    documents = corpus.read_corpus([path])
    turns = expected(conversations)
    assert documents["turns"] == turns
    assert documents["text"] == ["\n".join(turn["content"] for turn in each) for each in turns]
    answers = [sum(len(turn["content"]) for turn in each if turn["role"] == "assistant") for each in turns]
    assert documents["characters"] == answers
    assert count_characters(documents) == sum(answers)
    assert count_characters(documents, "length") == sum(map(len, documents["text"]))
    assert "대화 20개" in corpus.describe_files(documents, [path])


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("layout", ["messages", "conversations", "trl", "alpaca", "korean", "system"])
def test_any_conversation_is_read_back_from_the_hub(tmp_path, rng, capsys, layout, streaming):
    conversations = conversations_for(layout, rng, 5)
    write_rows(tmp_path / "train.jsonl", [LAYOUTS[layout](turns) for turns in conversations])
    documents = corpus.read_hub_dataset(str(tmp_path), streaming=streaming)
    assert [row["turns"] for row in documents] == expected(conversations)
    assert "대화" in capsys.readouterr().err


def test_the_sample_is_read_as_conversations_or_by_a_template_as_texts():
    path = ROOT / "data" / "dialogue.csv"
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    documents = corpus.read_corpus([path])
    assert [[turn["content"] for turn in turns] for turns in documents["turns"]] == [
        [row["Q"], row["A"]] for row in rows
    ]
    assert "대화 100개 (Q → A)" in corpus.describe_files(documents, [path])
    plain = corpus.read_corpus([path], template="질문: {Q}\n답변: {A}")
    assert plain["text"] == [f"질문: {row['Q']}\n답변: {row['A']}" for row in rows]
    assert not any(plain["turns"]) and "대화" not in corpus.describe_files(plain, [path])


def test_a_text_beside_nothing_else_is_a_plain_document_and_may_stand_among_conversations(tmp_path, rng):
    (conversation,) = conversations_for("messages", rng, 1)
    rows = [
        {"text": "글", "title": "제목"},
        as_messages(conversation),
        {"text": "[글", "messages": None},
        {"text": "둘"},
    ]
    (tmp_path / "a.txt").write_text("하나\n\n둘", "utf-8")
    for suffix in (".jsonl", ".parquet"):
        path = tmp_path / f"b{suffix}"
        columns = dict.fromkeys(name for row in rows for name in row)
        write_rows(path, rows if suffix == ".jsonl" else [{**columns, **row} for row in rows])
        files = [tmp_path / "a.txt", path]
        documents = corpus.read_corpus(files)
        assert documents["turns"] == [[], [], [], *expected([conversation]), [], []]
        assert [documents["text"][index] for index in (0, 1, 2, 4, 5)] == ["하나", "둘", "글", "[글", "둘"]
        assert "대화 1개 (messages), 그 밖의 글 5개" in corpus.describe_files(documents, files)
        rest, held_out = corpus.hold_out(documents, 50, 0)
        assert sum(map(len, (*rest["turns"], *held_out["turns"]))) == len(conversation)


def user(content="가"):
    return {"role": "user", "content": content, "weight": 1}


def assistant(content="나", weight=1):
    return {"role": "assistant", "content": content, "weight": weight}


SYSTEM = {"role": "system", "content": "다", "weight": 1}
BROKEN = {
    "끝에 답이 없음": [[user()], [user(), assistant(), user()], [SYSTEM, user()], [{**SYSTEM, "content": "\0"}]],
    "모르는 역할": [[{"role": "tool", "content": "가"}, assistant()], [{"from": "세모", "value": "가"}, assistant()]],
    "역할이 없음": [[{"content": "가"}, assistant()]],
    "빈 차례": [
        [user(" "), assistant()],
        [user(), assistant(None)],
        [user(), assistant("\0")],
        [user(), assistant([])],
        [user(), assistant("\u200b \u3164")],
    ],
    "이어지는 두 답": [[user(), assistant(), assistant()]],
    "처음이 아닌 system": [[user(), SYSTEM, assistant()]],
    "질문이 없음": [[assistant()], [SYSTEM, assistant()]],
    "답의 weight가 모두 0": [
        [user(), assistant(weight=0)],
        [user(), assistant(weight=0), user(), assistant(weight=False)],
    ],
    "role과 content가 없음": [["가", "나"], [["가", "나"]]],
    "글이 아닌 내용": [
        [user([{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "가"}]), assistant()],
        [user({"가": 1}), assistant()],
    ],
}


def test_what_was_changed_in_a_conversation_is_counted():
    said = [user(unicodedata.normalize("NFD", "각")), assistant("나\r\n다\x07라\r")]
    row = turns_reader()({"messages": said})
    assert (row["composed"], row["line_ends"], row["controls"]) == (1, 2, 1)


@pytest.mark.parametrize("reason", BROKEN)
def test_a_broken_conversation_says_why(reason):
    for turns in BROKEN[reason]:
        for cell in (turns, json.dumps(turns), repr(turns)):
            with pytest.raises(BrokenConversation, match=reason):
                turns_reader()({"messages": cell})


def read(path, streaming):
    """The documents of a file, or (streaming is no None) of its folder as a data set of the Hub."""
    return (
        corpus.read_corpus([path])
        if streaming is None
        else corpus.read_hub_dataset(str(path.parent), streaming=streaming)
    )


@pytest.mark.parametrize("streaming", [None, False, True])
def test_broken_conversations_are_left_out_counted_and_named_by_line(tmp_path, rng, capsys, streaming):
    broken = [turns for cases in BROKEN.values() for turns in cases if all(isinstance(turn, dict) for turn in turns)]
    broken = [turns for turns in broken if all(isinstance(turn.get("content"), str | None) for turn in turns)]
    whole = conversations_for("messages", rng, 10)
    mixed = [(turns, True) for turns in whole] + [(turns, False) for turns in broken]
    rng.shuffle(mixed)
    path = tmp_path / "train.jsonl"
    write_rows(path, [as_messages(turns) for turns, _ in mixed])
    kept = expected(turns for turns, is_whole in mixed if is_whole)
    lines = [number for number, (_, is_whole) in enumerate(mixed, 1) if not is_whole]
    for _ in range(2):  # the second time from the cache
        documents = read(path, streaming)
        assert [own for _, turns in document_batches(documents, 7) for own in turns] == kept
        told = capsys.readouterr().err + (corpus.describe_files(documents, [path]) if streaming is None else "")
        assert told.count(f"잘못된 대화 {len(broken)}개를 뺌") == 1 and "글이 없는 행" not in told
        for number in lines[:3]:
            assert f"{number}번째 {'줄' if streaming is None else '행'}(" in told
        assert f"{lines[3]}번째" not in told and (streaming is not None or ") 등" in told)


def test_a_broken_conversation_of_a_file_whose_name_is_not_utf8_is_left_out_and_named(tmp_path):
    path = tmp_path / os.fsdecode("글.jsonl".encode("cp949"))
    try:
        write_rows(path, [as_messages([user()]), as_messages([user(), assistant()])])
    except OSError:
        pytest.skip("this file system has names of UTF-8 alone")
    documents = corpus.read_corpus([path])
    assert documents["turns"] == [[user(), assistant()]]
    told = corpus.describe_files(documents, [path])
    assert "잘못된 대화 1개를 뺌" in told and ") 등" not in told
    assert ".jsonl 1번째 줄(끝에 답이 없음)" in documents["broken_at"][0]


@pytest.mark.parametrize("streaming", [None, False, True])
def test_where_all_conversations_are_broken_the_reason_is_told(tmp_path, streaming):
    path = tmp_path / "train.jsonl"
    write_rows(path, [as_messages([])] + [as_messages([user()])] * 5)
    with pytest.raises(UserError) as refusal:
        read(path, streaming)
    assert "5번째" not in str(refusal.value) and ": ," not in str(refusal.value)  # the empty row is none
    for words in ("2번째", "4번째", "끝에 답이 없음", "--prompt_column", "--answer_column", "--text_template"):
        assert words in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 2


def test_people_may_write_twice_before_they_are_answered_and_an_empty_system_says_nothing():
    row = turns_reader()({"messages": [{"role": "system", "content": ""}, user("가"), user("나"), assistant("다")]})
    assert row["turns"] == [user("가\n나"), assistant("다")]
    row = turns_reader()({"system": "라", "messages": [user(), assistant()]})
    assert [turn["content"] for turn in row["turns"]] == ["라", "가", "나"]
    row = turns_reader()({"instruction": "옮기세요", "input": "hi", "output": "안녕"})
    assert row["turns"] == [user("옮기세요\nhi"), assistant("안녕")] and row["form"] == "instruction + input → output"


ASKERS, ANSWERERS = "user human prompter 사용자", "assistant gpt bot chatbot chatgpt model ai 챗봇"
QUESTIONS, ANSWERS = "prompt instruction question query 질문 input", "completion response output answer 답변 답 대답"


def test_turns_and_columns_are_known_by_the_names_that_corpora_give_them():
    read, pair = turns_reader(), [user("가"), assistant("나")]
    for asker in ASKERS.split():
        for answerer in ANSWERERS.split():
            said = [{"role": asker, "content": "가"}, {"role": answerer, "content": "나"}]
            for column in ("messages", "conversations", "conversation"):
                assert read({column: said})["turns"] == pair, (asker, answerer, column)
    for name in ("system", "developer", "시스템"):
        staged = [
            {"role": name, "content": "다"},
            *({"role": turn["role"], "content": turn["content"]} for turn in pair),
        ]
        assert [turn["role"] for turn in read({"messages": staged})["turns"]] == ["system", "user", "assistant"]
    columns = [(question, answer) for question in QUESTIONS.split() for answer in ANSWERS.split()]
    for question, answer in [*columns, ("q", "a"), ("Q", "A"), ("user", "assistant"), ("human", "assistant")]:
        assert read({question: "가", answer: "나"})["turns"] == pair, (question, answer)


def test_a_turn_that_stands_without_a_list_is_a_turn():
    parts = user([{"type": "text", "text": "가"}])
    lists = {"role": ["user"], "content": ["가"], "from": None}
    for asked in (user(), parts, {"from": "human", "value": "가", "role": None}, [user()], lists):
        assert turns_reader()({"prompt": asked, "completion": assistant()})["turns"] == [user(), assistant()]
    for cell in (user(), {"content": "가"}):
        with pytest.raises(BrokenConversation):
            turns_reader()({"messages": cell})


def test_a_question_that_stands_before_the_whole_conversation_is_asked_once():
    read = turns_reader("prompt", "chosen")
    for asked in ("가", [user()]):
        assert read({"prompt": asked, "chosen": [user(), assistant()]})["turns"] == [user(), assistant()]
        assert read({"prompt": asked, "chosen": [assistant()]})["turns"] == [user(), assistant()]
    row = {"prompt": "가", "chosen": [SYSTEM, user(), assistant()], "system": "라"}
    assert read(row)["turns"] == [SYSTEM, user(), assistant()]


def test_answers_of_weight_0_are_not_counted_among_what_is_learnt():
    turns = [user(), assistant("나나", weight=0), user("다"), assistant("라라라")]
    row = turns_reader()({"messages": turns})
    assert row["turns"] == turns and (row["length"], row["characters"], row["unlearnt"]) == (10, 3, 2)
    documents = Dataset.from_list([row, row])
    assert (count_learnt(documents), count_learnt(documents, all_learnt=True)) == (2 * 3, 2 * (10 - 2))
    for weight in (1, 1.0, None, True):
        assert turns_reader()({"messages": [user(), assistant(weight=weight)]})["turns"] == [user(), assistant()]
    # Others' data give every question 0, which is learnt where all turns are, and so has to be counted.
    unweighed = [{**SYSTEM, "weight": 0}, {**user("다라"), "weight": 0}, assistant()]
    row = turns_reader()({"messages": unweighed})
    assert row["turns"] == [SYSTEM, user("다라"), assistant()] and row["unlearnt"] == 0


def test_a_system_column_that_is_given_as_another_is_not_said_twice():
    row = {"system": "가", "answer": "나", "question": "다"}
    assert turns_reader("system", "answer")(row)["turns"] == [user("가"), assistant("나")]
    assert turns_reader("question", "system")(row)["turns"] == [user("다"), assistant("가")]
    assert len(turns_reader("question", "answer")(row)["turns"]) == 3


def test_columns_that_are_given_are_taken_and_no_others(tmp_path):
    path = tmp_path / "a.csv"
    write_rows(path, [{"Q": "가", "A": "나", "물음": "다", "풀이": "라", "text": "마"}])
    assert corpus.read_corpus([path])["turns"] == [[user("가"), assistant("나")]]
    given = {"prompt_column": "물음", "answer_column": "풀이"}
    assert corpus.read_corpus([path], **given)["turns"] == [[user("다"), assistant("라")]]
    assert corpus.read_corpus([path], column="text")["text"] == ["마"]
    with pytest.raises(UserError, match=r"'없음' 열이 없습니다. 있는 열: Q, A, 물음, 풀이, text"):
        corpus.read_corpus([path], prompt_column="없음", answer_column="A")


@pytest.mark.parametrize(
    "row",
    [
        {"text": "글", "question": "", "answer": None},
        {"text": "글", "messages": "안녕"},
        {"text": "글", "messages": []},
        {"text": "글", "messages": "[]"},
        {"text": "글", "messages": {"role": [], "content": []}},
        {"text": "글", "messages": {"role": None, "content": None}},
        {"text": "글", "question": " ", "answer": "\n"},
        {"text": "글", "question": math.nan, "answer": math.nan},
    ],
)
def test_columns_that_hold_no_conversation_leave_a_text_as_it_is(row):
    assert turns_reader()(row) == "글"


def test_a_conversation_is_read_from_the_columns_that_hold_it():
    row = {"prompt": math.nan, "completion": " ", "question": "가", "answer": "나"}
    assert turns_reader()(row)["turns"] == [user("가"), assistant("나")]
    said = {"role": ["user", "assistant"], "content": ["가", "나"]}
    turns = [dict(zip(said, each, strict=True)) for each in zip(*said.values(), strict=True)]
    for messages in (turns, said, f"\n{turns}", json.dumps(turns)):  # the last two as a .csv has them
        assert turns_reader()({"text": "글", "messages": messages})["turns"] == [user("가"), assistant("나")]


def test_rows_that_are_empty_are_no_broken_conversations(tmp_path):
    path = tmp_path / "a.csv"
    write_rows(path, [{"질문": "가", "답변": "나"}, {"질문": "", "답변": " "}, {"질문": "다", "답변": ""}])
    documents = corpus.read_corpus([path])
    assert documents["turns"] == [[user("가"), assistant("나")]]
    told = corpus.describe_files(documents, [path])
    assert "글이 없는 행 1개를 뺌" in told and "잘못된 대화 1개를 뺌" in told and "(끝에 답이 없음)" in told
    assert "대화 1개 (질문 → 답변)" in told and "그 밖의" not in told
    assert turns_reader()({"system": "역할", "question": "", "answer": " "}) == ""


def test_conversations_of_several_forms_are_counted_by_form(tmp_path):
    path = tmp_path / "a.jsonl"
    write_rows(path, [as_messages([user(), assistant()]), {"Q": "가", "A": "나"}, {"Q": "다", "A": "라"}])
    told = corpus.describe_files(corpus.read_corpus([path]), [path])
    assert "대화 3개 (messages 1개, Q → A 2개)" in told and "그 밖의" not in told


WORDS = ["--dataset_path=a.csv", "--do_train"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--prompt_column=Q"], ["--prompt_column", "--answer_column"]),
        (["--answer_column=A"], ["--prompt_column", "--answer_column"]),
        (["--prompt_column=Q", "--answer_column=Q"], ["--answer_column=Q", "--prompt_column"]),
        (["--text_column_name=Q", "--text_template={A}"], ["--text_column_name", "--text_template"]),
        (["--prompt_column=Q", "--answer_column=A", "--text_template={Q}"], ["--prompt_column", "--text_template"]),
        (["--prompt_column=Q", "--answer_column=A", "--text_column_name=Q"], ["--prompt_column", "--text_column_name"]),
        (["--train_on_prompt", "--text_column_name=text"], ["--train_on_prompt", "--text_column_name"]),
    ],
)
def test_flags_of_conversations_and_of_texts_exclude_each_other(words, named):
    with pytest.raises(UsageError) as refusal:
        parse_train_options(WORDS + words)
    assert all(name in str(refusal.value) for name in named)


def test_the_flags_reach_the_reading(tmp_path, capsys):
    path = tmp_path / "a.csv"
    write_rows(path, [{"물음": "가나", "풀이": "다", "text": "라"}])
    given = ["--prompt_column=물음", "--answer_column=풀이"]
    read = []
    for words in ([], given, ["--text_column_name=풀이"]):
        options = parse_train_options([f"--dataset_path={path}", "--do_train", *words]).text
        texts = corpus.read_texts(corpus.find_texts(options), options, False, 0)
        read.append((texts.train[0]["text"], len(texts.train[0]["turns"]), texts.train[0]["characters"]))
    assert read == [("라", 0, 1), ("가나\n다", 2, 1), ("다", 0, 1)]
    assert "대화 1개 (물음 → 풀이)" in capsys.readouterr().err


def test_a_conversation_may_come_after_thousands_of_texts(tmp_path):
    path = tmp_path / "train.jsonl"
    write_rows(path, [{"text": f"글 {number}"} for number in range(2500)] + [as_messages([user(), assistant()])])
    for streaming in (None, False):
        documents = read(path, streaming)
        assert len(documents) == 2501 and documents[-1]["turns"] == [user(), assistant()]
