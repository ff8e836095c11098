"""A real Redis server in a temporary folder, and decisions to write to it."""

import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from infra.live.redis.fields import MarketState
from infra.servers import HOST, free_port
from model_code.live.messages import Decision, Latency
from tests.support.market import SYMBOLS

START_S = 20.0
LATENCY = Latency(decode=1, features=2, queue=3, inference=4, publish=5)


class RedisServer:
    """Keeps nothing on disk, so that a restart forgets keys and scripts."""

    def __init__(self, folder: Path, password: str = "") -> None:
        self.folder, self.password, self.port = folder, password, free_port()
        self.url = f"redis://{HOST}:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.client = redis.Redis(
            host=HOST,
            port=self.port,
            password=password or None,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
        )

    def start(self) -> None:
        options = ["--bind", HOST, "--port", str(self.port), "--dir", str(self.folder)]
        options += ["--save", "", "--appendonly", "no"]
        options += ["--requirepass", self.password] if self.password else []
        program = shutil.which("redis-server")
        assert program is not None
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([program, *options], stdout=log, stderr=log)
        end = time.monotonic() + START_S
        while True:
            try:
                self.client.ping()
                return
            except redis.ConnectionError:
                assert time.monotonic() < end, (self.folder / "redis.log").read_text()
                time.sleep(0.02)

    def kill(self) -> None:
        self.client.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def hash(self, symbol: str = SYMBOLS[0]) -> dict[str, str]:
        found: dict[str, str] = self.client.hgetall(f"tickline:state:{symbol}")  # type: ignore[assignment]
        return found


def decision(sequence: int, symbol: str = SYMBOLS[0], **changes: Any) -> Decision:
    """A decision on a quote of this moment."""
    values: dict[str, Any] = {
        "session": 1,
        "exchange_ns": None,
        "local_ns": time.time_ns(),
        "model_version": 7,
        "probability": 0.75,
        "threshold": 0.5,
        "decision": True,
        "side": None,
        "latency": LATENCY,
    }
    return Decision(symbol=symbol, sequence=sequence, **(values | changes))


def market_state(sequence: int, symbol: str = SYMBOLS[0], **changes: Any) -> MarketState:
    """A quote of this moment of which little is known."""
    values: dict[str, Any] = {
        "session": 1,
        "local_ns": time.time_ns(),
        "bid_price": 100.0,
        "ask_price": 100.05,
    }
    return MarketState(symbol=symbol, sequence=sequence, **(values | changes))
