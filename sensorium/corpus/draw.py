"""Pictures: an SVG body or an encoded picture -> a square RGBA PNG, drawing fitted in the middle, transparent around it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from sensorium.codecs.pictures import open_picture as decoded
from sensorium.types import MediaError

__all__ = ["draw_svg", "icon_svg", "IconSet", "open_picture", "save_png", "square"]

_ALIAS_DEPTH = 8


def square(picture: Image.Image, size: int) -> Image.Image:
    """The picture as RGBA, scaled to fit a transparent ``size`` x ``size`` square, in its middle."""
    picture = picture.convert("RGBA")
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    canvas.paste(picture, ((size - width) // 2, (size - height) // 2))
    return canvas


def open_picture(content: bytes, where: str) -> Image.Image:
    """Decode an encoded picture.

    Raises:
        MediaError: not a picture, broken, or of too many pixels; says ``where``.
    """
    try:
        return decoded(content)
    except MediaError as error:
        raise MediaError(f"{where}: not a readable picture ({error})") from error


def draw_svg(svg: str, where: str) -> Image.Image:
    """Render an SVG at the width and height it states.

    Raises:
        MediaError: not drawable, or nothing visible came out; says ``where``.
    """
    import resvg_py

    try:
        content = bytes(resvg_py.svg_to_bytes(svg_string=svg))
    except (ValueError, RuntimeError) as error:
        raise MediaError(f"{where}: the SVG cannot be drawn ({error})") from error
    picture = open_picture(content, where)
    if not picture.convert("RGBA").getchannel("A").getbbox():
        raise MediaError(f"{where}: the SVG draws nothing")
    return picture


def save_png(picture: Image.Image, path: Path) -> None:
    """Write a PNG in one step: a killed run leaves the old file, the new one, or none."""
    part = path.with_name(path.name + ".part")
    picture.save(part, format="PNG")
    os.replace(part, path)


@dataclass(frozen=True)
class IconSet:
    """The drawings of one package in the Iconify form.

    Args:
        name: of the package, for errors.
        data: the content of ``icons.json``: ``icons`` {name: {body, width, height, left, top}}, ``aliases`` {name: {parent, hFlip, ...}},
            and default sizes.
    """

    name: str
    data: dict[str, Any]

    def names(self) -> list[str]:
        """Names of all drawings, real ones before aliases."""
        return [*self.data["icons"], *self.data.get("aliases", {})]

    def resolve(self, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The drawing behind a name, and the aliases on the way to it, outermost first.

        Raises:
            MediaError: no such drawing, or aliases in a circle.
        """
        aliases: list[dict[str, Any]] = []
        for _ in range(_ALIAS_DEPTH):
            if name in self.data["icons"]:
                return self.data["icons"][name], aliases
            if name not in self.data.get("aliases", {}):
                break
            aliases.append(self.data["aliases"][name])
            name = aliases[-1]["parent"]
        raise MediaError(f"{self.name}: no drawing {name!r}; the package is not the pinned one")


def icon_svg(icons: IconSet, name: str, size: int) -> str:
    """A whole SVG for one drawing, fitted in a ``size`` square, with its aliases' flips and turns applied."""
    icon, aliases = icons.resolve(name)
    width, height = (icon.get(side, icons.data.get(side, 16)) for side in ("width", "height"))
    left, top = icon.get("left", 0), icon.get("top", 0)
    body = icon["body"]
    middle_x, middle_y = left + width / 2, top + height / 2
    for item in [icon, *reversed(aliases)]:
        across, down, turns = (item.get(key) for key in ("hFlip", "vFlip", "rotate"))
        if across or down:
            scale = f"{-1 if across else 1} {-1 if down else 1}"
            body = f'<g transform="translate({middle_x} {middle_y}) scale({scale}) translate({-middle_x} {-middle_y})">{body}</g>'
        if turns:
            body = f'<g transform="rotate({90 * turns} {middle_x} {middle_y})">{body}</g>'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}" width="{size}" height="{size}">{body}</svg>')
