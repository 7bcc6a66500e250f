"""Conversations → ids, and which of them are learnt: by a template of our own, or by the one that a model has.

Ours costs a token a turn. Its marks are special tokens, which no text can give: people's words are encoded as text.
"""

import re
from contextlib import contextmanager
from functools import partial

from gpt2_korean.messages import UserError
from gpt2_korean.text.corpus import arrow_column, is_stream
from gpt2_korean.text.end_of_text import begin_with_end

MARKS = {role: f"<|{role}|>" for role in ("system", "user", "assistant")}
# Contents begin with a space: without one a word has other tokens than in the middle of a text.
LEAD = " "
# What lies between generation marks is learnt. The end of a text is its beginning too.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('roles are system, user and assistant, not ' + message['role']) }}{% endif %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ ' ' + message['content'] | trim + eos_token }}{% endgeneration %}"
    "{% else %}{{ ' ' + message['content'] | trim }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def prepare_tokenizer(tokenizer, documents):
    """Have a `tokenizer` of transformers write texts, and conversations if there are some, as `documents` are learnt.

    Returns the ids of the marks that it lacked: new tokens at the end of the vocabulary. One with a template of another
    maker stays as it is.
    """
    if tokenizer.chat_template is not None and not has_our_template(tokenizer):
        return []
    begin_with_end(tokenizer)
    if not hold_conversations(documents):
        return []
    lacking = [mark for mark in MARKS.values() if mark not in tokenizer.get_vocab()]
    tokenizer.add_tokens(list(MARKS.values()), special_tokens=True)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer.convert_tokens_to_ids(lacking)


def keep_one_template(tokenizer):
    """Leave a `tokenizer` of transformers that has several templates the one that is meant if nothing else is said, and
    one whose template is empty none.

    Each would be saved in a file of its name, which transformers refuses where it leads out of the folder.
    """
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    tokenizer.chat_template = template if (template or "").strip() else None


def hold_conversations(documents):
    """Whether there are conversations among `documents`; see count_turns."""
    return count_turns(documents).size > 0


def count_turns(documents):
    """How many turns each conversation among `documents` has, an array.

    documents: a Dataset, or an IterableDataset, of which the first 1,000 tell; None: there are none.
    """
    import numpy
    import pyarrow.compute

    counts = []
    if documents is not None and is_stream(documents):
        counts = [[len(row.get("turns") or ()) for row in documents.take(1000)]]
    elif documents is not None and "turns" in documents.column_names:
        lengths = map(pyarrow.compute.list_value_length, arrow_column(documents, "turns"))
        counts = [each.fill_null(0).to_numpy() for each in lengths]
    counts = numpy.concatenate([numpy.empty(0, int), *counts])
    return counts[counts > 0]


def has_our_template(tokenizer):
    """Whether a tokenizer, of transformers or of tokenizers, writes conversations by CHAT_TEMPLATE.

    One of tokenizers keeps no template: it is told by the marks, and by the one token that begins its texts.
    """
    if hasattr(tokenizer, "chat_template"):
        return tokenizer.chat_template == CHAT_TEMPLATE
    return None not in map(tokenizer.token_to_id, MARKS.values()) and len(encode_texts([""], tokenizer, True)[0]) == 1


def encode_turns(turns, tokenizer, opens_answer=False):
    """`(ids, learnt)` of a conversation; see encode_conversations."""
    return encode_conversations([turns], tokenizer, opens_answer)[0]


def encode_conversations(conversations, tokenizer, opens_answer=False):
    """`(ids, learnt)` of each conversation, a list of {"role", "content"}, the contents stripped.

    ids: as the tokenizer's template writes them, but for the begin token that is an end of text: it stands in front
        of every document. opens_answer: whether they end where an answer begins.
    learnt: a bool for each, True for the answers and the token that ends each; None for answers of weight 0, which are
        not learnt where all else is.
    tokenizer: of transformers with a chat template, or of tokenizers with ours (see has_our_template).

    Raises UserError for a tokenizer without a template, or with one that cannot write a conversation, or does not tell
    which of its tokens are an answer's.
    """
    if not has_our_template(tokenizer):
        if tokenizer.chat_template is None:
            raise UserError(
                "대화가 든 글인데 모델에 대화 양식(chat_template)이 없습니다. 대화로 학습한 모델을 주거나, "
                "--text_template으로 한 편의 글로 읽으세요.\n대화를 배우려면 학습 글에(스트리밍이면 처음 1,000개에) "
                "대화가 있어야 합니다. 대화가 모두 평가용으로 빠졌다면 --seed를 바꾸세요."
            )
        return [_encode_by_template(turns, tokenizer, opens_answer) for turns in conversations]
    contents = iter(encode_texts([LEAD + turn["content"] for turns in conversations for turn in turns], tokenizer))
    to_id = getattr(tokenizer, "convert_tokens_to_ids", None) or tokenizer.token_to_id
    marks = {role: to_id(mark) for role, mark in MARKS.items()}
    end = tokenizer.eos_token_id if hasattr(tokenizer, "eos_token_id") else tokenizer.encode("").ids[0]
    encoded = []
    for turns in conversations:
        ids, learnt = [], []
        for turn in turns:
            answers = turn["role"] == "assistant"
            own = [*next(contents), end] if answers else next(contents)
            ids += [marks[turn["role"]], *own]
            learnt += [False, *[answers and learns(turn)] * len(own)]
        if opens_answer:
            ids, learnt = [*ids, marks["assistant"]], [*learnt, False]
        encoded.append((ids, learnt))
    return encoded


