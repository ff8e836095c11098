"""Triton backend `onnxruntime` or `openvino` in Python, for repositories of the C++ backends.

It runs in the server's own environment (numpy below 2), without Tickline. The library, its threads
and its precision come from the model's configuration only. A batch of requests is one call of the
library. Batch 1 has its own graph with fixed shapes, as in the engines called directly. A model
with several inputs, the sum of an ensemble, has one graph for all batches.

Shapes: B batch, T = 64 steps, F = 16 features, C = 2 classes, N numbers of all inputs.
Source: github.com/triton-inference-server/backend, docs/python_based_backends.md.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

SINGLE = "batch_1_graph"  # "fixed" or "dynamic"; the C++ backends do not use it
BATCH_DIM = "batch"  # its name in the export
Run = Callable[[NDArray[Any]], NDArray[Any]]

OPENVINO_KEYS = (
    "ENABLE_CPU_PINNING",
    "INFERENCE_NUM_THREADS",
    "INFERENCE_PRECISION_HINT",
    "NUM_STREAMS",
    "PERFORMANCE_HINT",
)


class TritonPythonModel:
    """One instance of a model; the server calls its methods from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Compile the version's file according to the model's configuration."""
        config = json.loads(args["model_config"])
        self._inputs = {
            tensor["name"]: tuple(map(int, tensor["dims"])) for tensor in config["input"]
        }
        self._input, self._output = config["input"][0]["name"], config["output"][0]["name"]
        path = Path(args["model_repository"], args["model_version"])
        path /= config["default_model_filename"]
        parameters = {
            key: value["string_value"] for key, value in config.get("parameters", {}).items()
        }
        if len(self._inputs) > 1:
            self._read = self._packed
            self._run = _several_inputs(config["backend"], path, parameters, self._inputs)
            return
        self._read = self._windows
        # buffers of batch 1, bound once; the server copies the output
        x_BTF, logits_BC = (
            np.zeros((1, *map(int, tensor["dims"])), np.float32)
            for tensor in (config["input"][0], config["output"][0])
        )
        self._run = OPENERS[config["backend"]](path, parameters, x_BTF, logits_BC)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Process a batch of requests; only bad ones are refused."""
        if len(requests) == 1:
            return [self._single(requests[0])]
        parts = [self._checked(request) for request in requests]
        sound = [x_BTF for x_BTF in parts if isinstance(x_BTF, np.ndarray)]
        if not sound:
            return [_refused(str(part)) for part in parts]
        try:
            logits_BC = self._run(np.concatenate(sound))
        except Exception as error:  # no error of the library may stop the server
            return [_failed(error) for _ in parts]
        responses, start = [], 0
        for x_BTF in parts:
            if not isinstance(x_BTF, np.ndarray):
                responses.append(_refused(x_BTF))
                continue
            responses.append(self._response(logits_BC[start : start + len(x_BTF)]))
            start += len(x_BTF)
        return responses

    def _single(self, request: Any) -> Any:
        x_BTF = self._checked(request)
        if not isinstance(x_BTF, np.ndarray):
            return _refused(x_BTF)
        try:
            return self._response(self._run(x_BTF))
        except Exception as error:  # as above
            return _failed(error)

    def _checked(self, request: Any) -> NDArray[Any] | str:
        """The windows, or why they are refused."""
        arrays = {
            name: pb_utils.get_input_tensor_by_name(request, name).as_numpy()
            for name in self._inputs
        }
        batch = len(next(iter(arrays.values())))
        for name, array in arrays.items():
            # of a batch dimension that the server cuts to 32 bits, as 2**32, it leaves nothing
            if array.shape != (batch, *self._inputs[name]) or batch == 0:
                expected = ", ".join(map(str, self._inputs[name]))
                return f"{name} has shape {array.shape}, expected (batch, {expected})"
        x_BTF = self._read(arrays)
        if not np.isfinite(x_BTF).all():
            return "windows contain NaN or infinity: fix the features before sending them"
        return x_BTF

    def _windows(self, arrays: dict[str, NDArray[Any]]) -> NDArray[Any]:
        return arrays[self._input]

    def _packed(self, arrays: dict[str, NDArray[Any]]) -> NDArray[Any]:
        """All inputs side by side (B, N): refused and batched as one."""
        return np.concatenate([array.reshape(len(array), -1) for array in arrays.values()], axis=1)

    def _response(self, logits_BC: NDArray[Any]) -> Any:
        return pb_utils.InferenceResponse([pb_utils.Tensor(self._output, logits_BC)])


