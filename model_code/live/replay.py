"""Recorded days through the whole live path, beside the batch pipeline on the same ticks.

Messages come in the order of their stamps and the path's time is theirs, so that a replay of any
speed decides the same. Every window is asked about; none is conflated.

Shapes: N rows of an instrument-day, B windows, T = 64 steps, F = 16 features.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from model_code.engines.protocol import Predictor
from model_code.errors import DataError
from model_code.features.served import SeenFeatures
from model_code.features.venues import Quotes
from model_code.live.expected import Expected, difference, differing_columns, expected, next_end
from model_code.live.messages import Decision, encode
from model_code.live.path import Asked, LivePath
from model_code.live.recorded import Feed, PlayedDay, played
from model_code.live.state import Group
from model_code.market.schema import InstrumentDay, stamps
from model_code.market.store import MarketStore
from model_code.models.probability import probability
from model_code.settings import MAX_BATCH_SIZE, SEQUENCE_LENGTH, FeatureSpec
from model_code.training.threshold import decide


@dataclass(frozen=True)
class Model:
    """A model version as a replay needs it.

    Attributes:
        predictor: its engine.
        seen: feature set and leaders.
        spec: feature set, reset gap, label, horizon and cost.
        threshold: probability from which a decision is true.
        version: written to decisions.
    """

    predictor: Predictor
    seen: SeenFeatures
    spec: FeatureSpec
    threshold: float
    version: int


@dataclass(frozen=True)
class Outcome:
    """What was decided on one instrument-day.

    Attributes:
        quotes: of the validated ticks.
        segment_N: int32, of the same rows.
        ends: rows with a decision.
        positive: rows with a decision for an opportunity.
    """

    quotes: Quotes
    segment_N: NDArray[np.int32]
    ends: NDArray[np.int64]
    positive: NDArray[np.int64]


@dataclass
class Tally:
    """What a replay found.

    Attributes:
        decisions: compared, by instrument.
        positive: decisions for an opportunity, by instrument.
        latencies_ns: from the bytes to the hand-over, of each decision.
    """

    decisions: dict[str, int] = field(default_factory=dict)
    positive: dict[str, int] = field(default_factory=dict)
    latencies_ns: list[int] = field(default_factory=list)

    @property
    def compared(self) -> int:
        """Decisions equal to the batch pipeline's."""
        return sum(self.decisions.values())

    def add(self, one: Decision) -> None:
        """Count an equal decision."""
        self.decisions[one.symbol] = self.decisions.get(one.symbol, 0) + 1
        self.positive[one.symbol] = self.positive.get(one.symbol, 0) + one.decision
        self.latencies_ns.append(one.latency.total)


def _quotes(ticks: pa.Table) -> Quotes:
    return Quotes(stamps(ticks), ticks["bid_price"].to_numpy(), ticks["ask_price"].to_numpy())


