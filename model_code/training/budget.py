"""`training.budget_minutes`: how many windows and epochs this machine can train in that time.

The rate is measured on the first batches of the training itself. What was chosen is kept beside the
checkpoints, so that a resumed training has the same schedule as the interrupted one.
"""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from model_code.artifacts import atomic_file
from model_code.errors import ConfigError
from model_code.settings import TrainingSpec

FILE = "budget.json"
MEASURED_BATCHES = 8
MEASURED_WINDOWS = 1024  # of validation
RESERVE = 0.1  # of the budget: reading, the last evaluation, a machine that slows down
FEWEST_EPOCHS, MOST_EPOCHS = 3, 30  # patience ends earlier
FEWEST_BATCHES = 20  # of an epoch: fewer are no training


class Rates(BaseModel):
    """Windows per second of training and of validation, as measured here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: float
    validation: float


class Chosen(BaseModel):
    """Windows of an epoch and epochs, for one budget and one number of windows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    minutes: float
    windows: int
    windows_per_epoch: int
    epochs: int
    rates: Rates

    @property
    def line(self) -> str:
        """What was chosen, and from what."""
        return (
            f"{self.minutes:g} minutes: {self.epochs} epochs of {self.windows_per_epoch:,} of "
            f"{self.windows:,} windows, at {self.rates.training:,.0f} windows/s"
        )

    def applied(self, spec: TrainingSpec) -> TrainingSpec:
        """The specification with the chosen numbers."""
        changes = {"windows_per_epoch": self.windows_per_epoch, "epochs": self.epochs}
        return spec.model_copy(update=changes)


def choose(spec: TrainingSpec, windows: int, rates: Rates) -> Chosen:
    """The most that fits: first windows, up to all of them in each epoch, then epochs.

    Args:
        spec: with a budget.
        windows: training windows there are.
        rates: as measured.

    Raises:
        ConfigError: not even the fewest epochs of the fewest batches fit.
    """
    minutes = spec.budget_minutes or 0.0
    seconds = 60 * minutes * (1 - RESERVE)
    validation_s = spec.validated_windows / rates.validation
    fitting = int((seconds / FEWEST_EPOCHS - validation_s) * rates.training)
    least = min(windows, FEWEST_BATCHES * spec.batch_size)
    if fitting < least:
        needed = FEWEST_EPOCHS * (least / rates.training + validation_s) / (1 - RESERVE) / 60
        raise ConfigError(
            f"a budget of {minutes:g} minutes is too short: {FEWEST_EPOCHS} epochs of {least:,} "
            f"windows take {needed:.2g} minutes at {rates.training:,.0f} windows/s",
            where="training.budget_minutes",
            remedy=f"allow {needed:.2g} minutes or more, or choose a smaller network",
        )
    chosen = min(windows, fitting)
    epochs = int(seconds / (chosen / rates.training + validation_s))
    return Chosen(
        minutes=minutes,
        windows=windows,
        windows_per_epoch=chosen,
        epochs=max(FEWEST_EPOCHS, min(MOST_EPOCHS, epochs)),
        rates=rates,
    )


def kept(folder: Path, spec: TrainingSpec, windows: int) -> Chosen | None:
    """What an earlier attempt chose for the same budget and windows; None if there is none.

    Args:
        folder: of the training's checkpoints.
        spec: with a budget.
        windows: training windows there are.
    """
    try:
        found = Chosen.model_validate_json((folder / FILE).read_bytes())
    except (OSError, ValueError):
        return None  # none yet, or half written by a full disk
    same = (found.minutes, found.windows) == (spec.budget_minutes, windows)
    return found if same else None


def keep(folder: Path, chosen: Chosen) -> None:
    """Write the choice beside the checkpoints.

    Raises:
        StorageError: it cannot be written.
    """
    with atomic_file(folder / FILE) as temporary:
        temporary.write_text(json.dumps(chosen.model_dump()))
