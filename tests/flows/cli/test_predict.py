"""`tickline predict` with the real server: each version gets windows of its own features."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from flows.cli import predict
from infra.triton.server import TritonServer
from model_code.errors import DataError, ServingError
from model_code.features.newest import NewestWindows
from model_code.features.served import SOLO, SeenFeatures, ServedFeatures
from model_code.models.probability import probability
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.serving.candidate import CANDIDATE_NAME, load_under
from model_code.serving.swap import Swap
from model_code.settings import MODEL_NAME, FeatureSpec
from tests.support.cli import tickline
from tests.support.market import SYMBOLS, hive
from tests.support.serving import APPROVAL, Names, staged, weights, windows

PAIRED = ServedFeatures.of(FeatureSpec(feature_set="paired"), {SYMBOLS[1]: (SYMBOLS[0],)})


@pytest.fixture
def store(tmp_path: Path) -> str:
    return hive(tmp_path / "store", n=300)


@pytest.fixture
def staging(
    tmp_path: Path, live_triton: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A staging repository; version 1, which sees the set `paired`, serves."""
    home = tmp_path / "home"
    monkeypatch.setenv("TICKLINE_HOME", str(home))
    monkeypatch.setenv("TICKLINE_TRITON_URL", live_triton.grpc_url)
    monkeypatch.setenv("TICKLINE_SERVING", str(live_triton.repository))
    monkeypatch.setattr(predict.out, "width", 200)
    serving = ServingRepository(live_triton.repository)
    serving.publish(staged(home / "staging", 1, features=PAIRED), APPROVAL)
    with live_triton.client() as client:
        Swap(serving, client, Names()).run("promote", 1, None, "f")
        yield home / "staging"


def asked(tmp_path: Path, *options: object) -> tuple[str, NDArray[np.float64]]:
    """What the command printed, and the probabilities that it wrote."""
    to = tmp_path / "out.csv"
    printed = tickline("predict", *options, "--out", to)
    with to.open() as file:
        return printed, np.array([float(row["p_opportunity"]) for row in csv.DictReader(file)])


def expected(store: str, version: int, seen: SeenFeatures, last: int) -> NDArray[np.float64]:
    x_NTF, _ = NewestWindows(store, SYMBOLS[1], last).windows(seen)
    return probability(x_NTF.mean(axis=1) @ weights(version))


def test_the_serving_version_is_asked_about_windows_of_its_own_features(
    staging: Path, store: str, tmp_path: Path
) -> None:
    printed, found = asked(tmp_path, store, "-i", SYMBOLS[1], "--last", 70)
    np.testing.assert_allclose(found, expected(store, 1, PAIRED, 70), atol=1e-5)
    assert "version 1, yes from 0.5, features paired, from the route file" in printed
    assert not np.allclose(found, expected(store, 1, SOLO, 70), atol=1e-5)


def test_a_version_without_a_manifest_here_is_asked_about_the_set_solo(
    staging: Path, store: str, tmp_path: Path, live_triton: TritonServer
) -> None:
    folder = staged(tmp_path / "elsewhere" / "staging", 7)
    with live_triton.client() as client:
        load_under(client, "another", folder)
        printed, found = asked(tmp_path, store, "-i", SYMBOLS[1], "--model", "another")
        client.unload("another")
    np.testing.assert_allclose(found, expected(store, 7, SOLO, 10), atol=1e-5)
    assert "another, version 7, yes from 0.5, features solo (no manifest here)" in printed


def test_a_canary_s_share_is_asked_about_the_candidate_s_own_windows(
    staging: Path, store: str, tmp_path: Path, live_triton: TritonServer
) -> None:
    """Version 2 has no features in its manifest, as those of an earlier Tickline: solo."""
    serving = ServingRepository(live_triton.repository)
    candidate = Target(model=CANDIDATE_NAME, version=2)
    with live_triton.client() as client:
        load_under(client, CANDIDATE_NAME, staged(staging, 2))
        champion = Target(model=MODEL_NAME, version=1)
        Route(champion=champion, candidate=candidate, share=1.0, until=2e10).save(
            serving.route_file
        )
        printed, found = asked(tmp_path, store, "-i", SYMBOLS[1])
        client.unload(CANDIDATE_NAME)
    np.testing.assert_allclose(found, expected(store, 2, SOLO, 10), atol=1e-5)
    assert f"{CANDIDATE_NAME}, version 2, yes from 0.5, features solo, from the route" in printed


def test_windows_of_a_file_are_sent_as_they_are(staging: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "windows.npy", windows())
    printed, found = asked(tmp_path, tmp_path / "windows.npy", "--last", 5, "--version", 1)
    np.testing.assert_allclose(
        found, probability(windows()[-5:].mean(axis=1) @ weights(1)), atol=1e-5
    )
    assert "features" not in printed
    bad = windows()
    bad[-1, -1, 3] = np.nan
    np.save(tmp_path / "bad.npy", bad)
    with pytest.raises(DataError, match="NaN, infinity"):
        tickline("predict", tmp_path / "bad.npy", "--version", 1)
    with pytest.raises(ServingError, match="'absent' is not available"):
        tickline("predict", tmp_path / "windows.npy", "--model", "absent")


def test_an_archive_and_any_case_of_the_suffix_are_windows_too(
    staging: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "windows.npz", windows().astype(np.float64))
    (tmp_path / "windows.npz").rename(tmp_path / "WINDOWS.NPZ")
    monkeypatch.setenv("HOME", str(tmp_path))
    _, found = asked(tmp_path, "~/WINDOWS.NPZ", "--last", 70)
    np.testing.assert_allclose(found, probability(windows().mean(axis=1) @ weights(1)), atol=1e-5)


def test_a_file_that_is_no_windows_is_an_error_without_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
    np.save(tmp_path / "times.npy", np.zeros((1, 64, 16), "M8[ns]"))
    (tmp_path / "text.npy").write_text("1.0")
    for name, said in (("times.npy", "expected real numbers"), ("text.npy", "holds text")):
        with pytest.raises(DataError, match=said):
            tickline("predict", tmp_path / name)
