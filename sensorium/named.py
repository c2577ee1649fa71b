"""Named: models of the catalog opened ready for use, each once a process, in the number format that suits its kind.

    "see", "think", "hear", "embed"   a ModelNet: load(find(name)), packed where its catalog entry says so; the packed copy is kept beside
                                      the published files, so that the next start only reads it
    "speak"                           a Speaker: Kokoro, or espeak-ng where Kokoro is not at hand
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from sensorium.catalog import CATALOG, find, ready
from sensorium.checkpoint import load, save
from sensorium.layers.packed import PACKINGS
from sensorium.model import ModelNet
from sensorium.speak import Speaker, open_speaker
from sensorium.types import CheckpointError, ConfigError, MediaError

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
    if packing is None:
        return load(folder)
    packed, kept = PACKINGS[packing], Path(folder) / f"packed-{packing}"
    age = max(file.stat().st_mtime for file in Path(folder).iterdir() if file.is_file())
    if (kept / "model.json").is_file() and (kept / "model.json").stat().st_mtime >= age:
        try:
            model = load(kept)
        except CheckpointError:  # of an earlier version, or damaged: made again
            model = None
        if model is not None and model.spec.packed == packed:
            model.folder = Path(folder)
            return model
    model = load(folder, packed=packed)
    try:
        save(model, kept)
    except (OSError, MediaError):  # a full disk, or a folder of somebody else: it is made again each time
        pass
    return model


def open_voice(name: str | None = None) -> Speaker:
    """The speaker of a folder or catalog name; None takes the best at hand, in the end espeak-ng."""
    if name is None:
        return open_speaker()
    entry = CATALOG.get(name)
    if entry is not None and entry.kind != "speak":
        raise ConfigError(f"{name} does not speak; models that do: {', '.join(e.name for e in CATALOG.values() if e.kind == 'speak')}")
    return open_speaker(find(name))
