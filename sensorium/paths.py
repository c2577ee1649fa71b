"""Paths: how media become noise, and the stops at which a solver looks on the way back.

    x = signal * clean + level * noise

    Straight      signal + level = 1                                    rectified flow: nano, Stable Diffusion 3, Wan
    Diffusion     signal^2 + level^2 = 1, over so many trained steps    Stable Diffusion, DiT

A path names the solver that walks it unless another is asked for. A solver goes in legs: from the stop where it looks to the one where the leg ends.

Sources: 2006.11239 (diffusion), 2010.02502 (fewer steps), 2305.08891 (which of them; no signal at the last), 2206.00364, appendix D.1 (levels spaced
by their seventh roots), 2209.03003 and 2210.02747 (straight), 2403.03206 (shift), 2205.11487, section 2.3 (dynamic thresholding).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch

from sensorium.spec import Spec
from sensorium.types import ConfigError

__all__ = ["apart", "Diffusion", "Leg", "Path", "PREDICTIONS", "said", "Stop", "Straight"]

PREDICTIONS = ("velocity", "sample", "noise", "turn")
"""What a head says: clean minus noise; what is clean; the noise; signal * noise - level * clean (the "v" of 2202.00512)."""
CURVES, SPACINGS = ("linear", "scaled", "cosine", "sigmoid"), ("leading", "trailing", "even")
SPREADS = ("karras", "exponential", "beta")
"""How levels may be spaced between the highest and the lowest, instead of as the stops are: evenly in their seventh roots; evenly in their
logarithms; as a beta distribution of 0.6 and 0.6 has its values, more of them near both ends."""


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


Leg = tuple[Stop, Stop]
"""Where a solver looks, and where it goes from there."""


def _spread(name: str, high: float, low: float, count: int) -> np.ndarray:
    """``count`` levels from high to low."""
    place = np.linspace(0, 1, count)
    if name == "karras":
        return (high ** (1 / 7) + place * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    if name == "exponential":
        return np.exp(math.log(high) + place * (math.log(low) - math.log(high)))
    return low + (high - low) * np.where(place < 0.5, 1 - _beta_value(place), _beta_value(1 - place))


def _beta_value(share: np.ndarray, a: float = 0.6) -> np.ndarray:
    """Below which value lies this share (up to a half) of a beta distribution with both parameters ``a``: its density, integrated over value^a, where
    it is smooth, and inverted."""
    power = np.linspace(0, 0.5**a, 20_001)
    density = (1 - power ** (1 / a)) ** (a - 1)
    below = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return np.interp(share, 0.5 * below / below[-1], power ** (1 / a))


def _unknown(**named: tuple[object, tuple[object, ...]]) -> list[str]:
    return [f"{name} {value!r} is not known; use one of {some}" for name, (value, some) in named.items() if value not in some]


@dataclass(frozen=True, repr=False)
class Straight(Spec):
    """The straight line from noise to clean.

    Args:
        shift: above 1 spends more of the steps near the noise, as large pictures need.
        least: level of the last stop before clean; None spaces all stops evenly.
        told: what the model is told of where it is: its share of what is "clean", or of the "noise".
        beyond: stops are spaced as if there were one more, at ``least``, which is not visited.
        spread: levels are spaced by one of ``SPREADS`` between the first and the last; None leaves them.
        terminal: levels are stretched from 1, so that the last before clean is this one; None leaves them.
        highest: no level is above this.
        whole: the model is told a whole number of so many steps, rounded down; None tells it the share as it is.
        solver, order: what walks the path unless a ``Solver`` says otherwise, and from how many looks "unipc" makes a step.
    """

    shift: float = 1.0
    least: float | None = None
    told: str = "clean"
    beyond: bool = False
    spread: str | None = None
    terminal: float | None = None
    highest: float = 1.0
    whole: int | None = None
    solver: str = "euler"
    order: int = 2

    def check(self) -> list[str]:
        problems = [] if self.told in ("clean", "noise") else [f"told {self.told!r} is not known; use 'clean' or 'noise'"]
        problems += [] if self.shift > 0 else [f"shift is {self.shift}, wanted a number above 0"]
        problems += _unknown(spread=(self.spread, (None, *SPREADS)), order=(self.order, (1, 2, 3)))
        levels = (("least", self.least), ("terminal", self.terminal))
        return problems + [f"{name} is {value}, wanted a level between 0 and 1" for name, value in levels if value is not None and not 0 < value < 1]

    def start(self, first: Stop) -> float:
        """Strength of the noise to start from."""
        return 1.0

    def stops(self, steps: int, inner: bool = False) -> list[Stop]:
        """``steps`` stops from noise, and clean at the end."""
        least, count = 1 / steps if self.least is None else self.least, steps + self.beyond
        levels = [1 - (1 - least) * step / max(count - 1, 1) for step in range(steps)]
        levels = [self.shift * level / (1 + (self.shift - 1) * level) for level in levels]
        if self.terminal is not None and levels[-1] < 1:
            levels = [1 - (1 - level) * (1 - self.terminal) / (1 - levels[-1]) for level in levels]
        if self.spread is not None:
            levels = _spread(self.spread, levels[0], levels[-1], steps).tolist()
        levels = [min(level, self.highest) for level in levels]
        return [Stop(self._time(level), 1 - level, level) for level in [*levels, 0.0]]

    def _time(self, level: float) -> float:
        share = level if self.told == "noise" else 1 - level
        return share if self.whole is None else int(share * self.whole) / self.whole

    def legs(self, steps: int, inner: bool = False, stride: bool = False) -> list[Leg]:
        """From each stop to the next."""
        return list(pairwise(self.stops(steps, inner)))

    def at(self, t_L: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Signal and level where the model is told ``t_L``."""
        level = t_L if self.told == "noise" else 1 - t_L
        return 1 - level, level

    def place(self, stop: Stop) -> tuple[float, float]:
        """What a medium is divided by, and where it then is, so that it moves at :meth:`speed` between two places."""
        return 1.0, stop.level

    def speed(self, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Of a divided medium, for each unit of place."""
        return noise - clean

    def limited(self, clean: torch.Tensor) -> torch.Tensor:
        """What is clean, within its limits; here there are none."""
        return clean


@dataclass(frozen=True, repr=False)
class Diffusion(Spec):
    """Noise added over many trained steps, of which a solver visits a few. The model is told the step as a share of all: 0 clean, 1 noise.

    Args:
        steps: how many were trained.
        first, last: share of noise that the first and the last step add.
        curve: of these between first and last: "linear"; "scaled" (linear in their roots); "sigmoid"; "cosine" has neither.
        spacing: which steps a solver visits: "leading" from the first step on, "trailing" back from the last, "even" from the first to the last.
        offset: added to leading steps.
        ends: what the last look leads to: what is "clean", or the noise of the "first" step.
        own: start from noise of the first stop's level, not of strength 1.
        trained: share of noise that each step adds, instead of first, last and curve.
        zero: the curve is stretched until the last step keeps this share of the clean medium's variance, which is (nearly) none; None leaves it.
        spread: levels are spaced by one of ``SPREADS``; None leaves them as the steps are.
        lowest, highest: ratio of level to signal at which a spread begins and ends; None is where the steps do.
        whole: solvers that visit "even" steps round them.
        clip: what is clean is kept within -clip..clip.
        quantile: (share, most): values of what is clean beyond this share of their sizes are cut, and what is left is divided by where that was; at
            least 1 and at most ``most``.
        solver, order: what walks the path unless a ``Solver`` says otherwise, and from how many looks "dpm++" and "unipc" make a step.
    """

    steps: int = 1000
    first: float = 1e-4
    last: float = 0.02
    curve: str = "linear"
    spacing: str = "leading"
    offset: int = 0
    ends: str = "clean"
    own: bool = False
    trained: tuple[float, ...] = ()
    zero: float | None = None
    spread: str | None = None
    lowest: float | None = None
    highest: float | None = None
    whole: bool = True
    clip: float | None = None
    quantile: tuple[float, float] | None = None
    solver: str = "euler"
    order: int = 2

    def check(self) -> list[str]:
        problems = _unknown(curve=(self.curve, CURVES), spacing=(self.spacing, SPACINGS), ends=(self.ends, ("clean", "first")),
                            spread=(self.spread, (None, *SPREADS)), order=(self.order, (1, 2, 3)))
        if not 0 < self.first <= self.last < 1:
            problems.append(f"first {self.first} and last {self.last}: wanted 0 < first <= last < 1")
        if self.trained and (len(self.trained) != self.steps or not all(0 < share < 1 for share in self.trained)):
            problems.append(f"trained has {len(self.trained)} shares for {self.steps} steps; wanted one for each, between 0 and 1")
        if self.quantile is not None and not (0 < self.quantile[0] <= 1 <= self.quantile[1]):
            problems.append(f"quantile is {self.quantile}, wanted a share between 0 and 1 and a limit of 1 or more")
        return problems + ([] if self.steps > 1 else [f"steps is {self.steps}, wanted 2 or more"])

    def start(self, first: Stop) -> float:
        """Strength of the noise to start from; see ``own``."""
        return first.level if self.own else 1.0

    def stops(self, steps: int, inner: bool = False) -> list[Stop]:
        """``steps`` stops from noise, and one after them; ``inner`` leaves out the step nearest to clean, as multistep solvers do."""
        visited = self._visited(steps, inner)
        if self.spread is None:
            return [*(self._stop(step) for step in visited), self._end]
        ratios, every = _ratios(self), np.arange(self.steps)
        high, low = (ratios[-1], ratios[0]) if inner else np.interp([visited[0], visited[-1]], every, ratios)
        chosen = _spread(self.spread, self.highest or high, self.lowest or low, steps)
        told = np.interp(np.log(chosen), np.log(ratios), every)
        if inner:  # multistep solvers tell whole steps
            told = told.round() if self.spread == "karras" else told.astype(int)
        return [*(self._of(float(ratio), float(step)) for ratio, step in zip(chosen, told, strict=True)), self._end]

    def legs(self, steps: int, inner: bool = False, stride: bool = False) -> list[Leg]:
        """From each stop to the next; ``stride``: as many trained steps back as there are on average, rounded down, wherever the next look is."""
        stops = self.stops(steps, inner)
        if not stride or self.spread is not None:
            return list(pairwise(stops))
        ends = [step - self.steps // steps for step in self._visited(steps, inner)]
        return [(stop, self._stop(end) if end >= 0 else self._end) for stop, end in zip(stops[:-1], ends, strict=True)]

    def _visited(self, steps: int, inner: bool) -> list[float]:
        """Trained steps to look at, from noise to clean."""
        if not 1 <= steps <= self.steps:
            raise ConfigError(f"{steps} steps of a path of {self.steps}: wanted 1 to {self.steps}")
        if self.spacing == "leading":
            stride = self.steps // (steps + inner)
            visited = [step * stride + self.offset for step in range(steps + inner)][::-1][:steps]
            if stride == 0 or visited[0] >= self.steps:
                raise ConfigError(f"{steps} steps with an offset of {self.offset} do not fit a path of {self.steps} trained steps; ask for fewer")
        elif self.spacing == "trailing":  # numpy's rounding: at a half, 1000 - 3 * 1000 / 48 = 937.5, it goes the way that published programs go
            visited = (np.arange(self.steps, 0, -self.steps / steps).round()[:steps] - 1).tolist()
        else:
            visited = np.linspace(0, self.steps - 1, steps + inner)[::-1][:steps].tolist()
            visited = [float(round(step)) for step in visited] if self.whole or inner else visited
        return visited

    @property
    def _end(self) -> Stop:
        return Stop(0.0, 1.0, 0.0) if self.ends == "clean" else self._stop(0)

    def _stop(self, step: float) -> Stop:
        if step == int(step):
            kept = float(_kept(self)[int(step)])
            return Stop(step / self.steps, kept**0.5, (1 - kept) ** 0.5)
        return self._of(float(np.interp(step, np.arange(self.steps), _ratios(self))), step)

    def _of(self, ratio: float, step: float) -> Stop:
        """Where the level is ``ratio`` times the signal."""
        return Stop(step / self.steps, 1 / (1 + ratio**2) ** 0.5, ratio / (1 + ratio**2) ** 0.5)

    def at(self, t_L: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Signal and level where the model is told ``t_L``."""
        kept = _kept(self).to(t_L.device)[(t_L * self.steps).round().long().clamp(0, self.steps - 1)]
        return kept.sqrt().to(t_L.dtype), (1 - kept).sqrt().to(t_L.dtype)

    def place(self, stop: Stop) -> tuple[float, float]:
        """What a medium is divided by, and where it then is, so that it moves at :meth:`speed` between two places.

        Raises:
            ConfigError: there is no signal at the stop.
        """
        if stop.signal == 0:
            raise ConfigError("the solvers 'heun' and 'lms' divide by the signal, of which this path has none at its first stop; take another")
        return stop.signal, stop.level / stop.signal

    def speed(self, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Of a divided medium, for each unit of place."""
        return noise

    def limited(self, clean: torch.Tensor) -> torch.Tensor:
        """What is clean, within its limits: ``quantile``, else ``clip``."""
        if self.quantile is not None:
            share, most = self.quantile
            limit = torch.quantile(clean.flatten(1).abs(), share, dim=1).clamp(1, most).reshape(-1, *[1] * (clean.dim() - 1))
            return clean.clamp(-limit, limit) / limit
        return clean if self.clip is None else clean.clamp(-self.clip, self.clip)


@lru_cache(maxsize=32)
def _kept(path: Diffusion) -> torch.Tensor:
    """Share of the clean medium's variance that is left after each step, float64 (steps,)."""
    if path.trained:
        added = torch.tensor(path.trained, dtype=torch.float64)
    elif path.curve == "cosine":
        place = torch.arange(path.steps + 1, dtype=torch.float64) / path.steps
        wave = torch.cos((place + 0.008) / 1.008 * torch.pi / 2) ** 2
        added = (1 - wave[1:] / wave[:-1]).clamp(max=0.999)
    elif path.curve == "scaled":
        added = torch.linspace(path.first**0.5, path.last**0.5, path.steps, dtype=torch.float64) ** 2
    elif path.curve == "sigmoid":
        added = torch.linspace(-6, 6, path.steps, dtype=torch.float64).sigmoid() * (path.last - path.first) + path.first
    else:
        added = torch.linspace(path.first, path.last, path.steps, dtype=torch.float64)
    kept = torch.cumprod(1 - added, 0)
    if path.zero is not None:
        roots = kept.sqrt()
        kept = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
        kept[-1] = path.zero
    return kept


@lru_cache(maxsize=32)
def _ratios(path: Diffusion) -> np.ndarray:
    """Level over signal after each step, float64 (steps,)."""
    kept = _kept(path).numpy()
    return np.sqrt((1 - kept) / np.maximum(kept, 1e-24))


Path = Straight | Diffusion


def said(clean: torch.Tensor, noise: torch.Tensor, stop: Stop, predict: str) -> torch.Tensor:
    """What a head of kind ``predict`` says where these are clean and noise; :func:`apart` undone."""
    if predict == "noise":
        return noise
    if predict == "sample":
        return clean
    return clean - noise if predict == "velocity" else stop.signal * noise - stop.level * clean


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
