"""Names, passwords and keys as settings: checked when they are read, before anything starts."""

import re
from typing import Annotated

from pydantic import AfterValidator, SecretStr

LEAST = 12  # characters; MLflow refuses a shorter password only once its server starts
KEY = re.compile(r"[A-Za-z0-9_-]{16,128}")
PRINTABLE = re.compile(r"[ -~]*")  # basic authentication carries nothing else reliably


def _username(value: str) -> str:
    if not value or ":" in value or not PRINTABLE.fullmatch(value):
        raise ValueError("a user name has printable ASCII characters, at least one, and no colon")
    return value


def _password(value: SecretStr | None) -> SecretStr | None:
    if value is not None and len(value.get_secret_value()) < LEAST:
        raise ValueError(
            f"a password has at least {LEAST} characters, e.g. openssl rand -hex 24; "
            "for no authentication unset the variable"
        )
    return _plain(value)


def _plain(value: SecretStr | None) -> SecretStr | None:
    text = "" if value is None else value.get_secret_value()
    if not PRINTABLE.fullmatch(text) or text != text.strip():
        raise ValueError(
            "a password has printable ASCII characters, without spaces at its ends and line breaks"
        )
    return value


def _key(value: SecretStr | None) -> SecretStr | None:
    if value is not None and not KEY.fullmatch(value.get_secret_value()):
        raise ValueError("a key has 16 to 128 letters, digits, - and _: openssl rand -hex 24")
    return value


Username = Annotated[str, AfterValidator(_username)]
OptionalPassword = Annotated[SecretStr | None, AfterValidator(_password)]
OptionalRedisPassword = Annotated[SecretStr | None, AfterValidator(_plain)]
OptionalKey = Annotated[SecretStr | None, AfterValidator(_key)]
