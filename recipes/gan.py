"""A GAN on the corpus's pictures: a generator that never sees one, and a critic that tells its pictures from real ones.

    make corpus
    sensorium train recipes/gan.py --data corpus
    sensorium ask "anything" --want image --model runs/gan/final --seed 3

Both players take a step at once, each on its own loss (``Adversarial``); the seed is all that the generator is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import sensorium as sn
from nano import in_epochs
from pictures import SIZE, load_pictures, on_paper
from sensorium.train import Group, Run
from sensorium.types import Written
from sensorium.zoo.gan import dcgan


@dataclass(eq=False)
class Reals:
    """Makes the batch of each step: pictures of one style on white paper, half of them mirrored.

    Args:
        folder: the corpus.
        pictures: of a step.
        style: which.
        seed: of order and chance.
    """

    folder: Path
    pictures: int
    style: str = "fluent-flat"
    seed: int = 0

    def __post_init__(self) -> None:
        found = load_pictures(self.folder, "train")
        self.image_LCHW = found.image_LCHW[[i for i, style in enumerate(found.style) if style == self.style]]

    def batch(self, step: int) -> sn.Batch:
        """Batch of a step: a function of the seed and the step alone."""
        chosen = in_epochs(self.seed, len(self.image_LCHW), step * self.pictures, self.pictures)
        image = on_paper(self.image_LCHW[chosen])
        mirror = torch.from_numpy(np.random.default_rng((self.seed, 7, step)).random(len(chosen)) < 0.5)
        image = torch.where(mirror[:, None, None, None], image.flip(3), image)
        none = torch.full((len(chosen),), -1)
        return sn.Batch(written={"image": Written(image, none, none, none * 0, none, none)}, samples=len(chosen))


def run(data: str = "corpus", steps: int = 3000, pictures: int = 64, width: int = 64, rate: float = 2e-4) -> Run:
    """The run; ``width`` is the channels beside the pixels."""
    train = Reals(Path(data), pictures)
    return Run(name="gan", model=dcgan(width=width), batch=train.batch, steps=steps, warmup=0.01, cooldown=0.1, clip=10.0, ema=0.99, mixed=True,
               groups=(Group(rate=rate, betas=(0.5, 0.999), decay=0.0),), validate_every=0, save_every=250,
               files={"codecs.json": sn.Codecs(image=sn.VisionCodec(size=SIZE)).to_json().encode()})
