"""Errors with what was wrong, where, and what to do."""


def first_line(error: Exception) -> str:
    """The first line of another library's message; the rest is often a dump of its state."""
    return (str(error) or type(error).__name__).splitlines()[0][:300]


class TicklineError(Exception):
    """Base of every error Tickline raises on purpose.

    Args:
        what: what was wrong, in one sentence.
        where: the file, row, column, service or setting it was found in.
        remedy: what the reader can do now.
    """

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(what, where, remedy)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.remedy:
            lines.append(f"  do:    {self.remedy}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # keyword-only arguments do not survive BaseException's default pickling (Prefect results)
        return _rebuild, (type(self), self.what, self.where, self.remedy)


def _rebuild(kind: type[TicklineError], what: str, where: str, remedy: str) -> TicklineError:
    return kind(what, where=where, remedy=remedy)


class ConfigError(TicklineError):
    """A setting or specification is missing, unknown or contradictory."""


class MarketError(TicklineError):
    """A market store cannot be found, opened or read."""


class MarketChoiceError(MarketError):
    """What was asked of a market store is not there: a path, a layout, an instrument, a date.

    The same run asks for it again, so that a rerun cannot succeed unless the store changes.
    """


class DataError(TicklineError):
    """The data were read, but must not be used."""


class SchemaError(DataError):
    """A column is missing or has the wrong type."""


class IntegrityError(TicklineError):
    """Bytes differ from the hash recorded for them."""


class StorageError(TicklineError):
    """An artefact cannot be written (disk full, no permission)."""


class SharedStoreError(TicklineError):
    """The shared store refused or did not answer."""


class EngineError(TicklineError):
    """An engine cannot be built, loaded or run."""


class EngineUnavailableError(EngineError):
    """This machine lacks what the engine needs; the message says what."""


class ExportError(TicklineError):
    """An exported graph does not match its network."""


class GateError(TicklineError):
    """The goals are missing or malformed, so nothing can pass."""


class ServingError(TicklineError):
    """The model server refuses a request, does not respond in time, or responds wrongly."""


class StreamError(TicklineError):
    """The message broker cannot be reached, refuses, or did not take what was sent."""


class PromotionError(TicklineError):
    """A version must not or cannot be promoted."""
