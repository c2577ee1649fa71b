"""Pictures: files of today's cameras, pages and programs, to what a viewer shows of them: upright, in sRGB, 8 bits, with what shines through.

    bytes -> size and format by the head alone -> decoded (Pillow; pi-heif; pylibjxl) -> upright -> 8 bits -> sRGB

A viewer's habits are kept: the first frame of an animation, the largest picture of an icon, the first whole page of a TIFF, the base picture
under a gain map; pixels count as square, and a background that a PNG wishes for is not drawn.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps, TiffImagePlugin

from sensorium.codecs.colours import to_srgb
from sensorium.codecs.containers import avif_profile, inner_sizes, is_heic, is_jxl, is_tga, jp2_profile, png_profile, tidy_png, unread
from sensorium.codecs.depths import eight_bits
from sensorium.files import open_file
from sensorium.types import ConfigError, MediaError

__all__ = [
    "FORMATS", "jxl_bytes", "MAX_BYTES", "MAX_PIXELS", "MAX_SIDE", "on_paper", "open_picture", "profile_of", "read_bytes", "read_head",
    "rgb",
]

# As Pillow names them; HEIC, JPEG XL and Targa (which has no mark) are told apart here.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO", "CUR", "ICNS", "QOI", "DDS")
WANTED = ", ".join((*FORMATS, "TGA", "HEIC", "JPEG XL"))
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 64 * 10**6
MAX_SIDE = 32_768
BROKEN = (OSError, ValueError, SyntaxError, EOFError, struct.error, KeyError, IndexError, TypeError, OverflowError, MemoryError,
          ZeroDivisionError, AttributeError, RuntimeError, AssertionError)
BOMBS = (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning)
BITS, REDUCED, PLANES, SUB_IFDS, FORMAT, DNG = 258, 254, 284, 330, 339, 50706  # TIFF's tags
ORIENTATION = 0x0112


def open_picture(source: str | Path | bytes, max_pixels: int = MAX_PIXELS) -> Pillow.Image:
    """Decode a picture as a viewer shows it.

    Args:
        source: path or encoded bytes.
        max_pixels: larger pictures are refused by their head, before they are decoded.

    Returns:
        Upright, in sRGB: "RGB", or "RGBA" where the file holds transparency.

    Raises:
        MediaError: missing, empty, broken, of an unknown kind, or too large.
        ConfigError: the library that decodes such files is not installed.
    """
    name, data = read_bytes(source)
    picture = read_head(name, data, max_pixels)
    size = f"{picture.width} x {picture.height}"
    try:
        with _strict():
            if picture.info.get("default_image"):  # of an animated PNG: a picture for programs that show no animations
                picture.seek(1)
            seen = picture.tile[0].extents if picture.format == "GIF" and picture.tile else None
            picture.load()
            _check_size(name, picture.size, max_pixels)  # of icons, the file inside has a size of its own
            upright = picture if picture.format == "TIFF" else _upright(picture)  # Pillow turns TIFF by itself
            made = rgb(upright, profile_of(picture, data))
            return _framed(made, seen) if seen not in (None, (0, 0, *made.size)) else made
    except MediaError:
        raise
    except (*BROKEN, *BOMBS) as error:
        raise MediaError(f"{name} is broken or cut short: it says {size} pixels but they cannot all be read") from error


def _framed(picture: Pillow.Image, seen: tuple[int, int, int, int]) -> Pillow.Image:
    """A GIF's first frame where it stands, and nothing around it; Pillow 13.0.0 draws the background colour there, as no viewer does."""
    made = Pillow.new("RGBA", picture.size, (0, 0, 0, 0))
    made.paste(picture.crop(seen), seen[:2])
    return made


@contextmanager
def _strict() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Pillow.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning)
        yield


def read_bytes(source: str | Path | bytes) -> tuple[str, bytes]:
    """A name for errors, and the encoded bytes.

    Raises:
        MediaError: missing, empty, or more than ``MAX_BYTES``.
    """
    if isinstance(source, bytes):
        name, data = "the picture", source
        if len(data) > MAX_BYTES:
            raise MediaError(f"{name} has {len(data) / 2**20:.0f} MB, wanted at most {MAX_BYTES // 2**20}")
    else:
        name = str(source)[:200]
        with open_file(source, "a picture file") as file:
            size = file.seek(0, 2)
            if size > MAX_BYTES:
                raise MediaError(f"{name} has {size / 2**20:.0f} MB, wanted at most {MAX_BYTES // 2**20}; make it smaller")
            file.seek(0)
            data = file.read()
    if not data:
        raise MediaError(f"{name} is empty; wanted a picture")
    return name, data