def encode_texts(texts, tokenizer, whole=False):
    """The ids of each of `texts`, lists of int; the name of a special token in a text is text.

    tokenizer: of tokenizers or of transformers. whole: with the tokens that it puts around a text, else without.
    """
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(backend, "encode_special_tokens"):
        return tokenizer(
            texts, add_special_tokens=whole, split_special_tokens=True, return_attention_mask=False, verbose=False
        )["input_ids"]  # fmt: skip
    # Called directly, the backend takes a third less time than through transformers. It is changed only where it must
    # be, since that fails while another thread encodes.
    if not backend.encode_special_tokens:
        backend.encode_special_tokens = True
    if backend.truncation or backend.padding:
        backend.no_truncation()
        backend.no_padding()
    with _panics_told():
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=whole)]


@contextmanager
def _panics_told():
    """Turn a panic of tokenizers, which is a BaseException, into a UserError. For one, a foreign tokenizer may hold a
    regular expression that backtracks until Rust gives up."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        trouble = f"모델의 토크나이저(tokenizer.json)가 이 글을 토큰으로 나누지 못했습니다({error})"
        raise UserError(f"{trouble}. 원래의 것을 다시 받거나 다른 모델을 주세요.") from None


def learns(turn):
    """True for a turn to learn, None for one of weight 0."""
    return turn.get("weight") != 0 or None


def _encode_by_template(turns, tokenizer, opens_answer):
    """`(ids, learnt)` of one conversation by a template of another maker, for a tokenizer of transformers."""
    unmarked = [index for index, turn in enumerate(turns) if turn["role"] == "assistant"]
    roles = ", ".join(turn["role"] for turn in turns)

    def refusal(error):
        unfit = f"모델의 대화 양식(chat_template)으로 쓸 수 없는 대화가 있습니다({error}; 차례: {roles})"
        return f"{unfit}. 그런 대화를 빼거나 고치세요."

    write = partial(render, tokenizer, refusal=refusal)
    ids = write(turns, opens_answer)
    learnt = [False] * len(ids)
    if re.search(r"{%-?\s*generation\b", tokenizer.chat_template):
        marked = write(turns, opens_answer, return_assistant_tokens_mask=True, return_dict=True)
        if marked["input_ids"] == ids:  # else a text has the name of a special token
            learnt = list(map(bool, marked["assistant_masks"]))
            unmarked = [index for index in unmarked if not learns(turns[index])]
    whole = write(turns, opens_answer, tokenize=False) if unmarked else ""
    for index in unmarked:
        around = ((turns[:index], True), (turns[: index + 1], False))
        if not all(whole.startswith(write(*part, tokenize=False).rstrip()) for part in around):
            raise UserError(
                "모델의 대화 양식(chat_template)이 앞의 차례를 뒤에서 다르게 적어 답의 토큰을 구분할 수 없습니다. "
                "묻고 답하기 한 번씩인 대화로 나누거나, {% generation %} 표시가 있는 양식을 쓰세요."
            )
        start, end = (common_length(ids, write(*part)) for part in around)
        learnt[start:end] = [learns(turns[index])] * (end - start)
    begins = bool(ids) and ids[0] == tokenizer.bos_token_id == tokenizer.eos_token_id
    return ids[begins:], learnt[begins:]


def render(tokenizer, turns, opens_answer, refusal, **keywords):
    """What apply_chat_template makes of `turns`: ids, of people's words as text, if `keywords` do not say else.

    opens_answer: whether they end where an answer begins. Raises UserError; refusal: the error of a template that does
    not take this conversation → what a user reads.
    """
    from jinja2 import TemplateSyntaxError

    # So transformers does not warn of more tokens than the model reads: we cut into blocks, or forget turns.
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    as_ids = {"return_dict": False, "sanitize_control_tokens": not keywords}
    try:
        with _panics_told():
            return tokenizer.apply_chat_template(turns, add_generation_prompt=opens_answer, **{**as_ids, **keywords})
    except UserError:
        raise
    except TemplateSyntaxError as error:
        broken = f"모델의 대화 양식(chat_template)이 {error.lineno}번째 줄에서 문법에 맞지 않습니다"
        raise UserError(f"{broken}({error.message}). 양식을 고치거나 원래의 것을 두세요.") from None
    except Exception as error:  # no system turn, say, or no name of a special token: it may compute whatever it likes
        raise UserError(refusal(error)) from None


def common_length(one, other):
    """How many ids two lists have in common from their start."""
    differ = (index for index, (mine, its) in enumerate(zip(one, other, strict=False)) if mine != its)
    return next(differ, min(len(one), len(other)))
