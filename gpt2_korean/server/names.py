"""By which names a server is called that is for its own computer alone.

A page of elsewhere may reach it under a name of that page's own (DNS rebinding); it is not answered.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from gpt2_korean.server.openai_answers import describe_refusal

STRANGE = (
    "이 컴퓨터의 이름(localhost, 127.0.0.1)으로 온 요청에만 답합니다. 컨테이너나 터널처럼 다른 이름으로 접속하려면 "
    "서버를 --host=0.0.0.0과 --api_key로 여세요."
)


def answer_to(app, names):
    """An ASGI application that hands on to `app` what is asked of it by one of `names`."""

    async def asked(scope, receive, send):
        known = name_of(Headers(scope=scope).get("host", "")) in names
        answer = app if known else JSONResponse(describe_refusal(STRANGE), 400)
        await answer(scope, receive, send)

    return asked


def name_of(header):
    """The name or the address of a Host header, without its port; None where it has none."""
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None
