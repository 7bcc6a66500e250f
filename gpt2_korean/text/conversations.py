"""A prompt in its template, after the turns of the conversation before it: text in, text out."""

PROMPT = "{prompt}"


def fill(template, prompt):
    """`prompt` in its place of `template`, or as it is where there is none (None)."""
    return template.replace(PROMPT, prompt) if template else prompt


def put_after_turns(template, turns, text, fits):
    """As many of the newest `turns`, each in the template, as fit before `text`; then `text`.

    turns: (prompt, answer) pairs, the answers as they were written. Without a template (None) there is no
        conversation, and they count for nothing.
    fits: whether a text leaves the model room for an answer; the oldest turns are forgotten until it does.
    """
    for asked, answer in reversed(turns if template else []):
        longer = f"{fill(template, asked)}{answer}\n{text}"
        if not fits(longer):
            break
        text = longer
    return text
