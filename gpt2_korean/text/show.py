"""Texts as they will be trained, what is learnt set off, and how many, how long and how often: for --show_data.

Imports no torch: the tokens are those of the cache that training reads, put together as its blocks are.
"""

import sys
from functools import partial
from itertools import groupby, islice
from operator import itemgetter

import numpy as np

from gpt2_korean.messages import spell_controls, takes_colour
from gpt2_korean.text.assemble import IGNORED, assemble
from gpt2_korean.text.blocks import count_learnt
from gpt2_korean.text.chat_template import MARKS, hold_conversations, learns
from gpt2_korean.text.corpus import arrow_column, is_stream
from gpt2_korean.text.packing import choose_size
from gpt2_korean.text.tokens import Buffer, token_rows, tokenise
from gpt2_korean.text.vocabulary import END_OF_TEXT

BRACKETS = "⟦{}⟧", "{}"  # what is learnt, and what is read
COLOURS = "\033[1;32m{}\033[0m", "\033[2m{}\033[0m"


def show_texts(texts, tokenizer, context, all_learnt, block_size, count):
    """Yield lines on the first `count` of the documents to learn from (held out, where there are no others), then on
    all of Texts.

    tokenizer: of transformers, as it will be trained with; None where it cannot be had: then characters are counted.
    context: of the model, None where it is not known. all_learnt: whether of conversations all turns are learnt.
    block_size: None for that of the context. Raises UsageError.
    """
    documents = texts.main
    size, endless = tokenizer and choose_size(block_size, context), is_stream(documents)
    first = (documents.filter(itemgetter("text")) if endless else documents).take(count)  # a stream has empty rows too
    coloured = takes_colour(sys.stdout)
    if count:
        marks = ("초록색이", "흐린 것은") if coloured else ("⟦ ⟧ 안이", "나머지는")
        yield f"{marks[0]} 배우는 것이고, {marks[1]} 읽기만 하는 것입니다."
        if all_learnt and hold_conversations(documents):
            yield "대화의 질문에서도 배웁니다(답만 배우려면 --train_on_prompt=false)."
    if tokenizer is None:
        yield "모델의 토크나이저가 아직 여기에 없어 글자로 셉니다. 대화의 표시는 모델의 양식과 다를 수 있습니다."
        tokens, shown = None, (_pieces_of_row(row, all_learnt) for row in first)
    else:
        tokens = None if endless else tokenise(documents, tokenizer, all_learnt)
        parts = [tokens] if tokens else map(Buffer, token_rows(first, tokenizer, all_learnt))
        each = ((part, number) for part in parts for number in range(len(part.lengths)))
        shown = (_pieces(part, number, tokenizer) for part, number in islice(each, count))
    for number, (length, pieces) in enumerate(shown, 1):
        yield f"\n── {number} · {length:,}{'글자' if tokenizer is None else '토큰'} ──"
        yield "".join(
            (COLOURS if coloured else BRACKETS)[not learnt].format(spell_controls(text)) for text, learnt in pieces
        )
    if count:
        yield ""
    if endless:
        yield "스트리밍이라 미리 세지 않습니다."
        return
    yield describe_documents("평가 글" if texts.train is None else "학습 글", documents)
    yield from describe_lengths(documents, tokens, size, all_learnt)
    own, questions = hash_documents(documents)
    yield f"앞의 것과 똑같은 것: {len(own) - len(set(own)):,}개"
    if texts.train is not None and texts.held_out is not None:
        yield describe_documents("평가 글", texts.held_out)
        held_out, asked = hash_documents(texts.held_out)
        again = f" · 질문 {len(asked):,}개 가운데 {count_in(asked, questions):,}개" if asked else ""
        yield f"학습 글에도 있는 것: {count_in(held_out, own):,}개{again}"
    elif texts.train is not None:
        yield "평가 글: 없음 (--do_eval을 더하면 떼어 둔 글과 겹치는 것도 셉니다)"


