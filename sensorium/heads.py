"""Heads: the decoder's states out into the world.

Letters: B batch, T length, N positions, D width, V vocabulary, L media, C channels, H W pixels, P patches.

    Tokens   states -> one score for each word piece
    Classes  a pooled vector -> one score for each class
    Lookahead  a state and the next word piece -> a state that guesses the one after
    Unit     a state or pooled vector -> a point on the unit sphere, shared by all modalities
    Flow     noisy picture -> patches -> (decoder) -> what the clean picture, velocity or noise is
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.layers.norms import Norm
from sensorium.layers.patches import patchify, unpatchify
from sensorium.layers.positions import grid_sinusoids
from sensorium.layers.stack import Stack
from sensorium.spec import Spec
from sensorium.types import Layout, ShapeError

__all__ = ["Classes", "Flow", "Lookahead", "Tokens", "Unit"]

PREDICTIONS = ("velocity", "sample", "noise")


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


@dataclass(frozen=True, repr=False)
class Flow(Spec):
    """A picture being denoised: in as patches, out as what the objective predicts.

    Args:
        width: of the decoder.
        size, patch, channels: of the picture (pixels or latents).
        predict: "velocity" (clean minus noise), "sample" (the clean picture) or "noise".
        condition: width of the condition that modulates the last norm; None has a plain norm.
        bottleneck: patches go in through this few numbers (2511.13720: clean pictures lie on a thin sheet); None is direct.
        refine: channels that the patches open into before two small convolutions, which also see the noisy picture, join them
            across their borders; None: the patches are the answer.
        out_channels: more than ``channels`` where the published head also predicts a variance.
        eps: of the last norm.

    Source: DiT (2212.09748), section 3.2; predicting the sample from large patches: JiT (2511.13720).
    """

    width: int
    _: KW_ONLY
    size: int
    patch: int
    channels: int = 3
    predict: str = "sample"
    condition: int | None = None
    bottleneck: int | None = None
    refine: int | None = None
    out_channels: int | None = None
    eps: float = 1e-6

    @property
    def side(self) -> int:
        """Patches on a side."""
        return self.size // self.patch

    def check(self) -> list[str]:
        problems = [] if self.size % self.patch == 0 else [f"size {self.size} does not divide into patches of {self.patch}"]
        if self.predict not in PREDICTIONS:
            problems.append(f"predict {self.predict!r} is not known; use one of {PREDICTIONS}")
        if self.refine and self.out_channels:
            problems.append("refine and out_channels do not go together; set one of them")
        return problems

    def build(self) -> FlowNet:
        return FlowNet(self)


class FlowNet(nn.Module):
    """The module of :class:`Flow`: ``patches`` before the decoder, ``forward`` after it."""

    def __init__(self, spec: Flow) -> None:
        super().__init__()
        self.spec = spec
        numbers = spec.patch**2 * spec.channels
        if spec.bottleneck is None:
            self.inside: nn.Module = nn.Linear(numbers, spec.width)
        else:
            self.inside = nn.Sequential(nn.Linear(numbers, spec.bottleneck, bias=False), nn.Linear(spec.bottleneck, spec.width))
        self.register_buffer("position", grid_sinusoids(spec.side, spec.side, spec.width), persistent=False)
        self.norm = nn.LayerNorm(spec.width, eps=spec.eps, elementwise_affine=spec.condition is None)
        self.modulate = nn.Linear(spec.condition, 2 * spec.width) if spec.condition else None
        self.out = nn.Linear(spec.width, spec.patch**2 * (spec.refine or spec.out_channels or spec.channels))
        self.refine = None
        if spec.refine:
            inside = spec.refine + spec.channels
            self.refine = nn.Sequential(
                nn.Conv2d(inside, 2 * spec.refine, 3, padding=1), nn.GELU(), nn.Conv2d(2 * spec.refine, spec.channels, 3, padding=1))
        last = self.refine[-1] if self.refine else self.out
        for layer in (self.modulate, last):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def patches(self, x_LCHW: torch.Tensor) -> torch.Tensor:
        """Noisy pictures -> (L, P, D) with their places."""
        wanted = (self.spec.channels, self.spec.size, self.spec.size)
        if x_LCHW.dim() != 4 or tuple(x_LCHW.shape[1:]) != wanted:
            raise ShapeError(f"the flow head got {tuple(x_LCHW.shape)}, wanted (L, {', '.join(map(str, wanted))})")
        return self.inside(patchify(x_LCHW, self.spec.patch)) + self.position.to(x_LCHW.dtype)

    def forward(self, x_LPD: torch.Tensor, noisy_LCHW: torch.Tensor, condition_LD: torch.Tensor | None = None) -> torch.Tensor:
        """The decoder's states, and the noisy pictures they came from -> (L, C, H, W)."""
        x_LPD = self.norm(x_LPD)
        if self.modulate is not None:
            shift, scale = self.modulate(F.silu(condition_LD))[:, None].chunk(2, dim=-1)
            x_LPD = x_LPD * (1 + scale) + shift
        picture = unpatchify(self.out(x_LPD), self.spec.patch, self.spec.side, self.spec.side)
        if self.refine is None:
            return picture
        both = torch.cat([picture, noisy_LCHW.to(picture.dtype)], dim=1)
        return self.refine(both.contiguous(memory_format=torch.channels_last))
