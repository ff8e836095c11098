"""What the stages of a candidate receive, and which engines it gets."""

import datetime as dt
import inspect
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from flows import candidate
from model_code.artifacts import ArtifactRef
from model_code.benchmark.comparison import Comparison
from model_code.benchmark.goals import load_goals
from model_code.engines.registry import ENGINES
from model_code.errors import ConfigError, DataError, EngineError
from model_code.features.served import SOLO, SeenFeatures
from model_code.features.shard import Shard, ShardMeta
from model_code.repository.terms import Terms
from model_code.settings import (
    DESIGN,
    AttributionSpec,
    BenchmarkSpec,
    BlendSpec,
    MlpSpec,
    ModelSpec,
    NightlySpec,
    Settings,
    TrainingSpec,
)
from model_code.training.start import StartingPoint
from tasks.caching.stage import RunRef
from tasks.nightly.records import (
    Attributed,
    Baseline,
    BuiltEngine,
    Candidate,
    Champion,
    ChosenModel,
    CleanDay,
    ExportedNetwork,
    Judged,
    Leading,
    Measured,
    Plan,
    SourceDay,
    SplitWindows,
    Supplements,
    TrainedNetwork,
    ValidatedDay,
)

RUN = RunRef(settings=Settings(), mlflow_run_id="m", flow_run_id="f")
ENGINES_ASKED = ("onnxruntime-fp32", "openvino-fp32")
SPEC = NightlySpec(
    network=BlendSpec(),
    training=TrainingSpec(seed=5),
    benchmark=BenchmarkSpec(engines=ENGINES_ASKED, pin="openvino-fp32"),
)


def source(day: int) -> SourceDay:
    date = dt.date(2024, 8, day)
    return SourceDay(market="simulated:", date=date, symbol="A", digest=str(day), simulated=True)


PLAN = Plan(train=(source(7), source(8)), test=(source(9),), warnings=())


def file(name: str) -> ArtifactRef:
    """An artefact that equals no other stage's."""
    return ArtifactRef.of(name=name, sha256="0" * 64)


def validated(day: SourceDay, failures: tuple[str, ...] = ()) -> ValidatedDay:
    return ValidatedDay(
        date=day.date,
        symbol=day.symbol,
        rows=1,
        quarantined=0,
        repeated=0,
        profile="crypto",
        first=None,
        last=None,
        trades=None,
        notes=("a note",),
        faults={},
        failures=failures,
        remedies=(),
        clean=file(f"clean-{day.date}"),
        quarantine=None,
        report=file(f"report-{day.date}"),
    )


def clean(day: SourceDay) -> CleanDay:
    return CleanDay(date=day.date, symbol=day.symbol, ticks=file(f"clean-{day.date}"))


def shard(day: CleanDay) -> Shard:
    meta = ShardMeta(date=day.date, symbol=day.symbol, rows=1, segments=1)
    return Shard(meta=meta, folder=file(f"features-{day.date}"))


def engine(name: str) -> BuiltEngine:
    return BuiltEngine(name=name, folder=file(name), unavailable=None, mlflow_run_id=name)


LEADING = Leading(leaders={"A": ("B",)}, source="measured")
SEEN = SeenFeatures(feature_set="paired", leaders=LEADING.leaders)
TABLE = file("features")
CHAMPIONS_TABLE = file("features of the champion")
BASELINE = Baseline(metrics={"auc": 0.6}, threshold=0.4, probability=file("boosting"))
SPLIT = SplitWindows(
    windows=file("split"), summary={"train": {"last": "2024-08-08T09:00:00.000000000Z"}}
)
NETWORK = TrainedNetwork(
    model=file("model"),
    history=(),
    best_epoch=1,
    precision="fp32",
    precision_reason="",
    resumed_from=None,
    mlflow_run_id="training",
    threshold=0.3,
    validation_auc=0.7,
    seconds=1.0,
)
EXPORTED = ExportedNetwork(
    torchscript=file("torchscript"),
    onnx=file("onnx"),
    calibration=file("calibration"),
    opset=18,
    torchscript_error=0.0,
    onnx_error=0.0,
)
COMPARISON = Comparison(
    rows=(), boosting={}, windows=1, base_rate=0.5, chosen="mlp", reason="the best"
)
CHOICE = ChosenModel(name="mlp", comparison=COMPARISON, folder=file("models"))
MEASURED = Measured(folder=file("benchmark"), champion_version="4")
JUDGED = Judged(engine="openvino-fp32", reason="", verdict_json="{}", verdicts={})
Inputs = dict[str, Any]


