"""Prompts → the texts that continue or answer them, as they come: what generate.py and its sessions share."""

from bisect import bisect_left
from dataclasses import dataclass, fields

from gpt2_korean.generation.dry import find_breakers
from gpt2_korean.generation.loop import fit_prompt, stream_ids
from gpt2_korean.generation.sampling import Sampling
from gpt2_korean.generation.sentence_end import SentenceStream
from gpt2_korean.generation.text_stream import TextStream
from gpt2_korean.generation.token_healing import heal
from gpt2_korean.messages import warn
from gpt2_korean.text.chat_prompt import as_turns
from gpt2_korean.text.chat_template import common_length, encode_texts
from gpt2_korean.text.conversations import fill, put_after_turns
from gpt2_korean.text.prompts import encode_prompt
from gpt2_korean.text.unknown import describe_unread

# Steps between two looks at what is written. Each takes the processor some time; the sooner they come, the sooner a
# batch leaves out the texts that ended, and several a second seem continuous to a reader.
LOOK_EVERY, LOOK_EVERY_IN_STREAM = 8, 4
# The Piece.ended of a text that was not cut: with --end_at_sentence it may have more than `length` tokens.
BY_ITSELF = ("stop", "end")


@dataclass(frozen=True)
class Piece:
    """What a few steps add to a row. ended: None while it goes on; then "stop", one of the stop texts has come,
    "end", the document's or the answer's has, "length", it has all its tokens, or "sentence", one has ended behind
    `length` of them. stop: the stop text that has come."""

    ids: list[int]
    text: str
    ended: str | None
    stop: str = ""


def stream_texts(model, prompts, settings, every=1, tell=warn):
    """As stream_pieces, the new text of each row alone: a list of str."""
    pieces = stream_pieces(model, prompts, settings, every, tell)
    return ((steps, [piece.text for piece in rows]) for steps, rows in pieces)


def stream_pieces(model, prompts, settings, every, tell):
    """Continue `prompts`, a batch of str or of ids, by a LoadedModel; or answer them, conversations as Chat.encode
    takes them.

    settings: has the fields of a Sampling, and `length`, `stop`, `dry_sequence_breaker`, `end_at_sentence` and
        `token_healing`.
    tell: gets the line that says so where the model's context is too short for all of a text, at once.

    Returns an iterator that yields, every few steps, how many steps they were and a Piece for each row. A row's text
    ends with the document or the answer, before the first of the stop texts, or after `length` tokens; with
    `end_at_sentence` at an end of a sentence, after twice as many at most.
    """
    sampling = Sampling(**{field.name: getattr(settings, field.name) for field in fields(Sampling)})
    encoded = [encode(model, prompt) for prompt in prompts]
    _tell_of_context(encoded, settings.length, model.decoder.context, tell)
    encoded = [cut_last_turn(model, *each, settings.length) for each in zip(prompts, encoded, strict=True)]
    end, stop = end_of(model, prompts[0]), settings.stop or ()
    encoded, leads, first = _heal_all(model, prompts, encoded, settings.token_healing)
    streams = [TextStream(model.tokenizer, ids, stop, lead) for ids, lead in zip(encoded, leads, strict=True)]
    breakers, more = None, settings.length if settings.end_at_sentence else 0
    if more:
        streams = [SentenceStream(stream, settings.length, settings.length + more) for stream in streams]
    if sampling.dry_multiplier > 0:
        breakers = find_breakers(model.tokenizer, tuple(settings.dry_sequence_breaker), model.decoder.vocab_size)
    every, over = every if model.decoder.captures else 1, [False] * len(prompts)
    chunks = stream_ids(
        model.decoder, encoded, settings.length, sampling, end, model.utf8, every, breakers, more, over, first
    )
    return _push_chunks(streams, chunks, settings.length + more, over)


def _heal_all(model, prompts, encoded, always):
    """`(ids, leads, first)`: what is read of each prompt, how its new text begins, which is not shown, and stream_ids'
    `first`. always: as heal has it; an answer that is yet to begin has its mark and nothing to heal."""
    ids, leads, first = list(encoded), [""] * len(prompts), [None] * len(prompts)
    for row, prompt in enumerate(prompts):
        if is_conversation(prompt) and not _has_begun(prompt):
            leads[row] = model.chat.lead
            continue
        read, first[row], leads[row] = heal(ids[row], model.tokenizer, always)
        ids[row] = read or [model.eos_token_id]  # as an empty prompt
    return ids, leads, None if all(ids is None for ids in first) else first


def _push_chunks(streams, chunks, length, over):
    """Yield what stream_pieces does; notes in `over` which rows have ended."""
    ended, left = [None] * len(streams), length
    for chunk in chunks:
        steps = max(map(len, chunk))
        left -= steps
        pieces = []
        for row, (stream, ids) in enumerate(zip(streams, chunk, strict=True)):
            if ended[row]:
                pieces.append(Piece([], "", ended[row]))
                continue
            text = stream.push(ids)
            # A row with fewer ids than another has come to the end of its document.
            ended[row] = stream.ended or ("end" if len(ids) < steps else None if left else "length")
            if ended[row]:
                text += stream.close()
                over[row] = True
            pieces.append(Piece(ids, text, ended[row], stream.stop))
        yield steps, pieces
        if all(ended):
            return
    yield 0, [Piece([], stream.close(), why or "end") for stream, why in zip(streams, ended, strict=True)]


