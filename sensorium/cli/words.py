"""Words of the command line: which of them name files, and which are said.

    a file that is there    what it holds, by its content; a word without ending or folder only if it holds a picture, sound or film
    no file, but it ends as pictures, sounds, films or documents do, or is a path    an error, with the nearest name there is
    everything else         a text

What is a path: it begins with ``/``, ``./``, ``../``, ``~/`` or a drive; or it has no blanks, a folder in front, and an ending. A sentence may name
files: it has blanks or marks of its own, and ends with one or begins as questions and requests do.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from sensorium.codecs.media import kind_of, medium
from sensorium.files import claimed, ending_of, hint, nearest
from sensorium.types import Audio, ConfigError, Image, MediaError, Text, Video

__all__ = ["file_of", "named_in", "there", "value"]

_WANTED = {"image": "a picture file", "audio": "a sound file", "video": "a video file", "text": "a text file", "": "a file"}
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[!-~]+", re.IGNORECASE)
_ROOTED = re.compile(r"(?:/|\.{1,2}/|~[^/\s]*/|[A-Za-z]:[\\/])")
_SAID = re.compile(r"[，。？！、：；“”「」《》]|[?!…]\s*$")
_ASKS = re.compile(
    r"\s*(?:(?:please|what|who|whom|whose|which|where|when|why|how|is|are|was|were|am|do|does|did|can|could|should|would|will|may|has|have|"
    r"describe|explain|tell|show|draw|paint|make|create|name|list|write|translate|summari[sz]e|compare|say|find|count|read|transcribe|give|save|"
    r"look|listen|hi|hello)(?:'\w+)?\s|请|描述|说明|解释|翻译|画|写|说|看|听|读|找|数|给|帮|把|将|什么|谁|哪|怎|为什么|这|那|有|用)", re.IGNORECASE)


def value(word: str) -> Any:
    """A word of the command line as a value: what the file it names holds, else the word as a text.

    Raises:
        MediaError: it looks like a file and is none, or the file is nothing that is read.
    """
    path = file_of(word)
    if path is None:
        return Text(word)
    kind, modality = kind_of(path), claimed(word)
    if modality not in ("", "text"):
        if kind.name in ("text", "empty"):
            raise MediaError(f"{word} is {kind}, and so not {_WANTED[modality].removesuffix(' file')}; get a whole copy, or give a text as .txt")
        if not kind.name:  # nothing tells what it is: whoever reads such files shall try
            return {"image": Image, "audio": Audio, "video": Video}[modality](str(path))
    return medium(str(path))


def file_of(word: str) -> Path | None:
    """The file that a word names; None if it is a text.

    Raises:
        MediaError: it looks like a file and is none.
    """
    if not word.strip() or len(word) > 4096 or re.search(r"[\0\r\n]", word):
        return None
    path = Path(os.path.expanduser(word) if word.startswith("~") else word)
    bare = not re.search(r"[/\\]", word) and not ending_of(word)
    try:
        there, whole, folder = path.exists(), path.is_file(), path.is_dir()
    except OSError:  # too long for a name
        return None
    if whole:
        return path if not bare or kind_of(path).modality not in ("", "text") else None
    if _ADDRESS.fullmatch(word):
        raise MediaError(f"{word[:200]} is an address, and nothing is fetched from the web; save it as a file and name that")
    if there and (not bare or not folder):
        if folder and not (_rooted(word) or word.rstrip("/") != word or claimed(word)):
            return None
        raise MediaError(f"{word} is {'a folder' if folder else 'no plain file'}; wanted {_WANTED[claimed(word)]}")
    if _looks_like_file(word, path):
        other = claimed(word) and hint(path, 0.0, lambda name: claimed(name) == claimed(word))  # nothing like it: the nearest of its kind
        raise MediaError(f"{word[:200]} is missing; wanted {_WANTED[claimed(word)]}{hint(path) or other}")
    return None


def named_in(sentence: str) -> list[str]:
    """Pictures, sounds and films that are there and are only spoken of in a sentence: nobody looks at those."""
    words = [word.strip("\"'“”‘’(),，。？?!:;") for word in sentence.split()]
    return [word for word in dict.fromkeys(words) if word != sentence and claimed(word) not in ("", "text") and Path(word).is_file()]


def there(option: str, path: Path, wanted: str, folder: bool = False) -> Path:
    """The file (or folder) that an option names.

    Raises:
        ConfigError: it is not there; names the nearest.
    """
    if path.is_dir() if folder else path.is_file():
        return path
    what = ("a folder" if path.is_dir() else "no folder" if folder else "no plain file") if path.exists() else "missing"
    raise ConfigError(f"{option} {path} is {what}; wanted {wanted}{hint(path)}")


def _rooted(word: str) -> bool:
    """Whether a word begins as paths do; with blanks in it, its first folder must be there."""
    if not _ROOTED.match(word):
        return False
    first = os.path.expanduser(re.match(r"[/.~]*[^/\\]*", word)[0])
    return not re.search(r"\s", word) or bool(re.search(r"[/\\]", word[len(first) + 1 :])) and Path(first).exists() and first.strip("./") != ""


def _looks_like_file(word: str, path: Path) -> bool:
    """Whether a word that names nothing was meant to name a file."""
    ending, blanks = ending_of(word), bool(re.search(r"\s", word.strip()))
    if _SAID.search(word) and not _ROOTED.match(word):
        return False
    if _rooted(word):
        return True
    if claimed(word):
        return not _ASKS.match(word) if blanks or not word.isascii() else True
    if blanks or not word.isascii():
        return False
    if "/" in word:  # "src/main.py"; "and/or" and "AC/DC" have no ending, "3.5/2" and "2/3.5" only digits after the dot
        return bool(ending) or Path(word.split("/")[0]).is_dir()
    near = nearest(path, 0.8) if ending else None  # "mian.py" beside main.py; "node.js" beside nothing like it
    return near is not None and near.suffix.lower() == f".{ending}"
