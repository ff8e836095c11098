"""Structured logs: one JSON object per line, with the ids of its run and without secrets."""

import datetime as dt
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pythonjsonlogger.json import JsonFormatter

from infra.redact import redact
from model_code.errors import TicklineError
from model_code.settings import Settings

LOGGER = "tickline"
FIELDS = "%(asctime)s %(levelname)s %(name)s %(message)s"
NAMES = {"asctime": "time", "levelname": "level", "name": "logger"}


@contextmanager
def json_log(settings: Settings, **ids: str) -> Iterator[Path]:
    """Write the block's log records to `<home>/logs/tickline-<date>.jsonl`.

    Covers the loggers of the project, Prefect and MLflow, and the warnings of all others.

    Args:
        settings: of the home folder.
        ids: written with every line, e.g. `flow_run_id`, `flow_run_name`, `mlflow_run_id`.
    """
    path = settings.home / "logs" / f"tickline-{dt.datetime.now(dt.UTC):%Y-%m-%d}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(_Formatter(ids))
    loggers = [logging.getLogger(name) for name in (LOGGER, "prefect", "mlflow")]
    own = loggers[0]
    before = own.level, own.propagate
    own.setLevel(logging.INFO)
    own.propagate = False  # stages print to the console themselves
    others = _Others(handler)
    for logger in loggers:
        logger.addHandler(handler)
    logging.getLogger().addHandler(others)
    try:
        yield path
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        logging.getLogger().removeHandler(others)
        own.setLevel(before[0])
        own.propagate = before[1]
        handler.close()


@contextmanager
def expected_errors_off_console() -> Iterator[None]:
    """Keep Prefect from printing our own errors with a traceback; the command prints them itself.

    Prefect's server and the log files still get them. Other errors are printed as before.
    """
    from prefect.logging.configuration import setup_logging
    from prefect.logging.handlers import PrefectConsoleHandler

    setup_logging()
    names = [None, *logging.root.manager.loggerDict]
    handlers = {
        handler
        for logger in map(logging.getLogger, names)
        for handler in logger.handlers
        if isinstance(handler, PrefectConsoleHandler)
    }
    for handler in handlers:
        handler.addFilter(_unexpected)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_unexpected)


def _unexpected(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], TicklineError))


def log(message: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log an event with its fields, e.g. `log("stage ended", stage="train", seconds=12.5)`."""
    logging.getLogger(LOGGER).log(level, message, extra=fields)


class _Formatter(JsonFormatter):
    """JSON with time in UTC, the run's ids, and no secret."""

    def __init__(self, ids: Mapping[str, str]) -> None:
        super().__init__(
            FIELDS, rename_fields=NAMES, static_fields=dict(ids), json_ensure_ascii=False
        )

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """ISO 8601 in UTC, milliseconds."""
        del datefmt
        return dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")

    def format(self, record: logging.LogRecord) -> str:
        """The line, with secrets of the environment and credentials in URLs masked."""
        return redact(super().format(record))


class _Others(logging.Handler):
    """Forwards warnings and errors that reach the root logger."""

    def __init__(self, target: logging.Handler) -> None:
        super().__init__(logging.WARNING)
        self.target = target

    def emit(self, record: logging.LogRecord) -> None:
        """Forward the record, unless its own logger already wrote it."""
        if record.name.split(".")[0] not in {LOGGER, "prefect", "mlflow"}:
            self.target.emit(record)
