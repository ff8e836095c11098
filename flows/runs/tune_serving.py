"""Search the model server's settings for one staged version, on the real server."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.runs.replay_model import find_version
from model_code.errors import ConfigError
from model_code.machine import physical_cores
from model_code.repository.config_search import (
    DESIGN,
    Row,
    ServingChoice,
    choose,
    frontier,
    space,
)
from model_code.settings import ServingSpec, Settings

if TYPE_CHECKING:
    from infra.triton.tuning import Bench
    from model_code.repository.config_search import Round

Progress = Callable[[str], None]
MOST_FINALISTS = 5


@dataclass(frozen=True)
class TunedServing:
    """What was measured, and what it says.

    Attributes:
        version: of the model.
        engine: its name.
        screened: every setting, one round.
        finalists: the frontier of those and the design's, all rounds in turns; by p99.
        choice: among the finalists.
        perf_analyzer_ms: p50 and p99 of the chosen setting by NVIDIA's tool; None without it.
    """

    version: int
    engine: str
    screened: tuple[Row, ...]
    finalists: tuple[Row, ...]
    choice: ServingChoice
    perf_analyzer_ms: tuple[float, float] | None = None


@dataclass(frozen=True)
class Load:
    """The stated load.

    Attributes:
        rate_hz: requests per second, single windows.
        goal_ms: the p99 that the chosen setting must not exceed.
        seconds: of one measurement.
        rounds: measurements of each finalist.
    """

    rate_hz: float
    goal_ms: float
    seconds: float
    rounds: int


def tune_serving(
    settings: Settings, version: int | None, run: str | None, load: Load, progress: Progress
) -> TunedServing:
    """Measure every setting once, the best of them in turns, and choose.

    Args:
        settings: name the repositories and the server's installation.
        version: None: the serving one, else the newest staged.
        run: the version that this nightly staged instead, by name or id.
        load: at which it is measured.
        progress: called with each setting before it is measured.

    Raises:
        ConfigError: there is no such version, or it has no recorded requests.
        EngineError: Triton has no backend for its engine.
        ServerError: the Triton server cannot be installed or does not start.
        ServingError: a setting does not load, or answers wrongly.
    """
    from infra.triton.tuning import tuning_bench
    from model_code.engines.sidecar import EngineSidecar
    from model_code.repository.requests import GOLDEN_FILE, REPLAY_FILE, GoldenSet, Replay

    folder, manifest = find_version(settings, version, run)
    if REPLAY_FILE not in manifest.files:
        raise ConfigError(
            f"version {manifest.version} has no recorded requests to send",
            where=str(folder),
            remedy="choose a version of a newer nightly: --version N",
        )
    sidecar = EngineSidecar.load(folder)
    x_RTF = Replay.load(folder / REPLAY_FILE).x_RTF
    known = GoldenSet.load(folder / GOLDEN_FILE)
    with tuning_bench(settings, folder, sidecar, known) as bench:

        def measure(serving: ServingSpec) -> "Round":
            progress(serving.text)
            return bench.measure(serving, x_RTF, load.rate_hz, load.seconds)

        asked = space(sidecar.threads, physical_cores())
        screened = tuple(Row(serving, (measure(serving),)) for serving in asked)
        chosen_for_more = finalists(screened)
        rounds = [[measure(one) for one in chosen_for_more] for _ in range(load.rounds)]
        rows = [
            Row(one, tuple(measured[place] for measured in rounds))
            for place, one in enumerate(chosen_for_more)
        ]
        choice = choose(rows, load.goal_ms)
        beside = None if choice.row is None else _perf_analyzer(bench, choice.row.serving, load)
    ordered = tuple(sorted(rows, key=lambda row: row.p99_ms))
    return TunedServing(manifest.version, sidecar.engine, screened, ordered, choice, beside)


def finalists(screened: Sequence[Row]) -> tuple[ServingSpec, ...]:
    """The settings to measure again: the design's, the frontier's fastest, then its cheapest."""
    best = [row for row in frontier(screened) if row.serving != DESIGN]
    rest = sorted(best[1:], key=lambda row: row.processor_us)
    return (DESIGN, *[row.serving for row in [*best[:1], *rest][: MOST_FINALISTS - 1]])


def _perf_analyzer(bench: "Bench", serving: ServingSpec, load: Load) -> tuple[float, float] | None:
    bench.apply(serving)
    return bench.perf_analyzer_ms(load.rate_hz, load.seconds)
