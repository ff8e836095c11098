"""A real S3-compatible server (moto's) with one empty bucket."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from unittest.mock import patch

import boto3

from flows.demos.s3_server import s3_server
from flows.demos.shared_servers import s3_environment
from infra.servers import HOST

__all__ = ["s3_bucket", "s3_environment"]


@contextmanager
def s3_bucket(name: str, host: str = HOST) -> Iterator[str]:
    """Yield the bucket's URI; obstore, boto3 and MLflow find the server by the environment."""
    server = s3_server(host, 0)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://{host}:{server.port}"
    try:
        with patch.dict(os.environ, s3_environment(url)):
            boto3.client("s3", endpoint_url=url).create_bucket(Bucket=name)
            yield f"s3://{name}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
