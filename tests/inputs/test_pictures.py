"""Pictures."""

from __future__ import annotations

import base64
import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from PIL import ImageFile, ImageOps

import sensorium as sn
from sensorium.codecs.colours import SRGB_PRIMARIES, made_profile
from sensorium.codecs.vision import load_image, load_mask, read_info
from sensorium.studio import changed
from sensorium.types import ConfigError, MediaError
from sensorium.zoo import ENTRIES

from .drawn import chunk, cmyk_profile, packed, png, tiff, two_pages

GREEN_RED_BLUE = np.zeros((32, 48, 3), np.uint8)  # green over red, blue beside them: each of the eight ways to lie looks different
GREEN_RED_BLUE[:, :24], GREEN_RED_BLUE[:, 24:], GREEN_RED_BLUE[:16, :24] = (255, 0, 0), (0, 0, 255), (0, 255, 0)
P3 = made_profile(((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)))
ADOBE = made_profile(((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), curve=lambda x: x ** (563 / 256))
PROPHOTO = made_profile(((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), (0.3457, 0.3585), lambda x: x**1.8)


def bytes_of(picture: Pillow.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def heic(picture: Pillow.Image, **options: object) -> bytes:
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.from_pillow(picture).save(buffer, quality=-1, chroma=444, matrix_coefficients=0, **options)
    return buffer.getvalue()


def jxl(pixels: np.ndarray, **options: object) -> bytes:
    import pylibjxl

    return pylibjxl.encode(pixels, lossless=True, **options)


def found(data: bytes, **options: object) -> np.ndarray:
    """What is read: (H, W, 3), 0..255."""
    return (load_image(data, **options) * 255).round().to(torch.int16).permute(1, 2, 0).numpy()


def greys(data: bytes) -> list[int]:
    """The first row of what is read, which has to be grey."""
    row = found(data)[0]
    assert (row == row[:, :1]).all()
    return row[:, 0].tolist()


def shorts(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


# ---- which way is up ----


def lying(kind: str, way: int) -> bytes:
    picture = Pillow.fromarray(GREEN_RED_BLUE)
    exif = Pillow.Exif()
    exif[0x0112] = way
    note = exif.tobytes()
    if kind == "HEIC":
        return heic(picture, exif=note)
    if kind == "JXL":
        import pylibjxl

        return pylibjxl.jpeg_to_jxl(lying("JPEG", way))
    if kind == "TIFF":
        return bytes_of(picture, "TIFF", tiffinfo={274: way})
    if kind == "TIFF, LZW":
        return bytes_of(picture, "TIFF", tiffinfo={274: way}, compression="tiff_lzw")
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "MPO": {"quality": 100, "subsampling": 0, "save_all": True, "append_images": [picture]},
               "WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}.get(kind, {})
    return bytes_of(picture, kind, exif=note, **options)


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "WEBP", "AVIF", "HEIC", "JXL", "TIFF", "TIFF, LZW"])
def test_orientations(kind: str) -> None:
    """Any of the eight orientations, by EXIF in JPEG, MPO, PNG, WebP, TIFF and JPEG XL, by boxes in AVIF and HEIC: upright, turned once."""
    turns = (None, None, "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
    for way in range(1, 9):
        turn = turns[way]  # EXIF 2.32, tag 0x0112: where row 0 and column 0 are seen
        wanted = Pillow.fromarray(GREEN_RED_BLUE)
        wanted = np.asarray(wanted.transpose(Pillow.Transpose[turn]) if turn else wanted, np.int16)
        seen = found(lying(kind, way))
        assert seen.shape == wanted.shape and np.abs(seen - wanted).mean() < 3, (kind, way)


def test_deep_grey_lies_too() -> None:
    """A 16-bit grey PNG with an orientation: upright."""
    exif = Pillow.Exif()
    exif[0x0112] = 6
    data = png([shorts(0, 65535)], 2, 16, 0, chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    assert found(data)[:, 0, 0].tolist() == [0, 255]


def test_turned_notes_of_avif() -> None:
    """An AVIF whose EXIF or XMP says that it lies, and no box of it does: as it is stored, as the standard (MIAF) wants."""
    picture = Pillow.fromarray(GREEN_RED_BLUE)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = bytes_of(picture, "AVIF", quality=100, subsampling="4:4:4", xmp=xmp)
    assert np.abs(found(data) - GREEN_RED_BLUE).mean() < 3


@pytest.mark.parametrize("note", [b"junk", b"MM\0*\0\0\0\x08\0\x09junk"])
def test_broken_exif(note: bytes) -> None:
    """Broken EXIF in a PNG, JPEG or WebP: the picture is read as it is stored."""
    picture = Pillow.fromarray(GREEN_RED_BLUE)
    for data in (png([bytes([7])], 1, 8, 0, chunk(b"eXIf", note)), bytes_of(picture, "JPEG", exif=b"Exif\0\0" + note),
                 bytes_of(picture, "WEBP", exif=note)):
        assert found(data).shape in ((1, 1, 3), (32, 48, 3))


# ---- kinds of files ----


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000", "TGA", "TGA, RLE", "ICO", "QOI", "DDS", "ICNS", "HEIC", "JXL", "WEBP", "TIFF", "PNG"])
def test_alpha_of_every_kind(kind: str) -> None:
    """AVIF, HEIC, JPEG XL, JPEG 2000, TGA, ICO, ICNS, QOI, DDS, WebP, TIFF or PNG with transparency: read, on the paper asked for."""
    picture = Pillow.new("RGBA", (64, 64), (0, 0, 255, 255))
    picture.paste((255, 0, 0, 0), (0, 0, 32, 64))
    if kind == "HEIC":
        data = heic(picture)
    elif kind == "JXL":
        data = jxl(np.asarray(picture))
    else:
        options = {"AVIF": {"quality": 100, "subsampling": "4:4:4"}, "WEBP": {"lossless": True}, "TGA, RLE": {"compression": "tga_rle"},
                   "ICNS": {"sizes": [(64, 64)]}}.get(kind, {})
        data = bytes_of(picture, kind.split(",")[0], **options)
    for paper in ((255, 255, 255), (0, 200, 0)):
        seen = found(data, background=paper)
        quarter, side = seen.shape[1] // 4, seen.shape[0] // 2
        assert np.abs(seen[side, quarter] - paper).max() <= 1, (kind, seen[side, quarter])
        assert np.abs(seen[side, -quarter] - (0, 0, 255)).max() <= 3, (kind, seen[side, -quarter])


@pytest.mark.parametrize("kind", ["L", "RGB"])
def test_plain_pictures_of_new_kinds(kind: str) -> None:
    """Grey and colour without transparency as AVIF, HEIC, JPEG XL, JPEG 2000 (boxed and bare) and TGA: their values."""
    picture = Pillow.fromarray(GREEN_RED_BLUE).convert(kind)
    wanted = np.asarray(picture.convert("RGB"), np.int16)
    files = [bytes_of(picture, "AVIF", quality=100, subsampling="4:4:4"), heic(picture), jxl(np.asarray(picture)), bytes_of(picture, "JPEG2000"),
             bytes_of(picture, "JPEG2000", no_jp2=True), bytes_of(picture, "TGA")]
    for data in files:
        assert np.abs(found(data) - wanted).max() <= 3, data[:24]


def test_tga_origins() -> None:
    """TGA stored from the bottom, the top, or the right, with a colour table, or without the footer of version 2: the picture upright."""
    picture = Pillow.fromarray(GREEN_RED_BLUE)
    wanted = np.asarray(picture, np.int16)
    low, high = bytes_of(picture, "TGA", orientation=1), bytes_of(picture, "TGA", orientation=-1)
    from_the_right = bytearray(bytes_of(ImageOps.mirror(picture), "TGA", orientation=-1))
    from_the_right[17] |= 0x10
    for data in (low, high, bytes(from_the_right), low[: 18 + 3 * 48 * 32], bytes_of(picture.convert("P"), "TGA")):
        assert (found(data) == wanted).all()


def test_icons() -> None:
    """An icon, of several sizes or with a mask of one bit: the largest, and the mask is its transparency."""
    sizes = Pillow.new("RGBA", (64, 64), (255, 0, 0, 255))
    assert found(bytes_of(sizes, "ICO", sizes=[(16, 16), (64, 64), (32, 32)])).shape == (64, 64, 3)
    head = struct.pack("<IiiHHIIiiII", 40, 2, 4, 1, 24, 0, 0, 0, 0, 0, 0)  # twice as high: colours, and then the mask
    pixels = bytes([0, 0, 255] * 2).ljust(8, b"\0") * 2 + bytes([0b10000000, 0, 0, 0]) * 2  # blue, green, red; from the bottom
    icon = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 2, 2, 0, 0, 1, 24, len(head + pixels), 22) + head + pixels
    assert found(icon)[0].tolist() == [[255, 255, 255], [255, 0, 0]]


def test_bitmaps() -> None:
    """BMP stored from the top, and BMP with a mask for alpha (version 5): upright, and transparent where it says so."""
    rows = bytes([0, 0, 255, 0]) + bytes([0, 255, 0, 0])  # red, then green below it: blue, green, red, filled up to four
    head = b"BM" + struct.pack("<IHHI", 62, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 1, -2, 1, 24, 0, 8, 0, 0, 0, 0)
    assert found(head + rows)[:, 0].tolist() == [[255, 0, 0], [0, 255, 0]]
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = b"BM" + struct.pack("<IHHI", 146, 0, 0, 138) + struct.pack("<IiiHHIIiiII", 124, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0) + masks
    assert found(head.ljust(138, b"\0") + bytes([0, 0, 255, 255, 0, 0, 255, 0]))[0].tolist() == [[255, 0, 0], [255, 255, 255]]


def test_first_of_many() -> None:
    """GIF, WebP, AVIF and PNG that move, a TIFF of pages, an MPO of two: the first; of a PNG whose default picture is not in its animation the
    first in it, of a TIFF that begins with a small copy the first whole page."""
    red, green, blue = (Pillow.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    more = {"save_all": True, "append_images": [green, blue]}
    for kind in ("GIF", "WEBP", "AVIF", "PNG", "TIFF", "MPO"):
        assert np.abs(found(bytes_of(red, kind, **more))[4, 4] - (255, 0, 0)).max() < 6, kind
    assert found(bytes_of(red, "PNG", default_image=True, **more))[4, 4].tolist() == [0, 255, 0]
    small = tiff(bytes([1]), 1, 1, (8,), {254: (4, (1,))})
    assert greys(two_pages(small, data=bytes([2, 3]), width=2, height=1, bits=(8,))) == [2, 3]


def test_gif_frames() -> None:
    """A GIF whose first frame is smaller than the picture, or has a transparent colour: paper shows around it and through it."""
    table = bytes([0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 0, 0])
    frame = struct.pack("<BHHHHB", 0x2C, 1, 0, 1, 1, 0) + b"\2\2\x4c\1\0"  # one pixel of entry 1, in codes of 3 bits: clear, 1, end
    start, control = b"GIF89a" + struct.pack("<HHBBB", 2, 1, 0x91, 0, 0) + table, b"\x21\xf9\4\1\0\0"
    for note in (b"", control + b"\0\0", control + b"\3\0"):  # none, entry 0 is transparent, entry 3 is
        assert found(start + note + frame + b";")[0].tolist() == [[255, 255, 255], [255, 0, 0]], note
    assert found(start + control + b"\1\0" + frame + b";")[0].tolist() == [[255, 255, 255]] * 2


def test_gain_map() -> None:
    """A JPEG with a gain map behind it (Ultra HDR, two pictures in one file): the base picture, as common screens show it."""
    base, gain = Pillow.new("RGB", (16, 8), (200, 30, 40)), Pillow.new("L", (8, 4), 90)
    seen = found(bytes_of(base, "MPO", save_all=True, append_images=[gain], quality=100))
    assert seen.shape == (8, 16, 3) and np.abs(seen - (200, 30, 40)).max() < 5


JXL = {  # a few pixels, by imagecodecs 2026.3.6 and pillow-jxl-plugin 1.3.8 (libjxl 0.11)
    "16 bits": "AAAADEpYTCANCocKAAAAFGZ0eXBqeGwgAAAAAGp4bCAAAAAJanhsbAoAAAAsanhsY/8KAHD8ABQtAggEAQBUAEsYixVCigbpRReIAGD//2tuSnxQCQ==",
    "float": "AAAADEpYTCANCocKAAAAFGZ0eXBqeGwgAAAAAGp4bCAAAAAJanhsbAoAAAAyanhsY/8KAHByAEWLCAQBAHAASxiLFZJoewH2EwAA4P//L3vJyMg+MjLRAgAAPA==",
    "grey and alpha": "/woAcLAobgQIABAAVABLGIsVwglsXILvAgcABIAjN2bTFwI=",
    "moving": "/woYEEETAIgJCAQBAFwASxiLFcIJMm+o/AfgxACA9wcArEZUAAAIBAUASABLGIsVwkmC5QEcAIAwAGB/AAA=",
}


def test_jpeg_xl_depths() -> None:
    """JPEG XL of 16 bits, of floats, of grey with alpha: read in 8 bits; a moving one: refused by name."""
    for name in ("16 bits", "float"):
        assert found(base64.b64decode(JXL[name]))[0].tolist() == [[255, 100, 0], [0, 0, 255]], name
    assert greys(base64.b64decode(JXL["grey and alpha"])) == [100, 255]
    with pytest.raises(MediaError, match="moving JPEG XL"):
        load_image(base64.b64decode(JXL["moving"]))


AVIF = {  # 16 x 16 of (1, 0.392, 0), by imagecodecs 2026.3.6
    10: "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUEAAADrbWV0YQAAAAAAAAAhaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAAAAAAAOcGl0bQAAAAAAAQAAAB5pbG9jAAAA"
        "AEQAAAEAAQAAAAEAAAETAAAAIwAAAChpaW5mAAAAAAABAAAAGmluZmUCAAAAAAEAAGF2MDFDb2xvcgAAAABqaXBycAAAAEtpcGNvAAAAFGlzcGUAAAAAAAAAEAAAABAAAAAQcGl4"
        "aQAAAAADCgoKAAAADGF2MUOBIEAAAAAAE2NvbHJuY2x4AAIAAgAAgAAAABdpcG1hAAAAAAAAAAEAAQQBAoMEAAAAK21kYXQSAAoIOAz/+cCAgCQyFRAAAAAUubhxK5NFFt6iHEqO"
        "Tm6IIw==",
    12: "AAAAHGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZgAAAOttZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAAA5waXRtAAAAAAABAAAAHmlsb2MAAAAARAAA"
        "AQABAAAAAQAAAQ8AAAAmAAAAKGlpbmYAAAAAAAEAAAAaaW5mZQIAAAAAAQAAYXYwMUNvbG9yAAAAAGppcHJwAAAAS2lwY28AAAAUaXNwZQAAAAAAAAAQAAAAEAAAABBwaXhpAAAA"
        "AAMMDAwAAAAMYXYxQ4FAYAAAAAATY29scm5jbHgAAgACAACAAAAAF2lwbWEAAAAAAAAAAQABBAECgwQAAAAubWRhdBIACglYDP/40CAgCIAyFxAAAAAUubb4kOU0UWsrqBxKjk5a"
        "rLIw",
}


def test_deep_heic_and_avif() -> None:
    """HEIC of 10 bits, AVIF of 10 and 12: in 8."""
    import pillow_heif

    buffer = io.BytesIO()
    pixels = GREEN_RED_BLUE.astype(np.uint16) * 257
    pillow_heif.from_bytes("RGB;16", (48, 32), pixels.tobytes()).save(buffer, quality=-1, chroma=444, matrix_coefficients=0)
    assert np.abs(found(buffer.getvalue()) - GREEN_RED_BLUE).max() <= 1
    for data in AVIF.values():
        assert found(base64.b64decode(data))[8, 8].tolist() == [255, 100, 0]


@pytest.mark.parametrize(("data", "said"), [
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG drawing"), (b"<?xml version='1.0'?>\n<!-- a -->\n<svg width='9'>", "SVG drawing"),
    (b"%PDF-1.7\n", "PDF document"), (b"II*\0\x10\0\0\0CR\2\0", "raw file"), (b"\0\0\0\x18ftypcrx isom", "raw file"),
    (b"FUJIFILMCCD-RAW 0201", "raw file"),
    (tiff(bytes(4), 2, 2, (8,), {254: (4, (1,)), 50706: (1, (1, 4, 0, 0))}), "DNG"),
    (tiff(bytes(4), 2, 2, (8,), {254: (4, (1,)), 330: (4, (8,))}), "raw file"),
])
def test_what_has_no_pixels_is_named(data: bytes, said: str) -> None:
    """SVG, PDF, and a camera's raw file (whose first page is a thumbnail): refused by name, with what to do."""
    with pytest.raises(MediaError, match=said):
        load_image(data)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """HEIC or JPEG XL where the library that decodes it is missing: refused with the command that installs it."""
    files = heic(Pillow.new("RGB", (64, 64))), jxl(GREEN_RED_BLUE)
    for name, data in zip(("pi_heif", "pylibjxl"), files, strict=True):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ConfigError, match="pip install"):
            load_image(data)


def test_size_by_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """AVIF, HEIC, JPEG XL, JPEG 2000, TGA, ICO, QOI of more pixels than are read: refused before anything is decoded."""
    picture = Pillow.new("RGB", (64, 64))
    files = [bytes_of(picture, kind) for kind in ("AVIF", "JPEG2000", "TGA", "QOI")] + [
        bytes_of(picture, "ICO", sizes=[(64, 64)]), heic(picture), jxl(np.asarray(picture))]
    import pylibjxl

    def decoded(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    for kind in (Pillow.Image, ImageFile.ImageFile):
        monkeypatch.setattr(kind, "load", decoded)
    monkeypatch.setattr(pylibjxl, "decode", decoded)
    for data in files:
        with pytest.raises(MediaError, match="64 x 64 pixels, wanted at most"):
            load_image(data, max_pixels=1000)


@pytest.mark.parametrize("kind", ["AVIF", "HEIC", "JXL", "JPEG2000", "TGA", "ICO", "QOI", "DDS", "ICNS"])
def test_cut_short(kind: str) -> None:
    """AVIF, HEIC, JPEG XL, JPEG 2000, TGA, ICO, QOI, DDS or ICNS cut short, or with bytes changed: refused in one sentence, or read whole."""
    picture = Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    data = heic(picture) if kind == "HEIC" else jxl(np.asarray(picture)) if kind == "JXL" else bytes_of(
        picture, kind, **({"sizes": [(64, 64)]} if kind == "ICNS" else {}))
    rng = np.random.default_rng(1)
    damaged = [data[: int(len(data) * share)] for share in (0.001, 0.01, 0.1, 0.5, 0.99)]
    for _ in range(12):
        bad = bytearray(data)
        for place in rng.integers(0, min(len(bad), 600), 4):
            bad[place] = int(rng.integers(256))
        damaged.append(bytes(bad))
    for bad in damaged:
        try:
            assert load_image(bad, max_pixels=10**6).shape[0] == 3
        except MediaError as error:
            assert "\n" not in str(error)


# ---- PNG ----


@pytest.mark.parametrize("note", [chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 3_000_000)),
                                  chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b"x" * 3_000_000)),
                                  chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 900_000)) * 80,
                                  chunk(b"iCCP", b"a\0\0" + zlib.compress(b"x" * 3_000_000)), chunk(b"iCCP", b"a\0\0junk"),
                                  chunk(b"tEXt", b"a\0b", crc=5), chunk(b"tIME", b"x")])
