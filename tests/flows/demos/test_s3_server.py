import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from moto.s3.models import S3Backend

from model_code.storage.objects import Objects
from tests.support.s3 import s3_bucket


def _slow(write: Callable[..., Any]) -> Callable[..., Any]:
    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.05)  # after moto has looked whether the key exists
        return write(*args, **kwargs)

    return slow


def test_of_two_conditional_puts_at_once_one_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(S3Backend, "put_object", _slow(S3Backend.put_object))
    with s3_bucket("once") as uri, ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda n: Objects(uri).create("key", b"%d" % n), range(4)))
        assert made.count(True) == 1
        assert Objects(uri).read("key") == b"%d" % made.index(True)
