"""What an autoencoder learns: pixels that went through its latents, or through their codes, come back.

Letters: L media, Z channels of latents, H W places.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn

from sensorium.spec import Spec

__all__ = ["Reconstruct"]


@dataclass(frozen=True, repr=False)
class Reconstruct(Spec):
    """Pixels come back, and latents stay near a normal distribution, or near their codes' patterns.

    Args:
        modality: what the pixels are of.
        normal: weight of the divergence from a normal distribution, where latents have a spread.
        commit: weight of how far latents are from their patterns; the patterns follow with weight 1.
        weight: in the sum of losses.

    Source: 2112.10752, appendix G; VQ-VAE 1711.00937, section 3.2.
    """

    modality: str = "image"
    _: KW_ONLY
    normal: float = 1e-6
    commit: float = 0.25
    weight: float = 1.0

    def build(self) -> ReconstructNet:
        return ReconstructNet(self)


class ReconstructNet(nn.Module):
    """The module of :class:`Reconstruct`."""

    def __init__(self, spec: Reconstruct) -> None:
        super().__init__()
        self.spec = spec

    def draw(self, mean: torch.Tensor, spread: torch.Tensor | None, generator: torch.Generator | None) -> torch.Tensor:
        """Latents around their mean, (L, Z, ...)."""
        if spread is None:
            return mean
        return mean + (spread / 2).exp() * torch.randn(mean.shape, generator=generator).to(mean)

    def forward(self, pixels: torch.Tensor, back: torch.Tensor, mean: torch.Tensor, spread: torch.Tensor | None,
                pattern: torch.Tensor | None) -> torch.Tensor:
        """Mean absolute error, and what holds the latents."""
        loss = (pixels - back).abs().mean()
        if spread is not None:
            loss = loss + self.spec.normal * (mean.square() + spread.exp() - 1 - spread).sum() / (2 * len(mean))
        if pattern is not None:
            loss = loss + (pattern - mean.detach()).square().mean() + self.spec.commit * (mean - pattern.detach()).square().mean()
        return loss
