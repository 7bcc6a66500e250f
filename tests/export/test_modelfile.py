"""A Modelfile gives Ollama the same conversation as the chat template, and holds whatever a user may write.

TEMPLATE is read by a small reference of the part of Go's text/template that stands in it, the file by one of Ollama's
own parser; both were held against the real ones by hand.
"""

import json
import re
from functools import partial

import pytest

from gpt2_korean.cli.generate_options import parse_generate_options
from gpt2_korean.export.modelfile import modelfile, template
from gpt2_korean.export.turns import Turns, find_turns, turns_of_prompts
from gpt2_korean.messages import UserError
from gpt2_korean.text.chat_template import render

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Llama 2's manner: the system's words stand inside of the first turn, which no loop over turns can write.
NESTED = (
    "{% if messages[0].role == 'system' %}{% set stage = '<<' + messages[0].content + '>> ' %}"
    "{% set messages = messages[1:] %}{% else %}{% set stage = '' %}{% endif %}{% for message in messages %}"
    "{% if message.role == 'user' %}[INST] {{ stage if loop.first }}{{ message.content }} [/INST]{% else %}"
    " {{ message.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
COUNTED = "{% for message in messages %}{{ loop.index }}. {{ message.content }}\n{% endfor %}"
NO_SYSTEM = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('no system') }}"
    '{% endif %}{{ message.role }}: """{{ message.content }}"""{{ \'{{ .Content }}\' }}{% endfor %}'
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def go(text, messages):
    """What Go's text/template makes of `text`, of which it knows what we write."""
    parts = re.split(r'(\{\{(?:"(?:\\.|[^"\\])*"|[^"])*?\}\})', text)
    for place in range(1, len(parts), 2):
        if parts[place].startswith("{{-"):
            parts[place - 1] = parts[place - 1].rstrip()
    nodes, place = _block([part.removeprefix("{{-").removeprefix("{{").removesuffix("}}").strip() if index % 2 else part
                           for index, part in enumerate(parts)], 0)  # fmt: skip
    assert place == len(parts)
    return "".join(node({"Messages": messages}, {}) for node in nodes)


def _block(parts, place):
    """`(functions of (dot, variables), where the block ends)`."""
    nodes = []
    while place < len(parts):
        part = parts[place]
        place += 1
        if place % 2:
            nodes.append(lambda dot, names, part=part: part)
        elif part == "end" or part.startswith("else"):
            return nodes, place - 1
        elif part.startswith("range "):
            inner, place = _block(parts, place)
            place += 1

            def loop(dot, names, inner=inner):
                rows = ((row, {"i": at, "all": dot["Messages"]}) for at, row in enumerate(dot["Messages"]))
                return "".join(node(*row) for row in rows for node in inner)

            nodes.append(loop)
        elif part.startswith("if "):
            branches = [(part.removeprefix("if "), None)]
            while True:
                inner, place = _block(parts, place)
                branches[-1] = (branches[-1][0], inner)
                part = parts[place]
                place += 1
                if part == "end":
                    break
                branches.append((part.removeprefix("else").strip().removeprefix("if ") or None, None))

            def branch(dot, names, branches=branches):
                met = (inner for condition, inner in branches if condition is None or _value(condition, dot, names))
                return "".join(node(dot, names) for node in next(met, []))

            nodes.append(branch)
        elif part.startswith("$last :="):
            nodes.append(lambda dot, names: names.update(last=len(names["all"][names["i"] :]) == 1) or "")
        else:
            nodes.append(lambda dot, names, part=part: _value(part, dot, names))
    return nodes, place


def _value(words, dot, names):
    if words.startswith('"'):
        return json.loads(words)
    if words == "$last":
        return names["last"]
    if words == "not $last":
        return not names["last"]
    if words == ".Content":
        return dot["content"]
    if found := re.fullmatch(r'eq \.Role "(\w+)"', words):
        return dot["role"] == found[1]
    if found := re.fullmatch(r'and \$last \(ne \.Role "(\w+)"\)', words):
        return names["last"] and dot["role"] != found[1]
    found = re.fullmatch(r'not \(eq \(printf "%\.(\d+)s" \.Content\) (".*")\)', words)
    return dot["content"][: int(found[1])] != json.loads(found[2])


def talk(*contents, system=None):
    turns = [{"role": ("user", "assistant")[at % 2], "content": content} for at, content in enumerate(contents)]
    return [{"role": "system", "content": system}, *turns] if system else turns


TALKS = [
    talk("안녕?"),
    talk("안녕?", system="너는 {{ .Content }} 상담원이야."),
    talk("가", "나다", "라\n마"),
    talk('따옴표 "와 \\와 }}', "<|user|> 말", "🙂", "예.", "끝", system="역할\n둘째 줄"),
]


def own_turns(tokenizer, chat_template=None, begins=""):
    import copy

    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = chat_template or tokenizer.chat_template
    write = partial(render, tokenizer, refusal=str, tokenize=False)
    return find_turns(write, begins), write


def test_our_template_is_the_same_conversation_in_go(chat_tokenizer):
    turns, write = own_turns(chat_tokenizer, begins="<|endoftext|>")
    assert turns.begin == ""  # Ollama's server puts the token there that the tokenizer does
    for conversation in TALKS:
        assert "<|endoftext|>" + go(template(turns), conversation) == write(conversation, True)


def test_a_template_of_others_is_the_same_conversation_in_go(chat_tokenizer):
    turns, write = own_turns(chat_tokenizer, CHATML)
    for conversation in TALKS:
        assert go(template(turns), conversation) == write(conversation, True)
    turns, write = own_turns(chat_tokenizer, NO_SYSTEM)
    assert "system" not in turns.around
    for conversation in (each for each in TALKS if each[0]["role"] == "user"):
        assert go(template(turns), conversation) == write(conversation, True)


