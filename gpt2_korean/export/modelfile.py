"""A Modelfile for Ollama: which file, how a conversation is written, where it stops, the first values of sampling."""

import json

from gpt2_korean.messages import UserError

# The last message of an answer is one that goes on.
LOOP = """\
{{{{- range $i, $_ := .Messages }}}}
{{{{- $last := eq (len (slice $.Messages $i)) 1 }}}}
{roles}
{{{{- end }}}}
{{{{- if and $last (ne .Role "assistant") }}}}{opening}{{{{ end }}}}
{{{{- end }}}}"""
PLAIN = "{{ .Prompt }}"  # Ollama puts the answer behind it


def modelfile(name, turns, settings, context, seed=None, system=None, marks=()):
    """The text of a Modelfile beside the file `name`.

    turns: Turns, None for a model that continues texts. settings: generate.py's Settings. context: how many tokens the
        model reads. marks: special tokens that no text has, where it stops besides settings.stop.
    Raises UserError for a text that no Modelfile can hold.
    """
    parameters = {
        "temperature": settings.temperature,
        "top_k": settings.top_k,
        "top_p": settings.top_p,
        "min_p": settings.min_p,
        "repeat_penalty": settings.repetition_penalty,
        "frequency_penalty": settings.frequency_penalty,
        "presence_penalty": settings.presence_penalty,
        "repeat_last_n": settings.repetition_window or -1,
        "num_ctx": context,
        "num_predict": settings.length,
    }
    if seed is not None:
        parameters["seed"] = seed
    lines = [f"FROM ./{name}", f"TEMPLATE {_quoted('', template(turns) if turns else PLAIN)}"]
    if system:
        lines.append(f"SYSTEM {_quoted('--system', system)}")
    lines += [f"PARAMETER {key} {value}" for key, value in parameters.items()]
    lines += [f"PARAMETER stop {_quoted('--stop', word)}" for word in dict.fromkeys([*marks, *(settings.stop or ())])]
    return "\n".join(lines) + "\n"


def template(turns):
    """The Turns in Go's template language, as Ollama fills it in with .Messages."""
    branches = []
    for role, pieces in turns.around.items():
        before, *others = map(_literal, pieces)
        last, content = others.pop(), "{{ .Content }}"
        if role == "assistant":
            before, last = _before_answer(turns), last and f"{{{{ if not $last }}}}{last}{{{{ end }}}}"
        written = content.join([before, *others, last])
        branches.append(f'{{{{- {"else " if branches else ""}if eq .Role "{role}" }}}}{written}')
    loop = LOOP.format(roles="\n".join(branches), opening=_literal(turns.opening))
    return _literal(turns.begin) + loop


def _before_answer(turns):
    """What stands before the content of an answer. What the model begins it with itself is not written twice."""
    before = turns.around["assistant"][0]
    lead = before.removeprefix(turns.opening)
    if not lead or lead == before:
        return _literal(before)
    begins = f'eq (printf "%.{len(lead)}s" .Content) {json.dumps(lead, ensure_ascii=False)}'
    return f"{_literal(turns.opening)}{{{{ if not ({begins}) }}}}{_literal(lead)}{{{{ end }}}}"


def _literal(text):
    """`text` as Go's template language writes it out; blanks beside it are not its own."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""


def _quoted(flag, text):
    if '"""' in text:
        raise UserError(f'{flag}: Ollama의 Modelfile에는 따옴표 셋(""")이 이어진 글을 적을 수 없습니다.')
    return f'"""{text}"""'
