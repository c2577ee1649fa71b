"""Native encoder: pictures and videos at their own sizes, the patches of all of them in one row.

Letters: P patches of all media, N values of a patch, L media, D width, E head width, G groups of equal length.

    patches -> linear -> layers: most look inside small windows, a few over the whole of a frame -> features, in the order of the patches

Patches that see each other are gathered by how many they are, so that nothing is padded and nobody sees another medium or frame.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn

from sensorium.layers.positions import Rope
from sensorium.layers.stack import Stack
from sensorium.spec import Spec
from sensorium.types import Features, Patches, ShapeError

__all__ = ["NativeEncoder", "Sight"]


@dataclass(frozen=True, repr=False)
class NativeEncoder(Spec):
    """A vision transformer for media of any size; its positions are the rows and columns of a frame, turned.

    Args:
        patch: pixels on a side of a patch.
        frames: frames that a patch is long; a still is repeated.
        width, depth, heads, hidden, act, gated, norm, eps: of the transformer.
        channels: of a frame.
        join: neighbours on a side that become one feature later; they stand together among the patches.
        window: patches on a side of what a layer sees; None is the whole frame in every layer.
        full: layers that see the whole frame all the same.
        theta: base of the rotary positions.

    Source: Qwen2.5-VL (2502.13923), section 2.1.1.
    """

    _: KW_ONLY
    patch: int = 14
    frames: int = 2
    width: int
    depth: int
    heads: int
    hidden: int
    act: str = "silu"
    gated: bool = True
    norm: str = "rms"
    eps: float = 1e-6
    channels: int = 3
    join: int = 2
    window: int | None = None
    full: tuple[int, ...] = ()
    theta: float = 10_000.0

    @property
    def patches(self) -> int:
        """Positions of the smallest medium; each has as many as it has patches."""
        return self.join**2

    @property
    def values(self) -> int:
        """Values of a patch, N."""
        return self.channels * self.frames * self.patch**2

    @property
    def stack(self) -> Stack:
        """The transformer inside."""
        return Stack(self.width, self.depth, self.heads, hidden=self.hidden, act=self.act, gated=self.gated, norm=self.norm, eps=self.eps,
                     final_norm=False)

    @property
    def rope(self) -> Rope:
        """Rotary positions over rows and columns."""
        head = self.width // self.heads
        return Rope(head, theta=self.theta, axes=(head // 4, head // 4), restart=True)

    def check(self) -> list[str]:
        problems = []
        if self.width % (4 * self.heads):
            problems.append(f"width {self.width} over {self.heads} heads: rows and columns turn half a head each, wanted heads of 4, 8, 12, ...")
        if self.window is not None and (self.window < self.join or self.window % self.join):
            problems.append(f"window {self.window} cuts through {self.join} joined neighbours; wanted a multiple of {self.join}")
        lost = [layer for layer in self.full if not 0 <= layer < self.depth]
        return problems + ([f"full names layers {lost} of {self.depth}"] if lost else [])

    def build(self) -> NativeEncoderNet:
        return NativeEncoderNet(self)


@dataclass(frozen=True)
class Sight:
    """Who sees whom among the patches: everyone those of its own number.

    Args:
        groups: int64 (G, n) patches that see each other, for each n.
        back_P: where each patch stands when the groups follow each other.
    """

    groups: tuple[torch.Tensor, ...]
    back_P: torch.Tensor

    @staticmethod
    def of(number_P: torch.Tensor) -> Sight:
        """Patches with equal numbers see each other."""
        order_P = number_P.argsort(stable=True)
        _, count = number_P[order_P].unique_consecutive(return_counts=True)
        start = count.cumsum(0) - count
        groups = [order_P[start[count == n][:, None] + torch.arange(n, device=order_P.device)] for n in count.unique().tolist()]
        return Sight(tuple(groups), torch.cat([group.flatten() for group in groups]).argsort())


class NativeEncoderNet(nn.Module):
    """The module of :class:`NativeEncoder`."""

    def __init__(self, spec: NativeEncoder) -> None:
        super().__init__()
        self.spec = spec
        self.rope = spec.rope
        self.patch = nn.Linear(spec.values, spec.width, bias=False)
        self.stack = spec.stack.build()

    def forward(self, patches: Patches) -> Features:
        """Encode media: (1, P, D) features in the order of their patches."""
        spec, shape = self.spec, tuple(patches.value_PN.shape)
        grid_L3 = patches.grid_L3.cpu()
        if shape[1] != spec.values or patches.join != spec.join or bool((grid_L3[:, 1:] % spec.join).any()):
            raise ShapeError(f"the native encoder got patches {shape} joined by {patches.join} in grids {grid_L3.tolist()}, wanted "
                             f"(P, {spec.values}) joined by {spec.join}, rows and columns multiples of it; use the model's own codec")
        frame_P, place_P2 = (x.to(patches.value_PN.device) for x in self.places(grid_L3))
        whole = Sight.of(frame_P)
        near = whole if spec.window is None else Sight.of(self.windows(frame_P, place_P2))
        angles = self.rope.angles(frame_P[None], place_P2[None])
        x_1PD = self.patch(patches.value_PN)[None]
        for index, block in enumerate(self.stack.blocks):
            query, key, value = block.first(x_1PD, None, angles)
            sight = whole if index in spec.full else near
            found = [block.attention.look(query[0, group], key[0, group], value[0, group]).flatten(0, 1) for group in sight.groups]
            x_1PD = block.second(x_1PD, torch.cat(found)[sight.back_P][None], None)
        return Features(x_1PD)

    def places(self, grid_L3: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The frame that each patch is of, counted over all media, (P,), and its row and column there, (P, 2)."""
        join, frames, places, before = self.spec.join, [], [], 0
        for length, rows, columns in grid_L3.tolist():
            grid = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).reshape(rows // join, join, columns // join, join, 2)
            places.append(grid.transpose(1, 2).reshape(-1, 2).repeat(length, 1))
            frames.append(torch.arange(before, before + length).repeat_interleave(rows * columns))
            before += length
        return torch.cat(frames), torch.cat(places)

    def windows(self, frame_P: torch.Tensor, place_P2: torch.Tensor) -> torch.Tensor:
        """A number for the window that each patch is in; windows start at the first row and column of a frame."""
        window_P2 = place_P2 // self.spec.window
        side = int(window_P2.max()) + 1
        return (frame_P * side + window_P2[:, 0]) * side + window_P2[:, 1]
