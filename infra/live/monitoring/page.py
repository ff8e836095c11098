"""A page of the running service: one HTML file, fed by server-sent events.

It runs in a thread with an event loop of its own. Each browser has at most one event on its way:
the next is made when the one before was sent, so a slow browser gets fewer and newer ones.
"""

import asyncio
import ipaddress
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Response
from fastapi.responses import HTMLResponse, StreamingResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from starlette.middleware.trustedhost import TrustedHostMiddleware

from infra.live.monitoring.document import ENCODER
from infra.live.monitoring.view import View
from infra.servers import HOST
from model_code.errors import ConfigError, TicklineError
from model_code.pages.page import switchable
from model_code.settings import Settings

PERIOD_S = 0.5
MOST_CLIENTS = 16
FILE = Path(__file__).with_name("page.html")
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src data:; "
    "script-src 'unsafe-inline'; style-src 'unsafe-inline'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to the address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def build(
    view: View, settings: Settings, host: str = HOST, *, running: Callable[[], bool]
) -> FastAPI:
    """The page's application.

    Args:
        view: of the service.
        settings: with a password, every request needs it.
        host: listen address.
        running: events end when it is false.

    Raises:
        ConfigError: the address is not loopback and there is no password.
    """
    password = settings.auth_password
    if password is None and not is_loopback(host):
        raise ConfigError(
            f"the page would be open to everyone who reaches {host}",
            where="--page-host",
            remedy="set TICKLINE_AUTH_PASSWORD, or listen on 127.0.0.1",
        )
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    needs = []
    if password is not None:
        needs = [Depends(_login(settings.auth_username, password.get_secret_value()))]
    else:
        # a foreign page must not read this one through a name that resolves to 127.0.0.1
        names = [HOST, "localhost", host]
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False)
    clients = 0

    @app.get("/", dependencies=needs)
    def page() -> HTMLResponse:
        text = FILE.read_text("utf-8").replace("/* stylesheet */", switchable())
        return HTMLResponse(text, headers=HEADERS)

    @app.get("/api/state", dependencies=needs)
    def state() -> Response:
        return Response(ENCODER.encode(view.document()), 200, HEADERS, "application/json")

    @app.get("/api/events", dependencies=needs)
    async def events() -> StreamingResponse:
        nonlocal clients
        if clients >= MOST_CLIENTS:
            raise HTTPException(503, f"{clients} clients are connected")
        return StreamingResponse(stream(), 200, HEADERS, "text/event-stream")

    async def stream() -> AsyncIterator[bytes]:
        nonlocal clients
        clients += 1
        after_ms = 0
        try:
            yield b"retry: 2000\n\n"
            while running():
                document = view.document(after_ms)
                yield b"data: " + ENCODER.encode(document) + b"\n\n"
                newest = [one.points[-1].at_ms for one in document.instruments if one.points]
                after_ms = max([after_ms, *newest])
                await asyncio.sleep(PERIOD_S)
        finally:
            clients -= 1

    return app


def serve(view: View, settings: Settings, port: int, host: str = HOST) -> Callable[[], None]:
    """Serve http://host:port in a thread; return a function that stops it.

    Raises:
        ConfigError: the address is not loopback and there is no password.
        TicklineError: the port is taken.
    """
    app = build(view, settings, host, running=lambda: not server.should_exit)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, loop="asyncio", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    listening = _listen(host, port)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listening]}, name="page", daemon=True
    )
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join()
        listening.close()

    return stop


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with ExitStack() as undo:
            listening = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen()
            undo.pop_all()
    except OSError as error:
        raise TicklineError(
            f"cannot serve the page: {error.strerror or error}",
            where=f"{host}:{port}",
            remedy="choose another --page or --page-host",
        ) from error
    return listening


def _login(username: str, password: str) -> Callable[..., None]:
    basic = HTTPBasic(realm="Tickline")

    def check(given: Annotated[HTTPBasicCredentials, Depends(basic)]) -> None:
        same = secrets.compare_digest(given.username.encode(), username.encode())
        same &= secrets.compare_digest(given.password.encode(), password.encode())
        if not same:
            raise HTTPException(401, headers={"WWW-Authenticate": 'Basic realm="Tickline"'})

    return check
