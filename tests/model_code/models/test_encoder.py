"""The encoder layer for CPU training: torch's values and gradients, dropout as it should be."""

import pytest
import torch
from torch import Tensor, nn

from model_code.models import encoder
from model_code.models.encoder import EncoderLayer

B, T, D, W = 3, 64, 16, 40


def pair(dropout: float, *, norm_first: bool) -> tuple[EncoderLayer, nn.TransformerEncoderLayer]:
    """Our layer and torch's, with the same weights."""
    torch.manual_seed(3)
    ours = EncoderLayer(D, 4, W, dropout, norm_first=norm_first)
    theirs = nn.TransformerEncoderLayer(D, 4, W, dropout, batch_first=True, norm_first=norm_first)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def gradients(layer: nn.Module, x_BTD: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The layer's output, and the gradients of input and parameters."""
    x_BTD = x_BTD.clone().requires_grad_()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        y_BTD = layer(x_BTD)
    (y_BTD.float() * torch.linspace(-1, 1, D)).sum().backward()
    assert x_BTD.grad is not None
    found = [parameter.grad for parameter in layer.parameters()]
    return (y_BTD.detach().float(), x_BTD.grad, *(g for g in found if g is not None))


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)], ids=["fp32", "bf16"]
)
def test_without_dropout_output_and_gradients_are_torchs(
    monkeypatch: pytest.MonkeyPatch, norm_first: bool, dtype: torch.dtype, tolerance: float
) -> None:
    monkeypatch.setattr(encoder, "CHUNK_BYTES", 5000)  # several chunks, the last one shorter
    ours, theirs = pair(0.0, norm_first=norm_first)
    x_BTD = torch.randn(B, T, D)
    found, expected = gradients(ours, x_BTD, dtype), gradients(theirs, x_BTD, dtype)
    assert len(found) == len(expected) == 14
    for one, other in zip(found, expected, strict=True):
        # in BF16 a value near 0 may pass ReLU in one and not in the other
        assert (one - other).norm() <= tolerance * other.norm() + 1e-4


def test_attention_under_autocast_is_computed_in_fp32_as_torch_does() -> None:
    """In BF16 the softmax's gradient loses its small differences, and training is slower."""
    ours, _ = pair(0.0, norm_first=False)
    x_BTD = torch.randn(B, T, D)
    seen: list[torch.dtype] = []
    real = torch.softmax

    def softmax(scores_ATT: Tensor, dim: int) -> Tensor:
        seen.append(scores_ATT.dtype)
        return real(scores_ATT, dim)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "softmax", softmax)
        gradients(ours, x_BTD, torch.bfloat16)
    assert seen == [torch.float32]


@pytest.mark.parametrize("norm_first", [False, True])
def test_evaluation_is_torchs_bit_for_bit(norm_first: bool) -> None:
    ours, theirs = pair(0.1, norm_first=norm_first)
    x_BTD = torch.randn(B, T, D)
    with torch.inference_mode():
        assert torch.equal(ours.eval()(x_BTD), theirs.eval()(x_BTD))


def test_the_gradient_is_that_of_the_same_dropout_mask() -> None:
    """Central differences in FP32, the mask fixed by the seed."""
    torch.manual_seed(0)
    x_ND, w1_WD, w2_DW = torch.randn(8, D), torch.randn(W, D), torch.randn(D, W)
    b1_W, b2_D, step_ND = torch.randn(W), torch.randn(D), torch.randn(8, D)

    def value(x_ND: Tensor) -> Tensor:
        torch.manual_seed(1)
        y_ND = encoder._FeedForward.apply(x_ND, w1_WD, b1_W, w2_DW, b2_D, 0.3)
        return torch.as_tensor(y_ND).square().sum()

    x_ND.requires_grad_()
    value(x_ND).backward()
    assert x_ND.grad is not None
    with torch.no_grad():
        h = 1e-3
        numeric = (value(x_ND + h * step_ND) - value(x_ND - h * step_ND)) / (2 * h)
    torch.testing.assert_close((x_ND.grad * step_ND).sum(), numeric, rtol=2e-3, atol=0.0)


