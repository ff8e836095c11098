"""The network: independence of the batch, standardisation, sizes, files."""

import numpy as np
import pytest
import torch
from torch import nn

from model_code.errors import DataError, IntegrityError
from model_code.models import network, predictor
from model_code.models.dropout import BitDropout
from model_code.settings import NetworkSpec

TINY = NetworkSpec(d_model=16, heads=2, layers=1, feed_forward=32)


def perturbed(spec=TINY, seed=0):
    torch.manual_seed(seed)
    model = network.FinancialPredictor(spec).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def batch_dependence(model):
    """Largest difference of one window's logits between a batch of 1 and a batch of 8."""
    x_BTF = torch.randn(8, 64, 16, generator=torch.Generator().manual_seed(1))
    together_BC = model(x_BTF)
    alone_BC = torch.cat([model(x_BTF[i : i + 1]) for i in range(8)])
    return (together_BC - alone_BC).abs().max().item()


class AttendsAcrossTheBatch(network.FinancialPredictor):
    """What batch_first=False without a permute does."""

    def forward(self, x_BTF):
        h_BTD = self.convolution(x_BTF.transpose(1, 2)).transpose(1, 2)
        h_BTD = self.encoder(h_BTD.transpose(0, 1)).transpose(0, 1)
        return self.head(h_BTD.mean(dim=1))


@pytest.mark.parametrize("grad", [False, True], ids=["fused path", "plain path"])
def test_a_windows_logits_do_not_depend_on_its_batch(grad):
    with torch.set_grad_enabled(grad):
        assert batch_dependence(perturbed()) < 1e-5


def test_the_batch_test_catches_a_network_that_attends_across_the_batch():
    planted = AttendsAcrossTheBatch(TINY).eval()
    planted.load_state_dict(perturbed().state_dict())
    with torch.no_grad():
        assert batch_dependence(planted) > 1e-3


def test_default_sizes_are_those_of_the_design():
    model = network.FinancialPredictor(NetworkSpec())
    assert network.parameter_count(model) == 1_127_874
    assert network.flops_per_window(NetworkSpec()) == 147_194_112
    assert model(torch.zeros(3, 64, 16)).shape == (3, 2)


def test_standardisation_is_in_the_graph_and_uses_only_the_given_rows():
    rng = np.random.default_rng(0)
    features_NF = rng.normal(3.0, 2.0, (5000, 16)).astype(np.float32)
    rows_N = np.arange(5000) < 3000
    features_NF[3000:] = 1e6  # must not be used
    model = perturbed()
    model.fit_standardisation(features_NF, rows_N)
    used_NF = features_NF[:3000].astype(np.float64)
    np.testing.assert_allclose(model.feature_mean_F, used_NF.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(model.feature_std_F, used_NF.std(axis=0), rtol=1e-6)

    plain = perturbed()
    x_BTF = torch.from_numpy(features_NF[:128].reshape(2, 64, 16))
    z_BTF = (x_BTF - model.feature_mean_F) / model.feature_std_F
    torch.testing.assert_close(model(x_BTF), plain(z_BTF))


def test_standardisation_does_not_depend_on_the_chunks(monkeypatch):
    features_NF = np.random.default_rng(1).normal(1e4, 1.0, (1000, 16)).astype(np.float32)
    whole, chunked = perturbed(), perturbed()
    whole.fit_standardisation(features_NF)
    monkeypatch.setattr(predictor, "ROWS_PER_CHUNK", 7)
    chunked.fit_standardisation(features_NF)
    torch.testing.assert_close(chunked.feature_mean_F, whole.feature_mean_F)
    torch.testing.assert_close(chunked.feature_std_F, whole.feature_std_F, rtol=1e-5, atol=0)


def test_a_constant_feature_and_an_outlier_stay_bounded():
    features_NF = np.random.default_rng(2).normal(size=(500, 16)).astype(np.float32)
    features_NF[:, 3] = 0.1
    model = perturbed()
    model.fit_standardisation(features_NF)
    assert model.feature_std_F[3] == 1.0
    x_BTF = torch.from_numpy(features_NF[:64])[None].clone()
    x_BTF[0, -1, 0] = 1e9
    once = model(x_BTF)
    x_BTF[0, -1, 0] = 1e12
    torch.testing.assert_close(model(x_BTF), once)
    assert once.isfinite().all()


def test_nan_input_gives_nan_logits():
    x_BTF = torch.zeros(1, 64, 16)
    x_BTF[0, 5, 2] = torch.nan
    assert perturbed()(x_BTF).isnan().all()


@pytest.mark.parametrize(
    ("features_NF", "message"),
    [
        (np.ones((10, 3), np.float32), "expected"),
        (np.full((10, 16), np.nan, np.float32), "not finite"),
        (np.empty((0, 16), np.float32), "no training row"),
    ],
)
def test_invalid_rows_are_refused(features_NF, message):
    with pytest.raises(DataError, match=message):
        perturbed().fit_standardisation(features_NF)


def test_bit_dropout_is_dropout():
    torch.manual_seed(0)
    x = torch.ones(1000, 1001, requires_grad=True)
    y = BitDropout(0.1)(x)
    y.sum().backward()
    kept = y != 0
    assert abs(1 - kept.float().mean().item() - 0.1) < 0.002
    assert torch.equal(y[kept].unique(), torch.tensor([1.0]) / 0.9)
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())
    assert torch.equal(BitDropout(0.1).eval()(x), x)
    assert torch.equal(BitDropout(0.0)(x), x)
    rows, columns = kept.float().mean(1), kept.float().mean(0)
    assert rows.std() < 0.015  # 0.0095 if elements are independent
    assert columns.std() < 0.015


