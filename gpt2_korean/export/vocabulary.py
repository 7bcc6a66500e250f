"""A tokenizer of transformers → what llama.cpp's tokenizer is made from, where it cuts texts as that one does.

llama.cpp cannot read how a tokenizer splits texts: it knows some ways by name. GPT-2's is one of them, and the only
one here, so whatever a tokenizer does beyond it is refused.
"""

import json
from dataclasses import dataclass

from gpt2_korean.messages import UserError
from gpt2_korean.text.chat_template import encode_texts
from gpt2_korean.text.vocabulary import token_bytes, unlike_gpt2

# As GGUF numbers them. Unused is a row of the embeddings that no token has.
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5


@dataclass(frozen=True)
class Vocabulary:
    """tokens, types: by id, one for each row of the embeddings. merges: "a b", the first merged first.
    begin: the id in front of a text. adds_begin, adds_end: whether the tokenizer puts those around a text itself."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    begin: int
    end: int
    adds_begin: bool
    adds_end: bool


def refusal(reason):
    """The UserError of a model that cannot be exported."""
    return UserError(f"--export: GGUF로 내보낼 수 없는 모델입니다. {reason}")


def read_vocabulary(tokenizer, rows, begin):
    """The Vocabulary of a tokenizer and of `rows` of embeddings; begin: what the model's config has as its begin token.

    Raises UserError where llama.cpp would cut some text otherwise.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or token_bytes(tokenizer) is None:
        raise refusal("GPT-2의 것 같은 바이트 단위 토크나이저가 아닙니다.")
    parts = json.loads(backend.to_str())
    unlike = unlike_gpt2(parts)
    if unlike is not None:
        raise refusal(f"{unlike}입니다.")
    added = backend.get_added_tokens_decoder()
    for token in added.values():
        if not token.special and (token.lstrip or token.rstrip or token.single_word):
            raise refusal(f"빈칸이나 낱말을 가려 자르는 토큰({token.content!r})은 llama.cpp에 없습니다.")
    names = {index: name for name, index in tokenizer.get_vocab().items()}
    tokens, types = [], []
    for index in range(rows):
        token = added.get(index)
        tokens.append(names[index] if index in names else _unused_name(index, names.values()))
        types.append(
            UNUSED if index not in names else NORMAL if token is None else CONTROL if token.special else USER_DEFINED
        )
    merges = [" ".join(pair) for pair in parts["model"]["merges"]]
    return Vocabulary(tokens, types, merges, *_find_ends(tokenizer, begin))


def _find_ends(tokenizer, begin):
    """`(begin, end, adds_begin, adds_end)` as a Vocabulary has them."""
    end = tokenizer.eos_token_id
    (bare,), (whole,) = (encode_texts(["가"], tokenizer, whole) for whole in (False, True))
    place = next(place for place in range(len(whole)) if whole[place : place + len(bare)] == bare)
    front, back = whole[:place], whole[place + len(bare) :]
    if len(front) > 1 or back not in ([], [end]):
        around = tokenizer.convert_ids_to_tokens([*front, *back])
        raise refusal(f"글의 앞뒤에 여러 토큰({', '.join(around)})을 붙이는 토크나이저입니다.")
    return front[0] if front else begin, end, bool(front), bool(back)


def _unused_name(index, taken):
    name = f"[PAD{index}]"
    return name if name not in taken else f"{name}unused"
