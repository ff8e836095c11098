"""The service on a broker in memory: every decision of a replay, once, through restarts."""

import asyncio
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from infra.live.kafka import consumer
from infra.live.kafka.clients import KafkaSpec, create_topics, dead_letters
from infra.live.kafka.feed import publish
from infra.live.kafka.producer import Outbox
from infra.live.model import Answered, InProcess
from infra.live.service import Service
from infra.live.snapshots import SharedSnapshots
from infra.live.spec import ServiceSpec
from model_code.errors import StreamError
from model_code.features.served import SOLO, SeenFeatures
from model_code.live.groups import groups
from model_code.live.ledger import Ledger
from model_code.live.messages import Decision, Tick, read
from model_code.live.newest import Newest
from model_code.live.path import Asked, LivePath
from model_code.live.reasons import Column, Reason
from model_code.live.recorded import Feed, played
from model_code.live.replay import Tally, play_store
from model_code.live.state import Group
from model_code.market.profiles import limits
from model_code.market.store import open_market
from model_code.settings import ValidationSpec
from model_code.storage.objects import Objects
from tests.support.broker import headers, kafka_spec, read_all
from tests.support.live import StepPredictor, model
from tests.support.market import DATES, SYMBOLS, hive

PAIRED = SeenFeatures(feature_set="paired", leaders={SYMBOLS[1]: SYMBOLS[:1]})
N = 120
DECISIONS = 2 * (N - 63)
Key = tuple[str, int, int]
STEP = StepPredictor()


class Recorded:
    """A sink that keeps what it is given, or fails."""

    def __init__(self, *, fails: bool = False) -> None:
        self.decisions: list[Decision] = []
        self.windows = 0
        self._fails = fails

    async def write(self, decisions: Sequence[Decision], asked: Sequence[Asked]) -> None:
        if self._fails:
            raise OSError("no route")
        self.decisions += decisions
        self.windows += sum(len(one.waiting) for one in asked)


def values(one: Decision) -> tuple[Any, ...]:
    return one.local_ns, one.probability, one.decision, one.threshold, one.model_version


def key(one: Decision) -> Key:
    return one.symbol, one.session, one.sequence


@pytest.fixture
def spec(broker: str) -> KafkaSpec:
    made = kafka_spec(broker)
    create_topics(made, [*made.ticks, dead_letters(made.ticks[0]), made.decisions])
    return made


@pytest.fixture
def store(tmp_path: Path) -> str:
    return hive(tmp_path / "store", n=N, dates=DATES[:1])


def replayed(
    store: str, seen: SeenFeatures, monkeypatch: pytest.MonkeyPatch
) -> dict[Key, tuple[Any, ...]]:
    """The decisions that `tickline replay` has compared with the batch pipeline's."""
    found: list[Decision] = []
    add = Tally.add

    def keep(self: Tally, one: Decision) -> None:
        found.append(one)
        add(self, one)

    monkeypatch.setattr(Tally, "add", keep)
    market = open_market(store)
    play_store(market, market.catalog(), model(seen))
    assert len(found) == DECISIONS
    return {key(one): values(one) for one in found}


def messages(store: str) -> list[Tick]:
    market = open_market(store)
    return list(Feed().messages([played(market, day)[0] for day in market.catalog()]))


def send(spec: KafkaSpec, seen: SeenFeatures, ticks: Sequence[Tick]) -> None:
    outbox = Outbox(spec)
    members = groups(seen.leaders, SYMBOLS)
    keys = {symbol: first for first, names in members.items() for symbol in names}
    assert publish(outbox, spec.ticks[0], ticks, keys) == len(ticks)
    assert outbox.flush(10)


def service(
    spec: KafkaSpec, folder: Path, seen: SeenFeatures = SOLO, **options: Any
) -> tuple[Service, list[str]]:
    lines: list[str] = []
    sinks, shared = options.pop("sinks", ()), options.pop("shared", None)
    predictor = options.pop("model", InProcess(StepPredictor()))
    chosen = ServiceSpec(kafka=spec, **({"every_window": True, "snapshot_s": 0.05} | options))
    bounds = limits(ValidationSpec())

    def make_path(symbols: tuple[str, ...]) -> LivePath:
        return LivePath(Group(seen, symbols, 10.0, bounds), threshold=0.5, model_version=7)

    members = groups(seen.leaders, SYMBOLS)
    made = Service(
        chosen, members, make_path, predictor, folder, lines.append, sinks, shared=shared
    )
    return made, lines


def run(one: Service, until: Callable[[Ledger], bool]) -> Ledger:
    """Run until the ledger says so, then stop."""

    async def serve() -> Ledger:
        running = asyncio.create_task(one.run())
        while not running.done() and not until(one.partitions.ledger):
            await asyncio.sleep(0.005)
        one.stop()
        return await running

    return asyncio.run(asyncio.wait_for(serve(), 30))


