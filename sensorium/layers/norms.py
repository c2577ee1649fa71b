"""Norms over the width.

Letters: D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from sensorium.spec import Spec

__all__ = ["Norm", "RMSNorm"]


class RMSNorm(nn.RMSNorm):
    """Root-mean-square normalisation in the number format of its own scale, whatever the matrices before it were multiplied in."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x if self.weight is None else x.to(self.weight.dtype))


@dataclass(frozen=True, repr=False)
class Norm(Spec):
    """Layer or root-mean-square normalisation over the width.

    Args:
        width: D.
        kind: "layer" or "rms".
        eps: added to the variance.
        affine: learn a scale (and, for "layer", a shift).
        bias: of a learned "layer" norm: whether there is a shift.
    """

    width: int
    kind: str = "layer"
    eps: float = 1e-5
    affine: bool = True
    bias: bool = True

    def check(self) -> list[str]:
        return [] if self.kind in ("layer", "rms") else [f"norm kind {self.kind!r} is not known; use 'layer' or 'rms'"]

    def build(self) -> nn.Module:
        if self.kind == "layer":
            return nn.LayerNorm(self.width, eps=self.eps, elementwise_affine=self.affine, bias=self.bias)
        return RMSNorm(self.width, eps=self.eps, elementwise_affine=self.affine)
