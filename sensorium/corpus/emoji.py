"""Concepts of the Unicode emoji with English and Chinese words, and where each art style draws them.

    read_concepts   emojibase tarball -> 1,949 concepts (no skin tones)
    Drawings        one style's tarball -> {concept: drawing}, and the picture of each

A concept's id is its code points in lowercase hex, joined by "-", without FE0F (which only asks for a coloured glyph) and without leading
zeros: "1f34e", "1f441-200d-1f5e8", "23-20e3". Every package is joined on it.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from sensorium.corpus.draw import IconSet, draw_svg, icon_svg, open_picture, square
from sensorium.corpus.names import NameBook
from sensorium.corpus.sources import Style, read_members
from sensorium.types import MediaError

__all__ = ["Concept", "concept_id", "Drawings", "name_book", "read_concepts", "read_drawings"]


@dataclass(frozen=True)
class Concept:
    """One thing that emoji draw, with its words. ``en`` and ``zh`` are the label, the main name, in English and Chinese."""

    id: str
    char: str
    en: str
    zh: str
    keywords_en: tuple[str, ...] = ()
    keywords_zh: tuple[str, ...] = ()
    group: str = ""
    subgroup: str = ""


def concept_id(code_points: str) -> str:
    """The id of "-"-joined hex code points: "0023-FE0F-20E3" -> "23-20e3".

    Raises:
        MediaError: not hex code points.
    """
    try:
        numbers = [int(piece, 16) for piece in code_points.split("-")]
    except ValueError as error:
        raise MediaError(f"got {code_points!r}, wanted hex code points joined by '-'") from error
    return "-".join(f"{number:x}" for number in numbers if number != 0xFE0F)


def _json_members(tarball: Path, wanted: Iterable[str]) -> dict[str, Any]:
    names = set(wanted)
    found = {name: json.loads(content) for name, content in read_members(tarball, names.__contains__)}
    if names - set(found):
        raise MediaError(f"{tarball.name} has no {sorted(names - set(found))}; remove it and run again")
    return found


def read_concepts(tarball: Path) -> list[Concept]:
    """All concepts of an emojibase tarball, in its order.

    Raises:
        MediaError: a file is missing in it, or a concept has no Chinese entry.
    """
    files = _json_members(tarball, ("en/data.json", "zh/data.json", "meta/groups.json"))
    chinese = {concept_id(entry["hexcode"]): entry for entry in files["zh/data.json"]}
    groups, subgroups = files["meta/groups.json"]["groups"], files["meta/groups.json"]["subgroups"]
    concepts = []
    for entry in files["en/data.json"]:
        key = concept_id(entry["hexcode"])
        if key not in chinese:
            raise MediaError(f"{tarball.name}: concept {key} has no Chinese label; the package is not the pinned one")
        concepts.append(Concept(
            id=key, char=entry["emoji"], en=entry["label"], zh=chinese[key]["label"], keywords_en=tuple(entry.get("tags", ())),
            keywords_zh=tuple(chinese[key].get("tags", ())), group=groups.get(str(entry.get("group")), ""),
            subgroup=subgroups.get(str(entry.get("subgroup")), "")))
    return concepts


def name_book(concepts: Sequence[Concept], emojibase: Path, mapped: Sequence[Path]) -> NameBook:
    """The names by which drawings without code points find their concept.

    Args:
        concepts: all of them.
        emojibase: its tarball, for the shortcodes.
        mapped: tarballs of packages that map code points to names (``chars.json``).
    """
    known = {concept.id for concept in concepts}

    def inside(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        return [(name, key) for name, key in pairs if key in known]

    drawn = [(name, concept_id(points)) for path in mapped for points, name in _json_members(path, ["chars.json"])["chars.json"].items()]
    official = [(unicodedata.name(concept.char[0], ""), concept.id) for concept in concepts if "-" not in concept.id]
    shortcodes = []
    for _, content in read_members(emojibase, lambda name: name.startswith("en/shortcodes/") and name.endswith(".json")):
        for points, codes in json.loads(content).items():
            shortcodes += [(code, concept_id(points)) for code in ([codes] if isinstance(codes, str) else codes)]
    labels = [(concept.en, concept.id) for concept in concepts]
    return NameBook([inside(drawn), labels, official, inside(shortcodes)])


@dataclass(frozen=True)
class Drawings:
    """What one style draws: {concept id: name of the drawing in its package}, and how to get a picture of it."""

    style: Style
    names: dict[str, str]
    picture: Callable[[str, int], Image.Image]


def read_drawings(style: Style, tarball: Path, concepts: Sequence[Concept], book: NameBook) -> Drawings:
    """Open one style's package and join its drawings to the concepts.

    Args:
        style: which one; its ``join`` says how.
        tarball: its package.
        concepts: all of them; what draws none of them (skin tones, extra signs) is left out.
        book: for ``join="names"``.
    """
    known = {concept.id for concept in concepts}
    if style.join == "files":
        return _read_files(style, tarball, known)
    files = _json_members(tarball, ("icons.json", "chars.json"))
    icons = IconSet(tarball.name, files["icons.json"])
    if style.join == "characters":
        pairs = [(concept_id(points), name) for points, name in files["chars.json"].items()]
    else:
        pairs = [(_find(book, name, style.name), name) for name in icons.names()]
    names: dict[str, str] = {}
    for key, name in pairs:
        if key in known:
            names.setdefault(key, name)

    def picture(key: str, size: int) -> Image.Image:
        return square(draw_svg(icon_svg(icons, names[key], size), f"{style.name}/{key}"), size)

    return Drawings(style, names, picture)


def _find(book: NameBook, name: str, style: str) -> str | None:
    """The concept of a drawing; "pizza-1" is the first of several drawings of "pizza", and the others are left out."""
    return book.find(name, style) or book.find(name.removesuffix("-1"), style)


def _read_files(style: Style, tarball: Path, known: set[str]) -> Drawings:
    contents: dict[str, bytes] = {}
    for name, content in read_members(tarball, lambda name: name.endswith((".webp", ".png"))):
        key = concept_id(PurePosixPath(name).stem)
        if key in known:
            contents.setdefault(key, content)

    def picture(key: str, size: int) -> Image.Image:
        return square(open_picture(contents[key], f"{style.name}/{key}"), size)

    return Drawings(style, {key: key for key in contents}, picture)
