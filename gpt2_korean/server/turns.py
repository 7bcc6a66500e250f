"""Whoever asks, in one line: the model works on one batch at a time, the oldest that wait first.

It always works on one thread, since each thread would start helper threads of its own. Those of one kind, which ask for
the same settings, are worked on together. Nobody is passed over for long by that: a batch begins with who has waited
longest.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from gpt2_korean.ending import report
from gpt2_korean.messages import UserError, say_error

# The most texts that wait, and the most that are written together: each takes its part of the memory.
MOST_WAITING, MOST_TOGETHER = 256, 16
FULL = "대기 중인 요청이 너무 많습니다. 잠시 뒤에 다시 시도하세요."
FAILED = "글을 쓰다가 오류가 났습니다. generate.py를 실행한 터미널을 확인하세요."


class LineIsFull(Exception):
    """There is no place for so many more."""


@dataclass(eq=False)
class Place:
    """One item in line. work: a function of several items of its `kind` → a generator of lists, an event for each of
    them or None. tell: gets its events, and None when it is over."""

    work: object
    item: object
    kind: object
    tell: object
    left: bool = False


@dataclass(eq=False)
class Turn:
    """The places of one request. before: how many were in line before it. leave(): nobody reads its events any more."""

    places: list[Place]
    events: asyncio.Queue
    before: int
    leave: object

    async def read(self):
        """Yield `(number of the item, event)` until all are over; who closes it leaves the line."""
        try:
            over = 0
            while over < len(self.places):
                number, event = await self.events.get()
                if event is None:
                    over += 1
                else:
                    yield number, event
        finally:
            self.leave()


class Line:
    """Those that wait and those that are worked on. closing(): whether the server ends, asked at each step."""

    def __init__(self, closing):
        self.closing, self.thread, self.task = closing, ThreadPoolExecutor(1), None
        self.waiting, self.working = [], []

    def check(self, places):
        """Raise LineIsFull where there is no room for so many `places` more."""
        if self.waiting and len(self.waiting) + places > MOST_WAITING:
            raise LineIsFull

    def join(self, work, items, kind=None):
        """A Turn for `items`; see Place. kind None: they share a batch with nobody. Raises LineIsFull."""
        self.check(len(items))
        events, kind, before = asyncio.Queue(), object() if kind is None else kind, len(self.waiting + self.working)

        def tell(number, event):
            events.put_nowait((number, event))

        places = [Place(work, item, kind, partial(tell, number)) for number, item in enumerate(items)]
        self.waiting += places
        if self.task is None or self.task.done():
            self.task = asyncio.ensure_future(self.work_off())
        return Turn(places, events, before, partial(self._leave, places))

    async def on_its_thread(self, function, *arguments):
        """What a short `function` gives, called between two steps of the batch that is worked on."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, function, *arguments)

    def _leave(self, places):
        for place in places:
            place.left = True
        self.waiting = [place for place in self.waiting if not place.left]

    async def work_off(self):
        while self.waiting:
            kind = self.waiting[0].kind
            self.working = [place for place in self.waiting if place.kind == kind][:MOST_TOGETHER]
            self.waiting = [place for place in self.waiting if place not in self.working]
            steps = self.working[0].work([place.item for place in self.working])
            try:
                while not self.closing() and not all(place.left for place in self.working):
                    events = await self.on_its_thread(next, steps, None)
                    if events is None:
                        break
                    self._tell(events)
            except UserError as error:  # a conversation that the model's template does not take
                self._tell([{"error": str(error)}] * len(self.working))
            except Exception as error:  # of one batch; the server goes on
                say_error(report(error))
                self._tell([{"error": FAILED}] * len(self.working))
            finally:
                self.thread.submit(steps.close)
                self._tell([None] * len(self.working), over=True)
                self.working = []

    def _tell(self, events, over=False):
        for place, event in zip(self.working, events, strict=True):
            if over or event is not None:
                place.tell(event)
