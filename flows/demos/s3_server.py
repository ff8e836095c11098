"""An S3-compatible server in memory: moto's, one write at a time.

moto looks whether a key exists and then writes it, without a lock between the two, so that two
conditional puts at once may both succeed. Run it: `python -m flows.demos.s3_server HOST PORT`.
"""

import sys
from collections.abc import Iterable
from io import BytesIO
from threading import Lock
from typing import TYPE_CHECKING

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug import Request
from werkzeug.serving import BaseWSGIServer, make_server

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


def s3_server(host: str, port: int) -> BaseWSGIServer:
    """A server that is bound but does not serve yet; port 0 takes a free one.

    Raises:
        SystemExit: the port is taken (werkzeug).
    """
    app = _one_write_at_a_time(DomainDispatcherApplication(create_backend_app))
    return make_server(host, port, app, threaded=True, request_handler=MotoRequestHandler)


def _one_write_at_a_time(app: "WSGIApplication") -> "WSGIApplication":
    writing = Lock()

    def serve(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return app(environ, start_response)
        # read before the lock is taken: a client with a slow link keeps no other waiting
        environ["wsgi.input"] = BytesIO(Request(environ).get_data())
        with writing:
            return app(environ, start_response)

    return serve


if __name__ == "__main__":
    s3_server(sys.argv[1], int(sys.argv[2])).serve_forever()
