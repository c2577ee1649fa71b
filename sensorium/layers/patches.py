"""Pictures to patches and back.

Letters: B batch, C channels, H W pixels, P patches, D width.
"""

from __future__ import annotations

import torch

from sensorium.types import ShapeError

__all__ = ["patchify", "unpatchify"]


def patchify(image_BCHW: torch.Tensor, patch: int) -> torch.Tensor:
    """(B, C, H, W) -> (B, P, patch * patch * C), patches row by row, each row by row, channels last (DiT's order)."""
    batch, channels, height, width = image_BCHW.shape
    if height % patch or width % patch:
        raise ShapeError(f"a picture of {height} x {width} does not divide into patches of {patch}; resize it")
    x = image_BCHW.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch * patch * channels)


def unpatchify(patch_BPD: torch.Tensor, patch: int, rows: int, columns: int) -> torch.Tensor:
    """The inverse of :func:`patchify`."""
    batch = patch_BPD.shape[0]
    x = patch_BPD.reshape(batch, rows, columns, patch, patch, -1)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, rows * patch, columns * patch)
