"""Facts of the versions that a route names, read in the background.

To verify a version is to hash its files, up to hundreds of megabytes. A thread does it, so that the
event loop goes on.
"""

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from infra.live.model import FeaturesChangedError
from model_code.errors import ServingError
from model_code.features.served import SeenFeatures
from model_code.repository.manifest import Manifest
from model_code.repository.serving import ServingRepository
from model_code.settings import MODEL_NAME

FOLLOW_S = 0.1
RETRY_S = 1.0


class Version(NamedTuple):
    """What a decision needs of the version that answered.

    Attributes:
        number: registered version.
        threshold: probability from which a decision is true.
        seen: feature set and leaders.
    """

    number: int
    threshold: float
    seen: SeenFeatures


class UnreadError(ServingError):
    """The version's files are still being read."""


class Versions:
    """Reads each version's manifest once, and verifies its files; use it in one event loop.

    Args:
        serving: holds the versions that served.
        staging: root of the staged ones; a candidate is there until it serves.
        seen: the features that the service computes.
    """

    def __init__(self, serving: ServingRepository, staging: Path, seen: SeenFeatures) -> None:
        self.serving, self.seen = serving, seen
        self._staging = staging / MODEL_NAME
        self._known: dict[int, Version] = {}
        self._reading: dict[int, asyncio.Task[None]] = {}
        self._failed: dict[int, tuple[str, float]] = {}  # why, and when to try again

    def folder(self, version: int) -> Path:
        """Where its files are."""
        if version in self.serving.known():
            return self.serving.folder(version)
        return self._staging / str(version)

    def find(self, version: int) -> Version:
        """A version that sees the features that the service computes; never waits for the disk.

        Raises:
            FeaturesChangedError: it sees others.
            UnreadError: its files are being read, from now on at the latest; see `read`.
            ServingError: its files cannot be read or are not those of its manifest.
        """
        found = self._known.get(version)
        if found is None:
            self._begin(version)
            raise UnreadError(f"the files of version {version} are still being read")
        if found.seen != self.seen:
            raise FeaturesChangedError(
                f"version {version} sees other features ({found.seen.text}) than those computed "
                f"here ({self.seen.text})",
                where=str(self.serving.root),
                remedy="start tickline live again once it serves alone",
            )
        return found

    async def read(self, version: int, wait_s: float | None = None) -> None:
        """Wait until a version's files are read; `find` then says what they are.

        Args:
            version: to read.
            wait_s: at most so long; the reading goes on. None: without a limit.
        """
        if version not in self._known:
            with suppress(ServingError):  # `find` raises it
                await asyncio.wait({self._begin(version)}, timeout=wait_s)

    async def follow(self) -> None:
        """Read what may serve next before it does, until cancelled."""
        while True:
            with suppress(OSError):  # whoever needs the version says so
                for version in await asyncio.to_thread(self.serving.versions):
                    await self.read(version)
            await asyncio.sleep(FOLLOW_S)

    def refuses(self, version: int) -> bool:
        """Whether a version is known to see other features."""
        return version in self._known and self._known[version].seen != self.seen

    def _begin(self, version: int) -> asyncio.Task[None]:
        """The reading of a version, under way."""
        task = self._reading.get(version)
        if task is not None:
            return task
        why, until = self._failed.get(version, ("", 0.0))
        if time.monotonic() < until:
            raise ServingError(
                f"version {version} cannot be read: {why}",
                remedy="the service needs the serving and the staging repository",
            )
        task = self._reading[version] = asyncio.get_running_loop().create_task(self._read(version))
        return task

    async def _read(self, version: int) -> None:
        try:
            manifest = await asyncio.to_thread(self._load, version)
        except Exception as error:  # of whatever the disk holds; it is read again later
            self._failed[version] = (str(error), time.monotonic() + RETRY_S)
        else:
            self._known[version] = Version(version, manifest.threshold, manifest.seen)
        finally:
            del self._reading[version]

    def _load(self, version: int) -> Manifest:
        return Manifest.load(self.folder(version))