def read_head(name: str, data: bytes, max_pixels: int = MAX_PIXELS, notes: bool = False) -> Pillow.Image:
    """A picture whose size is known and allowed, its pixels not decoded yet (JPEG XL's are).

    Args:
        notes: keep what is written in a PNG.

    Raises:
        MediaError, ConfigError: as :func:`open_picture`.
    """
    for size in inner_sizes(data):  # Pillow decodes an icon as it opens it
        _check_size(name, size, max_pixels)
    if is_jxl(data):
        return _jxl(name, data, max_pixels)
    try:
        with _strict():
            kinds = ("TGA",) if is_tga(data) else FORMATS
            picture = _heic(data) if is_heic(data) else Pillow.open(io.BytesIO(tidy_png(data, notes)), formats=kinds)
            if isinstance(picture, TiffImagePlugin.TiffImageFile):
                _whole_page(name, picture)
    except BOMBS as error:
        raise MediaError(f"{name} has far more pixels than the {max_pixels / 1e6:.0f} million that are read; make it smaller") from error
    except (ConfigError, MediaError):
        raise
    except BROKEN as error:
        raise MediaError(f"{name} {unread(data) or _samples(data) or f'is not a picture that can be read; wanted {WANTED}'}") from error
    _check_size(name, picture.size, max_pixels)
    if picture.format == "PNG":
        _scale_key(picture, data[24])
    return picture


