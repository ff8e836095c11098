"""Dropout with a fast mask generator on the CPU."""

from typing import Any

import torch
from torch import Tensor, nn


class BitDropout(nn.Dropout):
    """Dropout from 16 random bits per element, for faster training on a CPU.

    torch draws 53 bits per element on one core, which costs more than the layer before it.
    The probability is rounded to 1/65536. On a GPU, and in evaluation, this is `nn.Dropout`.
    Source: Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from
    Overfitting", JMLR 15.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Dropout's parameter name
        """Return the input with elements zeroed at random and the rest scaled up."""
        if not self.training or self.p == 0 or input.device.type != "cpu":
            return super().forward(input)
        bits = torch.empty((input.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        bits16 = bits.view(torch.int16)[: input.numel()].view(input.shape)
        output: Tensor = _MaskedScale.apply(  # type: ignore[no-untyped-call]
            input, bits16 >= round(self.p * 65536) - 32768, 1.0 / (1.0 - self.p)
        )
        return output


class _MaskedScale(torch.autograd.Function):
    """`where(keep, x, 0) * scale`, saving one byte per element for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.scale = scale
        return torch.where(keep, x, 0.0).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (keep,) = ctx.saved_tensors
        return torch.where(keep, gradient, 0.0).mul_(ctx.scale), None, None
