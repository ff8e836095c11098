import msgspec
import numpy as np
import pytest

from model_code.artifacts import hash_bytes
from model_code.errors import ConfigError, DataError, IntegrityError
from model_code.features.served import SOLO, SeenFeatures
from model_code.live.messages import Quote, Tick
from model_code.live.path import LivePath
from model_code.live.reasons import Reason
from model_code.live.state import HASH_BYTES, MAGIC, Group
from tests.support.live import path, quote, trade
from tests.support.market import SYMBOLS

PAIRED = SeenFeatures(feature_set="paired", leaders={SYMBOLS[1]: SYMBOLS[:1]})


def stream(first: int, last: int) -> list[Tick]:
    """Both instruments' ticks, with trades between them, some of them waiting for a quote."""
    found: list[Tick] = []
    for number in range(first, last):
        for place, symbol in enumerate(SYMBOLS):
            make = trade if number % 3 == 1 else quote
            found.append(make(number, 7.0 * number + place, symbol))
    return found


def play(live: LivePath, ticks: list[Tick]) -> list[np.ndarray]:
    windows = []
    for tick in ticks:
        live.take(tick, tick.local_ns)
        asked = live.ready(tick.local_ns)
        if asked is not None:
            windows.append(asked.x_BTF)
            live.answer(asked, [0.1], tick.local_ns)
    return windows


@pytest.mark.parametrize("cut", [1, 40, 105, 200])
def test_a_restored_state_continues_bit_for_bit(cut: int) -> None:
    whole, before, after = (path(SYMBOLS, PAIRED) for _ in range(3))
    expected = play(whole, stream(1, 240))
    found = play(before, stream(1, cut))
    after.group.restore(before.group.snapshot())
    found += play(after, stream(cut, 240))
    assert len(found) == len(expected) > 150
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert after.group.snapshot() == whole.group.snapshot()
    again = after.take(quote(3, 30), quote(3, 30).local_ns)
    assert [one.reason for one in again] == [Reason.DUPLICATE]


def test_a_window_does_not_have_to_fill_again() -> None:
    live, restored = path(), path()
    ticks = [tick for tick in stream(1, 120) if tick.symbol == SYMBOLS[0]]
    play(live, ticks)
    restored.group.restore(live.group.snapshot())
    following = quote(120, 7.0 * 120)
    assert isinstance(following, Quote)
    assert restored.take(following, following.local_ns) == []
    assert restored.waiting == 1


def snapshot() -> bytes:
    live = path(SYMBOLS, PAIRED)
    play(live, stream(1, 100))
    return live.group.snapshot()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda whole: whole[:-1], "truncated or changed"),
        (lambda whole: whole[: len(MAGIC) + 5], "truncated or changed"),
        (lambda whole: whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], "truncated or changed"),
        (lambda whole: whole[:0], "not a snapshot"),
        (lambda whole: b"\x80\x04" + whole, "not a snapshot"),
    ],
)
def test_a_harmed_snapshot_is_refused(harm: object, message: str) -> None:
    assert callable(harm)
    live = path(SYMBOLS, PAIRED)
    untouched = live.group.snapshot()
    with pytest.raises(IntegrityError, match=message) as error:
        live.group.restore(harm(snapshot()))
    assert "fill again" in error.value.remedy
    assert live.group.snapshot() == untouched


def test_a_sound_checksum_of_another_layout_is_refused() -> None:
    body = msgspec.msgpack.encode({"identity": 3})
    digest = bytes.fromhex(hash_bytes(MAGIC + body))
    assert len(digest) == HASH_BYTES
    with pytest.raises(IntegrityError, match="another layout"):
        path().group.restore(MAGIC + digest + body)


@pytest.mark.parametrize(
    ("group", "difference"),
    [
        (Group(SOLO, SYMBOLS, 10.0), "feature_set paired, here solo"),
        (Group(SeenFeatures(feature_set="paired"), SYMBOLS, 10.0), "leaders {'BBB.test'"),
        (Group(PAIRED, (*SYMBOLS, "C"), 10.0), "symbols"),
        (Group(PAIRED, SYMBOLS, 9.0), "reset_gap_s 10.0, here 9.0"),
    ],
)
def test_another_path_is_refused_and_the_difference_named(group: Group, difference: str) -> None:
    with pytest.raises(IntegrityError, match="of another path") as error:
        group.restore(snapshot())
    assert difference in error.value.what


@pytest.mark.parametrize("name", ["code", "features"])
def test_another_code_is_refused(name: str) -> None:
    live = path(SYMBOLS, PAIRED)
    live.group.identity = msgspec.structs.replace(live.group.identity, **{name: "0123"})
    with pytest.raises(IntegrityError, match=f"{name} [0-9a-f]{{12}}, here 0123"):
        live.group.restore(snapshot())


@pytest.mark.parametrize(
    "seen",
    [SeenFeatures(feature_set="depth"), SeenFeatures(feature_set="exogenous", exogenous=("a.b",))],
)
def test_a_set_that_looks_at_more_than_messages_bring_is_refused(seen: SeenFeatures) -> None:
    with pytest.raises(ConfigError, match=f"what the set {seen.feature_set} looks at"):
        Group(seen, SYMBOLS, 10.0)


def test_a_group_needs_its_leaders_and_each_name_once() -> None:
    with pytest.raises(DataError, match=f"no ticks of {SYMBOLS[0]}"):
        Group(PAIRED, SYMBOLS[1:], 10.0)
    for symbols in ((), (SYMBOLS[0], SYMBOLS[0])):
        with pytest.raises(ConfigError, match="named once"):
            Group(SOLO, symbols, 10.0)
