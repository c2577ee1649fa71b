"""nano: natively any-to-any; text, pictures, sound and video in and out, one shared space. Each sense is a few parts more around the same core.

    hearing     sound -> spectra -> ears -> resample -> splice
    moving      video -> the eyes, frame by frame -> splice;     writing expert, frames looking at each other -> video
    speaking    phonemes -> voice -> spectra -> sound
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

import sensorium as sn
from sensorium.types import Batch
from sensorium.zoo.nano import colour, nano, toy_nano
from sensorium.zoo.registry import Entry, register

__all__ = ["hearing", "moving", "speaking", "toy_whole_nano", "whole_nano"]


def hearing(model: sn.Model, frames: int = 256, width: int = 192, depth: int = 5, heads: int = 3) -> sn.Model:
    """The model with ears: spoken names take as many places among its tokens as a picture does, and stand in the shared space.

    Args:
        model: of :func:`nano`.
        frames: longest sound, in hundredths of a second.
        width, depth, heads: of the ears.
    """
    read = model.decoder.read.width
    ears = sn.AudioEncoder(frames=frames, width=width, depth=depth, heads=heads, strides=(2, 2))
    return replace(
        model,
        encoders={**model.encoders, "audio": ears},
        align={**model.align, "audio": sn.Resample(width, read, queries=4, depth=2, heads=heads, head_width=width // heads)},
        fuse={**model.fuse, "splice": sn.Splice((*model.fuse["splice"].modalities, "audio"))},
        objectives=(*model.objectives, sn.Contrastive("audio", "text", temperature=0.07)))


def moving(model: sn.Model, frames: int = 8, inside: int = 160, heads: int = 4) -> sn.Model:
    """The model with videos: read as frames through its eyes, written as pictures that move together.

    Args:
        model: of :func:`nano`.
        frames: of a video.
        inside, heads: of the looks between frames.
    """
    write, image = model.decoder.write, model.heads["image"]
    splice = sn.Splice((*model.fuse["splice"].modalities, "video"))
    motion = sn.Motion(width=write.width, layers=write.depth, frames=frames, inside=inside, heads=heads)
    return replace(
        model,
        fuse={**model.fuse, "splice": splice, "motion": motion},
        heads={**model.heads, "video": sn.FrameFlow(frames=frames, size=image.size)},
        objectives=(*model.objectives, sn.FlowMatching("video", mean=-0.4, std=0.9)),
        through={**model.through, "video": "image"})


def speaking(model: sn.Model, inside: int = 160) -> sn.Model:
    """The model with a voice of its own, which reads phonemes aloud.

    Args:
        model: of :func:`nano`.
        inside: width of the voice.
    """
    return replace(model, heads={**model.heads, "audio": sn.Voice(inside)}, objectives=(*model.objectives, sn.Speaking()))


def whole_nano(vocab: int = 4096) -> sn.Model:
    """The shipped model."""
    return speaking(moving(hearing(nano(vocab))))


FRAMES, SOUND = 2, 32


def toy_whole_nano(vocab: int = 300) -> sn.Model:
    """The same sentence at toy size."""
    heard = hearing(toy_nano(vocab), frames=SOUND, width=24, depth=1, heads=2)
    return speaking(moving(heard, frames=FRAMES, inside=16, heads=2), inside=16)


def sounding_colours(samples: Sequence[int], alone: bool = False) -> Batch:
    """A toy batch of colours that are seen, drawn, heard, set moving and said, each with its name."""
    packer = sn.Packer(places={"image": 4, "audio": 4}, row=32, embed=1, say=2, end=3, axes=True)
    seen, drawn, heard, moved, sounds, said = [], [], [], [], [], []
    for number in samples:
        picture, name = colour(number)
        sounds.append(torch.randn(80, SOUND, generator=torch.Generator().manual_seed(number)))
        said.append([0, *name, 0])
        seen.append([sn.Arrays("image", picture), sn.Arrays("text", [5, 6]), sn.Arrays("text", name, target=True)])
        drawn.append([sn.Arrays("text", name), sn.Arrays("image", picture, target=True)])
        heard.append([sn.Arrays("audio", sounds[-1]), sn.Arrays("text", [5, 6])])
        moved.append([sn.Arrays("text", name), sn.Arrays("video", picture[:, None].repeat(1, FRAMES, 1, 1), target=True)])
    count = len(seen)
    pairs = {name: list(range(at * count, (at + 1) * count)) for at, name in enumerate(("image", "text", "audio"))}
    batch = packer.pack([packer.segment(parts) for parts in (*seen, *drawn, *heard, *moved)], pairs, list(samples), alone=alone)
    return replace(batch, media={**batch.media, "speech": torch.stack(sounds)}, said={"speech": torch.tensor(said)})


register(Entry(name="nano", full=whole_nano, toy=toy_whole_nano, batch=sounding_colours, parameters=24_712_654,
               source="trained by recipes/nano.py on the pictures of docs/data.md; Apache-2.0"))
