"""Files: one way to write, so that nobody ever finds half of one; lines and notes of JSON; what a name claims, and the nearest to a missing one."""

from __future__ import annotations

import itertools
import json
import os
import re
import uuid
from collections.abc import Callable, Iterable
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, BinaryIO

from sensorium.types import MediaError

__all__ = ["claimed", "CLAIMS", "ending_of", "hint", "nearest", "open_file", "read_lines", "read_note", "write_file", "write_lines"]

_ENDINGS = {
    "image": "png apng jpg jpeg jpe jfif webp gif bmp dib tif tiff ppm pgm pbm pnm pfm avif heic heif hif jp2 j2k j2c jpc jpf jpx jxl tga ico "
             "cur icns qoi dds mpo svg psd dng nef",
    "audio": "wav wave mp3 flac ogg oga opus m4a m4b aac aif aiff wma amr caf mka weba mid midi",
    "video": "mp4 m4v mkv webm mov avi wmv flv mpg mpeg mts m2ts 3gp 3g2 ogv mxf",
    "text": "txt csv tsv json jsonl srt vtt pdf doc docx ppt pptx xls xlsx epub",
}
CLAIMS = {ending: modality for modality, endings in _ENDINGS.items() for ending in endings.split()}
"""Endings of names that are surely names of files: the modality that they claim; some of them cannot be read."""


def ending_of(name: str | Path) -> str:
    """What stands after the last dot of a name, in lower case; "" where that is no ending, as in "e.g." and "2/3.5"."""
    found = re.search(r"[^/\\.\s][^/\\]*\.([A-Za-z0-9]{1,5})$", str(name))
    return found[1].lower() if found and not found[1].isdigit() else ""


def claimed(name: str | Path) -> str:
    """The modality that a name claims by its ending, or ""."""
    return CLAIMS.get(ending_of(name), "")


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file that the project itself wrote."""
    text = Path(path).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line.strip()]  # texts may hold other line separators, which JSON leaves as they are


def read_note(text: str | None) -> dict[str, Any]:
    """What a note inside a file says made it, as JSON; {} where there is none, or one of somebody else's."""
    try:
        found = json.loads(text) if text else {}
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def write_lines(path: str | Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows as JSON lines in one step, and say how many they were."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    write_file(path, "".join(lines).encode())
    return len(lines)


def write_file(path: str | Path, data: bytes) -> Path:
    """Write a file in one step: whoever looks finds the old file or the whole new one, never half.

    Args:
        path: where to; missing folders are made.
        data: everything the file shall hold.

    Returns:
        The path.

    Raises:
        MediaError: the place cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:50]}.{uuid.uuid4().hex}.part")  # same folder, so that the last step is one rename
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise MediaError(f"{str(path)[:200]!r} cannot be written ({error.strerror}); choose another place") from error
    finally:
        if path.parent.is_dir():
            temporary.unlink(missing_ok=True)
    return path


def nearest(path: str | Path, least: float = 0.4, fit: Callable[[str], bool] = bool) -> Path | None:
    """The file or folder that is there whose name is most like one that is not; the same name with another ending comes first.

    Args:
        least: how much alike names must be, 0..1; at 0.4 a name with the same ending is one.
        fit: whether a name may stand for the last part.
    """
    path = Path(path)
    here = Path(path.anchor)
    parts = path.parts[1:] if path.anchor else path.parts
    for number, part in enumerate(parts, start=1):
        if os.path.lexists(here / part):
            here = here / part
            continue
        last, wanted = number == len(parts), Path(part)
        try:
            entries = [entry for entry in itertools.islice(os.scandir(here), 10_000) if not entry.name.startswith(".")]
        except OSError:  # a file stands where a folder was named, or it may not be read
            return None
        names = [entry.name for entry in entries if (not entry.is_dir() if last and wanted.suffix else last or entry.is_dir())]
        alike = [(Path(name).stem.lower() == wanted.stem.lower(), SequenceMatcher(None, part.lower(), name.lower()).ratio(), name)
                 for name in names if not last or fit(name)]
        same, ratio, name = max(alike, default=(False, 0.0, ""))
        if not same and ratio < (least if last else max(least, 0.4)) or not name:
            return None
        here = here / name
    return here if parts else None


def hint(path: str | Path, least: float = 0.4, fit: Callable[[str], bool] = bool) -> str:
    """The end of a sentence about a file that is missing: the nearest name there is; "" where there is none, or the file is there. The rest is as in
    :func:`nearest`."""
    try:
        near = None if os.path.lexists(path) else nearest(path, least, fit)
    except ValueError:  # a NUL in the name
        near = None
    return f"; the nearest name there is {near}" if near else ""


def open_file(path: str | Path, wanted: str) -> BinaryIO:
    """A file opened to be read.

    Args:
        wanted: what it should be, for errors: "a sound file".

    Raises:
        MediaError: missing, a folder, no plain file, or not to be read.
    """
    name = str(path)[:200]
    try:
        if Path(path).is_file():
            return open(path, "rb")
        what = "a folder" if Path(path).is_dir() else "no plain file" if os.path.lexists(path) else "missing"
    except (OSError, ValueError) as error:
        raise MediaError(f"{name!r} cannot be read ({str(error)[:80]}); wanted {wanted}") from error
    raise MediaError(f"{name} is {what}; wanted {wanted}{hint(path)}")
