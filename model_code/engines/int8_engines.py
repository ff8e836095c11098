"""Static int8 on the CPU: one recipe (`quantisation`), two libraries.

Shapes: B batch, T = 64 steps, F = 16 features, C = 2 classes.
"""

from pathlib import Path
from typing import Any

from model_code.artifacts import hash_path
from model_code.engines.onnxruntime_engine import OnnxRuntimeFloat32, open_graph
from model_code.engines.openvino_engine import OpenVinoEngine, matrix_precisions
from model_code.engines.packaged import EngineFile
from model_code.engines.protocol import EngineSource, Predictor
from model_code.engines.quantisation import needs_reduced_range, quantise
from model_code.errors import EngineError
from model_code.models import network

INTEGERS = {"i8", "u8"}


def _make(source: EngineSource, path: Path) -> EngineFile:
    windows, reduced = source.windows(), needs_reduced_range()
    chosen = quantise(source.onnx, windows, path, reduce_range=reduced)
    return EngineFile(
        network.flops_per_window(network.load(source.model).spec),
        {
            "quantised": chosen.what,
            "quantised_products": len(chosen.products),
            "max_abs_dp": chosen.max_abs_dp,
            "calibration_windows": len(windows),
            "calibration_sha256": hash_path(source.calibration) if source.calibration else "",
            "weight_bits": 7 if reduced else 8,
        },
    )


class OnnxRuntimeInt8(OnnxRuntimeFloat32):
    """QDQ graph on ONNX Runtime's CPU provider."""

    name, precision = "onnxruntime-int8", "int8"

    def __init__(self) -> None:
        super().__init__()
        self.device = "cpu"  # the CUDA provider would compute QDQ pairs in FP32

    def _make(self, source: EngineSource, path: Path) -> EngineFile:
        return _make(source, path)

    def _open(self, path: Path, threads: int) -> Predictor:
        # a fixed batch measured slower for this graph; the cause is unknown
        return open_graph(path, threads, fix_batch=False)


class OpenVinoInt8(OpenVinoEngine):
    """The same QDQ graph; operators that are not quantised compute in FP32."""

    name, precision = "openvino-int8", "int8"

    def _make(self, source: EngineSource, path: Path) -> EngineFile:
        return _make(source, path)

    def _verify(self, compiled: Any, path: Path) -> None:
        found = sorted(matrix_precisions(compiled).values())
        if not INTEGERS & set(found):
            raise EngineError(
                f"OpenVINO computes the matrix products of an int8 graph in "
                f"{', '.join(sorted(set(found))) or 'an unknown precision'}",
                where=str(path),
                remedy="use openvino-fp32 on this processor",
            )
