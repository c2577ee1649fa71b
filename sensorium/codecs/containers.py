"""Containers: what the bytes of a picture file say before any library decodes it.

    PNG  -> chunks: those that change nothing seen are left out; colours that no ICC profile gives -> a made one
    AVIF -> boxes: the code numbers of the primary picture's colours; JPEG 2000 -> boxes: its ICC profile
    rest -> the kind that is not read as a picture, in words, and what to do
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from sensorium.codecs.colours import D65, SRGB_PRIMARIES, coded_profile, made_profile

__all__ = ["avif_profile", "heif_kind", "inner_sizes", "is_heic", "is_jxl", "is_raw", "is_tga", "jp2_profile", "png_profile", "tidy_png", "unread"]

PNG_MARK = b"\x89PNG\r\n\x1a\n"
SEEN = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT", b"iCCP", b"eXIf")
LONGEST_PROFILE = 2**20  # what Pillow unpacks of a compressed chunk; a longer one makes it refuse the picture
STILL_BRANDS = {**dict.fromkeys((b"avif", b"avis"), "AVIF"), b"mif1": "", b"msf1": "", **dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIC")}


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Name, content and the whole of each chunk of a PNG; the last may be cut short."""
    place = len(PNG_MARK)
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4].rjust(4, b"\0"))
        whole = data[place : place + 12 + length]
        yield whole[4:8], whole[8 : 8 + length], whole
        place += len(whole)


def tidy_png(data: bytes, notes: bool = False) -> bytes:
    """A PNG without the chunks that change nothing seen, which may be broken or too large to unpack; other files as they are.

    Args:
        notes: keep uncompressed texts too. XMP stays in any case, as it may say which side is up.
    """
    if not data.startswith(PNG_MARK):
        return data
    kept = [PNG_MARK]
    for name, content, whole in _chunks(data):
        text = name in (b"tEXt", b"iTXt") and (notes or content.startswith(b"XML:com.adobe.xmp\0"))
        packed = name == b"iTXt" and content[content.find(b"\0") + 1 :][:1] != b"\0"
        fits = name != b"iCCP" or _fits(content)
        if (name in SEEN and fits) or (text and not packed and _whole(whole)):
            kept.append(whole)
    return b"".join(kept)


def _whole(chunk: bytes) -> bool:
    return chunk[-4:] == struct.pack(">I", zlib.crc32(chunk[4:-4]))


def _fits(content: bytes) -> bool:
    try:
        return len(zlib.decompressobj().decompress(content[content.find(b"\0") + 2 :], LONGEST_PROFILE)) < LONGEST_PROFILE
    except zlib.error:
        return False


def png_profile(data: bytes) -> tuple[bytes | None, bool]:
    """The profile that a PNG's cICP, or without iCCP and sRGB its gAMA and cHRM, stand for; and whether it beats an ICC profile.

    A gamma within 5 % of 1/2.2 counts as sRGB's curve, as in libpng. Source: PNG, third edition, section 4.3.
    """
    found: dict[bytes, bytes] = {}
    for name, content, _ in _chunks(data):
        if name == b"IDAT":
            break
        found.setdefault(name, content)
    if len(found.get(b"cICP", b"")) == 4:
        return coded_profile(*found[b"cICP"][:2]), True
    if b"sRGB" in found or b"iCCP" in found:
        return None, False
    points, white, gamma = SRGB_PRIMARIES, D65, None
    if len(found.get(b"cHRM", b"")) == 32:
        at = [value / 100_000 for value in struct.unpack(">8I", found[b"cHRM"])]
        if max(abs(a - b) for a, b in zip(at, (*D65, *SRGB_PRIMARIES[0], *SRGB_PRIMARIES[1], *SRGB_PRIMARIES[2]), strict=True)) > 0.005:
            white, points = (at[0], at[1]), ((at[2], at[3]), (at[4], at[5]), (at[6], at[7]))
    if len(found.get(b"gAMA", b"")) == 4:
        stored = struct.unpack(">I", found[b"gAMA"])[0] / 100_000
        if 0.01 < stored < 10 and abs(stored * 2.2 - 1) > 0.05:
            gamma = 1 / stored
    if points is SRGB_PRIMARIES and gamma is None:
        return None, False
    return made_profile(points, white, None if gamma is None else lambda x: x**gamma), False


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the content of each box of an ISO base media file (ISO/IEC 14496-12)."""
    while start + 8 <= end:
        size, name = struct.unpack(">I4s", data[start : start + 8])
        inner = start + 8
        if size == 1:
            if start + 16 > end:
                return
            (size,) = struct.unpack(">Q", data[start + 8 : start + 16])
            inner = start + 16
        stop = end if size == 0 else start + size
        if stop > end or stop < inner:
            return
        yield name, inner, stop
        start = stop


def avif_profile(data: bytes) -> bytes | None:
    """The profile that the code numbers of an AVIF's primary picture stand for; None where they say sRGB, or nothing."""
    inside = {name: (start, stop) for name, start, stop in _boxes(data, 0, len(data))}
    if b"meta" not in inside:
        return None
    start, stop = inside[b"meta"]
    inside = {name: place for name, *place in _boxes(data, start + 4, stop)}
    try:
        start, _ = inside[b"pitm"]
        primary = int.from_bytes(data[start + 4 : start + (6 if data[start] == 0 else 8)], "big")
        parts = {name: place for name, *place in _boxes(data, *inside[b"iprp"])}
        properties = [data[start:stop] if name == b"colr" else b"" for name, start, stop in _boxes(data, *parts[b"ipco"])]
        found = [properties[i - 1] for i in _of_item(data[slice(*parts[b"ipma"])], primary) if 0 < i <= len(properties)]
        nclx = next(content for content in found if content.startswith(b"nclx"))
        return coded_profile(*struct.unpack(">HH", nclx[4:8]))
    except (KeyError, StopIteration, struct.error, IndexError):
        return None


