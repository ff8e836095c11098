"""Engines that are measured together: one that fails leaves with its reason, the others go on."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Self

from model_code.engines.protocol import Predictor
from model_code.errors import TicklineError
from model_code.settings import REFERENCE_ENGINE

FAILED = "failed"  # how the reason of an engine begins that this machine should have run
LONGEST = 300  # characters of a reason


def failure(step: str, error: BaseException) -> str:
    """Why an engine has no figures, in one line: `failed: load: RuntimeError: out of memory`.

    Args:
        step: build, load, warm up or measure.
        error: what it raised.
    """
    kind, text = type(error).__name__, str(error).strip()
    what = error.what if isinstance(error, TicklineError) else f"{kind}: {text}" if text else kind
    first = what.strip().partition("\n")[0]
    return f"{FAILED}: {step}: {first}"[:LONGEST]


class Roster(Mapping[str, Predictor]):
    """The engines that have not failed, by name.

    Args:
        predictors: all engines at the start.
        strict: let every exception pass, not only the reference's.

    Attributes:
        failed: the reason of each engine that left.
    """

    def __init__(self, predictors: Mapping[str, Predictor], *, strict: bool = False) -> None:
        self._active, self._strict = dict(predictors), strict
        self.failed: dict[str, str] = {}

    @classmethod
    def of(cls, predictors: Mapping[str, Predictor]) -> Self:
        """The same roster; of a plain mapping a strict one."""
        return predictors if isinstance(predictors, cls) else cls(predictors, strict=True)

    def __getitem__(self, name: str) -> Predictor:
        return self._active[name]

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._active))  # a copy: an engine may leave meanwhile

    def __len__(self) -> int:
        return len(self._active)

    @contextmanager
    def attempt(self, name: str, step: str) -> Iterator[None]:
        """Run a step of one engine; if it raises, the engine leaves.

        Raises:
            Exception: the engine's own, if it is the reference: nothing can be compared without.
        """
        try:
            yield
        except Exception as error:
            if self._strict or name == REFERENCE_ENGINE:
                raise
            self.failed[name] = failure(step, error)
            del self._active[name]
