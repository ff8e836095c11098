"""A Transformer encoder layer whose training steps stay in the cache of a CPU.

torch's layer spends most of a training step on a CPU in ReLU and dropout of the wide feed-forward
block and in the random numbers of attention, not in matrix products. Here both blocks are autograd
functions of their own. The wide block is computed in chunks of rows that fit the cache. One pass
over a chunk sets to 0 what is negative or dropped. The backward pass needs no stored mask: an
element that is 0 has no gradient. In evaluation and on a GPU this is torch's layer.
Sources: Vaswani et al. 2017, "Attention Is All You Need"; Srivastava et al. 2014, "Dropout";
random bits: a hash of element and key, C. Wellons 2018, "Prospecting for Hash Functions".

Shapes: B windows, T steps, D channels, H heads, E = D / H, N = B x T rows, W feed-forward width,
A = B x H attention matrices; W32 an array as 32-bit words.
"""

import math
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn
from torch.nn import functional

from model_code.compiled import compiled
from model_code.models.dropout import BitDropout

CHUNK_BYTES = 2**20  # of the wide block at once: within the second-level cache of a core
NONE, LOW, HIGH = np.uint32(0), np.uint32(0xFFFF), np.uint32(0xFFFF0000)
LOW_SIGN, SIGN = np.uint32(0x8000), np.uint32(0x80000000)
# bits of infinity; with more, besides the sign, a number is NaN
INFINITY = {torch.float32: 0x7F800000, torch.bfloat16: 0x7F80, torch.float16: 0x7C00}


