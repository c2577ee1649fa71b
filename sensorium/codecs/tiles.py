"""Tiles: a picture cut into pieces that an encoder of one size looks at one by one, with the model's own texts between them.

    StretchCodec  picture -> resized to a grid of tiles -> "<tile 1>", tile, "<tile 2>", tile, ..., "<whole>", the whole as one tile
    SplitCodec    the same with its sides rounded up to whole tiles, and texts that name row and column          SmolVLM, Idefics3
    MarkedCodec   the whole alone, between two texts                                                             IDEFICS
    AnyresCodec   whole, tiles -> one grid of their features without its padding, a learned vector after each row       LLaVA-NeXT
    ViewsCodec    the same with its padding, and a vector after the whole's rows and between the two               DeepSeek-VL2

Letters: C channels, H W pixels, L tiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image as Pillow
from PIL import ImageOps

from sensorium.codecs.vision import RESAMPLE, VisionCodec
from sensorium.data import Arrays
from sensorium.spec import Spec
from sensorium.types import Image

__all__ = ["AnyresCodec", "best_grid", "cut", "grid_places", "lined", "MarkedCodec", "SplitCodec", "StretchCodec", "ViewsCodec"]


def cut(picture: Pillow.Image, size: int) -> list[Pillow.Image]:
    """Its tiles of ``size`` pixels a side, row by row."""
    width, height = picture.size
    return [picture.crop((left, top, left + size, top + size)) for top in range(0, height, size) for left in range(0, width, size)]


def best_grid(width: int, height: int, grids: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The (height, width) of ``grids`` that keeps most of a picture's pixels, and of those the one that is padded least.

    Source: LLaVA-NeXT, ``select_best_resolution``; DeepSeek-VL2 has the same.
    """
    def worth(grid: tuple[int, int]) -> tuple[int, int]:
        scale = min(grid[1] / width, grid[0] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - grid[0] * grid[1]

    return max(grids, key=worth)


def grid_places(rows: int, columns: int, side: int) -> torch.Tensor:
    """(rows * side, columns * side) int64: where each feature of a picture of tiles stands among theirs, after those of the whole."""
    tile = torch.arange(rows * columns).reshape(rows, columns).repeat_interleave(side, 0).repeat_interleave(side, 1)
    inside = torch.arange(side * side).reshape(side, side).repeat(rows, columns)
    return (1 + tile) * side * side + inside


def lined(places: torch.Tensor) -> torch.Tensor:
    """Rows of places read one after the other, with the first learned vector (-1) at the end of each."""
    return torch.cat([places, torch.full_like(places[:, :1], -1)], dim=1).flatten()


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
        out: list[str | torch.Tensor] = []
        for number, tile in enumerate(cut(spread, size) if columns * rows > 1 else [], start=1):
            out += [self.mark.format(number), self.tile.array(tile)]
        out += [self.whole, self.tile.array(picture.resize((size, size), resample)), self.stop]
        return [f"{self.start}{out[0]}", *out[1:]]


@dataclass(frozen=True, repr=False)
class SplitCodec(Spec):
    """A picture resized to one longest side, then with both sides rounded up to whole tiles; then the whole of it, as one more tile.

    Args:
        tile: how one tile becomes an array; its ``fit`` says nothing here.
        longest: pixels of the longest side, before rounding up.
        split: False gives the whole alone.
        around: text before each tile and after the last.
        mark: text before each tile, after ``around``, with its row and column from 1 in place of {}; whole: the same for the whole.

    Source: Idefics3 (2408.12637), section 2.2; SmolVLM (2504.05299).
    """

    tile: VisionCodec
    longest: int = 1456
    split: bool = True
    around: str = "<fake_token_around_image>"
    mark: str = "<row_{}_col_{}>"
    whole: str = "<global-img>"

    def check(self) -> list[str]:
        return [] if 1 <= self.longest <= 4096 else [f"longest is {self.longest}, wanted 1 to 4096"]

    def encode(self, image: Image) -> list[str | torch.Tensor]:
        """A picture -> texts and float32 tiles (3, size, size), as they follow each other."""
        size, resample = self.tile.size, RESAMPLE[self.tile.resample]
        picture = self.tile.opened(image)
        picture = picture.resize(self._first(*picture.size), resample)
        out: list[str | torch.Tensor] = []
        before = ""
        if self.split:
            picture = picture.resize(self._whole_tiles(*picture.size), resample)
            columns = picture.width // size
            for place, tile in enumerate(cut(picture, size) if max(picture.size) > size else []):
                line = "\n" if place and place % columns == 0 else ""
                out += [f"{line}{self.around}{self.mark.format(1 + place // columns, 1 + place % columns)}", self.tile.array(tile)]
                before = "\n\n"
        return [*out, f"{before}{self.around}{self.whole}", self.tile.array(picture.resize((size, size), resample)), self.around]

    def _first(self, width: int, height: int) -> tuple[int, int]:
        """Width and height with the longest side as wanted, the other one even."""
        ratio = width / height
        short = int(self.longest / ratio) if width >= height else int(self.longest * ratio)
        short += short % 2
        return (self.longest, max(short, 1)) if width >= height else (max(short, 1), self.longest)

    def _whole_tiles(self, width: int, height: int) -> tuple[int, int]:
        """Width and height rounded up to whole tiles, the longer one first."""
        size, ratio = self.tile.size, width / height
        if width >= height:
            width = math.ceil(width / size) * size
            return width, math.ceil(int(width / ratio) / size) * size
        height = math.ceil(height / size) * size
        return math.ceil(int(height * ratio) / size) * size, height


@dataclass(frozen=True, repr=False)
class MarkedCodec(Spec):
    """A picture as one array, between two texts.

    Args:
        tile: how it becomes an array.
        before, after: the texts; only what stands after it sees it where it enters by cross-attention.
    """

    tile: VisionCodec
    before: str
    after: str

    def encode(self, image: Image) -> list[str | torch.Tensor]:
        """A picture -> text, float32 (3, size, size), text."""
        return [self.before, self.tile.encode(image), self.after]


@dataclass(frozen=True, repr=False)
class AnyresCodec(Spec):
    """The whole as one tile, and its tiles from the grid that suits it best; their features as one grid again, without the padding.

    Args:
        tile: how one tile becomes an array; the whole is squeezed into one.
        grids: (height, width) of the grids in pixels.
        side: features on a side of a tile; the end of each row is the first learned vector of ``Splice``.

    Source: LLaVA-NeXT's "anyres"; tiles as in 2310.03744, appendix.
    """

    tile: VisionCodec
    grids: tuple[tuple[int, int], ...] = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
    side: int = 24

    def encode(self, image: Image) -> Arrays:
        """A picture -> (L, 3, size, size) tiles, and which of their features are read."""
        picture, size, resample = self.tile.opened(image), self.tile.size, RESAMPLE[self.tile.resample]
        high, wide = best_grid(*picture.size, self.grids)
        across, down = wide / picture.width, high / picture.height
        inner = (wide, min(math.ceil(picture.height * across), high)) if across < down else (min(math.ceil(picture.width * down), wide), high)
        padded = Pillow.new("RGB", (wide, high))
        padded.paste(picture.resize(inner, resample), ((wide - inner[0]) // 2, (high - inner[1]) // 2))
        tiles = [self.tile.array(tile) for tile in (picture.resize((size, size), resample), *cut(padded, size))]
        kept = self._unpadded(grid_places(high // size, wide // size, self.side), *picture.size)
        return Arrays("image", torch.stack(tiles), pick=torch.cat([torch.arange(self.side**2), lined(kept)]))

    def _unpadded(self, places: torch.Tensor, width: int, height: int) -> torch.Tensor:
        """The places that the picture itself covers."""
        rows, columns = places.shape
        if width / height > columns / rows:
            off = (rows - int(round(height * (columns / width), 7))) // 2
            return places[off : rows - off]
        off = (columns - int(round(width * (rows / height), 7))) // 2
        return places[:, off : columns - off]


@dataclass(frozen=True, repr=False)
class ViewsCodec(Spec):
    """The whole as one tile, and its tiles from the grid that suits it best, both padded; each read as one grid, line by line.

    Args:
        tile: how one tile becomes an array, and the paper around it.
        grids: (height, width) of the grids in pixels.
        side: features on a side of a tile; ``Splice`` has a vector for the end of a row and, second, one between the two views.

    Source: DeepSeek-VL2 (2412.10302), section 2.1.
    """

    tile: VisionCodec
    grids: tuple[tuple[int, int], ...]
    side: int = 14

    def encode(self, image: Image) -> Arrays:
        """A picture -> (L, 3, size, size) tiles, and which of their features are read."""
        picture, size, resample = self.tile.opened(image), self.tile.size, RESAMPLE[self.tile.resample]
        high, wide = best_grid(*picture.size, self.grids)
        whole, spread = (ImageOps.pad(picture, sides, resample, self.tile.background) for sides in ((size, size), (wide, high)))
        tiles = [self.tile.array(tile) for tile in (whole, *cut(spread, size))]
        first = torch.arange(self.side**2).reshape(self.side, self.side)
        pick = [lined(first), torch.tensor([-2]), lined(grid_places(high // size, wide // size, self.side))]
        return Arrays("image", torch.stack(tiles), pick=torch.cat(pick))
