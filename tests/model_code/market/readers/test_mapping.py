import fsspec
import pytest

from model_code.errors import ConfigError
from model_code.market.readers.mapping import read_mapping
from tests.support.formats import TAQ_MAPPING

FS = fsspec.filesystem("file")
QUOTES = "quotes: {timestamp: t, unit: ns, bid_price: b, ask_price: a}\n"


def read(tmp_path, text):
    path = tmp_path / "mapping.yaml"
    path.write_text(text)
    return read_mapping(FS, str(path))


def test_every_field_is_read(tmp_path):
    mapping, data = read(tmp_path, TAQ_MAPPING)
    assert data == TAQ_MAPPING.encode()
    assert (mapping.time_zone, mapping.venue) == ("America/New_York", "XNYS")
    assert mapping.quotes.prices == {"bid_price": "bid", "ask_price": "ask"}
    assert mapping.quotes.sizes == {"bid_size": "bsize", "ask_size": "asize"}
    assert mapping.trades is not None
    assert mapping.trades.aggressor is not None
    assert mapping.trades.aggressor.sold == ("S",)
    assert [part.kind for part in mapping.sections] == ["quotes", "trades"]


def test_what_is_not_stated_has_its_default(tmp_path):
    mapping, _ = read(tmp_path, QUOTES)
    assert (mapping.trades, mapping.quotes.files, mapping.quotes.symbol) == (
        None, "*.parquet", "symbol",
    )  # fmt: skip
    assert mapping.quotes.sizes == {}
    assert len(mapping.sections) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (QUOTES + "timezone: UTC\n", "timezone: no such field, did you mean time_zone?"),
        (QUOTES + "time_zone: America/New York\n", "no time zone named 'America/New York'"),
        (QUOTES.replace("unit: ns", "unit: nanos"), "quotes.unit: Input should be 's', 'ms'"),
        (QUOTES.replace("bid_price: b, ", ""), "quotes.bid_price: Field required"),
        (QUOTES.replace("}", ", bid_size: s}"), "give both of bid_size and ask_size"),
        (QUOTES.replace("}", ", price_unit: 0}"), "quotes.price_unit: Input should be greater"),
        (QUOTES.replace("}", ", price_unit: '1'}"), "quotes.price_unit: Input should be a valid"),
        ("", "quotes: Field required"),
        (
            QUOTES
            + "trades: {timestamp: t, price: p, size: s, aggressor: {column: c, bought: []}}",
            "trades.aggressor.bought: Tuple should have at least 1",
        ),
    ],
)
def test_a_wrong_field_is_named(tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)
    assert caught.value.where.endswith("mapping.yaml")


@pytest.mark.parametrize("text", ["quotes: [", "- a\n", "quotes: 2024-01-02\n", "\x00"])
def test_what_is_no_mapping_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match="mapping"):
        read(tmp_path, text)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is no mapping of columns") as caught:
        read_mapping(FS, str(tmp_path / "mapping.yaml"))
    assert "parquet:PATH?mapping=FILE" in caught.value.remedy
