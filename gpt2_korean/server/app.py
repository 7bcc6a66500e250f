"""A model → a page to write with: what the browser asks is checked, waits its turn, and is answered as it comes.

The page is in page/. It asks in JSON and gets a line of JSON for each event; hanging up ends the work. The
words and the checks of the settings are those of cli/.
"""

import contextlib
import ipaddress
import json
import mimetypes
import secrets
from dataclasses import replace
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from gpt2_korean.cli.generate_options import PAGE_START, describe_settings, parse_setting
from gpt2_korean.generation.write import converses
from gpt2_korean.messages import UserError, say, warn
from gpt2_korean.server.events import Asked, about_model, suggest_texts, write_text
from gpt2_korean.server.key import ask_for_key
from gpt2_korean.server.names import answer_to
from gpt2_korean.server.openai_answers import describe_refusal
from gpt2_korean.server.openai_routes import is_json, openai_routes, parse_json, read_body, stream
from gpt2_korean.server.turns import FULL, Line, LineIsFull
from gpt2_korean.text.prompts import read_prompts

# What the page can change: its Korean name; least, most and step of its slider. The field takes whatever the flag does.
SLIDERS = {
    "length": ("길이", 10, 300, 10),
    "min_length": ("최소 길이", 0, 300, 10),
    "temperature": ("다양성", 0, 2, 0.05),
    "top_p": ("후보의 확률 합", 0.05, 1, 0.01),
    "top_k": ("후보 수", 0, 200, 1),
    "repetition_penalty": ("반복 페널티", 1, 2, 0.05),
}
PRESETS = {
    "차분하게": {"top_k": 50, "top_p": 0.9, "temperature": 0.4, "repetition_penalty": 1.2},
    "보통": {"top_k": 50, **PAGE_START},
    "자유롭게": {"top_k": 0, "top_p": 0.98, "temperature": 1.0, "repetition_penalty": 1.1},
}
# The most that is done for one text, however it was asked for.
MOST_LENGTH, MOST_CHARACTERS = 1000, 20_000
TOO_LONG = f"글이 너무 깁니다. {MOST_CHARACTERS:,}자까지 쓸 수 있습니다."
# Who leaves out /v1 is told so.
API = "OpenAI API의 주소는 /v1/models, /v1/completions, /v1/chat/completions입니다."
ERRORS = {404: f"그런 주소가 없습니다. {API}", 405: f"이 주소에는 쓸 수 없는 메서드입니다. {API}"}
# The page loads nothing from elsewhere and sends no referrer. Browsers have to ask whether their copy of it is current:
# after an update they would mix old scripts with new ones.
POLICY = "default-src 'self'; img-src data:; frame-ancestors 'none'"
HEADERS = [("Content-Security-Policy", POLICY), ("Referrer-Policy", "no-referrer"), ("Cache-Control", "no-cache")]


def serve(listener, page):
    """Answer whoever comes to `listener` until Ctrl-C."""
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host)
    if not address.is_loopback and not page.options.page.api_key:
        warn(
            "암호가 없습니다. 이 주소에 접속하는 사람은 누구나 이 모델로 글을 쓸 수 있으니 믿는 네트워크에서만 열거나 "
            "--api_key를 더하세요."
        )
    elsewhere = f"다른 컴퓨터에서는 {host} 대신 이 컴퓨터의 IP 주소, " if address.is_unspecified else ""
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    say(f"웹 페이지: {url} · OpenAI API: {url}/v1 ({elsewhere}끝내려면 Ctrl-C)")
    with contextlib.suppress(KeyboardInterrupt):  # which uvicorn raises once it has closed
        build_server(host, page).run(sockets=[listener])
    say("웹 페이지를 닫았습니다.")


def build_server(host, page):
    """The page as a uvicorn.Server for the address `host`."""
    names = {"localhost", "127.0.0.1", "::1", host} if ipaddress.ip_address(host).is_loopback else None
    app = build_app(names, lambda: server.should_exit, page)
    # Java's own client offers HTTP/2 with each request. httptools, where it is installed, loses the body of such a
    # request, and uvicorn warns at each that it has no WebSockets.
    plain = {"http": "h11", "ws": "none", "lifespan": "off"}
    quiet = {"log_level": "error", "access_log": False, "server_header": False}
    server = uvicorn.Server(uvicorn.Config(app, headers=HEADERS, timeout_graceful_shutdown=5, **plain, **quiet))
    return server


def build_app(names, closing, page):
    """The page and the API as an ASGI application, called by `names` (None: any); `closing()`: whether it ends."""

    async def tell_error(_request, error):
        told = describe_refusal(ERRORS.get(error.status_code, error.detail), error.status_code)
        return JSONResponse(told, error.status_code, error.headers)

    line, served, settings = Line(closing), page.options.page, page.options.settings
    length = most_tokens(settings)
    guards = [Middleware(answer_to, names=names)] if names else []
    if served.cors_origin:
        given = {"allow_origins": served.cors_origin, "allow_methods": ["GET", "POST"], "allow_headers": ["*"]}
        # Some versions of Chrome ask the server, by a header, whether a public site may reach this computer.
        guards.append(Middleware(CORSMiddleware, allow_private_network=True, **given))
    if served.api_key:
        guards.append(Middleware(ask_for_key, key=served.api_key))
    routes = [*openai_routes(page, line, length, MOST_CHARACTERS), *page_routes(page, line)]
    return Starlette(routes=routes, middleware=guards, exception_handlers={HTTPException: tell_error})


