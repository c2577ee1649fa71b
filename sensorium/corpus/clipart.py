"""Clip art: the Debian package ``openclipart-png``, unpacked but not installed -> pictures with a title and keywords.

    fetch_clipart   apt-get download -> .deb, sha256 checked -> dpkg-deb -x into a folder
    read_clipart    its PNG files -> ClipArt: title, keywords, artist

The title is the one in the PNG. Where it names a whole collection rather than the picture ("Various Cliparts", or one title on
``_COLLECTION`` pictures or more), the file's name speaks instead. Keywords are the words of the folders. Left out are folders whose names
say nothing about a picture (icon themes, playing cards, star polygons, gradients), artists whose titles are not English, links and exact
duplicates.
"""

from __future__ import annotations

import hashlib
import html
import os
import re
import shutil
import subprocess
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sensorium.corpus.draw import open_picture, square
from sensorium.corpus.sources import CLIPART
from sensorium.fetch import sha256_of
from sensorium.types import ConfigError, MediaError

__all__ = ["ClipArt", "draw", "fetch_clipart", "plain_title", "read_clipart"]

_LEFT_OUT = re.compile(r"^(computer/(icons|buttons)|shapes/(stars|callouts|jigsaw)|special|recreation/games/cards)/|-theme/")
_NOT_ENGLISH = frozenset({"architetto francesco rollandin", "architetto francesco rollandino", "rollandin francesco",
                          "yves guillou", "jean-victor balin"})
_FLAGS = "signs_and_symbols/flags/"
_COLLECTION = 8
_COLLECTION_WORDS = ("clipart by", "r16 s", "theme", "iconset", "icons", "submission")
_BROKEN = frozenset({"stylized yoga person"})  # drawn as "linked image not found"
_LEAST_PIXELS = 24
_NO_KEYWORDS = frozenset({"unsorted", "and"})
_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class ClipArt:
    """One picture: its id, where its file lies, and its words."""

    id: str
    path: Path
    title: str
    keywords: tuple[str, ...] = ()
    artist: str = ""


def fetch_clipart(downloads: Path) -> Path:
    """The unpacked pictures, fetched and unpacked if they are not there.

    Args:
        downloads: where the package and the unpacked folder are kept.

    Returns:
        The folder with the pictures by theme.

    Raises:
        ConfigError: no ``apt-get`` or ``dpkg-deb`` here.
        MediaError: the package cannot be fetched, or is not the pinned one.
    """
    deb = downloads / CLIPART.file_name
    unpacked = downloads / f"{CLIPART.name}-{CLIPART.sha256[:12]}"
    pictures = unpacked / "usr" / "share" / "openclipart" / "png"
    if pictures.is_dir():
        return pictures
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=downloads, prefix="unpacking-") as folder:
        if not deb.is_file():
            _run(["apt-get", "download", f"{CLIPART.name}={CLIPART.version}"], Path(folder), deb)
            found = next(Path(folder).glob(f"{CLIPART.name}_*.deb"), None)
            if found is None:
                raise MediaError(f"apt-get download left no {CLIPART.name} file; put {CLIPART.file_name} into {downloads} by hand")
            os.replace(found, deb)
        got = sha256_of(deb)
        if got != CLIPART.sha256:
            raise MediaError(f"{deb}: got sha256 {got}, wanted {CLIPART.sha256}; remove it and run again")
        whole = Path(folder) / "whole"
        _run(["dpkg-deb", "-x", str(deb.resolve()), str(whole.resolve())], Path(folder), deb)
        os.replace(whole, unpacked)
    return pictures


def _run(command: list[str], folder: Path, deb: Path) -> None:
    if shutil.which(command[0]) is None:
        raise ConfigError(f"clip art needs {command[0]}, which is not on this machine; build without it: --sources emoji")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        raise MediaError(f"{' '.join(command)} failed: {done.stderr.strip()[-300:]}. Put {deb.name} into {deb.parent} by hand, or build "
                         "without clip art: --sources emoji")