def test_notes_do_not_hide_a_picture(note: bytes) -> None:
    """A PNG whose text or profile is huge when unpacked, broken, or of a wrong checksum: the picture is read without it."""
    assert greys(png([bytes([7])], 1, 8, 0, note)) == [7]


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_png_transparent_grey(bits: int) -> None:
    """A grey PNG of 1, 2, 4, 8 or 16 bits with one transparent value (tRNS): that value is transparent, and no other."""
    most = 2**bits - 1
    data = png(packed(np.array([[0, 1, most, 0]]), bits), 4, bits, 0, chunk(b"tRNS", shorts(1)))
    assert greys(data) == [0, 255, 255, 0]
    data = png(packed(np.array([[0, 1, most, 0]]), bits), 4, bits, 0, chunk(b"tRNS", shorts(0)))
    assert greys(data) == [255, round(255 / most), 255, 255]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_png_indexed(bits: int) -> None:
    """An indexed PNG of 1, 2, 4 or 8 bits with a transparency for each entry, or one transparent entry: 20 at half lies as 137 on white."""
    table = chunk(b"PLTE", bytes([10] * 3 + [20] * 3))
    rows = packed(np.array([[0, 1, 0, 1]]), bits)
    assert greys(png(rows, 4, bits, 3, table, chunk(b"tRNS", bytes([0, 128])))) == [255, 137, 255, 137]
    assert greys(png(rows, 4, bits, 3, table, chunk(b"tRNS", bytes([255, 0])))) == [10, 255, 10, 255]


