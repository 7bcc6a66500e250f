"""What Windows does otherwise and no name that Python lacks there tells: said once, here."""

import os
import re
import shlex
import subprocess

# There a file that is open or mapped is neither replaced nor removed: weights are read rather than mapped.
WINDOWS = os.name == "nt"


def join_command(words):
    """A command line that the shell of this system reads as `words`."""
    if WINDOWS:
        return join_for_windows(words) or subprocess.list2cmdline(words)
    return shlex.join(words)


def join_for_windows(words):
    """A command line that cmd and PowerShell read alike, None where a word has what they read each in its own way."""
    if re.search(r'["%$`!\r\n\u201c-\u201e]', "".join(words)):
        return None
    plain = re.compile(r"[\w=-]+|\w+\.py")
    return " ".join(word if plain.fullmatch(word) else f'"{word}{trailing_backslashes(word)}"' for word in words)


def trailing_backslashes(word):
    """Those of its end once more: before a quote a program reads two as one."""
    return word[len(word.rstrip("\\")) :]
