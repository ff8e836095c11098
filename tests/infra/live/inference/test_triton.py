"""Triton as the service's model: the route, deadline, hedge and fallback on real servers."""

import asyncio
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from infra.live.inference.triton import Triton
from infra.live.inference.versions import Versions
from infra.live.model import Answered, FeaturesChangedError
from infra.live.spec import TritonSpec
from model_code.comparison.outcomes import Outcome, OutcomeReader
from model_code.errors import ServingError
from model_code.features.served import SOLO, ServedFeatures
from model_code.models.probability import probability
from model_code.repository.manifest import Manifest
from model_code.repository.route import Route, Target
from model_code.serving.candidate import CANDIDATE_NAME, load_under
from model_code.serving.client import TritonClient
from model_code.settings import MODEL_NAME, FeatureSpec
from tests.support.serving import logits, staged, windows
from tests.support.triton import TritonProcess

CHAMPION = Target(model=MODEL_NAME, version=1)
CANDIDATE = Target(model=CANDIDATE_NAME, version=2)
PAIRED = ServedFeatures.of(FeatureSpec(feature_set="paired"), {})
X_BTF = windows(3)
# a busy machine is slow, not wrong
PATIENT = TritonSpec(deadline_ms=5000.0)
Work = Callable[[Triton, list[str]], Awaitable[None]]


def play(server: TritonProcess, work: Work, spec: TritonSpec = PATIENT) -> Triton:
    """Do something with the model in an event loop."""
    versions = Versions(server.serving, server.settings.staging_repository, SOLO)
    lines: list[str] = []

    async def run() -> Triton:
        async with Triton(server.url, versions, spec, lines.append) as model:
            await work(model, lines)
            return model

    return asyncio.run(asyncio.wait_for(run(), 60))


async def until(model: Triton, wanted: Callable[[Answered], bool]) -> Answered:
    """Ask until an answer is as wanted."""
    end = time.monotonic() + 30
    while not wanted(answered := await model.ask(X_BTF)):
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
    return answered


def require(answered: Answered, version: int, threshold: float) -> None:
    assert (answered.version, answered.threshold) == (version, threshold)
    np.testing.assert_allclose(
        answered.probability_B, probability(logits(version)[: len(X_BTF)]), atol=1e-6
    )


def test_each_answer_carries_the_version_that_the_route_named(triton: TritonProcess) -> None:
    async def work(model: Triton, lines: list[str]) -> None:
        require(await model.ask(X_BTF), 1, 0.25)
        await asyncio.to_thread(triton.promote, 2, threshold=0.75)
        require(await until(model, lambda found: found.version == 2), 2, 0.75)
        triton_answers = model.counts["triton"]
        assert "fallback: the engine of version 1 is loaded" in lines
        assert model.counts == {"triton": triton_answers}

    play(triton, work)


def test_a_candidate_gets_its_share_and_its_threshold(triton: TritonProcess) -> None:
    folder = staged(triton.settings.staging_repository, 2, threshold=0.625)
    with TritonClient(triton.url, triton.key) as client:
        load_under(client, CANDIDATE_NAME, folder)
    Route(champion=CHAMPION, candidate=CANDIDATE, share=0.5).save(triton.serving.route_file)

    judge = OutcomeReader(triton.serving.route_file)

    async def work(model: Triton, _: list[str]) -> None:
        await model._versions.read(2)  # before it gets its share
        found = [await model.ask(X_BTF) for _ in range(40)]
        assert 15 <= sum(one.version == 2 for one in found) <= 25
        for one in found:
            require(one, one.version or 0, 0.625 if one.version == 2 else 0.25)
        seen: list[Outcome] = []
        while len(seen) < len(found):
            await asyncio.sleep(0.01)
            seen += judge.read()
        assert [one.version for one in seen] == [one.version for one in found]
        assert all(one.ms and not one.error for one in seen)
        # the champion's engine answered the same window: p >= 0.25 there, p >= 0.625 here
        wanted = (probability(logits(1)[:1]) >= 0.25) == (probability(logits(2)[:1]) >= 0.625)
        compared = [one.agrees for one in seen if one.agrees is not None]
        assert compared
        assert set(compared) == {bool(wanted[0])}

    play(triton, work)


def test_a_version_that_sees_other_features_never_answers(triton: TritonProcess) -> None:
    folder = staged(triton.settings.staging_repository, 2, features=PAIRED)
    with TritonClient(triton.url, triton.key) as client:
        load_under(client, CANDIDATE_NAME, folder)
    Route(champion=CHAMPION, candidate=CANDIDATE, share=1.0).save(triton.serving.route_file)

    async def work(model: Triton, lines: list[str]) -> None:
        while model.counts["other features"] < 2:  # its files are read in the background
            require(await model.ask(X_BTF), 1, 0.25)
            await asyncio.sleep(0.005)
        assert set(model.counts) == {"triton", "other features"}
        refusals = [line for line in lines if "version 2 sees other features (paired" in line]
        assert len(refusals) == 1
        Route(champion=CANDIDATE).save(triton.serving.route_file)
        with pytest.raises(FeaturesChangedError, match="other features") as error:
            for _ in range(100):
                await model.ask(X_BTF)
                await asyncio.sleep(0.01)
        assert "start tickline live again" in error.value.remedy

    play(triton, work)