def test_png_of_sixteen_bits() -> None:
    """PNG of 16 bits: grey, grey and alpha, RGB with a transparent colour, RGBA: in 8 bits, within one."""
    assert greys(png([shorts(0, 0x4080, 0x8080, 65535)], 4, 16, 0)) == [0, 64, 128, 255]
    assert greys(png([shorts(0, 65535, 0, 32896, 0, 0)], 3, 16, 4)) == [0, 127, 255]
    assert np.abs(found(png([shorts(255, 0x80FF, 65535, 257, 514, 771)], 2, 16, 2))[0] - [[1, 128, 255], [1, 2, 3]]).max() <= 1
    key = (0x1234, 0x5678, 0x9ABC)
    seen = found(png([shorts(*key, 0x1334, *key[1:])], 2, 16, 2, chunk(b"tRNS", shorts(*key))))
    assert seen[0].tolist() == [[255, 255, 255], [0x13, 0x56, 0x9A]]
    assert found(png([shorts(65535, 0, 0, 65535, 65535, 0, 0, 0)], 2, 16, 6))[0].tolist() == [[255, 0, 0], [255, 255, 255]]


def test_png_wishes() -> None:
    """A PNG with a background colour (bKGD) and oblong pixels (pHYs): neither counts, as in viewers; paper is white and pixels are square."""
    data = png([bytes([0, 0, 9, 255])], 2, 8, 4, chunk(b"bKGD", shorts(0)), chunk(b"pHYs", struct.pack(">IIB", 1, 2, 0)))
    assert greys(data) == [255, 9]


