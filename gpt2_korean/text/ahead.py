"""The texts of a run, read by a process of their own while this one imports torch: each takes seconds."""

import multiprocessing
import os
import signal
import sys
from contextlib import suppress

from gpt2_korean.text.documents import read_corpus, reading_options


def begin_reading(files, options):
    """Have a fork read the Texts `files` into the cache by `options` (a TextOptions); read_texts then waits for it.

    Not where torch is there already: with its threads a fork is not safe, and there is nothing to wait for. Of several
    ranks the first does it. What cannot be read is left to read_texts, which tells of it.
    """
    if sys.platform == "linux" and "torch" not in sys.modules and os.environ.get("RANK", "0") == "0":
        multiprocessing.get_context("fork").Process(target=_read, args=(files, options), daemon=True).start()


def _read(files, options):
    signal.set_wakeup_fd(-1)  # signals that come to it are not our parent's
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    with suppress(Exception):
        for each in filter(None, (files.train, files.held_out)):
            read_corpus(each, **reading_options(options))
