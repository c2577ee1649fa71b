"""GAN: pictures from noise in one look, learned against a critic that tells them from real ones.

Letters: L pictures, C channels, H W pixels, Z numbers of noise.

    noise -> [twice the sides, norm, ReLU] x n -> pixels -> critic: [half the sides, norm, leaky ReLU] x n -> one score

Source: 1406.2661; the networks are DCGAN's (1511.06434), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from sensorium.spec import Spec
from sensorium.types import ShapeError

__all__ = ["Adversarial", "Critic", "Grow", "Pixels"]


@dataclass(frozen=True, repr=False)
class Grow(Spec):
    """The generator's body: noise grows into planes.

    Args:
        noise: Z.
        widths: channels at 4 x 4, 8 x 8, ...
    """

    noise: int = 100
    widths: tuple[int, ...] = (512, 256, 128, 64)

    @property
    def width(self) -> int:
        """Channels that come out."""
        return self.widths[-1]

    @property
    def writer(self) -> Grow:
        """What writes media: all of it."""
        return self

    def build(self) -> GrowNet:
        return GrowNet(self)


class GrowNet(nn.Module):
    """The module of :class:`Grow`."""

    def __init__(self, spec: Grow) -> None:
        super().__init__()
        self.spec = spec
        inside = (spec.noise, *spec.widths[:-1])
        self.maps = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, 1 if index == 0 else 2, 0 if index == 0 else 1, bias=False)
                                  for index, (a, b) in enumerate(zip(inside, spec.widths, strict=True)))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in spec.widths)
        _small(self)

    def forward(self, noise_LZ: torch.Tensor) -> torch.Tensor:
        """(L, Z) -> (L, width, H / 2, W / 2) of the picture."""
        if noise_LZ.dim() != 2 or noise_LZ.shape[1] != self.spec.noise:
            raise ShapeError(f"the generator got {tuple(noise_LZ.shape)}, wanted noise (L, {self.spec.noise})")
        x = noise_LZ[:, :, None, None]
        for layer, norm in zip(self.maps, self.norms, strict=True):
            x = F.relu(norm(layer(x)))
        return x


@dataclass(frozen=True, repr=False)
class Pixels(Spec):
    """Planes into a picture of twice their sides, -1..1."""

    width: int
    channels: int = 3

    def build(self) -> PixelsNet:
        return PixelsNet(self)


class PixelsNet(nn.Module):
    """The module of :class:`Pixels`."""

    def __init__(self, spec: Pixels) -> None:
        super().__init__()
        self.map = nn.ConvTranspose2d(spec.width, spec.channels, 4, 2, 1, bias=False)
        _small(self)

    def forward(self, x_LDHW: torch.Tensor) -> torch.Tensor:
        """(L, width, H / 2, W / 2) -> (L, C, H, W)."""
        return self.map(x_LDHW).tanh()


@dataclass(frozen=True, repr=False)
class Critic(Spec):
    """Tells real pictures from made ones.

    Args:
        widths: channels as the sides halve, down to 4 x 4.
        channels: C.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    _: KW_ONLY
    channels: int = 3

    def build(self) -> CriticNet:
        return CriticNet(self)


class CriticNet(nn.Module):
    """The module of :class:`Critic`."""

    def __init__(self, spec: Critic) -> None:
        super().__init__()
        inside = (spec.channels, *spec.widths[:-1])
        self.maps = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1, bias=False) for a, b in zip(inside, spec.widths, strict=True))
        self.norms = nn.ModuleList(nn.Identity() if index == 0 else nn.BatchNorm2d(width) for index, width in enumerate(spec.widths))
        self.out = nn.Conv2d(spec.widths[-1], 1, 4, bias=False)
        _small(self)

    def forward(self, x_LCHW: torch.Tensor) -> torch.Tensor:
        """(L, C, H, W) -> scores (L,), higher for what looks real."""
        for layer, norm in zip(self.maps, self.norms, strict=True):
            x_LCHW = F.leaky_relu(norm(layer(x_LCHW)), 0.2)
        return self.out(x_LCHW).flatten(1).mean(1)


def _small(net: nn.Module) -> None:
    """DCGAN's first weights: normal, deviation 0.02."""
    with torch.no_grad():
        for name, value in net.named_parameters():
            value.normal_(1.0 if name.startswith("norms.") and name.endswith("weight") else 0.0, 0.0 if name.endswith("bias") else 0.02)


@dataclass(frozen=True, repr=False)
class Adversarial(Spec):
    """One player's loss; both are minimised in one step, and neither moves the other's weights.

    Args:
        player: "generator" wants its pictures taken for real; "critic" wants to tell.
        modality: what is made.
        weight: in the sum of losses.
        smooth: the critic is asked for 1 - smooth, not 1, of real pictures.

    Source: the non-saturating form, 1406.2661, section 3; one-sided smoothing 1606.03498, section 3.4.
    """

    player: str
    modality: str = "image"
    _: KW_ONLY
    weight: float = 1.0
    smooth: float = 0.0

    def check(self) -> list[str]:
        return [] if self.player in ("generator", "critic") else [f"player {self.player!r} is not known; use 'generator' or 'critic'"]

    def build(self) -> AdversarialNet:
        return AdversarialNet(self)


class AdversarialNet(nn.Module):
    """The module of :class:`Adversarial`."""

    def __init__(self, spec: Adversarial) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, critic: nn.Module, real_LCHW: torch.Tensor, made_LCHW: torch.Tensor) -> torch.Tensor:
        """The player's loss, a number."""
        if self.spec.player == "generator":
            frozen: Mapping[str, torch.Tensor] = {name: value.detach() for name, value in critic.state_dict(keep_vars=True).items()}
            return F.softplus(-functional_call(critic, dict(frozen), (made_LCHW,))).mean()
        real = critic(real_LCHW)
        return F.binary_cross_entropy_with_logits(real, torch.full_like(real, 1 - self.spec.smooth)) + F.softplus(critic(made_LCHW.detach())).mean()
