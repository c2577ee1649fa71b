"""Vision codec: picture files to arrays and back, safely.

    file -> size and format checked before anything is decoded -> upright RGB on paper -> square -> normalised array
    array -> picture -> file, whole or not at all, with a note of what made it

Letters: C channels, H W pixels, B batch.
"""

from __future__ import annotations

import io
import json
import struct
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageChops, ImageOps, ImageSequence, PngImagePlugin

from sensorium.files import hint, read_note, write_file
from sensorium.spec import Spec
from sensorium.types import Image, MediaError

__all__ = ["load_image", "note_options", "read_animation", "read_info", "save_image", "VisionCodec"]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 64 * 10**6
MAX_SIDE = 32_768
BROKEN = (OSError, ValueError, SyntaxError, EOFError, struct.error, KeyError, IndexError, TypeError, OverflowError, MemoryError,
          ZeroDivisionError, AttributeError)
BOMBS = (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning)
NOTE = "sensorium"


def load_image(source: Image | str | Path | bytes | torch.Tensor, background: Sequence[int] = (255, 255, 255),
               max_pixels: int = MAX_PIXELS) -> torch.Tensor:
    """Decode a picture.

    The first frame of an animation; turned upright by its EXIF note; transparency on ``background``; 16-bit values scaled.

    Args:
        source: path, encoded bytes, an Image of either, or a decoded float CHW tensor.
        background: paper behind transparent pixels, 0..255.
        max_pixels: larger pictures are refused by their header, before they are decoded.

    Returns:
        float32 RGB (3, H, W) in 0..1.

    Raises:
        MediaError: missing, empty, broken, of an unknown kind, or too large.
    """
    source = source.source if isinstance(source, Image) else source
    if isinstance(source, torch.Tensor):
        return _checked(source)
    array = np.asarray(_open(source, tuple(background), max_pixels), dtype=np.float32) / 255
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def _checked(x_CHW: torch.Tensor) -> torch.Tensor:
    if x_CHW.dim() != 3 or x_CHW.shape[0] != 3 or min(x_CHW.shape) < 1 or not x_CHW.is_floating_point():
        raise MediaError(f"a decoded picture has shape {tuple(x_CHW.shape)} and type {x_CHW.dtype}, wanted float (3, H, W) in 0..1")
    if not torch.isfinite(x_CHW).all():
        raise MediaError("a decoded picture holds values that are not numbers; wanted 0..1")
    return x_CHW.float().clamp(0, 1)


def _open(source: str | Path | bytes, background: tuple[int, ...], max_pixels: int) -> Pillow.Image:
    """An upright RGB picture."""
    name, data = _bytes(source)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Pillow.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning)
        try:
            picture = Pillow.open(io.BytesIO(data), formats=FORMATS)
            width, height = picture.size
        except BOMBS as error:
            raise MediaError(f"{name} has far more pixels than the {max_pixels / 1e6:.0f} million that are read; make it smaller") from error
        except BROKEN as error:
            raise MediaError(f"{name} is not a picture that can be read; wanted {', '.join(FORMATS)}") from error
        if width * height > max_pixels or max(width, height) > MAX_SIDE:
            raise MediaError(f"{name} is {width} x {height} pixels, wanted at most {max_pixels / 1e6:.0f} million and {MAX_SIDE} a side; "
                             "make it smaller")
        try:
            picture.load()
            picture = ImageOps.exif_transpose(picture)
            return _rgb(picture, background)
        except (*BROKEN, *BOMBS) as error:
            raise MediaError(f"{name} is broken or cut short: it says {width} x {height} pixels but they cannot all be read") from error


