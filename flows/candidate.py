"""From ticks to engines ready to be judged: what the nightly and the benchmark have in common."""

from typing import NamedTuple

from model_code.artifacts import ArtifactRef
from model_code.engines.registry import ENGINES
from model_code.errors import EngineError
from model_code.settings import REFERENCE_ENGINE, NightlySpec
from tasks import data, engines, model, report
from tasks.results import BuiltEngine, ExportedNetwork, Plan, SplitWindows, TrainedNetwork
from tasks.stage import RunRef


class Candidate(NamedTuple):
    """A trained network in every form this machine can run, and the windows to judge it on."""

    table: ArtifactRef
    split: SplitWindows
    rival: dict[str, float]
    network: TrainedNetwork
    exported: ExportedNetwork
    engines: tuple[BuiltEngine, ...]


def build_candidate(run: RunRef, spec: NightlySpec, plan: Plan) -> Candidate:
    """Validate, compute features, split, train, export, build; each stage cached by content."""
    days = tuple(data.validate(run, day, spec.validation) for day in plan.days)
    report.publish_validation(run, plan, days)
    ticks = data.require_passed(days)

    table = data.build_features(run, ticks, spec.features, plan.simulated)
    split = data.split_windows(run, table, spec.split, plan.test_date)
    rival = model.baseline(run, table, split, spec.training.seed)
    network = model.train(run, table, split, spec.network, spec.training)
    exported = model.export_network(run, table, split, network.model)

    built = tuple(_built(run, name, network, exported) for name in spec.benchmark.measured)
    return Candidate(table, split, rival, network, exported, built)


def _built(
    run: RunRef, name: str, network: TrainedNetwork, exported: ExportedNetwork
) -> BuiltEngine:
    """One engine; where it cannot be built the night goes on with the others and says so.

    Raises:
        EngineError: it is the reference that all are compared with.
    """
    reason = ENGINES[name].availability()
    try:
        return engines.build_engine(run, name, network.model, exported, reason)
    except EngineError as error:
        if name == REFERENCE_ENGINE:
            raise
        return BuiltEngine(
            name=name, folder=None, unavailable=f"not built: {error.what}", mlflow_run_id=None
        )
