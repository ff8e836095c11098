"""Facts of the versions that a route names, and the champion's engine in this process.

Shapes: B windows, T = 64 steps, F = 16 features.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from infra.live.model import Answered, FeaturesChangedError
from model_code.engines.protocol import Predictor
from model_code.engines.registry import ENGINES
from model_code.engines.sidecar import EngineSidecar
from model_code.errors import EngineError, IntegrityError, ServingError, TicklineError
from model_code.features.served import SeenFeatures
from model_code.models.probability import probability
from model_code.repository.manifest import Manifest
from model_code.repository.serving import ServingRepository
from model_code.settings import FEATURE_COUNT, MODEL_NAME, SEQUENCE_LENGTH

FOLLOW_S = 0.1
WARM = 16  # an engine prepares each batch size at its first request


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


class Versions:
    """Reads each version's manifest once, and verifies its files.

    Args:
        serving: holds the versions that served.
        staging: root of the staged ones; a candidate is there until it serves.
        seen: the features that the service computes.
    """

    def __init__(self, serving: ServingRepository, staging: Path, seen: SeenFeatures) -> None:
        self.serving, self.seen = serving, seen
        self._staging = staging / MODEL_NAME
        self._known: dict[int, Version] = {}

    def folder(self, version: int) -> Path:
        """Where its files are."""
        if version in self.serving.known():
            return self.serving.folder(version)
        return self._staging / str(version)

    def find(self, version: int) -> Version:
        """A version that sees the features that the service computes.

        Raises:
            FeaturesChangedError: it sees others.
            ServingError: its files cannot be read or are not those of its manifest.
        """
        found = self._known.get(version)
        if found is None:
            try:
                manifest = Manifest.load(self.folder(version))
            except (TicklineError, OSError) as error:
                raise ServingError(
                    f"version {version} cannot be read: {error}",
                    remedy="the service needs the serving and the staging repository",
                ) from error
            found = Version(version, manifest.threshold, manifest.seen)
            self._known[version] = found
        if found.seen != self.seen:
            raise FeaturesChangedError(
                f"version {version} sees other features ({found.seen.text}) than those computed "
                f"here ({self.seen.text})",
                where=str(self.serving.root),
                remedy="start tickline live again once it serves alone",
            )
        return found

    def refuses(self, version: int) -> bool:
        """Whether a version is known to see other features."""
        return version in self._known and self._known[version].seen != self.seen


class Fallback:
    """The champion's approved engine in this process; it follows the route.

    Args:
        versions: of the repository.
        say: called with each line for the log.
    """

    def __init__(self, versions: Versions, say: Callable[[str], None]) -> None:
        self._versions, self._say = versions, say
        self._engine: tuple[Version, Predictor] | None = None
        self._tried: int | None = None

    @property
    def version(self) -> int | None:
        """That it answers with; None: it cannot."""
        return None if self._engine is None else self._engine[0].number

    def ask(self, x_BTF: NDArray[np.float32]) -> Answered | None:
        """The engine's probabilities; None without an engine."""
        if self._engine is None:
            return None
        version, predictor = self._engine
        probability_B = probability(predictor.predict(x_BTF))
        return Answered(probability_B, ("fallback",), version.number, version.threshold)

    async def follow(self) -> None:
        """Load each new champion in the background, until cancelled."""
        while True:
            await self.update()
            await asyncio.sleep(FOLLOW_S)

    async def update(self) -> None:
        """Load the champion's engine unless it is loaded; the earlier one answers meanwhile."""
        try:
            champion = self._versions.serving.route().champion
        except (IntegrityError, OSError):
            return  # the client says so
        if champion is None:  # withdrawn: its engine must not decide either
            self._engine = self._tried = None
            return
        if champion.version == self._tried:
            return
        self._tried = champion.version
        try:
            self._engine = await asyncio.to_thread(self._load, champion.version)
        except Exception as error:  # of whatever engine; the next champion must be loaded too
            self._engine = None  # an earlier version may have been rolled back
            self._say(f"no fallback for version {champion.version}: {error}")
        else:
            self._say(f"fallback: version {champion.version} in this process")

    def _load(self, number: int) -> tuple[Version, Predictor]:
        version = self._versions.find(number)
        folder = self._versions.folder(number)
        manifest = Manifest.load(folder)
        if manifest.approval is None:
            raise EngineError("it was never approved", where=str(folder))
        predictor = ENGINES[EngineSidecar.load(folder).engine].load(folder)
        for size in range(1, WARM + 1):
            predictor.predict(np.zeros((size, SEQUENCE_LENGTH, FEATURE_COUNT), np.float32))
        return version, predictor
