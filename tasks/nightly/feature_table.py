"""Stage `feature table`: the night's instrument-days as one table, a manifest of their shards."""

from model_code.artifacts import ArtifactRef
from model_code.features import dataset
from model_code.features.shard import Shard
from model_code.settings import FeatureSpec, Leaders
from tasks.caching.stage import RunRef, stage


def _facts(run: RunRef, table: ArtifactRef) -> str:
    found = dataset.read_manifest(run.store, table)
    rows = sum(shard.meta.rows for shard in found.shards)
    return f"{rows:,} rows, feature set {found.spec.chosen_set}"


@stage("feature table", facts=_facts)
def feature_table(
    run: RunRef, shards: tuple[Shard, ...], spec: FeatureSpec, leaders: Leaders, simulated: bool
) -> ArtifactRef:
    """Write the manifest of the shards; no row is copied."""
    with run.store.scratch() as scratch:
        out = scratch / "features"
        dataset.write_manifest(shards, spec, out, simulated=simulated, leaders=leaders)
        return run.store.put(out)