class EncoderLayer(nn.TransformerEncoderLayer):
    """torch's encoder layer, batch first, with ReLU.

    Dropout probabilities are rounded to 1/65536.

    Args:
        d_model: channels D; `heads` must divide it.
        heads: of attention.
        feed_forward: width W of the feed-forward block.
        dropout: probability, in all places.
        norm_first: normalise before each block instead of after it.
    """

    def __init__(
        self, d_model: int, heads: int, feed_forward: int, dropout: float, *, norm_first: bool
    ) -> None:
        super().__init__(
            d_model, heads, feed_forward, dropout, batch_first=True, norm_first=norm_first
        )
        self.dropout, self.dropout1, self.dropout2 = (BitDropout(dropout) for _ in "123")

    def _ff_block(self, x: Tensor) -> Tensor:
        if not self.training or x.device.type != "cpu":
            return super()._ff_block(x)
        first, second = self.linear1, self.linear2
        inputs = (x.flatten(0, 1), first.weight, first.bias, second.weight, second.bias)
        y_ND = _FeedForward.apply(*_cast(x, *inputs), self.dropout.p)  # type: ignore[no-untyped-call]
        output: Tensor = self.dropout2(y_ND.view(x.shape))
        return output

    def _sa_block(
        self,
        x: Tensor,
        attn_mask: Tensor | None,
        key_padding_mask: Tensor | None,
        is_causal: bool = False,
    ) -> Tensor:
        if not self.training or x.device.type != "cpu":
            return super()._sa_block(x, attn_mask, key_padding_mask, is_causal)
        own = self.self_attn
        batch, steps, width = x.shape
        qkv = functional.linear(x, own.in_proj_weight, own.in_proj_bias)
        heads = (batch, steps, 3, own.num_heads, width // own.num_heads)
        # in FP32, as torch: a softmax's gradient is a difference that BF16 would round away
        q_ATE, k_ATE, v_ATE = qkv.float().view(heads).permute(2, 0, 3, 1, 4).flatten(1, 2)
        with torch.autocast("cpu", enabled=False):
            o_ATE = _Attention.apply(q_ATE, k_ATE, v_ATE, own.dropout)  # type: ignore[no-untyped-call]
        o_BTD = o_ATE.view(batch, own.num_heads, steps, -1).transpose(1, 2).flatten(2)
        output: Tensor = self.dropout1(own.out_proj(o_BTD))
        return output


class _FeedForward(torch.autograd.Function):
    """`dropout(relu(x W1' + b1)) W2' + b2` of rows x_ND."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, w1_WD: Tensor, b1_W: Tensor, w2_DW: Tensor, b2_D: Tensor, p: float
    ) -> Tensor:
        key, dropped, ctx.scale = _draw(p)
        h_NW = x_ND.new_empty(len(x_ND), len(w1_WD))
        y_ND = torch.empty_like(x_ND)
        for rows in _chunks(h_NW):
            torch.addmm(b1_W, x_ND[rows], w1_WD.t(), out=h_NW[rows])
            _relu_and_drop(h_NW[rows], key, dropped, rows.start * h_NW.shape[1])
            torch.addmm(b2_D, h_NW[rows], w2_DW.t(), alpha=ctx.scale, out=y_ND[rows])
        ctx.save_for_backward(x_ND, w1_WD, w2_DW, h_NW)
        return y_ND

    @staticmethod
    def backward(ctx: Any, dy_ND: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, w1_WD, w2_DW, h_NW = ctx.saved_tensors
        scaled_ND = (dy_ND * ctx.scale).contiguous()
        dh_NW, dx_ND = torch.empty_like(h_NW), torch.empty_like(x_ND)
        for rows in _chunks(h_NW):
            torch.mm(scaled_ND[rows], w2_DW, out=dh_NW[rows])
            _clear_where_zero(dh_NW[rows], h_NW[rows])
            torch.mm(dh_NW[rows], w1_WD, out=dx_ND[rows])
        dw1_WD, dw2_DW = dh_NW.t() @ x_ND, scaled_ND.t() @ h_NW
        return dx_ND, dw1_WD, dh_NW.sum(dim=0), dw2_DW, dy_ND.sum(dim=0), None


class _Attention(torch.autograd.Function):
    """`dropout(softmax(q k' / sqrt(E))) v`, float32; see also `scaled_dot_product_attention`."""

    @staticmethod
    def forward(ctx: Any, q_ATE: Tensor, k_ATE: Tensor, v_ATE: Tensor, p: float) -> Tensor:
        key, dropped, ctx.scale = _draw(p)
        scores_ATT = torch.bmm(q_ATE, k_ATE.mT).mul_(1.0 / math.sqrt(q_ATE.shape[-1]))
        weights_ATT = torch.softmax(scores_ATT, dim=-1)
        kept_ATT = weights_ATT.clone()
        _relu_and_drop(kept_ATT, key, dropped, 0)  # none is negative: ReLU changes nothing
        ctx.save_for_backward(q_ATE, k_ATE, v_ATE, weights_ATT, kept_ATT)
        return torch.bmm(kept_ATT, v_ATE).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, do_ATE: Tensor) -> tuple[Tensor | None, ...]:
        q_ATE, k_ATE, v_ATE, weights_ATT, kept_ATT = ctx.saved_tensors
        scaled_ATE = do_ATE * ctx.scale
        dv_ATE = torch.bmm(kept_ATT.mT, scaled_ATE)
        dweights_ATT = torch.bmm(scaled_ATE, v_ATE.mT)
        _clear_where_zero(dweights_ATT, kept_ATT)
        dscores_ATT = torch._softmax_backward_data(
            dweights_ATT, weights_ATT, -1, weights_ATT.dtype
        ).mul_(1.0 / math.sqrt(q_ATE.shape[-1]))
        return torch.bmm(dscores_ATT, k_ATE), torch.bmm(dscores_ATT.mT, q_ATE), dv_ATE, None


def _cast(x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    """In autocast's type, as torch does before a matrix product."""
    on = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if on else x.dtype
    return tuple(tensor.to(dtype) for tensor in tensors)


def _draw(p: float) -> tuple[int, int, float]:
    """A key from torch's generator, the share to drop in 1/65536, the scale of the rest."""
    dropped = min(round(p * 65536), 65535)
    return int(torch.randint(2**32, ()).item()), dropped, 65536.0 / (65536 - dropped)


def _chunks(h_NW: Tensor) -> list[slice]:
    rows = max(1, CHUNK_BYTES // (h_NW.shape[1] * h_NW.element_size()))
    return [slice(start, min(start + rows, len(h_NW))) for start in range(0, len(h_NW), rows)]


def _words(tensor: Tensor) -> np.ndarray:
    words_W32: np.ndarray = tensor.view(-1).view(torch.int32).numpy().view(np.uint32)
    return words_W32


def _relu_and_drop(h: Tensor, key: int, dropped: int, first: int) -> None:
    """In place; `first` is the position of h's first element among those of the same key.

    NaN stays NaN, whatever its sign bit, unless it is dropped: as in torch.
    """
    if h.element_size() == 2:
        _relu_and_drop_halves(_words(h), key, dropped, first // 2, INFINITY[h.dtype])
    else:
        _relu_and_drop_words(_words(h), key, dropped, first, INFINITY[h.dtype])


def _clear_where_zero(gradient: Tensor, value: Tensor) -> None:
    """In place: the gradient of what ReLU or dropout has set to 0."""
    if value.element_size() == 2:
        _clear_halves(_words(gradient), _words(value))
    else:
        _clear_words(_words(gradient), _words(value))


# 16-bit elements are handled two at a time, so that all arithmetic is in 32-bit lanes.
# Numba widens each result to 64 bits: hence the casts.


@njit(inline="always")
def _hash(word: np.uint32) -> np.uint32:
    word = np.uint32((word ^ (word >> np.uint32(16))) * np.uint32(0x7FEB352D))
    word = np.uint32((word ^ (word >> np.uint32(15))) * np.uint32(0x846CA68B))
    return np.uint32(word ^ (word >> np.uint32(16)))


@compiled
def _relu_and_drop_halves(
    h_W32: np.ndarray, key: int, dropped: int, first: int, infinity: int
) -> None:
    low, high = np.uint32(dropped), np.uint32(dropped << 16)
    low_infinity, high_infinity = np.uint32(infinity), np.uint32(infinity << 16)
    for i in range(h_W32.size):
        bits, word = _hash(np.uint32(np.uint32(first + i) ^ np.uint32(key))), h_W32[i]
        low_stays = (word & LOW_SIGN) == 0 or (word & (LOW ^ LOW_SIGN)) > low_infinity
        high_stays = (word & SIGN) == 0 or (word & (HIGH ^ SIGN)) > high_infinity
        keep_low = LOW if (bits & LOW) >= low and low_stays else NONE
        keep_high = HIGH if bits >= high and high_stays else NONE
        h_W32[i] = word & (keep_low | keep_high)


@compiled
def _relu_and_drop_words(
    h_W32: np.ndarray, key: int, dropped: int, first: int, infinity: int
) -> None:
    high, nan_above = np.uint32(dropped << 16), np.uint32(infinity)
    for i in range(h_W32.size):
        bits, word = _hash(np.uint32(np.uint32(first + i) ^ np.uint32(key))), h_W32[i]
        stays = (word & SIGN) == 0 or (word & ~SIGN) > nan_above
        h_W32[i] = word if bits >= high and stays else NONE


@compiled
def _clear_halves(gradient_W32: np.ndarray, value_W32: np.ndarray) -> None:
    for i in range(value_W32.size):
        word = value_W32[i]
        keep_low = LOW if (word & LOW) != 0 else NONE
        keep_high = HIGH if (word & HIGH) != 0 else NONE
        gradient_W32[i] &= keep_low | keep_high


@compiled
def _clear_words(gradient_W32: np.ndarray, value_W32: np.ndarray) -> None:
    for i in range(value_W32.size):
        gradient_W32[i] = gradient_W32[i] if value_W32[i] != 0 else NONE
