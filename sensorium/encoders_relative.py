"""A text transformer that knows places only by how far apart two tokens are: a learned bias for each distance and head.

Letters: B batch, T length, D width, N heads, E head width.

Source: T5 (1910.10683), section 2.1; gated MLPs and no shared vocabulary, T5 1.1; a bias in every layer, umT5 (2304.09151).
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.layers.attention import Attention
from sensorium.layers.blocks import MLP
from sensorium.layers.norms import Norm
from sensorium.spec import Spec
from sensorium.types import Features

__all__ = ["RelativeEncoder", "RelativeEncoderNet"]


@dataclass(frozen=True, repr=False)
class RelativeEncoder(Spec):
    """The encoder.

    Args:
        vocab, width, depth, heads, head_width, hidden: sizes.
        buckets: distances told apart, in either direction half of them.
        far: distance from which on all are one.
        shared: the first layer's biases serve all layers; False gives each its own.
        pad: id that nobody sees; None: padding is seen.
        act, gated: of the MLPs.
        eps: of the norms.
    """

    _: KW_ONLY
    vocab: int
    width: int
    depth: int
    heads: int
    head_width: int
    hidden: int
    buckets: int = 32
    far: int = 128
    shared: bool = True
    pad: int | None = 0
    act: str = "gelu_tanh"
    gated: bool = True
    eps: float = 1e-6

    def build(self) -> RelativeEncoderNet:
        return RelativeEncoderNet(self)


class _Layer(nn.Module):
    """Attention without scaling, biased by distance; then an MLP; each after a norm and added."""

    def __init__(self, spec: RelativeEncoder, biased: bool) -> None:
        super().__init__()
        norm = Norm(spec.width, kind="rms", eps=spec.eps)
        self.attention_norm, self.mlp_norm = norm.build(), norm.build()
        self.attention = Attention(spec.width, spec.heads, head_width=spec.head_width, bias=False).build()
        self.mlp = MLP(spec.width, spec.hidden, act=spec.act, gated=spec.gated, bias=False).build()
        self.distance = nn.Embedding(spec.buckets, spec.heads) if biased else None

    def forward(self, x_BTD: torch.Tensor, bias_BNTT: torch.Tensor) -> torch.Tensor:
        query, key, value = (part.transpose(1, 2) for part in self.attention.project(self.attention_norm(x_BTD)))
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=bias_BNTT.to(query.dtype), scale=1.0)
        x_BTD = x_BTD + self.attention.finish(found.transpose(1, 2))
        return x_BTD + self.mlp(self.mlp_norm(x_BTD))


class RelativeEncoderNet(nn.Module):
    """The module of :class:`RelativeEncoder`."""

    def __init__(self, spec: RelativeEncoder) -> None:
        super().__init__()
        self.spec = spec
        self.token = nn.Embedding(spec.vocab, spec.width)
        self.layers = nn.ModuleList(_Layer(spec, not spec.shared or index == 0) for index in range(spec.depth))
        self.norm = Norm(spec.width, kind="rms", eps=spec.eps).build()

    def bucket(self, length: int, device: torch.device) -> torch.Tensor:
        """Which bias stands between target and source, (T, T): near distances one by one, further ones in widening groups."""
        place = torch.arange(length, device=device)
        apart = place[None, :] - place[:, None]
        half = self.spec.buckets // 2
        near = half // 2
        grown = near + (apart.abs().clamp(min=1) / near).log() / math.log(self.spec.far / near) * (half - near)
        return (apart > 0) * half + torch.where(apart.abs() < near, apart.abs(), grown.long().clamp(max=half - 1))

    def forward(self, token_BT: torch.Tensor) -> Features:
        """Encode ids, padded on the right with ``pad``."""
        kept_BT = torch.ones_like(token_BT, dtype=torch.bool) if self.spec.pad is None else token_BT != self.spec.pad
        bucket_TT = self.bucket(token_BT.shape[1], token_BT.device)
        hidden_B11T = torch.zeros(kept_BT.shape, device=token_BT.device).masked_fill(~kept_BT, -1e9)[:, None, None]
        x_BTD, bias = self.token(token_BT), None
        for layer in self.layers:
            if layer.distance is not None:
                bias = layer.distance(bucket_TT).permute(2, 0, 1)[None] + hidden_B11T
            x_BTD = layer(x_BTD, bias)
        return Features(self.norm(x_BTD), None, kept_BT)