def test_while_triton_is_away_the_approved_engine_answers(triton: TritonProcess) -> None:
    async def work(model: Triton, lines: list[str]) -> None:
        require(await model.ask(X_BTF), 1, 0.25)
        triton.kill()
        answered = await model.ask(X_BTF)
        require(answered, 1, 0.25)
        assert answered.flags == ("fallback",)
        assert model.away
        await asyncio.to_thread(triton.start)
        back = await until(model, lambda found: found.flags == ())
        require(back, 1, 0.25)
        assert not model.away
        assert [line for line in lines if "is away" in line] == [lines[1]]
        assert lines[-1] == f"Triton at {triton.url} answers again"

    play(triton, work)


def test_the_fallback_follows_the_route(triton: TritonProcess) -> None:
    async def work(model: Triton, lines: list[str]) -> None:
        await asyncio.to_thread(triton.promote, 2, threshold=0.75)
        triton.kill()
        found = await until(model, lambda found: found.version == 2 and found.flags != ())
        require(found, 2, 0.75)
        (triton.serving.folder(1) / "manifest.json").unlink()
        Route(champion=CHAMPION).save(triton.serving.route_file)
        with pytest.raises(ServingError):
            await until(model, lambda _: False)
        assert any("fallback: no engine of version 1" in line for line in lines)
        assert model.counts["failed"] == 1

    play(triton, work)


def test_a_server_that_hangs_delays_one_decision_by_the_deadline(triton: TritonProcess) -> None:
    spec = TritonSpec(deadline_ms=300.0, probe_ms=1.0)

    async def work(model: Triton, lines: list[str]) -> None:
        triton.send(signal.SIGSTOP)
        assert (await model.ask(X_BTF)).flags == ("fallback",)
        assert any("no answer within 300 ms" in line or "away" in line for line in lines)
        asked = model._endpoints[0]._client.ask  # a dead server is not asked again
        model._endpoints[0]._client.ask = None  # type: ignore[assignment,method-assign]
        for _ in range(20):
            assert (await model.ask(X_BTF)).flags == ("fallback",)
        model._endpoints[0]._client.ask = asked  # type: ignore[method-assign]
        triton.send(signal.SIGCONT)
        await until(model, lambda found: found.flags == ())

    play(triton, work, spec)


def test_without_a_fallback_windows_stay_unanswered(triton: TritonProcess) -> None:
    async def work(model: Triton, _: list[str]) -> None:
        triton.kill()
        with pytest.raises(ServingError):
            await model.ask(X_BTF)
        with pytest.raises(ServingError, match="no Triton server answers"):
            await model.ask(X_BTF)
        assert model.state == "requests: failed 2"

    play(triton, work, TritonSpec(fallback=False))


def test_a_second_server_answers_for_a_slow_one(triton: TritonProcess, tmp_path: Path) -> None:
    second = TritonProcess(tmp_path / "home")  # of the same repository
    second.start()
    spec = TritonSpec(deadline_ms=5000.0, hedge_to=second.url, hedge_after_ms=50.0)

    async def work(model: Triton, lines: list[str]) -> None:
        await model.ask(X_BTF)
        before = model.counts.copy()  # a busy machine may have been slow already
        triton.send(signal.SIGSTOP)
        answered = await model.ask(X_BTF)
        require(answered, 1, 0.25)
        assert answered.flags == ()
        assert model.counts - before == {"triton": 1, "hedged": 1, "hedge won": 1}
        triton.kill()
        while not any("is away" in line for line in lines):
            await asyncio.sleep(0.01)
        before = model.counts.copy()
        assert (await model.ask(X_BTF)).flags == ()  # the second one alone
        assert model.counts - before == {"triton": 1}
        second.kill()
        assert (await model.ask(X_BTF)).flags == ("fallback",)

    try:
        play(triton, work, spec)
    finally:
        second.kill()


def test_bad_windows_are_not_the_servers_fault(triton: TritonProcess) -> None:
    async def work(model: Triton, _: list[str]) -> None:
        with pytest.raises(ServingError, match="NaN"):
            await model.ask(np.full_like(X_BTF, np.nan))
        assert not model.away
        assert (await model.ask(X_BTF)).flags == ()

    play(triton, work)


def test_a_version_whose_files_are_still_hashed_delays_no_decision(
    triton: TritonProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = staged(triton.settings.staging_repository, 2, threshold=0.75)
    with TritonClient(triton.url, triton.key) as client:
        load_under(client, CANDIDATE_NAME, folder)
    gate, load = threading.Event(), Manifest.load

    def wait(folder: Path) -> Manifest:
        if folder.name == "2":
            assert gate.wait(20), "the event loop waits for the files"
        return load(folder)

    monkeypatch.setattr(Manifest, "load", wait)
    judge = OutcomeReader(triton.serving.route_file)

    async def work(model: Triton, _: list[str]) -> None:
        Route(champion=CHAMPION, candidate=CANDIDATE, share=1.0).save(triton.serving.route_file)
        await asyncio.sleep(0.05)  # the route is read every 20 ms
        require(await model.ask(X_BTF), 1, 0.25)
        assert model.counts == {"triton": 1}  # the candidate did not fail: it was not asked
        Route(champion=CANDIDATE).save(triton.serving.route_file)
        answered = await until(model, lambda found: found.flags == ("fallback",))
        require(answered, 1, 0.25)
        assert not model.away
        gate.set()  # by the event loop
        require(await until(model, lambda found: found.flags == ()), 2, 0.75)
        assert not [one for one in judge.read() if one.error]

    try:
        play(triton, work, TritonSpec(deadline_ms=2000.0))
    finally:
        gate.set()
