"""`tickline live --page --metrics`: what is shown while a service runs."""

from pathlib import Path

import httpx
import pytest

from flows.cli.live.show import shown
from infra.live.monitoring.observer import Observer
from infra.servers import HOST, free_port
from model_code.errors import ConfigError
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.repository.targets import TargetStates
from model_code.settings import MODEL_NAME, Settings
from tests.support.observed import busy


def test_page_and_metrics_are_there_while_the_service_runs(tmp_path: Path) -> None:
    settings, lines = Settings(home=tmp_path).resolved(), list[str]()
    repository = ServingRepository(settings.serving_repository)
    repository.state.mkdir(parents=True)
    Route(champion=Target(model=MODEL_NAME, version=7)).save(repository.route_file)
    TargetStates.save(repository.state, 7, ("east", "west"), {"west": "no answer"})
    page, metrics = free_port(), free_port()
    with shown(
        busy().observer, settings, lines.append,
        page=page, page_host=HOST, metrics=metrics, metrics_host=HOST,
    ):  # fmt: skip
        assert httpx.get(f"http://{HOST}:{page}/api/state").json()["champion"] == 7
        text = httpx.get(f"http://{HOST}:{metrics}/metrics").text
        assert "tickline_live_approved_version 7.0" in text
        assert 'tickline_live_target_behind{target="west"} 1.0' in text
        # `tickline reconcile` brings it level
        TargetStates.save(repository.state, 7, ("east", "west"), {})
        text = httpx.get(f"http://{HOST}:{metrics}/metrics").text
        assert 'tickline_live_target_behind{target="west"} 0.0' in text
    assert lines == [f"page: http://{HOST}:{page}", f"metrics: http://{HOST}:{metrics}/metrics"]
    for port in (page, metrics):
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://{HOST}:{port}/")


def test_a_public_page_without_a_password_is_refused(tmp_path: Path) -> None:
    show = shown(
        Observer(), Settings(home=tmp_path), print,
        page=free_port(), page_host="0.0.0.0", metrics=None, metrics_host=HOST,  # noqa: S104
    )  # fmt: skip
    with pytest.raises(ConfigError, match="open to everyone"), show:
        pass


def test_without_options_nothing_is_started(tmp_path: Path) -> None:
    lines: list[str] = []
    settings = Settings(home=tmp_path)
    show = shown(
        Observer(), settings, lines.append,
        page=None, metrics=None, page_host=HOST, metrics_host=HOST,
    )  # fmt: skip
    with show:
        pass
    assert lines == []
