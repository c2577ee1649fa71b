"""Samples: the one format, read from whatever tools write: JSON lines, CSV, parquet, arrow, webdataset tars, folders; and mixtures of them.

    {"parts": [{"image": "dog.png"}, {"text": "a dog", "target": true}]}       one line, one sample

    open_source   a file, or a folder of shards -> samples by number
    Mixture       several sources by weight; place k of the stream is known without walking there, so a run resumes exactly
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sensorium.files import open_file
from sensorium.layouts import parse_sample
from sensorium.shards import Loose, Tar
from sensorium.tables import Columns, CommaSeparated, Joined, JsonLines, Source, downloads
from sensorium.types import ConfigError, MediaError

__all__ = ["Mixture", "open_source", "parse_sample", "Source"]

_KINDS: dict[str, Callable[[Path], Source]] = {
    ".jsonl": JsonLines, ".json": JsonLines, ".csv": CommaSeparated, ".tsv": CommaSeparated, ".parquet": Columns, ".arrow": Columns, ".tar": Tar,
    ".tgz": Tar}
_PACKED = (".gz", ".bz2", ".zst")
_SHARD = re.compile(r"(.*)-(\d{5,})-of-(\d{5,})")


def open_source(path: str | Path) -> Source:
    """Open samples by the file's ending: .jsonl, .json, .csv, .tsv (all also packed), .parquet, .arrow, .tar, or a folder.

    A folder is what ``datasets`` saved, media with metadata.jsonl, .csv or .parquet beside them, shards of one kind, or files named as the
    members of a webdataset tar.

    Raises:
        MediaError: missing, or none of these.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path)
    open_file(path, "a file of samples, or a folder of them").close()
    endings = [suffix.lower() for suffix in path.suffixes[-2:]] or [""]
    ending = endings[-2] if endings[-1] in _PACKED and len(endings) > 1 else endings[-1]
    kind = _KINDS.get(ending)
    if kind is None or (ending in (".parquet", ".arrow", ".tgz") and endings[-1] in _PACKED):
        raise MediaError(f"{path} ends in {path.suffix!r}, wanted one of {sorted(_KINDS)}, or a folder of them")
    return kind(path)


def _folder(folder: Path) -> Source:
    """A folder's samples."""
    if (folder / "dataset_dict.json").is_file():
        parts = sorted(part.name for part in folder.iterdir() if (part / "state.json").is_file())
        if not parts:
            raise MediaError(f"{folder} has a dataset_dict.json and none of the splits that it names; save the dataset again")
        raise MediaError(f"{folder} holds a dataset in {', '.join(parts)}; give one of them, as {folder / parts[0]}")
    tables = [path for path in (folder / f"metadata{ending}" for ending in _KINDS) if path.is_file()]
    if tables:
        return _one(folder, tables)
    saved = sorted(folder.glob("data-*.arrow")) if (folder / "state.json").is_file() else []
    shards: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        ending = next((end for end in file.suffixes[-2:] if end.lower() in _KINDS), "").lower()
        if file.is_file() and ending and not file.name.startswith(".") and ending != ".json":
            shards.setdefault(ending, []).append(file)
    about: list[Path] = []
    if all(file.with_suffix("").is_dir() or file.with_suffix(".tar").is_file() for file in shards.get(".parquet", [])):
        about = shards.pop(".parquet", [])  # what img2dataset notes about the shard beside it
    notes = [note for file in about for note in downloads(file)]
    if not saved and not shards:
        return Joined([Loose(folder, about)], notes)
    if not saved and len(shards) > 1:
        raise MediaError(f"{folder} holds {' and '.join(sorted(shards))} files, and nothing says which hold the samples; give one file")
    return Joined([open_source(file) for file in _whole(folder, saved or next(iter(shards.values())))], notes)


def _one(folder: Path, files: Sequence[Path]) -> Source:
    if len(files) > 1:
        raise MediaError(f"{folder} holds {' and '.join(file.name for file in files)}; keep one")
    return open_source(files[0])


def _whole(folder: Path, files: list[Path]) -> list[Path]:
    """Shards of one split, all of them."""
    numbers: dict[tuple[str, int], set[int]] = {}
    for file in files:
        found = _SHARD.match(file.name)
        if found:
            numbers.setdefault((found[1], int(found[3])), set()).add(int(found[2]))
    if len(numbers) > 1 or (numbers and sum(map(len, numbers.values())) < len(files)):
        names = sorted({name for name, _ in numbers} | {file.name for file in files if not _SHARD.match(file.name)})
        raise MediaError(f"{folder} holds {', '.join(names)}; give each a folder of its own, and one of these")
    for (name, count), held in numbers.items():
        missing = sorted(set(range(count)) - held)
        if missing:
            raise MediaError(f"{folder} lacks {len(missing)} of {count} shards, as {name}-{missing[0]:05d}-of-{count:05d}; fetch them too")
    return files


@dataclass(frozen=True)
class Mixture:
    """An endless stream over sources of given sizes: who is place ``k``, without walking there.

    Every ``block`` places hold each source in proportion to its weight; inside a source every sample comes once an epoch.

    Args:
        sizes: samples in each source.
        weights: shares; None is by size.
        seed: of all orders.
        block: places over which the shares are kept.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...] | None = None
    seed: int = 0
    block: int = 1024
    _orders: dict[tuple[int, int], np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise ConfigError(f"a mixture got sources of sizes {self.sizes}, wanted at least one source and no empty ones")
        if self.weights is not None and (len(self.weights) != len(self.sizes) or min(self.weights) < 0 or sum(self.weights) <= 0):
            raise ConfigError(f"a mixture got weights {self.weights} for {len(self.sizes)} sources, wanted one each, none negative")

    @property
    def quotas(self) -> list[int]:
        """Places of each source in a block, by largest remainder."""
        weights = np.array(self.weights if self.weights is not None else self.sizes, dtype=float)
        exact = weights / weights.sum() * self.block
        quotas = np.floor(exact).astype(int)
        for index in np.argsort(quotas - exact, kind="stable")[: self.block - quotas.sum()]:
            quotas[index] += 1
        return quotas.tolist()

    def place(self, k: int) -> tuple[int, int]:
        """(source, index) of place ``k``."""
        block, rank = divmod(k, self.block)
        quotas = self.quotas
        owners = np.repeat(np.arange(len(quotas)), quotas)
        owners = np.random.default_rng((self.seed, 0, block)).permutation(owners)
        source = int(owners[rank])
        uses = block * quotas[source] + int((owners[:rank] == source).sum())
        epoch, index = divmod(uses, self.sizes[source])
        return source, int(self._order(source, epoch)[index])

    def _order(self, source: int, epoch: int) -> np.ndarray:
        key = (source, epoch)
        if key not in self._orders:
            for old in [k for k in self._orders if k[0] == source and k[1] < epoch - 1]:
                del self._orders[old]
            self._orders[key] = np.random.default_rng((self.seed, 1, source, epoch)).permutation(self.sizes[source])
        return self._orders[key]
