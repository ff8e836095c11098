"""A started server is brought to serve, whatever state a restart found the repository in."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from infra.triton.serve import loaded_at_start, serve, silent
from infra.triton.server import TritonServer
from model_code.errors import IntegrityError, ServingError
from model_code.repository.route import Route, Target
from model_code.repository.serving import Journal, RepositoryBusyError, ServingRepository
from model_code.serving.client import TritonClient
from model_code.serving.swap import BRIDGE_NAMES
from model_code.settings import MODEL_NAME, Settings
from tests.support.serving import APPROVAL, logits, staged, weights, windows


class Desk:
    """A repository with versions 1 and 2, the second of which serves, and a fresh server."""

    def __init__(self, server: TritonServer, folder: Path) -> None:
        self.settings = Settings(home=folder / "home", serving=server.repository)
        self.place = ServingRepository(server.repository)
        self.client: TritonClient = server.client()
        for version in (1, 2):
            self.place.publish(staged(folder / "staging", version), APPROVAL)
        self.place.arrange((1, 2))
        self.champion = Target(model=MODEL_NAME, version=2)
        Route(champion=self.champion).save(self.place.route_file)

    def serves(self, *versions: int) -> None:
        for version in versions:
            found = self.client.predict(windows(), version=version)
            np.testing.assert_allclose(found, logits(version), atol=1e-4)

    def journal(self) -> None:
        self.place.open_journal(
            Journal(
                kind="promote",
                version=3,
                route=self.place.route(),
                versions=(1, 2),
                champion=2,
                previous=1,
                flow_run_id="f",
            )
        )


def requests(client: TritonClient, version: int) -> int:
    """Requests that Triton counted, once the count stands still: it counts after it responds."""
    counts = [client.statistics(version=version).requests]
    while len(counts) < 4 or len(set(counts[-4:])) > 1:
        assert len(counts) < 100, counts
        time.sleep(0.1)
        counts.append(client.statistics(version=version).requests)
    return counts[-1]


@pytest.fixture
def desk(live_triton: TritonServer, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(live_triton, tmp_path)
    yield desk
    desk.client.close()


def test_a_fresh_server_gets_champion_and_the_version_before_it(desk: Desk) -> None:
    assert {target.version for target in silent(desk.place, desk.client)} == {1, 2}
    serve(desk.settings, desk.client)
    desk.serves(1, 2)
    assert silent(desk.place, desk.client) == {}
    counted = requests(desk.client, 2)
    serve(desk.settings, desk.client)
    assert requests(desk.client, 2) == counted + 1, "one golden request"


def test_a_version_that_only_answers_wrongly_is_an_error_with_its_cure(
    desk: Desk, tmp_path: Path
) -> None:
    folder = staged(tmp_path / "wrong" / "staging", 3, expected=weights(77, noise=1.0))
    desk.place.publish(folder, APPROVAL)
    desk.place.arrange((2, 3))
    with pytest.raises(ServingError, match="version 3 does not answer rightly") as caught:
        serve(desk.settings, desk.client)
    assert "tickline rollback" in caught.value.remedy
    desk.serves(2)


def test_a_change_that_was_interrupted_on_a_bridge_is_served_there(desk: Desk) -> None:
    bridge = Target(model=BRIDGE_NAMES[0], version=2)
    Route(champion=bridge).save(desk.place.route_file)
    desk.journal()
    serve(desk.settings, desk.client)
    found = desk.client.predict(windows(), model=bridge.model, version=2)
    np.testing.assert_allclose(found, logits(2), atol=1e-4)
    desk.serves(1, 2)


def test_beside_a_promotion_it_loads_unless_folders_are_being_moved(desk: Desk) -> None:
    with desk.place.exclusive():
        serve(desk.settings, desk.client)  # a candidate is being compared: minutes
        desk.serves(1, 2)
        desk.client.unload()
        desk.journal()
        with pytest.raises(RepositoryBusyError):
            serve(desk.settings, desk.client)
        desk.client.load(versions=(1, 2))
        serve(desk.settings, desk.client, lambda: {1})
    desk.serves(1, 2)


def test_only_approved_bytes_are_loaded_when_a_server_starts(desk: Desk) -> None:
    assert loaded_at_start(desk.settings)[0] == f"--load-model={MODEL_NAME}"
    graph = desk.place.folder(1) / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b"x")
    assert loaded_at_start(desk.settings) == []
    with pytest.raises(IntegrityError):
        serve(desk.settings, desk.client)
    assert desk.client.versions() == []


def test_nothing_is_loaded_before_the_first_promotion(tmp_path: Path) -> None:
    assert loaded_at_start(Settings(home=tmp_path)) == []
