"""nano's motion: moving pictures of named things, drawn by the model whose still pictures are done.

    make corpus && python -m sensorium.corpus.animated corpus       # once: pictures, names, and the moving ones
    sensorium train recipes/nano_video.py --data corpus
    python recipes/nano_video.py runs/nano-video sensorium/weights/nano         # into the folder that ships

What is trained is the looks between frames alone; nano's own weights stay as they are. Every step takes clips of the training split, each with a
request, and stills of any concept that training may see, moved by code: they bounce, sway, pulse or shake. So a thing whose clip was never seen
moves too.

    [its name, or a request] <embed> -> eight frames, conditioned on the embedding; flow
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from torch.nn import functional as F

import sensorium as sn
from nano import EMBED, END, SAY, VOCAB, add_parts, codecs, in_epochs, recipe_over
from pictures import SIZE, load_concepts, load_pictures, on_paper
from sensorium.catalog import WEIGHTS
from sensorium.codecs.clips import FrameStack
from sensorium.codecs.frames import read_animation
from sensorium.files import read_lines
from sensorium.train import Run
from sensorium.zoo.nano import nano
from sensorium.zoo.nano_whole import moving

FRAMES, LENGTH, STYLE = 8, 24, "fluent-3d"
PARTS = ("fuse.motion",)
REQUESTS = (("{}", "{}"), ("Animate {}", "让{}动起来"), ("A moving picture of {}.", "{}的动画"), ("Draw a {}", "画一个{}"))


@lru_cache(maxsize=4)
def load_clips(folder: Path, split: str) -> tuple[list[str], torch.Tensor]:
    """Concepts and clips of a split, uint8 RGB on white, (L, LENGTH, 3, H, W)."""
    rows, clips = [row for row in read_lines(folder / "clips.jsonl") if row["split"] == split], []
    for row in rows:
        frames = read_animation(folder / row["parts"][0]["video"])
        shown = frames.looks([i * frames.steps()[0] // LENGTH for i in range(LENGTH)])  # a file holds frames that are alike only once
        clips.append(np.stack([np.asarray(frame.resize((SIZE, SIZE), Pillow.Resampling.LANCZOS)) for frame in shown]))
    return [row["concept"] for row in rows], torch.from_numpy(np.stack(clips)).permute(0, 1, 4, 2, 3).contiguous()


def moved(image_CHW: torch.Tensor, rng: np.random.Generator, frames: int = FRAMES) -> torch.Tensor:
    """A normalised picture on white that bounces, sways, pulses or shakes, (C, F, H, W)."""
    phase = 2 * math.pi * (np.arange(frames) / frames * int(rng.integers(1, 3)) + rng.random())
    wave, size = np.sin(phase), float(rng.uniform(0.5, 1.0))
    angle, scale, across, down = (np.zeros(frames) for _ in range(4))
    kind = int(rng.integers(4))
    if kind == 0:
        down = 0.16 * size * np.abs(wave)
    elif kind == 1:
        angle = 0.22 * size * wave
    elif kind == 2:
        scale = 0.12 * size * wave
    else:
        across, angle = 0.08 * size * wave, 0.06 * size * np.cos(phase)
    grow, cosine, sine = 1 / (0.94 + scale), np.cos(angle), np.sin(angle)
    rows = [np.stack([cosine * grow, -sine * grow, across], axis=1), np.stack([sine * grow, cosine * grow, down], axis=1)]
    theta = torch.from_numpy(np.stack(rows, axis=1)).float()
    picture = (image_CHW - 1).expand(frames, -1, -1, -1)
    return (F.grid_sample(picture, F.affine_grid(theta, list(picture.shape), align_corners=False), align_corners=False) + 1).transpose(0, 1)


@dataclass(eq=False)
class VideoData:
    """Makes the batch of each step.

    Args:
        folder: the corpus.
        clips: of a step.
        stills: moved by code, beside them.
        seed: of order and chance.
        split: which clips.
    """

    folder: Path
    clips: int
    stills: int
    seed: int = 0
    split: str = "train"

    def __post_init__(self) -> None:
        self.concepts = load_concepts(self.folder)
        self.names, self.clip_LTCHW = load_clips(self.folder, self.split)
        self.tokenizer = sn.Tokenizer.from_file(WEIGHTS / "nano" / "tokenizer.json")
        self.packer = sn.Packer(places={}, row=40, embed=EMBED, say=SAY, end=END, axes=True)
        self.pictures = load_pictures(self.folder, "train") if self.stills else None
        self.places = [i for i, style in enumerate(self.pictures.style) if style == STYLE] if self.stills else []

    def request(self, concept: str, rng: np.random.Generator) -> list[int]:
        """Token ids of a text that asks for it."""
        language = int(rng.random() < 0.4)
        return self.tokenizer.encode(REQUESTS[int(rng.integers(len(REQUESTS)))][language].format(self.concepts[concept].names[language]))

    def batch(self, step: int) -> sn.Batch:
        """Batch of a step: a function of the seed and the step alone."""
        rng, segments = np.random.default_rng((self.seed, 7, step)), []
        for number in in_epochs(self.seed, len(self.names), step * self.clips, self.clips):
            length = self.clip_LTCHW.shape[1]
            first = int(rng.integers(length // FRAMES)) if self.split == "train" else length // FRAMES // 2
            clip = self.clip_LTCHW[number, first :: length // FRAMES][:FRAMES].float() / 127.5 - 1
            segments.append(self._segment(self.names[number], clip.transpose(0, 1), rng))
        for index in rng.choice(self.places, self.stills, replace=False) if self.stills else ():
            picture = on_paper(self.pictures.image_LCHW[[int(index)]])[0]
            segments.append(self._segment(self.pictures.concept[int(index)], moved(picture, rng), rng))
        return self.packer.pack(segments)

    def _segment(self, concept: str, video_CFHW: torch.Tensor, rng: np.random.Generator) -> sn.Segment:
        return self.packer.segment([sn.Arrays("text", self.request(concept, rng)), sn.Arrays("video", video_CFHW, target=True)])


def run(data: str = "corpus", steps: int = 2000, clips: int = 8, stills: int = 6, rate: float = 2e-3, further: bool = False) -> Run:
    """The run behind the shipped motion; ``further`` goes on from what is packaged of it."""
    train = VideoData(Path(data), clips, stills)
    held = VideoData(Path(data), 16, 0, seed=1, split="test")
    model = moving(nano(VOCAB), frames=FRAMES)
    return recipe_over("nano-video", model, PARTS, codecs_that_move(), rate, further, batch=train.batch, steps=steps, clip=1.0,
                       validation=(held.batch(0),), validate_every=250, save_every=100)


def codecs_that_move() -> sn.Codecs:
    """nano's codecs, and that of videos."""
    still = codecs()
    return replace(still, video=FrameStack(still.image, frames=FRAMES))


if __name__ == "__main__":
    add_parts("video", Path(sys.argv[1]), Path(sys.argv[2]), PARTS, moving, "video: moving pictures of things, eight frames; read without training")
