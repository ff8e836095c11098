"""The smaller encoder with positions: what it sees, its size, and that it is saved as its kind."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from model_code.models import network
from model_code.models.mlp import mlp_flops
from model_code.models.transformer2 import ConvTransformer2, transformer2_flops
from model_code.settings import (
    FEATURE_COUNT,
    PRESETS,
    SEQUENCE_LENGTH,
    ConvTransformer2Spec,
    MlpSpec,
    NightlySpec,
)

SPEC = ConvTransformer2Spec(d_model=16, heads=2, layers=1, feed_forward=32)
ALONE = SPEC.model_copy(update={"branch": False})


@pytest.fixture(scope="module", name="x_BTF")
def windows() -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.normal(1.0, 2.0, (96, SEQUENCE_LENGTH, FEATURE_COUNT)).astype(np.float32)


def fitted(spec: ConvTransformer2Spec, x_BTF: np.ndarray) -> ConvTransformer2:
    torch.manual_seed(5)
    made = network.build(spec)
    assert isinstance(made, ConvTransformer2)
    rows_NF = x_BTF.reshape(-1, FEATURE_COUNT)
    made.fit_standardisation(rows_NF)
    made.fit_windows(rows_NF, np.arange(len(x_BTF)) * SEQUENCE_LENGTH + SEQUENCE_LENGTH - 1)
    return made.eval()


def logits(model: ConvTransformer2, x_BTF: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        logits_BC: torch.Tensor = model(torch.from_numpy(x_BTF))
    return logits_BC.numpy()


def test_the_order_of_rows_and_the_newest_row_count(x_BTF: np.ndarray) -> None:
    model = fitted(ALONE, x_BTF)
    before_BC = logits(model, x_BTF)
    assert before_BC.shape == (len(x_BTF), 2)
    turned = x_BTF.copy()
    turned[:, 8:56] = turned[:, 8:56][:, ::-1]  # far from the newest row and the padding
    assert np.abs(logits(model, turned) - before_BC).max() > 1e-4
    with torch.no_grad():
        model.head.weight[:, 16:] = 0.0  # only the newest row is read out
        model.position_TD.zero_()
        model.encoder.layers[0].self_attn.out_proj.weight.zero_()  # rows do not see each other
    older = x_BTF.copy()
    older[:, :62] = 0.0  # the convolution sees one row before
    np.testing.assert_allclose(logits(model, older), logits(model, x_BTF), atol=1e-5)
    newest = x_BTF.copy()
    newest[:, 63] += 1.0
    assert np.abs(logits(model, newest) - logits(model, x_BTF)).max() > 1e-3


def test_the_branch_adds_the_perceptrons_logits(x_BTF: np.ndarray) -> None:
    model = fitted(SPEC, x_BTF)
    assert model.mlp is not None
    assert not model.mlp.summary_std_G.eq(1.0).any(), "the branch's summaries are standardised"
    both_BC = logits(model, x_BTF)
    with torch.inference_mode():
        branch_BC = model.mlp(torch.from_numpy(x_BTF)).numpy()
    model.mlp = None
    np.testing.assert_allclose(both_BC - branch_BC, logits(model, x_BTF), atol=1e-5)


@pytest.mark.parametrize("spec", [SPEC, ALONE], ids=["branch", "alone"])
def test_it_is_saved_and_read_back_as_its_own_kind(
    spec: ConvTransformer2Spec, x_BTF: np.ndarray, tmp_path: Path
) -> None:
    model = fitted(spec, x_BTF)
    network.save(model, tmp_path / "model.pt")
    found = network.load(tmp_path / "model.pt")
    assert isinstance(found, ConvTransformer2)
    assert found.spec == spec
    np.testing.assert_array_equal(logits(found, x_BTF), logits(model, x_BTF))


def test_every_parameter_is_trained(x_BTF: np.ndarray) -> None:
    model = fitted(SPEC, x_BTF).train()
    label_B = torch.arange(len(x_BTF)) % 2
    model.loss(model(torch.from_numpy(x_BTF)), label_B, 0.1).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_flops_count_the_products() -> None:
    convolution = 64 * 16 * 3 * 16
    layer = 4 * 64 * 16 * 16 + 2 * 64 * 64 * 16 + 2 * 64 * 16 * 32
    alone = 2 * (convolution + layer + 2 * 16 * 2)
    assert transformer2_flops(ALONE) == network.flops_per_window(ALONE) == alone
    assert transformer2_flops(SPEC) == alone + mlp_flops(MlpSpec())


def test_the_preset_and_its_limits() -> None:
    found = NightlySpec.model_validate(PRESETS["transformer-2"])
    assert found.network == ConvTransformer2Spec()
    assert [model.name for model in found.models] == ["conv-transformer-2"]
    with pytest.raises(ValidationError, match="3 heads do not divide d_model 64"):
        ConvTransformer2Spec(heads=3)
