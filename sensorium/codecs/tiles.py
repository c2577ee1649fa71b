"""Tiles: a picture cut into pieces that an encoder of one size looks at one by one, with the model's own texts between them.

    picture -> resized to a grid of tiles -> tiles, row by row -> "<tile 1>", tile, "<tile 2>", tile, ..., "<whole>", the whole as one tile

Letters: C channels, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sensorium.codecs.vision import RESAMPLE, VisionCodec
from sensorium.spec import Spec
from sensorium.types import Image

__all__ = ["StretchCodec"]


@dataclass(frozen=True, repr=False)
class StretchCodec(Spec):
    """A picture stretched over the grid of tiles whose shape is nearest to its own; then the whole of it, as one more tile.

    Args:
        tile: how one tile becomes an array; its ``fit`` says nothing here.
        most, least: tiles of a grid; a grid of one is the whole alone.
        start, stop: texts around the picture.
        mark: text before each tile, with its number from 1 in place of {}; whole: text before the whole.

    Source: InternVL 1.5 (2404.16821), section 3.3; the texts are those of Aya Vision (2505.08751).
    """

    tile: VisionCodec
    most: int = 12
    least: int = 1
    start: str = "<|START_OF_IMG|>"
    mark: str = "TILE_{}"
    whole: str = "TILE_GLOBAL"
    stop: str = "<|END_OF_IMG|>"

    def check(self) -> list[str]:
        return [] if 1 <= self.least <= self.most else [f"least is {self.least} and most {self.most}, wanted 1 <= least <= most"]

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Columns and rows for a picture of this size; of grids equally near in shape the largest that the picture fills by more than half."""
        best, nearest = (1, 1), float("inf")
        counts = range(1, self.most + 1)
        for columns, rows in sorted(((c, r) for c in counts for r in counts if self.least <= c * r <= self.most), key=lambda g: g[0] * g[1]):
            off = abs(width / height - columns / rows)
            if off < nearest or off == nearest and width * height > 0.5 * self.tile.size**2 * columns * rows:
                best, nearest = (columns, rows), off
        return best

    def encode(self, image: Image) -> list[str | torch.Tensor]:
        """A picture -> texts and float32 tiles (3, size, size), as they follow each other."""
        picture, size, resample = self.tile.opened(image), self.tile.size, RESAMPLE[self.tile.resample]
        columns, rows = self.grid(*picture.size)
        spread = picture.resize((columns * size, rows * size), resample)
        places = [(size * column, size * row) for row in range(rows) for column in range(columns)] if columns * rows > 1 else []
        out: list[str | torch.Tensor] = []
        for number, (left, top) in enumerate(places, start=1):
            out += [self.mark.format(number), self.tile.array(spread.crop((left, top, left + size, top + size)))]
        out += [self.whole, self.tile.array(picture.resize((size, size), resample)), self.stop]
        return [f"{self.start}{out[0]}", *out[1:]]
