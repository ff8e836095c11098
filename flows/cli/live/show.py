"""Options that show a running service: its page and its metrics."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from model_code.settings import Settings

if TYPE_CHECKING:
    from infra.live.feedback.prediction_log import PredictionLog
    from infra.live.monitoring.observer import Observer

Page = Annotated[
    int | None,
    typer.Option(
        help="Show the service at http://PAGE_HOST:PAGE.", min=1, max=65535, show_default="no page"
    ),
]
PageHost = Annotated[
    str,
    typer.Option(help="Listen address of the page; another one needs TICKLINE_AUTH_PASSWORD."),
]
Metrics = Annotated[
    int | None,
    typer.Option(
        help="Serve Prometheus metrics on this port of METRICS_HOST, at /metrics.",
        min=1,
        max=65535,
        show_default="none",
    ),
]
MetricsHost = Annotated[
    str, typer.Option(help="Listen address of the metrics; another one only behind a firewall.")
]


@contextmanager
def shown(
    observer: "Observer",
    settings: Settings,
    say: Callable[[str], None],
    *,
    page: int | None,
    page_host: str,
    metrics: int | None,
    metrics_host: str,
    log: "PredictionLog | None" = None,
) -> Iterator[None]:
    """Show a service, and what its prediction log finds, while it runs.

    Raises:
        ConfigError: the page would be public without a password.
        TicklineError: a port is taken.
    """
    if page is None and metrics is None:
        yield
        return
    from infra.live.feedback.metrics import collector
    from infra.live.monitoring import metrics as exporter
    from infra.live.monitoring import page as pages
    from infra.live.monitoring.view import View
    from model_code.repository.route import Router
    from model_code.repository.serving import ServingRepository
    from model_code.repository.targets import TargetStates

    repository = ServingRepository(settings.serving_repository)
    route = Router(repository.route_file, refresh_s=1.0)
    targets = partial(TargetStates.load, repository.state)
    view = View(observer, route=route.route, targets=targets)
    with ExitStack() as stack:
        if page is not None:
            stack.callback(pages.serve(view, settings, page, page_host))
            say(f"page: http://{page_host}:{page}")
        if metrics is not None:
            beside = [] if log is None else [collector(log)]
            stack.callback(exporter.serve(view, metrics, metrics_host, beside=beside))
            say(f"metrics: http://{metrics_host}:{metrics}/metrics")
        yield
