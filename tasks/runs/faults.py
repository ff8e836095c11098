"""Classify exceptions by kind of fault, so that on-call engineers know whom to contact.

data     the ticks: unreadable, incomplete, rejected by validation
machine  this machine: disk, memory, a killed process, corrupted files
service  a server, the network or a database did not answer
code     Tickline, a library or a setting
person   somebody cancelled the run or pressed Ctrl-C
"""

import builtins
from collections.abc import Iterator
from typing import Any, Literal

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import TerminationSignal
from pydantic import BaseModel, ConfigDict

from infra.leases.lease import LeaseLostError
from model_code.artifacts import DISK_FAULTS, DISK_FULL_MESSAGES
from model_code.errors import TicklineError

Cause = Literal["data", "machine", "service", "code", "person"]

KINDS: dict[Cause, str] = {
    "data": "bad input data: contact the data provider now",
    "machine": "this machine: disk, memory, or a killed process",
    "service": "a server, the network or a database did not answer",
    "code": "Tickline, a library or a setting: not urgent, file it in the morning",
    "person": "somebody stopped it: nothing is broken",
}
KILLED = (
    "the process exited without an error message: killed (out of memory?) or the machine restarted"
)
CHECK = "check memory: dmesg | tail; check the disk: df -h"
INTERRUPTED = "a person stopped its command (Ctrl-C)"

# class names of exceptions or their bases, so that their modules need not be imported
MACHINE = {"StorageError", "IntegrityError", "MemoryError", "PermissionError", "BrokenProcessPool"}
SERVICE = {
    "ServerError",
    "ServingError",
    "SharedStoreError",
    "LeaseLostError",
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
DATA = {"DataError", "MarketError", "MarketChoiceError"}
# the run asks for the same thing again: a corrected specification or setting needs a new run
NEEDS_NEW_RUN = {"ConfigError", "MarketChoiceError", "ValidationError"}
RETRYABLE_STATUS = {408, 409, 425, 429}  # HTTP 4xx codes that a retry may get past
# a missing or changed artefact, a full disk or a wrong argument is not transient
TRANSIENT_MESSAGES = ("API request to", "Max retries exceeded", "Connection refused", "timed out")


class Fault(BaseModel):
    """Why a run stopped, as stored in its MLflow run.

    Attributes:
        kind: the exception's type; `Cancelled` for a cancelled run; empty if none was stored.
        what: the first line of its message.
        where: in which file, row, service or setting; empty if the exception does not say.
        remedy: what the reader can do; empty if the exception does not say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cause: Cause
    kind: str
    what: str
    where: str = ""
    remedy: str = ""

    @classmethod
    def of(cls, error: BaseException) -> "Fault":
        """Classify an exception."""
        what = (str(error) or type(error).__name__).splitlines()[0][:300]
        fault = cls(cause=cause_of(error), kind=type(error).__name__, what=what)
        if not isinstance(error, TicklineError):
            return fault
        return fault.model_copy(update={"where": error.where, "remedy": error.remedy})

    @property
    def cause_line(self) -> str:
        """What happened, in one line."""
        if self.kind == KeyboardInterrupt.__name__:
            return INTERRUPTED
        return f"{self.kind}: {self.what}" if self.kind else self.what

    def text(self, command: str | None) -> str:
        """What happened, where, the kind of fault, what to do and the command, one line each."""
        lines = [
            self.cause_line,
            f"where: {self.where}" if self.where else "",
            f"kind: {self.cause}: {KINDS[self.cause]}",
            f"do: {self.remedy}" if self.remedy else "",
            continue_with(command) if command else "",
        ]
        return "\n".join(line for line in lines if line)


def continue_with(command: str | None) -> str:
    """What to run next, in words."""
    return f"continue with: {command}" if command else "nothing to rerun"


CANCELLED = Fault(cause="person", kind="Cancelled", what="a person cancelled the run")


def cause_of(error: BaseException) -> Cause:
    """Classify an exception by its chain of causes; the innermost known one decides.

    A process that was told to stop (its worker died) counts as `machine`, Ctrl-C as `person`.
    """
    if isinstance(error, KeyboardInterrupt):
        return "person"
    if isinstance(error, SystemExit | TerminationSignal):
        return "machine"
    chain = list(_chain(error))
    for found in reversed(chain):
        names = {base.__name__ for base in type(found).__mro__}
        if _disk_full(found) or _out_of_memory(found) or names & MACHINE:
            return "machine"
        if (names & SERVICE or _mlflow_unreachable(found, names)) and not _rejected(found):
            return "service"
    names = {base.__name__ for found in chain for base in type(found).__mro__}
    return "data" if names & DATA else "code"


def cause_by_name(kind: str, what: str = "") -> Cause:
    """Classify an exception by its type name and message, if no `Fault` was stored.

    On a full disk none can be stored.
    """
    from model_code import errors

    if any(message in what for message in DISK_FULL_MESSAGES):
        return "machine"

    known = getattr(errors, kind, None) or getattr(builtins, kind, None)
    names = {kind, *(base.__name__ for base in getattr(known, "__mro__", ()))}
    if names & MACHINE:
        return "machine"
    if names & SERVICE:
        return "service"
    return "data" if names & DATA else "code"


def rerun_helps(kind: str) -> bool:
    """Whether the same run may succeed once its cause is gone; else only a new run can.

    Args:
        kind: the exception's type name.
    """
    return kind not in NEEDS_NEW_RUN


def transient(error: BaseException) -> bool:
    """Whether a retry may succeed: a service did not answer, and no lease was lost meanwhile."""
    return cause_of(error) == "service" and not isinstance(error, LeaseLostError)


def retry_if_transient(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    """Retry condition of Prefect tasks: only transient faults."""
    try:
        state.result(raise_on_failure=True)
    except Exception as error:
        return transient(error)
    return False


def _rejected(error: BaseException) -> bool:
    """Whether a service answered and rejected the request: a wrong password, an unknown name."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(response, "status_code", None)  # httpx, requests
    for name in ("code", "status"):  # urllib; aiohttp
        status = getattr(error, name, None) if status is None else status
    return isinstance(status, int) and 400 <= status < 500 and status not in RETRYABLE_STATUS


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _disk_full(error: BaseException) -> bool:
    return (isinstance(error, OSError) and error.errno in DISK_FAULTS) or any(
        message in str(error) for message in DISK_FULL_MESSAGES
    )


def _out_of_memory(error: BaseException) -> bool:
    # torch's allocator on the CPU raises RuntimeError
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "out of memory" in text
    )


def _mlflow_unreachable(error: BaseException, names: set[str]) -> bool:
    return "MlflowException" in names and any(part in str(error) for part in TRANSIENT_MESSAGES)
