"""Eval of the conversion matrix: every modality to every modality, on held-out inputs, each cell judged by what came out.

    inputs      names; pictures in styles not seen for their concept; names spoken by voices never heard; clips never trained on
    to text     the name, letter for letter (from a name: its name in the other language)
    to image    recognised by the judge among its first five
    to audio    read back by Whisper as the name
    to video    recognised by the judge, over its frames, among its first five
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

import sensorium as sn
from sensorium.catalog import WEIGHTS
from sensorium.codecs.clips import load_video
from sensorium.conversions import Converter, voice_of
from sensorium.denoise import Solver
from sensorium.evals.figures import Figure, share
from sensorium.evals.judge import Judge
from sensorium.evals.nano import Held
from sensorium.evals.speech import Listener, own_ears, read_as
from sensorium.files import read_lines
from sensorium.named import best, open_model
from sensorium.types import MODALITIES, ConfigError, Media, Text

__all__ = ["cell_name", "evaluate_matrix", "Item", "items_of"]


@dataclass(frozen=True)
class Item:
    """A held-out input: the value, its concept, and its language where it has one."""

    value: Text | Media
    concept: str
    language: str = "en"


def cell_name(source: str, target: str) -> str:
    """What a cell's figure is called."""
    return f"{source} to {target}"


def items_of(held: Held, source: str, judged: Sequence[str], drawn: bool, limit: int, seed: int = 0) -> list[Item]:
    """Held-out inputs of a modality.

    Args:
        judged: concepts that the judge knows.
        drawn: only of these, for what is drawn of them is judged.
        limit: at most so many, chosen by ``seed``.

    Raises:
        ConfigError: the corpus has no sounds or no clips.
    """
    known = set(judged)
    if source == "text":
        found = [Item(Text(held.concepts[concept]["en"]), concept) for concept in judged]
    elif source == "image":
        found = [Item(held.picture(row), row["concept"]) for row in held.rows("test")]
    else:
        file, how = {"audio": ("spoken.jsonl", "sensorium.corpus.spoken"), "video": ("clips.jsonl", "sensorium.corpus.animated")}[source]
        if not (held.folder / file).is_file():
            raise ConfigError(f"{held.folder} has no {file}; make it: python -m {how} {held.folder}")
        kind, media = ("take", sn.Audio) if source == "audio" else ("split", sn.Video)
        rows = [row for row in read_lines(held.folder / file) if row[kind] == "test" and row.get("heard", True)]
        found = [Item(media(held.folder / row["parts"][0][source]), row["concept"], row.get("language", "en")) for row in rows]
    found = [item for item in found if item.concept in known] if drawn else found
    order = np.random.default_rng(seed).permutation(len(found))[:limit]
    return [found[i] for i in sorted(order)]


@dataclass
class _Marker:
    """Says which outputs are right."""

    held: Held
    judge: Judge
    ears: Listener

    def right(self, items: Sequence[Item], made: Sequence[Text | Media], source: str, target: str) -> list[bool]:
        """One yes or no an item."""
        if target in ("image", "video"):
            return (self._ranks([item.concept for item in items], made, target) < 5).tolist()
        pairs = [(self.held.concepts[item.concept][self.language(item, source, target)], self.language(item, source, target)) for item in items]
        if target == "text":
            return [out.text == name for out, (name, _) in zip(made, pairs, strict=True)]
        return [read_as(self.ears(out, tongue), tongue) == read_as(name, tongue) for out, (name, tongue) in zip(made, pairs, strict=True)]

    @staticmethod
    def language(item: Item, source: str, target: str) -> str:
        """Of the name that should come out: a name is translated, everything else stays in its language."""
        return {"en": "zh", "zh": "en"}[item.language] if source == target == "text" else item.language

    def _ranks(self, concepts: Sequence[str], made: Sequence[Media], target: str) -> torch.Tensor:
        if target == "image":
            return self.judge.ranks(self.judge.codec.encode_all(made), concepts)
        return self.judge.film_ranks([load_video(video) for video in made], concepts)


def evaluate_matrix(name: str, data: Path, limit: int | None = None, seed: int = 0, console: Console | None = None,
                    only: Sequence[str] | None = None) -> list[Figure]:
    """A figure for each of the sixteen cells.

    Args:
        name: of the any-to-any model.
        data: the corpus with its spoken names and clips.
        limit: at most this many items a cell; None is 100.
        seed: of drawings and of the items chosen.
        only: these cells by name, such as "audio to image"; None is all.

    Raises:
        ConfigError: no corpus, no voice, no ears, or no judge at hand; no such cell.
        ModalityError: a cell that nothing at hand can do.
    """
    cells = {cell_name(source, target): (source, target) for source in MODALITIES for target in MODALITIES}
    if unknown := sorted(set(only or ()) - set(cells)):
        raise ConfigError(f"the matrix has no cell {', '.join(unknown)}; wanted some of {', '.join(cells)}")
    console, held, judge = console or Console(stderr=True), Held(Path(data)), Judge.load(WEIGHTS / "judge")
    marker = _Marker(held, judge, own_ears(open_model(best("hear"))))
    model = open_model(name)
    converter = Converter(model, name, voice_of(model, name), Solver(seed=seed))
    figures = []
    for cell, (source, target) in cells.items():
        if only and cell not in only:
            continue
        items = items_of(held, source, judge.judged, target in ("image", "video"), limit or 100, seed)
        with console.status(f"{len(items)} x {cell}"):
            made: list[Text | Media] = [Text("")] * len(items)
            for tongue in ("en", "zh"):
                some = [i for i, item in enumerate(items) if marker.language(item, source, target) == tongue]
                for i, one in zip(some, converter.convert([items[i].value for i in some], target, tongue), strict=True):
                    made[i] = one
            hits = marker.right(items, made, source, target)
        chance = 5 / len(judge.judged) if target in ("image", "video") else 1 / len(held.concepts)
        figures.append(share(cell, hits, seed, chance=chance))
        console.print(f"  {cell}: {figures[-1].value:.1%} of {len(items)}", highlight=False)
    return figures
