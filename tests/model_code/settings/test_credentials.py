"""Names, passwords and keys are refused when they are read, and never shown."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from model_code.settings import Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AUTH_PASSWORD", "correct horse"),
        ("AUTH_PASSWORD", "123456789012"),
        ("AUTH_PASSWORD", 'p:a%s$s@w/o"r\\d#!'),
        ("AUTH_USERNAME", "Ada Lovelace"),
        ("REDIS_PASSWORD", ""),  # none
        ("REDIS_PASSWORD", "short"),
    ],
)
def test_what_servers_and_clients_take(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"TICKLINE_{name}", value)
    found = getattr(Settings(home=tmp_path).resolved(), name.lower())
    assert (found if isinstance(found, str) else found.get_secret_value()) == value


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("AUTH_PASSWORD", "", "at least 12"),
        ("AUTH_PASSWORD", "eleven_char", "at least 12"),
        ("AUTH_PASSWORD", "correct h\u00f6rse", "printable ASCII"),
        ("AUTH_PASSWORD", "correct horse\n", "line breaks"),
        ("AUTH_PASSWORD", " correct horse", "spaces at its ends"),
        ("AUTH_USERNAME", "", "at least one"),
        ("AUTH_USERNAME", "ada:lovelace", "no colon"),
        ("AUTH_USERNAME", "j\u00fcrgen", "printable ASCII"),
        ("REDIS_PASSWORD", "secret\u20ac", "printable ASCII"),
        ("TRITON_KEY", "too short", "16 to 128"),
    ],
)
def test_what_is_refused(
    name: str, value: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"TICKLINE_{name}", value)
    with pytest.raises(ValidationError, match=reason) as caught:
        Settings(home=tmp_path)
    assert not value or value not in str(caught.value)
