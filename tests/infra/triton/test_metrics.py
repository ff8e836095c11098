"""The metrics of the real server: those that rules and dashboards query are there."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from infra.triton.server import TritonServer, running
from model_code.errors import ServingError
from model_code.repository.serving import ServingRepository
from model_code.settings import MODEL_NAME, Settings
from tests.infra.test_prometheus import NV
from tests.support.serving import APPROVAL, staged, windows


def series(server: TritonServer) -> dict[tuple[str, str], float]:
    """Values by metric and labels as text."""
    text = httpx.get(server.metrics_url).text
    found = re.findall(r"^(nv_inference_\w+)\{([^}]*)\} (\S+)$", text, re.MULTILINE)
    return {(name, labels): float(value) for name, labels, value in found}


@pytest.fixture
def own_triton(tmp_path: Path, triton_home: Path) -> Iterator[TritonServer]:
    """A server that no other test has used."""
    settings = Settings(home=tmp_path / "home", triton=triton_home)
    with running(settings, tmp_path / "serving") as server:
        yield server


def test_every_queried_metric_is_exported_with_its_labels(
    own_triton: TritonServer, tmp_path: Path
) -> None:
    place = ServingRepository(own_triton.repository)
    assert not any(f'model="{MODEL_NAME}"' in labels for _, labels in series(own_triton)), (
        "TritonServesNothing sees a server without the model by its missing metrics"
    )
    place.publish(staged(tmp_path / "staging", 1), APPROVAL)
    place.arrange((1,))
    with own_triton.client() as client:
        client.load()
        client.predict(windows())
        found = series(own_triton)
        labels = {
            name: set(re.findall(r"(\w+)=", text))
            for name, text in found
            if f'model="{MODEL_NAME}"' in text
        }
        assert {name: wanted - labels.get(name, set()) for name, wanted in NV.items()} == {
            name: set() for name in NV
        }
        (stub,) = (
            one
            for one in psutil.Process(own_triton.pid).children(recursive=True)
            if any(f"{MODEL_NAME}/1/" in word for word in one.cmdline())
        )
        stub.kill()
        with pytest.raises(ServingError):
            client.predict(windows())
    failed = {
        text: value
        for (name, text), value in series(own_triton).items()
        if name == "nv_inference_request_failure" and value
    }
    assert failed, "TritonFailures sees a version whose process died by its failures"