def _check_size(name: str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        raise MediaError(f"{name} is {width} x {height} pixels, wanted at most {max_pixels / 1e6:.0f} million and {MAX_SIDE} a side; "
                         "make it smaller")


def _samples(data: bytes) -> str:
    """Of a TIFF that Pillow does not read, what its samples are; "" for other files, and broken ones."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return ""
    try:
        with _strict():
            tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
            file = io.BytesIO(data)
            file.seek(tags.next)
            tags.load(file)
            bits, kind = tags[BITS], {1: "whole", 2: "signed", 3: "floating-point"}.get(tags.get(FORMAT, (1,))[0], "other")
    except BROKEN:
        return ""
    return f"is a TIFF of {len(bits)} {kind} samples of {max(bits)} bits a pixel, which are not read; save it with 8 or 16 bits"


def _heic(data: bytes) -> Pillow.Image:
    try:
        import pi_heif
    except ImportError as error:
        raise ConfigError("HEIC takes pi-heif, which is not installed; run: pip install pi-heif") from error
    return pi_heif.HeifImageFile(io.BytesIO(data))


def _pylibjxl() -> Any:
    try:
        import pylibjxl
    except ImportError as error:
        raise ConfigError("JPEG XL takes pylibjxl, which is not installed; run: pip install 'sensorium[pictures]'") from error
    return pylibjxl


def jxl_bytes(pixels_HWC: np.ndarray, exif: bytes) -> bytes:
    """8-bit RGB as JPEG XL that looks the same (a distance of 1), with an EXIF note or b""."""
    return _pylibjxl().encode(pixels_HWC, distance=1.0, exif=exif.removeprefix(b"Exif\0\0") or None)


def _jxl(name: str, data: bytes, max_pixels: int) -> Pillow.Image:
    pylibjxl = _pylibjxl()
    try:
        head = pylibjxl.probe(data)
    except BROKEN as error:
        raise MediaError(f"{name} is a broken JPEG XL picture; get a whole copy") from error
    _check_size(name, (head["width"], head["height"]), max_pixels)
    if head["have_animation"]:  # pylibjxl 0.5.0 gives the last frame, and no other
        raise MediaError(f"{name} is a moving JPEG XL picture, of which no frame is read; save it as WebP, AVIF or PNG")
    try:
        array, notes = pylibjxl.decode(data, metadata=True)
    except BROKEN as error:
        raise MediaError(f"{name} is broken or cut short: it says {head['width']} x {head['height']} pixels but they cannot all be read") from error
    picture = Pillow.fromarray(array)
    picture.info["icc_profile"] = notes.get("icc")
    try:
        exif = Pillow.Exif()
        exif.load(notes.get("exif"))
        exif.pop(ORIENTATION, None)  # the pixels come upright, whatever the note says
        picture.info["exif"] = exif.tobytes()
    except BROKEN:  # notes that are broken do not hide the picture
        pass
    return picture


def _whole_page(name: str, picture: TiffImagePlugin.TiffImageFile) -> None:
    """Turn to the first page of a TIFF that is not the small copy of another, as a viewer does."""
    if picture.tag_v2.get(PLANES) == 2 and max(picture.tag_v2.get(BITS, (1,))) > 8:  # Pillow 13.0.0 reads them as if they stood pixel by pixel
        raise MediaError(f"{name} has samples of {max(picture.tag_v2[BITS])} bits in planes, which are not read; save it with 8, or pixel by pixel")
    if DNG in picture.tag_v2:
        raise MediaError(f"{name} is a camera's raw file (DNG); develop it first and give the JPEG, HEIC or TIFF")
    page = 0
    while picture.tag_v2.get(REDUCED, 0) & 1:
        try:
            page += 1
            picture.seek(page)
        except EOFError:
            if SUB_IFDS in picture.tag_v2:
                raise MediaError(f"{name} is a camera's raw file with a small picture before it; develop it first and give the JPEG, HEIC or "
                                 "TIFF") from None
            picture.seek(0)
            break


def _scale_key(picture: Pillow.Image, bits: int) -> None:
    """The one transparent value of a PNG in 8 bits, as its pixels are; Pillow 13.0.0 leaves it in the file's own bits."""
    key = picture.info.get("transparency")
    if picture.mode == "L" and isinstance(key, int) and bits < 8:
        picture.info["transparency"] = (key & (2**bits - 1)) * 255 // (2**bits - 1)
    elif picture.mode == "RGB" and isinstance(key, tuple) and bits == 16:
        picture.info["transparency"] = tuple(value >> 8 for value in key)


def profile_of(picture: Pillow.Image, data: bytes) -> bytes | None:
    """The ICC profile that a file holds, or the one that its code numbers stand for; None is sRGB."""
    held = picture.info.get("icc_profile")
    if picture.format == "PNG":
        made, first = png_profile(data)
        return made if first or not held else held
    if held:
        return held
    made = {"AVIF": avif_profile, "HEIF": avif_profile, "JPEG2000": jp2_profile}.get(picture.format)
    return made(data) if made else None


def rgb(picture: Pillow.Image, profile: bytes | None = None) -> Pillow.Image:
    """A decoded picture of any of Pillow's modes, as it lies -> in sRGB: "RGB", or "RGBA" where the file holds transparency.

    Args:
        profile: ICC, of the picture's colours; None is sRGB.
    """
    key = picture.info.get("transparency")
    picture = eight_bits(picture, key if isinstance(key, int) else None)
    if picture.mode not in ("LA", "La", "PA", "RGBA", "RGBa") and "transparency" not in picture.info:
        return to_srgb(picture, profile)
    whole = (picture.convert("LA") if picture.mode == "La" else picture).convert("RGBA")
    made = to_srgb(whole.getchannel("R") if picture.mode in ("1", "L", "LA", "La") else whole.convert("RGB"), profile)
    made.putalpha(whole.getchannel("A"))
    return made


def _upright(picture: Pillow.Image) -> Pillow.Image:
    if picture.format == "AVIF":
        picture.info.pop("xmp", None)  # its boxes say all, and Pillow would ask the note
    try:
        return ImageOps.exif_transpose(picture)
    except BROKEN:  # notes that are broken do not hide the picture
        return picture


def on_paper(picture: Pillow.Image, background: Sequence[int]) -> Pillow.Image:
    """"RGB" or "RGBA" -> "RGB": what shines through shows the paper, 0..255."""
    if picture.mode == "RGB":
        return picture
    paper = Pillow.new("RGBA", picture.size, (*background, 255))
    return Pillow.alpha_composite(paper, picture).convert("RGB")