def _readable(text: str) -> str:
    """Text of a PNG as it was meant: UTF-8 read as Latin-1 is undone, entities and underscores too."""
    try:
        text = text.encode("latin-1").decode("utf-8")
    except (UnicodeEncodeError, UnicodeDecodeError):
        pass  # it was Latin-1, or more than that, from the start
    return re.sub(r"[\s_]+", " ", html.unescape(text)).strip()


def plain_title(text: str) -> str:
    """A title without its counter: "Truck1" -> "Truck", "Sail 12" -> "Sail"; "AK47" and "Boeing 747" stay."""
    return re.sub(r"(?<=[a-z)])[ .]?\d{1,2}$", "", text).strip(" -.,")


def _file_title(stem: str, artist: str) -> str:
    """The title in a file's name: "jupiter_dan_gerhards_01" by Dan Gerhards -> "jupiter"."""
    words = re.sub(r"[_\W\d]+", " ", stem).split()
    names = [name for name in re.sub(r"\W+", " ", artist.lower()).split() if len(name) > 1]
    while len(words) > 1 and any(name.startswith(words[-1].lower()) for name in names):
        words.pop()
    return " ".join(word for word in words if word.lower() != "aiga")


def _read_files(folder: Path) -> Iterator[tuple[str, Path, str, str]]:
    """(place in the package, file, title, artist) of every picture that is neither left out nor seen before."""
    seen: set[str] = set()
    for path in sorted(folder.rglob("*.png")):
        place = path.relative_to(folder).as_posix()
        if path.is_symlink() or _LEFT_OUT.search(place):
            continue
        content = sha256_of(path)
        if content in seen:
            continue
        seen.add(content)
        title, artist = _texts(path)
        yield place, path, title, artist


def _texts(path: Path) -> tuple[str, str]:
    """Title and artist inside a PNG, without decoding its pixels; e-mail addresses are left out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                info = picture.info
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return "", ""  # drawing it will say what is wrong
    title, artist = (_readable(str(info.get(key, ""))) for key in ("Title", "Author"))
    return title.split(" | ")[0], re.sub(r"\s*[\[(<]?\S+@\S+", "", artist).strip()


def read_clipart(folder: Path, limit: int | None = None) -> list[ClipArt]:
    """All pictures that have a title, sorted by their place in the package.

    Args:
        folder: from :func:`fetch_clipart`.
        limit: only the first so many.

    Raises:
        MediaError: no pictures there.
    """
    files = [item for item in _read_files(folder) if item[3].lower() not in _NOT_ENGLISH]
    if not files:
        raise MediaError(f"{folder} holds no clip art; remove it and run again")
    times = Counter(plain_title(title).lower() for _, _, title, _ in files)
    found = []
    for place, path, title, artist in files:
        name = plain_title(title)
        if not name or times[name.lower()] >= _COLLECTION or any(word in name.lower() for word in _COLLECTION_WORDS):
            name = _file_title(path.stem, artist)
        if len(re.sub(r"[^A-Za-z]", "", name)) < 3 or name.lower() in _BROKEN:
            continue
        if place.startswith(_FLAGS) and "flag" not in name.lower():
            name = f"flag: {name}"
        keywords = [word for word in re.split(r"[/_ ]+", os.path.dirname(place)) if word not in _NO_KEYWORDS]
        found.append(ClipArt(_identity(place), path, name, tuple(dict.fromkeys(keywords)), artist))
    return found[:limit]


def _identity(place: str) -> str:
    """A file name out of a place; six digits of its hash keep places apart that read the same."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", place.removesuffix(".png")).strip("-").lower()
    return f"{stem}-{hashlib.sha256(place.encode()).hexdigest()[:6]}"


def draw(picture: ClipArt, size: int) -> Image.Image:
    """What is visible of the picture, fitted in a transparent square of ``size`` pixels.

    Raises:
        MediaError: broken, far too large, or nothing much visible on it.
    """
    opened = open_picture(picture.path.read_bytes(), f"clipart/{picture.id}").convert("RGBA")
    box = opened.getchannel("A").getbbox()  # many are small on an empty page
    if box is None or max(box[2] - box[0], box[3] - box[1]) < _LEAST_PIXELS:
        raise MediaError(f"clipart/{picture.id}: nothing is visible on it, or less than {_LEAST_PIXELS} pixels")
    return square(opened.crop(box), size)
