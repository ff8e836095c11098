"""Stage results: small frozen records. Large data is referenced by `ArtifactRef`."""

import datetime as dt
from typing import Self

from pydantic import BaseModel, ConfigDict

from model_code.artifacts import ArtifactRef, hash_bytes
from model_code.benchmark.comparison import Comparison
from model_code.benchmark.reports.selection import Selection
from model_code.benchmark.verdict import Verdict
from model_code.features.definition import looks_at_depth
from model_code.features.leaders import LeadTable
from model_code.features.served import SOLO, SeenFeatures
from model_code.market.coverage import DaySpan
from model_code.market.supplements import FOLDER
from model_code.repository.terms import Terms
from model_code.settings import FeatureSpec, Leaders, ModelSpec, ProfileName
from model_code.training.start import StartingPoint
from model_code.training.threshold import DEFAULT_THRESHOLD

SUNDAY = 7  # an FX market opens in its evening


class Record(BaseModel):
    """Base of stage results, persisted as JSON so that a rerun can read them."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _count(number: int, noun: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{number:,} {noun}" + "s" * (number != 1)


class SourceDay(Record):
    """One instrument-day of a market store and the hash of its source bytes."""

    market: str
    date: dt.date
    symbol: str
    digest: str
    simulated: bool
    profile: ProfileName | None = None  # what the store states
    silences: tuple[tuple[dt.datetime, dt.datetime], ...] = ()  # breaks of the session

    @property
    def name(self) -> str:
        """Display name, e.g. `BTCUSDT.spot 2024-08-08`."""
        return f"{self.symbol} {self.date}"


class Plan(Record):
    """The instrument-days of a nightly."""

    train: tuple[SourceDay, ...]
    test: tuple[SourceDay, ...]
    warnings: tuple[str, ...]
    supplements: dict[str, str] = {}  # sha256 of depth rows and exogenous tables, by name

    @property
    def days(self) -> tuple[SourceDay, ...]:
        """All instrument-days, oldest first."""
        return self.train + self.test

    @property
    def test_date(self) -> dt.date:
        """The date the model is judged on."""
        return self.test[0].date

    @property
    def simulated(self) -> bool:
        """Whether any of the ticks are simulated."""
        return any(day.simulated for day in self.days)

    @property
    def facts_line(self) -> str:
        """Which days were found."""
        dates = sorted({day.date for day in self.train})
        names = len({day.symbol for day in self.days})
        past = f"{dates[0]} to {dates[-1]}" if len(dates) > 1 else ", ".join(map(str, dates))
        kind = "simulated, " if self.simulated else ""
        return f"{kind}{_count(names, 'instrument')}, train {past}, test {self.test_date}"

    @property
    def digest(self) -> str:
        """sha256 of the data snapshot: every instrument-day's name and source hash."""
        lines = [f"{day.name} {day.digest}" for day in self.days]
        used = {f"depth {day.name}" for day in self.days}
        lines += [
            f"{name} {digest}"
            for name, digest in sorted(self.supplements.items())
            if name in used or name.startswith(f"{FOLDER}/")
        ]
        return hash_bytes("\n".join(lines).encode())


class Supplements(Record):
    """What a feature set needs of a store beside one instrument-day's ticks.

    Attributes:
        market: the store.
        digests: sha256 of its bytes, by name.
    """

    market: str
    digests: dict[str, str]

    @classmethod
    def of(cls, plan: Plan, spec: FeatureSpec, day: "CleanDay") -> Self | None:
        """None if the set needs ticks alone."""
        wanted = {f"{FOLDER}/{name.partition('.')[0]}" for name in spec.exogenous}
        if looks_at_depth(spec.chosen_set):
            wanted.add(f"depth {day.symbol} {day.date}")
        if not wanted:
            return None
        found = {name: plan.supplements[name] for name in sorted(wanted & plan.supplements.keys())}
        return cls(market=plan.days[0].market, digests=found)


class CleanDay(Record):
    """Validated ticks of one instrument-day (Parquet in the tick schema)."""

    date: dt.date
    symbol: str
    ticks: ArtifactRef


