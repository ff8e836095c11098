"""The shared store of an installation."""

from model_code.settings import Settings
from model_code.storage.objects import Objects


def shared_objects(settings: Settings) -> Objects | None:
    """What the hosts share; None: this home shares nothing.

    Raises:
        ConfigError: as `Objects`.
    """
    return Objects(settings.store) if settings.store else None
