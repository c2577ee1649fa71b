"""Autoencoder: pictures to latents an eighth of their sides, and back; what latent diffusion draws in.

Letters: L media, C channels, H W pixels, Z channels of latents, P = places of latents.

    pixels -> blocks, halve, ... -> attention -> mean and spread -> latents -> attention -> blocks, double, ... -> pixels

Source: 2112.10752, section 3.1 and appendix G, after VQGAN (2012.09841).
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.layers.residuals import Double, Halve, PlaneAttention, Residual
from sensorium.spec import Spec
from sensorium.types import Features, ShapeError

__all__ = ["Compress", "CompressNet", "Expand", "ExpandNet"]

EPS = 1e-6


@dataclass(frozen=True, repr=False)
class _Sizes(Spec):
    """What both halves have in common.

    Args:
        widths: channels at each level, from pixels down; the sides halve between levels.
        latents: Z.
        channels: C.
        blocks: residual blocks of a level on the way down; one more on the way up.
        groups: of the norms.
        scale, shift: latents are (mean - shift) * scale, about as large as noise.
        look: attention in the middle; looks: after each block of the smallest level as well.
        mixed: one more layer that mixes the latents' channels.
        inner: channels before (on the way back: after) that layer; None is Z.
        spread: a place's latents come with their variance.
    """

    widths: tuple[int, ...]
    _: KW_ONLY
    latents: int = 4
    channels: int = 3
    blocks: int = 2
    groups: int = 32
    scale: float = 0.18215
    shift: float = 0.0
    look: bool = True
    looks: bool = False
    mixed: bool = True
    inner: int | None = None
    spread: bool = True

    @property
    def shrinks(self) -> int:
        """How many pixels a latent spans on a side."""
        return 2 ** (len(self.widths) - 1)

    def check(self) -> list[str]:
        uneven = [width for width in self.widths if width % self.groups]
        return [f"widths {uneven} do not divide into {self.groups} groups"] if uneven else []


class _Level(nn.Module):
    """The blocks of one size, and what leads to the next."""

    def __init__(self, spec: _Sizes, inside: int, width: int, blocks: int, next_size: nn.Module | None, smallest: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Residual(inside if index == 0 else width, width, spec.groups, EPS) for index in range(blocks))
        self.looks = nn.ModuleList(PlaneAttention(width, spec.groups) for _ in range(blocks) if spec.looks and smallest)
        self.next_size = next_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for index, block in enumerate(self.blocks):
            x = block(x)
            x = self.looks[index](x) if len(self.looks) else x
        return x if self.next_size is None else self.next_size(x)


class _Middle(nn.Module):
    """Block, attention, block."""

    def __init__(self, spec: _Sizes) -> None:
        super().__init__()
        width = spec.widths[-1]
        self.before, self.after = (Residual(width, width, spec.groups, EPS) for _ in range(2))
        self.look = PlaneAttention(width, spec.groups) if spec.look else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.look(self.before(x)))


@dataclass(frozen=True, repr=False)
class Compress(_Sizes):
    """Pixels to latents."""

    @property
    def width(self) -> int:
        """Numbers in each place of the latents."""
        return self.latents

    def build(self) -> CompressNet:
        return CompressNet(self)


class CompressNet(nn.Module):
    """The module of :class:`Compress`."""

    def __init__(self, spec: Compress) -> None:
        super().__init__()
        self.spec = spec
        widths, last = spec.widths, len(spec.widths) - 1
        self.first = nn.Conv2d(spec.channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            _Level(spec, widths[max(level - 1, 0)], width, spec.blocks, Halve(width, even=False) if level < last else None, level == last)
            for level, width in enumerate(widths))
        self.middle = _Middle(spec)
        self.norm = nn.GroupNorm(spec.groups, spec.widths[-1], EPS)
        inner, out = (width * (1 + spec.spread) for width in (spec.inner or spec.latents, spec.latents))
        self.last = nn.Conv2d(spec.widths[-1], inner, 3, padding=1)
        self.mix = nn.Conv2d(inner, out, 1) if spec.mixed else nn.Identity()

    def moments(self, x_LCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Mean and logarithm of the variance (None without ``spread``), (L, Z, H / shrinks, W / shrinks) each, neither shifted nor scaled."""
        if x_LCHW.dim() != 4 or x_LCHW.shape[1] != self.spec.channels or any(side % self.spec.shrinks for side in x_LCHW.shape[2:]):
            raise ShapeError(f"the autoencoder got {tuple(x_LCHW.shape)}, wanted (L, {self.spec.channels}, H, W) with sides that "
                             f"{self.spec.shrinks} divides")
        x = self.first(x_LCHW.contiguous(memory_format=torch.channels_last))
        for level in self.down:
            x = level(x)
        out = self.mix(self.last(F.silu(self.norm(self.middle(x)))))
        if not self.spec.spread:
            return out, None
        mean, spread = out.chunk(2, dim=1)
        return mean, spread.clamp(-30, 20)

    def latents(self, x_LCHW: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Latents as a denoiser draws them; ``generator``: drawn around their mean."""
        mean, spread = self.moments(x_LCHW)
        if generator is not None and spread is not None:
            mean = mean + (spread / 2).exp() * torch.randn(mean.shape, generator=generator).to(mean)
        return self.scaled(mean)

    def scaled(self, z_LZHW: torch.Tensor) -> torch.Tensor:
        """Latents as the network has them -> as a denoiser draws them."""
        return (z_LZHW - self.spec.shift) * self.spec.scale

    def forward(self, x_LCHW: torch.Tensor) -> Features:
        """(L, C, H, W) pixels -> (L, P, Z) features, row by row."""
        return Features(self.latents(x_LCHW).flatten(2).transpose(1, 2))


@dataclass(frozen=True, repr=False)
class Expand(_Sizes):
    """Latents to pixels."""

    def build(self) -> ExpandNet:
        return ExpandNet(self)


class ExpandNet(nn.Module):
    """The module of :class:`Expand`."""

    def __init__(self, spec: Expand) -> None:
        super().__init__()
        self.spec = spec
        widths, last = spec.widths[::-1], len(spec.widths) - 1
        inner = spec.inner or spec.latents
        self.mix = nn.Conv2d(spec.latents, inner, 1) if spec.mixed else nn.Identity()
        self.first = nn.Conv2d(inner, widths[0], 3, padding=1)
        self.middle = _Middle(spec)
        self.up = nn.ModuleList(_Level(spec, widths[max(level - 1, 0)], width, spec.blocks + 1, Double(width) if level < last else None, level == 0)
                                for level, width in enumerate(widths))
        self.norm = nn.GroupNorm(spec.groups, widths[-1], EPS)
        self.last = nn.Conv2d(widths[-1], spec.channels, 3, padding=1)

    def forward(self, z_LZHW: torch.Tensor) -> torch.Tensor:
        """Latents as a denoiser draws them -> pixels, -1..1."""
        if z_LZHW.dim() != 4 or z_LZHW.shape[1] != self.spec.latents:
            raise ShapeError(f"the autoencoder got latents {tuple(z_LZHW.shape)}, wanted (L, {self.spec.latents}, H, W)")
        z = z_LZHW / self.spec.scale + self.spec.shift
        x = self.middle(self.first(self.mix(z.contiguous(memory_format=torch.channels_last))))
        for level in self.up:
            x = level(x)
        return self.last(F.silu(self.norm(x)))