def test_a_template_that_writes_a_turn_otherwise_by_its_place_is_not_guessed_at(chat_tokenizer):
    assert own_turns(chat_tokenizer, COUNTED)[0] is None
    turns, write = own_turns(chat_tokenizer, NESTED)
    assert "system" not in turns.around
    assert go(template(turns), TALKS[2]) == write(TALKS[2], True)


def test_a_template_that_writes_a_turn_twice_or_not_at_all_or_takes_none_is_not_guessed_at(chat_tokenizer):
    named = (
        "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    for instead in ("{{ message.content * 2 }}", "", "{{ raise_exception('no') }}"):
        assert own_turns(chat_tokenizer, named.replace("{{ message.content }}", instead))[0] is None
    assert "system" in own_turns(chat_tokenizer, named)[0].around
    silent = named.replace("in messages", "in messages if message.role != 'system'")
    assert "system" not in own_turns(chat_tokenizer, silent)[0].around


@pytest.mark.parametrize("longest", [3, 5])
def test_a_template_that_writes_longer_conversations_otherwise_is_not_guessed_at(chat_tokenizer, longest):
    opened = CHATML.replace("add_generation_prompt", "add_generation_prompt and messages | length < {0}")
    assert own_turns(chat_tokenizer, opened.replace("{0}", f"{longest}"))[0] is None
    staged = opened.replace("{0}", f"({longest} if messages[0].role == 'system' else 99)")
    turns, write = own_turns(chat_tokenizer, staged)
    assert "system" not in turns.around and go(template(turns), TALKS[2]) == write(TALKS[2], True)


def test_the_blank_that_an_answer_begins_with_is_not_written_twice(chat_tokenizer):
    turns, write = own_turns(chat_tokenizer)
    written = write(talk("가", "나다", "라"), True)
    assert go(template(turns), talk("가", " 나다", "라")) == go(template(turns), talk("가", "나다", "라")) == written


def test_what_an_answer_begins_with_is_told_by_its_letters_and_only_where_it_follows_the_opening():
    around = {"user": ["", "\n"], "assistant": ["나: 네, ", "\n"]}
    conversation = talk("가", "네, 나", "라")
    assert go(template(Turns(around, opening="나: ")), conversation) == "가\n나: 네, 나\n라\n나: "
    assert go(template(Turns(around, opening="너: ")), conversation) == "가\n나: 네, 네, 나\n라\n너: "


def test_what_a_template_writes_stands_in_go_as_it_is():
    assert '{{ "🙂 물음: " }}' in template(turns_of_prompts("🙂 물음: {prompt}"))  # Go has no pairs of \u escapes


def test_an_answer_that_stands_last_goes_on(chat_tokenizer):
    turns, _ = own_turns(chat_tokenizer, begins="<|endoftext|>")
    assert go(template(turns), talk("가", "나다")) == "<|user|> 가<|assistant|> 나다"


def test_a_prompt_template_is_a_conversation_as_interactive_writes_it():
    from gpt2_korean.text.conversations import fill, put_after_turns

    for own in ("질문: {prompt}\n답변:", "{prompt}", "{prompt}? {prompt}!\n"):
        text = template(turns_of_prompts(own))
        assert go(text, talk("가")) == fill(own, "가")
        told = put_after_turns(own, [("가", " 나"), ("다", " 라")], fill(own, "마"), lambda text: True)
        assert go(text, talk("가", " 나", "다", " 라", "마")) == told


def commands(text):
    """The `(name, argument)` pairs of a Modelfile: a line each, or as long as three quotes are open."""
    found = re.findall(r'^(?:PARAMETER )?(\w+) (?:"""(.*?)"""|(.*?))$', text, re.DOTALL | re.MULTILINE)
    return [(name, quoted or plain) for name, quoted, plain in found]


def options(*words):
    return parse_generate_options(["--model_name_or_path=m", "--export=m.gguf", *words])


def test_sampling_starts_as_the_page_does_or_as_the_flags_say():
    settings = options().settings
    parameters = dict(commands(modelfile("m.gguf", None, settings, 256)))
    assert parameters == {
        "FROM": "./m.gguf", "TEMPLATE": "{{ .Prompt }}", "temperature": "0.7", "top_k": "50", "top_p": "0.95",
        "min_p": "0.0", "repeat_penalty": "1.2", "frequency_penalty": "0.0", "presence_penalty": "0.0",
        "repeat_last_n": "-1", "num_ctx": "256", "num_predict": "100",
    }  # fmt: skip
    words = ["--temperature=0", "--top_k=0", "--length=7", "--repetition_window=9"]
    settings = options(*words, "--frequency_penalty=0.5", "--presence_penalty=-1").settings
    parameters = dict(commands(modelfile("m.gguf", None, settings, 256, seed=0)))
    wanted = {"temperature": "0.0", "top_k": "0", "num_predict": "7", "repeat_last_n": "9", "seed": "0"}
    wanted |= {"frequency_penalty": "0.5", "presence_penalty": "-1.0"}
    assert wanted.items() <= parameters.items()


def test_stop_words_and_the_stage_are_kept_as_they_are():
    settings = options(r"--stop=\n", "--stop=질문: ", '--stop="', "--stop=<|a|>").settings
    text = modelfile("m.gguf", None, settings, 256, system='너는 "상담원"이야.\n둘째 줄', marks=["<|a|>"])
    found = commands(text)
    assert [value for name, value in found if name == "stop"] == ["<|a|>", "\n", "질문: ", '"']
    assert dict(found)["SYSTEM"] == '너는 "상담원"이야.\n둘째 줄'
    with pytest.raises(UserError, match="--stop"):
        modelfile("m.gguf", None, options('--stop=a"""b').settings, 256)
