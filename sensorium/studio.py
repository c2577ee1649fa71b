"""Studio: around denoising: words to the ids of each tower that reads a prompt, pictures that are to be changed, and latents to pixels.

    prompt  -> tokenizer of each tower -> Batch -> denoise -> latents -> the autoencoder's second half -> pixels
    picture -> the autoencoder's first half -> latents, some of the way back to noise -> denoise -> ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from sensorium.denoise import Change
from sensorium.desk import Codecs, warn_of_cuts
from sensorium.model import ModelNet
from sensorium.types import Batch, ConfigError, Image, Written

__all__ = ["Changed", "changed", "pixels_of", "prompted"]


def prompted(model: ModelNet, codecs: Codecs, texts: Sequence[str], want: str) -> Batch:
    """A batch with these prompts for all towers, and room for what is drawn of each.

    Args:
        texts: one a medium; of what is longer than a tower reads the end is left out, with a ``TruncationWarning``.
        want: "image" or "video".

    Raises:
        ConfigError: no tokenizer for one of the towers.
    """
    media, cuts = {}, []
    for tower, empty in model.spec.fuse["prompt"].empty.items():
        if tower not in codecs.towers:
            raise ConfigError(f"no tokenizer for what the tower {tower!r} reads; give codecs=Codecs(towers={{{tower!r}: ...}})")
        media[tower] = torch.tensor([_row(codecs.towers[tower], text, empty, tower, cuts) for text in texts])
    warn_of_cuts(cuts)
    head, rows = model.spec.heads[want], torch.arange(len(texts))
    sides = (head.size, head.size) if want == "image" else (head.frames, head.height, head.wide)
    none = torch.full_like(rows, -1)
    return Batch(media=media, written={want: Written(torch.zeros(len(texts), head.channels, *sides), rows, none, rows * 0, none, none)},
                 samples=len(texts))


def _row(tokenizer: Any, text: str, empty: tuple[int, ...], tower: str, cuts: list[str]) -> list[int]:
    """Ids of a prompt between the tower's own marks, filled up as the empty prompt is; ``cuts`` is told of what does not fit."""
    first, last = ([tokenizer.special(name)] if name else [] for name in tokenizer.around)
    ids, room = tokenizer.encode(text), len(empty) - len(first) - len(last)
    if len(ids) > room:
        cuts.append(f"the prompt has {len(ids)} tokens, and its tower {tower!r} reads {room}")
    row = first + ids[:room] + last
    return row + list(empty[len(row) :])


@torch.inference_mode()
def pixels_of(model: ModelNet, made: torch.Tensor) -> torch.Tensor:
    """What was drawn, -1..1; latents go through the autoencoder's second half."""
    return model.heads["pixels"](made.to(model.dtype)).float() if "pixels" in model.heads else made


@dataclass(frozen=True)
class Changed:
    """A picture that is to be changed, as what is denoised: (1, C, H, W), and how much of it."""

    clean_LCHW: torch.Tensor
    change: Change


@torch.inference_mode()
def changed(model: ModelNet, codec: Any, picture: Image, strength: float, mask: Image | None = None) -> Changed:
    """A picture made ready to be changed.

    Args:
        codec: of the model's pictures.
        strength: 0 leaves it, 1 draws it anew.
        mask: white where it may change (see ``codecs.vision.load_mask``); None is everywhere.
    """
    pixels_LCHW = codec.encode(picture)[None]
    clean = model.encoders["pixels"].latents(pixels_LCHW.to(model.dtype)).float() if "pixels" in model.encoders else pixels_LCHW
    where = None
    if mask is not None:
        white = (codec.mask(mask)[None] > 0.5).float()
        where = F.interpolate(white, size=clean.shape[2:], mode="area").gt(0.5).float()
    return Changed(clean, Change(strength, where))
