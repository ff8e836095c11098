"""A server whose route cannot be read: the engine in the process answers, and probing goes on."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from infra.live.inference.champion import Champion
from infra.live.inference.endpoint import Endpoint
from infra.live.inference.triton import Triton
from infra.live.inference.versions import Version, Versions
from infra.live.model import Answered, FeaturesChangedError
from infra.live.spec import TritonSpec
from model_code.errors import IntegrityError, ServingError
from model_code.features.served import SOLO, SeenFeatures
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.settings import MODEL_NAME
from tests.support.serving import windows

X_BTF = windows(2)
SPEC = TritonSpec(probe_ms=1.0, longest_probe_ms=1.0)
NOWHERE = "127.0.0.1:1"


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    serving = ServingRepository(tmp_path / "serving")
    serving.route_file.parent.mkdir(parents=True, exist_ok=True)
    return Versions(serving, tmp_path / "staging", SOLO)


def test_with_a_malformed_route_the_fallback_answers(versions: Versions) -> None:
    versions.serving.route_file.write_text("{")
    answer = Answered(np.array([0.25, 0.75]), ("fallback",), 3, 0.5)

    async def work() -> None:
        model = Triton(NOWHERE, versions, SPEC, lambda _: None)
        model._endpoints = [Endpoint(NOWHERE, versions, SPEC, lambda _: None)]
        model._fallback = cast(Champion, SimpleNamespace(ask=lambda _: answer))
        assert await model.ask(X_BTF) is answer
        assert model.away
        await model._endpoints[0].close()

    asyncio.run(work())


def test_no_error_ends_the_probes(versions: Versions, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[Exception] = [
        ServingError("away"), OSError("stale handle"), IntegrityError("malformed"), ValueError("?"),
    ]  # fmt: skip
    lines: list[str] = []

    async def ask(*_: Any) -> None:
        if errors:
            raise errors.pop(0)

    async def work() -> None:
        one = Endpoint(NOWHERE, versions, SPEC, lines.append)
        monkeypatch.setattr(one._client, "ask", ask)
        await one.probe()
        while one.away:
            await asyncio.sleep(0.001)
        await one.close()

    asyncio.run(asyncio.wait_for(work(), 10))
    assert errors == []
    assert lines == [f"Triton at {NOWHERE} is away: away", f"Triton at {NOWHERE} answers again"]


def test_other_features_end_the_service_though_no_server_answers(versions: Versions) -> None:
    Route(champion=Target(model=MODEL_NAME, version=3)).save(versions.serving.route_file)
    model = Triton(NOWHERE, versions, TritonSpec(fallback=False), lambda _: None)

    async def work() -> None:
        with pytest.raises(ServingError, match="no Triton server answers"):
            await model.ask(X_BTF)  # what version 3 sees is not known yet
        versions._known[3] = Version(3, 0.5, SeenFeatures(feature_set="paired"))
        with pytest.raises(FeaturesChangedError, match="version 3 sees other features"):
            await model.ask(X_BTF)

    asyncio.run(work())
    assert model.counts == {"failed": 2}
