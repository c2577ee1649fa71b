"""Looks: one picture through several encoders, each at its own size; what they see stands one after the other.

    picture -+-> shrunk to 64 -> an encoder that knows things           -> 2 x 2 places -\\
             |                                                                            13 places
             +-> shrunk to 96 -> an encoder that knows what stands where -> 3 x 3 places -/
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.spec import Spec
from sensorium.types import Features, ShapeError

__all__ = ["Looks"]


@dataclass(frozen=True, repr=False)
class Looks(Spec):
    """Several encoders of pictures side by side.

    Args:
        size: pixels on a side of what comes in.
        looks: the encoders, of equal widths; each gets the picture shrunk to its own size.

    Source: several experts' places behind one another, as in Eagle (2408.15998), section 2.
    """

    _: KW_ONLY
    size: int
    looks: tuple[Spec, ...]

    @property
    def width(self) -> int:
        """D of every encoder."""
        return self.looks[0].resolve().width

    @property
    def channels(self) -> int:
        """Of the picture."""
        return self.looks[0].resolve().channels

    @property
    def patches(self) -> int:
        """Positions in the output, of all together."""
        return sum(look.resolve().patches for look in self.looks)

    def resolve(self) -> Looks:
        return Looks(size=self.size, looks=tuple(look.resolve() for look in self.looks))

    def check(self) -> list[str]:
        if not self.looks:
            return ["no looks; give at least one encoder"]
        parts = [look.resolve() for look in self.looks]
        widths, sizes = {part.width for part in parts}, [part.size for part in parts if part.size > self.size]
        problems = [f"looks give widths {sorted(widths)}; make them equal"] if len(widths) > 1 else []
        return problems + ([f"size {self.size} is less than {sizes}, which would have to be made up"] if sizes else [])

    def build(self) -> LooksNet:
        return LooksNet(self)


class LooksNet(nn.Module):
    """The module of :class:`Looks`."""

    def __init__(self, spec: Looks) -> None:
        super().__init__()
        self.spec = spec
        self.sizes = [look.resolve().size for look in spec.looks]
        self.looks = nn.ModuleList(look.build() for look in spec.looks)

    def forward(self, image_BCHW: torch.Tensor) -> Features:
        """Encode pictures of the spec's size."""
        wanted = (self.spec.channels, self.spec.size, self.spec.size)
        if image_BCHW.dim() != 4 or tuple(image_BCHW.shape[1:]) != wanted:
            raise ShapeError(f"the image encoder got {tuple(image_BCHW.shape)}, wanted (B, {', '.join(map(str, wanted))})")
        seen = [net(_shrunk(image_BCHW, size)).x_BPD for net, size in zip(self.looks, self.sizes, strict=True)]
        return Features(torch.cat(seen, dim=1))


def _shrunk(image_BCHW: torch.Tensor, size: int) -> torch.Tensor:
    if image_BCHW.shape[-1] == size:
        return image_BCHW
    return F.interpolate(image_BCHW, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
