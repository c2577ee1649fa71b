"""Autoencoder of videos: latents a quarter of the frames (after the first) and an eighth of the sides, and back; no frame sees a later one.

Letters: L videos, C channels, F frames, H W pixels, Z channels of latents.

    frames 1 + 4 k -> causal blocks, halve sides, halve time, ... -> 1 + k latent frames -> causal blocks, double, ... -> frames 1 + 4 k

The first frame stands for itself, so that a picture is a video of one frame. Everything is worked out at once; a causal network gives the same
chunk by chunk.

Source: Wan (2503.20314), section 4.1; causal convolutions MAGVIT-v2 (2310.05737), section 3.1.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.layers.attention import Attention
from sensorium.spec import Spec
from sensorium.types import ShapeError

__all__ = ["CompressVideo", "CompressVideoNet", "ExpandVideo", "ExpandVideoNet"]


@dataclass(frozen=True, repr=False)
class _VideoSizes(Spec):
    """What both halves have in common.

    Args:
        widths: channels of the first convolution and at each level, from pixels down.
        latents: Z.
        time: whether time halves after each level but the last, as the sides do.
        blocks: residual blocks of a level on the way down; one more on the way up.
        channels: C.
        mean, std: of each channel of the latents, which come out with mean 0 and deviation 1; () leaves them.
    """

    widths: tuple[int, ...]
    _: KW_ONLY
    latents: int = 16
    time: tuple[bool, ...] = (False, True, True)
    blocks: int = 2
    channels: int = 3
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def shrinks(self) -> tuple[int, int]:
        """How many frames and how many pixels on a side a latent spans."""
        return 2 ** sum(self.time), 2 ** len(self.time)

    def check(self) -> list[str]:
        problems = [] if len(self.time) == len(self.widths) - 2 else [
            f"time has {len(self.time)} entries for {len(self.widths) - 1} levels; give one for each but the last"]
        return problems + [f"{name} has {len(vars(self)[name])} numbers, wanted {self.latents}" for name in ("mean", "std")
                           if vars(self)[name] and len(vars(self)[name]) != self.latents]


class _Causal(nn.Conv3d):
    """A convolution that sees no later frame: what is missing in time is padded before the first."""

    def __init__(self, inside: int, outside: int, kernel: tuple[int, int, int] = (3, 3, 3)) -> None:
        super().__init__(inside, outside, kernel)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time, rows, columns = self.kernel_size
        return super().forward(F.pad(x, (columns // 2, columns // 2, rows // 2, rows // 2, time - 1, 0)))


class _ChannelNorm(nn.Module):
    """Root-mean-square normalisation over the channels of each pixel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (-1, *[1] * (x.dim() - 2))
        return F.normalize(x, dim=1) * len(self.gamma) ** 0.5 * self.gamma.view(shape)


class _Residual(nn.Module):
    """Norm, SiLU, convolution, twice; added to what came in."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.first_norm, self.first = _ChannelNorm(inside), _Causal(inside, outside)
        self.second_norm, self.second = _ChannelNorm(outside), _Causal(outside, outside)
        self.short = _Causal(inside, outside, (1, 1, 1)) if inside != outside else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(F.silu(self.first_norm(x)))
        return self.short(x) + self.second(F.silu(self.second_norm(h)))


class _FrameAttention(nn.Module):
    """Every pixel looks at every other of its frame; added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _ChannelNorm(width)
        self.attention = Attention(width, 1, bias=True).build()

    def forward(self, x_LCFHW: torch.Tensor) -> torch.Tensor:
        frames = self.norm(x_LCFHW).transpose(1, 2).flatten(0, 1)
        found = self.attention(frames.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, frames.shape[2:])
        return x_LCFHW + found.unflatten(0, (len(x_LCFHW), -1)).transpose(1, 2)


class _Shrink(nn.Module):
    """Half the sides, and perhaps half the frames after the first."""

    def __init__(self, width: int, time: bool) -> None:
        super().__init__()
        self.plane = nn.Conv2d(width, width, 3, stride=2)
        self.time = nn.Conv3d(width, width, (3, 1, 1), stride=(2, 1, 1)) if time else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = _each_frame(x, lambda frames: self.plane(F.pad(frames, (0, 1, 0, 1))))
        return x if self.time is None or x.shape[2] == 1 else torch.cat([x[:, :, :1], self.time(x)], dim=2)


class _Grow(nn.Module):
    """Twice the sides, and perhaps twice the frames after the first."""

    def __init__(self, width: int, time: bool) -> None:
        super().__init__()
        self.plane = nn.Conv2d(width, width // 2, 3, padding=1)
        self.time = _Causal(width, 2 * width, (3, 1, 1)) if time else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.time is not None and x.shape[2] > 1:
            pairs = self.time(x[:, :, 1:]).unflatten(1, (2, -1))  # (L, 2, C, F - 1, H, W)
            x = torch.cat([x[:, :, :1], pairs.permute(0, 2, 3, 1, 4, 5).flatten(2, 3)], dim=2)
        return _each_frame(x, lambda frames: self.plane(F.interpolate(frames, scale_factor=2.0, mode="nearest-exact")))


def _each_frame(x_LCFHW: torch.Tensor, change: object) -> torch.Tensor:
    """A change of pictures, frame by frame."""
    return change(x_LCFHW.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x_LCFHW), -1)).transpose(1, 2)


