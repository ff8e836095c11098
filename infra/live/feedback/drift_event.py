"""The Prefect event of a sustained breach, which starts a retraining: at most once per UTC date.

A date is claimed by a file that only one process can create, so that the limit holds across
restarts and for all services of a group that share the folder. The event's id depends on group and
date alone. A claim is sent until Prefect has accepted it, or until its date is over.
"""

import contextlib
import datetime as dt
import os
import tempfile
import uuid
from pathlib import Path
from typing import Any

import httpx
import msgspec
from filelock import FileLock, Timeout

from infra.auth import prefect_credentials
from infra.proxies import by_proxy
from infra.servers import running_server
from model_code.live.feedback.figures import Figures
from model_code.settings import Settings

LIVE_DRIFT = "tickline.live-drift"
TIMEOUT_S = 5.0
NAMESPACE = uuid.UUID("5f0f3e52-5f0c-4e0c-9f0e-1f6f7c3a9b11")


class DriftRecord(msgspec.Struct, frozen=True):
    """A claim, as it is on disk.

    Attributes:
        group: of the services.
        at: UTC, ISO 8601.
        streak: windows in a row with a breach.
        figures: of the newest one.
    """

    group: str
    at: str
    streak: int
    figures: Figures


class DriftEvents:
    """Claims dates and sends their events.

    Args:
        folder: of the claims, shared by the services of the group.
        group: their name.
        settings: say where Prefect is.
    """

    def __init__(self, folder: Path, group: str, settings: Settings) -> None:
        self._folder, self._group, self._settings = folder, group, settings

    def claim(self, figures: Figures, streak: int, now: dt.datetime) -> bool:
        """Claim today for this breach; False if it is claimed already."""
        record = DriftRecord(self._group, now.isoformat(), streak, figures)
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._folder, prefix=".", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(record)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(name, self._folder / f"{now.date()}.json")  # fails if it exists
        except FileExistsError:
            return False
        finally:
            Path(name).unlink(missing_ok=True)
        return True

    def send(self, now: dt.datetime) -> bool | None:
        """Send today's event if it is claimed and not sent yet.

        Returns:
            True: Prefect accepted it now; False: Prefect does not answer; None: nothing to send.
        """
        claim, sent = (self._folder / f"{now.date()}.{end}" for end in ("json", "sent"))
        if sent.exists() or not claim.exists():
            return None
        try:
            with FileLock(self._folder / ".lock", timeout=0):
                if sent.exists():
                    return None
                url = self._settings.prefect_api_url or running_server(self._settings, wait_s=0.0)
                if url is None:
                    return False
                httpx.post(
                    f"{url}/events",
                    json=[event(read(claim), now)],
                    timeout=TIMEOUT_S,
                    trust_env=by_proxy(url),
                    auth=prefect_credentials(self._settings),
                ).raise_for_status()
                sent.touch()
        except Timeout:  # another service is sending it
            return None
        except httpx.HTTPError:
            return False
        return True


def event(record: DriftRecord, now: dt.datetime) -> dict[str, Any]:
    """The body of Prefect's event."""
    name = f"{record.group} {dt.datetime.fromisoformat(record.at).date()}"
    return {
        "id": str(uuid.uuid5(NAMESPACE, name)),
        "occurred": now.isoformat(),
        "event": LIVE_DRIFT,
        "resource": {
            "prefect.resource.id": f"tickline.live.{record.group}",
            "prefect.resource.name": record.group,
        },
        "related": [],
        "payload": {
            "version": record.figures.version,
            "breaches": list(record.figures.breaches),
            "windows": record.streak,
            "figures": record.figures.numbers,
        },
    }


def records(home: Path, since: dt.datetime) -> list[DriftRecord]:
    """The claims of all groups of a home, the newest first; unreadable ones are left out."""
    found = []
    for file in home.glob("live/*/feedback/drift/*.json"):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            found.append(read(file))
    known = [one for one in found if dt.datetime.fromisoformat(one.at) >= since]
    return sorted(known, key=lambda one: one.at, reverse=True)


def read(file: Path) -> DriftRecord:
    """A claim.

    Raises:
        msgspec.DecodeError: malformed.
    """
    return msgspec.json.decode(file.read_bytes(), type=DriftRecord)
