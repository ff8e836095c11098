"""`--from-run` and `--set`: an earlier run's specification with single changes."""

from pathlib import Path

import pytest

from flows.runs import local
from model_code.errors import ConfigError
from model_code.settings import ENGINE_NAMES, MlpSpec, NightlySpec, Settings, TrainingSpec
from tasks.runs import stored
from tests.support.cli import tickline

BEFORE = NightlySpec(
    market="simulated:?seed=1", test_date="2000-01-04", training=TrainingSpec(epochs=9)
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[NightlySpec]:
    """What `nightly` and `bench` would have run; the stored run is `BEFORE`."""
    calls: list[NightlySpec] = []

    def record(spec: NightlySpec, *_: object, **__: object) -> None:
        calls.append(spec)

    def read(_: Settings, name: str) -> NightlySpec:
        assert name == "amber-falcon"
        return BEFORE

    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(local, "run_nightly", record)
    monkeypatch.setattr(local, "run_bench", record)
    monkeypatch.setattr("flows.cli.tables.outcome_tables", lambda _: "rendered")
    monkeypatch.setattr("flows.cli.tables.bench_tables", lambda _: ())
    monkeypatch.setattr(stored, "specification", read)
    return calls


def test_one_change_to_an_earlier_run(
    asked: list[NightlySpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKLINE_MARKET", "simulated:?seed=2")  # not that of the run
    words = ("--from-run", "amber-falcon", "--set", "training.learning_rate=3e-4")
    printed = tickline("nightly", *words)
    assert "from amber-falcon, changed: training.learning_rate 0.001 -> 0.0003 rendered" in printed
    training = BEFORE.training.model_copy(update={"learning_rate": 3e-4})
    assert asked == [BEFORE.model_copy(update={"training": training})]


def test_nothing_changed_is_said(asked: list[NightlySpec]) -> None:
    assert "from amber-falcon, nothing changed" in tickline("nightly", "--from-run", "amber-falcon")
    assert asked == [BEFORE]


def test_options_change_the_run_and_set_comes_last(asked: list[NightlySpec]) -> None:
    printed = tickline(
        "nightly", "--from-run", "amber-falcon", "--data", "simulated:?seed=5", "--epochs", "2",
        "--set", "training.epochs=4", "--set", "test_date=null",
    )  # fmt: skip
    (spec,) = asked
    assert (spec.market, spec.training.epochs, spec.test_date) == ("simulated:?seed=5", 4, None)
    assert "training.epochs 9 -> 4" in printed


def test_set_works_without_a_run(asked: list[NightlySpec]) -> None:
    assert "from " not in tickline("nightly", "--set", "network.KIND=mlp")
    assert asked == [NightlySpec(network=MlpSpec())]


def test_bench_takes_them_too(asked: list[NightlySpec]) -> None:
    tickline("bench", "--set", "benchmark.requests=50")
    tickline("bench", "--from-run", "amber-falcon")
    assert asked[0].benchmark.engines == ENGINE_NAMES  # named neither here nor in a file
    assert asked[0].benchmark.requests == 50
    assert asked[1] == BEFORE


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--from-run", "amber-falcon", "--network", "mlp"), "--from-run and --network exclude"),
        (("--from-run", "amber-falcon", "--spec", "x.yaml"), "--from-run and --spec exclude"),
        (("--set", "training.epochs=many"), "training.epochs: Input should be a valid integer"),
        (("--set", "training.epoch=3"), "no key is named training.epoch"),
    ],
)
def test_wrong_starts_are_refused(
    asked: list[NightlySpec], words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        tickline("nightly", *words)
    assert asked == []
