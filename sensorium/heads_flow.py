"""Flow heads: media that are being denoised go into a decoder and come out as what the objective predicts.

Letters: L media, C channels, H W pixels, F frames, P patches, D width.

    Flow        pictures as patches
    VideoFlow   videos as patches of space and time
    ConvFlow    pictures through one convolution on either side (U-Net)
    FrameFlow   videos frame by frame through a head of pictures, with motion between the decoder's layers
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.layers.patches import patchify, unpatchify
from sensorium.layers.positions import grid_sinusoids
from sensorium.paths import PREDICTIONS
from sensorium.spec import Spec
from sensorium.types import ShapeError

__all__ = ["ConvFlow", "Flow", "FrameFlow", "VideoFlow"]


@dataclass(frozen=True, repr=False)
class Flow(Spec):
    """A picture being denoised: in as patches, out as what the objective predicts.

    Args:
        width: of the decoder.
        size, patch, channels: of the picture (pixels or latents).
        predict: "velocity" (clean minus noise), "sample" (the clean picture), "noise", or "turn" (see ``paths.PREDICTIONS``).
        condition: width of the condition that modulates the last norm; None has a plain norm.
        bottleneck: patches go in through this few numbers (2511.13720: clean pictures lie on a thin sheet); None is direct.
        refine: channels that the patches open into before two small convolutions, which also see the noisy picture, join them
            across their borders; None: the patches are the answer.
        out_channels: more than ``channels`` where the published head also predicts a variance.
        table: side of a stored table of places, from whose middle the picture's are taken; None works them out.
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
    table: int | None = None
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
        self.register_buffer("position", grid_sinusoids(spec.table or spec.side, spec.table or spec.side, spec.width), persistent=bool(spec.table))
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
        return self.inside(patchify(x_LCHW, self.spec.patch)) + self._places().to(x_LCHW.dtype)

    def _places(self) -> torch.Tensor:
        """(P, D) of the patches."""
        if self.spec.table is None:
            return self.position
        first, side = (self.spec.table - self.spec.side) // 2, self.spec.side
        grid = self.position.unflatten(0, (self.spec.table, self.spec.table))
        return grid[first : first + side, first : first + side].flatten(0, 1)

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


@dataclass(frozen=True, repr=False)
class ConvFlow(Spec):
    """A picture being denoised by a convolutional decoder: in and out by one convolution each.

    Args:
        width: channels of the decoder.
        size, channels: of the picture (pixels or latents); any size that the decoder can halve is taken.
        predict: what comes out; one of ``paths.PREDICTIONS``.
        groups, eps: of the norm before the last convolution.
    """

    width: int
    _: KW_ONLY
    size: int
    channels: int = 4
    predict: str = "noise"
    groups: int = 32
    eps: float = 1e-5

    def check(self) -> list[str]:
        problems = [] if self.predict in PREDICTIONS else [f"predict {self.predict!r} is not known; use one of {PREDICTIONS}"]
        return problems + ([f"width {self.width} does not divide into {self.groups} groups"] if self.width % self.groups else [])

    def build(self) -> ConvFlowNet:
        return ConvFlowNet(self)


class ConvFlowNet(nn.Module):
    """The module of :class:`ConvFlow`: ``patches`` before the decoder, ``forward`` after it, as ``FlowNet`` has them."""

    def __init__(self, spec: ConvFlow) -> None:
        super().__init__()
        self.spec = spec
        self.inside = nn.Conv2d(spec.channels, spec.width, 3, padding=1)
        self.norm = nn.GroupNorm(spec.groups, spec.width, spec.eps)
        self.out = nn.Conv2d(spec.width, spec.channels, 3, padding=1)

    def patches(self, x_LCHW: torch.Tensor) -> torch.Tensor:
        """Noisy pictures -> (L, width, H, W)."""
        if x_LCHW.dim() != 4 or x_LCHW.shape[1] != self.spec.channels:
            raise ShapeError(f"the flow head got {tuple(x_LCHW.shape)}, wanted (L, {self.spec.channels}, H, W)")
        return self.inside(x_LCHW.contiguous(memory_format=torch.channels_last))

    def forward(self, x_LDHW: torch.Tensor, noisy_LCHW: torch.Tensor, condition_LD: torch.Tensor | None = None) -> torch.Tensor:
        """The decoder's states -> (L, C, H, W)."""
        return self.out(F.silu(self.norm(x_LDHW)))


