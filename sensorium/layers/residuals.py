"""Convolutional residual blocks between group norms, and what halves and doubles a picture's sides.

Letters: B batch, C channels, H W pixels, T = H x W, D width of the condition.

    x -> norm -> SiLU -> 3 x 3 -> + condition -> norm -> SiLU -> 3 x 3 -> + x

Source: Wide ResNet (1605.07146) as DDPM (2006.11239, appendix B) and the latent diffusion models (2112.10752) use it.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.layers.attention import Attention

__all__ = ["Double", "Halve", "PlaneAttention", "Residual"]


class Residual(nn.Module):
    """One block.

    Args:
        inside, outside: channels.
        groups, eps: of the norms.
        condition: width of a vector that is added to all pixels alike; None for none.
    """

    def __init__(self, inside: int, outside: int, groups: int = 32, eps: float = 1e-5, condition: int | None = None) -> None:
        super().__init__()
        self.first_norm, self.first = nn.GroupNorm(groups, inside, eps), nn.Conv2d(inside, outside, 3, padding=1)
        self.condition = nn.Linear(condition, outside) if condition else None
        self.second_norm, self.second = nn.GroupNorm(groups, outside, eps), nn.Conv2d(outside, outside, 3, padding=1)
        self.short = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x_BCHW: torch.Tensor, condition_BD: torch.Tensor | None = None) -> torch.Tensor:
        """(B, inside, H, W) -> (B, outside, H, W); the condition comes after its activation."""
        h = self.first(F.silu(self.first_norm(x_BCHW)))
        if self.condition is not None:
            h = h + self.condition(condition_BD)[:, :, None, None]
        return self.short(x_BCHW) + self.second(F.silu(self.second_norm(h)))


class Halve(nn.Module):
    """Half the sides, by a 3 x 3 convolution.

    Args:
        even: pad both sides; False pads right and below alone, as the autoencoders do.
    """

    def __init__(self, channels: int, even: bool = True) -> None:
        super().__init__()
        self.even = even
        self.map = nn.Conv2d(channels, channels, 3, stride=2, padding=1 if even else 0)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.map(x_BCHW if self.even else F.pad(x_BCHW, (0, 1, 0, 1)))


class Double(nn.Module):
    """Twice the sides: every pixel four times, then a 3 x 3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.map = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.map(F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest"))


class PlaneAttention(nn.Module):
    """Every pixel looks at every other; added to what came in."""

    def __init__(self, channels: int, groups: int = 32, heads: int = 1, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps)
        self.attention = Attention(channels, heads, bias=True).build()

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        found_BTC = self.attention(self.norm(x_BCHW).flatten(2).transpose(1, 2))
        return x_BCHW + found_BTC.transpose(1, 2).unflatten(2, x_BCHW.shape[2:])
