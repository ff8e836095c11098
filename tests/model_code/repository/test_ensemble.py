"""A blend's ensemble on disk: its models and their wiring, followed without a server."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tritonclient.grpc import model_config_pb2 as pb

from model_code.engines.sidecar import EngineSidecar
from model_code.export.graph import PARITY_LIMIT
from model_code.repository.ensemble import ENSEMBLE_NAME, SUM_NAME
from model_code.repository.triton_config import parse
from model_code.settings import INPUT_NAME, MODEL_NAME, OUTPUT_NAME
from tests.support.blends import VERSION, BlendRepository, windows

MODELS = (f"{MODEL_NAME}_mlp", f"{MODEL_NAME}_trees", SUM_NAME)


def config(root: Path, model: str) -> pb.ModelConfig:
    return parse((root / model / "config.pbtxt").read_text())


def steps(root: Path) -> list[pb.ModelEnsembling.Step]:
    return list(config(root, ENSEMBLE_NAME).ensemble_scheduling.step)


def answer(root: Path, x_BTF: np.ndarray) -> np.ndarray:
    """The ensemble's logits, its steps taken in ONNX Runtime."""
    tensors = {INPUT_NAME: x_BTF}
    for step in steps(root):
        path = root / step.model_name / str(step.model_version) / "model.onnx"
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = list(step.output_map)
        feed = {name: tensors[value] for name, value in step.input_map.items()}
        for name, array in zip(names, session.run(names, feed), strict=True):
            tensors[step.output_map[name]] = array
    return tensors[OUTPUT_NAME]


def test_the_steps_in_turn_give_the_single_graphs_logits(
    blend_repository: BlendRepository,
) -> None:
    root, x_BTF = blend_repository.root, windows()
    single = onnxruntime.InferenceSession(
        root / MODEL_NAME / str(VERSION) / "model.onnx", providers=["CPUExecutionProvider"]
    )
    for batch in (1, 7, len(x_BTF)):
        (expected_BC,) = single.run(None, {INPUT_NAME: x_BTF[:batch]})
        found_BC = answer(root, x_BTF[:batch])
        np.testing.assert_allclose(found_BC, expected_BC, PARITY_LIMIT, PARITY_LIMIT)


def test_no_two_steps_run_at_the_same_time(blend_repository: BlendRepository) -> None:
    """Where two fail together, Triton 2.51 loses the request or ends."""
    found = steps(blend_repository.root)
    for before, step in pairwise(found):
        assert set(before.output_map.values()) & set(step.input_map.values())


def test_the_ensemble_has_the_tensors_and_limits_of_the_single_graph(
    blend_repository: BlendRepository,
) -> None:
    single = config(blend_repository.root, MODEL_NAME)
    found = config(blend_repository.root, ENSEMBLE_NAME)
    assert (found.name, found.platform) == (ENSEMBLE_NAME, "ensemble")
    assert (list(found.input), list(found.output)) == (list(single.input), list(single.output))
    assert found.max_batch_size == single.max_batch_size
    assert [step.model_name for step in steps(blend_repository.root)] == list(MODELS)


@pytest.mark.parametrize("model", MODELS)
def test_every_step_asks_a_model_that_is_there_with_tensors_that_it_has(
    model: str, blend_repository: BlendRepository
) -> None:
    root = blend_repository.root
    (step,) = (step for step in steps(root) if step.model_name == model)
    found = config(root, model)
    assert (found.name, found.backend) == (model, "onnxruntime")
    assert {tensor.name for tensor in found.input} == set(step.input_map)
    assert {tensor.name for tensor in found.output} == set(step.output_map)
    sidecar = EngineSidecar.load(root / model / str(step.model_version))
    assert sidecar.parity_error <= PARITY_LIMIT
    assert found.default_model_filename == sidecar.file


def test_every_folder_belongs_to_a_model(blend_repository: BlendRepository) -> None:
    root = blend_repository.root
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    expected = {f"{model}/config.pbtxt" for model in (*MODELS, MODEL_NAME, ENSEMBLE_NAME)}
    for model in (*MODELS, MODEL_NAME):
        expected |= {f"{model}/{VERSION}/{name}" for name in ("model.onnx", "engine.json")}
    assert files == expected
    assert (root / ENSEMBLE_NAME / str(VERSION)).is_dir()
