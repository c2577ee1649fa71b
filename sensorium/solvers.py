"""Solvers: how a step is made of looks, from where a model looks to where the step leads.

Letters: L media, C channels, H W pixels.

    x at a stop -> the model tells what is clean and what is noise -> x at the next stop

The first-order step puts both together anew with the next stop's shares: on a diffusion's path that is DDIM, which is Euler's method in other words;
with all of the noise drawn fresh as far as the path allows it is DDPM, which is Euler's ancestral method. The others look twice, or remember looks.

Sources: DDPM 2006.11239; DDIM 2010.02502; Euler, Heun and ancestral steps 2206.00364; pseudo linear multistep 2202.09778; DPM-Solver++ 2211.01095;
UniPC 2302.04867; linear multistep: Katherine Crowson's k-diffusion.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

import torch

from sensorium.paths import Path, Stop, apart, said

__all__ = ["INNER", "Look", "Rule", "rule_of", "SOLVERS", "STRIDE", "TWICE"]

Look = Callable[[torch.Tensor, Stop], tuple[torch.Tensor, torch.Tensor]]
"""(L, C, H, W) and where it stands -> what is clean in it, what is noise."""
INNER = frozenset({"dpm++", "dpm++sde", "unipc"})
"""Solvers whose stops leave out the trained step nearest to clean."""
STRIDE = frozenset({"ddim", "pndm"})
"""Solvers that step back by a fixed number of trained steps, wherever the next stop is; it is the next stop unless steps are "trailing" or "even"."""
TWICE = frozenset({"heun", "pndm"})
"""Solvers that may look twice in a step."""


class Rule(ABC):
    """How one solver steps. It remembers the looks of the steps before.

    Args:
        path: what is walked.
        predict: what the model's head says, as ``paths.PREDICTIONS`` has it.
        fresh: draws noise in the media's shape, for solvers that add some; None adds none.
        share: of the noise that a step can renew, how much it does.
    """

    def __init__(self, path: Path, predict: str, fresh: Callable[[], torch.Tensor] | None, share: float = 0.0) -> None:
        self.path, self.predict, self.fresh, self.share = path, predict, fresh, share
        self.seen: list[tuple[Stop, torch.Tensor]] = []

    @abstractmethod
    def step(self, look: Look, x_LCHW: torch.Tensor, now: Stop, then: Stop, rest: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What is clean at ``now``, and the media at ``then``; ``rest``: how many steps follow."""


class _First(Rule):
    """First order."""

    def step(self, look: Look, x_LCHW: torch.Tensor, now: Stop, then: Stop, rest: int) -> tuple[torch.Tensor, torch.Tensor]:
        clean, noise = look(x_LCHW, now)
        # the most noise that a step can renew: what remains of it and what is fresh together have the next stop's level
        ratio = (then.level * now.signal / (then.signal * now.level)) ** 2
        renewed = self.share * then.level * max(1 - ratio, 0.0) ** 0.5
        x_LCHW = then.signal * clean + (then.level**2 - renewed**2) ** 0.5 * noise
        return clean, x_LCHW + renewed * self.fresh() if renewed > 0 and self.fresh is not None else x_LCHW


class _Heun(Rule):
    """The mean of the speeds at both ends of the step."""

    def step(self, look: Look, x_LCHW: torch.Tensor, now: Stop, then: Stop, rest: int) -> tuple[torch.Tensor, torch.Tensor]:
        clean, noise = look(x_LCHW, now)
        guess = then.signal * clean + then.level * noise
        if then.level == 0:
            return clean, guess
        speed = (self.path.speed(clean, noise) + self.path.speed(*look(guess, then))) / 2
        (size, place), (size_then, place_then) = self.path.place(now), self.path.place(then)
        return clean, size_then * (x_LCHW / size + (place_then - place) * speed)


class _Linear(Rule):
    """The polynomial through the last four speeds, integrated."""

    def step(self, look: Look, x_LCHW: torch.Tensor, now: Stop, then: Stop, rest: int) -> tuple[torch.Tensor, torch.Tensor]:
        clean, noise = look(x_LCHW, now)
        self.seen = [*self.seen[-3:], (now, self.path.speed(clean, noise))]
        (size, place), (size_then, place_then) = self.path.place(now), self.path.place(then)
        at = torch.tensor([(self.path.place(stop)[1] - place) / (place_then - place) for stop, _ in self.seen], dtype=torch.float64)
        powers = torch.arange(len(at), dtype=torch.float64)
        weights = torch.linalg.solve(at[None] ** powers[:, None], 1 / (powers + 1)) * (place_then - place)
        moved = sum(float(weight) * speed for weight, (_, speed) in zip(weights, self.seen, strict=True))
        return clean, size_then * (x_LCHW / size + moved)


class _Multistep(Rule):
    """DPM-Solver++, of the look at ``now`` and (order 2) the one before; with all of the noise renewed, or none."""

    def step(self, look: Look, x_LCHW: torch.Tensor, now: Stop, then: Stop, rest: int) -> tuple[torch.Tensor, torch.Tensor]:
        clean, _ = look(x_LCHW, now)
        guess = clean
        if self.seen and then.level > 0 and self.path.order > 1:
            before, old = self.seen[-1]
            guess = clean + (clean - old) * (_log(then) - _log(now)) / (_log(now) - _log(before)) / 2
        self.seen = [(now, clean)]
        if self.share == 0:
            return clean, then.level / now.level * x_LCHW + (then.signal - now.signal * then.level / now.level) * guess
        left = then.level * now.signal / (then.signal * now.level)
        x_LCHW = then.level / now.level * left * x_LCHW + then.signal * (1 - left**2) * guess
        renewed = then.level * (1 - left**2) ** 0.5
        return clean, x_LCHW + renewed * self.fresh() if renewed > 0 and self.fresh is not None else x_LCHW


