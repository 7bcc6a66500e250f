"""Written texts → stdout, piece by piece, and a .jsonl file."""

import contextlib
import json
import os
import stat
import sys
import unicodedata
from dataclasses import dataclass

from gpt2_korean.messages import NOBODY_READS, UsageError, os_reason, send_nowhere, spell_controls


@dataclass(frozen=True)
class Output:
    """Where the texts of a run go besides stdout, and how they are shown.

    file: of their records, open, None for none. alone: whether texts are shown by themselves, as answers are, or behind
    their prompts. prompts: the PromptOptions. model: the LoadOptions that load settled. batch_size: how many are
    written together, 1 where a person looks on.
    """

    file: object
    alone: bool
    prompts: object
    model: object
    batch_size: int = 1


def open_output(path):
    """A context that gives the file of the records, to append to; None for no path.

    Raises UsageError for a file that cannot be appended to: now, not when the text is written.
    """
    if not path:
        return contextlib.nullcontext()
    try:
        return open(path, "a", encoding="utf-8", newline="\n")
    except OSError as error:
        raise UsageError(f"--output_file={path}: {os_reason(error)}.") from None


@contextlib.contextmanager
def naming(file):
    """A context at whose end `file` (None: no file) is closed; an OSError in it that names no file, as of a full disk,
    gets the name of this one."""
    if file is None:
        yield
        return
    try:
        with file:
            if os.path.isfile(file.name) and not _ends_in_line_end(file.name):  # as an editor may have left it
                print(file=file, flush=True)
            yield
    except OSError as error:
        error.filename = error.filename or file.name
        raise


def _ends_in_line_end(path):
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - 1))
        return file.read() in (b"", b"\n")


def put_out(out, prompt, pieces, settings, heading="", written=""):
    """Print a text as its pieces come, and record it if that is wanted; returns it and whether anybody wants more.

    written: what was shown of the text before, behind its prompt. White space that an answer begins with is not shown.
    A text that is recorded is finished even when its reader has left (`| head -1`).
    """
    at_once, strip = out.batch_size == 1, out.alone and not written
    text, reading = "", print_piece(heading if out.alone or written else heading + prompt, at_once)
    for piece in pieces:
        reading = reading and print_piece(piece.lstrip() if strip and not text.strip() else piece, at_once)
        text += piece
        if not (reading or out.file):
            break
    reading = reading and print_piece("\n")
    record_text(out, prompt, text, settings, written)
    return text, reading or bool(out.file)


def record_text(out, prompt, text, settings, written):
    """Append a text that was shown, see put_out, to the .jsonl file, if any, with what it takes to write it again."""
    if not out.file:
        return
    prompt, text = (prompt, (written + text).strip()) if out.alone else (prompt + written, prompt + written + text)
    about = describe_writing(out.model, out.prompts, settings) | {"batch_size": out.batch_size}
    record = {"prompt": prompt, "text": text, "seed": out.model.seed, "settings": about}
    print(json.dumps(record, ensure_ascii=False), file=out.file, flush=True)


def is_empty(text, settings):
    """Whether the model, or a stop text, ended a text before it said anything: it has no letter, only blanks and
    punctuation."""
    # A token is a byte at least: one that may only have been cut after `length` of them is no such text.
    return len(text.encode()) < settings.length and all(unicodedata.category(letter)[0] in "CPZ" for letter in text)


def describe_empty(empty, texts, settings, flag="--min_length="):
    """The line on so many empty ones of so many texts."""
    least = min(settings.length, max(20, 2 * settings.min_length))
    what = f"글 {texts}편 가운데 {empty}편을 모델이" if texts > 1 else "모델이 글을"
    stop = " (멈출 글(stop)이 바로 나온 것일 수도 있습니다)" if settings.stop else ""
    return f"{what} 바로 끝냈습니다. 더 길게 쓰려면: {flag}{least}{stop}"


def print_piece(text, at_once=True):
    """Print on stdout, `at_once` or with what comes next; False once nobody reads it any more."""
    try:
        print(spell_controls(text) if sys.stdout.isatty() else text, end="", flush=at_once)
        return True
    except OSError as error:
        is_file = stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode)
        if is_file or error.errno not in NOBODY_READS:  # of a file: its disk fails
            error.filename = "표준 출력"
            raise
        send_nowhere(sys.stdout)  # what is left in the buffer would raise again when Python closes it
        return False


def describe_writing(model, prompts, settings):
    """What decides a text besides its prompt and the seed: a dict. model, prompts: see Output."""
    about = {
        "allow_invalid_utf8": model.allow_invalid_utf8,
        "quantize": model.quantize,
        "prompt_template": prompts.prompt_template,
        "system": prompts.system,
        "raw": model.raw,
        "model_name_or_path": model.model_name_or_path,
        "device": model.device,
        "dtype": model.dtype,
    }
    return about | vars(settings)