class ValidatedDay(Record):
    """The outcome of validating one instrument-day.

    Attributes:
        clean: rows that passed every row rule.
        quarantine: rows that broke a rule, each with its reasons; None if there are none.
        report: the day's full report (JSON).
        failures: why the day failed; empty if it passed.
        remedies: what to do about each failure.
        notes: what the reader should know, in sentences; no reason to fail.
        first, last: earliest and latest clean row.
        trades: in the source; None if it has none.
    """

    date: dt.date
    symbol: str
    rows: int
    quarantined: int
    repeated: int
    profile: ProfileName
    first: dt.datetime | None
    last: dt.datetime | None
    trades: int | None
    notes: tuple[str, ...]
    faults: dict[str, int]
    failures: tuple[str, ...]
    remedies: tuple[str, ...]
    clean: ArtifactRef
    quarantine: ArtifactRef | None
    report: ArtifactRef

    @property
    def facts_line(self) -> str:
        """Why the day failed, its rows, and how many were quarantined by which rule."""
        rules = ", ".join(f"{name} {count:,}" for name, count in self.faults.items() if count)
        found = f"{_count(self.rows, 'row')}, {self.quarantined:,} quarantined"
        counts = found + (f" ({rules})" if rules else "")
        return "; ".join((*(f"failed: {why}" for why in self.failures), counts))

    @property
    def span(self) -> DaySpan:
        """What the day covers, for the comparison with other days."""
        return DaySpan(
            date=self.date,
            symbol=self.symbol,
            rows=self.rows - self.quarantined - self.repeated,
            first=self.first,
            last=self.last,
            trades=self.trades,
            short=self.profile == "fx" and self.date.isoweekday() == SUNDAY,
        )

    @property
    def day(self) -> CleanDay:
        """Input of the next stage: clean ticks only."""
        return CleanDay(date=self.date, symbol=self.symbol, ticks=self.clean)


class Leading(Record):
    """Which other instruments each instrument looks at.

    Attributes:
        leaders: the strongest first; instruments without leaders are left out.
        source: what named them.
        table: the measurement; None if nothing was measured.
    """

    leaders: Leaders
    source: str
    table: LeadTable | None = None

    @property
    def facts_line(self) -> str:
        """How many instruments look at others, and what named those."""
        return f"{_count(len(self.leaders), 'instrument')} with leaders ({self.source})"

    @property
    def note(self) -> str:
        """Who looks at whom, for the night's notes."""
        seen = "; ".join(f"{name} at {', '.join(others)}" for name, others in self.leaders.items())
        return f"leaders ({self.source}): {seen or 'nobody looks at another'}"


class Prepared(Record):
    """The feature table of validated days.

    Attributes:
        notes: about the ticks, label, features and leaders, for the reader.
        ticks: validated, of each instrument-day.
        features: the specification, with feature set and label named.
        leading: which other instruments each instrument looks at.
        table: features and labels.
    """

    notes: tuple[str, ...]
    ticks: tuple[CleanDay, ...]
    features: FeatureSpec
    leading: Leading
    table: ArtifactRef


