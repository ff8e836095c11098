"""The serving version's engine in this process: Triton's stand-in, or the service's model.

Shapes: B windows, T = 64 steps, F = 16 features.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Self

import numpy as np
from numpy.typing import NDArray

from infra.live.inference.versions import FOLLOW_S, Version, Versions
from infra.live.model import Answered, FeaturesChangedError
from model_code.engines.protocol import Predictor
from model_code.engines.registry import ENGINES
from model_code.engines.sidecar import EngineSidecar
from model_code.errors import EngineError, IntegrityError, ServingError
from model_code.live.path import Flag
from model_code.models.probability import probability
from model_code.repository.manifest import Manifest
from model_code.settings import FEATURE_COUNT, SEQUENCE_LENGTH

WARM = 16  # an engine prepares each batch size at its first request
AGAIN_S = 5.0  # until an engine that could not be loaded is tried again


class Champion:
    """The champion's approved engine in this process; it follows the route.

    Args:
        versions: of the repository.
        say: called with each line for the log.
        flag: of its decisions.

    Attributes:
        error: why there is no engine; None: there is one, or no version serves.
    """

    def __init__(
        self, versions: Versions, say: Callable[[str], None], flag: Flag = "fallback"
    ) -> None:
        self._versions, self._say, self._flag = versions, say, flag
        self._engine: tuple[Version, Predictor] | None = None
        self._tried: int | None = None
        self._again_at = 0.0
        self.error: Exception | None = None

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
        return Answered(probability_B, (self._flag,), version.number, version.threshold)

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
            return  # the page and Triton's client say so; the route of before holds
        if champion is None:  # withdrawn: its engine must not decide either
            self._engine = self._tried = self.error = None
            return
        number, again = champion.version, champion.version == self._tried
        if again and (self.error is None or time.monotonic() < self._again_at):
            return
        self._tried, before = number, self.error
        try:
            await self._versions.read(number)
            version = self._versions.find(number)
            self._engine = version, await asyncio.to_thread(self._load, number)
        except Exception as error:  # of whatever engine; the next champion must be loaded too
            self._engine = None  # an earlier version may have been rolled back
            self.error, self._again_at = error, time.monotonic() + AGAIN_S
            if not again or str(error) != str(before):
                self._say(f"{self._flag}: no engine of version {number}: {error}")
        else:
            self.error = None
            self._say(f"{self._flag}: the engine of version {number} is loaded")

    def _load(self, number: int) -> Predictor:
        folder = self._versions.folder(number)
        manifest = Manifest.load(folder)
        if manifest.approval is None:
            raise EngineError("it was never approved", where=str(folder))
        predictor = ENGINES[EngineSidecar.load(folder).engine].load(folder)
        for size in range(1, WARM + 1):
            predictor.predict(np.zeros((size, SEQUENCE_LENGTH, FEATURE_COUNT), np.float32))
        return predictor


class ServingEngine:
    """The model of `Service` without Triton; use it as a context in the service's event loop.

    After a promotion or a rollback the earlier engine answers until the new one is loaded. If it
    cannot be loaded, or no version serves any more, windows stay unanswered.

    Args:
        versions: of the repository.
        say: called with each line for the log.
    """

    def __init__(self, versions: Versions, say: Callable[[str], None]) -> None:
        self._champion = Champion(versions, say, "in-process")
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Load the serving version's engine.

        Raises:
            FeaturesChangedError: it sees other features than those computed here.
            ServingError: it cannot be loaded, or no version serves.
        """
        await self._champion.update()
        if self._champion.version is None:
            raise self._missing()
        self._following = asyncio.create_task(self._champion.follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    async def ask(self, x_BTF: NDArray[np.float32]) -> Answered:
        """The engine's probabilities, with its version; the event loop waits for it.

        Raises:
            FeaturesChangedError: the serving version sees other features.
            ServingError: there is no engine.
        """
        answered = self._champion.ask(x_BTF)
        if answered is None:
            raise self._missing()
        return answered

    def _missing(self) -> ServingError:
        """Why there is no engine."""
        error = self._champion.error
        if isinstance(error, FeaturesChangedError):
            return error
        if error is None:
            return ServingError("no version serves", remedy="approve one: tickline promote")
        return ServingError(
            f"the serving version's engine cannot be loaded here: {error}",
            remedy="let Triton answer, without --in-process; or roll back: tickline rollback",
        )
