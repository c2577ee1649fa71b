"""Depths: samples of more than 8 bits, with a sign, or with a point -> 8 bits, by what the file says of their range.

    whole numbers of 16 bits  -> by their type, or by the bits that are used (12 of TIFF)
    32 bits, or a point       -> TIFF's own least and greatest value; else the first of 1, 255, 65535, ... that holds nearly all of them
"""

from __future__ import annotations

import numpy as np
from PIL import Image as Pillow
from PIL import TiffImagePlugin

__all__ = ["eight_bits"]

BITS, PHOTOMETRIC, FORMAT, LEAST, GREATEST = 258, 262, 339, 340, 341  # TIFF's tags
SIGNED = 2
NEARLY_ALL = 0.99  # a few lights may be brighter than white
SAMPLED = 10**6  # values are enough to tell


def eight_bits(picture: Pillow.Image, key: int | None = None) -> Pillow.Image:
    """A picture in one of Pillow's modes of more than 8 bits -> L, or LA with ``key``; other pictures as they are.

    Args:
        key: the stored value that is transparent.
    """
    tags = picture.tag_v2 if isinstance(picture, TiffImagePlugin.TiffImageFile) else {}
    signed = max(tags.get(FORMAT, (1,))) == SIGNED
    if picture.mode == "L" and signed:
        return Pillow.fromarray(_scaled(np.asarray(picture).view(np.int8), 0, 127))
    if picture.mode not in ("I", "F") and not picture.mode.startswith("I;16"):
        return picture
    values, bits = np.asarray(picture), tags.get(BITS, (16,))[0]
    if picture.mode == "F":
        values = values.astype(np.float64) * picture.info.get("scale", 1.0)
        low, high = _stated(tags) or (0.0, _white(values, (1.0, 255.0, 65535.0)))
    elif bits == 32:
        values = values if signed else values.view(np.uint32)
        low, high = _stated(tags) or (0.0, _white(values, (255.0, 65535.0, 2.0**31 - 1 if signed else 2.0**32 - 1)))
    else:
        low, high = 0.0, 2.0 ** (bits - signed) - 1
    grey = _scaled(values, low, high)
    if tags.get(PHOTOMETRIC) == 0:  # white is zero; Pillow turns round those of up to 8 bits alone
        grey = 255 - grey
    made = Pillow.fromarray(grey)
    if key is not None:
        made.putalpha(Pillow.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return made


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """uint8; what is not a number is black."""
    share = (values.astype(np.float64) - low) / (high - low)
    return np.rint(np.clip(np.nan_to_num(share, nan=0.0, posinf=1.0, neginf=0.0), 0, 1) * 255).astype(np.uint8)


def _stated(tags: dict) -> tuple[float, float] | None:
    """The range that a TIFF states."""
    if LEAST not in tags or GREATEST not in tags:
        return None
    low, high = (float(np.ravel(tags[tag])[0]) for tag in (LEAST, GREATEST))
    return (low, high) if np.isfinite([low, high]).all() and low < high else None


def _white(values: np.ndarray, whites: tuple[float, ...]) -> float:
    """The first of some values of white that nearly all values stay within."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return whites[0]
    some = finite[:: max(finite.size // SAMPLED, 1)]
    most = float(np.quantile(some, NEARLY_ALL, method="higher"))
    return next((white for white in whites if most <= white), most)
