"""pictures: the concepts and pictures of a split in memory, their order, and the ways a step changes them so that only what they show stays.

Letters: L pictures, C channels, H W pixels.

    files -> RGBA arrays, kept beside the corpus -> styled, mirrored -> on paper -> moved, recoloured, blurred, partly covered
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from torch.nn import functional as F

from sensorium.codecs.pictures import open_picture
from sensorium.files import read_lines

SIZE = 64
# Kinds whose members differ by where they point or what is written on them: their mirror image is another thing.
TURNED = ("book-paper", "person-activity", "place-map", "sky-weather", "time")


@dataclass(frozen=True)
class Concept:
    """One thing with its names."""

    id: str
    names: tuple[str, str]
    keywords: tuple[tuple[str, ...], tuple[str, ...]]
    group: str
    subgroup: str

    @property
    def mirrors(self) -> bool:
        """Whether its mirror image is still the same thing."""
        turned = self.group in ("symbols", "flags", "component", "") or self.subgroup in TURNED
        return not turned and not any(word in self.names[0] for word in ("left", "right", "keyboard", "guitar", "OK"))


def load_concepts(folder: Path) -> dict[str, Concept]:
    """All concepts by id, in the corpus's order."""
    out = {}
    for row in read_lines(folder / "concepts.jsonl"):
        words = (tuple(row["keywords_en"]), tuple(row["keywords_zh"]))
        out[row["id"]] = Concept(row["id"], (row["en"], row["zh"]), words, row["group"], row["subgroup"])
    return out


