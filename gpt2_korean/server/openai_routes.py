"""The addresses of OpenAI's API: a request is checked, waits in line, and is answered whole or as it is written."""

import asyncio
import json
import time
from functools import cache, partial
from pathlib import Path

from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from gpt2_korean.ending import report
from gpt2_korean.messages import UserError, say_error
from gpt2_korean.server import openai_answers as answers
from gpt2_korean.server.events import write_rows
from gpt2_korean.server.openai_requests import Refused, read_completion
from gpt2_korean.server.openai_rows import rows_of
from gpt2_korean.server.turns import FAILED, FULL, LineIsFull

MOST_BYTES = 1 << 20  # of a request
MOST_AWAITED = 64 * MOST_BYTES  # of one that is refused
WAIT = {"Retry-After": "5"}  # seconds; programs wait so long and ask again
CLOSED = "서버가 닫히는 중입니다."
# Values of "model" that name none; huggingface_hub's InferenceClient sends the last where it has an address alone.
NO_MODEL = (None, "", "dummy")


def openai_routes(page, line, most_length, most_characters):
    """A list of Starlette's routes. most_length, most_characters: of one text, in new tokens and of its prompt."""
    options, decoder = page.options, page.model.decoder
    name = served_name(options.model.model_name_or_path)
    model = answers.describe_model(name, int(time.time()), decoder.context)
    pieces = cache(lambda: answers.token_pieces(page.model.tokenizer))

    def refuse(error, headers=None):
        told = answers.describe_refusal(error.message, error.status, error.param, error.code)
        return JSONResponse(told, error.status, headers)

    def answered(endpoint):
        async def answer(request):
            try:
                return await endpoint(request)
            except Refused as error:
                return refuse(error)
            except UserError as error:
                return refuse(Refused(400, str(error)))
            except LineIsFull:
                return refuse(Refused(429, FULL, code="rate_limit_exceeded"), WAIT)
            except ClientDisconnect:
                return Response(status_code=400)  # nobody reads it
            except Exception as error:  # of one request; the server goes on
                say_error(report(error))
                return refuse(Refused(500, FAILED))

        return answer

    def check_model(asked):
        if asked not in (name, options.model.model_name_or_path):
            raise Refused(404, f"model: 없는 모델입니다. 이 서버의 모델은 {name}입니다.", "model", "model_not_found")

    async def complete(request, chat):
        asked = await read_json(request)
        completion = read_completion(asked, options.settings, options.model.seed, most_length, chat)
        if asked.get("model") not in NO_MODEL:
            check_model(asked["model"])
        line.check(completion.n * len(completion.prompts))
        rows = await line.on_its_thread(rows_of, page, completion, most_characters)
        # A seed's texts depend on their request alone.
        kind = (chat, completion.settings) if completion.seed is None else None
        turn = line.join(partial(write_rows, page), rows, kind)
        describe = partial(describe_told, pieces=pieces, chat=chat)
        begun = answers.begin_answer(name, chat)
        if completion.stream:
            lines = stream_answer(turn, begun, completion, rows, describe)
            return stream(turn, lines, "text/event-stream")
        try:
            told = await unless_gone(request, read_whole(turn))
        finally:
            turn.leave()
        choices = [
            answers.describe_choice(number, text, last["ended"], describe(last), chat)
            for number, (text, last) in enumerate(told)
        ]
        usage = count_tokens(rows, completion, [last for _, last in told])
        return JSONResponse({**begun, "choices": choices, "usage": usage})

    async def list_models(_request):
        return JSONResponse({"object": "list", "data": [model]})

    async def find_model(request):
        check_model(request.path_params["name"])
        return JSONResponse(model)

    async def tell_health(_request):
        return JSONResponse({"status": "ok"})

    async def tell_llama_cpp(_request):
        return JSONResponse(answers.describe_server(name, decoder.context, options.settings))

    api = [
        Route("/models", list_models),
        Route("/models/{name:path}", answered(find_model)),
        Route("/completions", answered(partial(complete, chat=False)), methods=["POST"]),
        Route("/chat/completions", answered(partial(complete, chat=True)), methods=["POST"]),
    ]
    return [Mount("/v1", routes=api), Route("/health", tell_health), Route("/props", tell_llama_cpp)]


