"""Codes: a picture as a row of numbers, each one of a few thousand learned patterns, which a decoder writes as it writes words.

Letters: L pictures, P places, V codes, Z numbers of a pattern, D width, H W places on a side.

    states -> MLP -> one score for each code         codes -> patterns -> (autoencoder) -> pixels

Source: VQ-VAE 1711.00937; VQGAN 2012.09841; LlamaGen 2406.06525, section 2.1.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.layers.blocks import MLP
from sensorium.spec import Spec
from sensorium.types import ShapeError

__all__ = ["Codes", "CodesNet"]


@dataclass(frozen=True, repr=False)
class Codes(Spec):
    """Scores over picture codes, and the codes' patterns.

    Args:
        width: of the decoder.
        codes: V.
        pattern: Z.
        side: places on a side of a picture.
        hidden: width inside the MLP; None has one linear layer instead.
        blank: what stands for a prompt that says nothing: the id in place of every token but those of ``kept``.
        kept: ids that stay.
    """

    width: int
    _: KW_ONLY
    codes: int
    pattern: int
    side: int
    hidden: int | None = None
    blank: int | None = None
    kept: tuple[int, ...] = ()

    def build(self) -> CodesNet:
        return CodesNet(self)


class CodesNet(nn.Module):
    """The module of :class:`Codes`."""

    def __init__(self, spec: Codes) -> None:
        super().__init__()
        self.spec = spec
        self.map: nn.Module = nn.Linear(spec.width, spec.codes, bias=False)
        if spec.hidden is not None:
            self.map = MLP(spec.width, spec.hidden, act="gelu", out=spec.codes).build()
        self.table = nn.Embedding(spec.codes, spec.pattern)

    def forward(self, state_LPD: torch.Tensor) -> torch.Tensor:
        """(L, P, D) -> float32 scores (L, P, V)."""
        return self.map(state_LPD).float()

    def nearest(self, latents_LZHW: torch.Tensor) -> torch.Tensor:
        """The code whose pattern is nearest to each place, int64 (L, H * W), row by row."""
        flat = latents_LZHW.permute(0, 2, 3, 1).flatten(1, 2)
        distance = self.table.weight.square().sum(1) - 2 * flat @ self.table.weight.T
        return distance.argmin(-1)

    def latents(self, code_LP: torch.Tensor) -> torch.Tensor:
        """Patterns of length one of a square picture's codes, (L, Z, H, W)."""
        side = round(code_LP.shape[1] ** 0.5)
        if side * side != code_LP.shape[1]:
            raise ShapeError(f"{code_LP.shape[1]} codes do not make a square picture")
        return F.normalize(self.table(code_LP), dim=-1).transpose(1, 2).unflatten(2, (side, side))
