"""The port that a page listens at: opened before torch is imported, so that what stands in its way is said at once."""

import errno
import importlib.util
import socket

from gpt2_korean.messages import UsageError, UserError


def open_port(host, port):
    """A socket that listens there. Raises UserError where the packages are missing, UsageError for host and port."""
    if not all(map(importlib.util.find_spec, ("starlette", "uvicorn"))):
        raise UserError("--serve에는 패키지 둘이 더 필요합니다: pip install -r requirements-serve.txt")
    way_on = "127.0.0.1(이 컴퓨터에서만)이나 0.0.0.0(어디서나)을 주세요"
    if not host:  # as of a variable that is not set: to the system all addresses
        raise UsageError(f"--host: 값이 비었습니다. {way_on}.")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError, UnicodeError) as error:
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise UsageError(f"--port={port}: 이미 사용 중인 포트입니다. 다른 포트나 0(빈 포트)을 주세요.") from None
        if isinstance(error, PermissionError):
            raise UsageError(f"--port={port}: 관리자만 여는 포트입니다. 1024 이상을 주세요.") from None
        raise UsageError(f"--host={host} --port={port}: 이 주소로는 열 수 없습니다. {way_on}.") from None