def test_the_gradient_of_attention_is_that_of_the_same_mask() -> None:
    torch.manual_seed(0)
    q_ATE, k_ATE, v_ATE, step_ATE = torch.randn(4, 6, T, 8).unbind()

    def value(q_ATE: Tensor, k_ATE: Tensor, v_ATE: Tensor) -> Tensor:
        torch.manual_seed(1)
        o_ATE = encoder._Attention.apply(q_ATE, k_ATE, v_ATE, 0.3)
        return torch.as_tensor(o_ATE).square().sum()

    inputs = [tensor.requires_grad_() for tensor in (q_ATE, k_ATE, v_ATE)]
    value(*inputs).backward()
    for place, tensor in enumerate(inputs):
        moved = [[*inputs], [*inputs]]
        with torch.no_grad():
            h = 1e-2
            moved[0][place], moved[1][place] = tensor + h * step_ATE, tensor - h * step_ATE
            numeric = (value(*moved[0]) - value(*moved[1])) / (2 * h)
        assert tensor.grad is not None
        torch.testing.assert_close((tensor.grad * step_ATE).sum(), numeric, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5])
def test_elements_are_dropped_independently_with_the_stated_probability(
    dtype: torch.dtype, p: float
) -> None:
    count = 2**20
    kept = torch.ones(count, dtype=dtype)
    encoder._relu_and_drop(kept, 12345, round(p * 65536), 0)
    dropped = (kept == 0).double()
    error = (p * (1 - p) / count) ** 0.5
    assert abs(dropped.mean() - p) <= 5 * error
    for lag in (1, 2, 3, 64, 2048):  # neighbours, also within a pair, are uncorrelated
        together = (dropped[lag:] * dropped[:-lag]).mean()
        assert abs(together - p * p) <= 5 * (p * p * (1 - p * p) / count) ** 0.5 + 1e-12


def test_another_key_drops_other_elements_and_chunks_continue_the_same_draw() -> None:
    one, other, parts = torch.ones(4096), torch.ones(4096), torch.ones(4096)
    encoder._relu_and_drop(one, 1, 32768, 0)
    encoder._relu_and_drop(other, 2, 32768, 0)
    for start in range(0, 4096, 512):
        encoder._relu_and_drop(parts[start : start + 512], 1, 32768, start)
    assert not torch.equal(one, other)
    assert torch.equal(one, parts)


@pytest.mark.parametrize(
    ("dtype", "integer", "negative_nan"),
    [
        (torch.float32, torch.int32, -0x400000),
        (torch.bfloat16, torch.int16, -0x40),
        (torch.float16, torch.int16, -0x200),
    ],
    ids=["fp32", "bf16", "fp16"],
)
def test_relu_and_its_gradient_treat_negative_zero_and_nan_as_torch_does(
    dtype: torch.dtype, integer: torch.dtype, negative_nan: int
) -> None:
    """A processor's own NaN has its sign bit set."""
    both = [
        torch.tensor([float("nan")], dtype=dtype),
        torch.tensor([negative_nan], dtype=integer).view(dtype),
    ]
    assert both[1].isnan()
    numbers = [1.5, -2.0, 0.0, -0.0, float("inf"), float("-inf")]
    value = torch.cat([torch.tensor(numbers, dtype=dtype), *both])
    expected = value.relu()
    encoder._relu_and_drop(value, 7, 0, 0)
    torch.testing.assert_close(value, expected, equal_nan=True)
    gradient = torch.ones_like(value)
    encoder._clear_where_zero(gradient, value)
    assert gradient.tolist() == [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0]


def test_a_probability_that_rounds_to_1_drops_nearly_all() -> None:
    _, dropped, scale = encoder._draw(0.9999999)
    assert (dropped, scale) == (65535, 65536.0)
