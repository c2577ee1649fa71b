"""Media: what a file is, told by what stands in it and never by its name, and the value it holds.

    first bytes -> picture, sound, container, document or text
    picture     -> still or moving, by its own count of frames
    container   -> PyAV, only then: a track of pictures that is more than a cover makes it a film, else it is a sound
"""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from sensorium.codecs.containers import heif_kind, is_raw, is_tga
from sensorium.codecs.ffmpeg import open_container, picture_tracks
from sensorium.files import claimed, hint, open_file
from sensorium.types import Audio, ConfigError, Image, Media, MediaError, Text, Video

__all__ = ["files_of", "Kind", "kind_of", "Listing", "medium", "read_text"]

HEAD = 4096  # bytes that tell a kind; the longest look is for a packet of MPEG-TS
LONGEST_TEXT = 4 * 2**20
SPELLED = ("MP3", "MP4", "M4A", "MKV", "MPEG", "MPEG-TS", "HEIC", "HDR", "SVG", "SQLITE", "ELF", "FLV")  # said with a vowel first
MOVING = ("GIF", "PNG", "WEBP", "AVIF")  # several frames of these are one after the other in time; of TIFF, ICO and MPO they are not

@dataclass(frozen=True)
class Kind:
    """What a file is.

    Args:
        name: of the format, as people say it: "PNG", "MP4", "PDF", "text".
        modality: what it is taken as; "" is nothing that is read.
        sound: of a film, whether something can be heard in it.
        moving: of a picture, whether it moves; it is a video then.
    """

    name: str
    modality: str = ""
    sound: bool = False
    moving: bool = False

    def __str__(self) -> str:
        article = "an" if self.name in SPELLED or self.name[:1] in "AEIO" else "a"
        noun = {"image": " picture", "audio": " sound", "video": " moving picture" if self.moving else " film"}.get(self.modality, "")
        return {"text": "a text", "empty": "empty", "": "of no kind that is known"}.get(self.name, f"{article} {self.name}{noun}")


