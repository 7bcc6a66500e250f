"""JSON of OpenAI's API → a Completion that was checked: also what vLLM and llama.cpp take beyond it.

Fields without effect on a text are passed over; those that we do not support are refused, unless they are turned off.
"""

from dataclasses import dataclass, fields, replace

from gpt2_korean.cli.generate_options import SETTINGS, Settings, parse_setting
from gpt2_korean.messages import UserError
from gpt2_korean.text.normalise import normalise

# The most texts of a request, and likeliest tokens that are told for each; as the API has them. Of stop texts it has 4,
# and the programs for vLLM and llama.cpp, which take any number, send one for each who speaks and each of their marks.
MOST_TEXTS, MOST_LIKELIEST, MOST_STOPS = 128, 20, 128
# The API's names of settings; all others go by the names of the flags.
NAMES = {
    "max_tokens": "length",
    "max_completion_tokens": "length",
    "min_tokens": "min_length",
    "repeat_penalty": "repetition_penalty",
    "typ_p": "typical_p",
}
OWN = {"model", "stream", "stream_options", "seed", "n", "logprobs"}
# Fields that do not change a text: who asks, caching, a guess at the answer, settings of models that reason, tools that
# a model may leave unused, settings of beam search and of special tokens that are shown. llama.cpp's page sends most
# of them with each request.
PASSED_OVER = {
    *("user", "metadata", "safety_identifier", "service_tier", "parallel_tool_calls"),
    *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "prediction"),
    *("cache_prompt", "return_progress", "sse_ping_interval", "timings_per_token", "backend_sampling"),
    *("tools", "functions", "reasoning_format", "reasoning_control", "thinking_budget_tokens", "chat_template_kwargs"),
    *("add_generation_prompt", "continue_final_message"),
    *("length_penalty", "early_stopping", "spaces_between_special_tokens"),
}
# What is not done here, and the values by which it is not asked for.
OFF = {
    **dict.fromkeys(("dynatemp_range", "xtc_probability"), (0,)),
    **dict.fromkeys(("tool_choice", "function_call"), ("none", "auto")),
    "reasoning_effort": ("none",),
    **dict.fromkeys(("store", "ignore_eos", "use_beam_search", "include_stop_str_in_output"), (False,)),
    "skip_special_tokens": (True,),
    "stop_token_ids": ([],),
    "logit_bias": ({},),
    "suffix": ("",),
    "best_of": (1,),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
SETTING_NAMES = {*SETTINGS, *(name for name, setting in NAMES.items() if setting in SETTINGS)}
LISTS = {field.name for field in fields(Settings) if "list" in str(field.type)}
TAKEN = OWN | PASSED_OVER | OFF.keys() | SETTING_NAMES


class Refused(Exception):
    """A request that is refused. param: the name of the field; code: one of OpenAI's, which programs know."""

    def __init__(self, status, message, param=None, code=None):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code


@dataclass(frozen=True)
class Completion:
    """What is asked for. prompts: texts or lists of ids; of a chat the one conversation, a list of {"role", "content"}.

    n: how many texts for each. seed: None for chance. logprobs: how many of the likeliest tokens are told of, None: no
    log-probabilities. include_usage: whether a stream ends with the count of tokens.
    """

    chat: bool
    prompts: list
    n: int
    settings: Settings
    seed: int | None
    stream: bool
    include_usage: bool
    logprobs: int | None
    echo: bool


def read_completion(asked, settings, seed, most_length, chat):
    """The Completion of `asked`, a JSON value. settings, seed: what it leaves out. most_length: in tokens.

    chat: whether it is of /v1/chat/completions. Raises Refused.
    """
    if not isinstance(asked, dict):
        raise Refused(400, "JSON 객체({...})를 보내세요.")
    asked = {name: value for name, value in asked.items() if value is not None}
    _check_names(asked, chat)
    if "seed" in asked and asked["seed"] != -1:  # llama.cpp's for none
        seed = _setting("seed", asked["seed"], ["seed"])
    n = _whole_number(asked, "n", 1, MOST_TEXTS, 1)
    prompts = [read_messages(asked.get("messages"))] if chat else _read_prompts(asked.get("prompt", ""))
    if n * len(prompts) > MOST_TEXTS:
        raise Refused(400, f"n×prompt: 한 번에 {MOST_TEXTS}편까지 쓸 수 있습니다.", "n")
    options = asked.get("stream_options", {})
    return Completion(
        chat,
        prompts,
        n,
        _read_settings(asked, settings, most_length),
        seed,
        _switch(asked, "stream"),
        isinstance(options, dict) and options.get("include_usage") is True,
        _read_logprobs(asked, chat),
        _switch(asked, "echo"),
    )


def _check_names(asked, chat):
    taken = TAKEN | ({"messages", "top_logprobs"} if chat else {"prompt", "echo"})
    for name, value in asked.items():
        if name not in taken:
            raise Refused(400, f"{name}: 알 수 없는 필드입니다. 빼고 보내세요.", name, "unknown_parameter")
        if name in OFF and value not in OFF[name] and not (name == "best_of" and value == asked.get("n", 1)):
            raise Refused(400, f"{name}: 지원하지 않습니다. 빼고 보내세요.", name, "unsupported_parameter")


def _read_settings(asked, settings, most_length):
    changed = {}
    for name, value in asked.items():
        setting = NAMES.get(name, name)
        if name not in SETTING_NAMES or (setting == "length" and value == -1):
            continue  # -1: llama.cpp's page asks for no limit
        if setting in LISTS:
            changed[setting] = _read_texts(name, value)
            continue
        if (name, value) == ("top_k", -1):  # no limit
            value = 0
        elif (name, value) == ("top_p", 0):  # the likeliest token alone
            value = 1e-6
        elif setting == "length" and _is_id(value):
            value = min(value, most_length)  # "at most", and many programs always send 2,048 or 4,096
        changed[setting] = _setting(name, value, SETTINGS, most_tokens=most_length)
    return replace(settings, **changed)


def _setting(name, value, names, **limits):
    """The value of a setting as the flag takes it."""
    try:
        return parse_setting(NAMES.get(name, name), str(value), names, **limits)
    except UserError as error:
        raise Refused(400, f"{name}: {str(error).removeprefix(f'--{NAMES.get(name, name)}: ')}", name) from None


def _read_texts(name, value):
    """One text or a list of them, as a list."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts) or len(texts) > MOST_STOPS:
        raise Refused(400, f"{name}: 글이나 글의 목록({MOST_STOPS}개까지)을 주세요.", name)
    texts = [normalise(text)[0] for text in texts]
    if not all(texts):
        raise Refused(400, f"{name}: 빈 글은 줄 수 없습니다.", name)
    return texts


def _read_prompts(prompt):
    """A str, a list of them, the ids of one prompt, or a list of those → a list of texts and lists of ids."""
    prompts = prompt if isinstance(prompt, list) and not all(map(_is_id, prompt)) else [prompt]
    for one in prompts:
        if not isinstance(one, str) and not (isinstance(one, list) and one and all(map(_is_id, one))):
            raise Refused(400, "prompt: 글, 글의 목록, 토큰 번호의 목록 가운데 하나를 주세요.", "prompt")
    return [normalise(one)[0] if isinstance(one, str) else one for one in prompts]


def _is_id(value):
    return isinstance(value, int) and not isinstance(value, bool)


def read_messages(messages):
    """A conversation, a list of {"role", "content"}, its contents normalised. Raises Refused."""
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "messages: [{role, content}] 꼴의 목록을 주세요.", "messages")
    turns = [_read_message(message, f"messages[{number}]") for number, message in enumerate(messages)]
    # Empty are a system that nobody has set, an answer stopped before its first word, and the place of the one to come,
    # which some programs send along. No model learns from such, and from a lone space it would go on.
    turns = [turn for turn in turns if turn["role"] == "user" or turn["content"].strip()]
    if not any(turn["role"] == "user" for turn in turns):
        raise Refused(400, "messages: user의 말이 있어야 합니다.", "messages")
    return _join_turns(turns)


def _join_turns(turns):
    """`turns` as conversations are learnt: who speaks twice in a row has said it in one turn of two lines."""
    joined = []
    for turn in turns:
        if joined and joined[-1]["role"] == turn["role"] != "assistant":
            joined[-1] = {**turn, "content": f"{joined[-1]['content'].rstrip()}\n{turn['content'].lstrip()}"}
        else:
            joined.append(turn)
    return joined


def _read_message(message, param):
    role = message.get("role") if isinstance(message, dict) else None
    role = "system" if role == "developer" else role
    if role not in ("system", "user", "assistant"):
        raise Refused(400, f"{param}: role은 system, user, assistant 가운데 하나여야 합니다.", f"{param}.role")
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    if message.get("tool_calls") or not all(isinstance(part, dict) and part.get("type") == "text" for part in parts):
        raise Refused(400, f"{param}: 글만 쓸 수 있습니다. 그림, 소리, 도구는 지원하지 않습니다.", f"{param}.content")
    if not all(isinstance(part.get("text"), str) for part in parts):
        raise Refused(400, f"{param}: content에 글을 주세요.", f"{param}.content")
    return {"role": role, "content": normalise("".join(part["text"] for part in parts))[0]}


def _read_logprobs(asked, chat):
    """How many of the likeliest tokens are asked for, None for no log-probabilities at all."""
    if not chat:
        told = asked.get("logprobs", False)
        return None if told is False else _whole_number(asked, "logprobs", 0, MOST_LIKELIEST, 0)
    if _switch(asked, "logprobs"):
        return _whole_number(asked, "top_logprobs", 0, MOST_LIKELIEST, 0)
    if asked.get("top_logprobs", 0) != 0:
        raise Refused(400, "top_logprobs: logprobs를 true로 함께 보내세요.", "top_logprobs")
    return None


def _whole_number(asked, name, least, most, default):
    value = asked.get(name, default)
    if not _is_id(value) or not least <= value <= most:
        raise Refused(400, f"{name}: {least} 이상 {most} 이하인 정수를 주세요.", name)
    return value


def _switch(asked, name):
    value = asked.get(name, False)
    if not isinstance(value, bool):
        raise Refused(400, f"{name}: true나 false를 주세요.", name)
    return value
