"""Where a token stands, as numbers: sinusoids for grids and times, rotary angles over one or several axes.

Letters: B batch, T length, E head width, A axes, D width, P patches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sensorium.spec import Spec
from sensorium.types import ShapeError

__all__ = ["apply_rope", "grid_sinusoids", "Rope", "RopeScaling", "sinusoids"]


def sinusoids(value_B: torch.Tensor, width: int, period: float = 10_000.0, shift: int = 0) -> torch.Tensor:
    """Cosine and sine features of numbers, cosines first.

    Args:
        value_B: any shape, float; a place or a time.
        width: even number of features.
        period: longest wavelength over two pi.
        shift: taken from the count of frequencies that the exponent is divided by (diffusers: 1, elsewhere 0).

    Returns:
        value's shape + (width,), float32.

    Source: "Attention Is All You Need", section 3.5; the order (cosine first) is that of DiT and Stable Diffusion.
    """
    half = width // 2
    frequency = torch.exp(-math.log(period) * torch.arange(half, dtype=torch.float32, device=value_B.device) / (half - shift))
    angle = value_B.float()[..., None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def grid_sinusoids(rows: int, columns: int, width: int) -> torch.Tensor:
    """Fixed position features of a grid of patches, row by row: half the width for x, then half for y, sines first.

    Returns:
        (rows * columns, width) float32.

    Source: MAE, ``get_2d_sincos_pos_embed``; used as it stands by DiT.
    """
    if width % 4:
        raise ShapeError(f"grid positions got width {width}, wanted a multiple of 4")
    quarter, exact = width // 4, dict(dtype=torch.float64, device="cpu")  # few numbers, which a device without memory could not work out
    frequency = 1.0 / 10_000 ** (torch.arange(quarter, **exact) / quarter)
    y, x = torch.meshgrid(torch.arange(rows, **exact), torch.arange(columns, **exact), indexing="ij")
    x_PE, y_PE = x.reshape(-1, 1) * frequency, y.reshape(-1, 1) * frequency
    return torch.cat([x_PE.sin(), x_PE.cos(), y_PE.sin(), y_PE.cos()], dim=-1).float().to(torch.get_default_device())


@dataclass(frozen=True, repr=False)
class RopeScaling(Spec):
    """Slower turning, so that a model reads longer texts than it was first trained on.

    Args:
        factor: how many times slower.
        context: places of the first training; waves are judged by how often they turn within it. None slows all waves alike.
        low, high: a wave of fewer than ``low`` turns is slowed in full, one of more than ``high`` not at all, and between them in part.
        even: between them, the part grows evenly from wave to wave (YaRN) instead of with the turns (Llama 3).
        gain: cosines and sines are multiplied by this.

    Source: all alike 2306.15595; by wave: YaRN (2309.00071), Llama 3.1 (2407.21783), as their published code does it.
    """

    factor: float
    context: int | None = None
    low: float = 1.0
    high: float = 4.0
    even: bool = False
    gain: float = 1.0

    def check(self) -> list[str]:
        problems = [] if self.factor > 0 else [f"factor is {self.factor}, wanted more than 0"]
        return problems + ([] if self.low < self.high else [f"low is {self.low} and high {self.high}, wanted low below high"])

    def slowed(self, frequency: torch.Tensor) -> torch.Tensor:
        """The frequencies (radians a place) after scaling."""
        if self.context is None:
            return frequency / self.factor
        turns = self.context * frequency / (2 * math.pi)
        if self.even:
            step = float((frequency[0] / frequency[1]).log())  # waves are evenly apart in the logarithm
            first, last = (math.log(float(turns[0]) / bound) / step for bound in (self.high, self.low))
            first, last = max(math.floor(first), 0), min(math.ceil(last), 2 * len(frequency) - 1)
            wave = torch.arange(len(frequency), dtype=frequency.dtype, device=frequency.device)
            kept = 1 - ((wave - first) / max(last - first, 1e-3)).clamp(0, 1)
        else:
            kept = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)
        return frequency * (kept + (1 - kept) / self.factor)


@dataclass(frozen=True, repr=False)
class Rope(Spec):
    """Rotary positions over one axis, or over several at once (time, height, width).

    Args:
        width: head width E, even.
        theta: base of the frequencies.
        axes: frequencies given to each axis, summing to E / 2; () is one axis.
        scaling: slower turning for longer texts, or None.
        restart: each axis has a whole range of frequencies, instead of its share of one.

    Source: RoFormer (2104.09864); several axes as in Qwen2-VL (2409.12191), section 2.1; restart is its picture tower's way.
    """

    width: int
    theta: float = 10_000.0
    axes: tuple[int, ...] = ()
    scaling: RopeScaling | None = None
    restart: bool = False

    def check(self) -> list[str]:
        problems = [] if self.width % 2 == 0 else [f"width {self.width} is odd; rotary positions turn pairs"]
        if self.axes and sum(self.axes) != self.width // 2:
            problems.append(f"axes {self.axes} sum to {sum(self.axes)}, wanted width / 2 = {self.width // 2}")
        return problems

    def frequencies(self, device: torch.device | None = None) -> torch.Tensor:
        """Radians that each pair turns a place, (E / 2,) float32."""
        counts = self.axes if self.restart else (self.width // 2,)
        exponent = torch.cat([-torch.arange(count, dtype=torch.float32, device=device) / count for count in counts])
        frequency = self.theta**exponent
        return frequency if self.scaling is None else self.scaling.slowed(frequency)

    def angles(self, position_BT: torch.Tensor, axes_BTA: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and sine for each place, (B, T, 1, E / 2) each, float32; ``axes_BTA`` overrides ``position_BT`` axis by axis."""
        frequency = self.frequencies(position_BT.device)
        if not self.axes:
            angle = position_BT.float()[..., None] * frequency
        else:
            if axes_BTA is None:
                axes_BTA = position_BT[..., None].expand(*position_BT.shape, len(self.axes))
            owner = torch.repeat_interleave(torch.arange(len(self.axes)), torch.tensor(self.axes)).to(position_BT.device)
            angle = axes_BTA.float()[..., owner] * frequency
        gain = 1.0 if self.scaling is None else self.scaling.gain
        return angle.cos()[:, :, None] * gain, angle.sin()[:, :, None] * gain


def apply_rope(x_BTNE: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Turn each pair (i, i + E / 2) of every head by its angle."""
    cos, sin = angles
    first, second = x_BTNE.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x_BTNE.dtype)