def jp2_profile(data: bytes) -> bytes | None:
    """The ICC profile that a JPEG 2000 in boxes holds (ISO/IEC 15444-1, annex I.5.3.3), which Pillow does not say."""
    inside = {name: place for name, *place in _boxes(data, 0, len(data))}
    if b"jp2h" not in inside:
        return None
    colours = (data[start:stop] for name, start, stop in _boxes(data, *inside[b"jp2h"]) if name == b"colr")
    return next((content[3:] for content in colours if content[:1] in (b"\2", b"\3")), None)


def _of_item(ipma: bytes, item: int) -> list[int]:
    """Which properties an item has, counted from 1 (ISO/IEC 23008-12, section 9.3.1)."""
    wide, large, place = ipma[0] > 0, ipma[3] & 1, 8
    for _ in range(int.from_bytes(ipma[4:8], "big")):
        size = 4 if wide else 2
        number, count = int.from_bytes(ipma[place : place + size], "big"), ipma[place + size]
        place += size + 1
        step = 2 if large else 1
        if number == item:
            mask = 0x7FFF if large else 0x7F
            return [int.from_bytes(ipma[place + i * step : place + (i + 1) * step], "big") & mask for i in range(count)]
        place += count * step
    return []


def heif_kind(data: bytes) -> str:
    """"AVIF", "HEIC" (HEIF whose pictures are HEVC, or of no coding that is named), "RAW" (a camera's) or "" for other files, by their brands."""
    if data[4:8] != b"ftyp":
        return ""
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))]
    if brands[0] == b"crx ":
        return "RAW"
    still = [brand for brand in brands if brand in STILL_BRANDS]
    if not still or brands[0] not in STILL_BRANDS:
        return ""
    return next((STILL_BRANDS[brand] for brand in still if STILL_BRANDS[brand]), "HEIC")


def is_heic(data: bytes) -> bool:
    """A HEIF whose pictures are HEVC: HEIC."""
    return heif_kind(data) == "HEIC"


def is_jxl(data: bytes) -> bool:
    """JPEG XL, bare or in boxes."""
    return data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"))


def is_tga(data: bytes, size: int | None = None) -> bool:
    """A Targa: it has no mark, so all that its head says has to fit.

    Args:
        data: its beginning, at least 18 bytes, or all of it.
        size: bytes of the whole; None: ``data`` is all.
    """
    size = len(data) if size is None else size
    if len(data) < 18:
        return False
    words, table, kind, _, entries, entry, _, _, width, height, bits, flags = struct.unpack("<BBBHHBHHHHBB", data[:18])
    depths = {1: (8,), 9: (8,), 2: (15, 16, 24, 32), 10: (15, 16, 24, 32), 3: (8, 16), 11: (8, 16)}.get(kind, ())
    if bits not in depths or table > 1 or not width or not height or flags & 0xC0:
        return False
    if kind in (1, 9) and not (table and entries and entry in (15, 16, 24, 32)):
        return False
    pixels = 18 + words + (entries * ((entry + 7) // 8) if table else 0)
    return size > pixels if kind > 8 else size >= pixels + width * height * ((bits + 7) // 8)


def inner_sizes(data: bytes) -> list[tuple[int, int]]:
    """Width and height of the PNGs inside an icon, whose own head says less."""
    if data[:4] not in (b"\0\0\1\0", b"\0\0\2\0", b"icns"):
        return []
    heads = [data[found.end() + 8 : found.end() + 16] for found in re.finditer(re.escape(PNG_MARK), data)]
    return [struct.unpack(">II", head) for head in heads if len(head) == 8]


def is_raw(data: bytes) -> bool:
    """A camera's raw file (Canon, Fujifilm, Olympus, Panasonic); those of the others are TIFF."""
    return data[8:10] == b"CR" and data[:2] == b"II" or heif_kind(data) == "RAW" or data.startswith((b"FUJIFILMCCD-RAW", b"IIRO", b"IIU\0"))


def unread(data: bytes) -> str:
    """What a file that is no picture in pixels is, and what to do; "" if that is not known."""
    head = data[:2048].lstrip(b"\xef\xbb\xbf \t\r\n")
    if re.match(rb"(<\?xml.*|<!--.*|<!doctype.*)?<svg[\s/>]", head, re.S | re.I):
        return "is an SVG drawing, which has no pixels; draw it first, for example with: pip install resvg-py"
    if head.startswith(b"%PDF"):
        return "is a PDF document; save its page as a picture first"
    return "is a camera's raw file; develop it first and give the JPEG, HEIC or TIFF" if is_raw(data) else ""
