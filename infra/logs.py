"""Structured logs: one JSON object per line, with the ids of its run and without secrets."""

import copy
import datetime as dt
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pythonjsonlogger.json import JsonFormatter

from infra.auth import remember_secrets
from infra.redact import redact
from model_code.settings import Settings

LOGGER = "tickline"
FIELDS = "%(asctime)s %(levelname)s %(name)s %(message)s"
PAGE_ONLY = "page_only"  # attribute of a record for Prefect's page that a log has as an event
AGAIN = "will start"  # of Prefect's line on a task that it tries again
NAMES = {"asctime": "time", "levelname": "level", "name": "logger"}


@contextmanager
def json_log(settings: Settings, **ids: str) -> Iterator[Path]:
    """Write the block's log records to `<home>/logs/tickline-<date>.jsonl`.

    Covers the loggers of the project, Prefect and MLflow, and the warnings of all others.

    Args:
        settings: of the home folder.
        ids: written with every line, e.g. `flow_run_id`, `flow_run_name`, `mlflow_run_id`.
    """
    remember_secrets(settings)
    path = settings.home / "logs" / f"tickline-{dt.datetime.now(dt.UTC):%Y-%m-%d}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(_Formatter(ids))
    handler.addFilter(lambda record: not hasattr(record, PAGE_ONLY))
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
def failures_off_console() -> Iterator[None]:
    """Keep Prefect from printing how a run failed: the command prints the error itself, once.

    What is tried again is printed as one line, without its traceback, and the same warning once.
    Prefect's server and the log files still get everything.
    """
    from prefect.logging import handlers as of_prefect
    from prefect.logging.configuration import setup_logging

    setup_logging()
    names = [None, *logging.root.manager.loggerDict]
    handlers = {
        handler
        for logger in map(logging.getLogger, names)
        for handler in logger.handlers
        if isinstance(handler, logging.StreamHandler)
        and type(handler).__module__ == of_prefect.__name__
    }
    news = _News()
    before = {handler: handler.formatter for handler in handlers}
    for handler in handlers:
        handler.addFilter(news)
        handler.setFormatter(_OneLine(handler.formatter))
    try:
        yield
    finally:
        for handler, formatter in before.items():
            handler.removeFilter(news)
            handler.setFormatter(formatter)


class _News(logging.Filter):
    """Passes what tells the user more than the command's own lines and message will."""

    def __init__(self) -> None:
        super().__init__()
        self._warnings: dict[str, logging.LogRecord] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is neither a run's own line, nor its failure, nor a repeated warning."""
        if hasattr(record, PAGE_ONLY):
            return False
        text = record.getMessage()
        if record.levelno < logging.ERROR:
            # another handler may ask about the same record
            return self._warnings.setdefault(text, record) is record
        return record.name.partition(".")[0] != "prefect" or AGAIN in text


class _OneLine(logging.Formatter):
    """Another formatter's text, without tracebacks."""

    def __init__(self, inner: logging.Formatter | None) -> None:
        super().__init__()
        self._inner = inner or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        """The text of a copy: other handlers write the same record."""
        plain = copy.copy(record)
        plain.exc_info, plain.exc_text, plain.stack_info = None, None, None
        return self._inner.format(plain)


def identify(**ids: str) -> None:
    """Set ids of the open logs that were not known when they were opened."""
    for handler in logging.getLogger(LOGGER).handlers:
        if isinstance(handler.formatter, _Formatter):
            handler.formatter.static_fields.update(ids)


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
