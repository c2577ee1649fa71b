"""Denoise: from noise to media in a few looks, guided by what was read.

Letters: L media, C channels, H W pixels, D width.

    read the prompt once -> noise -> the model tells what is clean and what is noise -> the next stop of the path -> ... -> clean
    guidance: what it says with the prompt, away from what it says without

How a step is made of looks is in ``solvers``; where stops are, in ``paths``.

Sources: flows 2210.02747; guidance 2207.12598, in an interval 2404.07724.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from sensorium.layers.cache import Cache
from sensorium.model import ModelNet
from sensorium.objectives_denoise import Denoise, FlowMatching
from sensorium.paths import Leg, Path, Stop, apart
from sensorium.solvers import INNER, SOLVERS, STRIDE, TWICE, Look, rule_of
from sensorium.types import Batch, ConfigError, Written

__all__ = ["Change", "draw", "Forecast", "legs_of", "looked_at", "Noise", "path_of", "Solver", "SOLVERS", "stream_draw", "walk"]


@dataclass(frozen=True)
class Solver:
    """How a path is walked.

    Args:
        kind: one of ``SOLVERS``; None is the one that the model's path names.
        steps: from noise to clean.
        guidance: 1 is none; higher follows the prompt more, at the price of variety.
        interval: how far along, 0 noise to 1 clean, guidance begins and ends to act.
        seed: of the noise; item i of a batch draws from seed + i, so its picture does not depend on its neighbours.
        every: ask the model at one in so many stops (see :func:`looked_at`); between, what it last said is continued (see :class:`Forecast`).
        order: of the curve that continues it: 0 repeats the last look, 1 is a line, 2 a parabola.
    """

    kind: str | None = None
    steps: int = 24
    guidance: float = 3.0
    interval: tuple[float, float] = (0.1, 1.0)
    seed: int = 0
    every: int = 1
    order: int = 1

    def __post_init__(self) -> None:
        if self.kind not in (None, *SOLVERS) or not 1 <= self.steps <= 1000 or self.guidance < 0:
            raise ConfigError(f"{self}: wanted a kind of {', '.join(SOLVERS)}, 1 to 1000 steps and guidance of 0 or more")
        if self.every < 1 or not 0 <= self.order <= 3 or (self.every > 1 and self.kind in TWICE):
            raise ConfigError(f"{self}: wanted every >= 1, order 0 to 3, and another kind than {' or '.join(sorted(TWICE))} where stops are left out")

    def on(self, path: Path) -> Solver:
        """With the path's own kind where none was asked for."""
        return self if self.kind is not None else replace(self, kind=path.solver)


def looked_at(steps: int, every: int) -> frozenset[int]:
    """At which stops a model is asked when it is asked at one in ``every`` of them: at the first ones all, for they settle what it shall be; then at
    ever fewer; and at the last."""
    looks = max(round(steps / every), 1)
    dense = min(round(0.7 * looks + 0.25), looks)
    rest, spare = looks - dense, steps - looks
    grow = 2 * spare / (rest * (rest + 1)) if rest else 0.0  # each gap is so much wider than the last
    return frozenset(range(dense)) | frozenset(dense - 1 + i + round(grow * i * (i + 1) / 2) for i in range(1, rest + 1))


class Forecast:
    """Looks at some stops, and continues what it saw there at the others: predictions change slowly on the way.

    Args:
        look: the model.
        stops: at which it is asked, counted from the first; the first is among them.
        order: of the polynomial in how far along a stop is, through as many looks and one more.

    Source: TaylorSeer 2503.06923, on what the model gives instead of on each of its layers.
    """

    def __init__(self, look: Look, stops: frozenset[int], order: int) -> None:
        self.look, self.stops, self.order = look, stops, order
        self.seen: list[tuple[float, torch.Tensor, torch.Tensor]] = []
        self.stop, self.looks = -1, 0

    def __call__(self, x_LCHW: torch.Tensor, stop: Stop) -> tuple[torch.Tensor, torch.Tensor]:
        """As a ``Look``."""
        self.stop += 1
        if self.stop in self.stops:
            self.looks += 1
            clean, noise = self.look(x_LCHW, stop)
            self.seen = [*self.seen, (stop.clean, clean, noise)][-1 - self.order :]
            return clean, noise
        clean, noise = torch.zeros_like(x_LCHW), torch.zeros_like(x_LCHW)
        for at, one, other in self.seen:
            weight = math.prod((stop.clean - more) / (at - more) for more, _, _ in self.seen if more != at)
            clean, noise = clean + weight * one, noise + weight * other
        lost = (x_LCHW - stop.signal * clean - stop.level * noise) / (stop.signal**2 + stop.level**2)  # both together must still be x
        return clean + stop.signal * lost, noise + stop.level * lost