def test_dropout_follows_torchs_seed():
    layer, x = BitDropout(0.5), torch.ones(64, 64)
    torch.manual_seed(5)
    first = layer(x)
    assert not torch.equal(layer(x), first)
    torch.manual_seed(5)
    assert torch.equal(layer(x), first)


def test_saved_and_loaded_is_the_same_network(tmp_path):
    model = perturbed()
    model.fit_standardisation(np.random.default_rng(0).normal(size=(99, 16)).astype(np.float32))
    network.save(model, tmp_path / "model.pt")
    loaded = network.load(tmp_path / "model.pt")
    assert not loaded.training
    assert loaded.spec == model.spec
    assert network.state_digest(loaded.state_dict()) == network.state_digest(model.state_dict())
    x_BTF = torch.randn(2, 64, 16)
    assert torch.equal(loaded(x_BTF), model(x_BTF))


def payload(**changes):
    state = perturbed().state_dict()
    return {
        "format": network.FORMAT,
        "spec": TINY.model_dump(),
        "state": state,
        "sha256": network.state_digest(state),
    } | changes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (payload(format="other-9"), "format 'other-9'"),
        (payload(sha256="0" * 64), "differ from those that were saved"),
        (payload(spec=TINY.model_dump() | {"layers": 0}), "not a NetworkSpec"),
        (payload(spec=TINY.model_dump() | {"layers": 2}), "loading state_dict"),
        (payload(state=None), "NoneType"),
        ({"format": network.FORMAT}, "sha256"),
        ([1, 2], "not a dictionary"),
    ],
)
def test_a_file_that_is_not_a_saved_network_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(IntegrityError, match=message):
        network.load(tmp_path / "model.pt")


def test_code_in_a_file_is_never_executed(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")  # a whole module needs unpickling
    with pytest.raises(IntegrityError, match=r"model\.pt cannot be used"):
        network.load(tmp_path / "model.pt")


def test_a_missing_truncated_or_altered_file_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    with pytest.raises(IntegrityError, match="No such file"):
        network.load(path)
    network.save(perturbed(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IntegrityError, match="cannot be used"):
        network.load(path)
    path.write_bytes(b"")
    with pytest.raises(IntegrityError, match="cannot be used"):
        network.load(path)
    needle = perturbed().state_dict()["head.weight"].numpy().tobytes()
    assert whole.count(needle) == 1
    path.write_bytes(whole.replace(needle, bytes(len(needle))))
    with pytest.raises(IntegrityError, match="cannot be used"):
        network.load(path)


@pytest.mark.parametrize("shift", [network.SHIFT, 0.0])
def test_the_windows_ends_are_visible_only_by_the_shift(monkeypatch, shift):
    monkeypatch.setattr(network, "SHIFT", shift)
    model = perturbed()
    seen = []
    model.convolution.register_forward_hook(lambda *call: seen.append(call[2][0]))
    model(model.feature_mean_F.expand(1, 64, 16))  # every row is the mean row
    first_D, inside_D, last_D = seen[0][:, 0], seen[0][:, 30], seen[0][:, 63]
    for end_D in (first_D, last_D):
        assert torch.allclose(end_D, inside_D, atol=1e-5) == (shift == 0.0)