class SplitWindows(Record):
    """Window ends of training, validation and test, with a summary of each part."""

    windows: ArtifactRef
    summary: dict[str, dict[str, float | int | str]]

    @property
    def facts_line(self) -> str:
        """Number of windows of each part."""
        return ", ".join(
            f"{name} {part['windows']:,} windows" for name, part in self.summary.items()
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Which parts were sampled by class, for the night's notes."""
        return tuple(
            f"{name} windows: {part['sampling']}"
            for name, part in self.summary.items()
            if "sampling" in part
        )


class Baseline(Record):
    """Gradient boosting on the same windows.

    Attributes:
        metrics: on the test windows, `training.metrics.classification` at the threshold.
        threshold: probability from which a window counts as class 1, chosen on validation.
        probability: of class 1 (.npy, float64), in the order of the test ends.
    """

    metrics: dict[str, float]
    threshold: float
    probability: ArtifactRef

    @property
    def facts_line(self) -> str:
        """AUC on the test windows."""
        return f"test AUC {self.metrics['auc']:.4f}"


class TrainedNetwork(Record):
    """The best epoch's network and its training history.

    Attributes:
        threshold: probability from which a window counts as class 1, chosen on the validation
            windows (`training.threshold`).
        validation_auc: of the finished network, on all validation windows.
        seconds: of training, in this run.
    """

    model: ArtifactRef
    history: tuple[dict[str, float], ...]
    best_epoch: int
    precision: str
    precision_reason: str
    resumed_from: int | None
    mlflow_run_id: str
    threshold: float
    validation_auc: float
    seconds: float

    @property
    def facts_line(self) -> str:
        """Validation AUC by epoch, the best epoch, and windows per second of training."""
        aucs = ", ".join(f"{epoch['validation_auc']:.4f}" for epoch in self.history)
        rate = sum(epoch["samples_per_s"] for epoch in self.history) / len(self.history)
        resumed = f", resumed after epoch {self.resumed_from}" if self.resumed_from else ""
        return (
            f"validation AUC by epoch {aucs}; best epoch {self.best_epoch}; "
            f"{rate:,.0f} windows/s{resumed}"
        )


class ExportedNetwork(Record):
    """TorchScript and ONNX of the trained network, each verified against it.

    Attributes:
        onnx: the form that is registered, and that every engine but one is built from.
        onnx_trees: the form with trees as one node, for ONNX Runtime; None without trees.
        calibration: training windows (.npy) that calibrate int8 and pruned engines.
    """

    torchscript: ArtifactRef
    onnx: ArtifactRef
    calibration: ArtifactRef
    opset: int
    torchscript_error: float
    onnx_error: float
    onnx_trees: ArtifactRef | None = None
    onnx_trees_error: float | None = None

    @property
    def facts_line(self) -> str:
        """Largest difference of each form from the network."""
        errors = f"ONNX {self.onnx_error:.1e}, TorchScript {self.torchscript_error:.1e}"
        return f"largest error: {errors}"

    @property
    def runtime_graph(self) -> ArtifactRef:
        """What ONNX Runtime answers from."""
        return self.onnx_trees or self.onnx


class TrainedModel(Record):
    """One model of the night, trained and exported."""

    name: str
    network: TrainedNetwork
    exported: ExportedNetwork


class ChosenModel(Record):
    """The model that is built, measured and judged.

    Attributes:
        name: of the model.
        comparison: all models of the night side by side.
        folder: tables and picture.
    """

    name: str
    comparison: Comparison
    folder: ArtifactRef

    @property
    def facts_line(self) -> str:
        """The chosen model, and the validation AUC of each."""
        aucs = ", ".join(f"{row.name} {row.validation_auc:.4f}" for row in self.comparison.rows)
        return f"{self.name} chosen; validation AUC: {aucs}"


class Attributed(Record):
    """What the chosen model looks at, or why that could not be computed.

    Attributes:
        folder: profile (`attribution.profile.Profile`), table and picture; None after a failure.
        failure: what went wrong; empty if nothing did.
    """

    folder: ArtifactRef | None = None
    failure: str = ""

    @property
    def facts_line(self) -> str:
        """Why there are no attributions; empty if there are."""
        return self.failure


class BuiltEngine(Record):
    """One engine's folder, or why it is unavailable on this machine."""

    name: str
    folder: ArtifactRef | None
    unavailable: str | None
    mlflow_run_id: str | None

    @property
    def facts_line(self) -> str:
        """Whether it was built, or why not."""
        return f"not built: {self.unavailable}" if self.unavailable else "built"


class Champion(Record):
    """The serving model version, which the benchmark measures too.

    Attributes:
        engine: folder of the serving engine; None if the version is not in the serving repository
            (alias set by hand). ONNX Runtime then runs its graph.
        threshold: of its decisions, from the registry.
        features: feature set and leaders of its windows, from the registry.
        start: what fine-tuning starts from; None if it was not asked for or not registered.
        terms: what its figures refer to, from the registry; None if it did not record them.
        anchor: the version that served many nights ago; None if there was none.
        no_anchor: why there is none.
    """

    version: str
    onnx: ArtifactRef
    engine: ArtifactRef | None
    threshold: float = DEFAULT_THRESHOLD
    features: SeenFeatures = SOLO
    start: StartingPoint | None = None
    terms: Terms | None = None
    anchor: "Champion | None" = None
    no_anchor: str = ""

    @property
    def facts_line(self) -> str:
        """Which version serves."""
        return f"version {self.version} serves"


class Measured(Record):
    """The benchmark's folder (`BenchmarkRun.load`), including the champion's row.

    Attributes:
        champion_table: features and labels as the champion sees them; None if it sees the
            candidate's.
    """

    folder: ArtifactRef
    champion_version: str | None
    champion_table: ArtifactRef | None = None


class Judged(Record):
    """The gate's verdict.

    Attributes:
        engine: the engine to stage, or the closest one if all failed.
        reason: why this engine was chosen.
        verdict_json: `benchmark.verdict.Verdict` of that engine.
        verdicts: verdict by engine, for every engine that Triton can serve.
        reasons: reason by engine.
        missed: missed goals with value and limit, by engine.
    """

    engine: str
    reason: str
    verdict_json: str
    verdicts: dict[str, str]
    reasons: dict[str, str] = {}
    missed: dict[str, tuple[str, ...]] = {}

    @property
    def facts_line(self) -> str:
        """The verdict, the chosen engine, and why each."""
        return f"{self.verdict.verdict}: {self.verdict.reason}; {self.reason}"

    @property
    def verdict(self) -> Verdict:
        """The verdict with every goal's row."""
        return Verdict.model_validate_json(self.verdict_json)

    @property
    def selection(self) -> Selection:
        """The choice, as the benchmark's report shows it."""
        # a pinned engine that cannot be judged fails the one that stands in for it
        verdicts = self.verdicts | {self.engine: self.verdict.verdict}
        reasons = self.reasons | {self.engine: self.verdict.reason}
        return Selection(self.engine, self.reason, verdicts, reasons, self.missed)


class Registered(Record):
    """The candidate in MLflow's model registry."""

    name: str
    version: str
    alias: str

    @property
    def facts_line(self) -> str:
        """The version and its alias."""
        return f"version {self.version}, alias {self.alias}"


class Staged(Record):
    """The candidate in the staging model repository.

    Attributes:
        path: of its folder, as `Settings.inside` stores it.
    """

    path: str
    version: str
    engine_sha256: str

    @property
    def facts_line(self) -> str:
        """The version, and where it is."""
        return f"version {self.version} in {self.path}"


class Candidate(Record):
    """A trained network in every form this machine can run, and the windows to judge it on.

    Attributes:
        notes: about the ticks, for the night's summary.
        ticks: validated, of each instrument-day.
        features: the specification of its table, with feature set and label named.
        leading: which other instruments each instrument looks at.
        baseline: gradient boosting on the same windows.
        model: the chosen model's specification.
        choice: the models side by side; None if there was only one.
        beside: engines of the design's network, timed beside the candidate's; none if it is the
            candidate.
    """

    notes: tuple[str, ...]
    ticks: tuple[CleanDay, ...]
    features: FeatureSpec
    leading: Leading
    table: ArtifactRef
    split: SplitWindows
    baseline: Baseline
    model: ModelSpec
    choice: ChosenModel | None = None
    beside: tuple[BuiltEngine, ...] = ()
    network: TrainedNetwork
    exported: ExportedNetwork
    engines: tuple[BuiltEngine, ...]


class NightResult(Record):
    """What a nightly run computed, judged and staged; without attributions if they are off."""

    plan: Plan
    candidate: Candidate
    measured: Measured
    judged: Judged
    registered: Registered | None
    staged: Staged | None
    attributed: Attributed | None = None