def walk(look: Look, path: Path, solver: Solver, x_LCHW: torch.Tensor, fresh: Callable[[], torch.Tensor] | None = None,
         begin: int = 0, settle: Callable[[torch.Tensor, Stop], torch.Tensor] | None = None,
         predict: str = "noise") -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """From stop to stop: after each, what the clean media look like from there, and where they stand now.

    Args:
        look: asked at each stop.
        path: what is walked.
        solver: its kind and steps.
        x_LCHW: where to start: noise, or media noised to the level of stop ``begin``.
        fresh: draws noise in their shape, for solvers that add some.
        begin: stop to start from.
        settle: what is done to the media at each stop they come to.
        predict: what the model says, for solvers that remember what it said.
    """
    solver = solver.on(path)
    rule, legs = rule_of(solver.kind, path, predict, fresh), legs_of(path, solver)[begin:]

    def limited(x_LCHW: torch.Tensor, stop: Stop) -> tuple[torch.Tensor, torch.Tensor]:
        clean, noise = look(x_LCHW, stop)
        within = path.limited(clean)
        if within is clean or solver.kind == "ddim":  # DDIM goes on with the noise that was said
            return within, noise
        return within, (x_LCHW - stop.signal * within) / stop.level

    for number, (now, then) in enumerate(legs, start=1):
        preview, x_LCHW = rule.step(limited, x_LCHW, now, then, len(legs) - number)
        x_LCHW = x_LCHW if settle is None else settle(x_LCHW, then)
        yield preview, x_LCHW


def legs_of(path: Path, solver: Solver) -> list[Leg]:
    """From where to where a solver steps on a path."""
    kind = solver.on(path).kind
    return path.legs(solver.steps, inner=kind in INNER, stride=kind in STRIDE)


def path_of(model: ModelNet, modality: str) -> Path:
    """The path on which the model learned to write a modality."""
    for objective in model.spec.objectives:
        if isinstance(objective, FlowMatching | Denoise) and objective.modality == modality:
            return objective.path
    raise ConfigError(f"the model has no objective that writes {modality}; wanted FlowMatching or Denoise")


class _Prompted:
    """A model that has read its prompts: tells what is clean and what is noise, with them and without."""

    def __init__(self, model: ModelNet, batch: Batch, solver: Solver, modality: str) -> None:
        self.solver = solver
        self.model, self.modality, self.written = model, modality, batch.written[modality]
        self.head = model.spec.heads[modality]
        self.cache: Cache | None = None
        self.state: torch.Tensor | None = None
        self.prompt = model.prompts(batch)
        if batch.token_BT is not None:
            cache = Cache()
            states = model.read(batch, cache)
            self.cache = cache.rows(self.written.row_L.clamp(min=0))
            if "embed" in model.heads:
                self.state = model.embedding(states, self.written.state_L.clamp(min=0))

    def predict(self, x_LCHW: torch.Tensor, t: float, known: bool) -> torch.Tensor:
        """The head's prediction, without the extra channels of a published variance."""
        count = len(x_LCHW)
        known_L = torch.full((count,), known, device=x_LCHW.device)
        t_L = torch.full((count,), t, device=x_LCHW.device)
        out = self.model.write(self.modality, x_LCHW, t_L, self.written, known_L, self.cache, self.state, self.prompt)
        return out[:, : self.head.channels].float()

    def guided(self, x_LCHW: torch.Tensor, t: float, guidance: float) -> torch.Tensor:
        """The prediction, pushed away from what it would be without the prompt."""
        with_prompt = self.predict(x_LCHW, t, True)
        if guidance == 1.0:
            return with_prompt
        without = self.predict(x_LCHW, t, False)
        return without + guidance * (with_prompt - without)

    def look(self, x_LCHW: torch.Tensor, stop: Stop) -> tuple[torch.Tensor, torch.Tensor]:
        """What is clean at a stop, and what is noise."""
        low, high = self.solver.interval
        guidance = self.solver.guidance if low <= stop.clean <= high else 1.0
        return apart(self.guided(x_LCHW, stop.time, guidance), x_LCHW, stop, self.head.predict)


