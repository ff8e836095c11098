"""`tickline tune`: options become the search; the table and the next step."""

from pathlib import Path

import pytest

from flows.cli import tune
from flows.runs import local
from flows.tune import TriedValues, Tuned
from model_code.errors import ConfigError
from model_code.settings import MlpSpec, NightlySpec, Settings
from model_code.settings.tuning import Choices, Interval, TuneSpec
from tests.support.cli import tickline

FOUND = Tuned(
    study="tune-1234abcd",
    states={"COMPLETE": 2, "PRUNED": 1},
    best=(
        TriedValues(
            number=1, auc=0.71, folds=(0.70, 0.72), params={"training.learning_rate": 0.00123456}
        ),
        TriedValues(number=0, auc=0.7, folds=(0.7, 0.7), params={"training.learning_rate": 5e-4}),
    ),
    given=0,
    spec_path="/home/tune/tune-1234abcd.yaml",
    error="",
    simulated=False,
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[NightlySpec, TuneSpec]]:
    """What the command would have searched."""
    calls: list[tuple[NightlySpec, TuneSpec]] = []
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tune.out, "width", 80)

    def record(spec: NightlySpec, search: TuneSpec, _: Settings, *, parallel: int | None) -> Tuned:
        assert parallel is None
        calls.append((spec, search))
        return FOUND

    monkeypatch.setattr(local, "run_tune", record)
    return calls


def test_options_become_the_search_and_the_best_is_shown(
    asked: list[tuple[NightlySpec, TuneSpec]],
) -> None:
    printed = tickline(
        "tune", "-s", "training.learning_rate=1e-4..3e-3:log", "-s", "network.hidden=64,128",
        "--trials", "5", "--folds", "3", "--study", "mine", "--set", "network.KIND=mlp",
    )  # fmt: skip
    ((spec, search),) = asked
    assert spec.network == MlpSpec()
    assert search == TuneSpec(
        search={
            "training.learning_rate": Interval(low=1e-4, high=3e-3, log=True),
            "network.hidden": Choices(values=(64, 128)),
        },
        trials=5,
        folds=3,
        study="mine",
    )
    for piece in (
        "Best trials of tune-1234abcd", "1 0.7100 0.0100 learning_rate 0.001235",
        "0 0.7000 0.0000 learning_rate 0.0005 (as given)", "2 complete, 1 pruned",
        "next: tickline nightly --spec /home/tune/tune-1234abcd.yaml",
    ):  # fmt: skip
        assert piece in printed


def test_a_space_file_is_read_and_overridden(
    asked: list[tuple[NightlySpec, TuneSpec]], tmp_path: Path
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("training.learning_rate: 1e-4..3e-3:log\nnetwork.layers: [1, 2]\n")
    tickline("tune", "--space", space, "-s", "network.layers=2,3")
    ((_, search),) = asked
    assert search.search["network.layers"] == Choices(values=(2, 3))
    assert search.search["training.learning_rate"] == Interval(low=1e-4, high=3e-3, log=True)
    assert search.trials == TuneSpec.model_fields["trials"].default


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "nothing to search"),
        (("-s", "training.learning_rate"), "not a key and its values"),
        (("-s", "training.epoch=1..3"), "no key is named"),
        (("--space", "list.yaml"), "a search space must be a mapping"),
        (("--space", "broken.yaml"), "cannot read the space"),
        (("--space", "absent.yaml"), "cannot read the space"),
    ],
)
def test_wrong_searches_are_refused(
    asked: list[tuple[NightlySpec, TuneSpec]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.yaml").write_text("- a\n")
    Path("broken.yaml").write_text("{")
    with pytest.raises(ConfigError, match=message):
        tickline("tune", *words)
    assert asked == []
