"""Stage `measure delay`: how long the model takes to answer, in the engine that runs everywhere."""

import numpy as np

from model_code.artifacts import ArtifactRef
from model_code.benchmark.timing import alone
from model_code.engines.registry import ENGINES
from model_code.errors import EngineError
from model_code.features.dataset import FeatureTable
from model_code.features.split import Split
from model_code.features.windows import gather, spread
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import BuiltEngine, SplitWindows

ENGINE = "onnxruntime-fp32"
WINDOWS = 256  # of the test date, sent in turn
WARMUP = 50
REQUESTS = 1000


@stage("measure delay")
def measure_delay(
    run: RunRef,
    engine: BuiltEngine,
    table: ArtifactRef,
    split: SplitWindows,
) -> float:
    """99th percentile in ms of 1,000 requests of one window each.

    Raises:
        EngineError: the engine was not built.
    """
    if engine.folder is None:
        raise EngineError(
            f"{engine.name} was not built: {engine.unavailable}",
            remedy="name the delay of the profit bound instead: --delay-ms",
        )
    rows, windows = (
        FeatureTable.open(run.store, table),
        Split.load(run.store.open(split.windows)),
    )
    x_BTF = gather(rows.features_NF, spread(windows.test_ends, WINDOWS))
    singles = [x_BTF[i : i + 1] for i in range(len(x_BTF))]
    predictor = ENGINES[engine.name].load(run.store.open(engine.folder))
    latency_ms_R = alone(predictor.predict, singles, warmup=WARMUP, requests=REQUESTS)
    return float(np.quantile(latency_ms_R, 0.99))