# Where the mark stands, the mark, the format, the modality ("film": a container, which is asked).
_MARKS = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG", "image"), (0, b"\xff\xd8\xff", "JPEG", "image"), (0, b"GIF87a", "GIF", "image"), (0, b"GIF89a", "GIF", "image"),
    (0, b"II*\0", "TIFF", "image"), (0, b"MM\0*", "TIFF", "image"), (0, b"II+\0", "TIFF", "image"), (0, b"MM\0+", "TIFF", "image"),
    (8, b"WEBP", "WEBP", "image"), (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000", "image"), (0, b"\xff\x4f\xff\x51", "JPEG 2000", "image"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", "image"), (0, b"\xff\x0a", "JPEG XL", "image"), (0, b"8BPS", "PSD", "image"),
    (0, b"icns", "ICNS", "image"), (0, b"DDS ", "DDS", "image"), (0, b"qoif", "QOI", "image"), (0, b"\x76\x2f\x31\x01", "EXR", "image"),
    (0, b"#?RADIANCE", "HDR", "image"), (0, b"PF\n", "PFM", "image"), (0, b"Pf\n", "PFM", "image"),
    (8, b"WAVE", "WAV", "audio"), (0, b"riff", "W64", "audio"), (0, b"fLaC", "FLAC", "audio"), (8, b"AIFF", "AIFF", "audio"),
    (8, b"AIFC", "AIFF", "audio"), (0, b".snd", "AU", "audio"), (0, b"caff", "CAF", "audio"), (0, b"ID3", "MP3", "audio"),
    (0, b"#!AMR", "AMR", "audio"), (0, b"\x0b\x77", "AC-3", "audio"), (0, b"MAC ", "APE", "audio"), (0, b"wvpk", "WavPack", "audio"),
    (0, b"TTA1", "TTA", "audio"), (0, b"MThd", "MIDI", "audio"),
    (0, b"OggS", "OGG", "film"), (0, b"\x1aE\xdf\xa3", "MKV", "film"), (8, b"AVI ", "AVI", "film"), (0, b"FLV\x01", "FLV", "film"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "ASF", "film"), (0, b"\0\0\x01\xba", "MPEG", "film"), (0, b"\0\0\x01\xb3", "MPEG", "film"),
    *((4, mark, "MOV", "film") for mark in (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")),
    (0, b"%PDF", "PDF", ""), (0, b"PK\x03\x04", "ZIP", ""), (0, b"\x1f\x8b", "GZIP", ""), (0, b"7z\xbc\xaf'\x1c", "7Z", ""), (0, b"Rar!", "RAR", ""),
    (0, b"\xd0\xcf\x11\xe0", "OLE", ""), (0, b"\x7fELF", "ELF", ""), (0, b"SQLite format 3", "SQLITE", ""), (0, b"GGUF", "GGUF", ""),
)


def kind_of(source: str | Path | bytes) -> Kind:
    """What a file, or encoded bytes, are.

    Raises:
        MediaError: no such file, or it cannot be read.
    """
    if isinstance(source, bytes):
        return _told(io.BytesIO(source))
    with open_file(source, "a file") as file:
        return _told(file)


def medium(path: str | Path) -> Text | Media:
    """The value that a file holds: a text's text; else the file as a picture, sound or video.

    Raises:
        MediaError: missing, or nothing that can be read.
    """
    kind = kind_of(path)
    if kind.modality == "text":
        return Text(read_text(path))
    made = {"image": Image, "audio": Audio, "video": Video}.get(kind.modality)
    if made is None:
        raise MediaError(f"{path} is {kind}; wanted a picture, a sound, a film or a text in UTF-8")
    return made(path if isinstance(path, str) else str(path))


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its mark.

    Raises:
        MediaError: too long, or in another encoding.
    """
    size = Path(path).stat().st_size
    if size > LONGEST_TEXT:
        raise MediaError(f"{path} holds {size / 2**20:.0f} MB of text, wanted at most {LONGEST_TEXT // 2**20}; give a part of it")
    data = Path(path).read_bytes()
    try:
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise MediaError(f"{path} is not UTF-8 at byte {error.start}; save the text as UTF-8") from error


@dataclass(frozen=True)
class Listing:
    """Files below a folder: those that were looked for, and those that were passed over, with the reason."""

    found: tuple[Path, ...] = ()
    passed: tuple[tuple[Path, str], ...] = ()


def files_of(folder: str | Path, modality: str) -> Listing:
    """Every file below a folder (or the file itself) that holds a modality, or is called one, in order. What moves counts as a picture too.

    Raises:
        MediaError: no such folder or file.
    """
    folder = Path(folder)
    if folder.is_file():
        return Listing((folder,))
    if not folder.is_dir():
        raise MediaError(f"{folder} is neither a folder nor a file; give a folder of {modality}s{hint(folder)}")
    found, passed = [], []
    for path, reason in sorted(_below(folder)):
        try:
            kind = kind_of(path) if not reason else Kind("")
        except MediaError as error:
            kind, reason = Kind(""), str(error)
        lies = kind.name in ("", "text", "empty") and claimed(path) == modality  # it is called one: whoever reads it says why it is none
        if not reason and (kind.modality == modality or (modality == "image" and kind.moving) or lies):
            found.append(path)
        else:
            passed.append((path, reason or str(kind)))
    return Listing(tuple(found), tuple(passed))


def _below(folder: Path) -> Iterator[tuple[Path, str]]:
    """Files below a folder, and folders that are not gone into; each with the reason for passing it over, or ""."""
    try:
        paths = list(folder.iterdir())
    except OSError as error:
        yield folder, f"cannot be read ({error.strerror})"
        return
    for path in paths:
        inside = path.is_dir()
        if path.name.startswith("."):
            yield path, f"a hidden {'folder' if inside else 'file'}"
        elif inside and path.is_symlink():
            yield path, "a link to a folder"
        elif inside:
            yield from _below(path)
        else:
            yield path, ""


def _told(file: Any) -> Kind:
    head = file.read(HEAD)
    if not head:
        return Kind("empty")
    name, modality = _format(head, file)
    file.seek(0)
    if modality == "film":
        return _film(name, file)
    if name in MOVING and _moves(file):
        return Kind(name, "video", moving=True)
    return Kind(name, modality)


def _format(head: bytes, file: Any) -> tuple[str, str]:
    """Format and modality by the first bytes; a few formats have no mark, and are told by fields that must fit each other."""
    if is_raw(head):
        return "camera raw", ""
    if head[4:8] == b"ftyp":
        found = heif_kind(head)
        return (found, "image") if found else ("MP4", "film")
    if _readable(head):  # before the marks: many of them are letters
        return next(((name, modality) for name, modality, fits in _IN_LETTERS if fits(head)), ("text", "text"))
    for at, mark, name, modality in _MARKS:
        if head[at : at + len(mark)] == mark and (at != 8 or head[:4] in (b"RIFF", b"RF64", b"FORM")):
            return "WEBM" if name == "MKV" and b"webm" in head[:64] else name, modality
    for name, modality, fits in _UNMARKED:
        if fits(head):
            return name, modality
    if is_tga(head, file.seek(0, io.SEEK_END)):
        return "TGA", "image"
    return ("", "") if re.search(rb"[\0-\x08\x0e-\x1a\x7f]", head) else ("text", "text")  # in an encoding that read_text refuses by name


def _is_bmp(head: bytes) -> bool:
    return head[:2] == b"BM" and head[6:10] == bytes(4) and len(head) > 18 and struct.unpack("<I", head[14:18])[0] in (12, 40, 52, 56, 64, 108, 124)


def _is_netpbm(head: bytes) -> bool:
    return re.match(rb"P[1-7]\s*(#[^\n]*\n\s*)*(\d+\s|WIDTH )", head) is not None


def _is_icon(head: bytes) -> bool:
    return head[:4] in (b"\0\0\1\0", b"\0\0\2\0") and head[4:6] != b"\0\0" and len(head) > 21 and head[9] == 0


def _is_mpeg_audio(head: bytes) -> bool:
    """The frame header of MPEG audio: eleven ones, then fields of which none holds what is reserved."""
    version, layer, rate, hz = (head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 4, head[2] >> 2 & 3) if len(head) > 3 else (1, 0, 0, 3)
    return head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and version != 1 and layer != 0 and rate not in (0, 15) and hz != 3


def _is_adts(head: bytes) -> bool:
    return len(head) > 6 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 and head[2] >> 2 & 15 < 13


def _is_transport(head: bytes) -> bool:
    """Packets of MPEG-TS begin every 188 bytes, on discs every 192 after a stamp of four."""
    return any(len(head) > at + 2 * step and all(head[at + step * n] == 0x47 for n in range(3)) for at, step in ((0, 188), (4, 192)))


_UNMARKED: tuple[tuple[str, str, Callable[[bytes], bool]], ...] = (
    ("BMP", "image", _is_bmp), ("PPM", "image", _is_netpbm), ("ICO", "image", _is_icon), ("MPEG-TS", "film", _is_transport),
    ("AAC", "audio", _is_adts), ("MP3", "audio", _is_mpeg_audio))
_IN_LETTERS: tuple[tuple[str, str, Callable[[bytes], bool]], ...] = (
    ("PPM", "image", _is_netpbm), ("HDR", "image", lambda head: head.startswith(b"#?RADIANCE")), ("PDF", "", lambda head: head.startswith(b"%PDF-")),
    ("SVG", "", lambda head: b"<svg" in head.lower()))


def _readable(head: bytes) -> bool:
    """Whether bytes are the beginning of a text: UTF-8 without control characters, or UTF-16 with its mark."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return True
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(head) - error.start > 3 or len(head) < HEAD:  # not only a character that the look cut in two
            return False
        text = head[: error.start].decode("utf-8")
    return not any(ord(letter) < 32 and letter not in "\t\n\r\f\x1b" or letter == "\x7f" for letter in text)


def _moves(file: Any) -> bool:
    """Whether a picture has more frames than one; one that is broken says so when it is looked at."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Pillow.open(file, formats=MOVING) as picture:
                return picture.n_frames > 1
    except (OSError, ValueError, SyntaxError, EOFError, AttributeError, struct.error, Pillow.DecompressionBombError):
        return False


def _film(name: str, file: Any) -> Kind:
    """A container by its tracks. One that PyAV does not open is called a film, and says what is wrong when it is looked at."""
    with ExitStack() as stack:
        try:
            container = open_container(name, file, stack)
        except ConfigError:
            return Kind(name, "audio" if name == "OGG" else "video", sound=True)
        except MediaError:
            return Kind(name, "video", sound=True)
        pictures = picture_tracks(container)
        heard = bool(container.streams.audio)
        return Kind(name, "video", sound=heard) if pictures or not heard else Kind("M4A" if name == "MP4" else name, "audio")
