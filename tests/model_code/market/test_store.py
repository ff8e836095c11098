from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from model_code.errors import MarketChoiceError, MarketError
from model_code.market.store import NAMED, open_market
from tests.support.formats import databento, lobster, sample, taq, tardis
from tests.support.frames import recording
from tests.support.market import desk_csv, hive


def test_the_reader_is_picked_by_content(tmp_path):
    assert open_market(hive(tmp_path / "hive", n=5)).KIND == "hive"
    assert open_market(desk_csv(tmp_path / "desk", n=5)).KIND == "desk-csv"
    assert open_market(recording(tmp_path / "frames", n=5)).KIND == "binance-frames"
    assert open_market("simulated:").KIND == "simulated"


@pytest.mark.parametrize(
    ("write", "kind"),
    [(databento, "databento"), (tardis, "tardis"), (lobster, "lobster"), (taq, "parquet")],
)
def test_a_vendors_format_is_picked_by_its_content_or_its_name(tmp_path, write, kind):
    folder = write(tmp_path / "store", [sample(20)])
    for uri in (folder, f"{kind}:{folder}", f"{kind}:file://{folder}"):
        store = open_market(uri)
        assert (store.KIND, store.uri) == (kind, uri)
        assert [day.rows for day in store.catalog()] == [20]


def test_a_named_format_is_not_looked_for_elsewhere(tmp_path):
    folder = desk_csv(tmp_path / "desk", n=5)
    with pytest.raises(MarketError, match=r"no instrument-day found: .*not a \.dbn"):
        open_market(f"databento:{folder}").catalog()
    with pytest.raises(MarketChoiceError, match="no such file or folder"):
        open_market(f"lobster:{tmp_path}/absent")


def test_relative_and_home_paths(tmp_path, monkeypatch):
    hive(tmp_path / "store", n=5)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for uri in ("store", "./store/", "~/store"):
        assert len(open_market(uri).catalog()) == 4


@pytest.mark.parametrize(
    "uri", ["/no/such/folder", "nosuchprotocol://x", "memory://nothing-here", "gs://bucket/x"]
)
def test_an_uri_with_nothing_behind_it_is_a_wrong_choice(uri):
    with pytest.raises(MarketChoiceError, match="cannot open the market store") as caught:
        open_market(uri)
    assert caught.value.where == uri
    assert "correct" in caught.value.remedy


def test_a_misspelt_path_says_how_far_it_exists_and_what_is_there(tmp_path):
    hive(tmp_path / "ticks", n=5)
    with pytest.raises(MarketChoiceError) as caught:
        open_market(str(tmp_path / "tikcs" / "quotes"))
    assert caught.value.what.endswith(f"{tmp_path} has no tikcs, but ticks")
    assert caught.value.remedy.endswith(f"ls {tmp_path}")


def test_an_empty_folder_and_a_file_are_named_as_such(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MarketChoiceError, match="the folder is empty"):
        open_market(str(tmp_path / "empty"))
    (tmp_path / "notes.txt").write_text("no ticks")
    with pytest.raises(MarketChoiceError, match=r"it is a file, and only a \.csv file") as caught:
        open_market(str(tmp_path / "notes.txt"))
    assert caught.value.remedy.endswith(f"tickline data describe --data {tmp_path}")


def test_an_unknown_layout_lists_the_known_ones(tmp_path):
    (tmp_path / "notes.txt").write_text("no ticks")
    with pytest.raises(MarketChoiceError, match="no market layout found") as caught:
        open_market(str(tmp_path))
    kinds = (
        "hive",
        "desk-csv",
        "binance-archive",
        "binance-frames",
        "simulated",
        *NAMED,
        "parquet",
    )
    for kind in kinds:
        assert kind in caught.value.remedy


def test_a_file_systems_own_error_is_wrapped(monkeypatch):
    class CloudError(Exception):
        pass

    def fail(uri):
        raise CloudError("no credentials")

    monkeypatch.setattr("fsspec.core.url_to_fs", fail)
    with pytest.raises(MarketError, match="CloudError: no credentials"):
        open_market("gs://bucket")


def test_a_folder_is_walked_once_to_find_its_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = desk_csv(tmp_path / "desk", n=2)
    walked: list[str] = []
    find = LocalFileSystem.find

    def noted(fs: LocalFileSystem, path: str) -> list[str]:
        walked.append(path)
        return list(find(fs, path))

    monkeypatch.setattr(LocalFileSystem, "find", noted)
    store = open_market(uri)
    assert walked == [uri]
    (tmp_path / "desk" / "CCC_2024-08-08.csv").write_bytes(
        (tmp_path / "desk" / "AAA_2024-08-08.csv").read_bytes()
    )
    assert "CCC" in {day.symbol for day in store.catalog()}  # what a store lists is not older
