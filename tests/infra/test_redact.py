"""One redactor for every channel."""

import importlib
import json
import logging
from pathlib import Path

import pytest

from infra.redact import HIDDEN, Redactor, redact, redact_logs, remember, secrets_of


def test_which_variables_are_secret() -> None:
    found = secrets_of(
        {
            "AWS_SECRET_ACCESS_KEY": "abcdefgh",
            "PREFECT_API_AUTH_STRING": "desk:hgfedcba",
            "PREFECT_API_DATABASE_CONNECTION_URL": "postgresql+asyncpg://desk:hush-hush@db/prefect",
            "TICKLINE_TRITON_KEY": "0123456789abcdef",
            "HOME": "/home/desk",
            "SOME_TOKEN": "1",
        }
    )
    assert set(found) == {
        "abcdefgh",
        "desk:hgfedcba",
        "hgfedcba",
        "postgresql+asyncpg://desk:hush-hush@db/prefect",
        "hush-hush",
        "0123456789abcdef",
    }
    assert found == sorted(found, key=len, reverse=True)


@pytest.mark.parametrize(
    "text",
    [
        "cannot reach postgresql://desk:hush-hush@db:5432/mlflow",
        "GET / Authorization: Basic aHVzaC1odXNo",
        "{'Authorization': 'Bearer hush-hush'}",
        "connection failed: host=db password=hush-hush user=desk",
        'aws_secret_access_key = "hush-hush"',
        '{"password": "hush-hush"}',
        "--grpc-restricted-protocol=model-repository,logging:tickline-key=hush-hush",
    ],
)
def test_what_is_written_like_a_secret_is_removed_unknown_or_not(text: str) -> None:
    clean = redact(text)
    assert HIDDEN in clean
    assert "hush-hush" not in clean
    assert "aHVzaC1odXNo" not in clean
    assert redact(clean) == clean


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens=4096000 and the cache_key=0123456789abcdef",
        "see http://127.0.0.1:4200/runs/flow-run/1",
        "write to desk@example.org",
        "TICKLINE_AUTH_PASSWORD is not set",
        "password: at least 12 characters",
    ],
)
def test_other_text_is_left_alone(text: str) -> None:
    assert redact(text) == text


def test_a_secret_is_found_in_every_spelling() -> None:
    secret = 'correct "horse" \\ batt\u00e9ry/%'  # noqa: S105
    clean = Redactor([secret])
    from urllib.parse import quote

    for text in (secret, json.dumps(secret), repr(secret), quote(secret, safe="")):
        assert HIDDEN in clean(text)
        assert "horse" not in clean(text)


def test_every_log_record_of_the_process_is_redacted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("infra.redact._remembered", set())
    before = logging.getLogRecordFactory()
    monkeypatch.setenv("TICKLINE_AUTH_PASSWORD", "correct horse")
    remember("of a .env file", "1")
    logger, log = logging.getLogger("a library"), tmp_path / "log"
    handler = logging.FileHandler(log)
    logger.addHandler(handler)
    try:
        redact_logs()
        redact_logs()  # twice is once
        logger.warning("the password is %s", "correct horse")
        logger.warning("and that %s, not %d", "of a .env file", 1)
        try:
            raise ValueError("no access with correct horse")
        except ValueError:
            logger.exception("failed")
    finally:
        logging.setLogRecordFactory(before)
        logger.removeHandler(handler)
        handler.close()
    text = log.read_text()
    assert "horse" not in text
    assert ".env file" not in text
    assert text.count(HIDDEN) == 4
    assert "Traceback" in text
    assert "not 1" in text


def test_prefects_loggers_and_the_error_panel_are_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a flow logs goes to Prefect's server and console; what a command says, to its panel."""
    from flows.cli import __main__ as command
    from flows.cli.options import settings_from_environment
    from model_code.errors import ServingError

    importlib.import_module("tasks")  # every process that runs a flow does
    monkeypatch.setattr("infra.redact._remembered", set())
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("TICKLINE_REDIS_PASSWORD=battery-staple\n")
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
    assert settings_from_environment().redis_password is not None
    log = tmp_path / "log"
    handler = logging.FileHandler(log)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("prefect.flow_runs.of_this_test")
    logger.propagate = False  # Prefect's handler of a flow's records needs a flow
    logger.addHandler(handler)
    try:
        logger.error("redis refused battery-staple at redis://:battery-staple@desk/0")
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert log.read_text() == f"redis refused {HIDDEN} at redis://{HIDDEN}@desk/0\n"

    capsys.readouterr()

    def fail() -> None:
        raise ServingError("no access to grpc://desk:hush-hush@triton with battery-staple")

    monkeypatch.setattr(command, "app", fail)
    with pytest.raises(SystemExit):
        command.main()

    def crash() -> None:
        raise RuntimeError("unforeseen battery-staple")

    monkeypatch.setattr(command, "app", crash)
    with pytest.raises(SystemExit):
        command.main()
    said = capsys.readouterr().err
    assert said.count(HIDDEN) == 3
    (traceback,) = (tmp_path / "home" / "logs").glob("error-*.log")
    for text in (said, traceback.read_text()):
        assert "battery-staple" not in text
        assert "hush-hush" not in text