@dataclass
class Pictures:
    """A split held in memory: uint8 RGBA pictures with their concept and style."""

    image_LCHW: torch.Tensor
    concept: list[str]
    style: list[str]
    index: dict[tuple[str, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.index = {(c, s): i for i, (c, s) in enumerate(zip(self.concept, self.style, strict=True))}

    def __len__(self) -> int:
        return len(self.concept)


def load_pictures(folder: Path, split: str, size: int = SIZE) -> Pictures:
    """Decode a split once; kept beside the corpus as an array."""
    rows = read_lines(folder / f"{split}.jsonl")
    cache = folder / f"{split}-{size}.npy"
    if not cache.exists():
        pictures = np.stack([_decode(folder / row["parts"][0]["image"], size) for row in rows])
        temporary = cache.with_suffix(".part.npy")
        np.save(temporary, pictures)
        temporary.replace(cache)
    return Pictures(torch.from_numpy(np.load(cache)), [row["concept"] for row in rows], [row["style"] for row in rows])


def _decode(path: Path, size: int) -> np.ndarray:
    small = open_picture(path).convert("RGBA").convert("RGBa").resize((size, size), Pillow.Resampling.LANCZOS).convert("RGBA")
    return np.asarray(small).transpose(2, 0, 1)


def on_paper(image_LCHW: torch.Tensor, paper_LC: torch.Tensor | float = 1.0) -> torch.Tensor:
    """uint8 RGBA -> float RGB in -1..1 on a background (0..1)."""
    rgb, alpha = image_LCHW[:, :3].float() / 255, image_LCHW[:, 3:].float() / 255
    return _lay(rgb, alpha, paper_LC)


def _lay(rgb_LCHW: torch.Tensor, alpha_L1HW: torch.Tensor, paper_LC: torch.Tensor | float) -> torch.Tensor:
    paper = paper_LC[:, :, None, None] if isinstance(paper_LC, torch.Tensor) else paper_LC
    return (rgb_LCHW * alpha_L1HW + paper * (1 - alpha_L1HW)) * 2 - 1


@dataclass(eq=False)
class Stream:
    """An endless stream of pictures, by place: each once an epoch, in short runs of one kind, so that a batch holds near misses.

    Args:
        pictures, concepts: what is shown, and what it is.
        run: pictures in a run (eight clocks, eight cats).
        seed: of all orders.
    """

    pictures: Pictures
    concepts: dict[str, Concept]
    run: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        kinds = {kind: i for i, kind in enumerate(sorted({c.subgroup for c in self.concepts.values()}))}
        owner = [self.concepts[c] for c in self.pictures.concept]
        self.kind = np.array([kinds[c.subgroup] for c in owner])
        self.mirrors = torch.tensor([c.mirrors for c in owner])

    @lru_cache(maxsize=2)  # noqa: B019 (one object a run)
    def order(self, epoch: int) -> np.ndarray:
        """Every picture's number once."""
        rng = np.random.default_rng((self.seed, 5, epoch))
        alike = np.lexsort((rng.random(len(self.kind)), self.kind))
        runs = np.array_split(alike, max(len(alike) // self.run, 1))
        return np.concatenate([runs[i] for i in rng.permutation(len(runs))])

    def places(self, first: int, count: int) -> list[int]:
        """Numbers of the pictures at places ``first``, ``first + 1``, ..."""
        size = len(self.kind)
        return [int(self.order(k // size)[k % size]) for k in range(first, first + count)]

    def changed(self, number: list[int], generator: torch.Generator) -> torch.Tensor:
        """These pictures, changed so that only what they show stays; see :func:`augment`."""
        return augment(self.pictures.image_LCHW[number], generator, self.mirrors[number])


@dataclass
class _Dice:
    """Uniform numbers, one set a picture."""

    count: int
    generator: torch.Generator

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(self.count, *shape, generator=self.generator) * (high - low) + low

    def some(self, share: float) -> torch.Tensor:
        """True for about ``share`` of the pictures, (L, 1, 1, 1)."""
        return self.uniform(0, 1, 1, 1, 1) < share


def augment(image_LCHW: torch.Tensor, generator: torch.Generator, mirror_L: torch.Tensor | None = None) -> torch.Tensor:
    """Change the hand they are drawn in, their place, colours and paper, so that only what they show stays.

    Args:
        image_LCHW: uint8 RGBA.
        mirror_L: bool, which may be mirrored; None is none.

    Returns:
        Float RGB in -1..1.
    """
    dice = _Dice(len(image_LCHW), generator)
    rgb, alpha = image_LCHW[:, :3].float() / 255, image_LCHW[:, 3:].float() / 255
    rgb, alpha = _restyle(rgb, alpha, dice)
    paper = torch.where(dice.uniform(0, 1, 1) < 0.5, torch.ones(dice.count, 3), dice.uniform(0, 1, 3))
    x = _lay(rgb, alpha, paper)
    x = _move(x, paper, dice)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * dice.uniform(0.2, 1.6, 1, 1, 1)
    mix = torch.eye(3) + (torch.rand(dice.count, 3, 3, generator=generator) - 0.5) * 0.3
    x = torch.einsum("lij,ljhw->lihw", mix, x) * dice.uniform(0.7, 1.2, 1, 1, 1) + dice.uniform(-0.15, 0.15, 1, 1, 1)
    if mirror_L is not None:
        x = torch.where(mirror_L[:, None, None, None] & dice.some(0.5), x.flip(3), x)
    return x.clamp(-1, 1)


def _restyle(rgb: torch.Tensor, alpha: torch.Tensor, dice: _Dice) -> tuple[torch.Tensor, torch.Tensor]:
    """Some get an outline, some light from one side, some soft edges, some a covered corner: what differs between hands."""
    ring = F.max_pool2d(alpha, 3, 1, 1) - alpha
    ring = torch.where(dice.some(0.2), ring, torch.zeros(()))
    ink = dice.uniform(0, 0.4, 3, 1, 1)
    rgb = torch.where(ring > 0, (rgb * alpha + ink * ring) / (alpha + ring).clamp(min=1e-3), rgb)
    alpha = alpha + ring
    axis = torch.linspace(-1, 1, rgb.shape[-1])
    slope = dice.uniform(-0.35, 0.35, 1, 1, 1) * axis + dice.uniform(-0.35, 0.35, 1, 1, 1) * axis[:, None]
    rgb = torch.where(dice.some(0.4), (rgb * (1 + slope)).clamp(0, 1), rgb)
    both = torch.cat([rgb * alpha, alpha], 1)
    both = torch.where(dice.some(0.2), F.avg_pool2d(both, 3, 1, 1, count_include_pad=False), both)
    rgb, alpha = both[:, :3] / both[:, 3:].clamp(min=1e-3), both[:, 3:]
    corner, size = dice.uniform(-1.2, 1, 2, 1, 1), dice.uniform(0.2, 0.7, 2, 1, 1)
    inside = ((axis > corner[:, :1]) & (axis < corner[:, :1] + size[:, :1])
              & (axis[:, None] > corner[:, 1:]) & (axis[:, None] < corner[:, 1:] + size[:, 1:]))
    return rgb, torch.where(dice.some(0.4) & inside, torch.zeros(()), alpha)


def _move(x: torch.Tensor, paper: torch.Tensor, dice: _Dice) -> torch.Tensor:
    """Turn, scale, stretch, shift and bend; what comes in from outside is paper."""
    angle, scale = dice.uniform(-0.3, 0.3), dice.uniform(0.8, 1.35)
    stretch = dice.uniform(0.85, 1.15)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    shift = dice.uniform(-0.15, 0.15, 2)
    theta = torch.stack([torch.stack([cos * stretch, -sin, shift[:, 0]], 1), torch.stack([sin, cos / stretch, shift[:, 1]], 1)], 1)
    bend = dice.uniform(-0.5, 0.5, 2, 4, 4) * dice.uniform(0.0, 0.35, 1, 1, 1)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False) + F.interpolate(bend, x.shape[2:], mode="bicubic").permute(0, 2, 3, 1)
    shade = paper[:, :, None, None] * 2 - 1
    return F.grid_sample(x - shade, grid, align_corners=False) + shade
