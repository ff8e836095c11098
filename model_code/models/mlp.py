"""A multi-layer perceptron on summaries of the window.

A plain perceptron on hand-made columns is hard to beat on order-book data: Berti and Kasneci 2025,
"TLOB", arXiv 2502.15757. This one sees gradient boosting's columns (`summaries`), standardised
inside the graph, and needs a thousandth of the design network's arithmetic.

Shapes: B windows, T steps (64), F features (16), G summary columns (112), H hidden units,
C classes (2).
"""

from torch import Tensor, nn

from model_code.models.dropout import BitDropout
from model_code.models.predictor import WindowModel
from model_code.models.summaries import COUNT, summarise
from model_code.settings import CLASS_COUNT, MlpSpec


class SummaryMlp(WindowModel):
    """Summaries -> hidden layers with ReLU and dropout -> logits.

    Args:
        spec: sizes.
    """

    spec: MlpSpec

    def __init__(self, spec: MlpSpec) -> None:
        super().__init__()
        self.spec = spec
        layers: list[nn.Module] = []
        width = COUNT
        for _ in range(spec.layers):
            layers += [nn.Linear(width, spec.hidden), nn.ReLU(), BitDropout(spec.dropout)]
            width = spec.hidden
        self.hidden = nn.Sequential(*layers)
        self.head = nn.Linear(width, CLASS_COUNT)

    def forward(self, x_BTF: Tensor) -> Tensor:
        """Return logits_BC for raw features x_BTF (float32, batch first)."""
        logits_BC: Tensor = self.head(self.hidden(summarise(self.standardise(x_BTF))))
        return logits_BC


def mlp_flops(spec: MlpSpec) -> int:
    """Floating-point operations of one window's matrix products; a multiply-add counts as two."""
    inner = (spec.layers - 1) * spec.hidden * spec.hidden
    return 2 * (COUNT * spec.hidden + inner + spec.hidden * CLASS_COUNT)