def page_routes(page, line):
    """A list of Starlette's routes."""
    mimetypes.add_type("text/javascript", ".js")  # in the registry of many a Windows it is plain text: no script then
    settings, seed, chat = page.options.settings, page.options.model.seed, page.model.chat

    async def describe(_request):
        about = {
            "model": about_model(page),
            "sliders": describe_sliders(settings),
            "presets": list_presets(settings),
            "seed": None if seed is None else str(seed),
            "prompt": page.prompt,
            "chat": converses(page.model, page.options.prompts),
            "suggests": chat is None,
            "characters": MOST_CHARACTERS,
        }
        return JSONResponse(about)

    def answer_with(write):
        def work(asked):
            return ([event] for event in write(page, *asked))

        async def answer(request):
            try:
                asked = await read_request(request, settings, needs_words=chat is not None)
                turn = line.join(work, [asked])
            except (UserError, ClientDisconnect) as error:  # who has left does not read it
                return JSONResponse({"error": str(error), "field": getattr(error, "field", None)}, 400)
            except LineIsFull:
                return JSONResponse({"error": FULL}, 503)
            return stream(turn, stream_lines(turn), "application/x-ndjson")

        return answer

    return [
        Route("/settings", describe),
        Route("/write", answer_with(write_text), methods=["POST"]),
        Route("/suggest", answer_with(suggest_texts), methods=["POST"]),
        Mount("/", StaticFiles(directory=Path(__file__).parent / "page", html=True)),
    ]


def most_tokens(settings):
    """Of one text: MOST_LENGTH, or what the flags have set where that is more."""
    return max(MOST_LENGTH, settings.length, settings.min_length)


async def stream_lines(turn):
    """Yield a line for each event of the page's turn, first how many are before it if there are some."""
    if turn.before:
        yield json.dumps({"waiting": turn.before}) + "\n"
    async for _, event in turn.read():
        yield json.dumps(event, ensure_ascii=False) + "\n"


def describe_sliders(settings):
    """A list of dicts, one for each of SLIDERS, with its value in `settings`."""
    words = describe_settings(SLIDERS)
    return [
        {"name": name, "label": label, "value": getattr(settings, name), "least": least, "most": most, "step": step}
        | {"words": words[name].partition(" (기본값")[0].removeprefix(f"{label}: ")}  # the page has its own
        for name, (label, least, most, step) in SLIDERS.items()
    ]


def list_presets(settings):
    """`[{"name", "values"}]`: PRESETS, and first what flags have set if that is none of them."""
    start = {name: getattr(settings, name) for name in PRESETS["보통"]}
    own = {} if start in PRESETS.values() else {"처음 값": start}
    return [{"name": name, "values": values} for name, values in {**own, **PRESETS}.items()]


async def read_request(request, settings, needs_words):
    """What is Asked, each part checked as the flags are; what it leaves out of `settings` stays.

    needs_words: whether an empty prompt is none. Raises UserError.
    """
    if not is_json(request):
        raise UserError("application/json이 아닌 요청입니다.")
    body = await read_body(request, 8 * MOST_CHARACTERS)  # a character is 6 bytes at most
    if body is None:
        raise UserError(TOO_LONG)
    try:
        asked = parse_json(body)
        turns = [(read_prompts([str(prompt)])[0], str(text)) for prompt, text in asked.get("turns", [])]
        texts = [str(asked["prompt"]), *(text for turn in turns for text in turn)]
        words = {name: str(word) for name, word in asked.get("settings", {}).items()}
        seed = asked.get("seed")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UserError("읽을 수 없는 요청입니다.") from None
    if sum(map(len, texts)) > MOST_CHARACTERS:
        raise UserError(TOO_LONG)
    if needs_words and not texts[0].strip():
        raise UserError("건넬 말을 입력하세요.")
    most = most_tokens(settings)
    changed = {name: read_field(name, word, SLIDERS, most_tokens=most) for name, word in words.items()}
    seed = secrets.randbits(32) if seed is None else read_field("seed", str(seed), ["seed"])
    return Asked(read_prompts([texts[0]])[0], turns, replace(settings, **changed), seed)


def read_field(name, word, names, **limits):
    """As parse_setting; the UserError that it raises has the name of the field as its `field`."""
    try:
        return parse_setting(name, word, names, **limits)
    except UserError as error:
        refusal = UserError(str(error).removeprefix(f"--{name}: "))
        refusal.field = name
        raise refusal from None