@dataclass(frozen=True, repr=False)
class VideoFlow(Spec):
    """A video being denoised: in as patches of space and time, out as what the objective predicts. Places are left to the decoder's turning.

    Args:
        width: of the decoder.
        frames, height, wide: of the video (pixels or latents) that is drawn if nothing else is said; any that patches divide is taken.
        patch: frames, rows and columns of a patch.
        channels: of the video.
        predict: one of ``paths.PREDICTIONS``.
        eps: of the last norm, which the condition moves and scales, added to a learned table (2310.00426, section 2.3).

    Source: 2503.20314, section 4.2.
    """

    width: int
    _: KW_ONLY
    frames: int
    height: int
    wide: int
    patch: tuple[int, int, int] = (1, 2, 2)
    channels: int = 16
    predict: str = "velocity"
    eps: float = 1e-6

    def check(self) -> list[str]:
        sides = (self.frames, self.height, self.wide)
        problems = [] if self.predict in PREDICTIONS else [f"predict {self.predict!r} is not known; use one of {PREDICTIONS}"]
        uneven = any(side % patch for side, patch in zip(sides, self.patch, strict=True))
        return problems + ([f"frames, height and wide are {sides}, which patches of {self.patch} do not divide"] if uneven else [])

    def build(self) -> VideoFlowNet:
        return VideoFlowNet(self)


class VideoFlowNet(nn.Module):
    """The module of :class:`VideoFlow`."""

    def __init__(self, spec: VideoFlow) -> None:
        super().__init__()
        self.spec = spec
        numbers = spec.channels * spec.patch[0] * spec.patch[1] * spec.patch[2]
        self.inside, self.out = nn.Linear(numbers, spec.width), nn.Linear(spec.width, numbers)
        self.norm = nn.LayerNorm(spec.width, eps=spec.eps, elementwise_affine=False)
        self.table = nn.Parameter(torch.randn(2, spec.width) * spec.width**-0.5)

    def grid(self, x_LCFHW: torch.Tensor) -> tuple[int, int, int]:
        """Patches along time, rows and columns."""
        spec = self.spec
        if x_LCFHW.dim() != 5 or x_LCFHW.shape[1] != spec.channels or any(n % p for n, p in zip(x_LCFHW.shape[2:], spec.patch, strict=True)):
            raise ShapeError(f"the flow head got {tuple(x_LCFHW.shape)}, wanted (L, {spec.channels}, F, H, W) that {spec.patch} divides")
        return tuple(n // p for n, p in zip(x_LCFHW.shape[2:], spec.patch, strict=True))

    def patches(self, x_LCFHW: torch.Tensor) -> torch.Tensor:
        """Noisy videos -> (L, P, D): frame by frame, row by row; in a patch channels first."""
        (a, b, c), (f, h, w) = self.spec.patch, self.grid(x_LCFHW)
        x = x_LCFHW.reshape(-1, self.spec.channels, f, a, h, b, w, c).permute(0, 2, 4, 6, 1, 3, 5, 7)
        return self.inside(x.flatten(4).flatten(1, 3))

    def forward(self, x_LPD: torch.Tensor, noisy_LCFHW: torch.Tensor, condition_LD: torch.Tensor) -> torch.Tensor:
        """The decoder's states -> (L, C, F, H, W)."""
        spec = self.spec
        shift, scale = (self.table + condition_LD[:, None]).chunk(2, dim=1)
        (a, b, c), (f, h, w) = spec.patch, self.grid(noisy_LCFHW)
        out = self.out(self.norm(x_LPD) * (1 + scale) + shift).reshape(-1, f, h, w, a, b, c, spec.channels)
        return out.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)


@dataclass(frozen=True, repr=False)
class FrameFlow(Spec):
    """A video whose frames go in and out as pictures; it has no weights of its own.

    Args:
        of: the head that each frame goes through.
        frames: of a video.
        size, channels, predict: as the head of pictures has them.
    """

    of: str = "image"
    _: KW_ONLY
    frames: int = 8
    size: int
    channels: int = 3
    predict: str = "sample"

    def build(self) -> FrameFlowNet:
        return FrameFlowNet(self)


class FrameFlowNet(nn.Module):
    """The module of :class:`FrameFlow`: videos become their frames, and frames videos."""

    def __init__(self, spec: FrameFlow) -> None:
        super().__init__()
        self.spec = spec

    def frames(self, x_LCFHW: torch.Tensor) -> torch.Tensor:
        """(L, C, F, H, W) -> (L * F, C, H, W)."""
        wanted = (self.spec.channels, self.spec.frames, self.spec.size, self.spec.size)
        if tuple(x_LCFHW.shape[1:]) != wanted:
            raise ShapeError(f"the frame head got {tuple(x_LCFHW.shape)}, wanted (L, {', '.join(map(str, wanted))})")
        return x_LCFHW.transpose(1, 2).flatten(0, 1)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """(L * F, C, H, W) -> (L, C, F, H, W)."""
        return x_NCHW.unflatten(0, (-1, self.spec.frames)).transpose(1, 2)
