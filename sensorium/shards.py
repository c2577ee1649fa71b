"""Shards: samples as members that share a name: webdataset tars, and folders of files that are laid out as their members would be.

    000.png, 000.txt, 000.json, 001.png ...  -> key 000, endings png, txt, json -> the JSON's parts, or a medium with its caption -> Sample

A key is the name up to the first dot of its last piece; endings have no case.
"""

from __future__ import annotations

import re
import shutil
import tarfile
import tempfile
import weakref
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from sensorium.layouts import ENDINGS
from sensorium.tables import parse_json, parse_named
from sensorium.types import MediaError, Sample

__all__ = ["Loose", "Tar"]

_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)")
_TEXTS = ("txt", "cls", "caption", "text", "transcription")
Member = Callable[[], bytes]


def _grouped(members: Iterable[tuple[str, Member]], name: str, heads: Collection[str]) -> tuple[dict[str, dict[str, Member]], tuple[str, ...]]:
    """Key -> ending -> member, in the order of the file; and a note about members of no sample, which has an ending of ``heads``."""
    groups: dict[str, dict[str, Member]] = {}
    stray = []
    for path, member in members:
        found = _NAME.fullmatch(path)
        if found is None or re.match(r"__[^/]*__($|/)", path):
            stray.append(path)
            continue
        endings = groups.setdefault(found[1], {})
        if found[2].lower() in endings:
            raise MediaError(f"{name} holds {path!r} twice, or with its ending in other cases; write the shard again with one of each")
        endings[found[2].lower()] = member
    samples = {key: held for key, held in groups.items() if held.keys() & set(heads)}
    stray += [f"{key}.{ending}" for key, held in groups.items() if key not in samples for ending in held]
    said = f"{name}: {len(stray)} files left out, as {stray[0]!r}: no medium or .json has their key (which ends at its first dot)" if stray else ""
    if not samples:
        raise MediaError(said or f"{name} is empty; wanted members such as 000.png and 000.txt")
    return samples, (said,) if said else ()


def _sample(held: dict[str, Member], where: str) -> Sample:
    """What the members of one key say together."""
    data: Any = parse_json(held["json"](), where) if "json" in held else {}
    others = {ending: member for ending, member in held.items() if ending != "json"}
    if not isinstance(data, dict) or "parts" in data or any(name.removesuffix("s") in ("image", "audio", "video") for name in data):
        return parse_named(data, where, others)
    texts = {ending: _text(others[ending](), f"{where}.{ending}") for ending in _TEXTS if ending in others}
    media = {ending: member() for ending, member in others.items() if ending in ENDINGS}
    clash = sorted((texts.keys() | media.keys()) & data.keys() - {name for name, text in texts.items() if data.get(name) == text})
    if clash:
        raise MediaError(f"{where} holds {clash[0]!r} as a member and in its JSON; keep one")
    rest = {ending: member for ending, member in others.items() if ending not in texts and ending not in media}
    return parse_named({**data, **texts, **media}, where, rest)


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MediaError(f"{where}: byte {error.start + 1} is not UTF-8; save it as UTF-8") from error


class _Members:
    """Samples of named members: one for each key."""

    path: Path

    def _group(self, members: Iterable[tuple[str, Member]], heads: Collection[str]) -> None:
        self._samples, self.notes = _grouped(members, self.path.name, heads)
        self._keys = list(self._samples)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Sample:
        key = self._keys[index]
        return _sample(self._samples[key], f"{self.path.name}, {key}")


class Tar(_Members):
    """A webdataset tar: ``KEY.json`` holds the parts, or whatever another layout writes; without it a medium stands with its ``txt`` or ``cls``.

    A medium in the JSON is the rest of its member's name: {"image": "png"} is ``KEY.png``. A packed tar is unpacked into a temporary file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self._whole = Path(path), None
        try:
            if self.path.suffix.lower() != ".tar":
                import pyarrow as arrow

                self._whole = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as this source is)
                weakref.finalize(self, self._whole.close)
                with arrow.input_stream(self.path, compression="gzip" if self.path.suffix.lower() == ".tgz" else "detect") as stream:
                    shutil.copyfileobj(stream, self._whole)
                self._whole.seek(0)
            with tarfile.open(None if self._whole else self.path, "r:", self._whole) as tar:
                members = [self._member(item) for item in tar if not item.isdir()]
        except (OSError, tarfile.TarError) as error:
            raise MediaError(f"{self.path} is not a readable tar ({error}); wanted a webdataset shard") from error
        self._group(members, (*ENDINGS, "json"))

    def _member(self, item: tarfile.TarInfo) -> tuple[str, Member]:
        if _NAME.fullmatch(item.name) and (not item.isreg() or item.sparse is not None):
            raise MediaError(f"{self.path.name} holds {item.name!r} as a link or with holes; write it again with plain files (tar --dereference)")
        return item.name, lambda: self._read(item.offset_data, item.size)

    def _read(self, offset: int, size: int) -> bytes:
        if self._whole is not None:
            self._whole.seek(offset)
            return self._whole.read(size)
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(size)


class Loose(_Members):
    """A folder whose files are named as the members of a webdataset tar.

    Args:
        path: of the folder.
        known: files in it that are of no sample.
    """

    def __init__(self, path: str | Path, known: Collection[Path] = ()) -> None:
        self.path = Path(path)
        names = {file.relative_to(self.path): file for file in sorted(self.path.rglob("*")) if file.is_file() and file not in known}
        members = ((name.as_posix(), file.read_bytes) for name, file in names.items() if not any(piece.startswith(".") for piece in name.parts))
        self._group(members, ENDINGS)
