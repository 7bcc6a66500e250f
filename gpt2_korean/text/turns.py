"""Rows of a table → conversations, recognised by the names of their columns; any other row is a plain document.

Knows nothing of files or tokens.
"""

import ast
import json
from functools import lru_cache
from itertools import product
from typing import NamedTuple

from gpt2_korean.text.normalise import VISIBLE, normalise
from gpt2_korean.text.rows import cell_text

ROLES = {
    **dict.fromkeys(("system", "developer", "시스템"), "system"),
    **dict.fromkeys(("user", "human", "prompter", "사용자"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "chatbot", "chatgpt", "model", "ai", "챗봇"), "assistant"),
}
LISTS = ("messages", "conversations", "conversation")
PAIRS = (
    (
        ("prompt", "instruction", "question", "query", "질문", "input"),
        ("completion", "response", "output", "answer", "답변", "답", "대답"),
    ),
    (("q",), ("a",)),
    (("user", "human"), ("assistant",)),
)
ADDED = ("input", "context")  # stand after an instruction
SYSTEM = ("system", "system_prompt")
ALL_BROKEN = (
    "대화가 모두 잘못되어 배울 것이 없습니다: {}\n"
    "괄호 안의 까닭을 고치거나(역할은 system, user, assistant), 열을 잘못 알아보았다면 --prompt_column과 "
    "--answer_column으로 고르거나, 한 글로 읽으려면 --text_template을 주세요."
)
MOST_NAMED = 3  # broken conversations; the others are only counted


class BrokenConversation(ValueError):
    """A conversation that nothing can be learnt from; says why."""


class Form(NamedTuple):
    """The columns of a conversation: what is asked, one after another, and the answer; without one, a list of turns."""

    system: str | None
    asked: tuple
    answer: str | None

    def __str__(self):
        return " + ".join(self.asked) + (f" → {self.answer}" if self.answer else "")


def turns_reader(prompt_column=None, answer_column=None):
    """`read(row)` → a conversation as a row of the corpus (dict), or the text (str) of a plain document.

    The two columns, if given, are taken in place of those that would be recognised. `length` counts all turns, and
    one for each that follows another; `characters` the answers that are learnt; `unlearnt` turns of weight 0. `read`
    raises BrokenConversation, KeyError for a column that is not there, and for a plain document what cell_text does.
    """

    def read(row):
        forms = _forms(tuple(row), prompt_column, answer_column)
        form = max(forms, key=lambda form: _filled(form, row), default=None)
        if form is None or ("text" in row and not _filled(form, row)):
            return cell_text(row, "text")
        said = _said(row, form)
        if any(raw.strip() for _, raw, _ in said):
            return conversation(said, str(form))
        return cell_text(row, "text") if "text" in row else ""

    return read


@lru_cache(1000)
def _forms(columns, prompt_column, answer_column):
    """The Forms in which a row of these columns may hold a conversation, the likeliest first."""
    named = {}
    for column in columns:
        named.setdefault(column.strip().casefold(), column)
    system = next((named[name] for name in SYSTEM if name in named), None)
    if prompt_column is not None:
        chosen = (prompt_column, answer_column)
        return [Form(None if system in chosen else system, (prompt_column,), answer_column)]
    forms = [Form(system, (named[name],), None) for name in LISTS if name in named]
    for asked, answer in (pair for names in PAIRS for pair in product(*names)):
        if asked in named and answer in named:
            added = (named[name] for name in ADDED if name in named and name != asked)
            forms.append(Form(system, (named[asked], *added), named[answer]))
    return forms


def _filled(form, row):
    """How many of the two ends of `form` hold something: columns may be there for the sake of other rows alone."""
    if form.answer is not None:
        cells = (row[column] for column in (form.asked[0], form.answer))
        # NaN, which pandas writes for what is missing, is not equal to itself.
        return sum(cell is not None and cell == cell and str(cell).strip() != "" for cell in cells)
    turns = row[form.asked[0]]
    return 2 * (bool(turns) and (isinstance(turns, (list, dict)) or str(turns).lstrip().startswith("[")))


def _said(row, form):
    """The `(role, raw content, weight)` of each turn."""
    if form.answer is None:
        said = _turns(_parsed(row[form.asked[0]]), "user")
    else:
        said = _turns(row[form.answer], "assistant")
        # Preference data may have the whole conversation beside its question (chosen, rejected): that is asked once.
        if not said or said[0][0] == "assistant":
            said = [turn for column in form.asked for turn in _turns(row[column], "user")] + said
    if form.system is not None and said[:1] and said[0][0] != "system":
        said = _turns(row[form.system], "system") + said
    return said


def _parsed(turns):
    """The list in a cell of a CSV: JSON, or as Python writes it (so does pandas)."""
    if not isinstance(turns, str):
        return turns
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(turns)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            pass
    raise BrokenConversation("차례의 목록이 아님")


