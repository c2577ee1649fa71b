"""Pictures to patches and back, and the convolutional pyramid for small pictures.

Letters: B batch, C channels, H W pixels, P patches, D width.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.types import ShapeError

__all__ = ["patchify", "PyramidNet", "unpatchify"]


def patchify(image_BCHW: torch.Tensor, patch: int) -> torch.Tensor:
    """(B, C, H, W) -> (B, P, patch * patch * C), patches row by row, each row by row, channels last (DiT's order)."""
    batch, channels, height, width = image_BCHW.shape
    if height % patch or width % patch:
        raise ShapeError(f"a picture of {height} x {width} does not divide into patches of {patch}; resize it")
    x = image_BCHW.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch * patch * channels)


def unpatchify(patch_BPD: torch.Tensor, patch: int, rows: int, columns: int) -> torch.Tensor:
    """The inverse of :func:`patchify`."""
    batch = patch_BPD.shape[0]
    x = patch_BPD.reshape(batch, rows, columns, patch, patch, -1)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, rows * patch, columns * patch)


class _Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut, normalised in groups; halves the picture when ``stride`` is 2.

    Group norm, not batch norm: what one sample computes must not depend on its neighbours in the batch.
    """

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.one_norm = nn.GroupNorm(8, outside)
        self.two = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.two_norm = nn.GroupNorm(8, outside)
        same = stride == 1 and inside == outside
        self.short = None if same else nn.Conv2d(inside, outside, 1, 1, bias=False)
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        short = x if self.stride == 1 else F.avg_pool2d(x, 2)
        short = short if self.short is None else self.short(short)
        x = F.relu(self.one_norm(self.one(x)))
        return F.relu(self.two_norm(self.two(x)) + short)


class PyramidNet(nn.Module):
    """A small residual network: each stage halves the picture.

    Source: ResNet (1512.03385) with the pooled shortcut of 1812.01187, figure 2c.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, widths[0], 3, 2, 1, bias=False)
        self.stem_norm = nn.GroupNorm(8, widths[0])
        layers = []
        for index, width in enumerate(widths):
            inside = widths[max(index - 1, 0)]
            layers.append(_Residual(inside, width, 1 if index == 0 else 2))
            layers.extend(_Residual(width, width, 1) for _ in range(blocks[index] - 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, P, D), row by row, H and W divided by 2 ** stages."""
        x = image_BCHW.contiguous(memory_format=torch.channels_last)
        x = F.relu(self.stem_norm(self.stem(x)))
        return self.layers(x).flatten(2).transpose(1, 2)
