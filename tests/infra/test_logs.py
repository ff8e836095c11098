import json
import logging
from pathlib import Path
from typing import Any

import pytest

from infra.logs import expected_errors_off_console, json_log, log
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


def test_our_own_errors_stay_off_prefects_console_and_others_are_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from prefect.logging.handlers import PrefectConsoleHandler

    handler = PrefectConsoleHandler()
    logger = logging.getLogger("a logger of this test")
    logger.addHandler(handler)
    logger.propagate = False  # Prefect's handler of the root logger prints too, once it is set up
    try:
        with expected_errors_off_console():
            for error in (DataError("expected"), ValueError("unexpected")):
                try:
                    raise error
                except (DataError, ValueError):
                    logger.exception("a flow failed")
        printed = capsys.readouterr().err
        assert "ValueError: unexpected" in printed
        assert "DataError" not in printed
        assert printed.count("a flow failed") == 1
        assert handler.filters == []
    finally:
        logger.removeHandler(handler)
