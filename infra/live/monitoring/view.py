"""The document of a service at one moment, from what its observer counted."""

import time
from collections.abc import Callable, Mapping, Sequence

from infra.live.monitoring.document import (
    Counts,
    Document,
    Figure,
    Instrument,
    Part,
    Point,
    Stage,
    State,
)
from infra.live.monitoring.observer import Observer
from infra.live.monitoring.parts import drift
from infra.live.status import Status
from model_code.live.histogram import MS, quantiles_ms, since
from model_code.live.ledger import Ledger
from model_code.live.reasons import Column
from model_code.repository.route import Route
from model_code.repository.targets import TargetStates

INTERRUPTED_S = 5.0
SHARES = (0.5, 0.99, 0.999)


class View:
    """Documents of a service; any thread may ask for them.

    Args:
        observer: a sink of the service.
        route: reads where requests go.
        targets: reads which Triton servers have the serving version.
        clock: ns since the epoch.
    """

    def __init__(
        self,
        observer: Observer,
        *,
        route: Callable[[], Route] = Route,
        targets: Callable[[], TargetStates] = TargetStates,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.observer, self._route, self._clock = observer, route, clock
        self._targets = targets

    def route(self) -> Route:
        """Where requests go; empty if it cannot be read."""
        try:
            return self._route()
        except Exception:  # of the file: the promotion reports it
            return Route()

    def targets(self) -> TargetStates:
        """What the last promotion, rollback or `tickline reconcile` found; empty if unknown."""
        try:
            return self._targets()
        except OSError:  # of the file: the next change writes it again
            return TargetStates()

    def parts(self) -> list[Part]:
        """The broker and what else the service needs."""
        status = self.observer.status
        error = None if status is None else status.broker_error
        state = {None: "unknown", "": "up"}.get(error, "down")
        broker = Part(name="broker", state=state, detail=error or "")  # type: ignore[arg-type]
        return [broker, *(read() for read in self.observer.parts)]

    def _drift(self) -> list[Figure] | None:
        """Of the version that was judged last; None without one."""
        judged = self.observer.feedback().values()
        return drift(max(judged, key=lambda one: one.until_ns)) if judged else None

    def document(self, after_ms: int = 0) -> Document:
        """The state now.

        Args:
            after_ms: leave out points that began before.
        """
        observer, now_ns = self.observer, self._clock()
        status = observer.status or Status()
        copies, rates = list(observer.copies), list(observer.rates)
        now = observer.copy(time.monotonic())
        durations = now.durations
        versions, flags, recent = now.versions, now.flags, now.decided
        if copies:
            first = copies[0]
            durations = {
                name: since(counts, first.durations[name]) for name, counts in durations.items()
            }
            versions, flags = versions - first.versions, flags - first.flags
            recent -= first.decided
        ticks_per_s, decisions_per_s = _rates(rates)
        tick_age_s = _age_s(observer.tick_at_ns, now_ns)
        decision_age_s = _age_s(observer.decision_at_ns, now_ns)
        route = self.route()
        candidate = route.candidate
        return Document(
            at_ms=now_ns // MS,
            started_ms=observer.started_ns // MS,
            state=_state(observer, tick_age_s, decision_age_s),
            tick_age_s=tick_age_s,
            decision_age_s=decision_age_s,
            recorded=observer.far > 0,
            ticks_per_s=ticks_per_s,
            decisions_per_s=decisions_per_s,
            lag=total_lag(status),
            unprocessed=status.unprocessed,
            unconfirmed=status.unconfirmed,
            pauses=status.pauses,
            queue_full=status.queue_full,
            sink_failures=status.sink_failures,
            ledger=counts(status.ledger, status.waiting),
            stages=_stages(durations),
            versions={str(version): count for version, count in sorted(versions.items())},
            flags=dict(sorted(flags.items())),
            recent=recent,
            champion=None if route.champion is None else route.champion.version,
            candidate=None if candidate is None else candidate.version,
            share=0.0 if candidate is None else route.share,
            instruments=_instruments(observer, after_ms),
            opportunities=list(reversed(observer.opportunities.copy())),
            parts=self.parts(),
            drift=self._drift(),
            hidden=len(observer.hidden),
        )


def counts(ledger: Ledger, waiting: int) -> Counts:
    """A ledger with every column, and the reasons that occurred."""
    return Counts(
        taken=ledger.taken,
        columns={str(column): ledger.columns[column] for column in Column},
        reasons={str(reason): count for reason, count in ledger.reasons.most_common()},
        waiting=waiting,
        lost=ledger.lost,
        reordered=ledger.reordered,
        duplicated=ledger.duplicated,
    )


def total_lag(status: Status) -> int | None:
    """Messages in the broker; None if no partition's lag is known."""
    known = [one for one in status.lag.values() if one >= 0]
    return sum(known) if known else None


def _age_s(at_ns: int | None, now_ns: int) -> float | None:
    return None if at_ns is None else max(0.0, (now_ns - at_ns) / 1e9)


def _state(observer: Observer, tick_age_s: float | None, decision_age_s: float | None) -> State:
    if observer.status is None:
        return "starting"
    if tick_age_s is None:
        return "no ticks yet"
    if tick_age_s > INTERRUPTED_S:
        return "interrupted"
    if decision_age_s is None:
        return "warming up"
    return "live" if decision_age_s <= INTERRUPTED_S else "no decisions"


def _rates(rates: Sequence[tuple[float, int, int]]) -> tuple[float, float]:
    if len(rates) < 2:
        return 0.0, 0.0
    first, last = rates[0], rates[-1]
    seconds = last[0] - first[0]
    return (last[1] - first[1]) / seconds, (last[2] - first[2]) / seconds


def _stages(durations: Mapping[str, list[int]]) -> list[Stage]:
    found = []
    for name, one in durations.items():
        p50, p99, p999 = quantiles_ms(one, SHARES)
        found.append(Stage(name=name, count=sum(one), p50=p50, p99=p99, p999=p999))
    return found


def _instruments(observer: Observer, after_ms: int) -> list[Instrument]:
    found = []
    for symbol, one in sorted(observer.instruments.copy().items()):
        newest = one.newest
        points = [Point(*point) for point in one.points.copy() if point[0] >= after_ms]
        found.append(
            Instrument(
                symbol=symbol,
                bid_price=one.bid_price,
                ask_price=one.ask_price,
                probability=newest.probability,
                threshold=newest.threshold,
                decision=newest.decision,
                side=newest.side,
                version=newest.model_version,
                flags=newest.flags,
                tick_ms=newest.local_ns // MS,
                at_ms=one.at_ns // MS,
                decisions=one.decisions,
                opportunities=one.opportunities,
                points=points,
            )
        )
    return found
