"""Named: models of the catalog opened ready for use, each once a process, in the number format that suits its kind.

    "see", "think", "hear", "embed"   a ModelNet: load(find(name)), packed where its catalog entry says so
    "speak"                           a Speaker: Kokoro, or espeak-ng where Kokoro is not at hand
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from sensorium.catalog import CATALOG, find, ready
from sensorium.checkpoint import load
from sensorium.layers.packed import PACKINGS
from sensorium.model import ModelNet
from sensorium.speak import Speaker, open_speaker
from sensorium.types import ConfigError

__all__ = ["best", "open_model", "open_voice"]


def best(kind: str) -> str | None:
    """The first ready model of a kind in the catalog's order, or None."""
    return next((entry.name for entry in CATALOG.values() if entry.kind == kind and ready(entry.name)), None)


def open_model(name: str | Path) -> ModelNet:
    """A named model, or a folder's, loaded as its catalog entry says; the same object when asked again.

    Raises:
        ConfigError: not at hand; says how to get it.
    """
    return _open(str(find(name)), CATALOG[str(name)].packing if str(name) in CATALOG else None)


@lru_cache(maxsize=8)
def _open(folder: str, packing: str | None) -> ModelNet:
    return load(folder, packed=PACKINGS[packing] if packing else None)


def open_voice(name: str | None = None) -> Speaker:
    """The speaker of a folder or catalog name; None takes the best at hand, in the end espeak-ng."""
    if name is not None:
        entry = CATALOG.get(name)
        if entry is not None and entry.kind != "speak":
            raise ConfigError(f"{name} does not speak; models that do: {', '.join(e.name for e in CATALOG.values() if e.kind == 'speak')}")
        return open_speaker(find(name))
    chosen = best("speak")
    return open_speaker(find(chosen) if chosen else None)
