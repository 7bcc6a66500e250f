"""--api_key: who is asked for it, and whether it is the right one.

All of the server asks for it but /health: programs send it as OpenAI's API has it (Bearer), a browser that opens the
page asks its user (HTTP Basic: any name, the key as the password) and sends it along with all that the page asks for.
"""

import base64
import secrets
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from gpt2_korean.server.openai_answers import describe_refusal

OPEN = ("/health",)
WRONG = "API 키가 없거나 맞지 않습니다. --api_key의 값을 Authorization: Bearer로 보내세요."


def ask_for_key(app, key):
    """An ASGI application that hands on to `app` what has the `key`."""

    async def asked(scope, receive, send):
        given = key_of(Headers(scope=scope).get("authorization", ""))
        if scope["path"] in OPEN or secrets.compare_digest(given, key.encode()):
            await app(scope, receive, send)
            return
        scheme = "Bearer" if scope["path"].startswith(("/v1/", "/props")) else 'Basic realm="gpt2-korean"'
        told = describe_refusal(WRONG, 401, code="invalid_api_key")
        await JSONResponse(told, 401, {"WWW-Authenticate": scheme})(scope, receive, send)

    return asked


def key_of(header):
    """The key of an Authorization header, as bytes; empty where it has none."""
    scheme, _, given = header.partition(" ")
    if scheme.lower() == "bearer":
        return given.strip().encode()
    if scheme.lower() == "basic":
        with suppress(ValueError):
            return base64.b64decode(given.strip(), validate=True).partition(b":")[2]
    return b""
