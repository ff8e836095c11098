"""Measurements of a candidate compared with the champion, and the goals it must meet.

Each goal is a rate with a limit, judged by a sequential test (`sequential.py`): of requests without
an answer, of decisions that differ, of pairs in which the candidate is too slow.
"""

from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from model_code.comparison.sequential import Finding, bounds, judge
from model_code.settings import PromotionSpec

P99_RATE = 0.01  # of answers that may take longer than the 99th percentile
P50_RATE = 0.5
DECISION_TESTS = 4  # two goals, of recorded requests and of live traffic, over all steps
SHADOW_TESTS = 3  # errors, two of latency
STEP_TESTS = 7  # the same three of recorded requests and of live traffic; Triton's failures


def alpha_of_each(spec: PromotionSpec) -> float:
    """The part of `alpha` that each test of a promotion gets."""
    return spec.alpha / (DECISION_TESTS + SHADOW_TESTS + STEP_TESTS * len(spec.shares))


class Judged(BaseModel):
    """One goal and what was found.

    Attributes:
        goal: as text.
        hits: of the trials that count against the candidate.
        trials: so far.
        limit: of the rate.
        lower: bound of the rate.
        upper: the other bound.
        finding: violated; met, if the rate is shown to be within its limit; or open, if no
            violation is shown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    goal: str
    hits: int
    trials: int
    limit: float
    lower: float
    upper: float
    finding: Finding

    @property
    def words(self) -> str:
        """The finding as text."""
        found = {"violated": "violated", "met": "shown met", "open": "no violation shown"}
        return found[self.finding]


class Observed(BaseModel):
    """Counts and latencies of one comparison.

    Attributes:
        requests: sent to the candidate.
        errors: requests without a valid response.
        disagreements: decisions that differ from the champion's, each at its model's threshold;
            since the promotion's first comparison.
        candidate_p50_ms: median latency.
        candidate_p99_ms: 99th percentile.
        champion_p50_ms: the champion's, on the paired requests; None if there are none.
        champion_p99_ms: 99th percentile.
        reasons: a few error messages.
        compared: responses whose decision was compared, since the first comparison; None: all valid
            ones.
        positives: of all compared responses those on which the champion decides true.
        missed: of the positives those on which the candidate does not.
        recorded_positives: different recorded requests on which the champion decides true; None:
            not counted.
        pairs: responses whose latency was compared with the champion's.
        slower: pairs in which the candidate took more than `max_p50_ratio` times as long.
        timed: responses whose latency is known.
        slow: those of them above `max_p99_ms`.
        late: requests that the client gave up.
        live: the same of the clients' traffic meanwhile; None if there was none.
        server: Triton's own requests and failures; None if it was not asked.
        note: what a reader must know of the step, or empty.
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
    positives: int = 0
    missed: int = 0
    recorded_positives: int | None = None
    pairs: int = 0
    slower: int = 0
    timed: int = 0
    slow: int = 0
    late: int = 0
    live: "Observed | None" = None
    server: "Observed | None" = None
    note: str = ""

    @classmethod
    def of_server(cls, requests: int, failed: int, reason: str = "") -> Self:
        """What Triton itself counted."""
        return cls(
            requests=requests,
            errors=failed,
            disagreements=0,
            candidate_p50_ms=None,
            candidate_p99_ms=None,
            champion_p50_ms=None,
            champion_p99_ms=None,
            reasons=(reason,) if reason and failed else (),
            compared=0,
        )

    @property
    def error_rate(self) -> float:
        """Errors per request."""
        return self.errors / self.requests if self.requests else 0.0

    @property
    def disagreement(self) -> float:
        """Differing decisions per compared response."""
        return self.disagreements / self._compared if self._compared else 0.0

    @property
    def positive_disagreement(self) -> float:
        """Differing decisions per response on which the champion decides true."""
        return self.missed / self.positives if self.positives else 0.0

    @property
    def lines(self) -> tuple[str, ...]:
        """The counts as text: own requests, live traffic, Triton's counters, the note."""
        found = [self._line]
        if self.live is not None:
            found.append(f"live traffic: {self.live._line}")
        if self.server is not None:
            counts = f"{self.server.requests} requests, {self.server.errors} other failures"
            found.append(f"Triton's counters: {counts}")
        if self.recorded_positives == 0:
            found.append(
                "no recorded request is a positive of the champion: missed positives are not judged"
            )
        return (*found, *filter(None, [self.note]))

    @property
    def _line(self) -> str:
        parts = [
            f"{self.requests} requests",
            f"{self.errors} failed",
            f"{self.disagreement:.1%} of {self._compared} decisions differ",
        ]
        if self.positives:
            parts.append(
                f"{self.positive_disagreement:.1%} of {self.positives} champion's positives missed"
            )
        ours, theirs = _ms(self.candidate_p50_ms), _ms(self.champion_p50_ms)
        return ", ".join([*parts, f"p50 {ours} (champion {theirs})"])

    @property
    def _compared(self) -> int:
        return self.requests - self.errors if self.compared is None else self.compared

    def judged(self, spec: PromotionSpec) -> tuple[Judged, ...]:
        """Every goal of which something is known, with bounds of its rate."""
        parts = (("", self), ("live traffic: ", self.live), ("Triton's counters: ", self.server))
        alpha = alpha_of_each(spec)
        return tuple(
            Judged(
                goal=f"{where}{goal}",
                hits=hits,
                trials=trials,
                limit=limit,
                lower=low,
                upper=high,
                finding=judge(hits, trials, limit, alpha),
            )
            for where, part in parts
            if part is not None
            for goal, hits, trials, limit, _ in part._goals(spec)
            for low, high in [bounds(hits, trials, alpha)]
        )

    def broken(self, spec: PromotionSpec, *, final: bool = False) -> list[str]:
        """The goals that the candidate is shown to violate, as text.

        Valid at every look. Too few responses at the end (`final`) also break a goal, except of
        live traffic.
        """
        alpha, found = alpha_of_each(spec), []
        for where, part in (("live traffic: ", self.live), ("Triton's counters: ", self.server)):
            found += [f"{where}{goal}" for goal in ([] if part is None else part.broken(spec))]
        for goal, hits, trials, limit, detail in self._goals(spec):
            if judge(hits, trials, limit, alpha) == "violated":
                rate = f"{hits / trials:.2%} > {limit:.2%}"
                found.append(f"{goal} {rate}: {hits} of {trials}{detail}")
        if final:
            found += self._missing(spec)
        return found

    def _missing(self, spec: PromotionSpec) -> list[str]:
        valid = self.requests - self.errors
        if valid < spec.canary_patience:
            return [f"too few responses to judge: {valid} of {spec.canary_patience}"]
        needed = min(spec.canary_patience, spec.positive_requests)
        if self.recorded_positives and self.positives < needed:
            return [f"too few of the champion's positives to judge: {self.positives} of {needed}"]
        return []

    def _goals(self, spec: PromotionSpec) -> list[tuple[str, int, int, float, str]]:
        """Name, hits, trials, limit and a detail of each goal of which something is known."""
        reason = f" ({self.reasons[0]})" if self.reasons else ""
        found = [("error rate", self.errors, self.requests, spec.max_error_rate, reason)]
        found += [
            (
                "disagreement with the champion",
                self.disagreements,
                self._compared,
                spec.max_disagreement,
                "",
            ),
            (
                "missed positives of the champion",
                self.missed,
                self.positives,
                spec.max_positive_disagreement,
                "",
            ),
            (
                f"latency above {spec.max_p50_ratio:g} times the champion's",
                self.slower,
                self.pairs,
                P50_RATE,
                f" pairs (median {_ms(self.candidate_p50_ms)}, champion "
                f"{_ms(self.champion_p50_ms)})",
            ),
        ]
        if spec.max_p99_ms is not None:
            found.append(
                (
                    f"latency above {spec.max_p99_ms:g} ms",
                    self.slow,
                    self.timed,
                    P99_RATE,
                    f" (p99 {_ms(self.candidate_p99_ms)})",
                )
            )
        return [goal for goal in found if goal[2]]