class Noise:
    """Standard normal noise in the shape of what is to be written, as often as it is called; item i draws from seed + i, whatever its neighbours."""

    def __init__(self, written: Written, seed: int) -> None:
        self.shape = written.value_LCHW.shape
        self.generators = [torch.Generator().manual_seed(seed + item) for item in range(self.shape[0])]

    def __call__(self) -> torch.Tensor:
        return torch.stack([torch.randn(self.shape[1:], generator=generator) for generator in self.generators])


@dataclass(frozen=True)
class Change:
    """Media to be changed, instead of made from nothing.

    Args:
        strength: how much of the way back to noise they go first: 0 leaves them, 1 makes them anew.
        mask_L1HW: 1 where they may change and 0 where they stay; None is everywhere. With it the rest is kept as it is at every stop.

    Source: SDEdit 2108.01073; RePaint 2201.09865, without its repetitions.
    """

    strength: float = 0.6
    mask_L1HW: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ConfigError(f"strength is {self.strength}, wanted 0 (leave it as it is) to 1 (make it anew)")


@torch.inference_mode()
def stream_draw(model: ModelNet, batch: Batch, solver: Solver, modality: str = "image", noise_LCHW: torch.Tensor | None = None,
                change: Change | None = None) -> Iterator[torch.Tensor]:
    """As :func:`draw`, step by step: yields what the clean media look like from here, and at last what they are, (L, C, H, W)."""
    path, clean, draws = path_of(model, modality), batch.written[modality].value_LCHW, Noise(batch.written[modality], solver.seed)
    noise = (draws() if noise_LCHW is None else noise_LCHW).to(model.device)
    solver = solver.on(path)
    legs = legs_of(path, solver)
    begin, x, settle = 0, noise * path.start(legs[0][0]), None
    if change is not None:
        begin = round(solver.steps * (1 - change.strength))
        if change.mask_L1HW is not None:
            settle = lambda x, stop: torch.where(change.mask_L1HW > 0.5, x, stop.signal * clean + stop.level * noise)  # noqa: E731
    if begin == solver.steps:
        yield clean
        return
    if change is not None:
        x = legs[begin][0].signal * clean + legs[begin][0].level * noise
    prompted = _Prompted(model, batch, solver, modality)
    look = prompted.look if solver.every == 1 else Forecast(prompted.look, looked_at(solver.steps - begin, solver.every), solver.order)
    steps = walk(look, path, solver, x, lambda: draws().to(model.device), begin, settle, model.spec.heads[modality].predict)
    for step, (preview, x) in enumerate(steps, start=begin + 1):
        yield preview if step < solver.steps else x


def draw(model: ModelNet, batch: Batch, solver: Solver | None = None, modality: str = "image", noise_LCHW: torch.Tensor | None = None,
         change: Change | None = None) -> torch.Tensor:
    """Write the batch's media from noise.

    Args:
        batch: prompts and, in ``written``, the places to fill; without ``change`` the values there only give the shape.
        noise_LCHW: where to start; None draws it from the solver's seed.
        change: start from the media that stand in ``written``.

    Returns:
        (L, C, H, W), normalised as in training (pictures: -1..1).
    """
    return list(stream_draw(model, batch, solver or Solver(), modality, noise_LCHW, change))[-1]
