import numpy as np
import pytest
import torch

from model_code.errors import EngineError
from model_code.export import pruning
from model_code.models.network import FinancialPredictor, flops_per_window
from model_code.settings import NetworkSpec

SPEC = NetworkSpec(d_model=16, heads=2, layers=2, feed_forward=64, dropout=0.0)


@pytest.fixture(name="x_BTF")
def windows():
    return np.random.default_rng(0).normal(0, 1, (48, 64, 16)).astype(np.float32)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return FinancialPredictor(SPEC).eval()


def redundant(model):
    """The same function needs a quarter of the units: each exists four times."""
    with torch.no_grad():
        for layer in model.encoder.layers:
            layer.linear1.weight.copy_(layer.linear1.weight[:16].repeat(4, 1))
            layer.linear1.bias.copy_(layer.linear1.bias[:16].repeat(4))
    return model


def answers(model, x_BTF):
    with torch.inference_mode():
        return model(torch.from_numpy(x_BTF)).softmax(1)[:, 1].numpy()


def test_units_that_copy_others_are_removed_at_no_cost(model, x_BTF):
    wide = redundant(model)
    [(_, narrow)] = pruning.prune(wide, x_BTF, (16,))
    fresh = np.random.default_rng(1).normal(0, 1, (16, 64, 16)).astype(np.float32)
    np.testing.assert_allclose(answers(narrow, fresh), answers(wide, fresh), atol=1e-4)
    assert flops_per_window(narrow.spec) < flops_per_window(SPEC)


def test_the_narrowest_within_the_budget_is_chosen(model, x_BTF):
    found = pruning.choose(redundant(model), x_BTF)
    assert found.within_budget
    assert found.width <= 16
    assert found.max_abs_dp <= pruning.MAX_ABS_DP


def test_the_wide_network_is_not_changed(model, x_BTF):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    list(pruning.prune(model, x_BTF, (16,)))
    for name, tensor in model.state_dict().items():
        assert torch.equal(before[name], tensor)


def test_refitting_beats_cutting(model, x_BTF):
    (_, narrow), (_, half) = pruning.prune(model, x_BTF, (32, 8))
    cut = FinancialPredictor(SPEC.model_copy(update={"feed_forward": 8})).eval()
    state = dict(narrow.state_dict())
    for name, tensor in model.state_dict().items():
        if "linear2.weight" in name:
            state[name] = tensor[:, :8]
        elif "linear2.bias" in name:
            state[name] = tensor
    cut.load_state_dict(state)
    expected = answers(model, x_BTF)
    errors = [np.abs(answers(net, x_BTF) - expected).mean() for net in (half, narrow, cut)]
    assert errors == sorted(errors)


def test_the_widest_is_chosen_if_none_is_within_the_budget(model, x_BTF, monkeypatch):
    monkeypatch.setattr(pruning, "MAX_ABS_DP", 0.0)
    found = pruning.choose(model, x_BTF)
    assert (found.width, found.within_budget) == (32, False)
    assert found.max_abs_dp > 0


def test_a_second_run_gives_the_same_weights(model, x_BTF):
    first, second = (dict(pruning.prune(model, x_BTF, (16,)))[16] for _ in range(2))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("count", "widths"), [(1, (16,)), (48, (64,)), (48, (0,))])
def test_too_few_windows_or_no_smaller_width_is_refused(model, x_BTF, count, widths):
    with pytest.raises(EngineError, match="cannot prune 64 hidden units"):
        list(pruning.prune(model, x_BTF[:count], widths))
