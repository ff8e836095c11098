"""Targets without a server: what a Triton would do with the folders it reads."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.servers import HOST
from model_code.engines.onnxruntime_engine import open_graph
from model_code.engines.protocol import Predictor
from model_code.errors import ServingError
from model_code.repository.serving import ServingRepository
from model_code.serving.client import TritonClient
from model_code.serving.servers import Server, Servers
from model_code.serving.swap import Swap
from model_code.serving.wire import Answer
from model_code.settings import MODEL_NAME
from tests.support.serving import APPROVAL, Names, staged


class FakeTriton(TritonClient):
    """A server that loads the versions of a folder and answers with their graphs.

    Attributes:
        away: it does not answer.
        loads: how often a model was loaded.
    """

    def __init__(self, name: str, repository: ServingRepository) -> None:
        super().__init__(f"{HOST}:1")  # never connected
        self.url = name
        self._repository = repository
        self._graphs: dict[str, dict[int, Predictor]] = {}
        self.away, self.loads = False, 0

    def _here(self) -> None:
        if self.away:
            raise ServingError("failed to connect (UNAVAILABLE)", where=self.url)

    def live(self) -> bool:
        return not self.away

    def ready(self, model: str = MODEL_NAME, *_: Any, **__: Any) -> bool:
        return not self.away and model in self._graphs

    def versions(self, model: str = MODEL_NAME) -> list[int]:
        self._here()
        return sorted(self._graphs.get(model, {}))

    def load(self, model: str = MODEL_NAME, *_: Any, **__: Any) -> None:
        self._here()
        self.loads += 1
        self._graphs[model] = {
            version: open_graph(self._repository.home / str(version) / "model.onnx", 1)
            for version in self._repository.versions()
        }

    def load_bytes(self, *_: Any, **__: Any) -> None:
        raise ServingError("not played here", where=self.url)

    def unload(self, model: str = MODEL_NAME, **_: Any) -> None:
        self._here()
        self._graphs.pop(model, None)

    def restart(self) -> None:
        """With nothing loaded, as a server in explicit model control does."""
        self._graphs.clear()

    def ask(
        self,
        x_BTF: NDArray[np.float32],
        *,
        model: str = MODEL_NAME,
        version: int | None = None,
        **_: Any,
    ) -> Answer:
        self._here()
        graphs = self._graphs.get(model, {})
        if version not in graphs:
            raise ServingError(f"no version {version} of {model} (NOT_FOUND)", where=self.url)
        return Answer(graphs[version].predict(x_BTF), version)


class TwoTargets:
    """A desk with targets east and west; west reads a copy of its own.

    Args:
        folder: of its repositories.
        serving: whether version 1 serves.
    """

    def __init__(self, folder: Path, *, serving: bool = True) -> None:
        self.place = ServingRepository(folder / "east")
        self.copy = ServingRepository(folder / "west")
        self.copy.root.mkdir(parents=True)
        self.east, self.west = FakeTriton("east:1", self.place), FakeTriton("west:1", self.copy)
        self.names = Names()
        self._staging = folder / "staging"
        for version in (1, 2):
            self.publish(version)
        if serving:
            assert self.change("promote", 1, None) == {}

    def servers(self, quorum: int = 2) -> Servers:
        east = Server("east", self.east, self.place)
        return Servers([east, Server("west", self.west, self.copy)], quorum)

    def publish(self, version: int, **how: Any) -> None:
        self.place.publish(staged(self._staging, version, **how), APPROVAL)

    def change(
        self, kind: str, version: int, previous: int | None, quorum: int = 2
    ) -> dict[str, str]:
        """Promote or roll back; return who was left behind and why."""
        servers = self.servers(quorum)
        Swap(self.place, servers, self.names).run(kind, version, previous, "f")
        return servers.behind
