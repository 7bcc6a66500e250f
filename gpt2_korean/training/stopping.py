"""Signals and --max_hours → one question, asked where a run can stop without losing anything.

Until training begins there is nothing to save and a signal ends the run at once. From then on it is only
noted; training asks at the end of each step, and all ranks get the same answer.
"""

import _thread
import contextlib
import os
import signal
import socket
import sys
import threading
import time

from gpt2_korean.messages import Stopped

NAMED = {
    "SIGTERM": "SIGTERM 신호를 받아",
    "SIGHUP": "SIGHUP 신호를 받아",
    "SIGUSR1": "SIGUSR1 신호를 받아",
    "SIGINT": "Ctrl-C로",
    "SIGBREAK": "Ctrl-Break로",  # Windows alone has it, and neither SIGHUP nor SIGUSR1
}
WORDS = {getattr(signal, name): words for name, words in NAMED.items() if hasattr(signal, name)}
HANG_UP = getattr(signal, "SIGHUP", None)
TIME_IS_UP = "--max_hours의 시간이 다 되어"
# Native code (learning a vocabulary takes a minute) lets no Python handler run before it returns.
PATIENCE_SECONDS = 2
# A notebook's stop button and torchrun repeat, milliseconds later, a signal that the whole group has got already.
ONE_PRESS_SECONDS = 1


class StopRequest:
    """Whether this run was asked to stop: `reason` says by what, None while it was not."""

    def __init__(self):
        self.reason = None
        self.nothing_to_save = True
        self._process = os.getpid()
        self._interrupted = None  # when

    def receive(self, number, _frame):
        if os.getpid() != self._process:
            return  # a worker that was forked from us: it stops when we do
        if number == signal.SIGINT:
            before, self._interrupted = self._interrupted, time.monotonic()
            if before is not None and self._interrupted - before < ONE_PRESS_SECONDS:
                return
            if before is not None:
                os._exit(130)
        self.reason = self.reason or WORDS[number]
        if self.nothing_to_save:
            self.nothing_to_save = False  # a second signal must not disturb the way out
            raise Stopped(f"{self.reason} 멈췄습니다. 아직 준비하는 중이라 저장할 것은 없습니다.")
        if number == signal.SIGINT:
            line = "\n" * os.isatty(2)  # behind the ^C that a terminal shows
            line += "하던 스텝을 마치고 저장한 뒤 멈춥니다. 바로 끝내려면 Ctrl-C를 한 번 더 누르세요.\n"
            with contextlib.suppress(OSError):  # of a reader that has ended by the same Ctrl-C
                os.write(2, line.encode())

    def time_is_up(self):
        """The end of --max_hours, called by a thread: honoured wherever a signal is."""
        self.reason = self.reason or TIME_IS_UP
        if self.nothing_to_save:
            _thread.interrupt_main(signal.SIGTERM)

    def hold_back(self):
        """From here on signals are only noted: whoever calls this asks `agreed` in good time."""
        self.nothing_to_save = False

    def agreed(self, device="cpu"):
        """Whether any rank was asked to stop. With several ranks all must call this together."""
        import torch
        from torch import distributed

        if not is_distributed():
            return self.reason is not None
        asked = torch.tensor(int(self.reason is not None), device=device)
        distributed.all_reduce(asked, distributed.ReduceOp.MAX)
        if asked.item() and self.reason is None:
            self.reason = "다른 프로세스가 멈추라는 신호를 받아"
        return bool(asked.item())


@contextlib.contextmanager
def stop_requests(max_hours=None):
    """Yield a StopRequest that SIGTERM, SIGHUP, SIGUSR1, SIGINT and the end of `max_hours` (None: no end) fill in.

    nohup has SIGHUP ignored, and so it stays.
    """
    stop = StopRequest()
    heard = [number for number in WORDS if number != HANG_UP or signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, stop.receive) for number in heard}
    # A socket, since nothing else can be told not to block on Windows.
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_leave_native_code, args=(reader, stop), daemon=True).start()
    timer = threading.Timer(min((max_hours or 0) * 3600, threading.TIMEOUT_MAX), stop.time_is_up)
    timer.daemon = True
    if max_hours is not None:
        timer.start()
    try:
        yield stop
    finally:
        timer.cancel()
        signal.set_wakeup_fd(-1)
        writer.close()
        for number, handler in previous.items():
            signal.signal(number, handler)


def is_distributed():
    """Whether torch.distributed joins this run's processes; of it some builds of PyTorch have is_available alone."""
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized()


def leave_together():
    """Wait for all ranks and take leave: a rank that ends while another still listens to it makes that one abort."""
    from torch import distributed

    if is_distributed():
        distributed.barrier()
        distributed.destroy_process_group()


def ignore_in_worker(initialise, worker):
    """Start a data loader's process deaf to what ends a run: a scheduler signals all processes, and the last
    steps still need their batches. `initialise(worker)` is what its loader wants done besides, or None."""
    from multiprocessing.queues import Queue

    from tqdm import tqdm

    for number in WORDS:
        signal.signal(number, signal.SIG_IGN)
    # All processes share the lock of the progress bars. One that ended while it held it, as in clearing away a bar
    # that it has from us, would leave us waiting for ever.
    tqdm.set_lock(threading.RLock())
    Queue._on_queue_feeder_error = staticmethod(_end_worker)
    if initialise is not None:
        initialise(worker)


def _end_worker(error, _batch):
    """End a loader's process that cannot send a batch, as where /dev/shm is full: the run would wait for it in vain."""
    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os._exit(1)


def _leave_native_code(reader, stop):
    """End the process on a signal that no Python handler could take, as long as there is nothing to save."""
    with reader:
        while byte := reader.recv(1):
            if byte[0] in WORDS and stop.nothing_to_save:
                time.sleep(PATIENCE_SECONDS)
                if stop.nothing_to_save:
                    with contextlib.suppress(OSError):  # of a terminal that is closed
                        print(f"{stop.reason or WORDS[byte[0]]} 멈췄습니다.", file=sys.stderr, flush=True)
                    os._exit(Stopped.exit_code)
