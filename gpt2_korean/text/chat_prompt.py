"""A conversation → the ids that a chat model answers, by the template that its tokenizer has.

Ours needs neither transformers nor jinja; that of another maker is rendered by transformers.
"""

from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from gpt2_korean.messages import UserError
from gpt2_korean.text.chat_template import LEAD, encode_turns, has_our_template, render


@dataclass(frozen=True)
class Chat:
    """How a chat model is spoken to.

    encode: a conversation, a list of {"role", "content"} → the ids up to where its answer begins.
    end: the id that ends an answer. answers: how many half of the conversations had that the model learnt from, so
        that it hardly knows longer ones; None where that is not known. lead: what an answer begins with and is not a
        part of it.
    """

    encode: object
    end: int
    answers: int | None = None
    lead: str = ""


def find_chat(tokenizer, eos_token_id, answers=None):
    """The Chat of a tokenizer, of transformers or of tokenizers; None where it has no template."""
    if has_our_template(tokenizer):
        # The end of text stands in front of every document.
        return Chat(lambda turns: [eos_token_id, *encode_turns(turns, tokenizer, True)[0]], eos_token_id, answers, LEAD)
    if getattr(tokenizer, "chat_template", None) is None:
        return None
    end = _end_of_turn(tokenizer)
    encode = partial(render, tokenizer, opens_answer=True, refusal=_refusal)
    return Chat(encode, eos_token_id if end is None else end, answers)


def as_turns(system, pairs, prompt):
    """A conversation, a list of {"role", "content"}: a system turn or None, (prompt, answer) pairs, a prompt."""
    turns = [("system", system)] if system else []
    for asked, answer in pairs:
        turns += [("user", asked), ("assistant", answer)]
    return [{"role": role, "content": content.strip()} for role, content in [*turns, ("user", prompt)]]


def ignores_system(chat, system):
    """Whether a Chat's template leaves a system turn out, or refuses one as Gemma's does."""
    without = chat.encode(as_turns(None, [], "말"))
    with suppress(UserError):
        return chat.encode(as_turns(system, [], "말")) == without
    return True


def find_answer_end(tokenizer):
    """The id that ends an answer by another maker's template, None where there is none or it takes no conversation.

    tokenizer: of transformers.
    """
    if tokenizer.chat_template is None or has_our_template(tokenizer):
        return None
    with suppress(UserError):
        return _end_of_turn(tokenizer)
    return None


def _end_of_turn(tokenizer):
    """The id of the special token that a template writes behind an answer, None where there is none."""
    turns = as_turns(None, [("물음", "대답")], "또")
    try:
        text = render(tokenizer, turns[:2], False, _refusal, tokenize=False)
    except UserError:  # some take no conversation that ends in an answer
        text = render(tokenizer, turns, False, _refusal, tokenize=False)
    rest = text.rpartition("대답")[2]
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    ids = tokenizer(rest, add_special_tokens=False)["input_ids"]
    return next((index for index in ids if index in special), None)


def _refusal(error):
    return f"모델의 대화 양식(chat_template)이 이 대화를 받지 않습니다: {error}"