# ---- depth and range ----

FLOAT, SIGNED = {339: (3, (3,))}, {339: (3, (2,))}
QUARTERS = np.array([0, 0.25, 0.5, 1], "<f4")


def test_float_tiff() -> None:
    """A TIFF of floats: white is the range that the file states, else the first of 1, 255 and 65535 that holds 99 % of them; what is not a
    number is black."""
    ramp = np.linspace(0, 1, 256, dtype="<f4")
    data = tiff(np.tile(ramp, 64).tobytes(), 256, 64, (32,), FLOAT)
    assert greys(data) == list(range(256))
    assert greys(tiff(np.tile(ramp * 255, 64).tobytes(), 256, 64, (32,), FLOAT)) == list(range(256))
    assert greys(tiff(np.tile(ramp * 65535, 64).tobytes(), 256, 64, (32,), FLOAT)) == list(range(256))
    assert greys(tiff(np.full(4, 0.5, "<f4").tobytes(), 2, 2, (32,), FLOAT)) == [128, 128]
    assert greys(tiff(QUARTERS.astype(">f4").tobytes(), 4, 1, (32,), FLOAT, ">")) == [0, 64, 128, 255]
    assert greys(tiff(QUARTERS.tobytes(), 4, 1, (32,), FLOAT | {262: (3, (0,))})) == [255, 191, 127, 0]
    assert greys(tiff((QUARTERS * 200).tobytes(), 4, 1, (32,), FLOAT | {340: (11, (0.0,)), 341: (11, (200.0,))})) == [0, 64, 128, 255]
    odd = np.array([np.nan, np.inf, -np.inf, 0.25], "<f4")
    assert greys(tiff(odd.tobytes(), 4, 1, (32,), FLOAT)) == [0, 255, 0, 64]
    lights = np.full(200, 0.5, "<f4")
    lights[7] = 9.0
    assert greys(tiff(lights.tobytes(), 200, 1, (32,), FLOAT))[6:8] == [128, 255], "one light is brighter than white"


