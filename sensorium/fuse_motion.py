"""Motion: frames look at each other between the layers that draw each of them, so that a model of pictures draws moving ones.

Letters: L videos, F frames, P patches, D width, I inside.

    (L * F, P, D) -> each patch with itself in the other frames -> added to what the layer reads
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn

from sensorium.layers.stack import Stack
from sensorium.spec import Spec
from sensorium.types import ShapeError

__all__ = ["Motion", "MotionNet"]


@dataclass(frozen=True, repr=False)
class Motion(Spec):
    """Small layers of attention over time, one before each layer that writes; they start as if they were not there.

    Args:
        width, layers: of the stack that writes.
        frames: most frames of a video.
        inside: width in which a patch looks at itself in the other frames.
        heads: of that look.

    Source: AnimateDiff (2307.04725), section 4.2.
    """

    _: KW_ONLY
    width: int
    layers: int
    frames: int = 8
    inside: int = 160
    heads: int = 4

    def build(self) -> MotionNet:
        return MotionNet(self)


class _Look(nn.Module):
    """One layer of :class:`MotionNet`."""

    def __init__(self, spec: Motion) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(spec.width, eps=1e-6)
        self.down, self.up = nn.Linear(spec.width, spec.inside), nn.Linear(spec.inside, spec.width)
        self.time = nn.Parameter(torch.randn(spec.frames, spec.inside) * 0.5)
        self.stack = Stack(spec.inside, 1, spec.heads, hidden=2 * spec.inside, norm="rms", bias=False, qk_norm=True, rule="full").build()
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x_LFPD: torch.Tensor) -> torch.Tensor:
        count, frames, patches, _ = x_LFPD.shape
        looks = (self.down(self.norm(x_LFPD)) + self.time[:frames, None]).transpose(1, 2).flatten(0, 1)
        looks = self.stack(looks).unflatten(0, (count, patches)).transpose(1, 2)
        return x_LFPD + self.up(looks)


class MotionNet(nn.Module):
    """The module of :class:`Motion`; what the decoder calls between its layers (``types.Enter``). Its memory is the number of frames."""

    def __init__(self, spec: Motion) -> None:
        super().__init__()
        self.spec = spec
        self.layers = nn.ModuleList(_Look(spec) for _ in range(spec.layers))

    def enter(self, x_BTD: torch.Tensor, layer: int, memory: int, middle: bool) -> torch.Tensor:
        """Rows of ``memory`` frames each look at one another, before every layer."""
        if middle:
            return x_BTD
        if memory > self.spec.frames or len(x_BTD) % memory:
            raise ShapeError(f"motion got {len(x_BTD)} pictures for videos of {memory} frames, wanted at most {self.spec.frames} and whole videos")
        return self.layers[layer](x_BTD.unflatten(0, (-1, memory))).flatten(0, 1)
