"""Tick to decision in one process: `python -m tests.bench.bench_live --data URI [--version N]`.

Open loop: each tick is due at its own time at the given rate, and latency counts from then, so that
a path that falls behind shows it. The engine answers in the same process, one call for all windows
that wait.
"""

import argparse
import time
from itertools import islice
from types import SimpleNamespace

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from flows.cli.options import settings_from_environment
from flows.runs.replay_model import find_version, load_model
from model_code.live.messages import Decision, encode
from model_code.live.path import LivePath
from model_code.live.reasons import Column
from model_code.live.recorded import Feed, played
from model_code.live.replay import Model
from model_code.live.state import Group
from model_code.machine import facts
from model_code.market.store import open_market
from model_code.models.probability import probability

STAGES = ("decode", "features", "queue", "inference", "publish")
BEHIND_MS = 10.0  # p99 from which a rate is not sustained


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="simulated:?days=1&minutes=10")
    parser.add_argument("--version", type=int)
    parser.add_argument("--rates", type=float, nargs="+", default=[500, 2000, 4000, 8000])
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    folder, manifest = find_version(settings_from_environment(), options.version, None)
    model = load_model(folder, manifest)
    store = open_market(options.data)
    newest = max(day.date for day in store.catalog())
    read = [played(store, day) for day in store.catalog() if day.date == newest]
    most = int(max(options.rates) * options.seconds)
    payloads = [
        (encode(tick), tick.local_ns)
        for tick in islice(Feed().messages([day for day, _ in read]), most)
    ]
    leaders = {name for others in model.seen.leaders.values() for name in others}
    symbols = sorted({day.day.symbol for day, _ in read} | leaders)
    console = Console()
    table = Table(
        "ticks/s", "decided", "conflated", *STAGES, "p50", "p99",
        title="us; of the stages the p50", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0),
    )  # fmt: skip
    best = (0.0, float("nan"))
    for rate in options.rates:
        group = Group(model.seen, symbols, model.spec.reset_gap_s, read[0][1])
        found = run(model, group, payloads[: int(rate * options.seconds)], rate)
        middle = [
            np.median([getattr(one.latency, name) for one in found.decisions]) for name in STAGES
        ]
        p50, p99 = np.percentile(found.late_ns, (50, 99)) / 1e6
        table.add_row(
            f"{rate:,.0f}", f"{len(found.decisions):,}", f"{found.conflated:,}",
            *(f"{value / 1e3:.0f}" for value in middle), f"{p50 * 1e3:.0f}", f"{p99 * 1e3:.0f}",
        )  # fmt: skip
        assert found.balanced
        if found.rate > 0.98 * rate and p99 < BEHIND_MS:
            best = (found.rate, p99)
    console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in facts().items()))
    console.print(f"direct, in process: sustained {best[0]:,.0f} ticks/s, p99 {best[1]:.2f} ms")


def run(
    model: Model, group: Group, payloads: list[tuple[bytes, int]], rate: float
) -> SimpleNamespace:
    """One rate: decisions, how late each was after its tick was due, ticks a second reached."""
    clock = time.perf_counter_ns
    path = LivePath(group, threshold=model.threshold, model_version=model.version, clock=clock)
    model.predictor.predict(np.zeros((1, 64, 16), np.float32))
    decisions: list[Decision] = []
    late_ns: list[int] = []
    due: dict[int, int] = {}
    step, begun, place = 1e9 / rate, clock(), 0
    while place < len(payloads) or path.waiting:
        now = clock()
        while place < len(payloads) and begun + place * step <= now:
            payload, stamp = payloads[place]
            path.take(payload, stamp)
            due[stamp] = int(begun + place * step)
            place += 1
        asked = path.ready(0)
        if asked is None:
            continue
        answers = path.answer(asked, probability(model.predictor.predict(asked.x_BTF)), 0)
        done = clock()
        decisions += answers
        late_ns += [done - due[one.local_ns] for one in answers]
    seconds = (clock() - begun) / 1e9
    return SimpleNamespace(
        decisions=decisions,
        late_ns=late_ns,
        rate=len(payloads) / seconds,
        conflated=path.ledger.columns[Column.CONFLATED],
        balanced=path.ledger.balanced(),
    )


if __name__ == "__main__":
    main()
