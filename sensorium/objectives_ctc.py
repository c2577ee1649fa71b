"""CTC: an encoder's places tell what is said in order, and say nothing in between; an objective that needs no decoder and no times.

Letters: L media, P places, D width, S symbols, U symbols of what is said.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.spec import Spec
from sensorium.types import ShapeError

__all__ = ["Ctc"]


@dataclass(frozen=True, repr=False)
class Ctc(Spec):
    """Connectionist temporal classification over what an encoder gives.

    Args:
        modality: what is read.
        width: D, of the encoder.
        symbols: S; 0 is said by nobody, it stands for nothing.
        weight: in the sum of losses.

    Source: A. Graves et al., "Connectionist temporal classification", 2006.
    """

    modality: str = "audio"
    _: KW_ONLY
    width: int
    symbols: int
    weight: float = 1.0

    def build(self) -> CtcNet:
        return CtcNet(self)


class CtcNet(nn.Module):
    """The module of :class:`Ctc`; its linear layer names the symbols, and is of no use afterwards."""

    def __init__(self, spec: Ctc) -> None:
        super().__init__()
        self.spec = spec
        self.out = nn.Linear(spec.width, spec.symbols)

    def forward(self, features_LPD: torch.Tensor, said_LU: torch.Tensor) -> torch.Tensor:
        """Mean over the media; ``said_LU`` is int64, filled up with 0."""
        if len(features_LPD) != len(said_LU):
            raise ShapeError(f"ctc got features {tuple(features_LPD.shape)} for {len(said_LU)} texts, wanted as many")
        share_PLS = self.out(features_LPD).float().log_softmax(dim=-1).transpose(0, 1)
        places = torch.full((len(said_LU),), features_LPD.shape[1], dtype=torch.int64)
        return F.ctc_loss(share_PLS, said_LU, places, (said_LU > 0).sum(dim=1), zero_infinity=True)
