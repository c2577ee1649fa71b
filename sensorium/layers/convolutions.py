"""Convolutional networks: inverted residuals, without norms, as published weights come in when the norms are folded.

Letters: B batch, C channels, H W pixels, P patches, D width.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["InvertedNet"]


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
