"""Triton backend `onnxruntime` or `openvino` in Python: serves a repository made for the C++ ones.

Runs inside the server's own environment (numpy below 2), where nothing of Tickline is installed.
The library, its threads and its precision come from the model's configuration alone. Requests that
the server batched are one call of the library.

Shapes: B batch, T = 64 steps, F = 16 features, C = 2 classes.
Source: github.com/triton-inference-server/backend, docs/python_based_backends.md.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

Run = Callable[[NDArray[Any]], NDArray[Any]]

OPENVINO_KEYS = (
    "INFERENCE_NUM_THREADS",
    "INFERENCE_PRECISION_HINT",
    "NUM_STREAMS",
    "PERFORMANCE_HINT",
)


class TritonPythonModel:
    """One instance of a model; the server calls its methods from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Compile the version's file as the model's configuration says."""
        config = json.loads(args["model_config"])
        self._input, self._output = config["input"][0]["name"], config["output"][0]["name"]
        path = Path(args["model_repository"], args["model_version"])
        path /= config["default_model_filename"]
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        library = OPENERS[config["backend"]]
        self._run = library(path, parameters, self._input, self._output)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests; those with NaN or infinity are refused alone."""
        if len(requests) == 1:
            return [self._alone(requests[0])]
        parts = [self._windows(request) for request in requests]
        sound = [x_BTF for x_BTF in parts if np.isfinite(x_BTF).all()]
        if not sound:
            return [_refused() for _ in parts]
        try:
            logits_BC = self._run(np.concatenate(sound))
        except Exception as error:  # whatever the library raises, the server must live
            return [_failed(error) for _ in parts]
        responses, start = [], 0
        for x_BTF in parts:
            if not np.isfinite(x_BTF).all():
                responses.append(_refused())
                continue
            responses.append(self._answer(logits_BC[start : start + len(x_BTF)]))
            start += len(x_BTF)
        return responses

    def _alone(self, request: Any) -> Any:
        x_BTF = self._windows(request)
        if not np.isfinite(x_BTF).all():
            return _refused()
        try:
            return self._answer(self._run(x_BTF))
        except Exception as error:  # as above
            return _failed(error)

    def _windows(self, request: Any) -> NDArray[Any]:
        windows: NDArray[Any] = pb_utils.get_input_tensor_by_name(request, self._input).as_numpy()
        return windows

    def _answer(self, logits_BC: NDArray[Any]) -> Any:
        return pb_utils.InferenceResponse([pb_utils.Tensor(self._output, logits_BC)])


def _refused() -> Any:
    message = "windows hold NaN or infinity: mend the features before sending them"
    return pb_utils.InferenceResponse(
        error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG)
    )


def _failed(error: Exception) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"the engine failed: {error}"))


def _onnxruntime(path: Path, parameters: dict[str, str], inputs: str, output: str) -> Run:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = int(parameters["intra_op_thread_count"])
    options.inter_op_num_threads = int(parameters["inter_op_thread_count"])
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(x_BTF: NDArray[Any]) -> NDArray[Any]:
        logits_BC: NDArray[Any] = session.run([output], {inputs: x_BTF})[0]
        return logits_BC

    return run


def _openvino(path: Path, parameters: dict[str, str], _inputs: str, _output: str) -> Run:
    import openvino as ov

    core = ov.Core()
    wanted = {key: parameters[key] for key in OPENVINO_KEYS}
    compiled = core.compile_model(core.read_model(path), "CPU", wanted)
    request = compiled.create_infer_request()

    def run(x_BTF: NDArray[Any]) -> NDArray[Any]:
        request.infer([x_BTF], share_inputs=True)
        logits_BC: NDArray[Any] = request.get_output_tensor(0).data  # the answer's tensor copies it
        return logits_BC

    return run


OPENERS = {"onnxruntime": _onnxruntime, "openvino": _openvino}