def _turns(value, role):
    """The turns in a cell: those of a list, or one of this `role`; none of an empty one."""
    if isinstance(value, dict):  # one turn by itself, or of lists, as datasets' Sequence keeps a list of dicts
        lists = {name: each for name, each in value.items() if isinstance(each, list)}
        turns = [dict(zip(lists, each, strict=False)) for each in zip(*lists.values(), strict=False)]
        value = [value] if any(isinstance(each, str) for each in value.values()) else turns
    if isinstance(value, list):
        return [_turn(each) for each in value]
    content = _content(value)
    return [(role, content, 1)] if content.strip() else []


def _turn(message):
    if not isinstance(message, dict):
        raise BrokenConversation("차례에 role과 content가 없음")
    name = message.get("role") or message.get("from")
    role = ROLES.get(str(name).strip().casefold())
    if role is None:
        raise BrokenConversation("역할이 없음" if name is None else f"모르는 역할 {str(name)[:20]!r}")
    contents = (message.get(key) for key in ("content", "value", "text"))
    # As OpenAI's data mark an answer that is read but not learnt; others' give questions 0 too, as none is an answer.
    weight = int(role != "assistant" or message.get("weight") != 0)
    return role, _content(next((content for content in contents if content is not None), None)), weight


def _content(value):
    """The text of a turn: a string, or a list of the parts that are text; other parts cannot be read."""
    if isinstance(value, list):
        return "\n".join(_content(part) for part in value)
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        value = value["text"]
    try:
        return cell_text({"content": value}, "content")
    except TypeError:
        raise BrokenConversation("글이 아닌 내용") from None


def conversation(said, form):
    """The row of a conversation in which the `(role, raw content, weight)` of `said` follow each other.

    weight: 0 of an answer that is read and not learnt, else 1. form: what it was recognised by. Raises
    BrokenConversation.
    """
    turns, counts = [], {"composed": 0, "line_ends": 0, "controls": 0}
    for role, raw, weight in said:
        content, composed, line_ends, controls = normalise(raw)
        content = content.strip() if VISIBLE.search(content) else ""
        before = turns[-1]["role"] if turns else None
        if not content and role != "system":
            raise BrokenConversation("빈 차례")
        if role == before == "assistant":
            raise BrokenConversation("이어지는 두 답")
        if role == "system" and before not in (None, "system"):
            raise BrokenConversation("처음이 아닌 system")
        if role == before:  # people write twice, too, before they are answered
            turns[-1]["content"] += f"\n{content}" if content else ""
        elif content:
            turns.append({"role": role, "content": content, "weight": weight})
        counts["composed"] |= int(composed)
        counts["line_ends"] += line_ends
        counts["controls"] += controls
    if not turns or turns[-1]["role"] != "assistant":
        raise BrokenConversation("끝에 답이 없음")
    if all(turn["role"] != "user" for turn in turns):
        raise BrokenConversation("질문이 없음")
    text = "\n".join(turn["content"] for turn in turns)
    unlearnt = sum(len(turn["content"]) for turn in turns if not turn["weight"])
    answers = sum(len(turn["content"]) for turn in turns if turn["role"] == "assistant" and turn["weight"])
    if not answers:
        raise BrokenConversation("답의 weight가 모두 0")
    counts |= {"length": len(text), "characters": answers, "unlearnt": unlearnt}
    return {"text": text, **counts, "turns": turns, "form": form}


def describe_conversations(table):
    """A line on the conversations of a corpus and one on the broken ones that were left out, if there are any.

    table: pyarrow's, with length (0 of a row that was left out), form (of a conversation, else empty), broken (how many
    at each row) and broken_at (where).
    """
    import pyarrow.compute as compute

    lines = []
    whole = table.select(["form"]).filter(compute.greater(table["length"], 0))
    forms = whole.group_by("form", use_threads=False).aggregate([([], "count_all")]).to_pydict()
    counts = dict(zip(forms["form"], forms["count_all"], strict=True))
    plain = counts.pop("", 0)
    if counts:
        such = ", ".join(form + (f" {count:,}개" if len(counts) > 1 else "") for form, count in counts.items())
        others = f", 그 밖의 글 {plain:,}개" if plain else ""
        lines.append(f"대화 {sum(counts.values()):,}개 ({such}){others}")
    broken = compute.sum(table["broken"]).as_py()
    if broken:
        at = table["broken_at"].filter(compute.not_equal(table["broken_at"], "")).slice(0, MOST_NAMED).to_pylist()
        named = "\n".join(at).split("\n")
        others = " 등" if broken > min(len(named), MOST_NAMED) else ""
        lines.append(f"잘못된 대화 {broken:,}개를 뺌: {', '.join(named[:MOST_NAMED])}{others}")
    return lines
