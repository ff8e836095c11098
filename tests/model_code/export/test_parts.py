"""The parts of a blend: their weighted logits are the blend's, each has its own graph."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from model_code.errors import EngineError
from model_code.export.graph import PARITY_LIMIT
from model_code.export.parts import export_sum, parts
from model_code.models import network
from model_code.repository.ensemble import part_name
from model_code.settings import INPUT_NAME, AnyNetworkSpec, BlendSpec, BoostingSpec, MlpSpec
from tests.support.blends import LIMITS, VERSION, BlendRepository, fitted, windows


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_the_weighted_parts_are_the_blend(blend_repository: BlendRepository) -> None:
    x_BTF = torch.from_numpy(windows())
    one, other = blend_repository.split
    assert (one.name, one.weight) == ("mlp", 0.3)
    assert one.weight + other.weight == 1.0
    assert one.flops + other.flops == network.flops_per_window(blend_repository.model.spec)
    with torch.inference_mode():
        logits_BC = one.weight * one.network(x_BTF) + other.weight * other.network(x_BTF)
        expected_BC = blend_repository.model(x_BTF)
    torch.testing.assert_close(logits_BC, expected_BC, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("batch", [1, 5])
def test_the_sum_has_an_input_for_each_part(
    batch: int, blend_repository: BlendRepository, tmp_path: Path
) -> None:
    split = blend_repository.split
    export_sum(split, tmp_path / "sum.onnx")
    rng = np.random.default_rng(8)
    feed = {part.logits: rng.normal(size=(batch, 2)).astype(np.float32) for part in split}
    (found_BC,) = session(tmp_path / "sum.onnx").run(None, feed)
    expected_BC = 0.3 * feed["logits__mlp"] + 0.7 * feed["logits__trees"]
    np.testing.assert_allclose(found_BC, expected_BC, rtol=1e-6, atol=1e-6)


def test_the_logits_that_a_part_waits_for_do_not_change_its_own(
    blend_repository: BlendRepository,
) -> None:
    before, part = blend_repository.split
    x_BTF = windows()[:20]
    path = blend_repository.root / part_name(part) / str(VERSION) / "model.onnx"
    with torch.inference_mode():
        expected_BC = part.network(torch.from_numpy(x_BTF)).numpy()
    for value in (-5.0, 0.0, 5.0):
        feed = {INPUT_NAME: x_BTF, before.logits: np.full((20, 2), value, np.float32)}
        (found_BC,) = session(path).run(None, feed)
        np.testing.assert_allclose(found_BC, expected_BC, PARITY_LIMIT, PARITY_LIMIT)


@pytest.mark.parametrize(
    ("spec", "kind"), [(MlpSpec(hidden=8), "mlp"), (BlendSpec(hidden=8), "blend without trees")]
)
def test_a_model_without_parts_is_refused(spec: AnyNetworkSpec, kind: str) -> None:
    with pytest.raises(EngineError, match=f"kind {kind} has no parts") as caught:
        parts(network.build(spec))
    assert "tickline nightly --network blend" in caught.value.remedy


def test_boosting_alone_is_refused() -> None:
    with pytest.raises(EngineError, match="kind boosting has no parts"):
        parts(fitted(BoostingSpec(trees=LIMITS), windows()))
