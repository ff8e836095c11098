"""A real S3-compatible server (moto's) with one empty bucket."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import boto3
from moto.server import ThreadedMotoServer

from flows.demos.shared_servers import s3_environment
from infra.servers import HOST

__all__ = ["s3_bucket", "s3_environment"]


@contextmanager
def s3_bucket(name: str, host: str = HOST) -> Iterator[str]:
    """Yield the bucket's URI; obstore, boto3 and MLflow find the server by the environment."""
    server = ThreadedMotoServer(host, 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    with patch.dict(os.environ, s3_environment(url)):
        boto3.client("s3", endpoint_url=url).create_bucket(Bucket=name)
        try:
            yield f"s3://{name}"
        finally:
            server.stop()
