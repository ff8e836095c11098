import json
import logging
from pathlib import Path
from typing import Any

import pytest

from infra.logs import failures_off_console, json_log, log
from infra.redact import HIDDEN
from model_code.errors import DataError
from model_code.settings import Settings


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_line_is_json_with_the_runs_ids_and_its_fields(tmp_path: Path) -> None:
    with json_log(Settings(home=tmp_path), flow_run_name="brave-fox", mlflow_run_id="m1") as path:
        log("stage ended", stage="train", seconds=12.5)
    log("after the block")
    (line,) = lines(path)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "INFO",
        "logger": "tickline",
        "message": "stage ended",
        "stage": "train",
        "seconds": 12.5,
        "flow_run_name": "brave-fox",
        "mlflow_run_id": "m1",
    }


def test_warnings_of_other_loggers_and_tracebacks_are_written_once(tmp_path: Path) -> None:
    with json_log(Settings(home=tmp_path)) as path:
        logging.getLogger("somelibrary").warning("careful")
        logging.getLogger("somelibrary").info("chatter")
        try:
            raise ValueError("no\nsecond line")
        except ValueError:
            logging.getLogger("prefect.flow_runs").exception("it failed")
    careful, failed = lines(path)
    assert (careful["logger"], careful["message"]) == ("somelibrary", "careful")
    assert "second line" in failed["exc_info"]


def test_secrets_are_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKLINE_AUTH_PASSWORD", "correct horse")
    monkeypatch.setenv("TICKLINE_WEBHOOK", "https://hooks.example/abc")
    with json_log(Settings(home=tmp_path)) as path:
        log("password is correct horse", url="postgresql://desk:hush@db/x")
        log("posting to https://hooks.example/abc")
    text = path.read_text()
    for secret in ("correct horse", "hush", "hooks.example/abc"):
        assert secret not in text
    assert text.count(HIDDEN) == 3
    assert len(lines(path)) == 2


def test_a_secret_that_json_escapes_is_masked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = 'correct "horse" \\ batt\u00e9ry'  # noqa: S105
    monkeypatch.setenv("DESK_PASSWORD", secret)
    with json_log(Settings(home=tmp_path)) as path:
        log(f"password is {secret}", given=[secret])
    text = path.read_text()
    assert "horse" not in text
    assert text.count(HIDDEN) == 2
    assert len(lines(path)) == 1


def test_two_runs_of_a_day_share_the_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with json_log(Settings(home=tmp_path), flow_run_name=name) as path:
            log("begun")
    assert [line["flow_run_name"] for line in lines(path)] == ["one", "two"]


def test_failures_stay_off_prefects_console_and_what_is_tried_again_is_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from prefect.logging.configuration import setup_logging
    from prefect.logging.handlers import PrefectConsoleHandler

    setup_logging()  # done a second time, it leaves loggers as they are
    handler = PrefectConsoleHandler()
    before = handler.formatter
    kept: list[logging.LogRecord] = []

    class Other(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record)

    other = Other()
    logger = logging.getLogger("prefect.a_logger_of_this_test")
    logger.addHandler(handler)
    logger.addHandler(other)
    logger.propagate = False  # Prefect's handler of the root logger prints too, once it is set up
    texts = ("a flow failed", "it failed - Retry 1/3 will start 2 second(s) from now")
    try:
        with failures_off_console():
            for error, text in zip((DataError("bad"), ValueError("no")), texts, strict=True):
                try:
                    raise error
                except (DataError, ValueError):
                    logger.exception(text)
            logger.warning("a warning")
        printed = capsys.readouterr().err
        assert "a flow failed" not in printed
        assert "Retry 1/3" in printed
        assert "a warning" in printed
        assert "Traceback" not in printed
        assert all(record.exc_info for record in kept[:2])  # other handlers get all of it
        assert len(kept) == 3
        assert (handler.filters, handler.formatter) == ([], before)
    finally:
        logger.removeHandler(handler)
        logger.removeHandler(other)