def served_name(given):
    """What programs call the model: the name of its folder, or of the Hub."""
    return Path(given).resolve().name if Path(given).exists() else given


def stream(turn, lines, media_type):
    """A response of lines as they come; who reads no more leaves the line."""
    # The generator's own leave() comes late where the task is cancelled while it sends a line.
    leave = BackgroundTask(turn.leave)
    return StreamingResponse(lines, media_type=media_type, background=leave)


def is_json(request):
    """Whether a request says that it is JSON: a form of another site cannot, nor a script of it without being asked."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


async def read_json(request):
    """The JSON of a request's body. Raises Refused."""
    if not is_json(request):
        raise Refused(400, "Content-Type: application/json으로 보내세요.")
    body = await read_body(request, MOST_BYTES)
    if body is None:
        raise Refused(413, f"요청이 너무 큽니다. {MOST_BYTES:,}바이트까지 받습니다.")
    try:
        return parse_json(body)
    except (ValueError, RecursionError):
        raise Refused(400, "읽을 수 없는 JSON입니다.") from None


async def read_body(request, most):
    """The body of a request; None where it has more than `most` bytes. It is read to its end
    all the same: a client whose connection is closed while it sends does not read the refusal.
    """
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MOST_AWAITED:
            break
        if size <= most:
            body += chunk
    return body if size <= most else None


def parse_json(body):
    """Raises ValueError and RecursionError, also for half a surrogate pair, which is no text."""
    asked = json.loads(body)
    json.dumps(asked, ensure_ascii=False).encode("utf-8")
    return asked


async def read_events(turn):
    """Yield `(number of the text, event of write_rows)` until all texts have ended, though others of their batch go on.
    Raises Refused where they do not come to their end."""
    left = len(turn.places)
    async for number, event in turn.read():
        if "error" in event:
            raise Refused(500, event["error"])
        left -= "ended" in event
        yield number, event
        if not left:
            return
    raise Refused(503, CLOSED)


async def read_whole(turn):
    """`(text, its last event)` of each text."""
    texts, last = [""] * len(turn.places), [None] * len(turn.places)
    async for number, event in read_events(turn):
        texts[number] += event["text"]
        last[number] = event
    return list(zip(texts, last, strict=True))


async def unless_gone(request, work):
    """What the coroutine `work` gives. Raises ClientDisconnect where the client has hung up before."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return await working
    finally:
        working.cancel()
        leaving.cancel()


async def stream_answer(turn, begun, completion, rows, describe):
    """Yield the lines of an answer as it is written."""
    last = {}
    try:
        async for number, event in read_events(turn):
            first, last[number] = number not in last, event
            ended, told = event.get("ended"), describe(event)
            if event["text"] or ended or first:
                piece = answers.describe_piece(number, event["text"], ended, told, completion.chat, first)
                yield answers.stream_part(begun, [piece])
        if completion.include_usage:
            yield answers.stream_part(begun, [], count_tokens(rows, completion, last.values()))
        yield answers.DONE
    except Refused as error:
        yield answers.stream_line(answers.describe_refusal(error.message, error.status))


def describe_told(event, pieces, chat):
    """The log-probabilities of an event, as the API has them; None where it tells of none."""
    if "logprobs" not in event:
        return None
    describe = answers.describe_chat_logprobs if chat else answers.describe_logprobs
    return describe(event["ids"], event["logprobs"], pieces())


def count_tokens(rows, completion, last):
    """The usage of a request: a prompt counts once, of however many texts."""
    read = sum(row.read for row in rows[:: completion.n])
    return answers.describe_usage(read, sum(event["tokens"] for event in last))