def test_float_maps() -> None:
    """PFM, in either byte order: white is 1 after its own scale, rows from the bottom."""
    assert greys(b"Pf\n4 1\n-1.0\n" + QUARTERS.tobytes()) == [0, 64, 128, 255]
    assert greys(b"Pf\n4 1\n1.0\n" + QUARTERS.astype(">f4").tobytes()) == [0, 64, 128, 255]
    assert greys(b"Pf\n4 1\n-0.01\n" + (QUARTERS * 100).tobytes()) == [0, 64, 128, 255]
    assert found(b"Pf\n1 2\n-1.0\n" + np.array([0, 1], "<f4").tobytes())[:, 0, 0].tolist() == [255, 0]


def test_whole_numbers_of_tiff() -> None:
    """TIFF of 12, 16 or 32 bits, with or without a sign, black or white at zero: white is the type's greatest value; of 32 bits, the first of
    255, 65535 and that one which holds 99 %."""
    cases = {
        "12 bits": (tiff(packed(np.array([[0, 1024, 2048, 4095]]), 12)[0], 4, 1, (12,)), [0, 64, 128, 255]),
        "16": (tiff(np.array([0, 0x4080, 0x8080, 65535], "<u2").tobytes(), 4, 1, (16,)), [0, 64, 128, 255]),
        "16, other order": (tiff(np.array([0, 0x4080, 0x8080, 65535], ">u2").tobytes(), 4, 1, (16,), order=">"), [0, 64, 128, 255]),
        "16, white at 0": (tiff(np.array([0, 0x4080, 0x8080, 65535], "<u2").tobytes(), 4, 1, (16,), {262: (3, (0,))}), [255, 191, 127, 0]),
        "16, signed": (tiff(np.array([0, 16384, -5, 32767], "<i2").tobytes(), 4, 1, (16,), SIGNED), [0, 128, 0, 255]),
        "8, signed": (tiff(np.array([0, 64, -5, 127], "i1").tobytes(), 4, 1, (8,), SIGNED), [0, 129, 0, 255]),
        "8, white at 0": (tiff(bytes([0, 64, 128, 255]), 4, 1, (8,), {262: (3, (0,))}), [255, 191, 127, 0]),
        "32": (tiff(np.array([0, 2**31, 2**30, 2**32 - 1], "<u4").tobytes(), 4, 1, (32,)), [0, 128, 64, 255]),
        "32, small": (tiff(np.array([0, 1, 128, 255], "<u4").tobytes(), 4, 1, (32,)), [0, 1, 128, 255]),
        "32, signed": (tiff(np.array([0, 2**30, -4, 2**31 - 1], "<i4").tobytes(), 4, 1, (32,), SIGNED), [0, 128, 0, 255]),
        "BigTIFF": (tiff(bytes([1, 2, 3, 4]), 4, 1, (8,), big=True), [1, 2, 3, 4]),
    }
    for name, (data, wanted) in cases.items():
        assert greys(data) == wanted, name