def _refused(message: str) -> Any:
    return pb_utils.InferenceResponse(
        error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG)
    )


def _failed(error: Exception) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"the engine failed: {error}"))


def _session(path: Path, parameters: dict[str, str], batch: int | None = None) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = int(parameters.get("intra_op_thread_count", 0))
    options.inter_op_num_threads = int(parameters.get("inter_op_thread_count", 0))
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if batch:
        options.add_free_dimension_override_by_name(BATCH_DIM, batch)
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _several_inputs(
    backend: str, path: Path, parameters: dict[str, str], shapes: dict[str, tuple[int, ...]]
) -> Run:
    """The function of packed inputs; `shapes` is by input, without the batch."""
    if backend != "onnxruntime":
        raise pb_utils.TritonModelException(f"backend {backend} takes models of one input only")
    session = _session(path, parameters)
    ends = np.cumsum([np.prod(shape) for shape in shapes.values()])[:-1]

    def run(packed_BN: NDArray[Any]) -> NDArray[Any]:
        parts = zip(shapes.items(), np.split(packed_BN, ends, axis=1), strict=True)
        feed = {
            name: np.ascontiguousarray(part).reshape(-1, *shape) for (name, shape), part in parts
        }
        return cast("NDArray[Any]", session.run(None, feed)[0])

    return run


def _onnxruntime(path: Path, parameters: dict[str, str], x_BTF: Any, logits_BC: Any) -> Run:
    dynamic = _session(path, parameters)
    single = _session(path, parameters, 1) if parameters.get(SINGLE) == "fixed" else dynamic
    inputs, outputs = [tensor.name for tensor in (*dynamic.get_inputs(), *dynamic.get_outputs())]
    binding = single.io_binding()
    for bind, name, array in (
        (binding.bind_input, inputs, x_BTF),
        (binding.bind_output, outputs, logits_BC),
    ):
        bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def run(windows_BTF: NDArray[Any]) -> NDArray[Any]:
        if len(windows_BTF) == 1:
            x_BTF[:] = windows_BTF
            single.run_with_iobinding(binding)
            return cast("NDArray[Any]", logits_BC)
        return cast("NDArray[Any]", dynamic.run([outputs], {inputs: windows_BTF})[0])

    return run


def _openvino(path: Path, parameters: dict[str, str], x_BTF: Any, logits_BC: Any) -> Run:
    import openvino as ov

    core = ov.Core()
    wanted = {key: parameters[key] for key in OPENVINO_KEYS if key in parameters}

    def request(shape: tuple[int, ...] | None) -> Any:
        graph = core.read_model(path)
        if shape:
            graph.reshape(list(shape))
        return core.compile_model(graph, "CPU", wanted).create_infer_request()

    dynamic = request(None)
    single = request(x_BTF.shape if parameters.get(SINGLE) == "fixed" else None)
    single.set_input_tensor(ov.Tensor(x_BTF, shared_memory=True))
    single.set_output_tensor(ov.Tensor(logits_BC, shared_memory=True))

    def run(windows_BTF: NDArray[Any]) -> NDArray[Any]:
        if len(windows_BTF) == 1:
            x_BTF[:] = windows_BTF
            single.infer()
            return cast("NDArray[Any]", logits_BC)
        dynamic.infer([windows_BTF], share_inputs=True)
        return cast("NDArray[Any]", dynamic.get_output_tensor(0).data)

    return run


OPENERS = {"onnxruntime": _onnxruntime, "openvino": _openvino}
