"""Denoise: from noise to media in a few looks, guided by what was read.

Letters: L media, C channels, H W pixels, D width.

    read the prompt once -> noise at t = 0 -> the model says the velocity -> a step -> ... -> clean at t = 1
    guidance: the velocity with the prompt, away from the velocity without it

Sources: Euler and Heun on the flow of 2210.02747; guidance 2207.12598, in an interval 2404.07724; DDIM 2010.02502.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from sensorium.layers.cache import Cache
from sensorium.model import ModelNet
from sensorium.objectives import velocity_of
from sensorium.types import Batch, ConfigError, Written

__all__ = ["ddim", "draw", "Solver", "stream_draw"]


@dataclass(frozen=True)
class Solver:
    """How the path is walked.

    Args:
        kind: "euler" (one look a step) or "heun" (two, second order).
        steps: steps from noise to clean.
        guidance: 1 is none; higher follows the prompt more, at the price of variety.
        interval: times between which guidance acts.
        seed: of the noise; item i of a batch draws from seed + i, so its picture does not depend on its neighbours.
    """

    kind: str = "euler"
    steps: int = 24
    guidance: float = 3.0
    interval: tuple[float, float] = (0.1, 1.0)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("euler", "heun") or not 1 <= self.steps <= 1000 or self.guidance < 0:
            raise ConfigError(f"{self}: wanted kind 'euler' or 'heun', 1 to 1000 steps and guidance of 0 or more")


class _Prompted:
    """A model that has read its prompts: asks for velocities, with and without them."""

    def __init__(self, model: ModelNet, batch: Batch, modality: str) -> None:
        self.model, self.modality, self.written = model, modality, batch.written[modality]
        self.head = model.spec.heads[modality]
        self.cache: Cache | None = None
        self.state: torch.Tensor | None = None
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
        out = self.model.write(self.modality, x_LCHW, t_L, self.written, known_L, self.cache, self.state)
        return out[:, : self.head.channels].float()

    def guided(self, x_LCHW: torch.Tensor, t: float, guidance: float) -> torch.Tensor:
        """The prediction, pushed away from what it would be without the prompt."""
        with_prompt = self.predict(x_LCHW, t, True)
        if guidance == 1.0:
            return with_prompt
        without = self.predict(x_LCHW, t, False)
        return without + guidance * (with_prompt - without)

    def velocity(self, x_LCHW: torch.Tensor, t: float, solver: Solver) -> torch.Tensor:
        """Where the picture should go from here."""
        low, high = solver.interval
        prediction = self.guided(x_LCHW, t, solver.guidance if low <= t <= high else 1.0)
        return velocity_of(prediction, x_LCHW, torch.full((len(x_LCHW),), t, device=x_LCHW.device), self.head.predict)


def noise_for(written: Written, seed: int) -> torch.Tensor:
    """Standard normal noise in the shape of what is to be written, item by item from seed, seed + 1, ..."""
    shape = written.value_LCHW.shape
    return torch.stack([torch.randn(shape[1:], generator=torch.Generator().manual_seed(seed + i)) for i in range(shape[0])])


@torch.inference_mode()
def stream_draw(model: ModelNet, batch: Batch, solver: Solver, modality: str = "image") -> Iterator[torch.Tensor]:
    """As :func:`draw`, step by step: yields what the clean media look like from here, and at last what they are, (L, C, H, W)."""
    prompted = _Prompted(model, batch, modality)
    x = noise_for(batch.written[modality], solver.seed).to(model.device)
    for step in range(solver.steps):
        now, then = step / solver.steps, (step + 1) / solver.steps
        velocity = prompted.velocity(x, now, solver)
        ahead = x + (then - now) * velocity
        if solver.kind == "heun" and then < 1:
            ahead = x + (then - now) * (velocity + prompted.velocity(ahead, then, solver)) / 2
        preview, x = x + (1 - now) * velocity, ahead
        yield preview if then < 1 else x


def draw(model: ModelNet, batch: Batch, solver: Solver | None = None, modality: str = "image") -> torch.Tensor:
    """Write the batch's media from noise.

    Args:
        batch: prompts and, in ``written``, the places to fill; the values there only give the shape.

    Returns:
        (L, C, H, W), normalised as in training (pictures: -1..1).
    """
    return list(stream_draw(model, batch, solver or Solver(), modality))[-1]


@torch.inference_mode()
def ddim(model: ModelNet, batch: Batch, steps: int = 50, guidance: float = 4.0, modality: str = "image",
         noise_LCHW: torch.Tensor | None = None, seed: int = 0) -> torch.Tensor:
    """Deterministic DDIM for models that predict noise over 1000 linear steps (the published DiT).

    The model counts time as t = timestep / 1000 with 0 clean, as its ``Condition(scale=1000)`` does.

    Args:
        noise_LCHW: where to start; None draws it from ``seed``.

    Returns:
        (L, C, H, W) clean latents.
    """
    if model.spec.heads[modality].predict != "noise":
        raise ConfigError(f"ddim got a model that predicts {model.spec.heads[modality].predict!r}, wanted 'noise'; use draw()")
    prompted = _Prompted(model, batch, modality)
    x = (noise_for(batch.written[modality], seed) if noise_LCHW is None else noise_LCHW).to(model.device)
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    stride = 1000 // steps
    for timestep in range((steps - 1) * stride, -1, -stride):
        noise = prompted.guided(x, timestep / 1000, guidance)
        now = float(kept[timestep])
        then = float(kept[timestep - stride]) if timestep >= stride else 1.0
        clean = (x - (1 - now) ** 0.5 * noise) / now**0.5
        x = then**0.5 * clean + (1 - then) ** 0.5 * noise
    return x
