"""`tickline feed --venue` and `tickline direct` on a local exchange, until SIGTERM."""

import asyncio
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli.__main__ import app
from flows.cli.live import direct, feed
from infra.live.kafka.clients import KafkaSpec
from model_code.errors import ConfigError
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.settings import MODEL_NAME, Settings
from tests.support.broker import demo_broker, read_all
from tests.support.cli import tickline
from tests.support.exchange import Exchange, serving, session, spec, ticks_of
from tests.support.serving import APPROVAL, staged

SYMBOL = "AAA.spot"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home whose version 1 serves."""
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TICKLINE_MARKET", raising=False)
    settings = Settings(home=tmp_path / "home").resolved()
    staged(settings.staging_repository, 1)
    serving_repository = ServingRepository(settings.serving_repository)
    serving_repository.publish(settings.staging_repository / MODEL_NAME / "1", APPROVAL)
    Route(champion=Target(model=MODEL_NAME, version=1)).save(serving_repository.route_file)
    for module in (feed, direct):
        monkeypatch.setattr(module.out, "width", 200)
    return settings


@contextmanager
def exchange(path: Path) -> Iterator[int]:
    """A local exchange; SIGTERM to this process when it has sent all. How many ticks it sends."""
    frames, book = session("AAA", 300)
    ready = threading.Event()

    async def serve() -> None:
        one = Exchange([*frames], books={"AAA": book})
        async with serving(one):
            path.write_text(yaml.safe_dump(spec(one).model_dump(mode="json")))
            ready.set()
            await asyncio.wait_for(one.done.wait(), 20)
            await asyncio.sleep(0.3)
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.3)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    yield len(ticks_of(frames, "AAA"))
    thread.join()


@pytest.mark.usefixtures("desk")
def test_an_exchange_is_published(tmp_path: Path) -> None:
    with demo_broker(tmp_path / "broker") as broker, exchange(tmp_path / "venue.yaml") as count:
        printed = tickline(
            "feed", "--venue", "binance", "--symbols", SYMBOL, "--bootstrap", broker, "--demo",
            "--venue-spec", str(tmp_path / "venue.yaml"),
        )  # fmt: skip
        assert f"{count} messages in tickline.ticks, dropped 0" in printed
        assert f"{count} confirmed" in printed
        assert "books from REST 1" in printed
        assert len(read_all(KafkaSpec(bootstrap=broker), "tickline.ticks", count)) == count


@pytest.mark.usefixtures("desk")
def test_an_exchange_is_decided_on_in_process_and_recorded(tmp_path: Path) -> None:
    with demo_broker(tmp_path / "broker") as broker, exchange(tmp_path / "venue.yaml") as count:
        printed = tickline(
            "direct", "--symbols", SYMBOL, "--venue-spec", str(tmp_path / "venue.yaml"),
            "--record", "--bootstrap", broker, "--demo",
        )  # fmt: skip
    decided = re.search(rf"ledger: in {count} = decided (\d+) ", printed)
    assert decided is not None
    assert int(decided[1]) > 0
    assert "from the frame to the decision: p50 " in printed
    assert f"recorded: {count + int(decided[1])} confirmed, 0 unconfirmed, 0 dropped" in printed


@pytest.mark.usefixtures("desk")
def test_wrong_instruments_and_options_are_refused() -> None:
    missing = CliRunner().invoke(app, ["direct"])
    assert missing.exit_code == 2
    assert "--symbols" in missing.output
    with pytest.raises(ConfigError, match="AAA is no instrument of Binance"):
        tickline("feed", "--venue", "binance", "--symbols", "AAA")
    with pytest.raises(ConfigError, match="--venue excludes --data"):
        tickline("feed", "--venue", "binance", "--symbols", SYMBOL, "--data", "x")
