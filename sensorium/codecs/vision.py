"""Vision codec: picture files to arrays and back, safely.

    file -> size and format checked before anything is decoded -> upright RGB on paper -> square -> normalised array
    array -> picture -> file, whole or not at all, with a note of what made it

Letters: C channels, H W pixels, B batch.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageChops, PngImagePlugin

from sensorium.codecs.pictures import BROKEN, MAX_PIXELS, jxl_bytes, on_paper, open_picture, read_bytes, read_head
from sensorium.files import read_note, write_file
from sensorium.spec import Spec
from sensorium.types import Image, MediaError

__all__ = ["load_image", "load_mask", "note_options", "read_info", "save_image", "VisionCodec"]

NOTE = "sensorium"


def load_image(source: Image | str | Path | bytes | torch.Tensor, background: Sequence[int] = (255, 255, 255),
               max_pixels: int = MAX_PIXELS) -> torch.Tensor:
    """Decode a picture.

    What a viewer shows (see ``codecs.pictures``), with transparency on ``background``.

    Args:
        source: path, encoded bytes, an Image of either, or a decoded float CHW tensor.
        background: paper behind transparent pixels, 0..255.
        max_pixels: larger pictures are refused by their header, before they are decoded.

    Returns:
        float32 RGB (3, H, W) in 0..1.

    Raises:
        MediaError: missing, empty, broken, of an unknown kind, or too large.
        ConfigError: the library that decodes such files is not installed.
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
    return on_paper(open_picture(source, max_pixels), background)


def load_mask(source: Image) -> torch.Tensor:
    """Decode a mask: float32 (1, H, W), 1 where something is to happen.

    What is transparent is 0; the rest counts by how light it is, unless all that can be seen is one colour: then by how opaque it is.

    Raises:
        MediaError, ConfigError: as :func:`load_image`.
    """
    if isinstance(source.source, torch.Tensor):
        return _checked(source.source).mean(dim=0, keepdim=True)
    picture = open_picture(source.source)
    light_HW = torch.from_numpy(np.asarray(picture.convert("L"), dtype=np.float32) / 255)
    if picture.mode == "RGBA":
        alpha_HW = torch.from_numpy(np.asarray(picture.getchannel("A"), dtype=np.float32) / 255)
        seen = light_HW[alpha_HW > 0]
        one = seen.numel() and alpha_HW.min() < 1 and bool(seen.min() == seen.max())
        light_HW = alpha_HW if one else light_HW * alpha_HW
    return light_HW[None]


WRITTEN = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP", ".gif": "GIF", ".tif": "TIFF", ".tiff": "TIFF",
           ".avif": "AVIF", ".jp2": "JPEG2000", ".jxl": "JXL", ".tga": "TGA"}


def save_image(image: Image, path: str | Path) -> Path:
    """Write a picture, all or nothing; the format goes by the ending, and ``image.info`` is written with it (.bmp and .tga cannot hold it).

    Raises:
        MediaError: an unknown ending, or a folder that cannot be written.
        ConfigError: the library that writes such files is not installed.
    """
    path = Path(path)
    kind = WRITTEN.get(path.suffix.lower())
    if kind is None:
        raise MediaError(f"{path} ends in {path.suffix!r}, wanted one of {', '.join(sorted(WRITTEN))}")
    pixels = (load_image(image) * 255).round().byte().permute(1, 2, 0).numpy()
    options, buffer = note_options(kind, image.info), io.BytesIO()
    if kind == "JXL":
        return write_file(path, jxl_bytes(pixels, options.get("exif", b"")))
    quality = {"JPEG": {"quality": 95}, "WEBP": {"quality": 95}, "AVIF": {"quality": 90, "subsampling": "4:4:4"}}.get(kind, {})
    Pillow.fromarray(pixels).save(buffer, kind, **options, **quality)
    return write_file(path, buffer.getvalue())


def note_options(kind: str, info: dict[str, Any]) -> dict[str, Any]:
    """What Pillow is told so that a picture of a kind ("PNG", "WEBP", ...) holds what made it; {} for kinds that cannot."""
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt(NOTE, json.dumps(info, ensure_ascii=False))
        return {"pnginfo": text}
    note = f"{NOTE} {json.dumps(info)}"
    if kind in ("JPEG", "WEBP", "AVIF", "JXL") and info:
        exif = Pillow.Exif()
        exif[0x010E] = note
        return {"exif": exif.tobytes()}
    if kind == "TIFF" and info:
        return {"description": note}
    return {"comment": note.encode()} if kind in ("GIF", "JPEG2000") and info else {}


def read_info(path: str | Path) -> dict[str, Any]:
    """What made a picture, as :func:`save_image` wrote it; {} if it says nothing."""
    name, data = read_bytes(path)
    with read_head(name, data, notes=True) as picture:
        try:
            comment = picture.info.get("comment", b"")
            comment = comment.decode(errors="replace") if isinstance(comment, bytes) else comment
            note = str(picture.info.get(NOTE) or picture.getexif().get(0x010E, "") or comment)
        except BROKEN:  # notes of somebody else, and broken
            note = ""
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

    def mask(self, image: Image) -> torch.Tensor:
        """A mask of a picture -> float32 (1, size, size), 0..1, laid as the picture is; see :func:`load_mask`."""
        light_HW = (load_mask(image)[0] * 255).round().byte().numpy()
        square_HWC = np.asarray(self._square(Pillow.fromarray(light_HW).convert("RGB")), dtype=np.float32) / 255
        return torch.from_numpy(square_HWC).mean(dim=2)[None]

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