class Replay:
    """Plays days through a path and compares each decision with the batch pipeline's.

    Args:
        path: of the model's features; it must not suppress stale decisions.
        predictor: the model version's engine.
        seen: feature set and leaders.
        spec: feature set, reset gap, label, horizon and cost of the model version.
        batch: windows asked about at once.
    """

    def __init__(
        self,
        path: LivePath,
        predictor: Predictor,
        seen: SeenFeatures,
        spec: FeatureSpec,
        batch: int = MAX_BATCH_SIZE,
    ) -> None:
        self.path, self.tally = path, Tally()
        self._predictor, self._seen, self._spec, self._batch = predictor, seen, spec, batch
        self._feed = Feed()

    def play(
        self, days: Sequence[PlayedDay], pace: Callable[[int], None] | None = None
    ) -> dict[str, Outcome]:
        """Play one date.

        Args:
            days: its instruments.
            pace: called with each message's stamp before it is taken.

        Returns:
            The decisions by instrument.

        Raises:
            DataError: a decision differs from the batch pipeline's, or is missing.
        """
        wanted = expected(days, self._seen, self._spec)
        positive: dict[str, list[int]] = {symbol: [] for symbol in wanted}
        asked: list[Asked] = []
        for tick in self._feed.messages(days):
            if pace is not None:
                pace(tick.local_ns)
            self.path.take(encode(tick), tick.local_ns)
            found = self.path.ready(tick.local_ns)
            if found is not None:
                asked.append(found)
            if len(asked) >= self._batch:
                self._decide(asked, wanted, positive)
                asked = []
        if asked:
            self._decide(asked, wanted, positive)
        for symbol, one in wanted.items():
            if one.at != len(one.ends):
                end = int(one.ends[one.at])
                raise difference(symbol, one, end, "the live path made no decision")
        return {
            day.day.symbol: Outcome(
                _quotes(day.ticks),
                wanted[day.day.symbol].rows.segment_N,
                wanted[day.day.symbol].ends,
                np.array(positive[day.day.symbol], np.int64),
            )
            for day in days
        }

    def _decide(
        self,
        asked: Sequence[Asked],
        wanted: Mapping[str, Expected],
        positive: Mapping[str, list[int]],
    ) -> None:
        x_BTF = np.concatenate([one.x_BTF for one in asked])
        p_B = probability(self._predictor.predict(x_BTF))
        decisions: list[Decision] = []
        for p, sent in zip(p_B, asked, strict=True):
            now_ns = sent.waiting[0].quote.local_ns
            decisions += self.path.answer(sent, [p], now_ns, flags=("in-process",))
        if len(decisions) != len(asked):
            raise DataError(
                f"the model gave {len(asked) - len(decisions)} answers that are no probability",
                remedy="check the version: tickline predict",
            )
        ends = [next_end(one, wanted) for one in decisions]
        batch_BTF = np.empty_like(x_BTF)
        for place, (one, end) in enumerate(zip(decisions, ends, strict=True)):
            features_NF = wanted[one.symbol].rows.features_NF
            batch_BTF[place] = features_NF[end - SEQUENCE_LENGTH + 1 : end + 1]
        yes_B = decide(probability(self._predictor.predict(batch_BTF)), self.path.threshold)
        same_B = (x_BTF.view(np.uint32) == batch_BTF.view(np.uint32)).all(axis=(1, 2))
        for place, (one, end) in enumerate(zip(decisions, ends, strict=True)):
            yes = bool(yes_B[place])
            if one.decision != yes or not same_B[place]:
                differing = differing_columns(x_BTF[place], batch_BTF[place])
                raise difference(
                    one.symbol,
                    wanted[one.symbol],
                    end,
                    f"{one.decision} with p = {one.probability:.6f} live, {yes} in the batch; "
                    f"columns of the window that differ: {differing}",
                )
            if yes:
                positive[one.symbol].append(end)
            self.tally.add(one)


@dataclass(frozen=True)
class Played:
    """A finished replay.

    Attributes:
        path: with its ledger.
        tally: of the compared decisions.
        outcomes: by instrument, for each date.
        left_out: rows that were not played, by rule.
    """

    path: LivePath
    tally: Tally
    outcomes: list[dict[str, Outcome]]
    left_out: Counter[str]


def play_store(
    store: MarketStore,
    catalog: Sequence[InstrumentDay],
    model: Model,
    *,
    batch: int = MAX_BATCH_SIZE,
    pacer: Callable[[], Callable[[int], None] | None] = lambda: None,
    clock: Callable[[], int] | None = None,
) -> Played:
    """Play days of a store, date by date, through one path.

    Args:
        store: to read.
        catalog: days to play.
        model: what decides.
        batch: windows asked about at once.
        pacer: called for each date; what it returns is called with each message's stamp.
        clock: for durations, in ns.

    Raises:
        DataError: a decision differs from the batch pipeline's, or nothing is to be played.
    """
    if not catalog:
        raise DataError("no days to play", where=store.uri, remedy="tickline data describe")
    leaders = {name for others in model.seen.leaders.values() for name in others}
    symbols = sorted({day.symbol for day in catalog} | leaders)
    replay, outcomes, left_out = None, [], Counter[str]()
    for _, group in groupby(sorted(catalog), key=lambda day: day.date):
        read = [played(store, day) for day in group]
        if replay is None:
            path = LivePath(
                # validation has judged the trades already, with the quotes after them in view
                Group(model.seen, symbols, model.spec.reset_gap_s, read[0][1], math.inf),
                threshold=model.threshold,
                model_version=model.version,
                clock=clock,
            )
            replay = Replay(path, model.predictor, model.seen, model.spec, batch)
        days = [day for day, _ in read]
        for day in days:
            left_out.update(day.left_out)
        outcomes.append(replay.play(days, pacer()))
    assert replay is not None  # noqa: S101 (the catalog is not empty)
    return Played(replay.path, replay.tally, outcomes, left_out)