def test_colours_of_tiff() -> None:
    """TIFF in colours, of 8 or 16 bits, in planes, indexed, CMYK, Lab, with straight or premultiplied alpha: its colours; what Pillow reads
    wrongly or not at all (floats in colours, 64 bits, 16 bits in planes) is refused by name."""
    straight, premultiplied, unknown = ({338: (3, (kind,))} for kind in (2, 1, 0))
    table = np.zeros(768, int)
    table[1] = table[256 + 2] = 65535
    table[512] = 0x8080
    cases = {
        "RGB 16": (tiff(np.array([65535, 257, 0], "<u2").tobytes(), 1, 1, (16,) * 3), [255, 1, 0]),
        "planes": (tiff(bytes([255, 1, 0]), 1, 1, (8,) * 3, {284: (3, (2,)), 273: (4, (8, 9, 10)), 279: (4, (1, 1, 1))}), [255, 1, 0]),
        "indexed": (tiff(bytes([2]), 1, 1, (8,), {262: (3, (3,)), 320: (3, tuple(table))}), [0, 255, 0]),
        "CMYK": (tiff(bytes([0, 255, 255, 0]), 1, 1, (8,) * 4, {262: (3, (5,)), 332: (3, (1,))}), [255, 0, 0]),
        "straight": (tiff(bytes([255, 0, 0, 100]), 1, 1, (8,) * 4, straight), [255, 155, 155]),
        "premultiplied": (tiff(bytes([100, 0, 0, 100]), 1, 1, (8,) * 4, premultiplied), [255, 155, 155]),
        "16, straight": (tiff(np.array([65535, 0, 0, 25700], "<u2").tobytes(), 1, 1, (16,) * 4, straight), [255, 155, 155]),
        "grey, premultiplied": (tiff(bytes([50, 100]), 1, 1, (8,) * 2, premultiplied), [205, 205, 205]),
        "grey, straight": (tiff(bytes([50, 100]), 1, 1, (8,) * 2, straight), [175, 175, 175]),
        "no meaning": (tiff(bytes([255, 0, 0, 100]), 1, 1, (8,) * 4, unknown), [255, 0, 0]),
    }
    for name, (data, wanted) in cases.items():
        assert found(data)[0, 0].tolist() == wanted, name
    # red of sRGB has L*, a*, b* = 54.3, 80.8, 69.9 beside D50 (ICC); of L* a byte holds 100 / 255
    lab = tiff(struct.pack("BbbBbb", 255, 0, 0, 138, 81, 70), 2, 1, (8,) * 3, {262: (3, (8,))})
    assert np.abs(found(lab)[0] - [[255, 255, 255], [255, 0, 0]]).max() <= 6
    planes = {284: (3, (2,)), 273: (4, (8,) * 3), 279: (4, (2,) * 3)}
    for bits, what in (((32,) * 3, {339: (3, (3,) * 3)}), ((64,), FLOAT), ((16,) * 3, planes)):
        with pytest.raises(MediaError, match="samples"):
            load_image(tiff(bytes(24), 1, 1, bits, what))


def test_portable_maps() -> None:
    """PBM, PGM and PPM, as text or bytes, of any greatest value up to 65535: black is 0 and white is that value."""
    assert greys(b"P4\n4 1\n\x50") == greys(b"P1\n4 1\n0 1 0 1") == [255, 0, 255, 0]
    assert greys(b"P5\n4 1\n65535\n" + shorts(0, 0x4080, 0x8080, 65535)) == greys(b"P2\n4 1\n1000\n0 250 500 1000") == [0, 64, 128, 255]
    assert greys(b"P5\n4 1\n1023\n" + shorts(0, 256, 512, 1023)) == [0, 64, 128, 255]
    assert found(b"P6\n1 1\n65535\n" + shorts(0, 0x4080, 0x8080)).tolist() == [[[0, 64, 128]]]
    assert found(b"P6\n1 1\n15\n" + bytes([0, 5, 10])).tolist() == [[[0, 85, 170]]]


# ---- colours ----


