"""Texts and what is told of them → JSON as OpenAI's API answers, whole or piece by piece."""

import json
import secrets
import time
from itertools import accumulate

from gpt2_korean.text.vocabulary import token_bytes

REASONS = {"stop": "stop", "sentence": "stop", "end": "stop", "length": "length"}  # see generation/write.py, Piece
DONE = "data: [DONE]\n\n"


def describe_refusal(message, status=400, param=None, code=None):
    kind = {429: "requests", 500: "server_error", 503: "server_error"}.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def describe_model(name, created, context):
    return {"id": name, "object": "model", "created": created, "owned_by": "gpt2-korean", "max_model_len": context}


def describe_server(name, context, settings):
    """What llama.cpp's page asks its server about itself."""
    params = {"temperature": settings.temperature, "top_k": settings.top_k, "top_p": settings.top_p}
    params |= {"repeat_penalty": settings.repetition_penalty, "n_predict": settings.length}
    return {
        "default_generation_settings": {"n_ctx": context, "params": params},
        "total_slots": 1,
        "model_path": name,
        "role": "model",
        "modalities": {"vision": False, "audio": False, "video": False},
        "chat_template": "",
    }


def describe_usage(read, written):
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def begin_answer(name, chat):
    """What all parts of one answer have in common."""
    kind = "chat.completion" if chat else "text_completion"
    mark = "chatcmpl" if chat else "cmpl"
    return {"id": f"{mark}-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()), "model": name}


def describe_choice(number, text, ended, logprobs, chat):
    """One text of an answer; ended: why, see Piece. logprobs: of describe_logprobs or describe_chat_logprobs."""
    content = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    return {"index": number, **content, "logprobs": logprobs, "finish_reason": REASONS[ended]}


def describe_piece(number, text, ended, logprobs, chat, first):
    """A piece of a text of a streamed answer; first: of its text. ended: None while it goes on."""
    role = {"role": "assistant"} if first else {}
    content = {"delta": {**role, "content": text} if text or first else {}} if chat else {"text": text}
    return {"index": number, **content, "logprobs": logprobs, "finish_reason": REASONS.get(ended)}


def stream_part(begun, choices, usage=None):
    """A line of a streamed answer. begun: of begin_answer."""
    begun = begun | ({"object": "chat.completion.chunk"} if begun["object"] == "chat.completion" else {})
    return stream_line({**begun, "choices": choices, "usage": usage})


def stream_line(part):
    return f"data: {json.dumps(part, ensure_ascii=False)}\n\n"


def describe_logprobs(ids, logprobs, pieces):
    """The log-probabilities of a completion. ids, logprobs: of write_rows. pieces: token_pieces."""
    tokens = [name_token(pieces(index)) for index in ids]
    likeliest = [
        each and dict([*((name_token(pieces(other)), score) for other, score in each[1]), (token, each[0])])
        for token, each in zip(tokens, logprobs, strict=True)
    ]
    return {
        "tokens": tokens,
        "token_logprobs": [each and each[0] for each in logprobs],
        "top_logprobs": likeliest,
        "text_offset": text_offsets([pieces(index, named=False) for index in ids]),
    }


def text_offsets(pieces):
    """Where in the text each of `pieces`, its tokens' bytes, begins, in characters, or the character that it is of."""
    begun = accumulate((sum(byte & 0xC0 != 0x80 for byte in piece) for piece in pieces), initial=0)
    return [before - (piece[:1] > b"\x7f" and piece[0] < 0xC0) for before, piece in zip(begun, pieces, strict=False)]


def describe_chat_logprobs(ids, logprobs, pieces):
    """As describe_logprobs, of a chat's answer."""

    def describe(index, score):
        piece = pieces(index)
        return {"token": name_token(piece), "logprob": score, "bytes": list(piece)}

    content = [
        {**describe(index, score), "top_logprobs": [describe(*each) for each in likeliest]}
        for index, (score, likeliest) in zip(ids, logprobs, strict=True)
    ]
    return {"content": content, "refusal": None}


def name_token(piece):
    """A token's bytes as text; where they are no whole characters, as OpenAI writes those: bytes:\\xea."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def token_pieces(tokenizer):
    """A function: the id of a token → its bytes; a special token's are those of its name, or none (named=False): no
    text has it."""
    known = token_bytes(tokenizer) or []

    def piece(index, named=True):
        found = known[index] if index < len(known) else None
        return tokenizer.decode([index], skip_special_tokens=not named).encode() if found is None else found

    return piece
