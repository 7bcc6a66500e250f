"""A Completion → the Rows that are written for it: what the model reads, in ids or as a conversation that has room."""

from dataclasses import replace
from itertools import accumulate

from gpt2_korean.generation.write import encode, keep_newest, read_after_turns
from gpt2_korean.server.events import Row
from gpt2_korean.server.openai_requests import Refused
from gpt2_korean.text.chat_prompt import ignores_system

NO_TEMPLATE = (
    "대화 양식(chat_template) 없이 열린 모델입니다. /v1/completions로 이어 쓰거나, "
    '--prompt_template="질문: {prompt}\\n답변:"처럼 틀을 주어 서버를 여세요.'
)


def rows_of(page, completion, most_characters):
    """The Rows of a Completion, those of one prompt side by side. Raises Refused, and UserError for a conversation that
    the model's template does not take."""
    prompts = []
    for prompt in completion.prompts:
        if completion.chat:
            read, echo = _read_conversation(page, prompt, completion.settings.length, most_characters), None
        else:
            read = _read_ids(page.model, prompt, most_characters)
            text = prompt if isinstance(prompt, str) else page.model.tokenizer.decode(prompt)
            echo = text if completion.echo else None
        prompts.append((read, len(encode(page.model, read)), echo))
    each = [prompt for prompt in prompts for _ in range(completion.n)]
    settings = completion.settings
    gives_ids = not completion.chat and not all(isinstance(prompt, str) for prompt in completion.prompts)
    if completion.logprobs is not None or gives_ids:
        settings = replace(settings, token_healing=False)  # who counts tokens has them as they are
    return [
        Row(read, count, settings, completion.seed, number, completion.logprobs, echo)
        for number, (read, count, echo) in enumerate(each)
    ]


def _read_ids(model, prompt, most_characters):
    if len(prompt) > most_characters:
        raise too_long(most_characters, "prompt")
    if not isinstance(prompt, str) and not all(0 <= index < model.decoder.vocab_size for index in prompt):
        most = model.decoder.vocab_size - 1
        raise Refused(400, f"prompt: 토큰 번호는 0 이상 {most:,} 이하여야 합니다.", "prompt")
    return encode(model, prompt)


def _read_conversation(page, messages, length, most_characters):
    """What the model reads of `messages`, less the oldest: a conversation, or a text by --prompt_template."""
    options, model = page.options.prompts, page.model
    if options.system and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": options.system}, *messages]
    if model.chat is None and not options.prompt_template:
        raise Refused(400, NO_TEMPLATE, "messages", "no_chat_template")
    messages = _keep_characters(messages, most_characters)
    begun = messages[-1:] if messages[-1]["role"] == "assistant" else []  # the answer, which goes on
    messages = messages[: len(messages) - len(begun)]
    if model.chat is None:
        written = "".join(turn["content"] for turn in begun)
        return read_after_turns(model, options, *_as_pairs(messages), length, written)
    turns = [{**turn, "content": turn["content"].strip()} for turn in messages]
    system = "".join(turn["content"] for turn in turns if turn["role"] == "system")
    if system and ignores_system(model.chat, system):
        raise Refused(400, "messages: 모델의 대화 양식(chat_template)에 system의 자리가 없습니다.", "messages")
    if not begun and not turns[-1]["content"]:
        raise Refused(400, "messages: 건넬 말이 비었습니다.", "messages")
    return keep_newest(model, turns + begun, length)


def _keep_characters(messages, most):
    """The newest of `messages`, from a question on, that have `most` characters; what sets their stage stays."""
    stage = next(place for place, turn in enumerate(messages) if turn["role"] != "system")
    room = most - sum(len(turn["content"]) for turn in messages[:stage])
    sizes = accumulate(len(turn["content"]) for turn in reversed(messages[stage:]))
    kept = sum(size <= room for size in sizes)
    newest = messages[len(messages) - kept :]
    while newest and kept < len(messages) - stage and newest[0]["role"] != "user":
        newest = newest[1:]
    if not newest:
        raise too_long(most, "messages")
    return messages[:stage] + newest


def _as_pairs(messages):
    """`(pairs, question)` of a conversation that a template writes."""
    roles = [turn["role"] for turn in messages]
    if roles != [("user", "assistant")[place % 2] for place in range(len(roles))] or len(roles) % 2 == 0:
        told = "--prompt_template으로 연 모델은 user와 assistant가 번갈아 말하는 대화만 받습니다"
        raise Refused(400, f"messages: {told}(system은 없이).", "messages")
    *before, asked = (turn["content"] for turn in messages)
    return list(zip(before[::2], before[1::2], strict=True)), asked


def too_long(most, param):
    return Refused(400, f"{param}: 글이 너무 깁니다. {most:,}자까지 쓸 수 있습니다.", param, "context_length_exceeded")
