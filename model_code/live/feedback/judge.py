"""Judges the live decisions of one model version: labels, rolling figures, sustained breaches.

Time is that of the ticks, so that a replay of any speed judges the same.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from model_code.live.feedback.figures import Figures, figures
from model_code.live.feedback.frames import Sampled, SeenRow
from model_code.live.feedback.labels import Labelled, Labeller
from model_code.live.feedback.reference import LiveReference
from model_code.live.feedback.spec import FeedbackSpec


class Judgement(NamedTuple):
    """Figures of the newest window.

    Attributes:
        figures: of the window.
        streak: windows in a row with a breach, this one included; windows do not overlap.
        sustained: the streak is a sustained breach, again after as many windows more.
    """

    figures: Figures
    streak: int
    sustained: bool


class Judge:
    """Labels decisions and computes the figures of the newest ones.

    Args:
        spec: windows and limits.
        reference: of the version.
    """

    def __init__(self, spec: FeedbackSpec, reference: LiveReference) -> None:
        self._spec, self._reference = spec, reference
        self._labeller = Labeller(reference.spec)
        self._window: deque[Labelled] = deque(maxlen=spec.most)
        self._window_ns, self._every_ns = round(spec.window_s * 1e9), round(spec.every_s * 1e9)
        self._newest_ns = self._due_ns = self._closes_ns = 0
        self._streak = 0

    @property
    def waiting(self) -> int:
        """Decisions whose label is not decided."""
        return self._labeller.waiting

    def take(self, rows: Sequence[SeenRow], sampled: Sequence[Sampled]) -> list[Labelled]:
        """Take rows and decisions; return the decisions whose label is now decided."""
        return self._keep(self._labeller.take(rows, sampled))

    def finish(self) -> list[Labelled]:
        """End all horizons: a part of the stream is missing, or it is over."""
        return self._keep(self._labeller.finish())

    def judge(self) -> Judgement | None:
        """The newest window's figures if they are due, else None."""
        if not self._window or self._newest_ns < self._due_ns:
            return None
        self._due_ns = self._newest_ns + self._every_ns
        oldest_ns = self._newest_ns - self._window_ns
        while self._window[0].sampled.decision.local_ns < oldest_ns:
            self._window.popleft()
        found = figures(self._window, self._spec, self._reference)
        if self._newest_ns < self._closes_ns or not found.judged:
            return Judgement(found, self._streak, sustained=False)
        self._closes_ns = self._newest_ns + self._window_ns
        self._streak = self._streak + 1 if found.breaches else 0
        sustained = self._streak > 0 and self._streak % self._spec.sustained == 0
        return Judgement(found, self._streak, sustained)

    def _keep(self, labelled: list[Labelled]) -> list[Labelled]:
        if not labelled:
            return labelled
        self._newest_ns = max(self._newest_ns, *(one.sampled.decision.local_ns for one in labelled))
        if self._closes_ns == 0:  # a first window is judged when it is full
            self._closes_ns = self._newest_ns + self._window_ns
            self._due_ns = self._newest_ns + self._every_ns
        self._window += labelled
        return labelled
