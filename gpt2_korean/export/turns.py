"""A chat template in Jinja → what it writes around each turn, where that is all: Ollama's language is another."""

from dataclasses import dataclass, replace

from gpt2_korean.messages import UserError
from gpt2_korean.text.conversations import PROMPT

SYSTEM, *TALK = "가나다", "라마바", "사아자", "차카타", "파하거", "너더러"  # no template writes these itself


@dataclass(frozen=True)
class Turns:
    """around: role → what stands before its content, (between it and the same again,) and after it.
    begin: what a conversation begins with. opening: what an answer that is to come begins with."""

    around: dict[str, list[str]]
    begin: str = ""
    opening: str = ""


def turns_of_prompts(prompt_template):
    """The Turns of generate.py's --prompt_template: a line ends after each answer that has another prompt behind it."""
    return Turns({"user": prompt_template.split(PROMPT), "assistant": ["", "\n"]})


def find_turns(render, begins=""):
    """The Turns of a template, None where it cannot be told as these. `render(turns, opens_answer)` → str.

    begins: the token that the tokenizer puts in front of a text by itself, which the Turns are then without.

    They are read off short conversations, and then have to give other ones. "system" is missing where the template
    does not take one. `render` raises UserError for a conversation that the template does not take.
    """
    try:
        asked, answered, again = (render(_talk(count), False) for count in (1, 2, 3))
        head, after_user = asked.split(TALK[0])
        _, between, after_answer = _pieces(answered, TALK[:2])
        before_user = _pieces(again, TALK[:3])[2].removeprefix(after_answer)
        opening = render(_talk(1), True).removeprefix(asked)
        around = {
            "user": [before_user, after_user],
            "assistant": [between.removeprefix(after_user), after_answer],
        }
        found = Turns(around, head.removesuffix(before_user), opening)
        if not all(_gives(found, render, _talk(count)) for count in (1, 3, 5)):
            return None
    except (UserError, ValueError):
        return None
    found = _with_system(found, render) or found
    return replace(found, begin=found.begin.removeprefix(begins))


def write_turns(turns, conversation):
    """What a template writes of a conversation that ends before an answer, by its Turns."""
    parts = [turn["content"].join(turns.around[turn["role"]]) for turn in conversation]
    return turns.begin + "".join(parts) + turns.opening


def _with_system(found, render):
    """`found` with what stands around a system turn, None where the template takes none."""
    staged = [{"role": "system", "content": SYSTEM}]
    try:
        before, after, _ = _pieces(render(staged + _talk(1), False), [SYSTEM, TALK[0]])
        pair = [before.removeprefix(found.begin), after.removesuffix(found.around["user"][0])]
        whole = Turns({"system": pair, **found.around}, found.begin, found.opening)
        return whole if all(_gives(whole, render, staged + _talk(count)) for count in (1, 3, 5)) else None
    except (UserError, ValueError):
        return None


def _talk(count):
    roles = ("user", "assistant")
    return [{"role": roles[index % 2], "content": content} for index, content in enumerate(TALK[:count])]


def _pieces(text, contents):
    """What stands before, between and after `contents`; raises ValueError where they are not all in `text` once."""
    pieces = []
    for content in contents:
        piece, text = text.split(content)
        pieces.append(piece)
    return [*pieces, text]


def _gives(turns, render, conversation):
    return write_turns(turns, conversation) == render(conversation, True)