class _Level(nn.Module):
    """The blocks of one size, and what leads to the next."""

    def __init__(self, inside: int, outside: int, blocks: int, next_size: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Residual(inside if index == 0 else outside, outside) for index in range(blocks))
        self.next_size = next_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.next_size is None else self.next_size(x)


class _Half(nn.Module):
    """What both halves are made of."""

    def __init__(self, spec: _VideoSizes) -> None:
        super().__init__()
        self.spec = spec
        mean, std = spec.mean or (0.0,) * spec.latents, spec.std or (1.0,) * spec.latents
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1, 1), persistent=False)
        self.before, self.after = (_Residual(spec.widths[-1], spec.widths[-1]) for _ in range(2))
        self.look = _FrameAttention(spec.widths[-1])

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        """Block, attention, block."""
        return self.after(self.look(self.before(x)))


@dataclass(frozen=True, repr=False)
class CompressVideo(_VideoSizes):
    """Videos to latents."""

    @property
    def width(self) -> int:
        """Numbers in each place of the latents."""
        return self.latents

    def build(self) -> CompressVideoNet:
        return CompressVideoNet(self)


class CompressVideoNet(_Half):
    """The module of :class:`CompressVideo`."""

    def __init__(self, spec: CompressVideo) -> None:
        super().__init__(spec)
        self.first = _Causal(spec.channels, spec.widths[0])
        self.down = nn.ModuleList(
            _Level(inside, outside, spec.blocks, _Shrink(outside, spec.time[level]) if level < len(spec.time) else None)
            for level, (inside, outside) in enumerate(zip(spec.widths[:-1], spec.widths[1:], strict=True)))
        self.norm, self.last = _ChannelNorm(spec.widths[-1]), _Causal(spec.widths[-1], 2 * spec.latents)
        self.mix = nn.Conv3d(2 * spec.latents, 2 * spec.latents, 1)

    def moments(self, x_LCFHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and logarithm of the variance, (L, Z, F, H, W) of the latents each, as the network has them."""
        time, side = self.spec.shrinks
        if x_LCFHW.dim() != 5 or x_LCFHW.shape[1] != self.spec.channels or (x_LCFHW.shape[2] - 1) % time or any(n % side for n in x_LCFHW.shape[3:]):
            raise ShapeError(f"the autoencoder got {tuple(x_LCFHW.shape)}, wanted (L, {self.spec.channels}, 1 + {time} k, H, W) with sides that "
                             f"{side} divides")
        x = self.first(x_LCFHW)
        for level in self.down:
            x = level(x)
        mean, spread = self.mix(self.last(F.silu(self.norm(self.middle(x))))).chunk(2, dim=1)
        return mean, spread.clamp(-30, 20)

    def latents(self, x_LCFHW: torch.Tensor) -> torch.Tensor:
        """Latents as a denoiser draws them."""
        return self.scaled(self.moments(x_LCFHW)[0])

    def scaled(self, z_LZFHW: torch.Tensor) -> torch.Tensor:
        """Latents as the network has them -> as a denoiser draws them."""
        return (z_LZFHW - self.mean) / self.std


@dataclass(frozen=True, repr=False)
class ExpandVideo(_VideoSizes):
    """Latents to videos."""

    def build(self) -> ExpandVideoNet:
        return ExpandVideoNet(self)


class ExpandVideoNet(_Half):
    """The module of :class:`ExpandVideo`."""

    def __init__(self, spec: ExpandVideo) -> None:
        super().__init__(spec)
        widths, levels = spec.widths[:0:-1], len(spec.time)
        self.mix = nn.Conv3d(spec.latents, spec.latents, 1)
        self.first = _Causal(spec.latents, widths[0])
        self.up = nn.ModuleList(
            _Level(widths[0] if level == 0 else widths[level - 1] // 2, width, spec.blocks + 1,
                   _Grow(width, spec.time[levels - 1 - level]) if level < levels else None)
            for level, width in enumerate(widths))
        self.norm, self.last = _ChannelNorm(widths[-1]), _Causal(widths[-1], spec.channels)

    def forward(self, z_LZFHW: torch.Tensor) -> torch.Tensor:
        """Latents as a denoiser draws them -> videos, -1..1."""
        if z_LZFHW.dim() != 5 or z_LZFHW.shape[1] != self.spec.latents:
            raise ShapeError(f"the autoencoder got latents {tuple(z_LZFHW.shape)}, wanted (L, {self.spec.latents}, F, H, W)")
        x = self.middle(self.first(self.mix(z_LZFHW * self.std + self.mean)))
        for level in self.up:
            x = level(x)
        return self.last(F.silu(self.norm(x))).clamp(-1, 1)
