"""Align: an encoder's features to the decoder's width, or to one vector in the shared space.

Letters: B batch, P patches, Q queries, D width (inside), O width (outside).

    Project         linear or MLP, each position or one pooled vector
    Pool            one vector, as it is (sentence embeddings)
    AttentionPool   one learned query looks at all positions (SigLIP)
    Merge           neighbours of a grid joined, then projected (pixel shuffle)
    Resample        a fixed number of learned queries (Flamingo's perceiver)
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.layers.attention import Attention, attend
from sensorium.layers.blocks import MLP
from sensorium.layers.norms import Norm
from sensorium.spec import Spec
from sensorium.types import ConfigError, Features, ShapeError

__all__ = ["AttentionPool", "Merge", "Pool", "Project", "Resample"]

POOLS = ("first", "last", "mean")


@dataclass(frozen=True, repr=False)
class Project(Spec):
    """A linear layer, or an MLP if ``hidden``, over every position or over one pooled vector.

    Args:
        inside, outside: widths.
        hidden: width between, for an MLP.
        pool: None keeps positions; "first", "last" or "mean" gives (B, 1, outside).
        skip: leading positions to drop (LLaVA leaves out the class token).
        norm: normalise first.
        slots: so many positions come in, and each gets a learned vector of its own, so that it can be read in its own way.
    """

    inside: int
    outside: int
    _: KW_ONLY
    hidden: int | None = None
    act: str = "gelu"
    pool: str | None = None
    skip: int = 0
    bias: bool = False
    norm: bool = False
    slots: int | None = None

    def places(self, patches: int) -> int:
        """Positions out for ``patches`` positions in."""
        return 1 if self.pool else patches - self.skip

    def check(self) -> list[str]:
        ok = self.pool is None or self.pool in POOLS
        problems = [] if ok else [f"pool {self.pool!r} is not known; use None or one of {POOLS}"]
        return problems + (["slots tell positions apart, and pool joins them; set one of both"] if self.slots and self.pool else [])

    def build(self) -> ProjectNet:
        return ProjectNet(self)


class ProjectNet(nn.Module):
    """The module of :class:`Project`."""

    def __init__(self, spec: Project) -> None:
        super().__init__()
        self.spec = spec
        self.norm = nn.LayerNorm(spec.inside) if spec.norm else nn.Identity()
        if spec.hidden is None:
            self.map: nn.Module = nn.Linear(spec.inside, spec.outside, bias=spec.bias)
        else:
            self.map = MLP(spec.inside, spec.hidden, act=spec.act, bias=spec.bias, out=spec.outside).build()
        self.slots = nn.Parameter(torch.zeros(spec.slots, spec.inside)) if spec.slots else None

    def forward(self, features: Features) -> torch.Tensor:
        """(B, P, D) -> (B, P, O) or (B, 1, O)."""
        _check_width(features, self.spec.inside)
        x = self.norm(_pool(features, self.spec.pool, self.spec.skip))
        if self.slots is None:
            return self.map(x)
        if x.shape[1] != len(self.slots):
            raise ShapeError(f"align got {x.shape[1]} positions, wanted one for each of {len(self.slots)} slots")
        return self.map(x + self.slots)


@dataclass(frozen=True, repr=False)
class Pool(Spec):
    """One vector of all positions, without weights.

    Args:
        width: D.
        pool: "first", "last" or "mean"; padding does not count.
    """

    width: int
    pool: str = "mean"

    @property
    def inside(self) -> int:
        return self.width

    @property
    def outside(self) -> int:
        return self.width

    def places(self, patches: int) -> int:
        """Positions out for ``patches`` positions in."""
        return 1

    def check(self) -> list[str]:
        return [] if self.pool in POOLS else [f"pool {self.pool!r} is not known; use one of {POOLS}"]

    def build(self) -> PoolNet:
        return PoolNet(self)


class PoolNet(nn.Module):
    """The module of :class:`Pool`."""

    def __init__(self, spec: Pool) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, features: Features) -> torch.Tensor:
        """(B, P, D) -> (B, 1, D)."""
        _check_width(features, self.spec.width)
        return _pool(features, self.spec.pool, 0)


@dataclass(frozen=True, repr=False)
class AttentionPool(Spec):
    """One learned query attends to every position, then a residual MLP.

    Args:
        width, heads, hidden, act, eps: sizes.

    Source: SigLIP's head, from Set Transformer (1810.00825).
    """

    width: int
    heads: int
    _: KW_ONLY
    hidden: int | None = None
    act: str = "gelu_tanh"
    eps: float = 1e-6

    @property
    def inside(self) -> int:
        return self.width

    @property
    def outside(self) -> int:
        return self.width

    def places(self, patches: int) -> int:
        """Positions out for ``patches`` positions in."""
        return 1

    def build(self) -> AttentionPoolNet:
        return AttentionPoolNet(self)


class AttentionPoolNet(nn.Module):
    """The module of :class:`AttentionPool`."""

    def __init__(self, spec: AttentionPool) -> None:
        super().__init__()
        self.spec = spec
        self.query = nn.Parameter(torch.randn(1, 1, spec.width) * spec.width**-0.5)
        self.attention = Attention(spec.width, spec.heads, bias=True).build()
        self.norm = nn.LayerNorm(spec.width, eps=spec.eps)
        self.mlp = MLP(spec.width, spec.hidden or 4 * spec.width, act=spec.act).build()

    def forward(self, features: Features) -> torch.Tensor:
        """(B, P, D) -> (B, 1, D)."""
        _check_width(features, self.spec.width)
        x = self.attention(self.query.expand(len(features.x_BPD), -1, -1), features.x_BPD)
        return x + self.mlp(self.norm(x))


@dataclass(frozen=True, repr=False)
class Merge(Spec):
    """Join ``size`` x ``size`` neighbours of a square grid into one position, then project.

    Args:
        inside, outside: widths.
        size: neighbours on a side.
        hidden: width between, for an MLP; None is linear. gated: the MLP multiplies by a second projection (SwiGLU and kin).
        norm, eps: normalise each position first; norm_joined: what is joined, instead. kind: of the norm, "layer" or "rms".
        grouped: neighbours stand together already, so that the grid may have any shape (Qwen2-VL, 2409.12191).
        fill: a side that does not divide is made longer with zeros, on the right and below (DeepSeek-VL2, 2412.10302).

    Source: pixel shuffle as in InternVL (2404.16821) and Idefics3 (2408.12637).
    """

    inside: int
    outside: int
    _: KW_ONLY
    size: int = 2
    hidden: int | None = None
    act: str = "gelu"
    bias: bool = True
    norm: bool = True
    gated: bool = False
    norm_joined: bool = False
    eps: float = 1e-5
    kind: str = "layer"
    grouped: bool = False
    fill: bool = False

    def places(self, patches: int) -> int:
        """Positions out for ``patches`` positions in."""
        return (-(-round(patches**0.5) // self.size)) ** 2 if self.fill else patches // self.size**2

    def build(self) -> MergeNet:
        return MergeNet(self)


class MergeNet(nn.Module):
    """The module of :class:`Merge`."""

    def __init__(self, spec: Merge) -> None:
        super().__init__()
        self.spec = spec
        joined = spec.inside * spec.size**2
        normed = Norm(joined if spec.norm_joined else spec.inside, kind=spec.kind, eps=spec.eps)
        self.norm = normed.build() if spec.norm else nn.Identity()
        if spec.hidden is None:
            self.map: nn.Module = nn.Linear(joined, spec.outside, bias=spec.bias)
        else:
            self.map = MLP(joined, spec.hidden, act=spec.act, gated=spec.gated, bias=spec.bias, out=spec.outside).build()

    def forward(self, features: Features) -> torch.Tensor:
        """(B, P, D) -> (B, P / size ** 2, O)."""
        _check_width(features, self.spec.inside)
        batch, positions, width = features.x_BPD.shape
        side, size = round(positions**0.5), self.spec.size
        if self.spec.fill and side * side == positions and side % size:
            more = size - side % size
            filled = F.pad(features.x_BPD.unflatten(1, (side, side)), (0, 0, 0, more, 0, more)).flatten(1, 2)
            return self(Features(filled))
        if positions % size**2 if self.spec.grouped else side * side != positions or side % size:
            wanted = f"groups of {size**2}" if self.spec.grouped else f"a square whose side divides by {size}"
            raise ShapeError(f"align got a grid of {positions} positions, wanted {wanted}")
        x = features.x_BPD if self.spec.norm_joined else self.norm(features.x_BPD)
        if not self.spec.grouped:
            x = x.reshape(batch, side // size, size, side // size, size, width).transpose(2, 3)
        x = x.reshape(batch, -1, size * size * width)
        return self.map(self.norm(x) if self.spec.norm_joined else x)


@dataclass(frozen=True, repr=False)
class Resample(Spec):
    """Learned queries gather any number of positions into a fixed number.

    Every layer: the queries attend to the features and to themselves together, then an MLP, each added back.

    Args:
        inside, outside: widths of features and decoder; a linear layer joins them if they differ.
        queries, depth, heads, head_width, hidden: sizes; hidden None is 4 D.
        act: of the MLP, which has no biases.
        qk_norm: queries and keys are layer-normalised per head.

    Source: Flamingo (2204.14198), section 2.1 and appendix A.1.1; query/key norm: IDEFICS (2306.16527), appendix.
    """

    inside: int
    outside: int
    _: KW_ONLY
    queries: int = 64
    depth: int = 6
    heads: int = 8
    head_width: int = 64
    hidden: int | None = None
    act: str = "gelu"
    qk_norm: bool = False

    def places(self, patches: int) -> int:
        """Positions out for ``patches`` positions in."""
        return self.queries

    def build(self) -> ResampleNet:
        return ResampleNet(self)


class _ResampleLayer(nn.Module):
    """One layer of :class:`ResampleNet`."""

    def __init__(self, spec: Resample) -> None:
        super().__init__()
        self.source_norm = nn.LayerNorm(spec.inside)
        self.query_norm = nn.LayerNorm(spec.inside)
        norm = dict(qk_norm="layer", qk_eps=1e-5) if spec.qk_norm else {}
        self.attention = Attention(spec.inside, spec.heads, head_width=spec.head_width, **norm).build()
        self.mlp_norm = nn.LayerNorm(spec.inside)
        self.mlp = MLP(spec.inside, spec.hidden or 4 * spec.inside, act=spec.act, bias=False).build()

    def forward(self, query_BQD: torch.Tensor, source_BPD: torch.Tensor) -> torch.Tensor:
        normed = self.query_norm(query_BQD)
        both = torch.cat([self.source_norm(source_BPD), normed], dim=1)
        query_BQD = query_BQD + self.attention.finish(attend(*self.attention.project(normed, both)))
        return query_BQD + self.mlp(self.mlp_norm(query_BQD))


class ResampleNet(nn.Module):
    """The module of :class:`Resample`."""

    def __init__(self, spec: Resample) -> None:
        super().__init__()
        self.spec = spec
        self.queries = nn.Parameter(torch.randn(spec.queries, spec.inside) * spec.inside**-0.5)
        self.layers = nn.ModuleList(_ResampleLayer(spec) for _ in range(spec.depth))
        self.norm = nn.LayerNorm(spec.inside)
        self.out = nn.Linear(spec.inside, spec.outside) if spec.inside != spec.outside else nn.Identity()

    def forward(self, features: Features) -> torch.Tensor:
        """(B, P, D) -> (B, Q, O)."""
        _check_width(features, self.spec.inside)
        x = self.queries.expand(len(features.x_BPD), -1, -1)
        for layer in self.layers:
            x = layer(x, features.x_BPD)
        return self.out(self.norm(x))


def _check_width(features: Features, wanted: int) -> None:
    if features.x_BPD.dim() != 3 or features.x_BPD.shape[-1] != wanted:
        raise ShapeError(f"align got features {tuple(features.x_BPD.shape)}, wanted (B, P, {wanted})")


def _pool(features: Features, pool: str | None, skip: int) -> torch.Tensor:
    x_BPD = features.x_BPD[:, skip:]
    if pool is None:
        return x_BPD
    if pool == "first":
        return x_BPD[:, :1]
    if pool == "mean":
        if features.kept_BP is None:
            return x_BPD.mean(dim=1, keepdim=True)
        kept_BP1 = features.kept_BP[:, skip:, None]
        return (x_BPD * kept_BP1).sum(dim=1, keepdim=True) / kept_BP1.sum(dim=1, keepdim=True).clamp(min=1)
    if features.last_B is None:
        return x_BPD[:, -1:]
    if skip:
        raise ConfigError(f"pool='last' got skip={skip}, wanted 0: the last token is counted from the first")
    return x_BPD[torch.arange(len(x_BPD), device=x_BPD.device), features.last_B][:, None]
