"""Picture files made byte by byte, for kinds that no library at hand writes: PNG chunks, TIFF tags, and boxes."""

from __future__ import annotations

import struct
import zlib

import numpy as np

TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 5: "I", 11: "f", 12: "d", 13: "I"}


def chunk(name: bytes, data: bytes = b"", crc: int | None = None) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) if crc is None else crc)


def png(rows: list[bytes], width: int, depth: int, colour: int, *chunks: bytes) -> bytes:
    """A PNG of packed rows. ``colour``: 0 grey, 2 RGB, 3 indexed, 4 grey and alpha, 6 RGBA; ``chunks`` stand before the pixels."""
    head = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join([chunk(b"IHDR", head), *chunks, chunk(b"IDAT", pixels), chunk(b"IEND")])


def tiff(data: bytes, width: int, height: int, bits: tuple[int, ...], tags: dict[int, tuple[int, tuple]] | None = None, order: str = "<",
         big: bool = False, base: int = 0) -> bytes:
    """A TIFF of one uncompressed strip, for a place ``base`` bytes into a file. ``tags``: number -> (type, values), over what every TIFF has."""
    wide, start = ("Q", 16) if big else ("I", base + 8)
    entries = {256: (4, (width,)), 257: (4, (height,)), 258: (3, bits), 259: (3, (1,)), 262: (3, (1 if len(bits) < 3 else 2,)),
               273: (4, (start,)), 277: (3, (len(bits),)), 278: (4, (height,)), 279: (4, (len(data),)), **(tags or {})}
    head = (b"II" if order == "<" else b"MM") + (struct.pack(order + "HHHQ", 43, 8, 0, start + len(data) + len(data) % 2) if big else
                                                 struct.pack(order + "HI", 42, start + len(data) + len(data) % 2))
    body, after = head + data + b"\0" * (len(data) % 2), b""
    count, slot = (8, 8) if big else (2, 4)
    place = base + len(body) + count + len(entries) * (4 + 2 * slot) + slot
    table = struct.pack(order + ("Q" if big else "H"), len(entries))
    for tag, (kind, values) in sorted(entries.items()):
        packed = values[0] if kind == 2 else struct.pack(order + TYPES[kind] * len(values), *values)
        number = len(packed) if kind == 2 else len(values) // (2 if kind == 5 else 1)
        table += struct.pack(order + "HH" + wide, tag, kind, number)
        if len(packed) <= slot:
            table += packed.ljust(slot, b"\0")
        else:
            table += struct.pack(order + wide, place + len(after))
            after += packed + b"\0" * (len(packed) % 2)
    return body + table + b"\0" * slot + after


def two_pages(first: bytes, **second: object) -> bytes:
    """A TIFF, and another made as :func:`tiff` does as its second page (little endian, not big)."""
    other = tiff(base=len(first), **second)
    (place,) = struct.unpack("<I", first[4:8])
    (entries,) = struct.unpack("<H", first[place : place + 2])
    link = place + 2 + 12 * entries
    return first[:link] + other[4:8] + first[link + 4 :] + other


def packed(values: np.ndarray, bits: int) -> list[bytes]:
    """Rows of small numbers (H, W), ``bits`` each, as PNG and TIFF pack them."""
    spread = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return [np.packbits(row.reshape(-1).astype(np.uint8)).tobytes() for row in spread]


def cmyk_profile(cyan_lab: tuple[float, float, float]) -> bytes:
    """An ICC profile (version 2) of a press: 255 of cyan alone is ``cyan_lab``, other inks are black, none is white; a table of two steps an ink.

    Source: ICC.1:2001-04, section 6.5.7 (lut8Type).
    """
    def lab(light: float, a: float, b: float) -> bytes:
        return bytes([round(light * 2.55), round(a + 128), round(b + 128)])

    steps = bytes(range(256))
    corners = b"".join(lab(100, 0, 0) if inks == (0, 0, 0, 0) else lab(*cyan_lab) if inks == (1, 0, 0, 0) else lab(0, 0, 0)
                       for inks in np.ndindex(2, 2, 2, 2))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9))) + steps * 4 + corners + steps * 3
    tags = [(b"desc", b"desc\0\0\0\0" + struct.pack(">I", 2) + b"p\0" + bytes(78)), (b"cprt", b"text\0\0\0\0none\0"),
            (b"wtpt", b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)), (b"A2B0", table)]
    index, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags:
        index += name + struct.pack(">II", start + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s6H", start + len(body), b"", 0x02400000, b"prtr", b"CMYK", b"Lab ", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    return (head + struct.pack(">3i", 63190, 65536, 54061)).ljust(128, b"\0") + index + body
