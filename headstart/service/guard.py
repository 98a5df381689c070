"""In front of Prefect's server: who may ask it.

It starts programs for whoever asks, so that an address on loopback is not enough: any web page
can have its own name resolve to it (DNS rebinding), and any other user of the machine can reach
it. A request must name this machine in its Host, come from the server's own pages where it says
where it comes from, and bring the token: as Prefect's clients do, with basic auth, or as a cookie,
which the address that `headstart up` prints leaves in the browser.
"""

import base64
import hmac
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

USER = "headstart"
"""Basic auth wants a name too."""
PARAMETER = "token"
OPEN_PATHS = ("/api/health", "/api/ready")
"""What says only that the server runs; probes ask it without a token."""
TOKEN_FILE = "token"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def keep_token(folder: Path, name: str = TOKEN_FILE) -> str:
    """Return the token of a store's service, the same at each start; made where there is none.

    Args:
        folder: Folder of the service; made where it is not there.
        name: Name of the file, which its owner alone can read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if not path.exists():
        aside = path.with_name(f".{name}.{secrets.token_hex(8)}")
        aside.touch(mode=0o600, exist_ok=False)
        aside.write_text(secrets.token_urlsafe(32), encoding="ascii")
        aside.replace(path)
    return path.read_text(encoding="ascii").strip()


def auth_string(token: str) -> str:
    """Return what PREFECT_API_AUTH_STRING is for a token."""
    return f"{USER}:{token}"


class Guard:
    """An ASGI application around another one.

    Args:
        app: ASGI application that is asked once a request has passed.
        port: Port that it is served on, on loopback.
        token: Token that a request must bring.
    """

    def __init__(self, app: App, port: int, token: str) -> None:
        self._app = app
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._cookie = f"headstart-{port}"  # browsers keep one jar for all ports of a host
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] not in ("http", "websocket"):  # start and end of the server
            await self._app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        origin = headers.get("origin")
        if headers.get("host") not in self._hosts:
            await _refuse(
                scope, receive, send, 403, "This server only accepts requests for 127.0.0.1."
            )
        elif origin is not None and origin.partition("://")[2] not in self._hosts:
            await _refuse(
                scope, receive, send, 403, "This server only accepts requests from its own pages."
            )
        elif self._brings_token(scope, headers):
            await self._app(scope, receive, send)
        elif (address := self._admit(scope)) is not None:
            await self._welcome(send, address)
        else:
            text = "Open the address that `headstart up` printed; it includes the token."
            await _refuse(scope, receive, send, 401, text)

    def _brings_token(self, scope: Scope, headers: dict[str, str]) -> bool:
        if scope["type"] == "http" and scope["method"] == "GET" and scope["path"] in OPEN_PATHS:
            return True
        kind, _, text = headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            try:
                given = base64.b64decode(text, validate=True)
            except ValueError:
                return False
            return hmac.compare_digest(given, auth_string(self._token).encode())
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        return self._cookie in cookies and self._is_token(cookies[self._cookie].value)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())

    def _admit(self, scope: Scope) -> str | None:
        """Return where to go on, without the token, for a page that was asked for with it."""
        if scope["type"] != "http" or scope["method"] != "GET":
            return None
        given = parse_qsl(scope["query_string"].decode("latin-1"))
        if not any(name == PARAMETER and self._is_token(value) for name, value in given):
            return None
        rest = urlencode([pair for pair in given if pair[0] != PARAMETER])
        # One slash: two would lead to another machine.
        return "/" + quote(scope["path"].lstrip("/")) + (f"?{rest}" if rest else "")

    async def _welcome(self, send: Send, address: str) -> None:
        cookie = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
        headers = [
            (
                b"location",
                address.encode("latin-1", "ignore").replace(b"\r", b"").replace(b"\n", b""),
            ),
            (b"set-cookie", cookie.encode("ascii")),
            (b"cache-control", b"no-store"),
            (b"referrer-policy", b"no-referrer"),
        ]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, text: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": text})
        return
    body = f"{text}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
