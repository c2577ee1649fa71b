"""Catalog: where named weights come from.

    nano        packaged with the project
    a folder    any saved model, ours or published

A name is looked for as a folder first, then among the packaged weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sensorium.types import ConfigError

__all__ = ["Card", "find", "packaged"]

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Card:
    """A packaged model: its name, folder, what its card says, and its size on disk in bytes."""

    name: str
    folder: Path
    about: dict[str, Any]
    bytes: int


def packaged() -> list[Card]:
    """Every model that ships with the project."""
    out = []
    for path in sorted(WEIGHTS.glob("*/model.json")):
        card = path.parent / "card.json"
        about = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
        size = sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file())
        out.append(Card(path.parent.name, path.parent, about, size))
    return out


def find(name: str | Path) -> Path:
    """The folder of a named model.

    Raises:
        ConfigError: neither a folder with a model nor a known name; says which names are known.
    """
    folder = Path(name)
    if (folder / "model.json").is_file() or (folder / "config.json").is_file():
        return folder
    for card in packaged():
        if card.name == str(name):
            return card.folder
    known = ", ".join(card.name for card in packaged()) or "none"
    raise ConfigError(f"no model {str(name)!r}: it is neither a folder with model.json or config.json nor one of the packaged: {known}")
