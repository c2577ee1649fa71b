"""Spell: what a medium's places say, by the vocabulary of the decoder that will read them; an objective that needs no decoder.

Letters: L media, P places, K words of a place, N places that say something, V words, D width.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.spec import Spec
from sensorium.types import ShapeError

__all__ = ["Spell"]


@dataclass(frozen=True, repr=False)
class Spell(Spec):
    """Each place of a medium, aligned, is near the vocabulary's own vectors of the words it should read as, and as long as they are.

    A decoder then finds words where it has learned to expect words. It costs no decoder to train: eyes and connector come first.

    Args:
        modality: what is read.
        scale: scores start at cosine * scale; learned.
        length: weight of the squared relative difference of lengths.
        weight: in the sum of losses.

    Source: pictures as words of a frozen language model, LQAE (2302.00902), here learned from the words' names.
    """

    modality: str = "image"
    _: KW_ONLY
    scale: float = 20.0
    length: float = 0.1
    weight: float = 1.0

    def build(self) -> SpellNet:
        return SpellNet(self)


class SpellNet(nn.Module):
    """The module of :class:`Spell`; it learns the scale."""

    def __init__(self, spec: Spell) -> None:
        super().__init__()
        self.spec = spec
        self.log_scale = nn.Parameter(torch.tensor(math.log(spec.scale)))

    def scores(self, features_ND: torch.Tensor, vocabulary_VD: torch.Tensor) -> torch.Tensor:
        """Of each word at each place, (N, V)."""
        return F.normalize(features_ND.float(), dim=-1) @ F.normalize(vocabulary_VD.float(), dim=-1).T * self.log_scale.exp()

    def forward(self, features_LPD: torch.Tensor, vocabulary_VD: torch.Tensor, word_LPK: torch.Tensor) -> torch.Tensor:
        """Mean over the places that should say something, of the mean over their words; ``word_LPK``: see ``types.Spelled``."""
        if features_LPD.shape[:2] != word_LPK.shape[:2]:
            raise ShapeError(f"spell got features {tuple(features_LPD.shape)} for words {tuple(word_LPK.shape)}, wanted the same media and places")
        here = (word_LPK >= 0).any(dim=-1)
        features_ND, word_NK = features_LPD[here].float(), word_LPK[here]
        share_NV = self.scores(features_ND, vocabulary_VD).log_softmax(dim=-1)
        said_NK = share_NV.gather(1, word_NK.clamp(min=0)) * (word_NK >= 0)
        lengths = features_ND.norm(dim=-1) / vocabulary_VD.float().norm(dim=-1).mean()
        return -(said_NK.sum(dim=-1) / (word_NK >= 0).sum(dim=-1)).mean() + self.spec.length * (lengths - 1).square().mean()
