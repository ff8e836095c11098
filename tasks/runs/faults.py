"""What kind of fault an exception is, so that somebody at night knows whom to call.

data     the ticks: unreadable, incomplete, refused by validation
machine  this machine: disk, memory, a process killed, bytes that changed by themselves
service  something that did not answer: a server, the network, a database
code     Tickline, a library or a setting
"""

import builtins
from collections.abc import Iterator
from typing import Any, Literal

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from pydantic import BaseModel, ConfigDict

from model_code.artifacts import DISK_FAULTS

Cause = Literal["data", "machine", "service", "code"]

# by name, of the exception or a base of it: their modules need not be imported to judge
MACHINE = {"StorageError", "IntegrityError", "MemoryError", "PermissionError", "BrokenProcessPool"}
SERVICE = {
    "ServerError",
    "ServingError",
    "RegistryDownError",
    "ConnectionError",
    "TimeoutError",
    "gaierror",
    "TransportError",  # of httpx
    "PrefectHTTPStatusError",
    "RequestException",  # of requests
    "HTTPError",  # of urllib3
    "ClientError",  # of aiohttp and botocore
    "RpcError",
    "OperationalError",  # of SQLAlchemy, its driver's too
    "InferenceServerException",
}
# SQLite says it in words, and MLflow passes them on
DISK_WORDS = ("disk is full", "No space left on device")
DATA = {"DataError", "MarketError"}
MAY_PASS = {408, 409, 425, 429}  # of HTTP's refusals those that another try may get past
# an artefact that is gone or changed, a full disk or a wrong word do not mend themselves
TRANSIENT_MESSAGES = ("API request to", "Max retries exceeded", "Connection refused", "timed out")


class Fault(BaseModel):
    """An exception, as the MLflow run keeps it.

    Attributes:
        kind: the exception's type.
        what: its first line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cause: Cause
    kind: str
    what: str

    @classmethod
    def of(cls, error: BaseException) -> "Fault":
        """Judge an exception."""
        what = (str(error) or type(error).__name__).splitlines()[0][:300]
        return cls(cause=cause_of(error), kind=type(error).__name__, what=what)


def cause_of(error: BaseException) -> Cause:
    """Judge by the exception and those it came from: what lies deepest counts most.

    A process that was told to stop (its worker died, somebody pressed Ctrl-C) is the machine's.
    """
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return "machine"
    chain = list(_chain(error))
    for found in reversed(chain):
        names = {base.__name__ for base in type(found).__mro__}
        if _disk_full(found) or _out_of_memory(found) or names & MACHINE:
            return "machine"
        if (names & SERVICE or _silent_server(found, names)) and not _refused(found):
            return "service"
    names = {base.__name__ for found in chain for base in type(found).__mro__}
    return "data" if names & DATA else "code"


def cause_by_name(kind: str, what: str = "") -> Cause:
    """Judge by an exception's type name and words, where nothing more was kept.

    On a full disk nothing more can be.
    """
    from model_code import errors

    if any(words in what for words in DISK_WORDS):
        return "machine"

    known = getattr(errors, kind, None) or getattr(builtins, kind, None)
    names = {kind, *(base.__name__ for base in getattr(known, "__mro__", ()))}
    if names & MACHINE:
        return "machine"
    if names & SERVICE:
        return "service"
    return "data" if names & DATA else "code"


def transient(error: BaseException) -> bool:
    """Whether the same may go well in a moment: a service that did not answer."""
    return cause_of(error) == "service"


def retry_if_transient(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    """Prefect's question after a failed try: again?"""
    try:
        state.result(raise_on_failure=True)
    except Exception as error:
        return transient(error)
    return False


def _refused(error: BaseException) -> bool:
    """Whether a service answered that it will not: a wrong password, a name it does not know."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(response, "status_code", None)  # httpx, requests
    for name in ("code", "status"):  # urllib; aiohttp
        status = getattr(error, name, None) if status is None else status
    return isinstance(status, int) and 400 <= status < 500 and status not in MAY_PASS


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _disk_full(error: BaseException) -> bool:
    return (isinstance(error, OSError) and error.errno in DISK_FAULTS) or any(
        words in str(error) for words in DISK_WORDS
    )


def _out_of_memory(error: BaseException) -> bool:
    # torch's allocator on the CPU raises RuntimeError
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "out of memory" in text
    )


def _silent_server(error: BaseException, names: set[str]) -> bool:
    return "MlflowException" in names and any(part in str(error) for part in TRANSIENT_MESSAGES)
