"""Written texts → stdout, piece by piece, and a .jsonl file."""

import json
import os
import sys


def show(pieces, opening="", to_end=False, strip=False):
    """Print `opening` and the pieces of a text as they come; returns `(text, whether anybody still reads)`.

    With `to_end` the text is finished even when its reader has left (`| head -1`). With `strip` the
    white space that it begins with is not shown.
    """
    text, reading = "", print_piece(opening)
    for piece in pieces:
        reading = reading and print_piece(piece.lstrip() if strip and not text.strip() else piece)
        text += piece
        if not (reading or to_end):
            return text, False
    return text, reading and print_piece("\n")


def print_piece(text):
    """Print on stdout; False once nobody reads it any more."""
    try:
        print(text, end="", flush=True)
        return True
    except BrokenPipeError:
        # What is left in the buffer would raise again when Python closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False


def keep(path, prompt, text, seed, settings):
    """Append a text to a .jsonl file, with what it takes to write it again."""
    record = {"prompt": prompt, "text": text, "seed": seed, "settings": settings}
    with open(path, "a", encoding="utf-8") as file:
        print(json.dumps(record, ensure_ascii=False), file=file)
