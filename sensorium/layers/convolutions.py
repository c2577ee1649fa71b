"""Convolutional networks: a residual pyramid that starts from nothing, and inverted residuals that published weights come in.

Letters: B batch, C channels, H W pixels, P patches, D width.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["InvertedNet", "PyramidNet"]


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


class _Same(nn.Conv2d):
    """A convolution whose output is the input's size divided by the stride, rounded up; what is missing is padded, the odd pixel last.

    Source: TensorFlow's "SAME", which the EfficientNets were trained with.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size, stride = self.kernel_size[0], self.stride[0]
        pads = [max((-(-side // stride) - 1) * stride + size - side, 0) for side in x.shape[:1:-1]]  # width first, as F.pad counts
        if all(pad == size - 1 and pad % 2 == 0 for pad in pads):
            return F.conv2d(x, self.weight, self.bias, stride, size // 2, 1, self.groups)  # even on both sides: no copy
        return super().forward(F.pad(x, [half for pad in pads for half in (pad // 2, pad - pad // 2)]))


class _Inverted(nn.Module):
    """Widen, look around in each channel alone, narrow; added to what came in where the shape allows.

    It has no norms: those of published weights are folded into the convolutions, so that no sample depends on its neighbours.
    """

    def __init__(self, inside: int, outside: int, expand: int, kernel: int, stride: int) -> None:
        super().__init__()
        middle = inside * expand
        self.widen = nn.Conv2d(inside, middle, 1) if expand > 1 else None
        self.look = _Same(middle, middle, kernel, stride, groups=middle)
        self.narrow = nn.Conv2d(middle, outside, 1)
        self.added = stride == 1 and inside == outside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x if self.widen is None else F.relu6(self.widen(x))
        h = self.narrow(F.relu6(self.look(h)))
        return x + h if self.added else h


class InvertedNet(nn.Module):
    """Stages of inverted residuals between a first and a last convolution.

    Source: MobileNetV2 (1801.04381), section 3.3; EfficientNet (1905.11946), in its Lite form: ReLU6 and no squeeze-and-excitation.
    """

    def __init__(self, channels: int, stem: int, stages: tuple[tuple[int, int, int, int, int], ...], last: int) -> None:
        super().__init__()
        self.stem = _Same(channels, stem, 3, 2)
        layers, inside = [], stem
        for expand, width, blocks, stride, kernel in stages:
            for index in range(blocks):
                layers.append(_Inverted(inside, width, expand, kernel, stride if index == 0 else 1))
                inside = width
        self.layers = nn.Sequential(*layers)
        self.last = nn.Conv2d(inside, last, 1)
        with torch.no_grad():
            for module in self.modules():  # without norms the first weights must keep the size of what flows through: He's variance, 2 / fan-in
                if isinstance(module, nn.Conv2d):
                    module.weight.mul_(6**0.5)  # torch's own is 1 / (3 fan-in)
                    module.bias.zero_()

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, P, D), row by row."""
        if image_BCHW.device.type == "cpu" and torch.is_autocast_enabled("cpu"):  # depthwise in bfloat16 is twice as slow there
            with torch.autocast("cpu", enabled=False):
                return self.forward(image_BCHW)
        x = F.relu6(self.stem(image_BCHW.contiguous(memory_format=torch.channels_last)))
        return F.relu6(self.last(self.layers(x))).flatten(2).transpose(1, 2)
