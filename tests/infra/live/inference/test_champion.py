"""The serving version's engine in this process: it follows promotions, rollbacks and failures."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from infra.live.inference import champion as module
from infra.live.inference.champion import Champion, ServingEngine
from infra.live.inference.versions import Version, Versions
from infra.live.model import FeaturesChangedError
from model_code.errors import ServingError
from model_code.features.served import SOLO, ServedFeatures
from model_code.models.probability import probability
from model_code.repository.manifest import MANIFEST_FILE
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.settings import MODEL_NAME, FeatureSpec
from tests.support.live import StepPredictor
from tests.support.serving import APPROVAL, logits, staged, windows

X_BTF = windows(2)
PAIRED = ServedFeatures.of(FeatureSpec(feature_set="paired"), {})


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    """Versions 1 and 2 served, no route yet; version 3 sees other features."""
    serving = ServingRepository(tmp_path / "serving")
    for number in (1, 2, 3):
        features = PAIRED if number == 3 else None
        folder = staged(tmp_path / "staging", number, threshold=number / 8, features=features)
        serving.publish(folder, APPROVAL)
    return Versions(serving, tmp_path / "staging", SOLO)


def route(versions: Versions, version: int | None) -> None:
    target = None if version is None else Target(model=MODEL_NAME, version=version)
    Route(champion=target).save(versions.serving.route_file)


def play(versions: Versions, work: Callable[[ServingEngine], Awaitable[None]]) -> list[str]:
    """Do something with the engine in an event loop; the log."""
    lines: list[str] = []

    async def run() -> None:
        async with ServingEngine(versions, lines.append) as model:
            await work(model)

    asyncio.run(asyncio.wait_for(run(), 30))
    return lines


async def until(model: ServingEngine, version: int) -> None:
    """Ask until a version answers, and compare its answer."""
    while (answered := await model.ask(X_BTF)).version != version:
        await asyncio.sleep(0.005)
    assert (answered.threshold, answered.flags) == (version / 8, ("in-process",))
    wanted_B = probability(logits(version)[: len(X_BTF)])
    np.testing.assert_allclose(answered.probability_B, wanted_B, atol=1e-6)


def test_the_engine_follows_a_promotion_and_a_rollback(versions: Versions) -> None:
    route(versions, 1)

    async def work(model: ServingEngine) -> None:
        assert (await model.ask(X_BTF)).version == 1
        for number in (2, 1):
            route(versions, number)
            await until(model, number)

    lines = play(versions, work)
    assert lines == [f"in-process: the engine of version {one} is loaded" for one in (1, 2, 1)]


def test_a_version_that_was_withdrawn_answers_no_more(versions: Versions) -> None:
    route(versions, 1)

    async def work(model: ServingEngine) -> None:
        route(versions, None)
        with pytest.raises(ServingError, match="no version serves"):
            while await model.ask(X_BTF):
                await asyncio.sleep(0.005)
        route(versions, 2)
        while model._champion.version is None:
            await asyncio.sleep(0.005)
        await until(model, 2)

    play(versions, work)


def test_an_engine_that_cannot_be_loaded_is_tried_again(
    versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN_S", 0.0)
    route(versions, 1)
    manifest = versions.serving.folder(2) / MANIFEST_FILE
    text = manifest.read_bytes()

    async def work(model: ServingEngine) -> None:
        await versions.read(2)
        manifest.write_text("{")
        route(versions, 2)
        with pytest.raises(ServingError, match="cannot be loaded here: the manifest") as error:
            while await model.ask(X_BTF):
                await asyncio.sleep(0.005)
        assert "without --in-process" in error.value.remedy
        manifest.write_bytes(text)
        while model._champion.version is None:
            await asyncio.sleep(0.005)
        await until(model, 2)

    lines = play(versions, work)
    assert [line for line in lines if "no engine" in line] == [lines[1]]  # said once
    assert lines[-1] == "in-process: the engine of version 2 is loaded"


def test_a_version_with_other_features_ends_the_service(versions: Versions) -> None:
    route(versions, 1)

    async def work(model: ServingEngine) -> None:
        route(versions, 3)
        with pytest.raises(FeaturesChangedError, match="version 3 sees other features"):
            while await model.ask(X_BTF):
                await asyncio.sleep(0.005)

    play(versions, work)
    with pytest.raises(FeaturesChangedError):
        play(versions, work)
    route(versions, None)
    with pytest.raises(ServingError, match="no version serves"):
        play(versions, work)


def test_the_fallback_survives_any_error_and_ends_with_the_route(
    versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    found = Champion(versions, lines.append)

    def load(number: int) -> StepPredictor:
        if number == 2:
            raise RuntimeError("no such operator")
        return StepPredictor()

    async def choose(version: int | None) -> None:
        route(versions, version)
        await found.update()

    async def work() -> None:
        await choose(1)
        assert found.version == 1
        versions.serving.route_file.unlink()
        versions.serving.route_file.mkdir()  # an error of the disk
        await found.update()
        assert found.version == 1
        versions.serving.route_file.rmdir()
        await choose(2)
        assert found.version is None
        assert lines[-1] == "fallback: no engine of version 2: no such operator"
        await choose(4)
        assert found.version == 4
        await choose(None)
        assert found.version is None
        assert found.ask(X_BTF) is None

    monkeypatch.setattr(found, "_load", load)
    versions._known[4] = Version(4, 0.5, SOLO)
    asyncio.run(asyncio.wait_for(work(), 30))