def decided(spec: KafkaSpec, count: int) -> list[Decision]:
    found = read_all(spec, spec.decisions, count)
    decisions = [read(Decision, one.value() or b"") for one in found]
    assert [one.key() for one in found] == [one.symbol.encode() for one in decisions]
    return decisions


@pytest.mark.parametrize("seen", [SOLO, PAIRED], ids=["solo", "paired"])
def test_decisions_equal_those_of_a_replay(
    spec: KafkaSpec, store: str, seen: SeenFeatures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, ticks, sink = replayed(store, seen, monkeypatch), messages(store), Recorded()
    send(spec, seen, ticks)
    one, lines = service(spec, tmp_path / "state", seen, sinks=[sink, Recorded(fails=True)])
    ledger = run(one, lambda found: found.taken == len(ticks))
    assert ledger.taken == len(ticks)
    assert ledger.balanced()
    assert ledger.columns[Column.DECIDED] == len(wanted)
    assert ledger.reasons == {Reason.WARMING: 2 * 63}
    decisions = decided(spec, len(wanted))
    assert {key(found): values(found) for found in decisions} == wanted
    assert sorted(map(key, sink.decisions)) == sorted(wanted)
    assert sink.windows == len(wanted)
    assert all(found.flags == ("in-process",) for found in decisions)
    assert any("Recorded did not take decisions: no route" in line for line in lines)
    assert "sink failed" in one.state
    assert one.state.startswith(f"ledger: in {len(ticks):,} = decided {len(wanted):,}")


def test_several_rounds_in_flight_keep_the_order(
    spec: KafkaSpec, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Uneven(InProcess):
        asked = at_once = most = 0

        async def ask(self, x_BTF: NDArray[np.float32]) -> Answered:
            self.asked += 1
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            await asyncio.sleep(0.004 * (self.asked % 3))
            self.at_once -= 1
            return await super().ask(x_BTF)

    monkeypatch.setattr(consumer, "MOST", 3)
    wanted, ticks, model = replayed(store, PAIRED, monkeypatch), messages(store), Uneven(STEP)
    send(spec, PAIRED, ticks)
    options = {"model": model, "rounds_in_flight": 4}
    ledger = run(
        service(spec, tmp_path, PAIRED, **options)[0], lambda found: found.taken == len(ticks)
    )
    assert ledger.balanced()
    assert 1 < model.most <= 4
    decisions = decided(spec, len(wanted))
    assert {key(one): values(one) for one in decisions} == wanted
    for symbol in SYMBOLS:
        sequences = [one.sequence for one in decisions if one.symbol == symbol]
        assert sequences == sorted(sequences)


def test_ticks_that_come_soon_after_a_round_share_the_next(
    spec: KafkaSpec, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[float] = []

    class Timed(InProcess):
        async def ask(self, x_BTF: NDArray[np.float32]) -> Answered:
            begun.append(asyncio.get_running_loop().time())
            return await super().ask(x_BTF)

    monkeypatch.setattr(consumer, "MOST", 3)
    ticks = messages(store)
    send(spec, SOLO, ticks)
    one, _ = service(spec, tmp_path, model=Timed(STEP), every_window=False, round_gap_ms=4.0)
    ledger = run(one, lambda found: found.taken == len(ticks))
    assert ledger.balanced()
    assert len(begun) > 1
    # half of the gaps: a busy machine may be late to note the first round, never the gap itself
    assert begun[-1] - begun[0] > 0.004 * (len(begun) - 1) / 2
    assert ledger.columns[Column.CONFLATED] > 0


def test_a_stop_in_mid_stream_loses_and_doubles_no_decision(
    spec: KafkaSpec, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, ticks = replayed(store, PAIRED, monkeypatch), messages(store)
    half = len(ticks) * 2 // 3
    send(spec, PAIRED, ticks[:half])
    first, _ = service(spec, tmp_path / "state", PAIRED)
    before = run(first, lambda found: found.taken >= half)
    assert before.balanced()
    send(spec, PAIRED, ticks[half:])
    second, lines = service(spec, tmp_path / "state", PAIRED)
    after = run(second, lambda found: found.taken >= len(ticks) - half)
    assert any("continues at" in line for line in lines)
    assert after.balanced()
    assert after.reasons == {}  # no window had to fill again, nothing came twice
    assert before.taken + after.taken == len(ticks)
    decisions = decided(spec, len(wanted))
    assert {key(one): values(one) for one in decisions} == wanted


def test_after_a_crash_decisions_repeat_and_readers_drop_them(
    spec: KafkaSpec, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, ticks, folder = (
        replayed(store, PAIRED, monkeypatch),
        messages(store),
        tmp_path / "state",
    )
    part = len(ticks) * 2 // 3
    send(spec, PAIRED, ticks[:part])
    run(service(spec, folder, PAIRED)[0], lambda found: found.taken >= part)
    # a crash leaves an older snapshot than what was published
    shutil.copytree(folder, tmp_path / "older")
    send(spec, PAIRED, ticks[part:])
    rest = len(ticks) - part
    run(service(spec, folder, PAIRED)[0], lambda found: found.taken >= rest)
    again = run(service(spec, tmp_path / "older", PAIRED)[0], lambda found: found.taken >= rest)
    assert again.reasons == {}
    repeated = again.columns[Column.DECIDED]
    assert repeated > 10
    newest = Newest()
    decisions = decided(spec, len(wanted) + repeated)
    kept = [one for one in decisions if newest.add(one)]
    assert {key(one): values(one) for one in kept} == wanted
    assert len(kept) == len(wanted)
    assert newest.repeated == repeated


def test_a_refused_snapshot_warms_up_again_and_says_why(
    spec: KafkaSpec, store: str, tmp_path: Path
) -> None:
    ticks, folder = messages(store), tmp_path / "state"
    part = len(ticks) // 2
    send(spec, PAIRED, ticks[:part])
    run(service(spec, folder, PAIRED)[0], lambda found: found.taken >= part)
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    send(spec, PAIRED, ticks[part:])
    one, lines = service(spec, folder, PAIRED)
    ledger = run(one, lambda found: found.taken >= len(ticks) - part)
    assert any("warms up again: the file is truncated or changed" in line for line in lines)
    assert ledger.reasons[Reason.WARMING] > 0
    assert ledger.balanced()


def test_a_service_on_another_host_continues_from_the_shared_snapshot(
    spec: KafkaSpec, store: str, tmp_path: Path
) -> None:
    ticks = messages(store)
    part, objects = len(ticks) * 2 // 3, Objects((tmp_path / "shared").as_uri())
    send(spec, PAIRED, ticks[:part])
    copies = SharedSnapshots(objects, "live/desk", print)
    run(service(spec, tmp_path / "a", PAIRED, shared=copies)[0], lambda found: found.taken >= part)
    send(spec, PAIRED, ticks[part:])
    copies = SharedSnapshots(objects, "live/desk", print)
    one, lines = service(spec, tmp_path / "b", PAIRED, shared=copies)
    ledger = run(one, lambda found: found.taken >= len(ticks) - part)
    assert any("continues at" in line for line in lines)
    assert ledger.reasons == {}  # no window had to fill again
    assert ledger.balanced()


def test_what_cannot_be_read_goes_to_the_dead_letters(spec: KafkaSpec, tmp_path: Path) -> None:
    outbox = Outbox(spec)
    outbox.send(spec.ticks[0], SYMBOLS[0].encode(), b"\xc1")
    outbox.send(spec.ticks[0], b"ZZZ", b"{}")
    assert outbox.flush(10)
    one, _ = service(spec, tmp_path)
    ledger = run(one, lambda found: found.taken == 2)
    assert ledger.columns == {Column.DEAD_LETTERED: 2}
    found = {message.key(): message for message in read_all(spec, dead_letters(spec.ticks[0]), 2)}
    assert found[SYMBOLS[0].encode()].value() == b"\xc1"
    described = headers(found[SYMBOLS[0].encode()])
    assert described["error"] == b"malformed"
    assert described["topic"] == spec.ticks[0].encode()
    assert described["offset"].isdigit()
    assert headers(found[b"ZZZ"])["detail"] == b"the key b'ZZZ' is of no group"


def test_without_every_window_only_the_newest_is_asked_about(
    spec: KafkaSpec, store: str, tmp_path: Path
) -> None:
    ticks = messages(store)
    send(spec, SOLO, ticks)
    one, _ = service(spec, tmp_path, every_window=False)
    ledger = run(one, lambda found: found.taken == len(ticks))
    assert 2 <= ledger.columns[Column.DECIDED] < DECISIONS
    assert ledger.columns[Column.DECIDED] + ledger.columns[Column.CONFLATED] == DECISIONS
    assert ledger.balanced()


def test_a_slow_model_pauses_the_partitions(spec: KafkaSpec, store: str, tmp_path: Path) -> None:
    class Slow(InProcess):
        async def ask(self, x_BTF: Any) -> Any:
            await asyncio.sleep(0.1)
            return await super().ask(x_BTF)

    ticks = messages(store)
    send(spec, SOLO, ticks)
    few = spec.model_copy(update={"most_unprocessed": 10})
    one, _ = service(few, tmp_path, model=Slow(StepPredictor()))
    ledger = run(one, lambda found: found.taken == len(ticks))
    assert ledger.columns[Column.DECIDED] == DECISIONS
    assert "partitions paused" in one.state


def test_outputs_that_nobody_confirms_stop_the_service(
    spec: KafkaSpec, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = messages(store)
    send(spec, SOLO, ticks)
    one, _ = service(spec, tmp_path, drain_s=0.2, snapshot_s=1000.0)
    monkeypatch.setattr(one._outbox, "send", lambda *_, **__: True)
    with pytest.raises(StreamError, match="not confirmed within") as error:
        run(one, lambda found: found.taken == len(ticks))
    assert "nothing is lost" in error.value.remedy
    assert list(tmp_path.glob("*.state")) == []
