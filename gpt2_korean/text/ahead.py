"""What a run makes of its texts, made by a process of its own while this one imports torch: each takes seconds."""

import multiprocessing
import os
import signal
import sys
from contextlib import suppress

from gpt2_korean.messages import is_first_rank


def begin_ahead(work):
    """Have a fork do `work()`, whose results are kept in the cache; whoever needs one of them waits for it there.

    Not where torch is there already: with its threads a fork is not safe, and there is nothing to wait for. Of several
    ranks the first does it. What it has to say, or what fails, is left to those who need it and do it again.
    """
    if sys.platform == "linux" and "torch" not in sys.modules and is_first_rank():
        multiprocessing.get_context("fork").Process(target=_work_in_silence, args=(work,), daemon=True).start()


def _work_in_silence(work):
    signal.set_wakeup_fd(-1)  # signals that come to it are not our parent's
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    os.environ["RANK"] = "1"  # say() then keeps silent; progress bars still show
    with suppress(Exception):
        work()
