"""Dual stream: two transformers, one over the prompt and one over the medium being denoised, that look at each other in every layer.

Letters: L media, P patches, S tokens of the prompt, D width, N heads, E head width.

    prompt --> [norm, modulated] --> query, key, value --\\                     /--> + MLP --> ... (after the last layer it has done its work)
                                                          one attention over both
    patches -> [norm, modulated] --> query, key, value --/                     \\--> + MLP --> ... --> states of the patches

Source: MM-DiT (2403.03206), section 4 and figure 2; Stable Diffusion 3.5's second look of the patches at themselves alone.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.layers.attention import Attention, attend
from sensorium.layers.blocks import MLP, Block
from sensorium.layers.norms import Norm
from sensorium.spec import Spec

__all__ = ["DualStream", "DualStreamNet"]


@dataclass(frozen=True, repr=False)
class DualStream(Spec):
    """Two streams of one width.

    Args:
        width, depth, heads: of both.
        source: width of the prompt's features.
        condition: width of the vector that modulates every layer; None is ``width``.
        qk_norm: of queries and keys, as ``Attention`` has it.
        alone: how many of the first layers let the patches look at themselves alone as well.
    """

    width: int
    depth: int
    heads: int
    _: KW_ONLY
    source: int
    condition: int | None = None
    qk_norm: bool = False
    alone: int = 0

    @property
    def writer(self) -> DualStream:
        """What writes media: all of it."""
        return self

    @property
    def block(self) -> Block:
        """A layer of either stream."""
        return Block(attention=Attention(self.width, self.heads, bias=True, qk_norm=self.qk_norm),
                     mlp=MLP(self.width, 4 * self.width, act="gelu_tanh"), norm=Norm(self.width, eps=1e-6, affine=False),
                     adaln=self.condition or self.width)

    def check(self) -> list[str]:
        problems = [] if self.depth >= 1 else [f"depth is {self.depth}, wanted 1 or more"]
        return problems + ([] if 0 <= self.alone <= self.depth else [f"alone is {self.alone}, wanted 0 to {self.depth}"])

    def build(self) -> DualStreamNet:
        return DualStreamNet(self)


class _Last(nn.Module):
    """The prompt's part of the last layer: it is looked at, and is not needed after."""

    def __init__(self, spec: DualStream) -> None:
        super().__init__()
        attention = Attention(spec.width, spec.heads, bias=True, qk_norm=spec.qk_norm).build()
        self.norm = nn.LayerNorm(spec.width, eps=1e-6, elementwise_affine=False)
        self.modulate = nn.Linear(spec.condition or spec.width, 2 * spec.width)
        attention.query = attention.query_norm = attention.out = nn.Identity()  # it asks for nothing, and nothing is put together again
        self.attention = attention

    def offer(self, x_LSD: torch.Tensor, condition_LD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Key and value."""
        shift, scale = self.modulate(F.silu(condition_LD))[:, None].chunk(2, dim=-1)
        return self.attention.offer(self.norm(x_LSD) * (1 + scale) + shift)


class _Alone(nn.Module):
    """A look of the patches at themselves alone, beside the one at both."""

    def __init__(self, spec: DualStream) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(spec.width, eps=1e-6, elementwise_affine=False)
        self.modulate = nn.Linear(spec.condition or spec.width, 3 * spec.width)
        self.attention = Attention(spec.width, spec.heads, bias=True, qk_norm=spec.qk_norm).build()

    def forward(self, x_LPD: torch.Tensor, condition_LD: torch.Tensor) -> torch.Tensor:
        shift, scale, gate = self.modulate(F.silu(condition_LD))[:, None].chunk(3, dim=-1)
        return gate * self.attention(self.norm(x_LPD) * (1 + scale) + shift)


class DualStreamNet(nn.Module):
    """The module of :class:`DualStream`."""

    def __init__(self, spec: DualStream) -> None:
        super().__init__()
        self.spec = spec
        self.inside = nn.Linear(spec.source, spec.width)
        self.prompt = nn.ModuleList(spec.block.build() for _ in range(spec.depth - 1))
        self.last = _Last(spec)
        self.medium = nn.ModuleList(spec.block.build() for _ in range(spec.depth))
        self.alone = nn.ModuleList(_Alone(spec) for _ in range(spec.alone))

    def forward(self, x_LPD: torch.Tensor, condition_BD: torch.Tensor, source_LSD: torch.Tensor, writing: bool = True) -> torch.Tensor:
        """Patches, what modulates, and the prompt's features -> states of the patches, (L, P, D)."""
        prompt_LSD = self.inside(source_LSD)
        patches = x_LPD.shape[1]
        for index, layer in enumerate(self.medium):
            reader = self.prompt[index] if index < len(self.prompt) else None
            mine, theirs = layer.modulation(condition_BD), None if reader is None else reader.modulation(condition_BD)
            query, *offered = layer.first(x_LPD, mine, None)
            if reader is None:
                more = self.last.offer(prompt_LSD, condition_BD)
            else:
                asked, *more = reader.first(prompt_LSD, theirs, None)
                query = torch.cat([query, asked], dim=1)
            key, value = (torch.cat(both, dim=1) for both in zip(offered, more, strict=True))
            mixed = attend(query, key, value)
            besides = self.alone[index](x_LPD, condition_BD) if index < len(self.alone) else None
            x_LPD = layer.second(x_LPD, mixed[:, :patches], mine, None if besides is None else lambda x, more=besides: x + more)
            if reader is not None:
                prompt_LSD = reader.second(prompt_LSD, mixed[:, patches:], theirs)
        return x_LPD
