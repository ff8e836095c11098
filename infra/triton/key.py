"""The key of the server's model control: loading, shared memory, trace and log settings.

Triton refuses those calls without it; health, metadata, statistics and inference by gRPC are open.
HTTP inference is closed too: a request of a few bytes with a huge shape would stop the server.
Source: Triton's docs/customization_guide/inference_protocols.md, "Limit Endpoint Access".
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path

import psutil

from infra.servers import ServerError
from model_code.artifacts import storage_error
from model_code.serving.wire import HTTP_KEY_HEADER
from model_code.settings import Settings

CONTROL = ("model-repository", "shared-memory", "trace", "logging")
HTTP = ("inference", *CONTROL)


def control_key(settings: Settings) -> str | None:
    """The key for clients: `TICKLINE_TRITON_KEY`, else this home's file, else None.

    Raises:
        ServerError: others may read the file.
    """
    if settings.triton_key is not None:
        return settings.triton_key.get_secret_value()
    path = _path(settings)
    try:
        key, mode = path.read_text().strip(), path.stat().st_mode
    except FileNotFoundError:
        return None
    if mode & 0o077:
        raise ServerError(
            "others may read the key of the model control",
            where=str(path),
            remedy="stop Triton, remove the file and start Triton again: it makes a new key",
        )
    return key


def server_key(settings: Settings) -> str:
    """The key for a server that starts here; the first call makes this home's file.

    Raises:
        ServerError: as `control_key`.
        StorageError: the file cannot be written.
    """
    key = control_key(settings)
    if key is None:
        _make(_path(settings))
        key = control_key(settings)
    assert key is not None  # noqa: S101  it was just made
    return key


def options(key: str) -> list[str]:
    """Options of `tritonserver` that require the key; it takes it in no other way (see `hide`)."""
    return [
        f"--grpc-restricted-protocol={','.join(CONTROL)}:{HTTP_KEY_HEADER}={key}",
        f"--http-restricted-api={','.join(HTTP)}:{HTTP_KEY_HEADER}={key}",
    ]


def hide(pid: int, key: str) -> None:
    """Overwrite the key in the command line of a started server and of its launcher.

    The server has copied its arguments by then; `ps` shows those that are left. Where the system
    does not allow it (another account's process, no `/proc`), nothing happens.
    """
    with suppress(OSError, psutil.Error):
        for one in (pid, psutil.Process(pid).ppid()):
            # proc_pid_stat(5): arg_start and arg_end, counted from the field after the name
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            start, end = int(fields[45]), int(fields[46])
            with Path(f"/proc/{one}/mem").open("r+b", buffering=0) as memory:
                memory.seek(start)
                words = memory.read(end - start)
                found = words.find(key.encode())
                while found >= 0:
                    memory.seek(start + found)
                    memory.write(b"*" * len(key))
                    found = words.find(key.encode(), found + len(key))


def _path(settings: Settings) -> Path:
    return settings.home / "triton" / "key"


def _make(path: Path) -> None:
    """Create the file, readable by this account only; the first of several processes wins."""
    temporary = path.with_name(f".key.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(24))
            file.flush()
            os.fsync(descriptor)
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)
