"""A multi-layer perceptron on summaries of the window.

A plain perceptron on hand-made columns is hard to beat on order-book data: Berti and Kasneci 2025,
"TLOB", arXiv 2502.15757. This one sees gradient boosting's columns (`summaries`), each standardised
inside the graph, and needs a thousandth of the design network's arithmetic.

Shapes: B windows, T steps (64), F features (16), G summary columns (112), H hidden units,
C classes (2), M members.
"""

import numpy as np
import torch
from torch import Tensor, nn

from model_code.features.column import Column
from model_code.models.dropout import BitDropout
from model_code.models.predictor import CLAMP, WindowModel, cross_entropy
from model_code.models.summaries import COUNT, summaries, summarise
from model_code.settings import CLASS_COUNT, MlpSpec, PerceptronSpec


class SummaryMlp(WindowModel):
    """Summaries -> hidden layers with ReLU and dropout -> logits, averaged over the members.

    All members are trained in the same steps, with their own initialisation and dropout. Their
    losses share no weight, so each member's gradient is the one it would have alone; the gradient's
    norm, which `clip_norm` limits, is that of all. Source: Lakshminarayanan et al. 2017, "Simple
    and Scalable Predictive Uncertainty Estimation using Deep Ensembles".

    Args:
        spec: sizes of each member.
        members: how many.
    """

    spec: MlpSpec
    summary_mean_G: Tensor
    summary_std_G: Tensor

    def __init__(self, spec: MlpSpec, members: int = 1) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("summary_mean_G", torch.zeros(COUNT))
        self.register_buffer("summary_std_G", torch.ones(COUNT))
        self.members = nn.ModuleList(_perceptron(spec) for _ in range(members))

    def forward(self, x_BTF: Tensor) -> Tensor:
        """Return logits_BC for raw features x_BTF; in training logits_MBC of several members."""
        return self.of_summaries(summarise(x_BTF))

    def of_summaries(self, x_BG: Tensor) -> Tensor:
        """The same of the windows' summaries."""
        z_BG = (x_BG - self.summary_mean_G) / self.summary_std_G
        z_BG = z_BG.clamp(-CLAMP, CLAMP)
        logits: list[Tensor] = [member(z_BG) for member in self.members]
        if self.training and len(logits) > 1:
            return torch.stack(logits)
        return sum(logits[1:], logits[0]) / len(logits) if len(logits) > 1 else logits[0]

    def loss(self, logits: Tensor, label_B: Tensor, smoothing: float = 0.0) -> Tensor:
        """Mean of the members' own cross-entropies: AdamW's steps do not depend on its scale."""
        label = label_B.repeat(len(self.members))
        return cross_entropy(logits.reshape(len(label), CLASS_COUNT), label, smoothing)

    def heads(self) -> list[nn.Linear]:
        """One of each member."""
        layers = [list(member.children())[-1] for member in self.members]
        return [layer for layer in layers if isinstance(layer, nn.Linear)]

    def fit_windows(self, features_NF: Column, ends_B: np.ndarray) -> None:
        """Set the graph's mean and deviation of each summary from the training windows.

        A mean over 64 rows varies less than a single row: each summary has its own deviation. A
        constant one gets deviation 1.
        """
        x_BG = summaries(features_NF, ends_B).astype(np.float64)
        mean_G, std_G = x_BG.mean(axis=0), x_BG.std(axis=0)
        std_G[std_G <= 1e-6 * np.maximum(np.abs(mean_G), 1e-6)] = 1.0
        self.summary_mean_G.copy_(torch.from_numpy(mean_G))
        self.summary_std_G.copy_(torch.from_numpy(std_G))


def _perceptron(spec: MlpSpec) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = COUNT
    for _ in range(spec.layers):
        layers += [nn.Linear(width, spec.hidden), nn.ReLU(), BitDropout(spec.dropout)]
        width = spec.hidden
    return nn.Sequential(*layers, nn.Linear(width, CLASS_COUNT))


def mlp_flops(spec: PerceptronSpec) -> int:
    """Floating-point operations of one window's matrix products; a multiply-add counts as two.

    Of one member.
    """
    inner = (spec.layers - 1) * spec.hidden * spec.hidden
    return 2 * (COUNT * spec.hidden + inner + spec.hidden * CLASS_COUNT)
