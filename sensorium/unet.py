"""U-Net: the convolutional decoder of pictures being denoised, which looks at the prompt at every level.

Letters: L media, C channels, H W pixels, T = H x W, S tokens of the prompt, D width of the condition.

    noisy -> [blocks, halve] -> [blocks, halve] -> ... -> middle -> ... -> [double, blocks] -> [double, blocks] -> prediction
                  |_______________________________________________________________________________^   what each block made is seen again
    block: residual convolutions, told the time; then (where it looks) self-attention, attention to the prompt, MLP

Source: U-Net 1505.04597; latent diffusion 2112.10752, section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.layers.attention import Attention
from sensorium.layers.blocks import MLP
from sensorium.layers.residuals import Double, Halve, Residual
from sensorium.spec import Spec

__all__ = ["UNet", "UNetNet"]


@dataclass(frozen=True, repr=False)
class UNet(Spec):
    """A U-Net.

    Args:
        widths: channels at each level, from the full size down.
        blocks: of each level on the way down; one more on the way up.
        looks: transformer layers after each block of a level, 0 for none; the middle has as many as the last level that looks.
        heads: of the attention at each level.
        source: width of the prompt's features.
        condition: D.
        groups, eps: of the residual blocks' norms.
    """

    widths: tuple[int, ...]
    _: KW_ONLY
    looks: tuple[int, ...]
    heads: tuple[int, ...]
    source: int
    condition: int
    blocks: int = 2
    groups: int = 32
    eps: float = 1e-5

    @property
    def width(self) -> int:
        """Channels that go in and come out."""
        return self.widths[0]

    @property
    def writer(self) -> UNet:
        """What writes media: all of it."""
        return self

    @property
    def middle(self) -> int:
        """Transformer layers in the middle."""
        return next((looks for looks in reversed(self.looks) if looks), 0)

    def check(self) -> list[str]:
        problems = []
        for name in ("looks", "heads"):
            if len(vars(self)[name]) != len(self.widths):
                problems.append(f"{name} has {len(vars(self)[name])} numbers for {len(self.widths)} levels; give one for each of widths")
        uneven = [width for width in self.widths if width % self.groups]
        return problems + ([f"widths {uneven} do not divide into {self.groups} groups"] if uneven else [])

    def build(self) -> UNetNet:
        return UNetNet(self)


class _Layer(nn.Module):
    """Self-attention, attention to the prompt, MLP; each after a norm and added."""

    def __init__(self, width: int, heads: int, source: int) -> None:
        super().__init__()
        self.self_norm, self.cross_norm, self.mlp_norm = (nn.LayerNorm(width) for _ in range(3))
        self.self_attention = Attention(width, heads, bias=False, out_bias=True).build()
        self.cross_attention = Attention(width, heads, bias=False, out_bias=True, source_width=source).build()
        self.mlp = MLP(width, 4 * width, gated=True).build()

    def forward(self, x_LTC: torch.Tensor, source_LSD: torch.Tensor) -> torch.Tensor:
        x_LTC = x_LTC + self.self_attention(self.self_norm(x_LTC))
        x_LTC = x_LTC + self.cross_attention(self.cross_norm(x_LTC), source_LSD)
        return x_LTC + self.mlp(self.mlp_norm(x_LTC))


class _Look(nn.Module):
    """A few transformer layers over all pixels; added to what came in."""

    def __init__(self, width: int, depth: int, heads: int, source: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, 1e-6)
        self.inside, self.outside = nn.Linear(width, width), nn.Linear(width, width)
        self.layers = nn.ModuleList(_Layer(width, heads, source) for _ in range(depth))

    def forward(self, x_LCHW: torch.Tensor, source_LSD: torch.Tensor) -> torch.Tensor:
        x_LTC = self.inside(self.norm(x_LCHW).flatten(2).transpose(1, 2))
        for layer in self.layers:
            x_LTC = layer(x_LTC, source_LSD)
        return x_LCHW + self.outside(x_LTC).transpose(1, 2).unflatten(2, x_LCHW.shape[2:])


class _Level(nn.Module):
    """The blocks of one size, and what leads to the next."""

    def __init__(self, spec: UNet, level: int, inside: Sequence[int], next_size: nn.Module | None) -> None:
        super().__init__()
        width, looks = spec.widths[level], spec.looks[level]
        self.blocks = nn.ModuleList(Residual(channels, width, spec.groups, spec.eps, spec.condition) for channels in inside)
        self.looks = nn.ModuleList(_Look(width, looks, spec.heads[level], spec.source, spec.groups) for _ in inside if looks)
        self.next_size = next_size

    def block(self, index: int, x_LCHW: torch.Tensor, condition_LD: torch.Tensor, source_LSD: torch.Tensor) -> torch.Tensor:
        """One block, and its look at the prompt if it has one."""
        x_LCHW = self.blocks[index](x_LCHW, condition_LD)
        return self.looks[index](x_LCHW, source_LSD) if len(self.looks) else x_LCHW


class UNetNet(nn.Module):
    """The module of :class:`UNet`."""

    def __init__(self, spec: UNet) -> None:
        super().__init__()
        self.spec = spec
        widths, last = spec.widths, len(spec.widths) - 1
        made = [widths[0]]  # channels of everything that the way up sees again
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            inside = [made[-1], *[width] * (spec.blocks - 1)]
            self.down.append(_Level(spec, level, inside, Halve(width) if level < last else None))
            made += [width] * (spec.blocks + (level < last))
        self.middle = nn.ModuleList(Residual(widths[-1], widths[-1], spec.groups, spec.eps, spec.condition) for _ in range(2))
        self.middle_look = _Look(widths[-1], spec.middle, spec.heads[-1], spec.source, spec.groups) if spec.middle else None
        self.up = nn.ModuleList()
        below = widths[-1]
        for level in range(last, -1, -1):
            inside = [made.pop() + (below if index == 0 else widths[level]) for index in range(spec.blocks + 1)]
            self.up.append(_Level(spec, level, inside, Double(widths[level]) if level else None))
            below = widths[level]

    def forward(self, x_LCHW: torch.Tensor, condition_BD: torch.Tensor, source_LSD: torch.Tensor, writing: bool = True) -> torch.Tensor:
        """Channels in and out are ``spec.width``; the sides must halve as often as there are levels below the first."""
        condition = F.silu(condition_BD)
        x = x_LCHW.contiguous(memory_format=torch.channels_last)
        seen = [x]
        for level in self.down:
            for index in range(len(level.blocks)):
                x = level.block(index, x, condition, source_LSD)
                seen.append(x)
            if level.next_size is not None:
                x = level.next_size(x)
                seen.append(x)
        x = self.middle[0](x, condition)
        x = self.middle[1](x if self.middle_look is None else self.middle_look(x, source_LSD), condition)
        for level in self.up:
            for index in range(len(level.blocks)):
                x = level.block(index, torch.cat([x, seen.pop()], dim=1), condition, source_LSD)
            if level.next_size is not None:
                x = level.next_size(x)
        return x