def shown(rgb: tuple[int, ...], primaries: list[tuple[float, float]], white: tuple[float, float], curve: object) -> np.ndarray:
    """What sRGB shows for a colour of another space: through XYZ, with white taken to white (both spaces here have D65), by the definitions."""
    def matrix(points: object) -> np.ndarray:
        columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in points]).T
        return columns * np.linalg.solve(columns, [white[0] / white[1], 1, (1 - white[0] - white[1]) / white[1]])

    light = np.linalg.solve(matrix(SRGB_PRIMARIES), matrix(primaries) @ curve(np.array(rgb) / 255)).clip(0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255


def srgb(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


P3_POINTS, D65 = [(0.680, 0.320), (0.265, 0.690), (0.150, 0.060)], (0.3127, 0.3290)
SALMON = (200, 100, 50)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF", "HEIC", "JXL"])
def test_display_p3(kind: str) -> None:
    """Display P3 by an ICC profile, as phones write it, in JPEG, PNG, WebP, TIFF, AVIF, HEIC and JPEG XL: turned to sRGB."""
    picture = Pillow.new("RGB", (64, 64), SALMON)
    wanted = shown(SALMON, P3_POINTS, D65, srgb)  # 215, 93, 31
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}.get(kind, {})
    data = (heic(picture, icc_profile=P3) if kind == "HEIC" else jxl(np.asarray(picture), icc=P3) if kind == "JXL" else
            bytes_of(picture, kind, icc_profile=P3, **options))
    assert np.abs(found(data)[32, 32] - wanted).max() <= 3


def test_profile_of_jpeg_2000() -> None:
    """JPEG 2000 with an ICC profile in its boxes: turned to sRGB."""
    data = bytes_of(Pillow.new("RGB", (8, 8), SALMON), "JPEG2000")
    head, colr = data.index(b"jp2h") - 4, data.index(b"colr") - 4
    size, grown = int.from_bytes(data[head : head + 4], "big"), 11 + len(P3)
    made = struct.pack(">I", size - 15 + grown) + data[head + 4 : colr] + struct.pack(">I", grown) + b"colr\2\0\0" + P3
    assert np.abs(found(data[:head] + made + data[colr + 15 :])[4, 4] - shown(SALMON, P3_POINTS, D65, srgb)).max() <= 2


def test_wide_profiles() -> None:
    """Adobe RGB and ProPhoto by an ICC profile: turned to sRGB, transparency kept; sRGB's own profile changes nothing."""
    picture = Pillow.new("RGBA", (2, 1), (*SALMON, 255))
    picture.putpixel((1, 0), (*SALMON, 0))
    wanted = shown(SALMON, [(0.64, 0.33), (0.21, 0.71), (0.15, 0.06)], D65, lambda x: x ** (563 / 256))
    seen = found(bytes_of(picture, "PNG", icc_profile=ADOBE))
    assert np.abs(seen[0, 0] - wanted).max() <= 1 and seen[0, 1].tolist() == [255, 255, 255]
    # ProPhoto's grey of 128: (128 / 255) ** 1.8 = 0.289 of light, which sRGB writes as 146.4
    assert np.abs(found(bytes_of(Pillow.new("RGB", (1, 1), (128,) * 3), "PNG", icc_profile=PROPHOTO))[0, 0] - 146).max() <= 1
    noise = Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8))
    assert (found(bytes_of(noise, "PNG", icc_profile=made_profile(SRGB_PRIMARIES))) == np.asarray(noise)).all()


def test_grey_and_indexed_with_profiles() -> None:
    """Grey with a profile of grey, grey with one of RGB, and indexed colours with one: turned to sRGB too."""
    grey = bytearray(made_profile(SRGB_PRIMARIES, curve=lambda x: x))
    grey[16:20] = b"GRAY"
    grey = bytes(grey).replace(b"rTRC", b"kTRC", 1)
    linear = made_profile(SRGB_PRIMARIES, curve=lambda x: x)
    plain = Pillow.new("L", (1, 1), 55)
    for picture, profile in ((plain, grey), (Pillow.new("LA", (1, 1), (55, 255)), grey), (plain, linear), (plain.convert("RGB").quantize(2), linear)):
        assert abs(greys(bytes_of(picture, "PNG", icc_profile=profile))[0] - 128) <= 1  # 55 / 255 = 0.2157 of light, which sRGB writes as 128.2


