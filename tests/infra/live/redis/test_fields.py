import pytest
from pydantic import ValidationError

from infra.live.redis.fields import decision_item, market_states, quote_item, state_key
from infra.live.redis.spec import RedisSpec, server_address
from model_code.errors import ConfigError
from model_code.features.definition import names
from tests.support.live import path, quote, trade, warm
from tests.support.market import SYMBOLS
from tests.support.redis import decision, market_state

MS = 1_000_000


def fields(item) -> dict[str, str]:
    return dict(zip(item.fields[::2], item.fields[1::2], strict=True))


def test_a_decision_is_stale_at_its_deadline_or_when_its_key_ends() -> None:
    one = decision(1, local_ns=100 * MS)
    assert decision_item(one, 500).deadline_ns == 600 * MS
    assert fields(decision_item(one, 500))["deadline_ns"] == str(600 * MS)
    for deadline_ms, expected_ms in ((150, 150), (900, 600)):
        item = decision_item(decision(1, local_ns=100 * MS, deadline_ns=deadline_ms * MS), 500)
        assert item.deadline_ns == expected_ms * MS
        assert item.end_ns == 600 * MS


def test_a_key_lives_until_its_ticks_stamp_plus_the_expiry() -> None:
    item = decision_item(decision(3, local_ns=100 * MS), 500)
    lives = {now_ms: item.arguments(now_ms * MS, 500)[3] for now_ms in (100, 350, 600, 10)}
    assert lives == {100: 500, 350: 250, 600: 1, 10: 500}
    assert item.arguments(350 * MS + 1, 500)[:4] == ("", 1, 3, 250)


def test_values_are_text_and_the_unknown_is_empty() -> None:
    item = decision_item(decision(1, side="buy", flags=("fallback", "in-process")), 500)
    found = fields(item)
    assert (found["probability"], found["decision"], found["side"]) == ("0.75", "true", "buy")
    assert (found["flags"], found["exchange_ns"]) == ("fallback,in-process", "")
    found = fields(quote_item(market_state(1, bid_size=float("nan"), exchange_ns=5), 500))
    assert (found["bid_price"], found["bid_size"], found["vwap"]) == ("100.0", "", "")
    assert found["quote_exchange_ns"] == "5"


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"probability": float("nan")}, "probability nan"),
        ({"probability": 1.5}, "probability 1.5"),
        ({"symbol": "\ud800"}, "not Unicode"),
        ({"session": -1}, "session and sequence"),
    ],
)
def test_what_cannot_be_written_says_why(changes, fault) -> None:
    assert fault in decision_item(decision(**({"sequence": 1} | changes)), 500).fault


def test_the_market_state_of_a_window_is_its_row() -> None:
    live = path()
    sequence = warm(live)
    at_ms = 10.0 * sequence
    live.take(trade(sequence, at_ms, price=100.03), quote(sequence, at_ms).local_ns)
    last = quote(sequence + 1, at_ms + 10.0, exchange_ns=9)
    live.take(last, last.local_ns)
    asked = live.ready(last.local_ns)
    assert asked is not None
    (found,) = market_states(asked, "solo")
    assert (found.symbol, found.sequence) == (SYMBOLS[0], sequence + 1)
    assert (found.local_ns, found.exchange_ns) == (last.local_ns, 9)
    assert (found.bid_price, found.ask_price) == (last.bid_price, last.ask_price)
    assert (found.last_trade, found.vwap) == (100.03, 100.03)
    assert found.ema_1min is not None
    assert 0.0 < found.ema_1min < 1.0
    assert last.bid_size is not None
    assert last.ask_size is not None
    whole = last.bid_size + last.ask_size
    assert found.imbalance == (last.bid_size - last.ask_size) / whole
    assert found.volatility == asked.x_BTF[0, -1, names("solo").index("volatility")]


def test_keys() -> None:
    assert state_key("desk", "EUR/USD:fx") == "desk:state:EUR/USD:fx"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://user:secret@db.desk:6380/2", "db.desk:6380"),
        ("rediss://db.desk", "db.desk:6379"),
        ("unix:///run/redis.sock", "/run/redis.sock"),
    ],
)
def test_an_address_shows_no_password(url: str, address: str) -> None:
    assert server_address(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:6379",
        "http://db",
        "redis://db:port",
        "redis://db/x",
        "redis://db?no=1",
        "redis://:my/secret@db",
        "redis://:my#secret@db",
    ],
)
def test_a_url_that_cannot_be_read_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="URL of Redis cannot be read") as caught:
        server_address(url)
    assert "my" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [{"prefix": "a:b"}, {"expire_ms": 9}, {"timeout_s": 0.0}, {"reconnect_s": 9.0}, {"ttl": 1}],
)
def test_limits_of_the_specification(changes) -> None:
    with pytest.raises(ValidationError):
        RedisSpec(**changes)
