"""A smaller encoder with positions, and the summaries' perceptron beside it in one graph.

The design's network finds the newest row by the padding alone and averages over all rows. Here
every row has a learned position, and the newest one is read out beside the mean. Layers are
pre-norm, which trains without a long warm-up: Xiong et al. 2020, "On Layer Normalization in the
Transformer Architecture". A wide and a deep part whose logits are added: Cheng et al. 2016, "Wide &
Deep Learning for Recommender Systems".

Shapes: B windows, T steps (64), F features (16), D channels (d_model), G summary columns,
C classes (2).
"""

import numpy as np
import torch
from torch import Tensor, nn

from model_code.features.column import Column
from model_code.models.encoder import EncoderLayer
from model_code.models.mlp import SummaryMlp, mlp_flops
from model_code.models.predictor import WindowModel
from model_code.models.summaries import summarise
from model_code.settings import (
    CLASS_COUNT,
    FEATURE_COUNT,
    SEQUENCE_LENGTH,
    ConvTransformer2Spec,
    MlpSpec,
)

POSITION_STD = 0.02  # of a position's first values: small beside the convolution's output


class ConvTransformer2(WindowModel):
    """Conv1d, positions, pre-norm encoder, newest row and mean; with `branch` also a perceptron.

    Args:
        spec: sizes.
    """

    spec: ConvTransformer2Spec

    def __init__(self, spec: ConvTransformer2Spec) -> None:
        super().__init__()
        self.spec = spec
        self.convolution = nn.Conv1d(FEATURE_COUNT, spec.d_model, kernel_size=3, padding=1)
        self.position_TD = nn.Parameter(torch.randn(SEQUENCE_LENGTH, spec.d_model) * POSITION_STD)
        layer = EncoderLayer(
            spec.d_model, spec.heads, spec.feed_forward, spec.dropout, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, spec.layers, nn.LayerNorm(spec.d_model), enable_nested_tensor=False
        )
        self.head = nn.Linear(2 * spec.d_model, CLASS_COUNT)
        self.mlp = SummaryMlp(MlpSpec()) if spec.branch else None

    def forward(self, x_BTF: Tensor) -> Tensor:
        """Return logits_BC for raw features x_BTF (float32, batch first)."""
        h_BDT = self.convolution(self.standardise(x_BTF).transpose(1, 2))
        h_BTD = self.encoder(h_BDT.transpose(1, 2) + self.position_TD)
        logits_BC: Tensor = self.head(torch.cat([h_BTD[:, -1], h_BTD.mean(dim=1)], dim=1))
        return (
            logits_BC if self.mlp is None else logits_BC + self.mlp.of_summaries(summarise(x_BTF))
        )

    def heads(self) -> list[nn.Linear]:
        """The encoder's, and the branch's if there is one."""
        return [self.head, *(self.mlp.heads() if self.mlp else ())]

    def fit_windows(self, features_NF: Column, ends_B: np.ndarray) -> None:
        """Set the branch's mean and deviation of each summary."""
        if self.mlp is not None:
            self.mlp.fit_windows(features_NF, ends_B)


def transformer2_flops(spec: ConvTransformer2Spec) -> int:
    """Floating-point operations of one window's matrix products; a multiply-add counts as two."""
    steps, width = SEQUENCE_LENGTH, spec.d_model
    convolution = steps * FEATURE_COUNT * 3 * width
    projections = steps * width * 4 * width  # query, key, value, out
    attention = 2 * steps * steps * width  # scores, and their product with the values
    feed_forward = steps * width * 2 * spec.feed_forward
    layers = spec.layers * (projections + attention + feed_forward)
    encoder = 2 * (convolution + layers + 2 * width * CLASS_COUNT)
    return encoder + (mlp_flops(MlpSpec()) if spec.branch else 0)
