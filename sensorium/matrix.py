"""The conversion matrix: each of text, image, audio and video turned into each, on one page, with how often every cell is right."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

import sensorium as sn
from sensorium.catalog import WEIGHTS
from sensorium.codecs.media import files_of
from sensorium.codecs.sentences import language
from sensorium.conversions import Converter
from sensorium.files import write_file
from sensorium.page import Page, media_data
from sensorium.types import MODALITIES, Media, Text

__all__ = ["add_matrix", "example_inputs", "make_matrix"]

FIGURES = WEIGHTS / "nano" / "matrix.json"
ENDINGS = {"text": ".txt", "image": ".png", "audio": ".wav", "video": ".webp"}
TEXTS = ("frog", "watermelon")


def example_inputs(folder: Path) -> list[Text | Media]:
    """The inputs that come with the project: names, pictures, sounds and clips of things, none of which nano was trained on in this form."""
    found: list[Text | Media] = [Text(text) for text in TEXTS]
    for name, media, count in (("pictures", sn.Image, 2), ("sounds", sn.Audio, 2), ("clips", sn.Video, 2)):
        paths = files_of(folder / name, media.modality).found
        found += [media(path) for path in paths[:: max(len(paths) // count, 1)][:count]]
    return found


def make_matrix(folder: Path, converter: Converter, inputs: Sequence[Text | Media], console: Console) -> Path:
    """Convert every input to all four modalities and write ``folder/index.html`` beside the files.

    Args:
        folder: made if missing.
        converter: does the work.
        inputs: of any modality that its model reads.

    Raises:
        ModalityError: an input that cannot be read.
    """
    page, begin = Page(), time.perf_counter()
    count = add_matrix(page, folder, converter, inputs, console)
    lead = f"{len(inputs)} inputs, {count} conversions in {time.perf_counter() - begin:.1f} s on this CPU; right or wrong, as they came out."
    return write_file(folder / "index.html", page.html("Sensorium: everything to everything", lead).encode())


def add_matrix(page: Page, folder: Path, converter: Converter, inputs: Sequence[Text | Media], console: Console) -> int:
    """The matrix as a section of a page; gives the number of conversions."""
    folder.mkdir(parents=True, exist_ok=True)
    quality, rows, count = _quality(), [], 0
    for number, value in enumerate(inputs, start=1):
        shown = str(value) if value.modality == "text" else ""
        title = Path(value.source).stem if value.modality != "text" and isinstance(value.source, str | Path) else value.modality
        row, tongue = [(shown, media_data(value), f"given: {title if not shown else value.modality}")], _tongue(value, title)
        for target in MODALITIES:
            start = time.perf_counter()
            (made,) = replace(converter, solver=replace(converter.solver, seed=converter.solver.seed + number)).convert([value], target, tongue)
            spent, count = time.perf_counter() - start, count + 1
            way = converter.way(value.modality, target)
            path = folder / f"{number}-{value.modality}-to-{target}{ENDINGS[target]}"
            write_file(path, made.text.encode()) if target == "text" else made.save(path)
            figure = quality.get((value.modality, target))
            small = f"{way}; {spent:.2f} s" + (f"; {figure} of held-out inputs right" if figure else "")
            row.append((made.text if target == "text" else "", media_data(made), small))
            console.print(f"  {title} {value.modality} -> {target} {made.text if target == 'text' else path.name}  [dim]{way}, {spent:.2f} s[/]",
                          highlight=False)
        rows.append(row)
    page.section("Everything to everything", "In each row the first cell was given, and the others are what it became. Small print: models on the "
                                             "way, the time, and how often this cell is right on held-out inputs (sensorium eval matrix).")
    page.cells(["given", *(f"to {name}" for name in MODALITIES)], rows)
    return count


def _tongue(value: Text | Media, title: str) -> str:
    """Language of the name that is wanted: a name is translated; a file whose name ends in "-zh" is Chinese."""
    if value.modality == "text":
        return {"en": "zh", "zh": "en"}[language(value.text)]
    return "zh" if title.endswith("-zh") else "en"


def _quality() -> dict[tuple[str, str], str]:
    """Measured shares by cell, as shown; {} where none are packaged."""
    if not FIGURES.is_file():
        return {}
    cells = {f"{a} to {b}": (a, b) for a in MODALITIES for b in MODALITIES}
    rows = json.loads(FIGURES.read_text(encoding="utf-8"))
    return {cells[row["name"]]: f"{row['value']:.0%}" for row in rows if row["name"] in cells}
