"""Stage `attribute`: which features and lags the chosen model looks at."""

from model_code.artifacts import ArtifactRef
from model_code.attribution.heat_map import draw_heat_map
from model_code.attribution.measure import measure
from model_code.engines.onnxruntime_engine import open_graph
from model_code.features.dataset import FeatureTable
from model_code.features.split import Split
from model_code.machine import physical_cores
from model_code.settings import AttributionSpec
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import Attributed, ExportedNetwork, SplitWindows
from tasks.runs.attributions import PROFILE_FILE
from tasks.runs.console import console


@stage("attribute")
def attribute(
    run: RunRef,
    table: ArtifactRef,
    split: SplitWindows,
    exported: ExportedNetwork,
    spec: AttributionSpec,
) -> Attributed:
    """Explain test windows in ONNX Runtime; store the profile, its table and its picture."""
    rows, parts = (
        FeatureTable.open(run.store, table),
        Split.load(run.store.open(split.windows)),
    )
    predictor = open_graph(run.store.open(exported.runtime_graph), physical_cores())
    profile = measure(predictor, rows, parts, spec)
    console.print(f"            looks most at {profile.line}")
    with run.store.scratch() as scratch:
        folder = scratch / "attribution"
        folder.mkdir()
        (folder / PROFILE_FILE).write_text(profile.model_dump_json(indent=2) + "\n")
        (folder / "attribution.md").write_text(profile.markdown())
        draw_heat_map(profile, folder / "heat_map.png")
        return Attributed(folder=run.store.put(folder))
