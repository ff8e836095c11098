"""A blend as a Triton ensemble: each part and their weighted sum is a model of its own.

    <root>/financial_predictor_{mlp, trees, sum}/{config.pbtxt, <version>/{model.onnx, engine.json}}
    <root>/financial_predictor_ensemble/{config.pbtxt, <version>/}

The ensemble has the input and output of the single graph. One step runs at a time: a part also
takes the logits of the part before, which it does not use. Triton 2.51 loses requests of which two
steps fail at the same time (docs/decisions/ensemble-steps.md).

Shapes: B windows, T steps (64), F features (16), C classes (2).
Source: github.com/triton-inference-server/server, docs/user_guide/architecture.md, "Ensemble
Models".
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from model_code import machine
from model_code.artifacts import atomic_file, hash_path
from model_code.engines.packaged import system
from model_code.engines.sidecar import EngineSidecar, TensorSpec
from model_code.export.parts import Part, export_fastest, export_sum
from model_code.machine import physical_cores
from model_code.models import network
from model_code.models.predictor import WindowModel
from model_code.repository.manifest import CONFIG_FILE
from model_code.repository.triton_config import model_config, parse
from model_code.settings import (
    CLASS_COUNT,
    FEATURE_COUNT,
    INPUT_NAME,
    MAX_BATCH_SIZE,
    MODEL_NAME,
    OUTPUT_NAME,
    SEQUENCE_LENGTH,
)

ENSEMBLE_NAME = f"{MODEL_NAME}_ensemble"
SUM_NAME = f"{MODEL_NAME}_sum"
ENGINE = "onnxruntime-fp32"  # the only one with all trees in one node
GRAPH_FILE = "model.onnx"
WINDOWS = TensorSpec(name=INPUT_NAME, dtype="FP32", shape=(SEQUENCE_LENGTH, FEATURE_COUNT))
LOGITS = TensorSpec(name=OUTPUT_NAME, dtype="FP32", shape=(CLASS_COUNT,))


def part_name(part: Part) -> str:
    """Name of a part's model."""
    return f"{MODEL_NAME}_{part.name}"


def write_ensemble(
    root: Path, version: int, split: Sequence[Part], example_BTF: np.ndarray
) -> None:
    """Write the ensemble's models into a model repository that has none of them.

    Args:
        root: of the repository.
        version: of each model.
        split: from `export.parts.parts`.
        example_BTF: real raw windows, two or more.

    Raises:
        ExportError: a part's graph differs from the part.
        StorageError: a file cannot be written.
    """
    for part, before in _in_turn(split):
        started, path = time.perf_counter(), root / part_name(part) / str(version) / GRAPH_FILE
        error = export_fastest(part.network, example_BTF, path, before)
        waited = () if before is None else (_logits(before),)
        seconds = time.perf_counter() - started
        _describe(path, (WINDOWS, *waited), part.flops, error, seconds)
    path = root / SUM_NAME / str(version) / GRAPH_FILE
    export_sum(split, path)
    _describe(path, tuple(map(_logits, split)), 0, 0.0, 0.0)
    with atomic_file(root / ENSEMBLE_NAME / CONFIG_FILE) as temporary:
        temporary.write_text(_ensemble_config(root, version, split))
    (root / ENSEMBLE_NAME / str(version)).mkdir()  # Triton wants the folder, empty as it is


def write_single(root: Path, version: int, model: WindowModel, example_BTF: np.ndarray) -> None:
    """Write the model as one graph beside its ensemble, to compare them.

    Raises:
        ExportError: the graph differs from the network.
        StorageError: a file cannot be written.
    """
    started, path = time.perf_counter(), root / MODEL_NAME / str(version) / GRAPH_FILE
    error = export_fastest(model, example_BTF, path)
    flops = network.flops_per_window(model.spec)
    _describe(path, (WINDOWS,), flops, error, time.perf_counter() - started)


def _in_turn(split: Sequence[Part]) -> Iterator[tuple[Part, Part | None]]:
    """Each part with the one that it waits for."""
    return zip(split, (None, *split), strict=False)


def _logits(part: Part) -> TensorSpec:
    return LOGITS.model_copy(update={"name": part.logits})


def _ensemble_config(root: Path, version: int, split: Sequence[Part]) -> str:
    """Text of the ensemble's `config.pbtxt`; each step asks this version of its model.

    Its tensors and its largest batch are those of the first part's configuration.
    """
    first = parse((root / part_name(split[0]) / CONFIG_FILE).read_text())
    steps = [
        pb.ModelEnsembling.Step(
            model_name=part_name(part),
            model_version=version,
            input_map={INPUT_NAME: INPUT_NAME} | ({before.logits: before.logits} if before else {}),
            output_map={OUTPUT_NAME: part.logits},
        )
        for part, before in _in_turn(split)
    ]
    weighted = pb.ModelEnsembling.Step(
        model_name=SUM_NAME,
        model_version=version,
        input_map={part.logits: part.logits for part in split},
        output_map={OUTPUT_NAME: OUTPUT_NAME},
    )
    config = pb.ModelConfig(
        name=ENSEMBLE_NAME,
        platform="ensemble",
        max_batch_size=first.max_batch_size,
        input=first.input,
        output=first.output,
        version_policy=first.version_policy,
        ensemble_scheduling=pb.ModelEnsembling(step=[*steps, weighted]),
    )
    return str(text_format.MessageToString(config))


def _describe(
    path: Path, inputs: tuple[TensorSpec, ...], flops: int, error: float, seconds: float
) -> None:
    """Write the sidecar and configuration of a graph in `<root>/<model>/<version>`."""
    sha256 = hash_path(path)
    sidecar = EngineSidecar(
        engine=ENGINE,
        library="onnxruntime",
        library_version=str(onnxruntime.__version__),
        precision="fp32",
        device=machine.processor(),
        file=path.name,
        sha256=sha256,
        onnx_sha256=sha256,
        inputs=inputs,
        outputs=(LOGITS,),
        max_batch=MAX_BATCH_SIZE,
        threads=physical_cores(),
        system=system(),
        flops=flops,
        build_seconds=seconds,
        parity_error=error,
    )
    sidecar.save(path.parent)
    home = path.parents[1]
    config = parse(model_config(sidecar))
    config.name = home.name
    if len(inputs) > 1:
        config.parameters["batch_1_graph"].string_value = "dynamic"
        # its requests have waited for a batch in the first part
        config.dynamic_batching.max_queue_delay_microseconds = 0
    with atomic_file(home / CONFIG_FILE) as temporary:
        temporary.write_text(str(text_format.MessageToString(config)))
