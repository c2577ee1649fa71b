"""Heads: the decoder's states out into the world.

Letters: B batch, T length, N positions, D width, V vocabulary, L media.

    Tokens   states -> one score for each word piece
    Classes  a pooled vector -> one score for each class
    Lookahead  a state and the next word piece -> a state that guesses the one after
    Unit     a state or pooled vector -> a point on the unit sphere, shared by all modalities

Media that are being denoised go in and out by ``heads_flow``.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.layers.norms import Norm
from sensorium.layers.stack import Stack
from sensorium.spec import Spec
from sensorium.types import Layout

__all__ = ["Classes", "Lookahead", "Tokens", "Unit"]


@dataclass(frozen=True, repr=False)
class Tokens(Spec):
    """Scores over the vocabulary.

    Args:
        width, vocab: sizes.
        tied: score with the text encoder's own embeddings.
        scale: what scores are multiplied by.
        cap: then they are bent to stay within -cap and cap (2408.00118, section 2); None leaves them.
    """

    width: int
    vocab: int
    _: KW_ONLY
    tied: bool = False
    scale: float = 1.0
    cap: float | None = None

    def build(self) -> TokensNet:
        return TokensNet(self)


class TokensNet(nn.Module):
    """The module of :class:`Tokens`."""

    def __init__(self, spec: Tokens) -> None:
        super().__init__()
        self.spec = spec
        self.out = None if spec.tied else nn.Linear(spec.width, spec.vocab, bias=False)

    def forward(self, state_ND: torch.Tensor, embedding_VD: torch.Tensor | None) -> torch.Tensor:
        """States -> float32 scores (N, V); ``embedding_VD`` is the text encoder's table, used when tied."""
        return self.bent(self.out(state_ND) if self.out is not None else F.linear(state_ND, embedding_VD))

    def bent(self, score_NV: torch.Tensor) -> torch.Tensor:
        """Products as scores, float32: scaled and capped, where the spec says so."""
        score_NV = score_NV.float() if self.spec.scale == 1 else score_NV.float() * self.spec.scale
        return score_NV if self.spec.cap is None else self.spec.cap * torch.tanh(score_NV / self.spec.cap)


@dataclass(frozen=True, repr=False)
class Classes(Spec):
    """Scores over classes, of one pooled vector.

    Args:
        width, classes: sizes.
    """

    width: int
    classes: int

    def build(self) -> ClassesNet:
        return ClassesNet(self)


class ClassesNet(nn.Module):
    """The module of :class:`Classes`."""

    def __init__(self, spec: Classes) -> None:
        super().__init__()
        self.spec = spec
        self.out = nn.Linear(spec.width, spec.classes)

    def forward(self, x_LD: torch.Tensor) -> torch.Tensor:
        """(L, D) -> float32 scores (L, classes)."""
        return self.out(x_LD).float()


@dataclass(frozen=True, repr=False)
class Lookahead(Spec):
    """One more layer that guesses the word piece after the next, from a state and the embedding of the next piece; the scores are the text
    head's own.

    Args:
        layer: a stack of one layer.

    Source: DeepSeek-V3 (2412.19437), section 2.2.
    """

    layer: Stack

    def build(self) -> LookaheadNet:
        return LookaheadNet(self)


class LookaheadNet(nn.Module):
    """The module of :class:`Lookahead`."""

    def __init__(self, spec: Lookahead) -> None:
        super().__init__()
        self.spec = spec
        width = spec.layer.width
        self.next_norm, self.state_norm = (Norm(width, kind="rms", eps=spec.layer.eps).build() for _ in range(2))
        self.join = nn.Linear(2 * width, width, bias=False)
        self.stack = spec.layer.build()

    def forward(self, state_BTD: torch.Tensor, next_BTD: torch.Tensor, layout: Layout | None = None) -> torch.Tensor:
        """States of the decoder and embeddings of what follows each place -> states to score, (B, T, D)."""
        joined = torch.cat([self.next_norm(next_BTD), self.state_norm(state_BTD)], dim=-1)
        return self.stack(self.join(joined), layout)


@dataclass(frozen=True, repr=False)
class Unit(Spec):
    """A point on the unit sphere.

    Args:
        inside, outside: widths of a linear layer before normalising; None has no layer (towers that project in align).
        token: id of the token whose final state is the embedding of all before it; None for towers.
    """

    inside: int | None = None
    outside: int | None = None
    _: KW_ONLY
    token: int | None = None

    def build(self) -> UnitNet:
        return UnitNet(self)


class UnitNet(nn.Module):
    """The module of :class:`Unit`."""

    def __init__(self, spec: Unit) -> None:
        super().__init__()
        self.spec = spec
        self.map = nn.Linear(spec.inside, spec.outside, bias=False) if spec.inside and spec.outside else nn.Identity()

    def forward(self, x_LD: torch.Tensor) -> torch.Tensor:
        """(L, D) -> (L, O), length one, at least float32."""
        x_LO = self.map(x_LD)
        return F.normalize(x_LO.to(torch.promote_types(x_LO.dtype, torch.float32)), dim=-1)
