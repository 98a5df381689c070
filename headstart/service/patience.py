"""Behind the guard: what Prefect's server asks its clients to send again is sent again here.

Its database has one writer at a time, and on a busy machine the server answers 503 to who came in
between. Prefect's own clients then ask again; its pages do not, and a click on Submit is lost.
"""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from headstart.service.guard import OPEN_PATHS, App, Receive, Scope, Send

PAUSES_S = (0.1, 0.3, 1.0, 3.0, 6.0)
"""Seconds before each new try, in which the other writer comes to its end."""
BUSY = 503
LIMIT_BYTES = 2**20
"""Of a request that is kept to be sent again; the parameters of a run are a few kB."""


class Patience:
    """An ASGI application around another one, which asks it again where it is busy.

    Args:
        app: The ASGI application to pass requests to.
        pauses_s: Seconds before each new try.
    """

    def __init__(self, app: App, pauses_s: tuple[float, ...] = PAUSES_S) -> None:
        self._app = app
        self._pauses_s = pauses_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request with the first answer that is not 503, or with the last one."""
        if not _can_be_kept(scope):
            await self._app(scope, receive, send)
            return
        messages = [await receive()]
        while messages[-1].get("more_body"):
            messages.append(await receive())
        for pause_s in self._pauses_s:
            if not await self._is_busy(scope, messages, receive, send):
                return
            await asyncio.sleep(pause_s)
        await self._app(dict(scope), _first(messages, receive), send)

    async def _is_busy(
        self, scope: Scope, messages: list[MutableMapping[str, Any]], receive: Receive, send: Send
    ) -> bool:
        """Ask once; pass the answer on unless it is 503."""
        is_busy = False

        async def pass_on(message: MutableMapping[str, Any]) -> None:
            nonlocal is_busy
            if message["type"] == "http.response.start":
                is_busy = message["status"] == BUSY
            if not is_busy:
                await send(message)

        try:
            # A copy: the application writes into it where the request has got to.
            await self._app(dict(scope), _first(messages, receive), pass_on)
        except Exception:  # what the 503 was for; uvicorn is to log the last one only
            if not is_busy:
                raise
        return is_busy


def _can_be_kept(scope: Scope) -> bool:
    """Say whether a request is one that may be sent again, and small enough to be kept."""
    if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
        return False
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"0")
    return length.isdigit() and int(length) <= LIMIT_BYTES and b"transfer-encoding" not in headers


def _first(messages: list[MutableMapping[str, Any]], receive: Receive) -> Receive:
    """Return what gives the messages of a request that have come already, then those to come."""
    left = list(messages)

    async def next_one() -> MutableMapping[str, Any]:
        return left.pop(0) if left else await receive()

    return next_one
