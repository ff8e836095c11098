"""Stage `export`: the trained network as TorchScript and ONNX, each verified against it.

A model with trees gets a second ONNX file, with its trees as one node.
"""

import numpy as np

from model_code.artifacts import ArtifactRef
from model_code.export import graph, trees
from model_code.features.dataset import FeatureTable
from model_code.features.split import Split
from model_code.features.windows import gather, spread
from model_code.models import network
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import ExportedNetwork, SplitWindows

PARITY_WINDOWS = 64
CALIBRATION = 2048  # training windows that calibrate int8 and pruned engines


@stage("export")
def export(
    run: RunRef, table: ArtifactRef, split: SplitWindows, model: ArtifactRef
) -> ExportedNetwork:
    """Export TorchScript and ONNX; verify on test windows that both equal the network."""
    rows, windows = (
        FeatureTable.open(run.store, table),
        Split.load(run.store.open(split.windows)),
    )
    example_BTF = gather(rows.features_NF, spread(windows.test_ends, PARITY_WINDOWS))
    trained = network.load(run.store.open(model))
    with run.store.scratch() as scratch:
        script, onnx, native = (scratch / f"model{end}" for end in (".ts", ".onnx", "-trees.onnx"))
        calibration = scratch / "calibration.npy"
        np.save(calibration, gather(rows.features_NF, spread(windows.train_ends, CALIBRATION)))
        script_report = graph.export_torchscript(trained, example_BTF, script)
        onnx_report = graph.export_onnx(trained, example_BTF, onnx)
        trees_report = trees.export_native(trained, example_BTF, native)
        return ExportedNetwork(
            torchscript=run.store.put(script),
            onnx=run.store.put(onnx),
            calibration=run.store.put(calibration),
            opset=onnx_report.opset or 0,
            torchscript_error=script_report.parity_error,
            onnx_error=onnx_report.parity_error,
            onnx_trees=run.store.put(native) if trees_report else None,
            onnx_trees_error=trees_report.parity_error if trees_report else None,
        )
