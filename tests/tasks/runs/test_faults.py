"""The kind of fault of exceptions, raised by the real libraries."""

import errno
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path

import httpx
import pytest
import sqlalchemy
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from mlflow.exceptions import MlflowException
from prefect.exceptions import TerminationSignal

from infra.servers import ServerError
from model_code import errors
from model_code.artifacts import ArtifactRef, ArtifactStore, storage_error
from model_code.errors import (
    ConfigError,
    DataError,
    IntegrityError,
    MarketChoiceError,
    MarketError,
    PromotionError,
    SchemaError,
    ServingError,
    TicklineError,
)
from tasks.runs.faults import Cause, Fault, cause_by_name, cause_of, rerun_helps, transient


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def refused() -> None:
    httpx.get(f"http://127.0.0.1:{closed_port()}", trust_env=False)


def market_over_a_dead_network() -> None:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{closed_port()}")
    except OSError as error:
        raise MarketError("cannot open the market store") from error


def answered(status: int) -> Callable[[], None]:
    def call() -> None:
        request = httpx.Request("GET", "http://market.example/ticks")
        httpx.Response(status, request=request).raise_for_status()

    return call


def urllib_answered(status: int) -> Callable[[], None]:
    def call() -> None:
        try:
            raise urllib.error.HTTPError("http://x", status, "no", Message(), None)
        except OSError as error:
            raise MarketError("cannot open the market store") from error

    return call


def s3_answered(status: int) -> Callable[[], None]:
    def call() -> None:
        raise ClientError(
            {"Error": {"Code": "?"}, "ResponseMetadata": {"HTTPStatusCode": status}},
            "GetObject",
        )

    return call


def no_such_table() -> None:
    with sqlalchemy.create_engine("sqlite://").connect() as connection:
        connection.execute(sqlalchemy.text("select * from nothing"))


def full_disk() -> None:
    error = OSError(errno.ENOSPC, "No space left on device")
    raise storage_error(error, Path("x")) from error


def changed_bytes() -> None:
    ArtifactStore(Path("/nowhere")).open(ArtifactRef.of(name="x", sha256="0"))


def too_much_memory() -> None:
    import torch

    torch.empty(1 << 50)


def mlflow_says(text: str) -> Callable[[], None]:
    def call() -> None:
        raise MlflowException(text)

    return call


def raised(call: Callable[[], None]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        call()
    return caught.value


@pytest.mark.parametrize(
    ("call", "cause"),
    [
        (refused, "service"),
        (market_over_a_dead_network, "service"),
        (no_such_table, "service"),
        (answered(503), "service"),
        (answered(429), "service"),
        (answered(401), "code"),  # a retry gets the same answer
        (urllib_answered(404), "data"),
        (urllib_answered(502), "service"),
        (s3_answered(403), "code"),
        (s3_answered(500), "service"),
        (mlflow_says("API request to http://x failed: Max retries exceeded"), "service"),
        (mlflow_says("(sqlite3.OperationalError) database or disk is full"), "machine"),
        (mlflow_says("Parameter already logged"), "code"),
        (full_disk, "machine"),
        (changed_bytes, "machine"),
        (too_much_memory, "machine"),
    ],
)
def test_cause_of_what_libraries_raise(call: Callable[[], None], cause: Cause) -> None:
    error = raised(call)
    assert cause_of(error) == cause
    assert transient(error) == (cause == "service")


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        (DataError, "data"),
        (SchemaError, "data"),
        (MarketError, "data"),
        (MarketChoiceError, "data"),
        (IntegrityError, "machine"),
        (ServingError, "service"),
        (ServerError, "service"),
        (ConfigError, "code"),
        (PromotionError, "code"),
    ],
)
def test_our_own_errors_by_instance_and_by_name(kind: type[TicklineError], cause: Cause) -> None:
    assert cause_of(kind("x")) == cause
    assert cause_by_name(kind.__name__) == cause


def test_fault_survives_json_and_keeps_one_line() -> None:
    fault = Fault.of(DataError("first\nsecond", remedy="fetch it"))
    assert (fault.kind, fault.what, fault.cause) == ("DataError", "first", "data")
    assert Fault.model_validate_json(fault.model_dump_json()) == fault
    assert Fault.of(KeyboardInterrupt()).what == "KeyboardInterrupt"


def test_a_stopped_process_is_a_machine_fault_whatever_its_context() -> None:
    stopped = SystemExit(1)
    stopped.__context__ = ConnectionResetError("the worker is gone")
    assert cause_of(stopped) == "machine"
    assert cause_of(TerminationSignal(signal.SIGTERM)) == "machine"
    assert cause_of(KeyboardInterrupt()) == "person"


def test_cause_by_name_defaults_to_code() -> None:
    assert cause_by_name("ZeroDivisionError") == "code"
    assert cause_by_name("ConnectionRefusedError") == "service"
    assert cause_by_name("MemoryError") == "machine"
    assert cause_by_name("OSError", "[Errno 28] No space left on device") == "machine"
    assert cause_by_name("OSError", "[Errno 5] Input/output error") == "code"


# whether the same run, with the same specification, may succeed once the cause is gone
RERUN_HELPS = {
    "ConfigError": False,
    "MarketChoiceError": False,
    "MarketError": True,  # permission, network, a truncated file
    "DataError": True,  # the day is fetched again
    "SchemaError": True,
    "IntegrityError": True,
    "StorageError": True,
    "SharedStoreError": True,
    "EngineError": True,
    "EngineUnavailableError": True,
    "ExportError": True,
    "GateError": True,  # the file of goals is corrected
    "ServingError": True,
    "StreamError": True,
    "PromotionError": True,
}


def test_every_kind_of_fault_says_whether_a_rerun_helps() -> None:
    ours = {
        found.__name__
        for found in vars(errors).values()
        if isinstance(found, type) and issubclass(found, TicklineError)
    }
    assert set(RERUN_HELPS) == ours - {"TicklineError"}, "decide it for each kind"
    assert {kind: rerun_helps(kind) for kind in RERUN_HELPS} == RERUN_HELPS
    for kind in ("MemoryError", "ConnectionError", "OperationalError", "ServerError"):
        assert rerun_helps(kind)