def _pieces(tokens, document, tokenizer):
    """`(length, pieces)` of a document as blocks have it: `(text, whether it is learnt)`, one after another."""
    length, begin = int(tokens.lengths[document]), tokenizer.eos_token_id
    block = assemble(tokens, np.array([[document, 0, 0, length]]), None, begin)
    ids = zip(block["input_ids"].tolist(), (block["labels"] != IGNORED).tolist(), strict=True)
    decode, pieces, before = partial(tokenizer.decode, clean_up_tokenization_spaces=False), [], []
    for learnt, run in groupby(ids, key=itemgetter(1)):
        own = [index for index, _ in run]
        # Behind those before it: some tokenizers leave out the space before what is the first of a text.
        pieces.append((decode(before + own)[len(decode(before)) :], learnt))
        before = own
    return length, pieces


def _pieces_of_row(row, all_learnt):
    """As _pieces, in characters, by a template that may not be the model's."""
    if not row["turns"]:
        return row["length"], [(END_OF_TEXT, False), (row["text"] + END_OF_TEXT, True)]
    pieces = [(END_OF_TEXT, False)]
    for turn in row["turns"]:
        answers, learnt = turn["role"] == "assistant", bool(learns(turn))
        pieces.append((MARKS[turn["role"]], all_learnt))
        pieces.append((turn["content"] + END_OF_TEXT * answers, (all_learnt or answers) and learnt))
    return row["length"], [
        ("".join(text for text, _ in run), learnt) for learnt, run in groupby(pieces, key=itemgetter(1))
    ]


def describe_documents(name, documents):
    """A line: how many documents, conversations, turns, and how many broken ones were left out beside them."""
    import pyarrow.compute as compute

    conversations = turns = 0
    for counts in map(compute.list_value_length, arrow_column(documents, "turns")):
        conversations += compute.sum(compute.greater(counts, 0)).as_py() or 0
        turns += compute.sum(counts).as_py() or 0
    counts = [f"문서 {len(documents):,}개"]
    if conversations:
        plain = len(documents) - conversations
        counts = [f"대화 {conversations:,}개(차례 {turns:,}개)", *([f"그 밖의 글 {plain:,}개"] if plain else [])]
    broken = sum(compute.sum(each).as_py() or 0 for each in arrow_column(documents, "broken"))
    left_out = f" · 읽으며 뺀 잘못된 대화 {broken:,}개" if broken else ""
    return f"{name}: {' · '.join(counts)}{left_out}"


def describe_lengths(documents, tokens, size, all_learnt):
    """Yield lines on the lengths of `documents`: of their Tokens, and how many do not fit a block of `size`; without
    Tokens, in characters. all_learnt: see show_texts."""
    if tokens is None:
        lengths = np.concatenate([each.to_numpy() for each in arrow_column(documents, "length")])
        learnt, unit = count_learnt(documents, all_learnt), "글자"
    else:
        lengths, learnt, unit = tokens.lengths, tokens.targets, "토큰"
    middle, most, longest = np.quantile(lengths, [0.5, 0.95, 1], method="inverted_cdf").tolist()
    yield f"길이: 중앙값 {middle:,}{unit} · 95% {most:,}{unit} · 가장 긴 것 {longest:,}{unit}"
    yield f"모두 {lengths.sum():,}{unit} · 배우는 것 {learnt:,}{unit}"
    if tokens is not None:  # one token is read before each
        yield f"블록({size:,}토큰)보다 긴 것: {np.count_nonzero(lengths >= size):,}개"


def hash_documents(documents):
    """`(of each document, of each question of a user in them)`: 64 bits each, in which no two of millions are alike."""
    own, questions = [], []
    for texts, lists in zip(arrow_column(documents, "text"), arrow_column(documents, "turns"), strict=True):
        said = zip(*(lists.flatten().field(name).to_pylist() for name in ("role", "content")), strict=True)
        for text, count in zip(texts.to_pylist(), lists.value_lengths().to_pylist(), strict=True):
            turns = tuple(islice(said, count))
            own.append(hash(turns or text))
            questions += [hash(content) for role, content in turns if role == "user"]
    return own, questions


def count_in(hashes, others):
    """How many of `hashes` are among `others`."""
    others = set(others)
    return sum(each in others for each in hashes)
