"""Measurements of a candidate compared with the champion, and the goals it must meet.

Shapes: R requests.
"""

import numpy as np
from pydantic import BaseModel, ConfigDict

from model_code.settings import PromotionSpec


class Observed(BaseModel):
    """Counts and latencies of one comparison.

    Attributes:
        requests: sent to the candidate.
        errors: requests without a valid response.
        disagreements: decisions that differ from the champion's, each at its model's threshold.
        candidate_p50_ms: median latency.
        candidate_p99_ms: 99th percentile.
        champion_p50_ms: the champion's, over the same period; None if it got no requests.
        champion_p99_ms: 99th percentile.
        reasons: a few error messages.
        compared: valid responses whose decision was compared; None: all of them.
        live: the same of the clients' traffic meanwhile; None if there was none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: int
    errors: int
    disagreements: int
    candidate_p50_ms: float | None
    candidate_p99_ms: float | None
    champion_p50_ms: float | None
    champion_p99_ms: float | None
    reasons: tuple[str, ...] = ()
    compared: int | None = None
    live: "Observed | None" = None

    @property
    def error_rate(self) -> float:
        """Errors per request."""
        return self.errors / self.requests if self.requests else 0.0

    @property
    def disagreement(self) -> float:
        """Differing decisions per compared response."""
        return self.disagreements / self._compared if self._compared else 0.0

    @property
    def _compared(self) -> int:
        return self.requests - self.errors if self.compared is None else self.compared

    def broken(self, spec: PromotionSpec, *, final: bool = False) -> list[str]:
        """The goals that the candidate breaks, as text.

        A failed request counts at once. The other goals count once there are enough valid
        responses; too few of them at the end (`final`) also break a goal, except of live traffic.
        """
        found = [] if self.live is None else self.live.broken(spec)
        found = [f"live traffic: {goal}" for goal in found]
        if self.error_rate > spec.max_error_rate:
            reason = f" ({self.reasons[0]})" if self.reasons else ""
            found.append(
                f"error rate {self.error_rate:.2%} > {spec.max_error_rate:.2%}: "
                f"{self.errors} of {self.requests}{reason}"
            )
        valid = self.requests - self.errors
        if valid < spec.canary_patience:
            if final:
                found.append(f"too few responses to judge: {valid} of {spec.canary_patience}")
            return found
        enough = self._compared >= spec.canary_patience
        if enough and self.disagreement > spec.max_disagreement:
            found.append(
                f"disagreement with the champion {self.disagreement:.2%} > "
                f"{spec.max_disagreement:.2%}"
            )
        candidate, champion = self.candidate_p50_ms, self.champion_p50_ms
        if candidate and champion and candidate > spec.max_p50_ratio * champion:
            found.append(
                f"median latency {candidate:.2f} ms > {spec.max_p50_ratio:g} times the "
                f"champion's {champion:.2f} ms"
            )
        slow = self.candidate_p99_ms
        if slow is not None and spec.max_p99_ms is not None and slow > spec.max_p99_ms:
            found.append(f"p99 latency {slow:.2f} ms > {spec.max_p99_ms:g} ms")
        return found


class Tally:
    """Collects the data of an `Observed`; several tallies may share the champion's latencies."""

    def __init__(self, champion_ms: list[float] | None = None) -> None:
        self.requests = self.errors = self.disagreements = self.compared = 0
        self.candidate_ms: list[float] = []
        self.champion_ms = [] if champion_ms is None else champion_ms
        self.reasons: list[str] = []

    def error(self, reason: str) -> None:
        """Count a request without a valid response."""
        self.requests += 1
        self.errors += 1
        if reason not in self.reasons[:3]:
            self.reasons.append(reason)

    def answer(self, ms: float, *, agrees: bool | None) -> None:
        """Count a valid response; `agrees` is None if its decision was not compared."""
        self.requests += 1
        self.candidate_ms.append(ms)
        self.compared += agrees is not None
        self.disagreements += agrees is False

    def observed(self, live: Observed | None = None) -> Observed:
        """The measurements so far, with those of live traffic."""
        return Observed(
            requests=self.requests,
            errors=self.errors,
            disagreements=self.disagreements,
            candidate_p50_ms=_percentile(self.candidate_ms, 50),
            candidate_p99_ms=_percentile(self.candidate_ms, 99),
            champion_p50_ms=_percentile(self.champion_ms, 50),
            champion_p99_ms=_percentile(self.champion_ms, 99),
            reasons=tuple(self.reasons[:3]),
            compared=self.compared,
            live=live,
        )


def _percentile(values: list[float], percent: float) -> float | None:
    return float(np.percentile(values, percent)) if values else None
