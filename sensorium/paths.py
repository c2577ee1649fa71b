"""Paths: how media become noise, and the stops at which a solver looks on the way back.

    x = signal * clean + level * noise

    Straight      signal + level = 1                                    rectified flow: nano, Stable Diffusion 3, Wan
    Diffusion     signal^2 + level^2 = 1, over so many trained steps    Stable Diffusion, DiT

Sources: 2006.11239 (diffusion), 2010.02502 (fewer steps), 2305.08891 (which of them), 2209.03003 and 2210.02747 (straight), 2403.03206 (shift).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from sensorium.spec import Spec
from sensorium.types import ConfigError

__all__ = ["apart", "Diffusion", "Path", "PREDICTIONS", "Stop", "Straight"]

PREDICTIONS = ("velocity", "sample", "noise", "turn")
"""What a head says: clean minus noise; what is clean; the noise; signal * noise - level * clean (the "v" of 2202.00512)."""
CURVES, SPACINGS = ("linear", "scaled", "cosine"), ("leading", "trailing")


@dataclass(frozen=True)
class Stop:
    """A place on a path.

    Args:
        time: what the model is told.
        signal, level: shares of the clean medium and of the noise.
    """

    time: float
    signal: float
    level: float

    @property
    def clean(self) -> float:
        """How far along, 0 noise to 1 clean, on whatever path."""
        return self.signal / (self.signal + self.level)


@dataclass(frozen=True, repr=False)
class Straight(Spec):
    """The straight line from noise to clean.

    Args:
        shift: above 1 spends more of the steps near the noise, as large pictures need.
        least: level of the last stop before clean; None spaces all stops evenly.
        told: what the model is told of where it is: its share of what is "clean", or of the "noise".
    """

    shift: float = 1.0
    least: float | None = None
    told: str = "clean"

    def check(self) -> list[str]:
        problems = [] if self.told in ("clean", "noise") else [f"told {self.told!r} is not known; use 'clean' or 'noise'"]
        problems += [] if self.shift > 0 else [f"shift is {self.shift}, wanted a number above 0"]
        return problems + ([] if self.least is None or 0 < self.least < 1 else [f"least is {self.least}, wanted a level between 0 and 1"])

    @property
    def begin(self) -> float:
        """Strength of the noise to start from."""
        return 1.0

    def stops(self, steps: int, inner: bool = False) -> list[Stop]:
        """``steps`` stops from noise, and clean at the end."""
        least = 1 / steps if self.least is None else self.least
        levels = [1 - (1 - least) * step / max(steps - 1, 1) for step in range(steps)]
        levels = [self.shift * level / (1 + (self.shift - 1) * level) for level in levels]
        return [Stop(level if self.told == "noise" else 1 - level, 1 - level, level) for level in [*levels, 0.0]]

    def at(self, t_L: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Signal and level where the model is told ``t_L``."""
        level = t_L if self.told == "noise" else 1 - t_L
        return 1 - level, level


@dataclass(frozen=True, repr=False)
class Diffusion(Spec):
    """Noise added over many trained steps, of which a solver visits a few. The model is told the step as a share of all: 0 clean, 1 noise.

    Args:
        steps: how many were trained.
        first, last: share of noise that the first and the last step add.
        curve: of these between first and last: "linear"; "scaled" (linear in their roots); "cosine" has neither.
        spacing: which steps a solver visits: "leading" from the first step on, "trailing" back from the last.
        offset: added to leading steps.
        ends: what the last look leads to: what is "clean", or the noise of the "first" step.
        own: start from noise of the first stop's level, not of strength 1.
    """

    steps: int = 1000
    first: float = 1e-4
    last: float = 0.02
    curve: str = "linear"
    spacing: str = "leading"
    offset: int = 0
    ends: str = "clean"
    own: bool = False

    def check(self) -> list[str]:
        known = (("curve", self.curve, CURVES), ("spacing", self.spacing, SPACINGS), ("ends", self.ends, ("clean", "first")))
        problems = [f"{name} {value!r} is not known; use one of {some}" for name, value, some in known if value not in some]
        if not 0 < self.first <= self.last < 1:
            problems.append(f"first {self.first} and last {self.last}: wanted 0 < first <= last < 1")
        return problems + ([] if self.steps > 1 else [f"steps is {self.steps}, wanted 2 or more"])

    @property
    def begin(self) -> float:
        """Strength of the noise to start from; see ``own``."""
        return self.stops(1)[0].level if self.own else 1.0

    def stops(self, steps: int, inner: bool = False) -> list[Stop]:
        """``steps`` stops from noise, and one after them; ``inner`` leaves out the step nearest to clean, as multistep solvers do."""
        if not 1 <= steps <= self.steps:
            raise ConfigError(f"{steps} steps of a path of {self.steps}: wanted 1 to {self.steps}")
        if self.spacing == "leading":
            stride = self.steps // (steps + inner)
            visited = [step * stride + self.offset for step in range(steps + inner)][::-1][:steps]
        else:
            visited = [round(self.steps - step * self.steps / steps) - 1 for step in range(steps)]
        end = Stop(0.0, 1.0, 0.0) if self.ends == "clean" else self._stop(0)
        return [*(self._stop(step) for step in visited), end]

    def _stop(self, step: int) -> Stop:
        kept = float(_kept(self)[step])
        return Stop(step / self.steps, kept**0.5, (1 - kept) ** 0.5)

    def at(self, t_L: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Signal and level where the model is told ``t_L``."""
        kept = _kept(self).to(t_L.device)[(t_L * self.steps).round().long().clamp(0, self.steps - 1)]
        return kept.sqrt().to(t_L.dtype), (1 - kept).sqrt().to(t_L.dtype)


@lru_cache(maxsize=32)
def _kept(path: Diffusion) -> torch.Tensor:
    """Share of the clean medium's variance that is left after each step, float64 (steps,)."""
    if path.curve == "cosine":
        place = torch.arange(path.steps + 1, dtype=torch.float64) / path.steps
        wave = torch.cos((place + 0.008) / 1.008 * torch.pi / 2) ** 2
        added = (1 - wave[1:] / wave[:-1]).clamp(max=0.999)
    elif path.curve == "scaled":
        added = torch.linspace(path.first**0.5, path.last**0.5, path.steps, dtype=torch.float64) ** 2
    else:
        added = torch.linspace(path.first, path.last, path.steps, dtype=torch.float64)
    return torch.cumprod(1 - added, 0)


Path = Straight | Diffusion


def apart(prediction: torch.Tensor, x_LCHW: torch.Tensor, stop: Stop, predict: str) -> tuple[torch.Tensor, torch.Tensor]:
    """What a prediction at ``stop`` says is clean, and what is noise, in ``x_LCHW``."""
    signal, level = stop.signal, stop.level
    if predict == "noise":
        return (x_LCHW - level * prediction) / max(signal, 1e-6), prediction
    if predict == "sample":
        return prediction, (x_LCHW - signal * prediction) / max(level, 1e-6)
    if predict == "velocity":
        return (x_LCHW + level * prediction) / (signal + level), (x_LCHW - signal * prediction) / (signal + level)
    if predict == "turn":
        return signal * x_LCHW - level * prediction, level * x_LCHW + signal * prediction
    raise ConfigError(f"predict {predict!r} is not known; use one of {PREDICTIONS}")
