"""Many at once: nobody is lost, nobody waits for those who came later, and memory does not grow."""

import asyncio
import gc
import http.client
import json
import threading
import time

import pytest
from server.client import ask, post, written

from gpt2_korean.generation import write
from gpt2_korean.server.openai_requests import Refused
from gpt2_korean.server.openai_routes import read_events, read_whole
from gpt2_korean.server.turns import MOST_TOGETHER, Line, LineIsFull


def complete(port, **asked):
    answer = post(port, "/v1/completions", {"prompt": "가", **asked})
    return answer.status, json.loads(answer.read())


def call_at_once(clients, function):
    """What `function(client)` gives for each of so many threads."""
    given = [None] * clients

    def call(client):
        given[client] = function(client)

    threads = [threading.Thread(target=call, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return given


@pytest.fixture
def batches(monkeypatch):
    """How many texts were written together, each time."""
    seen, original = [], write._push_chunks

    def push(streams, *others):
        seen.append(len(streams))
        return original(streams, *others)

    monkeypatch.setattr(write, "_push_chunks", push)
    return seen


def test_200_requests_of_20_clients_are_all_answered_and_written_together(port, batches):
    prompts = [f"{number}번째 글은" for number in range(200)]
    greedy = {"temperature": 0, "max_tokens": 6, "repetition_penalty": 1}

    def ask_ten(client):
        return [complete(port, prompt=prompt, **greedy) for prompt in prompts[client * 10 : client * 10 + 10]]

    answers = [each for ten in call_at_once(20, ask_ten) for each in ten]
    assert [status for status, _ in answers] == [200] * 200 and sum(batches) == 200
    assert len(batches) < 100 and max(batches) <= MOST_TOGETHER
    for start in range(0, 200, 50):  # each its own: what it is when it is written alone
        assert answers[start][1]["choices"] == complete(port, prompt=prompts[start], **greedy)[1]["choices"]
    assert len({answer["choices"][0]["text"] for _, answer in answers}) > 20


def test_all_kinds_of_requests_at_once_are_answered(port, open_page):
    def ask_one(client):
        kind = client % 4
        if kind == 0:
            return complete(port, max_tokens=5 + client, stream=False)[0]
        if kind == 1:
            return post(port, "/v1/completions", {"prompt": "나", "stream": True}).read().endswith(b"data: [DONE]\n\n")
        if kind == 2:
            return written(ask(port, "/write", prompt="다")[1]) != ""
        return complete(port, seed=client, logprobs=1, echo=True, n=2)[0]

    assert call_at_once(40, ask_one) == [200, True, True, 200] * 10


def test_memory_does_not_grow_with_the_requests(port):
    asked = [
        {"prompt": "가", "max_tokens": 3, "logprobs": 1},
        {"prompt": "나", "max_tokens": 3, "stream": True},
        {"prompt": 5},
    ]

    def objects_after(rounds):
        for _ in range(rounds):
            for each in asked:
                post(port, "/v1/completions", each).read()
        counts = []
        for _ in range(5):  # until the last of them is put away
            time.sleep(0.1)
            gc.collect()
            counts.append(len(gc.get_objects()))
        return min(counts)

    objects_after(5)
    before = objects_after(5)
    assert objects_after(40) - before < 40  # less than one for each round


def test_who_hangs_up_leaves_the_line_whether_its_text_is_streamed_or_not(open_page):
    port = open_page("--length=1000000", "--min_length=1000000")
    for stream in (True, False):
        first = post_without_waiting(port, {"prompt": "가", "stream": stream})
        second = post_without_waiting(port, {"prompt": "나", "stream": stream, "seed": 1})
        time.sleep(0.1)
        first.close()
        second.close()
        assert complete(port, max_tokens=1, min_tokens=0)[0] == 200


def post_without_waiting(port, asked):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("POST", "/v1/completions", json.dumps(asked), {"Content-Type": "application/json"})
    return connection


def test_the_oldest_goes_first_and_takes_its_kind_along():
    worked = []

    def work(items):
        worked.append(items)
        yield [{"done": item} for item in items]

    async def run():
        line = Line(lambda: False)
        turns = [line.join(work, [item], item[0]) for item in ("a1", "b1", "a2", "c1", "b2", "a3")]
        turns += [line.join(work, ["x1"]), line.join(work, ["x2"])]
        left = line.join(work, ["a4", "d1"], "a")
        left.leave()
        many = line.join(work, [f"m{number}" for number in range(MOST_TOGETHER + 1)], "m")
        assert [turn.before for turn in turns] == list(range(8))
        return [[event async for event in turn.read()] for turn in [*turns, many]]

    told = asyncio.run(run())
    assert worked[:5] == [["a1", "a2", "a3"], ["b1", "b2"], ["c1"], ["x1"], ["x2"]]
    assert [len(items) for items in worked[5:]] == [MOST_TOGETHER, 1]
    assert told[1] == [(0, {"done": "b1"})] and len(told[-1]) == MOST_TOGETHER + 1


def test_a_full_line_takes_no_more_until_somebody_leaves_and_an_empty_one_whatever_is_asked(monkeypatch):
    monkeypatch.setattr("gpt2_korean.server.turns.MOST_WAITING", 3)

    def work(items):
        yield [{"done": item} for item in items]

    async def run():
        line = Line(lambda: False)

        def is_full():
            with pytest.raises(LineIsFull):
                line.join(work, ["z"])
            return True

        large = line.join(work, range(5))
        assert is_full()
        large.leave()
        first, second = line.join(work, ["a", "b"]), line.join(work, ["c"])
        assert is_full()
        second.leave()
        third = line.join(work, ["d"])
        assert is_full() and third.before == 2
        async for _, event in first.read():
            if event["done"] == "a":  # while it is worked on
                fourth = line.join(work, ["e"])
        assert fourth.before == 3
        return [[event async for event in turn.read()] for turn in (third, fourth)]

    assert asyncio.run(run()) == [[(0, {"done": "d"})], [(0, {"done": "e"})]]


def test_an_answer_that_has_ended_waits_for_no_other_of_its_batch():
    done = []

    def work(items):
        yield [{"text": "", "ended": "stop"}, {"text": "나"}]
        yield from [[None, {"text": "나"}]] * 50
        done.append("written")
        yield [None, {"text": "", "ended": "length"}]

    async def read(turn, name):
        events = [event async for event in read_events(turn)]
        done.append(name)
        return len(events)

    async def run():
        line = Line(lambda: False)
        short, long = (line.join(work, [item], "kind") for item in ("a", "b"))
        return await asyncio.gather(read(short, "short"), read(long, "long"))

    assert asyncio.run(run()) == [1, 52] and done == ["short", "written", "long"]


def test_an_answer_that_the_end_of_the_server_cuts_is_none():
    closing = []

    def work(items):
        yield [{"text": "가"}]
        closing.append(True)
        yield [{"text": "나"}]
        yield [{"text": "다", "ended": "stop"}]

    async def run():
        return await read_whole(Line(lambda: bool(closing)).join(work, ["a"]))

    with pytest.raises(Refused, match="닫히는 중") as refusal:
        asyncio.run(run())
    assert refusal.value.status == 503


def test_a_batch_that_fails_is_told_to_each_of_it_and_to_nobody_else(port, monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(tmp_path)
    original = write.stream_pieces

    def fail(model, prompts, settings, *others, **keywords):
        if settings.length == 9:
            raise RuntimeError("secret details")
        return original(model, prompts, settings, *others, **keywords)

    monkeypatch.setattr(write, "stream_pieces", fail)
    answers = call_at_once(6, lambda client: complete(port, max_tokens=9 if client % 2 else 4))
    assert [status for status, _ in answers] == [200, 500] * 3
    assert all(answer["error"]["type"] == "server_error" for _, answer in answers[1::2])
    assert "secret" not in str(answers)
    streamed = post(port, "/v1/completions", {"prompt": "가", "max_tokens": 9, "stream": True}).read().decode()
    assert streamed.count("data: ") == 1 and "server_error" in streamed
    assert "Traceback" not in capfd.readouterr().err
