"""Recorded days as the frames that a service hands to the process that judges it."""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from model_code.features.definition import names
from model_code.features.served import SOLO, SeenFeatures
from model_code.live.feedback.frames import Frame, Sampled, SeenRow
from model_code.live.feedback.reference import LiveReference
from model_code.live.feedback.sampling import draw
from model_code.live.fold import Row
from model_code.live.messages import Quote
from model_code.live.path import LivePath
from model_code.live.recorded import Feed, PlayedDay, played
from model_code.live.state import Group
from model_code.market.profiles import Limits
from model_code.market.store import MarketStore
from model_code.models.probability import probability
from model_code.settings import FeatureSpec
from tests.support.live import StepPredictor


def seen_row(quote: Quote, row: Row, begins: bool) -> SeenRow:
    return SeenRow(
        quote.symbol, quote.session, quote.sequence,
        row.timestamp, row.bid_price, row.ask_price, begins,
    )  # fmt: skip


def frames(
    days: Sequence[PlayedDay],
    seen: SeenFeatures = SOLO,
    *,
    rows: int = 50,
    ask_every: int = 1,
    shift_F: NDArray[np.float32] | None = None,
    logged: bool = False,
    bounds: Limits | None = None,
    rate: float = 1.0,
) -> Iterator[Frame]:
    """The frames of one date.

    Args:
        days: of its instruments.
        seen: features.
        rows: of a frame.
        ask_every: messages between two questions; with more than one, windows are conflated.
        shift_F: added to the newest row of each input.
        logged: decisions carry their window.
        bounds: thresholds of validation; None: the defaults. With them trades are not judged again.
        rate: share of the decisions that are sampled.
    """
    found: list[SeenRow] = []
    sampled: list[Sampled] = []
    symbols = [day.day.symbol for day in days]
    path = LivePath(
        Group(seen, symbols, 10.0, bounds, None if bounds is None else math.inf),
        threshold=0.5,
        model_version=7,
        watch=lambda *given: found.append(seen_row(*given)),
    )
    predictor = StepPredictor()
    for number, tick in enumerate(Feed().messages(days)):
        path.take(tick, tick.local_ns)
        asked = None if number % ask_every else path.ready(tick.local_ns)
        if asked is not None:
            x_BTF = asked.x_BTF
            for one, x_TF in zip(
                path.answer(asked, probability(predictor.predict(x_BTF)), tick.local_ns),
                x_BTF,
                strict=True,
            ):
                if draw(one.symbol, one.session, one.sequence) >= rate:
                    continue
                newest_F = x_TF[-1] if shift_F is None else x_TF[-1] + shift_F
                window = x_TF.tobytes() if logged else None
                sampled.append(Sampled(one, newest_F.astype(np.float32).tobytes(), window))
        if len(found) >= rows:
            yield Frame(list(found), list(sampled))
            found.clear()
            sampled.clear()
    yield Frame(list(found), list(sampled))


def reference(
    features_NF: NDArray[np.float32],
    timestamp_N: NDArray[np.int64],
    spec: FeatureSpec,
    lengths_s: Sequence[int] = (20,),
) -> LiveReference:
    return LiveReference.of(features_NF, timestamp_N, names(spec.chosen_set), spec, lengths_s)


def by_date(store: MarketStore) -> Iterator[tuple[list[PlayedDay], Limits]]:
    """The instruments of each date of a store, and the thresholds of its validation."""
    for _, group in groupby(
        sorted(store.catalog(), key=lambda day: day.date), lambda day: day.date
    ):
        read = [played(store, day) for day in group]
        yield [day for day, _ in read], read[0][1]
