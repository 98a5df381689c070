"""Who may ask Prefect's server: this machine, its own pages, and only with the token."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import httpx
import pytest

from headstart.service.guard import Guard, auth_string
from headstart.service.patience import LIMIT_BYTES, Patience

PORT = 4217
TOKEN = "a-token-that-nobody-guesses"
HERE = f"http://127.0.0.1:{PORT}"
STRANGER = f"http://rebound.example:{PORT}"


async def inner(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    """Stand for Prefect's server, which starts what it is asked to start."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"started"})


def ask(method: str, url: str, **options: Any) -> httpx.Response:
    async def exchange() -> httpx.Response:
        transport = httpx.ASGITransport(Guard(inner, PORT, TOKEN))
        async with httpx.AsyncClient(transport=transport) as client:
            return await client.request(method, url, **options)

    return asyncio.run(exchange())


def basic(text: str) -> httpx.BasicAuth:
    return httpx.BasicAuth(*text.split(":"))


COOKIE = {"Cookie": f"headstart-{PORT}={TOKEN}"}


def test_prefects_clients_pass_with_the_token() -> None:
    auth = basic(auth_string(TOKEN))
    assert ask("POST", f"{HERE}/api/flow_runs", auth=auth).text == "started"
    assert ask("GET", f"http://localhost:{PORT}/api/csrf-token", auth=auth).text == "started"


@pytest.mark.parametrize("path", ["/", "/api/flow_runs", "/api/csrf-token", "/api/health/../admin"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Basic aGVhZHN0YXJ0Og=="},
        {"Authorization": "Basic ?"},
        {"Authorization": f"Bearer {TOKEN}"},
        {"Cookie": f"headstart-{PORT}=another"},
        {"Cookie": f"headstart-1={TOKEN}"},
        {"Cookie": "\x7f;;="},
    ],
)
def test_nobody_passes_without_the_token(path: str, headers: dict[str, str]) -> None:
    reply = ask("GET", HERE + path, headers=headers)
    assert reply.status_code == 401
    assert "headstart up" in reply.text
    assert ask("POST", HERE + path, headers=headers).status_code == 401


def test_the_printed_address_leaves_a_cookie_that_passes() -> None:
    reply = ask("GET", f"{HERE}/runs?token={TOKEN}&a=b%20c")
    assert reply.status_code == 303
    assert reply.headers["location"] == "/runs?a=b+c"
    cookie = reply.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    brought = {"Cookie": cookie.partition(";")[0], "Origin": HERE}
    assert ask("POST", f"{HERE}/api/flow_runs", headers=brought).text == "started"
    assert ask("GET", f"{HERE}/?token=wrong").status_code == 401
    assert ask("POST", f"{HERE}/?token={TOKEN}").status_code == 401


def test_the_way_on_leads_to_this_server() -> None:
    assert ask("GET", f"{HERE}//elsewhere.example/?token={TOKEN}").headers["location"] == (
        "/elsewhere.example/"
    )


@pytest.mark.parametrize("path", ["/", "/api/csrf-token", "/api/health", f"/?token={TOKEN}"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_page_that_rebinds_its_name_gets_nothing(method: str, path: str) -> None:
    """Its requests reach this address, and say its own name; even with all secrets known."""
    reply = ask(method, STRANGER + path, headers=COOKIE, auth=basic(auth_string(TOKEN)))
    assert reply.status_code == 403


@pytest.mark.parametrize("origin", [STRANGER, "null", "http://127.0.0.1:9", "", "http://localhost"])
def test_a_page_from_elsewhere_gets_nothing_by_this_servers_name(origin: str) -> None:
    """Which is what a form of a page on another port of this machine sends, cookie and all."""
    headers = {**COOKIE, "Origin": origin}
    assert ask("POST", f"{HERE}/api/flow_runs", headers=headers).status_code == 403


def test_a_probe_needs_no_token() -> None:
    assert ask("GET", f"{HERE}/api/health").status_code == 200
    assert ask("POST", f"{HERE}/api/health").status_code == 401


def opened(headers: dict[str, str]) -> str:
    """Open a websocket; return the type of the first answer."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "websocket", "path": "/api/events/in", "headers": pairs, "query_string": b""}
    asyncio.run(Guard(inner, PORT, TOKEN)(scope, receive, send))
    return str(sent[0]["type"])


def test_websockets_pass_the_same_way() -> None:
    host = {"Host": f"127.0.0.1:{PORT}"}
    assert opened({**host, **COOKIE, "Origin": HERE}) == "websocket.accept"
    assert opened(host) == "websocket.close"
    assert opened({**host, **COOKIE, "Origin": STRANGER}) == "websocket.close"
    assert opened({**COOKIE, "Host": f"rebound.example:{PORT}"}) == "websocket.close"


class Busy:
    """Stand for Prefect's server while another one writes into its database."""

    def __init__(self, num_refused: int) -> None:
        self.num_refused = num_refused
        self.bodies: list[bytes] = []

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        is_busy = len(self.bodies) <= self.num_refused
        status = 503 if is_busy else 201
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"locked" if is_busy else b"made"})
        if is_busy:  # as starlette does once it has answered
            raise OSError("database is locked")


def send_to(busy: Busy, url: str, body: bytes) -> httpx.Response:
    async def exchange() -> httpx.Response:
        app = Patience(busy, pauses_s=(0.0, 0.0))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport) as client:
            return await client.post(url, content=body)

    return asyncio.run(exchange())


def test_a_click_is_not_lost_to_a_busy_database() -> None:
    busy = Busy(num_refused=2)
    answer = send_to(busy, f"{HERE}/api/deployments/1/create_flow_run", b"parameters")
    assert (answer.status_code, answer.text) == (201, "made")
    assert busy.bodies == [b"parameters"] * 3


def test_a_database_that_stays_busy_is_said_so() -> None:
    assert send_to(Busy(num_refused=9), f"{HERE}/api/flow_runs/", b"{}").status_code == 503


@pytest.mark.parametrize(
    ("path", "body"), [("/api/ready", b""), ("/api/flow_runs/", b"x" * (LIMIT_BYTES + 1))]
)
def test_probes_and_large_requests_are_asked_once(path: str, body: bytes) -> None:
    busy = Busy(num_refused=1)
    assert send_to(busy, HERE + path, body).status_code == 503
    assert len(busy.bodies) == 1