class Tally:
    """Collects the data of an `Observed`.

    Args:
        spec: limits of latency.
        before: an earlier comparison of the same promotion; its decisions count too.
    """

    def __init__(self, spec: PromotionSpec, before: Observed | None = None) -> None:
        self._spec = spec
        self.requests = self.errors = self.late = 0
        self.disagreements = self.compared = self.positives = self.missed = 0
        if before is not None:
            self.disagreements, self.compared = before.disagreements, before._compared
            self.positives, self.missed = before.positives, before.missed
        self.recorded_positives = None if before is None else before.recorded_positives
        self.pairs = self.slower = 0
        self.candidate_ms: list[float] = []
        self.champion_ms: list[float] = []
        self.reasons: list[str] = []

    def error(self, reason: str, *, late: bool = False, count: int = 1) -> None:
        """Count requests without a valid response."""
        self.requests += count
        self.errors += count
        self.late += count if late else 0
        if reason not in self.reasons[:3]:
            self.reasons.append(reason)

    def answer(self, ms: float | None, *, champion_ms: float | None = None, count: int = 1) -> None:
        """Count valid responses.

        Args:
            ms: latency; None: not known.
            champion_ms: latency of the champion's paired response.
            count: responses.
        """
        self.requests += count
        if ms is None:
            return
        self.candidate_ms.append(ms)
        if champion_ms is not None:
            self.champion_ms.append(champion_ms)
            self.pairs += 1
            self.slower += ms > self._spec.max_p50_ratio * champion_ms

    def decision(self, *, agrees: bool, champion: bool | None, drawn: bool = True) -> None:
        """Count a compared decision.

        Args:
            agrees: whether both decide the same.
            champion: what the champion decides; None: not known.
            drawn: whether the request was drawn from all; else it was chosen as a positive.
        """
        if drawn:
            self.compared += 1
            self.disagreements += not agrees
        if champion:
            self.positives += 1
            self.missed += not agrees

    def observed(
        self, live: Observed | None = None, server: Observed | None = None, note: str = ""
    ) -> Observed:
        """The measurements so far, with those of live traffic and of the server."""
        longest = self._spec.max_p99_ms
        slow = 0 if longest is None else sum(ms > longest for ms in self.candidate_ms)
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
            positives=self.positives,
            missed=self.missed,
            recorded_positives=self.recorded_positives,
            pairs=self.pairs,
            slower=self.slower,
            timed=len(self.candidate_ms),
            slow=slow,
            late=self.late,
            live=live,
            server=server,
            note=note,
        )


def _percentile(values: list[float], percent: float) -> float | None:
    return float(np.percentile(values, percent)) if values else None


def _ms(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f} ms"