def test_cmyk() -> None:
    """CMYK JPEGs, with Adobe's marker and without: colours and not their negative, through a profile where there is one."""
    picture = Pillow.fromarray(GREEN_RED_BLUE)
    data = bytes_of(picture.convert("CMYK"), "JPEG", quality=100, subsampling=0)
    assert np.abs(found(data) - GREEN_RED_BLUE).mean() < 3
    at = data.find(b"Adobe") - 4
    bare = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    assert np.abs(found(bare) - GREEN_RED_BLUE).mean() < 3
    # a press whose cyan is L*, a*, b* = 55, -37, -50: XYZ 0.157, 0.229, 0.503 beside D50, which is sRGB's 0, 149, 216 or so
    cyan = bytes_of(Pillow.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", quality=100, icc_profile=cmyk_profile((55, -37, -50)))
    seen = found(cyan)[4, 4]
    assert seen[0] < 30 and 140 <= seen[1] <= 156 and 205 <= seen[2] <= 225, seen


@pytest.mark.parametrize("profile", [b"x" * 300, P3[:200], P3[:128] + bytes(len(P3) - 128), cmyk_profile((55, -37, -50))])
def test_broken_profiles(profile: bytes) -> None:
    """A profile that is broken, cut short, or of another kind of colours: left aside."""
    picture = Pillow.new("RGB", (4, 4), SALMON)
    assert found(bytes_of(picture, "PNG", icc_profile=profile))[0, 0].tolist() == list(SALMON)


def test_png_colours_by_numbers() -> None:
    """A PNG with cICP, gAMA or cHRM: turned to sRGB; cICP counts before all, then ICC or sRGB; a gamma near 1/2.2 is sRGB."""
    def one(*chunks: bytes) -> list[int]:
        return found(png([bytes(SALMON)], 1, 8, 2, *chunks))[0, 0].tolist()

    p3 = [round(value) for value in shown(SALMON, P3_POINTS, D65, srgb)]
    chrm = chunk(b"cHRM", struct.pack(">8I", *(round(v * 100_000) for v in (*D65, *P3_POINTS[0], *P3_POINTS[1], *P3_POINTS[2]))))
    assert np.abs(np.array(one(chunk(b"cICP", bytes([12, 13, 0, 1])))) - p3).max() <= 1
    assert np.abs(np.array(one(chrm)) - p3).max() <= 1
    for same in ((chrm, chunk(b"sRGB", b"\0")), (chunk(b"gAMA", struct.pack(">I", 45455)),), (chrm, chunk(b"cICP", bytes([1, 13, 0, 1])))):
        assert one(*same) == list(SALMON)
    linear = one(chunk(b"gAMA", struct.pack(">I", 100_000)))  # of sRGB: 229, 168, 123
    assert np.abs(np.array(linear) - shown(SALMON, list(SRGB_PRIMARIES), D65, lambda x: x)).max() <= 1
    assert one(chunk(b"gAMA", bytes(4)), chunk(b"cHRM", bytes(32))) == list(SALMON), "of no sense"


def test_high_dynamic_range() -> None:
    """PQ and HLG in a PNG's cICP: paper white (203 nits, ITU-R BT.2408) is white, what is brighter is white too."""
    def grey(value: int, transfer: int) -> int:
        return greys(png([bytes([value] * 3)], 1, 8, 2, chunk(b"cICP", bytes([9, transfer, 0, 1]))))[0]

    assert grey(148, 16) == grey(255, 16) == grey(255, 18) == 255 and grey(0, 16) == grey(0, 18) == 0  # PQ writes 203 nits as 0.5807: 148
    assert abs(grey(191, 18) - 255) <= 2  # HLG writes it as 0.75
    assert abs(grey(112, 16) - 137) <= 2  # PQ's 0.4392 is 50.2 nits: 0.247 of paper white, which sRGB writes as 136.5


def test_avif_colours_by_numbers() -> None:
    """AVIF and HEIC whose code numbers (nclx) say Display P3 and no profile is there: turned to sRGB."""
    picture = Pillow.new("RGB", (64, 64), SALMON)
    wanted = shown(SALMON, P3_POINTS, D65, srgb)
    for data in (bytes_of(picture, "AVIF", quality=100, subsampling="4:4:4"), heic(picture)):
        at = data.find(b"colrnclx") + 8
        assert at > 8
        assert np.abs(found(data[:at] + shorts(12, 13) + data[at + 4 :])[32, 32] - wanted).max() <= 4
        assert np.abs(found(data)[32, 32] - SALMON).max() <= 3


# ---- masks ----


def test_masks() -> None:
    """A mask with transparency: what is transparent stays as it is; of a mask in a single colour, black or white, the opacity counts."""
    half = Pillow.new("RGBA", (96, 64), (0, 0, 0, 0))
    half.paste((255, 255, 255, 255), (0, 0, 48, 64))
    black = Pillow.new("RGBA", (96, 64), (0, 0, 0, 0))
    black.paste((0, 0, 0, 255), (0, 0, 48, 64))
    painted = Pillow.new("RGBA", (96, 64), (0, 0, 0, 255))
    painted.paste((255, 255, 255, 255), (0, 0, 48, 64))
    for mask in (half, black, painted, painted.convert("L"), painted.convert("1"), half.convert("LA")):
        seen = load_mask(sn.Image(bytes_of(mask, "PNG")))
        assert seen.shape == (1, 64, 96) and (seen[:, :, :48] == 1).all() and (seen[:, :, 48:] == 0).all(), mask.mode
    model, codec = ENTRIES["stable_diffusion"].toy().build(seed=0).eval(), sn.VisionCodec(size=32, fit="squash")
    picture = sn.Image(bytes_of(Pillow.new("RGB", (96, 64)), "PNG"))
    wheres = [changed(model, codec, picture, 0.5, sn.Image(bytes_of(mask, "PNG"))).change.mask_L1HW for mask in (half, black, painted.convert("L"))]
    width = wheres[0].shape[3] // 2
    assert wheres[0][:, :, :, :width].all() and not wheres[0][:, :, :, width:].any()
    assert all(torch.equal(where, wheres[0]) for where in wheres)


# ---- given by name ----


@pytest.mark.parametrize("ending", [".avif", ".heic", ".heif", ".jxl", ".jp2", ".tga", ".ico", ".mpo", ".jfif", ".pfm", ".qoi", ".TIF"])
def test_named_pictures(tmp_path: Path, ending: str) -> None:
    """A name that ends in .avif, .heic, .jxl, .jp2, .tga, .ico, .mpo and the like: a picture's; missing where none is, `index` looks at what is."""
    from sensorium.cli.words import value
    from sensorium.memory.table import pictures_in

    path = tmp_path / f"a{ending}"
    with pytest.raises(MediaError, match="missing; wanted a picture file"):
        value(str(path))
    path.write_bytes(b"x")
    assert pictures_in(tmp_path) == [path]


# ---- written ----


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".gif", ".tif", ".avif", ".jp2", ".jxl"])
def test_notes_come_back(tmp_path: Path, ending: str) -> None:
    """A picture written as .png, .jpg, .webp, .gif, .tif, .avif, .jp2 or .jxl: read back, with the note of what made it."""
    picture = sn.Image(torch.from_numpy(GREEN_RED_BLUE).permute(2, 0, 1) / 255, {"model": "红", "seed": 3})
    path = picture.save(tmp_path / f"a{ending}")
    assert read_info(path) == {"model": "红", "seed": 3}
    assert float((load_image(path) - picture.source).abs().mean()) < 0.02
    for other in (".bmp", ".tga"):
        assert torch.equal(load_image(picture.save(tmp_path / f"a{other}")), picture.source)
    with pytest.raises(MediaError, match="wanted one of .avif"):
        picture.save(tmp_path / "a.heic")
