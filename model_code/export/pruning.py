"""Feed-forward pruning: fewer hidden units, the second matrix refitted in closed form.

Nine tenths of the network's arithmetic is in the feed-forward layers. Their hidden units are
removed in steps, first those that the remaining units compensate best (Hassibi and Stork 1993,
"Optimal Brain Surgeon", applied to whole units). Then least squares refits the second matrix,
layer by layer: each layer of the narrow network, with the narrow layers before it as input,
reproduces the wide layer's output. There is no training and no randomness.

Shapes: B windows, T steps, F features, N tokens (B x T), D channels, H hidden units.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from model_code.errors import EngineError
from model_code.models.network import FinancialPredictor
from model_code.models.probability import probability
from model_code.settings import AnyNetworkSpec, ConvTransformer2Spec, NetworkSpec
from model_code.training.threshold import DEFAULT_THRESHOLD, decide

FRACTIONS = (1 / 8, 1 / 4, 3 / 8, 1 / 2)  # of the hidden units to keep; the first in budget wins
MAX_ABS_DP = 0.0125  # largest probability difference allowed on windows held out of the fit
MAX_FLIP_FRACTION = 0.005  # largest share of flipped decisions allowed on them
HELD_OUT = 4  # one window in this many is held out
STEP = 0.125  # share of the remaining units removed before their importance is updated
RIDGE = 1e-4  # of the mean squared activation: keeps the fit solvable if units are copies
BATCH = 128  # windows; bounds the memory of the hidden activations
TOKENS = 1 << 15  # limit of the fit; many thinned windows carry more information than few full ones


@dataclass(frozen=True)
class Pruned:
    """A narrower network and its deviation from the wide one, on windows held out of the fit.

    Attributes:
        model: the narrow network, in evaluation mode.
        width: hidden units kept in each layer.
        max_abs_dp: largest difference of a probability to the wide network.
        flip_fraction: share of windows whose decision differs (flips).
        within_budget: whether both are within the limits; False means that no width was.
    """

    model: FinancialPredictor
    width: int
    max_abs_dp: float
    flip_fraction: float
    within_budget: bool


def not_prunable(spec: AnyNetworkSpec) -> str | None:
    """Why a network of this kind cannot be pruned; None if it can."""
    if isinstance(spec, NetworkSpec):
        return None
    if isinstance(spec, ConvTransformer2Spec):
        return f"a network of kind {spec.KIND} is not pruned: its feed-forward layers are narrow"
    return f"a network of kind {spec.KIND} has no feed-forward layers to prune"


def choose(
    model: FinancialPredictor, x_BTF: np.ndarray, threshold: float = DEFAULT_THRESHOLD
) -> Pruned:
    """The narrowest network within the budget, or the widest tried if none is.

    Args:
        model: in evaluation mode; not changed.
        x_BTF: raw training windows; three quarters are used for the fit, the others held out.
        threshold: probability from which a window counts as class 1, for the flips.

    Raises:
        EngineError: the windows are too few.
    """
    held = np.arange(len(x_BTF)) % HELD_OUT == 0
    widths = [max(1, int(part * model.spec.feed_forward)) for part in FRACTIONS]
    expected_B = _probability(model, x_BTF[held])
    found = None
    for width, narrow in prune(model, x_BTF[~held], tuple(widths)):
        answer_B = _probability(narrow, x_BTF[held])
        worst = float(np.abs(answer_B - expected_B).max())
        flips = float((decide(answer_B, threshold) != decide(expected_B, threshold)).mean())
        within = worst <= MAX_ABS_DP and flips <= MAX_FLIP_FRACTION
        found = Pruned(narrow, width, worst, flips, within)
        if within:
            break
    assert found is not None, "some width is always tried"  # noqa: S101
    return found


def prune(
    model: FinancialPredictor, x_BTF: np.ndarray, widths: tuple[int, ...]
) -> Iterator[tuple[int, FinancialPredictor]]:
    """Narrower networks of the same function, one for each width, narrowest first.

    Args:
        model: in evaluation mode; not changed.
        x_BTF: raw training windows to fit on.
        widths: hidden units to keep, each fewer than the network's.

    Raises:
        EngineError: a width is not smaller than the network's, or the windows are too few.
    """
    hidden, tokens = model.spec.feed_forward, len(x_BTF) * x_BTF.shape[1]
    if not all(0 < width < hidden for width in widths) or tokens < 2 * hidden:
        raise EngineError(
            f"cannot prune {hidden} hidden units to {widths} with {tokens} tokens",
            remedy="pass more calibration windows",
        )
    with torch.no_grad():
        first_BTD = _embed(model, torch.from_numpy(x_BTF))
        kept, wide_BTD = [], first_BTD
        for layer in _layers(model):
            middle_BTD = _attend(layer, wide_BTD)
            kept.append(_select(layer, middle_BTD, widths))
            wide_BTD = _finish(layer, middle_BTD, _feed_forward(layer, middle_BTD))
    for width in sorted(set(widths)):
        with torch.no_grad():
            narrow = _refit(model, width, [units[width] for units in kept], first_BTD)
        yield width, narrow


def _probability(model: FinancialPredictor, x_BTF: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        logits = [model(batch).numpy() for batch in torch.split(torch.from_numpy(x_BTF), BATCH)]
    return probability(np.concatenate(logits))


def _refit(
    model: FinancialPredictor, width: int, kept: list[Tensor], first_BTD: Tensor
) -> FinancialPredictor:
    """The network with the kept units of each layer and refitted second matrices."""
    narrow = FinancialPredictor(model.spec.model_copy(update={"feed_forward": width})).eval()
    cut = {"linear1.weight": 0, "linear1.bias": 0, "linear2.weight": 1}
    state = dict(model.state_dict())
    for index, units in enumerate(kept):
        for name, axis in cut.items():
            key = f"encoder.layers.{index}.{name}"
            state[key] = state[key].index_select(axis, units)
    narrow.load_state_dict(state)
    wide_BTD = narrow_BTD = first_BTD
    for layer, thin in zip(_layers(model), _layers(narrow), strict=True):
        middle_BTD, thin_BTD = _attend(layer, wide_BTD), _attend(thin, narrow_BTD)
        answer_BTD = _feed_forward(layer, middle_BTD)
        # includes both sides of the residual, to compensate for the error of earlier layers too
        target_BTD = middle_BTD + answer_BTD - thin_BTD
        _fit_second(thin, _thin(thin_BTD), _thin(target_BTD))
        wide_BTD = _finish(layer, middle_BTD, answer_BTD)
        narrow_BTD = _finish(thin, thin_BTD, _feed_forward(thin, thin_BTD))
    return narrow


def _select(
    layer: nn.TransformerEncoderLayer, middle_BTD: Tensor, widths: tuple[int, ...]
) -> dict[int, Tensor]:
    """Indices of the units to keep, for each width, ascending."""
    hidden = layer.linear1.out_features
    gram_HH = torch.zeros(hidden, hidden, dtype=torch.float64)
    for h_NH in _hidden(layer, _thin(middle_BTD)):
        gram_HH += h_NH.T @ h_NH
    gram_HH.diagonal().add_(RIDGE * gram_HH.diagonal().mean())
    units = torch.arange(len(gram_HH))
    weight_DH = layer.linear2.weight.double().clone()
    found = {}
    for width in sorted(widths, reverse=True):
        while len(units) > width:
            inverse_HH = torch.cholesky_inverse(torch.linalg.cholesky(gram_HH[units][:, units]))
            count = max(1, min(int(STEP * len(units)), len(units) - width))
            cut = _least_important(inverse_HH, weight_DH, count)
            kept = torch.tensor(sorted(set(range(len(units))) - set(cut.tolist())))
            # the kept units compensate for the cut ones as far as they can
            share = torch.linalg.solve(inverse_HH[cut][:, cut], inverse_HH[cut][:, kept])
            weight_DH = weight_DH[:, kept] - weight_DH[:, cut] @ share
            units = units[kept]
        found[width] = units
    return found


def _least_important(inverse_HH: Tensor, weight_DH: Tensor, count: int) -> Tensor:
    """The `count` units to remove, chosen one after another: only one of two copies is redundant.

    Considers only the `2 * count` units that are individually least important, to bound the work.
    """
    alone_H = weight_DH.square().sum(0) / inverse_HH.diagonal()
    candidates = alone_H.argsort()[: 2 * count]
    inverse_CC = inverse_HH[candidates][:, candidates].clone()
    weight_DC = weight_DH[:, candidates].clone()
    cut: list[int] = []
    for _ in range(count):
        loss_C = weight_DC.square().sum(0) / inverse_CC.diagonal()
        loss_C[cut] = torch.inf
        unit = int(loss_C.argmin())
        row_C = inverse_CC[unit] / inverse_CC[unit, unit]
        weight_DC -= torch.outer(weight_DC[:, unit].clone(), row_C)
        inverse_CC -= torch.outer(inverse_CC[:, unit].clone(), row_C)
        cut.append(unit)
    return candidates[cut]


def _fit_second(layer: nn.TransformerEncoderLayer, middle_BTD: Tensor, target_BTD: Tensor) -> None:
    """Least squares of `linear2` so that the feed-forward of `middle_BTD` is `target_BTD`."""
    width = layer.linear2.in_features + 1
    gram_HH = torch.zeros(width, width, dtype=torch.float64)
    cross_HD = torch.zeros(width, target_BTD.shape[-1], dtype=torch.float64)
    for h_NH, target_BTd in zip(
        _hidden(layer, middle_BTD), torch.split(target_BTD, BATCH), strict=True
    ):
        one_NH = torch.nn.functional.pad(h_NH, (0, 1), value=1.0)  # the bias is fitted too
        gram_HH += one_NH.T @ one_NH
        cross_HD += one_NH.T @ target_BTd.flatten(0, 1)
    # regularised towards the current weights, not towards zero
    before_HD = torch.cat([layer.linear2.weight.T, layer.linear2.bias[None]]).double()
    ridge = RIDGE * gram_HH.diagonal().mean()
    gram_HH.diagonal().add_(ridge)
    fitted_HD = torch.linalg.solve(gram_HH, cross_HD + ridge * before_HD).float()
    layer.linear2.weight.copy_(fitted_HD[:-1].T)
    layer.linear2.bias.copy_(fitted_HD[-1])


def _thin(h_BTD: Tensor) -> Tensor:
    """Every n-th step of each window, at most `TOKENS` in total."""
    return h_BTD[:, :: max(1, -(-h_BTD.shape[0] * h_BTD.shape[1] // TOKENS))]


def _layers(model: FinancialPredictor) -> list[nn.TransformerEncoderLayer]:
    return [
        layer for layer in model.encoder.layers if isinstance(layer, nn.TransformerEncoderLayer)
    ]


def _embed(model: FinancialPredictor, x_BTF: Tensor) -> Tensor:
    return model.convolution(model.standardise(x_BTF).transpose(1, 2)).transpose(1, 2)  # type: ignore[no-any-return]


def _attend(layer: nn.TransformerEncoderLayer, h_BTD: Tensor) -> Tensor:
    """The first half of a post-norm layer."""
    return torch.cat(
        [
            layer.norm1(h + layer.self_attn(h, h, h, need_weights=False)[0])
            for h in torch.split(h_BTD, BATCH)
        ]
    )


def _hidden(layer: nn.TransformerEncoderLayer, middle_BTD: Tensor) -> Iterator[Tensor]:
    for middle in torch.split(middle_BTD, BATCH):
        yield torch.relu(layer.linear1(middle.flatten(0, 1)))


def _feed_forward(layer: nn.TransformerEncoderLayer, middle_BTD: Tensor) -> Tensor:
    answers = [layer.linear2(h_NH) for h_NH in _hidden(layer, middle_BTD)]
    return torch.cat(answers).view_as(middle_BTD)


def _finish(layer: nn.TransformerEncoderLayer, middle_BTD: Tensor, answer_BTD: Tensor) -> Tensor:
    """The second half of a post-norm layer, given its feed-forward output."""
    return layer.norm2(middle_BTD + answer_BTD)  # type: ignore[no-any-return]