class Stages:
    """Stands for every stage: notes its inputs by parameter name and returns its own result."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inputs: dict[str, list[Inputs]] = defaultdict(list)
        self.options: list[dict[str, object]] = []
        self.faulty_days: set[SourceDay] = set()
        self.broken_engines: set[str] = set()
        self.refusal: Exception = EngineError("the graph is refused")
        results: dict[str, Callable[[Inputs], object]] = {
            "validate": self._validate,
            "publish_validation": lambda _: None,
            "find_leaders": lambda _: LEADING,
            "features": self._features,
            "feature_table": self._feature_table,
            "split": lambda _: SPLIT,
            "baseline": lambda _: BASELINE,
            "train": lambda _: NETWORK,
            "export": lambda _: EXPORTED,
            "choose_model": lambda _: CHOICE,
            "build_engine": self._build_engine,
            "benchmark": lambda _: MEASURED,
            "gate": lambda _: JUDGED,
        }
        for name, result in results.items():
            monkeypatch.setattr(candidate, name, self._stub(name, result))

    def _stub(self, name: str, result: Callable[[Inputs], object]) -> Callable[..., object]:
        real = getattr(candidate, name)
        signature = inspect.signature(getattr(real, "fn", real))

        def stub(*positional: object, **named: object) -> object:
            inputs = dict(signature.bind(*positional, **named).arguments)
            self.inputs[name].append(inputs)
            return result(inputs)

        def with_options(**options: object) -> Callable[..., object]:
            self.options.append(options)
            return stub

        stub.with_options = with_options  # type: ignore[attr-defined]
        return stub

    def _validate(self, inputs: Inputs) -> ValidatedDay:
        failures = ("too few rows",) if inputs["source"] in self.faulty_days else ()
        return validated(inputs["source"], failures)

    def _features(self, inputs: Inputs) -> Shard:
        return shard(inputs["day"])

    def _feature_table(self, inputs: Inputs) -> ArtifactRef:
        return TABLE if inputs["leaders"] == LEADING.leaders else CHAMPIONS_TABLE

    def _build_engine(self, inputs: Inputs) -> BuiltEngine:
        if inputs["name"] in self.broken_engines:
            raise self.refusal
        return engine(inputs.get("prefix", "") + inputs["name"])


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    return Stages(monkeypatch)


def test_each_stage_gets_the_results_of_the_stages_before_it(stages: Stages) -> None:
    made = candidate.build_candidate(RUN, SPEC, PLAN)
    both: Inputs = {"run": RUN, "table": TABLE, "split": SPLIT}
    days = tuple(validated(day) for day in PLAN.days)
    wanted = SPEC.features.model_copy(
        update={"feature_set": "paired", "label": "executable-roundtrip"}
    )
    assert stages.inputs == {
        "validate": [{"run": RUN, "source": day, "spec": SPEC.validation} for day in PLAN.days],
        "publish_validation": [{"run": RUN, "plan": PLAN, "days": days}],
        "find_leaders": [
            {
                "run": RUN,
                "days": tuple(clean(day) for day in PLAN.days),
                "spec": wanted,
                "test_date": dt.date(2024, 8, 9),
            }
        ],
        "features": [
            {
                "run": RUN,
                "day": clean(day),
                "others": (),
                "spec": wanted,
                "leaders": ("B",),
                "supplements": None,
            }
            for day in PLAN.days
        ],
        "feature_table": [
            {
                "run": RUN,
                "shards": tuple(shard(clean(day)) for day in PLAN.days),
                "spec": wanted,
                "leaders": LEADING.leaders,
                "simulated": True,
            }
        ],
        "split": [
            {"run": RUN, "table": TABLE, "spec": SPEC.split, "test_date": dt.date(2024, 8, 9)}
        ],
        "baseline": [both | {"seed": 5}],
        "train": [
            both
            | {
                "network_spec": SPEC.network,
                "training_spec": SPEC.training,
                "name": "training",
                "start": None,
            }
        ],
        "export": [both | {"model": NETWORK.model}],
        "build_engine": [
            {
                "run": RUN,
                "name": name,
                "model": NETWORK.model,
                "exported": EXPORTED,
                "threshold": 0.3,
                "reason": ENGINES[name].availability(),
                "prefix": "",
            }
            for name in ("torch-fp32", *ENGINES_ASKED)
        ],
    }
    assert made == Candidate(
        notes=(
            "A 2024-08-07, A 2024-08-08 and 1 more: a note",
            "leaders (measured): A at B",
        ),
        ticks=tuple(clean(day) for day in PLAN.days),
        features=wanted,
        leading=LEADING,
        model=SPEC.models[0],
        table=TABLE,
        split=SPLIT,
        baseline=BASELINE,
        network=NETWORK,
        exported=EXPORTED,
        engines=tuple(engine(name) for name in ("torch-fp32", *ENGINES_ASKED)),
    )


def test_the_chosen_of_several_models_is_built_and_the_design_is_timed_beside_it(
    stages: Stages,
) -> None:
    several = SPEC.model_copy(
        update={"other_models": (ModelSpec(name="mlp", network=MlpSpec()), DESIGN)}
    )
    made = candidate.build_candidate(RUN, several, PLAN)
    assert [inputs["name"] for inputs in stages.inputs["train"]] == [
        "training",
        "training mlp",
        "training design",
    ]
    (compared,) = stages.inputs["choose_model"]
    assert [model.name for model in compared["models"]] == ["blend", "mlp", "design"]
    assert made.model.name == "mlp"
    assert made.choice == CHOICE
    assert [built.name for built in made.engines] == ["torch-fp32", *ENGINES_ASKED]
    assert [built.name for built in made.beside] == ["design torch-fp32", "design openvino-bf16"]
    assert {"task_run_name": "train design"} in stages.options


def test_the_design_is_not_timed_beside_itself(
    stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = SPEC.model_copy(update={"other_models": (DESIGN,)})
    chosen = CHOICE.model_copy(update={"name": "design"})
    monkeypatch.setattr(candidate, "choose_model", lambda *_: chosen)
    made = candidate.build_candidate(RUN, several, PLAN)
    assert made.model == DESIGN
    assert made.beside == ()


def champion_to_start_from(**changes: object) -> Champion:
    given: dict[str, Any] = {
        "weights": file("weights"),
        "network": MlpSpec(),
        "features": SPEC.features.model_copy(
            update={
                "feature_set": "paired",
                "label": "executable-roundtrip",
                "leaders": LEADING.leaders,
            }
        ),
        "trained_until": "2024-08-07T09:00:00.000000000Z",
    }
    start = StartingPoint(**(given | changes))
    return Champion(version="4", onnx=file("champion"), engine=None, features=SEEN, start=start)


TUNED = ModelSpec(name="tuned", network=MlpSpec(), training=TrainingSpec(start="champion"))
WITH_TUNED = SPEC.model_copy(
    update={"other_models": (ModelSpec(name="mlp", network=MlpSpec()), TUNED)}
)


def test_one_model_starts_from_the_champions_weights(stages: Stages) -> None:
    champion = champion_to_start_from()
    candidate.build_candidate(RUN, WITH_TUNED, PLAN, champion)
    found = {inputs["name"]: inputs["start"] for inputs in stages.inputs["train"]}
    assert found == {
        "training": None, "training mlp": None, "training tuned": champion.start,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("champion", "reason"),
    [
        (None, "no champion's weights are known"),
        (Champion(version="4", onnx=file("onnx"), engine=None), "no champion's weights are known"),
        (champion_to_start_from(network=BlendSpec()), "the champion is of kind blend, not mlp"),
        (champion_to_start_from(features=SPEC.features), "differ in feature_set, leaders, label"),
        (
            champion_to_start_from(trained_until="2024-08-08T09:00:00.000000001Z"),
            "it may know the validation windows",
        ),
    ],
)
def test_a_champion_that_does_not_suit_leaves_the_model_out_or_is_refused(
    stages: Stages, champion: Champion | None, reason: str
) -> None:
    made = candidate.build_candidate(RUN, WITH_TUNED, PLAN, champion)
    assert [inputs["name"] for inputs in stages.inputs["train"]] == ["training", "training mlp"]
    assert made.notes[-1].startswith("model tuned is left out: ")
    assert reason in made.notes[-1]

    first = SPEC.model_copy(update={"network": TUNED.network, "training": TUNED.training})
    with pytest.raises(ConfigError, match=reason):
        candidate.build_candidate(RUN, first, PLAN, champion)


@pytest.mark.parametrize("measure_again", [False, True])
def test_the_gate_judges_what_the_benchmark_measured_of_the_candidate_and_the_champion(
    stages: Stages, measure_again: bool
) -> None:
    made = candidate.build_candidate(RUN, SPEC, PLAN)
    champion = Champion(version="4", onnx=file("champion"), engine=None, features=SEEN)
    goals = load_goals()
    found = candidate.judge_candidate(
        RUN, SPEC, PLAN, made, champion, goals, measure_again=measure_again
    )
    assert found == (MEASURED, JUDGED)
    assert stages.inputs["benchmark"] == [
        {
            "run": RUN,
            "table": TABLE,
            "split": SPLIT,
            "engines": made.engines,
            "champion": champion,
            "baseline": BASELINE,
            "threshold": 0.3,
            "spec": SPEC.benchmark,
            "beside": (),
            "champion_table": None,
            "anchor_table": None,
            "terms": Terms.of(made.features, SPEC.split),
            "goals": goals,
            "serving": SPEC.serving,
        }
    ]
    assert stages.inputs["gate"] == [
        {
            "run": RUN,
            "measured": MEASURED,
            "goals": goals,
            "simulated": True,
            "pin": "openvino-fp32",
        }
    ]
    assert stages.options == ([{"refresh_cache": True}] if measure_again else [])


@pytest.mark.parametrize(
    ("seen", "needed"),
    [
        (SOLO, ()),
        (SeenFeatures(feature_set="paired", leaders={"A": ("C",)}), ()),
        (SeenFeatures(feature_set="depth"), ("depth A 2024-08-09",)),
        (
            SeenFeatures(feature_set="exogenous", exogenous=("macro.vix",)),
            ("exogenous/macro",),
        ),
    ],
)
def test_a_champion_of_other_features_is_measured_on_a_table_of_its_own(
    stages: Stages, seen: SeenFeatures, needed: tuple[str, ...]
) -> None:
    digests = {"depth A 2024-08-09": "1", "exogenous/macro": "2"}
    plan = PLAN.model_copy(update={"supplements": digests})
    made = candidate.build_candidate(RUN, SPEC, plan)
    champion = Champion(version="4", onnx=file("champion"), engine=None, features=seen)
    candidate.judge_candidate(RUN, SPEC, plan, made, champion, load_goals())
    first, second = stages.inputs["feature_table"]
    wanted = {"feature_set": seen.feature_set, "exogenous": seen.exogenous}
    spec = first["spec"].model_copy(update=wanted)
    assert second == first | {"spec": spec, "leaders": seen.leaders}
    supplements = Supplements(market="simulated:", digests={name: digests[name] for name in needed})
    assert stages.inputs["features"][-1] == {
        "run": RUN,
        "day": clean(PLAN.days[-1]),
        "others": (),
        "spec": spec,
        "leaders": seen.leaders.get("A", ()),
        "supplements": supplements if needed else None,
    }
    assert stages.options[-2:] == [
        {"task_run_name": "features {day.symbol} {day.date} of version 4"},
        {"task_run_name": "feature table of version 4"},
    ]
    (inputs,) = stages.inputs["benchmark"]
    assert (inputs["table"], inputs["champion_table"]) == (TABLE, CHAMPIONS_TABLE)


def with_anchor(anchor: Champion) -> Champion:
    return Champion(version="4", onnx=file("onnx"), engine=None, features=SEEN, anchor=anchor)


@pytest.mark.parametrize(
    ("version", "seen", "table"),
    [("3", SOLO, CHAMPIONS_TABLE), ("3", SEEN, None), ("4", SOLO, None)],
)
def test_an_anchor_of_other_features_is_measured_on_a_table_of_its_own(
    version: str, seen: SeenFeatures, table: ArtifactRef | None, stages: Stages
) -> None:
    made = candidate.build_candidate(RUN, SPEC, PLAN)
    anchor = Champion(version=version, onnx=file("anchor"), engine=None, features=seen)
    candidate.judge_candidate(RUN, SPEC, PLAN, made, with_anchor(anchor), load_goals())
    (inputs,) = stages.inputs["benchmark"]
    assert inputs["champion"] == with_anchor(anchor)
    assert (inputs["champion_table"], inputs["anchor_table"]) == (None, table)


def test_an_anchor_without_features_is_left_out_with_the_reason(
    stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = candidate.build_candidate(RUN, SPEC, PLAN)

    def gone(*_: object, **__: object) -> ArtifactRef:
        raise DataError("the store has no series macro.vix")

    gone.with_options = lambda **_: gone  # type: ignore[attr-defined]
    monkeypatch.setattr(candidate, "features", gone)
    anchor = Champion(version="3", onnx=file("anchor"), engine=None, features=SOLO)
    candidate.judge_candidate(RUN, SPEC, PLAN, made, with_anchor(anchor), load_goals())
    (inputs,) = stages.inputs["benchmark"]
    assert inputs["anchor_table"] is inputs["champion"].anchor is None
    assert inputs["champion"].no_anchor == (
        "version 3, of many nights ago: failed: features: the store has no series macro.vix"
    )


@pytest.mark.parametrize(
    ("windows", "failure", "found"),
    [
        (0, None, None),
        (8, None, Attributed(folder=file("attribution"))),
        (
            8,
            EngineError("the graph is refused", where="x"),
            Attributed(failure="the graph is refused"),
        ),
        (8, MemoryError(), Attributed(failure="MemoryError")),
    ],
)
def test_attributions_that_fail_cost_nothing_else(
    stages: Stages,
    monkeypatch: pytest.MonkeyPatch,
    windows: int,
    failure: Exception | None,
    found: Attributed | None,
) -> None:
    def attribute(*inputs: object) -> Attributed:
        assert inputs == (RUN, TABLE, SPLIT, EXPORTED, spec.attributions)
        if failure is not None:
            raise failure
        return Attributed(folder=file("attribution"))

    spec = SPEC.model_copy(update={"attributions": AttributionSpec(windows=windows)})
    monkeypatch.setattr(candidate, "attribute", attribute)
    made = candidate.build_candidate(RUN, spec, PLAN)
    assert candidate.explain_candidate(RUN, spec, made) == found


def test_a_day_that_fails_validation_is_published_and_stops_the_run(stages: Stages) -> None:
    stages.faulty_days = {PLAN.train[1]}
    with pytest.raises(DataError, match="A 2024-08-08 failed validation: too few rows"):
        candidate.build_candidate(RUN, SPEC, PLAN)
    assert len(stages.inputs["validate"]) == len(PLAN.days)
    (published,) = stages.inputs["publish_validation"]
    assert [bool(day.failures) for day in published["days"]] == [False, True, False]
    assert stages.inputs.keys() == {"validate", "publish_validation"}


def test_engine_availability_is_checked_each_time(
    stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is an input of the stage, so a cached result cannot hide a change."""
    asked = BenchmarkSpec(engines=("openvino-fp32", "tensorrt-fp16"))
    spec = NightlySpec(network=BlendSpec(), benchmark=asked)
    for reason in ("no GPU", None):
        monkeypatch.setattr(type(ENGINES["tensorrt-fp16"]), "availability", lambda _, r=reason: r)
        candidate.build_candidate(RUN, spec, PLAN)
    built = [(inputs["name"], inputs["reason"]) for inputs in stages.inputs["build_engine"]]
    common = [("torch-fp32", None), ("openvino-fp32", None)]
    assert built == [*common, ("tensorrt-fp16", "no GPU"), *common, ("tensorrt-fp16", None)]


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (EngineError("the graph is refused", where="model.onnx"), "the graph is refused"),
        (AttributeError("no flag FP16"), "AttributeError: no flag FP16"),
        (RuntimeError("CUDA out of memory"), "RuntimeError: CUDA out of memory"),
    ],
)
def test_an_engine_that_cannot_be_built_does_not_stop_the_nightly(
    error: Exception, what: str, stages: Stages
) -> None:
    stages.refusal = error
    stages.broken_engines = {"openvino-fp32"}
    made = candidate.build_candidate(RUN, SPEC, PLAN).engines
    assert {found.name: found.unavailable for found in made} == {
        "torch-fp32": None,
        "onnxruntime-fp32": None,
        "openvino-fp32": f"failed: build: {what}",
    }
    stages.broken_engines = {"torch-fp32"}  # no comparison is possible without it
    with pytest.raises(type(error), match=what.partition(": ")[2] or what):
        candidate.build_candidate(RUN, SPEC, PLAN)
