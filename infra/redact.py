"""The one place that removes secrets from text: logs, captured output, messages, MLflow's tags.

Imports only the standard library: the launcher of every service uses it too.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

HIDDEN = "***"
SHORTEST = 6  # masking every "1" would make a log unreadable
# values of environment variables with such a name are never written
SECRET_NAME = re.compile(
    r"PASSWORD|PASSWD|SECRET|TOKEN|API_KEY|ACCESS_KEY|TRITON_KEY|AUTH_STRING|WEBHOOK|CONNECTION"
)
_URL = re.compile(r"(?<=://)[^/\s@'\"]+(?=@)")
_URL_PASSWORD = re.compile(r"://[^:/\s@]*:([^/\s@]+)@")
_HEADER = re.compile(r"(?i)(\bauthorization\b\W{1,4}(?:basic|bearer)\s+)[^\s'\",\\]+")
_NAMED = re.compile(
    r"(?i)(\b[\w-]*(?:password|passwd|secret[\w-]*key|access_key|api_?key|tickline-key)"
    r"\\?[\"']?\s?[=:]\s?\\?[\"']?)(?!\*\*)[^\s\"'\\,;&}\])]{6,}"
)

_FORMAT = logging.Formatter()
_remembered: set[str] = set()


def secrets_of(environment: Mapping[str, str]) -> list[str]:
    """Values of variables whose names mark them as secret, longest first; short ones excluded.

    The password of a `user:password` pair, or of a URL, is a value of its own.
    """
    found = set()
    for name in environment:  # not its items: reading each value costs most of a log record
        if not _is_secret(name):
            continue
        value = environment[name]
        found.add(value)
        if name.upper().endswith("AUTH_STRING"):
            found.add(value.partition(":")[2])
        found.update(_URL_PASSWORD.findall(value))
    return sorted((value for value in found if len(value) >= SHORTEST), key=len, reverse=True)


@cache
def _is_secret(name: str) -> bool:
    return SECRET_NAME.search(name.upper()) is not None


class Redactor:
    """Removes known secrets, credentials in URLs and headers, and values named like secrets.

    Args:
        secrets: values to remove, in every spelling in which a log may have them.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        spelled = {form for secret in secrets for form in _spellings(secret)}
        self._secrets = sorted(spelled, key=len, reverse=True)

    @classmethod
    def of_process(cls) -> "Redactor":
        """With the secrets of this process's environment and those remembered."""
        return _redactor(frozenset(secrets_of(os.environ)) | frozenset(_remembered))

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        text = _URL.sub(HIDDEN, text)
        text = _HEADER.sub(rf"\1{HIDDEN}", text)
        return _NAMED.sub(rf"\1{HIDDEN}", text)


def redact(text: str) -> str:
    """The text without secrets of this process."""
    return Redactor.of_process()(text)


def remember(*secrets: str) -> None:
    """Remove these too from now on: a `.env` file's secrets are in no variable."""
    _remembered.update(secret for secret in secrets if len(secret) >= SHORTEST)


def redact_logs() -> None:
    """Remove secrets from every log record of this process, whichever logger makes it."""
    before = logging.getLogRecordFactory()
    if isinstance(before, _Records):
        return
    logging.setLogRecordFactory(_Records(before))


class _Records:
    def __init__(self, before: Callable[..., logging.LogRecord]) -> None:
        self._before = before

    def __call__(self, *arguments: Any, **named: Any) -> logging.LogRecord:
        record = self._before(*arguments, **named)
        clean = Redactor.of_process()
        try:
            message = record.getMessage()
        except Exception:  # wrong arguments: the handler reports it
            return record
        if (masked := clean(message)) != message:
            record.msg, record.args = masked, ()
        if record.exc_info and record.exc_info[0] is not None:
            shown = _FORMAT.formatException(record.exc_info)
            if (masked := clean(shown)) != shown:
                record.exc_text = masked  # formatters use it instead of their own
        return record


@lru_cache(maxsize=8)
def _redactor(secrets: frozenset[str]) -> Redactor:
    return Redactor(secrets)


def _spellings(secret: str) -> set[str]:
    escaped = {json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
    return {secret, repr(secret)[1:-1], quote(secret, safe=""), quote_plus(secret), *escaped}
