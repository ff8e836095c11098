"""Which settings of the model server to measure, which are worth having, which to choose.

Two figures of each: the p99 that a client sees at a stated rate, and the server's processor time
per request, which is what is left for more requests and for other work on the machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median

from model_code.settings import PREFERRED_BATCH_SIZES, ServingSpec

INSTANCES = (1, 2)
DELAYS_US = (0, 100, 500)
PREFERRED: tuple[tuple[int, ...], ...] = ((), PREFERRED_BATCH_SIZES)
DESIGN = ServingSpec()


@dataclass(frozen=True)
class Round:
    """One measurement of one setting at the stated rate.

    Attributes:
        p50_ms: from the intended send time to the response.
        p99_ms: the same.
        processor_us: the server's processor time per request, all its processes together.
        unanswered: requests without a response.
    """

    p50_ms: float
    p99_ms: float
    processor_us: float
    unanswered: int = 0


@dataclass(frozen=True)
class Row:
    """A setting and its rounds; its figures are the rounds' medians."""

    serving: ServingSpec
    rounds: tuple[Round, ...]

    @property
    def p50_ms(self) -> float:
        """The median round's p50."""
        return median(one.p50_ms for one in self.rounds)

    @property
    def p99_ms(self) -> float:
        """The median round's p99."""
        return median(one.p99_ms for one in self.rounds)

    @property
    def processor_us(self) -> float:
        """The median round's processor time per request."""
        return median(one.processor_us for one in self.rounds)

    @property
    def unanswered(self) -> int:
        """Of all rounds."""
        return sum(one.unanswered for one in self.rounds)

    def meets(self, goal_ms: float) -> bool:
        """Whether every request was answered, and the p99 is within the goal."""
        return self.unanswered == 0 and self.p99_ms <= goal_ms


@dataclass(frozen=True)
class ServingChoice:
    """The chosen setting.

    Attributes:
        row: it and its measurements; None if no setting meets the goal.
        reason: in one sentence.
    """

    row: Row | None
    reason: str


def space(engine_threads: int, cores: int) -> tuple[ServingSpec, ...]:
    """The settings to measure, the design's first.

    Args:
        engine_threads: that the engine was built with.
        cores: of the machine; the threads of all instances together are at most these, or the
            engine's own.
    """
    found = [DESIGN]
    counts: list[int | None] = [None, *sorted({1, cores} - {engine_threads})]
    for instances, threads in product(INSTANCES, counts):
        used = instances * (threads or engine_threads)
        if used > max(cores, engine_threads):
            continue
        for delay, sizes in product(DELAYS_US, PREFERRED):
            one = ServingSpec(
                instances=instances,
                queue_delay_us=delay,
                preferred_batch_sizes=sizes,
                threads=threads,
            )
            found += [one] if one != DESIGN else []
    return tuple(found)


def frontier(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows that no other beats in both p99 and processor time, by p99, without failures."""
    sound = [row for row in rows if row.unanswered == 0]
    return tuple(
        sorted(
            (
                row
                for row in sound
                if not any(
                    other.p99_ms <= row.p99_ms
                    and other.processor_us <= row.processor_us
                    and (other.p99_ms, other.processor_us) != (row.p99_ms, row.processor_us)
                    for other in sound
                )
            ),
            key=lambda row: (row.p99_ms, row.processor_us),
        )
    )


def choose(rows: Sequence[Row], goal_ms: float) -> ServingChoice:
    """The setting that meets the goal with the least processor time.

    The design's stays unless it misses the goal, or another took less processor time in every
    round: one lucky measurement changes no server.

    Args:
        rows: the design's among them; of all the same number of rounds, measured in turns.
        goal_ms: the p99 must not exceed it.
    """
    fit = [row for row in rows if row.meets(goal_ms)]
    if not fit:
        best = min(rows, key=lambda row: (row.unanswered, row.p99_ms))
        return ServingChoice(
            None,
            f"no setting has a p99 within {goal_ms:g} ms and answers every request; the best: "
            f"{best.p99_ms:.2f} ms, {best.unanswered} unanswered",
        )
    design = next(row for row in rows if row.serving == DESIGN)
    if design in fit:
        cheaper = [row for row in fit if row is not design and _less_in_every_round(row, design)]
        if not cheaper:
            return ServingChoice(
                design, "the design's: none that meets the goal took less processor time each round"
            )
        best = min(cheaper, key=lambda row: row.processor_us)
        return ServingChoice(
            best, "it meets the goal and took less processor time than the design's in every round"
        )
    best = min(fit, key=lambda row: row.processor_us)
    return ServingChoice(best, "the design's misses the goal; this takes the least processor time")


def _less_in_every_round(row: Row, design: Row) -> bool:
    pairs = zip(row.rounds, design.rounds, strict=True)
    return all(one.processor_us < other.processor_us for one, other in pairs)