def tell_of_unread(model, prompts, tell=warn):
    """Tell of what the vocabulary lacks of `prompts`, a list of str. One of bytes, as GPT-2's, knows all."""
    if model.utf8 is None and (unread := describe_unread(prompts, model.tokenizer)):
        tell(unread)


def encode(model, prompt):
    """The ids that `model` reads of a prompt: a str, a conversation, or ids already."""
    if isinstance(prompt, str):
        return encode_prompt(prompt, model.tokenizer, model.eos_token_id)
    if not is_conversation(prompt):
        return prompt
    if _has_begun(prompt):
        *asked, begun = prompt
        return model.chat.encode(asked) + encode_texts([model.chat.lead + begun["content"]], model.tokenizer)[0]
    return model.chat.encode(prompt)


def is_conversation(prompt):
    """Whether a prompt is one that a chat model answers: no text, nor ids."""
    return not isinstance(prompt, str) and isinstance(prompt[0], dict)


def end_of(model, prompt):
    """The token that ends what `model` writes for a prompt: a text, or an answer."""
    return model.chat.end if is_conversation(prompt) else model.eos_token_id


def _has_begun(conversation):
    """Whether a conversation ends in an answer, with which a chat model goes on."""
    return conversation[-1]["role"] == "assistant"


def converses(model, options):
    """Whether prompts are questions, their texts answers that are shown alone; options: PromptOptions."""
    return model.chat is not None or options.prompt_template is not None


def read_after_turns(model, options, turns, prompt, length, written=""):
    """What `model` is given to read for a prompt: a str, or for a chat model a conversation.

    options: PromptOptions. turns: the (prompt, answer) pairs before it, of which the oldest are forgotten until the
        model's context has room for `length` tokens more, and a chat model has learnt from conversations as long.
    written: what there is already of the text or the answer, with which it goes on.
    """
    if model.chat is None:
        text = fill(options.prompt_template, prompt) + written
        return put_in_context(model, options.prompt_template, turns, text, length)
    begun = [{"role": "assistant", "content": written}] if written else []
    return keep_newest(model, as_turns(options.system, turns, prompt) + begun, length)


def keep_newest(model, conversation, length):
    """A conversation less its oldest exchanges: until the model's context has room for `length` tokens more, and a
    chat model has learnt from conversations as long. What sets its stage stays, and the last exchange.
    """
    roles = [turn["role"] for turn in conversation]
    stage = next((place for place, role in enumerate(roles) if role != "system"), len(roles))
    asked = [place for place in range(stage + 1, len(roles)) if roles[place - 1 : place + 1] == ["assistant", "user"]]
    starts = [stage, *asked]
    unseen = 0 if model.chat.answers is None else max(0, len(starts) - model.chat.answers)

    def since(start):
        return conversation[:stage] + conversation[start:]

    *earlier, last = starts[unseen:]
    kept = bisect_left(earlier, True, key=lambda start: _fits(model, since(start), length))
    return since([*earlier, last][kept])


def put_in_context(model, template, turns, text, length):
    """As put_after_turns; the turns leave room in the model's context for `length` tokens more."""
    return put_after_turns(template, turns, text, lambda longer: _fits(model, longer, length))


def _fits(model, prompt, length):
    ids = encode(model, prompt)
    return len(fit_prompt(ids, length, model.decoder.context)) == len(ids)


def cut_last_turn(model, prompt, ids, length):
    """`ids`, what `model` reads of a prompt. Of a conversation that is too long even with its last turn alone the
    beginning of that turn is left out; its marks stay.

    Where that is not enough, or its answer has begun, the loop takes the newest of all, as of any other prompt.
    """
    excess = len(ids) - len(fit_prompt(ids, length, model.decoder.context))
    if excess == 0 or not is_conversation(prompt) or _has_begun(prompt):
        return ids
    silent = model.chat.encode([*prompt[:-1], {**prompt[-1], "content": ""}])
    if excess > len(ids) - len(silent):
        return ids
    start = common_length(ids, silent)
    return ids[:start] + ids[start + excess :]


def _tell_of_context(encoded, length, context, tell):
    longest = max(map(len, encoded))
    kept = max(len(fit_prompt(ids, length, context)) for ids in encoded)
    if kept < longest:
        tell(f"앞글이 모델의 문맥({context:,}토큰)에 비해 길어 앞쪽 {longest - kept:,}토큰은 빼고 이어 씁니다.")
    elif context is not None and longest + length - 1 > context:
        tell(f"글이 모델의 문맥({context:,}토큰)보다 길어지면 앞쪽부터 잊으며 이어 씁니다.")
