"""The multi-layer perceptron: the same interface as the design's network."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from model_code.models import network
from model_code.models.mlp import SummaryMlp, mlp_flops
from model_code.models.summaries import COUNT, summaries, summarise
from model_code.settings import (
    FEATURE_COUNT,
    SEQUENCE_LENGTH,
    BlendSpec,
    MlpSpec,
    NightlySpec,
)

SPEC = MlpSpec(hidden=24, layers=2)


@pytest.fixture(scope="module", name="x_BTF")
def windows() -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.normal(1.0, 2.0, (96, SEQUENCE_LENGTH, FEATURE_COUNT)).astype(np.float32)


@pytest.fixture(scope="module")
def model(x_BTF: np.ndarray) -> SummaryMlp:
    torch.manual_seed(5)
    made = SummaryMlp(SPEC)
    ends_B = np.arange(len(x_BTF)) * SEQUENCE_LENGTH + SEQUENCE_LENGTH - 1
    made.fit_windows(x_BTF.reshape(-1, FEATURE_COUNT), ends_B)
    return made.eval()


def test_the_graph_sees_the_columns_that_boosting_sees(x_BTF: np.ndarray) -> None:
    rows_NF = x_BTF.reshape(-1, FEATURE_COUNT)
    ends_B = np.arange(len(x_BTF)) * SEQUENCE_LENGTH + SEQUENCE_LENGTH - 1
    found_BG = summarise(torch.from_numpy(x_BTF)).numpy()
    assert found_BG.shape == (len(x_BTF), COUNT)
    np.testing.assert_allclose(found_BG, summaries(rows_NF, ends_B), rtol=1e-5, atol=1e-5)


def test_each_summary_of_the_training_windows_is_standardised(
    model: SummaryMlp, x_BTF: np.ndarray
) -> None:
    s_BG = summarise(torch.from_numpy(x_BTF))
    z_BG = (s_BG - model.summary_mean_G) / model.summary_std_G
    np.testing.assert_allclose(z_BG.mean(dim=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(z_BG.std(dim=0, unbiased=False), 1.0, atol=1e-3)
    constant = SummaryMlp(SPEC)
    constant.fit_windows(np.ones((200, FEATURE_COUNT), np.float32), np.arange(63, 200))
    assert constant.summary_std_G.eq(1.0).all()


def test_logits_depend_on_the_summaries_alone(model: SummaryMlp, x_BTF: np.ndarray) -> None:
    swapped = x_BTF.copy()
    swapped[:, [20, 30]] = swapped[:, [30, 20]]  # in the same trailing means, no lagged row
    with torch.inference_mode():
        before, after = (model(torch.from_numpy(x)) for x in (x_BTF, swapped))
    np.testing.assert_allclose(before, after, atol=1e-5)
    assert before.shape == (len(x_BTF), 2)


def test_it_is_saved_and_read_back_as_its_own_kind(
    model: SummaryMlp, x_BTF: np.ndarray, tmp_path: Path
) -> None:
    network.save(model, tmp_path / "model.pt")
    found = network.load(tmp_path / "model.pt")
    assert isinstance(found, SummaryMlp)
    assert found.spec == SPEC
    with torch.inference_mode():
        x = torch.from_numpy(x_BTF)
        assert torch.equal(found(x), model(x))


def test_flops_count_the_products() -> None:
    assert mlp_flops(MlpSpec(hidden=10, layers=1)) == 2 * (COUNT * 10 + 10 * 2)
    assert mlp_flops(MlpSpec(hidden=10, layers=3)) == 2 * (COUNT * 10 + 2 * 100 + 10 * 2)
    assert network.flops_per_window(SPEC) == mlp_flops(SPEC)


def test_a_specification_without_a_kind_is_of_a_blend() -> None:
    assert NightlySpec.model_validate({"network": {"hidden": 16}}).network == BlendSpec(hidden=16)
    found = NightlySpec.model_validate({"network": {"KIND": "mlp", "hidden": 8}}).network
    assert found == MlpSpec(hidden=8)
    assert NightlySpec.model_validate_json(NightlySpec(network=found).model_dump_json()) == (
        NightlySpec(network=found)
    )
    with pytest.raises(ValidationError, match="d_model"):
        NightlySpec.model_validate({"network": {"KIND": "mlp", "d_model": 8}})


def member(model: SummaryMlp, index: int) -> SummaryMlp:
    """One member as a model of its own."""
    alone = SummaryMlp(model.spec)
    alone.members[0] = copy.deepcopy(model.members[index])
    return alone.eval()


def test_members_logits_are_averaged_and_their_losses_are_their_own(x_BTF: np.ndarray) -> None:
    torch.manual_seed(2)
    model = SummaryMlp(MlpSpec(hidden=8, layers=2, dropout=0.0), members=3).eval()
    x, label_B = torch.from_numpy(x_BTF), torch.arange(len(x_BTF)) % 2
    each = [member(model, index) for index in range(3)]
    with torch.inference_mode():
        logits = [one(x) for one in each]
        torch.testing.assert_close(model(x), torch.stack(logits).mean(dim=0))
    assert not torch.allclose(logits[0], logits[1]), "members start alike"

    model.loss(model.train()(x), label_B).backward()
    losses = [one.loss(one.train()(x), label_B) for one in each]
    torch.testing.assert_close(model.loss(model(x), label_B), torch.stack(losses).mean())
    losses[1].backward()
    for joint, own in zip(
        model.members[1].parameters(), each[1].members[0].parameters(), strict=True
    ):
        assert joint.grad is not None
        torch.testing.assert_close(joint.grad * 3, own.grad, rtol=1e-4, atol=1e-6)


def test_flops_count_every_member() -> None:
    spec = BlendSpec(hidden=8, layers=1, members=5)
    assert network.flops_per_window(spec) == 5 * mlp_flops(spec)
