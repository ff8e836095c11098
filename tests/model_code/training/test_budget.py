"""What a budget of minutes allows, and that a resumed training keeps to it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model_code.errors import ConfigError
from model_code.models.network import state_digest
from model_code.settings import TrainingSpec
from model_code.training import budget
from model_code.training.budget import Chosen, Rates, choose, keep, kept
from model_code.training.run import EpochMetrics
from tests.model_code.training.test_loop import TINY, run


@pytest.fixture(autouse=True)
def _one_thread():
    """More threads slow down so small a network on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


SPEC = TrainingSpec(budget_minutes=10.0, batch_size=100, validated_windows=1000)
FAST, SLOW = Rates(training=1e5, validation=1e6), Rates(training=100.0, validation=1000.0)


@pytest.mark.parametrize("windows", [2_000, 50_000, 5_000_000])
@pytest.mark.parametrize("rates", [FAST, SLOW])
def test_what_is_chosen_fits_and_uses_the_budget(windows: int, rates: Rates) -> None:
    found = choose(SPEC, windows, rates)
    assert budget.FEWEST_EPOCHS <= found.epochs <= budget.MOST_EPOCHS
    assert found.windows_per_epoch <= windows
    epoch_s = found.windows_per_epoch / rates.training + 1000 / rates.validation
    allowed_s = 600 * (1 - budget.RESERVE)
    assert found.epochs * epoch_s <= allowed_s * 1.001
    full = found.windows_per_epoch == windows and found.epochs == budget.MOST_EPOCHS
    assert full or (found.epochs + 1) * epoch_s > allowed_s


def test_all_windows_come_before_more_epochs() -> None:
    found = choose(SPEC, 15_000, SLOW)
    assert (found.windows_per_epoch, found.epochs) == (15_000, 3)
    assert found.line == "10 minutes: 3 epochs of 15,000 of 15,000 windows, at 100 windows/s"


def test_too_short_a_budget_says_how_long_it_must_be() -> None:
    short = SPEC.model_copy(update={"budget_minutes": 0.1})
    with pytest.raises(ConfigError, match=r"3 epochs of 2,000 windows take 1\.2 min") as caught:
        choose(short, 50_000, SLOW)
    enough = short.model_copy(update={"budget_minutes": 1.2})
    assert "allow 1.2 minutes" in caught.value.remedy
    assert choose(enough, 50_000, SLOW).epochs == 3


def test_a_choice_is_kept_for_the_same_budget_and_windows_only(tmp_path: Path) -> None:
    chosen = choose(SPEC, 50_000, SLOW)
    assert kept(tmp_path, SPEC, 50_000) is None
    keep(tmp_path, chosen)
    assert kept(tmp_path, SPEC, 50_000) == chosen
    assert kept(tmp_path, SPEC, 49_999) is None
    assert kept(tmp_path, SPEC.model_copy(update={"budget_minutes": 9.0}), 50_000) is None
    (tmp_path / budget.FILE).write_text('{"minutes": 10')
    assert kept(tmp_path, SPEC, 50_000) is None


def test_a_training_takes_what_the_budget_allows_and_resumes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = TrainingSpec(
        batch_size=32, validated_windows=60, budget_minutes=600.0, learning_rate=3e-3, patience=99
    )
    monkeypatch.setattr(budget, "MOST_EPOCHS", 4)
    result = run(tmp_path / "one", spec)
    assert len(result.history) == 4
    assert result.budget.startswith("600 minutes: 4 epochs of 300 of 300 windows")
    # the measurement leaves no trace in the result
    plain = spec.model_copy(update={"budget_minutes": None, "epochs": 4, "windows_per_epoch": 300})
    without = run(tmp_path / "two", plain)
    assert state_digest(without.model.state_dict()) == state_digest(result.model.state_dict())
    assert without.budget == ""

    class KilledError(Exception):
        pass

    def stop(_: EpochMetrics) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        run(tmp_path / "three", spec, on_epoch=stop)

    def never(*_: object) -> Chosen:
        raise AssertionError("a resumed training must not choose again")

    monkeypatch.setattr(budget, "choose", never)
    resumed = run(tmp_path / "three", spec)
    assert resumed.resumed_from == 1
    np.testing.assert_array_equal(
        [one.train_loss for one in resumed.history], [one.train_loss for one in result.history]
    )
    assert result.model.spec == TINY
