"""An HTTP server on loopback that writes down what it is sent."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import NamedTuple

from infra.servers import HOST


class Request(NamedTuple):
    """One request."""

    method: str
    path: str
    body: str


@contextmanager
def receiver() -> Iterator[tuple[str, list[Request]]]:
    """Its URL, and the PUT and POST requests so far."""
    requests: list[Request] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            requests.append(Request(self.command, self.path, body))
            self.send_response(200)
            self.end_headers()

        do_PUT = do_POST

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer((HOST, 0), Receiver)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
