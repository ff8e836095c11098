"""Facts of versions: read once, in a thread, while the event loop goes on."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.live.inference.versions import RETRY_S, UnreadError, Version, Versions
from infra.live.model import FeaturesChangedError
from model_code.errors import ServingError
from model_code.features.served import SOLO, ServedFeatures
from model_code.repository.manifest import MANIFEST_FILE, Manifest
from model_code.repository.serving import ServingRepository
from model_code.settings import FeatureSpec
from tests.support.serving import APPROVAL, staged

PAIRED = ServedFeatures.of(FeatureSpec(feature_set="paired"), {})


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    """Version 1 serves, version 2 is staged."""
    serving = ServingRepository(tmp_path / "serving")
    serving.publish(staged(tmp_path / "staging", 1, threshold=0.25), APPROVAL)
    serving.arrange([1])
    staged(tmp_path / "staging", 2, threshold=0.75)
    return Versions(serving, tmp_path / "staging", SOLO)


class Gate:
    """Keeps `Manifest.load` waiting until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.open = threading.Event(), threading.Event()
        self.reads = 0
        load = Manifest.load

        def wait(folder: Path) -> Manifest:
            self.reads += 1
            self.begun.set()
            assert self.open.wait(10), "the event loop waits for the files"
            return load(folder)

        monkeypatch.setattr(Manifest, "load", wait)


@pytest.fixture
def gate(versions: Versions, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    assert versions.serving.versions() == (1,)  # it is staged with the real one
    found = Gate(monkeypatch)
    yield found
    found.open.set()


def test_the_event_loop_goes_on_while_files_are_hashed(versions: Versions, gate: Gate) -> None:
    async def work() -> None:
        for _ in range(3):
            with pytest.raises(UnreadError, match="version 1 are still being read"):
                versions.find(1)
        await asyncio.to_thread(gate.begun.wait, 10)
        await versions.read(1, wait_s=0.001)
        with pytest.raises(UnreadError):
            versions.find(1)
        gate.open.set()  # by the event loop
        await asyncio.gather(versions.read(1), versions.read(1))
        assert versions.find(1) == Version(1, 0.25, SOLO)
        await versions.read(1)
        assert gate.reads == 1

    asyncio.run(asyncio.wait_for(work(), 30))


def test_what_may_serve_next_is_read_before_it_does(versions: Versions) -> None:
    async def work() -> None:
        following = asyncio.create_task(versions.follow())
        await versions.read(1)
        versions.serving.publish(versions._staging / "2", APPROVAL)
        versions.serving.arrange([1, 2])
        while 2 not in versions._known:
            await asyncio.sleep(0.005)
        assert versions.find(2).threshold == 0.75
        following.cancel()

    asyncio.run(asyncio.wait_for(work(), 30))


def test_files_that_cannot_be_read_are_not_read_at_each_look(
    versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = versions._staging / "2" / MANIFEST_FILE
    text = path.read_bytes()
    path.write_text("{")
    now, reads, load = [100.0], list[int](), Versions._load
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def count(self: Versions, number: int) -> Manifest:
        reads.append(number)
        return load(self, number)

    monkeypatch.setattr(Versions, "_load", count)

    async def work() -> None:
        for _ in range(3):
            await versions.read(2)
            with pytest.raises(ServingError, match="version 2 cannot be read: the manifest"):
                versions.find(2)
        assert reads == [2]
        path.write_bytes(text)
        now[0] += 2 * RETRY_S
        await versions.read(2)
        assert versions.find(2).number == 2
        assert reads == [2, 2]

    asyncio.run(asyncio.wait_for(work(), 30))


def test_a_version_with_other_features_is_refused(versions: Versions, tmp_path: Path) -> None:
    staged(tmp_path / "staging", 3, features=PAIRED)

    async def work() -> None:
        assert not versions.refuses(3)
        await versions.read(3)
        assert versions.refuses(3)
        with pytest.raises(FeaturesChangedError, match="version 3 sees other features"):
            versions.find(3)

    asyncio.run(asyncio.wait_for(work(), 30))
