"""Studio: what a model draws that does nothing else: words to the ids of each of its towers, and the latents that come of them to pixels.

    prompt -> tokenizer of each tower -> Batch -> denoise -> latents -> the autoencoder's second half -> pixels
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sensorium.codecs.text import Tokenizer
from sensorium.desk import Codecs
from sensorium.model import ModelNet
from sensorium.types import Batch, ConfigError, Written

__all__ = ["pixels_of", "prompted"]


def prompted(model: ModelNet, codecs: Codecs, texts: Sequence[str], want: str) -> Batch:
    """A batch with these prompts for all towers, and room for what is drawn of each.

    Args:
        texts: one a medium; what is longer than a tower reads is cut.
        want: "image" or "video".

    Raises:
        ConfigError: no tokenizer for one of the towers.
    """
    media = {}
    for tower, empty in model.spec.fuse["prompt"].empty.items():
        if tower not in codecs.towers:
            raise ConfigError(f"no tokenizer for what the tower {tower!r} reads; give codecs=Codecs(towers={{{tower!r}: ...}})")
        media[tower] = torch.tensor([_row(codecs.towers[tower], text, empty) for text in texts])
    head, rows = model.spec.heads[want], torch.arange(len(texts))
    sides = (head.size, head.size) if want == "image" else (head.frames, head.height, head.wide)
    none = torch.full_like(rows, -1)
    return Batch(media=media, written={want: Written(torch.zeros(len(texts), head.channels, *sides), rows, none, rows * 0, none, none)},
                 samples=len(texts))


def _row(tokenizer: Tokenizer, text: str, empty: tuple[int, ...]) -> list[int]:
    """Ids of a prompt between the tower's own marks, filled up as the empty prompt is."""
    first, last = ([tokenizer.special(name)] if name else [] for name in tokenizer.around)
    row = first + tokenizer.encode(text)[: len(empty) - len(first) - len(last)] + last
    return row + list(empty[len(row) :])


@torch.inference_mode()
def pixels_of(model: ModelNet, made: torch.Tensor) -> torch.Tensor:
    """What was drawn, -1..1; latents go through the autoencoder's second half."""
    return model.heads["pixels"](made.to(model.dtype)).float() if "pixels" in model.heads else made
