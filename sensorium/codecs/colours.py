"""Colours: pixels as a file means them, by an ICC profile or by code numbers, to sRGB in 8 bits.

    ICC profile in the file                          -> littlecms -> sRGB
    code numbers (ITU-T H.273) or PNG's gAMA, cHRM   -> an ICC profile made here -> the same way
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
from PIL import Image as Pillow
from PIL import ImageCms

__all__ = ["coded_profile", "D65", "made_profile", "SRGB_PRIMARIES", "to_srgb"]

Points = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
D65 = (0.3127, 0.3290)
D50_XYZ = np.array([0.9642, 1.0, 0.8249])
SRGB_PRIMARIES: Points = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
PRIMARIES: dict[int, tuple[Points, tuple[float, float]]] = {
    9: (((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)), D65),  # BT.2020
    11: (((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), (0.314, 0.351)),  # the cinema's P3
    12: (((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), D65),  # Display P3
}
PAPER_NITS = 203.0  # of white in a picture of high dynamic range; ITU-R BT.2408, table 1
STEPS = 4096  # of a curve in a profile
ALIKE = 2  # of 255: profiles that change no colour by more are taken as sRGB, so that rounding changes nothing
BAD_PROFILE = (ImageCms.PyCMSError, OSError, ValueError, TypeError)


def _srgb(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def _pq(x: np.ndarray) -> np.ndarray:
    """Light beside paper white; brighter is paper white. Source: SMPTE ST 2084, equation 4.1."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    root = x ** (1 / m2)
    return np.minimum((np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1) * 10_000 / PAPER_NITS, 1)


def _hlg(x: np.ndarray) -> np.ndarray:
    """The same on a screen of 1,000 nits. Source: ITU-R BT.2100, table 5."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(x <= 0.5, x * x / 3, (np.exp((x - c) / a) + b) / 12)
    return np.minimum(scene**1.2 * 1_000 / PAPER_NITS, 1)


# By H.273's transfer characteristics. Those of standard video (1, 6, 14, 15) are shown as sRGB, as browsers do.
CURVES: dict[int, Callable[[np.ndarray], np.ndarray]] = {4: lambda x: x**2.2, 5: lambda x: x**2.8, 8: lambda x: x, 16: _pq, 18: _hlg}


def coded_profile(primaries: int, transfer: int) -> bytes | None:
    """The profile of code numbers as in AVIF, HEIC and PNG's cICP; None for what is sRGB or not said."""
    if primaries not in PRIMARIES and transfer not in CURVES:
        return None
    points, white = PRIMARIES.get(primaries, (SRGB_PRIMARIES, D65))
    return made_profile(points, white, CURVES.get(transfer, _srgb))


def made_profile(points: Points, white: tuple[float, float] = D65, curve: Callable[[np.ndarray], np.ndarray] | None = None) -> bytes | None:
    """An ICC profile; None if no colours can have these coordinates.

    Args:
        points, white: x, y of red, green and blue, and of white.
        curve: from a stored value to light, both 0..1; None is sRGB's.

    Source: ICC.1:2001-04 (version 2), sections 6.1 and 6.5; Bradford adaptation as in ICC.1:2010, annex E.
    """
    if min(white[1], *(y for _, y in points)) <= 0:
        return None
    toward = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in points]).T
    light = np.array([white[0] / white[1], 1.0, (1 - white[0] - white[1]) / white[1]])
    if abs(np.linalg.det(toward)) < 1e-6:
        return None
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    adapt = np.linalg.inv(bradford) @ np.diag((bradford @ D50_XYZ) / (bradford @ light)) @ bradford
    colours = adapt @ toward * np.linalg.solve(toward, light)
    if np.abs(colours).max() > 4:
        return None

    def fixed(values: np.ndarray) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(value) * 65536) for value in values))

    light_S = np.clip((curve or _srgb)(np.linspace(0, 1, STEPS)), 0, 1)
    curved = b"curv\0\0\0\0" + struct.pack(f">I{STEPS}H", STEPS, *np.rint(light_S * 65535).astype(int))
    name = b"made\0"
    tags = [(b"desc", b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + b"\0" * 78), (b"cprt", b"text\0\0\0\0none\0"),
            (b"wtpt", fixed(D50_XYZ)), *((mark + b"XYZ", fixed(colours[:, i])) for i, mark in enumerate((b"r", b"g", b"b"))),
            *((mark + b"TRC", curved) for mark in (b"r", b"g", b"b"))]
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for mark, content in tags:
        table += mark + struct.pack(">II", start + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"", 0x02400000, b"mntr", b"RGB ", b"XYZ ") + struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    return (head + b"acsp" + b"\0" * 28 + fixed(D50_XYZ)[8:]).ljust(128, b"\0") + table + body


def to_srgb(picture: Pillow.Image, profile: bytes | None) -> Pillow.Image:
    """A picture without transparency (L, RGB, CMYK, LAB, ...) -> RGB as a viewer shows it.

    A profile that is broken, or of another kind of colours than the picture's, is left aside.
    """
    plain = {"1": "L", "YCbCr": "RGB", "RGBX": "RGB", "P": "RGB", "HSV": "RGB"}.get(picture.mode)
    picture = picture.convert(plain) if plain else picture
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else None
        space = given.profile.xcolor_space.strip() if given else ""
        if space == "RGB" and picture.mode == "L":
            picture = picture.convert("RGB")
        if {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space) == picture.mode:
            return _converted(picture, given)
    except BAD_PROFILE:
        pass
    return picture.convert("RGB")


def _converted(picture: Pillow.Image, given: ImageCms.ImageCmsProfile) -> Pillow.Image:
    """By the profile's own rendering intent; an RGB or grey profile that is sRGB for all one can see changes nothing."""
    intent = ImageCms.getDefaultIntent(given)
    transform = ImageCms.buildTransform(given, ImageCms.createProfile("sRGB"), picture.mode, "RGB", ImageCms.Intent(intent))
    if picture.mode != "CMYK":
        steps = np.linspace(0, 255, 256 if picture.mode == "L" else 8).astype(np.uint8)
        probe = Pillow.fromarray(steps[None] if picture.mode == "L" else np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3))
        changed = np.asarray(ImageCms.applyTransform(probe, transform), np.int16) - np.asarray(probe.convert("RGB"), np.int16)
        if np.abs(changed).max() <= ALIKE:
            return picture.convert("RGB")
    return ImageCms.applyTransform(picture, transform)