def _bytes(source: str | Path | bytes) -> tuple[str, bytes]:
    """A name for errors, and the encoded bytes."""
    if isinstance(source, bytes):
        name, data = "the picture", source
        if len(data) > MAX_BYTES:
            raise MediaError(f"{name} has {len(data) / 2**20:.0f} MB, wanted at most {MAX_BYTES // 2**20}")
    else:
        path = Path(source)
        name = str(path)
        try:
            if not path.is_file():
                what = "a folder" if path.is_dir() else "missing"
                raise MediaError(f"{name} is {what}; wanted a picture file{hint(path)}")
            if path.stat().st_size > MAX_BYTES:
                raise MediaError(f"{name} has {path.stat().st_size / 2**20:.0f} MB, wanted at most {MAX_BYTES // 2**20}; make it smaller")
            data = path.read_bytes()
        except OSError as error:
            raise MediaError(f"{name[:200]} cannot be read ({error.strerror}); wanted a picture file") from error
    if not data:
        raise MediaError(f"{name} is empty; wanted a picture")
    return name, data


def _rgb(picture: Pillow.Image, background: tuple[int, ...]) -> Pillow.Image:
    """8-bit RGB on paper, from any mode Pillow decodes to."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        values = np.asarray(picture, dtype=np.float64)
        scale = 1 / 257 if picture.mode != "F" or values.max() > 255 else 1.0
        picture = Pillow.fromarray(np.clip(np.rint(values * scale), 0, 255).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        paper = Pillow.new("RGBA", picture.size, (*background, 255))
        return Pillow.alpha_composite(paper, picture).convert("RGB")
    return picture.convert("RGB")


def read_animation(source: str | Path | bytes) -> tuple[Iterator[Pillow.Image], int, float]:
    """Frames of an animated picture (WebP, PNG, GIF) on white paper one by one, how many there are, and how many a second; a still is one frame.

    Raises:
        MediaError: as :func:`load_image`.
    """
    name, data = _bytes(source)
    _open(data, (255, 255, 255), MAX_PIXELS // 4)  # the first frame, with all that is checked of a picture
    try:
        picture = Pillow.open(io.BytesIO(data), formats=FORMATS)
        lasts = [float(frame.info.get("duration", 0)) for frame in ImageSequence.Iterator(picture)]
    except (*BROKEN, *BOMBS) as error:
        raise MediaError(f"{name} is broken or cut short; get a whole copy") from error

    def frames() -> Iterator[Pillow.Image]:
        for number in range(len(lasts)):
            try:
                picture.seek(number)
                yield _rgb(picture, (255, 255, 255))
            except BROKEN as error:
                raise MediaError(f"{name} is broken or cut short at frame {number}; get a whole copy") from error

    return frames(), len(lasts), 1000 * len(lasts) / sum(lasts) if sum(lasts) > 0 else 10.0


def save_image(image: Image, path: str | Path) -> Path:
    """Write a picture, all or nothing; the format goes by the ending, and ``image.info`` is written with it.

    Raises:
        MediaError: an unknown ending, or a folder that cannot be written.
    """
    path = Path(path)
    kinds = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP", ".gif": "GIF", ".tif": "TIFF", ".tiff": "TIFF"}
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise MediaError(f"{path} ends in {path.suffix!r}, wanted one of {', '.join(sorted(kinds))}")
    pixels = (load_image(image) * 255).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, kind, **note_options(kind, image.info), **({"quality": 95} if kind in ("JPEG", "WEBP") else {}))
    return write_file(path, buffer.getvalue())


def note_options(kind: str, info: dict[str, Any]) -> dict[str, Any]:
    """What Pillow is told so that a picture of a kind ("PNG", "WEBP", ...) holds what made it; {} for kinds that cannot."""
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt(NOTE, json.dumps(info, ensure_ascii=False))
        return {"pnginfo": text}
    note = f"{NOTE} {json.dumps(info)}"
    if kind in ("JPEG", "WEBP") and info:
        exif = Pillow.Exif()
        exif[0x010E] = note
        return {"exif": exif.tobytes()}
    return {"comment": note.encode()} if kind == "GIF" and info else {}


def read_info(path: str | Path) -> dict[str, Any]:
    """What made a picture, as :func:`save_image` wrote it; {} if it says nothing."""
    name, data = _bytes(path)
    try:
        with Pillow.open(io.BytesIO(data), formats=FORMATS) as picture:
            note = str(picture.info.get(NOTE) or picture.getexif().get(0x010E, "") or picture.info.get("comment", b"").decode(errors="replace"))
    except (*BROKEN, *BOMBS) as error:
        raise MediaError(f"{name} is not a picture that can be read; wanted {', '.join(FORMATS)}") from error
    return read_note(note.removeprefix(f"{NOTE} "))


RESAMPLE = {"bicubic": Pillow.Resampling.BICUBIC, "bilinear": Pillow.Resampling.BILINEAR, "lanczos": Pillow.Resampling.LANCZOS,
            "box": Pillow.Resampling.BOX}


@dataclass(frozen=True, repr=False)
class VisionCodec(Spec):
    """Pictures to square normalised arrays and back.

    Args:
        size: pixels on a side.
        fit: "contain" pads the whole picture with paper to a square; "crop" resizes the shorter side and cuts the middle
            (CLIP); "squash" resizes both sides (SigLIP).
        resample: "bicubic", "bilinear", "lanczos" or "box".
        mean, std: of the normalisation (value - mean) / std, for values 0..1.
        background: paper, 0..255.
        trim: cut away a uniform margin first.
    """

    size: int
    fit: str = "contain"
    resample: str = "bicubic"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    background: tuple[int, ...] = (255, 255, 255)
    trim: bool = False

    def check(self) -> list[str]:
        problems = [] if self.fit in ("contain", "crop", "squash") else [f"fit {self.fit!r} is not known; use contain, crop or squash"]
        if self.resample not in RESAMPLE:
            problems.append(f"resample {self.resample!r} is not known; use one of {', '.join(RESAMPLE)}")
        return problems

    def encode(self, image: Image) -> torch.Tensor:
        """A picture -> float32 (3, size, size), normalised."""
        return self.array(self._square(self.opened(image)))

    def opened(self, image: Image) -> Pillow.Image:
        """The picture upright, in colours, on paper, and trimmed if asked for."""
        if isinstance(image.source, torch.Tensor):
            array = (_checked(image.source) * 255).round().byte().permute(1, 2, 0).numpy()
            picture = Pillow.fromarray(array)
        else:
            picture = _open(image.source, self.background, MAX_PIXELS)
        return self._trimmed(picture) if self.trim else picture

    def array(self, picture: Pillow.Image) -> torch.Tensor:
        """A picture of any size -> float32 (3, H, W), normalised."""
        array = np.asarray(picture, dtype=np.float32) / 255
        normal = (array - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return torch.from_numpy(normal).permute(2, 0, 1).contiguous()

    def encode_all(self, images: Sequence[Image]) -> torch.Tensor:
        """Pictures -> (B, 3, size, size)."""
        return torch.stack([self.encode(image) for image in images])

    def decode(self, x_CHW: torch.Tensor) -> Image:
        """A normalised array -> a picture with values clamped to 0..1."""
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.mean, self.std))
        return Image((x_CHW.detach().cpu().float() * std + mean).clamp(0, 1))

    def _trimmed(self, picture: Pillow.Image) -> Pillow.Image:
        paper = Pillow.new("RGB", picture.size, picture.getpixel((0, 0)))
        box = ImageChops.difference(picture, paper).getbbox()
        return picture.crop(box) if box else picture

    def _square(self, picture: Pillow.Image) -> Pillow.Image:
        resample, size = RESAMPLE[self.resample], self.size
        width, height = picture.size
        if self.fit == "squash":
            return picture.resize((size, size), resample)
        scale = size / (min(width, height) if self.fit == "crop" else max(width, height))
        wide, high = max(int(width * scale), 1), max(int(height * scale), 1)
        if self.fit == "crop":
            wide, high = max(wide, size), max(high, size)
        picture = picture.resize((wide, high), resample)
        left, top = (wide - size) // 2, (high - size) // 2
        if self.fit == "crop":
            return picture.crop((left, top, left + size, top + size))
        square = Pillow.new("RGB", (size, size), self.background)
        square.paste(picture, (-left, -top))
        return square
