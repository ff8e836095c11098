"""`tickline walkforward`: options become the specification; tables, then the one line."""

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.cli import walkforward
from flows.cli.__main__ import app
from flows.runs import local
from model_code.benchmark.reports.walkforward_report import Walk, last_line
from model_code.benchmark.walkforward import Pool, Rival, judge
from model_code.errors import ConfigError
from model_code.settings import MlpSpec, Settings
from model_code.settings.walkforward import WalkforwardSpec
from tests.support.cli import tickline


def found() -> Walk:
    rng = np.random.default_rng(0)
    signal_N = rng.random(600)
    label_N = (rng.random(600) < signal_N).astype(np.int8)
    symbol_N = np.array(["A", "B"])[np.arange(600) % 2]
    pool = Pool(label_N, np.arange(600) * 10**9, symbol_N, np.zeros(600))
    rivals = [
        Rival("conv-transformer", "paired", "tuned boosting", signal_N, signal_N > 0.5, 1.0),
        Rival("tuned boosting", "paired", "tuned boosting", signal_N**2, signal_N > 0.6, 1.0),
        Rival(
            "conv-transformer solo", "solo", "tuned boosting solo", 1 - signal_N, signal_N < 0, 1.0
        ),
        Rival(
            "tuned boosting solo", "solo", "tuned boosting solo", signal_N**3, signal_N > 0.9, 999.0
        ),
    ]  # fmt: skip
    return Walk(
        judgement=judge(pool, rivals, resamples=20),
        newest="1970-01-01", seed_aucs=(0.7,), boosting_auc=0.7, shuffled_aucs=(0.5, 0.51),
        label="executable-roundtrip", horizon_ms=100.0, cost_bps=0.0, delay_ms=0.25,
        skipped=("1969-12-31 skipped: one class",), notes=(), simulated=True,
    )  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path) -> list[WalkforwardSpec]:
    """What the command would have walked."""
    calls: list[WalkforwardSpec] = []
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(walkforward.out, "width", 80)

    def record(spec: WalkforwardSpec, _: Settings) -> Walk:
        calls.append(spec)
        return found()

    monkeypatch.setattr(local, "run_walkforward", record)
    return calls


def test_options_become_the_specification_and_the_last_line_is_the_comparison(
    asked: list[WalkforwardSpec],
) -> None:
    words = [
        "walkforward", "--data", "simulated:?seed=1", "--network", "mlp", "--trials", "3",
        "--seeds", "2", "--set", "features.horizon_ms=250.0", "--first-test", "0.25",
        "--delay-ms", "1.5", "--no-solo",
    ]  # fmt: skip
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    (spec,) = asked
    assert spec.night.network == MlpSpec()
    assert spec.night.market == "simulated:?seed=1"
    assert spec.night.features.horizon_ms == 250.0
    assert (spec.tuning_trials, spec.seeds, spec.first_test) == (3, 2, 0.25)
    assert (spec.delay_ms, spec.also_solo, spec.shuffled) == (1.5, False, True)
    lines = done.output.splitlines()
    assert lines[-1] == last_line(found())
    assert max(map(len, lines[:-1])) <= 80
    assert "…" not in done.output
    for piece in ("(SIMULATED)", "note 1969-12-31 skipped: one class", "shuffled labels"):
        assert piece in done.output


@pytest.mark.parametrize("wrong", [("--first-test", "1.5"), ("--delay-ms", "-1")])
def test_wrong_values_are_refused_by_name(
    asked: list[WalkforwardSpec], wrong: tuple[str, str]
) -> None:
    name = wrong[0].removeprefix("--").replace("-", "_")
    with pytest.raises(ConfigError, match=f"the walk forward is wrong: {name}"):
        tickline("walkforward", *wrong)
    assert asked == []


def test_without_options_the_defaults_are_walked(asked: list[WalkforwardSpec]) -> None:
    CliRunner().invoke(app, ["walkforward"], catch_exceptions=False)
    assert asked == [WalkforwardSpec()]
