"""Named: models of the catalog opened ready for use, each once a process, in the number format that suits its kind.

    "see", "look", "think", "hear", "embed"   a ModelNet: load(find(name)), packed where its catalog entry says so; the packed copy is kept beside
                                      the published files, so that the next start only reads it
    "speak"                           a Speaker: Kokoro, or espeak-ng where Kokoro is not at hand
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from sensorium.adapt import adapter_base, free_name, load_adapter, merged
from sensorium.catalog import CATALOG, WEIGHTS, find, home, ready
from sensorium.checkpoint import load, save
from sensorium.layers.packed import PACKINGS, pack
from sensorium.model import ModelNet
from sensorium.speak import Speaker, open_speaker
from sensorium.types import CheckpointError, ConfigError, MediaError

__all__ = ["base_of", "best", "open_model", "open_voice"]


def best(*kinds: str) -> str:
    """The first ready model of the first kind that has one, in the catalog's order.

    Raises:
        ConfigError: none is at hand; says how to get one.
    """
    names = [entry.name for kind in kinds for entry in CATALOG.values() if entry.kind == kind]
    found = next((name for name in names if ready(name)), None)
    if found is None:
        raise ConfigError(f"no model that can {' or '.join(kinds)} is at hand; get one: sensorium pull {names[0]}")
    return found


def open_model(name: str | Path, adapter: str | Path | None = None) -> ModelNet:
    """A named model, or a folder's, loaded as its catalog entry says; the same object when asked again.

    Args:
        adapter: folder of an adapter to put onto it. Over float weights it is merged, and what the entry packs is packed in 8 bits: rounded to
            4, much of what was learned would be lost.

    Raises:
        ConfigError: not at hand; says how to get it.
    """
    packing = CATALOG[str(name)].packing if str(name) in CATALOG else None
    if adapter is None:
        return _open(str(find(name)), packing)
    changed = max((file.stat().st_mtime_ns for file in Path(adapter).glob("adapter_*")), default=0)
    return _adapted(str(find(name)), packing, str(adapter), changed)


def base_of(adapter: str | Path) -> str:
    """The name or folder of the model at hand that an adapter was made for.

    Raises:
        ConfigError: none at hand.
    """
    said = adapter_base(adapter)
    known = [name for name in (said, Path(said).name.lower()) if name in CATALOG] if said else []
    try:
        return str(known[0] if known else find(said or ""))
    except ConfigError as error:
        raise ConfigError(f"the adapter {adapter} was made for {said or 'a model that it does not name'}, which is neither a folder here nor in the "
                          "catalog; say what it belongs to with --model") from error


@lru_cache(maxsize=2)
def _adapted(folder: str, packing: str | None, adapter: str, changed: int) -> ModelNet:
    model = load(folder)
    model = load_adapter(model, adapter, free_name(model, "taught"))  # the folder may be called as one of the model's own
    if model.spec.packed is not None:
        return model
    model = merged(model)
    return model if packing is None else pack(model, PACKINGS["int8" if packing == "int4" else packing])


@lru_cache(maxsize=8)
def _open(folder: str, packing: str | None) -> ModelNet:
    if packing is None:
        return load(folder)
    own = Path(folder)
    packed, kept = PACKINGS[packing], (home() / "packed" / own.name if own.parent == WEIGHTS else own) / f"packed-{packing}"
    age = max(file.stat().st_mtime for file in own.iterdir() if file.is_file())
    if (kept / "model.json").is_file() and (kept / "model.json").stat().st_mtime >= age:
        try:
            model = load(kept)
        except CheckpointError:  # of an earlier version, or damaged: made again
            model = None
        if model is not None and model.spec.packed == packed:
            model.folder = own
            return model
    if (own / "model.json").is_file():  # ours: perhaps with adapters, which are merged before
        model = pack(merged(load(folder)), packed)
        model.folder = own
    else:
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