class _PseudoLinear(Rule):
    """PNDM without its Runge-Kutta start: the first step looks at both of its ends, the next ones remember up to three looks."""

    weights = ((1.0,), (-1 / 2, 3 / 2), (5 / 12, -16 / 12, 23 / 12), (-9 / 24, 37 / 24, -59 / 24, 55 / 24))

    def step(self, look: Look, x_LCHW: torch.Tensor, now: Stop, then: Stop, rest: int) -> tuple[torch.Tensor, torch.Tensor]:
        clean, noise = look(x_LCHW, now)
        self.seen = [*self.seen[-3:], (now, said(clean, noise, now, self.predict))]
        words = sum(weight * one for weight, (_, one) in zip(self.weights[len(self.seen) - 1], self.seen, strict=True))
        if len(self.seen) == 1 and rest:
            words = (words + said(*look(self._go(x_LCHW, words, now, then), then), then, self.predict)) / 2
        return clean, self._go(x_LCHW, words, now, then)

    def _go(self, x_LCHW: torch.Tensor, words: torch.Tensor, now: Stop, then: Stop) -> torch.Tensor:
        clean, noise = apart(words, x_LCHW, now, self.predict)
        return then.signal * clean + then.level * noise


class _Corrected(Rule):
    """UniPC in its form B2: each look first corrects the step that led to it, then makes the next one."""

    def __init__(self, path: Path, predict: str, fresh: Callable[[], torch.Tensor] | None) -> None:
        super().__init__(path, predict, fresh)
        self.before, self.order = torch.empty(0), 1

    def step(self, look: Look, x_LCHW: torch.Tensor, now: Stop, then: Stop, rest: int) -> tuple[torch.Tensor, torch.Tensor]:
        clean, _ = look(x_LCHW, now)
        if self.seen:
            x_LCHW = self._moved(self.before, now, clean)
        self.seen = [*self.seen, (now, clean)][-self.path.order :]
        self.before, self.order = x_LCHW, min(len(self.seen), rest + 1)
        return clean, self._moved(x_LCHW, then, None)

    def _moved(self, x_LCHW: torch.Tensor, to: Stop, clean: torch.Tensor | None) -> torch.Tensor:
        """From the last look to a stop; ``clean``: what is clean there, where the step is corrected."""
        base, old = self.seen[-1]
        if to.level == 0:
            return to.signal * old
        ahead = _log(to) - _log(base)
        far = -math.expm1(-ahead)
        others = self.seen[-self.order : -1][::-1]
        at = torch.tensor([*((_log(stop) - _log(base)) / ahead for stop, _ in others), 1.0], dtype=torch.float64)
        changes = [(one - old) / float(place) for place, (_, one) in zip(at[:-1], others, strict=True)]
        weights = self._weights(at, ahead, far)
        if clean is not None:
            changes = [*changes, clean - old]
        elif len(at) == 2:
            weights = [0.5]
        else:
            weights = self._weights(at[:-1], ahead, far)
        change = sum(weight * one for weight, one in zip(weights, changes, strict=True))
        return to.level / base.level * x_LCHW + to.signal * far * (old + change)

    def _weights(self, at: torch.Tensor, ahead: float, far: float) -> list[float]:
        """Of the changes between looks, so that a polynomial through the places ``at`` would be followed exactly."""
        if len(at) == 0:
            return []
        if len(at) == 1 and float(at[0]) == 1.0:
            return [0.5]
        wanted, part, factorial = [], far / ahead - 1, 1.0
        for power in range(1, len(at) + 1):
            wanted.append(-part * factorial / far)
            factorial *= power + 1
            part = -part / ahead - 1 / factorial
        powers = torch.arange(len(at), dtype=torch.float64)
        return torch.linalg.solve(at[None] ** powers[:, None], torch.tensor(wanted, dtype=torch.float64)).tolist()


def _log(stop: Stop) -> float:
    """log(signal / level); near enough where there is no signal."""
    return math.log(max(stop.signal, 1e-12) / stop.level)


SOLVERS: dict[str, Callable[..., Rule]] = {
    "euler": _First, "ddim": _First, "heun": _Heun, "dpm++": _Multistep, "dpm++sde": partial(_Multistep, share=1.0),
    "ancestral": partial(_First, share=1.0), "ddpm": partial(_First, share=1.0), "pndm": _PseudoLinear, "lms": _Linear, "unipc": _Corrected}
"""Name -> how it steps. "heun" and the first step of "pndm" look twice; "dpm++" (2M), "pndm", "lms" and "unipc" remember looks; "ancestral", "ddpm"
and "dpm++sde" draw fresh noise."""


def rule_of(kind: str, path: Path, predict: str, fresh: Callable[[], torch.Tensor] | None) -> Rule:
    """The rule of a solver, which has seen nothing yet."""
    return SOLVERS[kind](path, predict, fresh)
