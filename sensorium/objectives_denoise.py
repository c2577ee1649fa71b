"""Objectives of denoising: what a model learns of the way from noise to media.

    FlowMatching   the velocity of the straight path (nano, Stable Diffusion 3, Wan)
    Denoise        what is clean or noise on a diffusion's path (Stable Diffusion, DiT)
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn

from sensorium.paths import Diffusion, Straight
from sensorium.spec import Spec
from sensorium.types import ConfigError

__all__ = ["Denoise", "FlowMatching", "Noisy", "velocity_of"]

@dataclass(frozen=True)
class Noisy:
    """Media part of the way from noise to clean: x = signal * clean + level * noise, where the model is told ``t_L``."""

    x_LCHW: torch.Tensor
    t_L: torch.Tensor
    noise_LCHW: torch.Tensor


@dataclass(frozen=True, repr=False)
class FlowMatching(Spec):
    """Learn the velocity of the straight path from noise to media.

    Args:
        modality: what is written.
        mean, std: times are sigmoid(normal(mean, std)); a lower mean practises more noise.
        drop: share of items that must do without their condition, for classifier-free guidance.
        floor: least 1 - t that a sample prediction is divided by.
        weight: in the sum of losses.
        path: how solvers walk it, and what the model is told.

    Source: 2209.03003, 2210.02747; logit-normal times 2403.03206, section 3.1; sample prediction weighed as velocity 2511.13720.
    """

    modality: str = "image"
    _: KW_ONLY
    mean: float = 0.0
    std: float = 1.0
    drop: float = 0.1
    floor: float = 0.05
    weight: float = 1.0
    path: Straight = Straight()

    def build(self) -> FlowMatchingNet:
        return FlowMatchingNet(self)


class _Denoising(nn.Module):
    """What both objectives do: noise is added, and conditions are dropped."""

    def __init__(self, spec: FlowMatching | Denoise) -> None:
        super().__init__()
        self.spec = spec

    def times(self, count: int, generator: torch.Generator | None) -> torch.Tensor:
        """What the model is told of each item, (L,)."""
        raise NotImplementedError

    def corrupt(self, clean_LCHW: torch.Tensor, generator: torch.Generator | None = None) -> Noisy:
        """Draw a time and a noise for each item."""
        t_L = self.times(len(clean_LCHW), generator).to(clean_LCHW)
        noise = torch.randn(clean_LCHW.shape, generator=generator).to(clean_LCHW)
        signal, level = (_wide(share, clean_LCHW) for share in self.spec.path.at(t_L))
        return Noisy(signal * clean_LCHW + level * noise, t_L, noise)

    def dropped(self, count: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Which of ``count`` items lose their condition, bool (L,)."""
        return torch.rand(count, generator=generator) < self.spec.drop


class FlowMatchingNet(_Denoising):
    """The module of :class:`FlowMatching`."""

    def times(self, count: int, generator: torch.Generator | None) -> torch.Tensor:
        clean_L = torch.sigmoid(torch.randn(count, generator=generator) * self.spec.std + self.spec.mean)
        return clean_L if self.spec.path.told == "clean" else 1 - clean_L

    def forward(self, prediction_LCHW: torch.Tensor, noisy: Noisy, clean_LCHW: torch.Tensor, predict: str) -> torch.Tensor:
        """Mean squared error of the velocity, one number for each item, (L,)."""
        clean_L, _ = self.spec.path.at(noisy.t_L)
        velocity = velocity_of(prediction_LCHW, noisy.x_LCHW, clean_L, predict, self.spec.floor)
        if predict == "sample":  # the same floor in target and prediction: their difference is (sample - clean) / (1 - t)
            wanted = velocity_of(clean_LCHW, noisy.x_LCHW, clean_L, predict, self.spec.floor)
        else:
            wanted = clean_LCHW - noisy.noise_LCHW
        return (velocity - wanted).square().flatten(1).mean(1)


@dataclass(frozen=True, repr=False)
class Denoise(Spec):
    """Learn what the head predicts, at each step of a diffusion alike.

    Args:
        modality: what is written.
        path: how noise is added.
        drop: share of items that must do without their condition, for classifier-free guidance.
        weight: in the sum of losses.

    Source: 2006.11239, section 3.4.
    """

    modality: str = "image"
    _: KW_ONLY
    path: Diffusion = Diffusion()
    drop: float = 0.1
    weight: float = 1.0

    def build(self) -> DenoiseNet:
        return DenoiseNet(self)


class DenoiseNet(_Denoising):
    """The module of :class:`Denoise`."""

    def times(self, count: int, generator: torch.Generator | None) -> torch.Tensor:
        return torch.randint(self.spec.path.steps, (count,), generator=generator) / self.spec.path.steps

    def forward(self, prediction_LCHW: torch.Tensor, noisy: Noisy, clean_LCHW: torch.Tensor, predict: str) -> torch.Tensor:
        """Mean squared error of the prediction, one number for each item, (L,)."""
        signal, level = (_wide(share, clean_LCHW) for share in self.spec.path.at(noisy.t_L))
        wanted = {"sample": clean_LCHW, "noise": noisy.noise_LCHW, "velocity": clean_LCHW - noisy.noise_LCHW,
                  "turn": signal * noisy.noise_LCHW - level * clean_LCHW}[predict]
        return (prediction_LCHW - wanted).square().flatten(1).mean(1)


def velocity_of(prediction: torch.Tensor, x_LCHW: torch.Tensor, t_L: torch.Tensor, predict: str, floor: float = 0.05) -> torch.Tensor:
    """What the prediction says the velocity (clean minus noise) is on the straight path.

    Args:
        prediction: (L, C, H, W) of kind ``predict``: "velocity", "sample" or "noise".
        t_L: share of what is clean.
        floor: least value of what is divided by.
    """
    t = _wide(t_L, x_LCHW)
    if predict == "velocity":
        return prediction
    if predict == "sample":
        return (prediction - x_LCHW) / (1 - t).clamp(min=floor)
    if predict == "noise":
        return (x_LCHW - prediction) / t.clamp(min=floor)
    raise ConfigError(f"predict {predict!r} is not known on a straight path; use 'velocity', 'sample' or 'noise'")


def _wide(share_L: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return share_L.reshape(-1, *[1] * (like.dim() - 1))
