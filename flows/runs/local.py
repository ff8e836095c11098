"""Run a flow in this process. A Prefect server is started if none answers.

Prefect reads the environment on import, so functions import it after they set the environment.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from infra.servers import BUSY_S, ServerError, environment, healthy, prefect_server
from infra.triton.install import install
from model_code.errors import TicklineError
from model_code.settings import TRITON_ROW, NightlySpec, Settings
from model_code.settings.tuning import TuneSpec
from model_code.settings.walkforward import WalkforwardSpec

if TYPE_CHECKING:
    from flows.bench import Bench
    from flows.runs.outcome import Outcome
    from flows.tune import Tuned
    from model_code.benchmark.reports.walkforward_report import Walk


SEND_TIMEOUT_S = 5


class StoppedError(TicklineError):
    """A person stopped the command."""


class AwayError(ServerError):
    """Prefect's server stopped answering while a command used it."""


@contextmanager
def connected(settings: Settings) -> Iterator[None]:
    """Run the block with Tickline's Prefect and MLflow environment and a running Prefect server."""
    os.environ.update(environment(settings))
    # on the console stages print their own lines; Prefect's page gets everything
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "WARNING")
    with prefect_server(settings) as url:
        os.environ["PREFECT_API_URL"] = url
        from prefect.settings import (
            PREFECT_API_URL,
            PREFECT_HOME,
            PREFECT_LOCAL_STORAGE_PATH,
            temporary_settings,
        )

        from infra.logs import failures_off_console

        # again as settings, for a process that imported Prefect before
        names = (PREFECT_API_URL, PREFECT_HOME, PREFECT_LOCAL_STORAGE_PATH)
        with temporary_settings({name: os.environ[name.name] for name in names}):
            try:
                with failures_off_console():
                    yield
            except TicklineError:
                raise
            except Exception as error:
                if healthy(f"{url}/health", timeout_s=BUSY_S):
                    raise
                raise AwayError(
                    "Prefect's server stopped answering",
                    where=url,
                    remedy="start it again (tickline status; tickline up), "
                    "then resume: tickline rerun --last-failed",
                ) from error
            except KeyboardInterrupt:
                raise StoppedError(
                    "stopped by Ctrl-C",
                    remedy="resume a nightly: tickline rerun --last-failed; "
                    "anything else: the same command again",
                ) from None
            finally:
                _send_rest()


def _send_rest() -> None:
    """Send Prefect's buffered events and logs while its server still runs."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=SEND_TIMEOUT_S)
    APILogWorker.drain_all(timeout=SEND_TIMEOUT_S)


def run_nightly(
    spec: NightlySpec, settings: Settings, *, refresh: bool = False, as_of: str | None = None
) -> "Outcome":
    """Run the nightly flow here and return its outcome.

    Raises:
        TicklineError: a stage failed; a rerun reuses the finished stages.
    """
    _install_triton(spec, settings)
    with connected(settings):
        from flows.nightly import nightly
        from flows.runs.outcome import Outcome

        outcome = nightly(spec, refresh=refresh, as_of=as_of)
        assert isinstance(outcome, Outcome)  # noqa: S101  only scheduled runs are skipped
        return outcome


def run_bench(spec: NightlySpec, settings: Settings, repeat: int) -> "tuple[Bench, ...]":
    """Run the benchmark flow here and return each measurement.

    Raises:
        TicklineError: a stage failed.
    """
    _install_triton(spec, settings)
    with connected(settings):
        from flows.bench import bench

        return bench(spec, repeat=repeat)


def run_tune(
    spec: NightlySpec, search: TuneSpec, settings: Settings, *, parallel: int | None = None
) -> "Tuned":
    """Run the search here and return what its study has found so far.

    Raises:
        TicklineError: a stage failed, or every trial did.
    """
    with connected(settings):
        from flows.tune import tune

        return tune(spec, search, parallel)


def run_walkforward(spec: WalkforwardSpec, settings: Settings) -> "Walk":
    """Run the walk forward here and return its figures.

    Raises:
        TicklineError: a stage failed; the same command continues with the finished fits.
    """
    with connected(settings):
        from flows.walkforward import walkforward

        return walkforward(spec)


def _install_triton(spec: NightlySpec, settings: Settings) -> None:
    """Install Triton for the benchmark's row `triton-grpc`; if that fails, the row says why."""
    if not spec.benchmark.served:
        return
    try:
        install(settings, say=print)
    except ServerError as error:
        print(f"row {TRITON_ROW} is skipped: {error.what}")  # noqa: T201
