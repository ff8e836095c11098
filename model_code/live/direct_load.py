"""Open-loop load on a path and an engine in one process, as in an engine that embeds both."""

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from model_code.engines.protocol import Predictor
from model_code.live.messages import Decision, Tick, encode
from model_code.live.path import LivePath
from model_code.live.tick_times import TickTimes, matrix
from model_code.models.probability import probability

STAGES = ("waiting", "decode", "features", "queue", "inference", "publish")


def direct_load(
    path: LivePath,
    predictor: Predictor,
    ticks: Sequence[Tick],
    *,
    rate: float,
    clock: Callable[[], int],
    warm: int = 0,
) -> TickTimes:
    """Hand ticks to the path when each is due; the engine answers for all windows that wait.

    Args:
        path: fresh.
        predictor: the engine.
        ticks: in their order; stamped anew with the time at which each is due.
        rate: ticks a second.
        clock: in ns; also the path's.
        warm: ticks at the beginning that are not measured.
    """
    step = 1e9 / rate
    first_ns = ticks[0].local_ns
    payloads = [
        encode(msgspec.structs.replace(tick, local_ns=first_ns + int(place * step)))
        for place, tick in enumerate(ticks)
    ]
    rows: list[tuple[int, ...]] = []
    late: list[int] = []
    flags: Counter[tuple[str, ...]] = Counter()
    measured_ns = first_ns + int(warm * step)
    place, begun = 0, clock()
    while place < len(payloads) or path.waiting:
        now = clock() - begun
        while place < len(payloads) and place * step <= now:
            path.take(payloads[place], first_ns + now)
            late.append(now - int(place * step))
            place += 1
        asked = path.ready(first_ns + now)
        if asked is None:
            continue
        probability_B = probability(predictor.predict(asked.x_BTF))
        decisions = path.answer(asked, probability_B, first_ns + now, flags=("in-process",))
        done_ns = first_ns + clock() - begun
        for one in decisions:
            if one.local_ns >= measured_ns:
                rows.append(_stages(one, done_ns))
                flags[one.flags] += 1
    return TickTimes(
        rate=rate,
        seconds=max((clock() - begun) / 1e9 - warm / rate, 1e-9),
        ticks=len(ticks) - warm,
        quotes=sum(hasattr(tick, "bid_price") for tick in ticks[warm:]),
        stage_NS=matrix(rows, len(STAGES)),
        sent_late_N=np.array(late[warm:], np.int64),
        answered_by=flags,
        stages=STAGES,
    )


def _stages(one: Decision, done_ns: int) -> tuple[int, ...]:
    """Of `STAGES`; `waiting` is the time until the path took the tick."""
    spent = one.latency
    named = (spent.decode, spent.features, spent.queue, spent.inference, spent.publish)
    return done_ns - one.local_ns - sum(named), *named
