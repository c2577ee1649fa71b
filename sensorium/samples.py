"""Samples: the one format, read from JSONL + files, webdataset tar and parquet, each with random access; and mixtures of them.

    {"parts": [{"image": "dog.png"}, {"text": "a dog", "target": true}]}       one line, one sample

    open_source   a file -> samples by number
    Mixture       several sources by weight; place k of the stream is known without walking there, so a run resumes exactly
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sensorium.types import MODALITIES, Audio, ConfigError, Image, MediaError, Part, Sample, Text, Video

__all__ = ["JsonLines", "Mixture", "open_source", "Parquet", "parse_sample", "Source", "Tar"]

_MEDIA = {"image": Image, "audio": Audio, "video": Video}


class Source(Protocol):
    """Samples with random access."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def _from_messages(data: Any) -> Any:
    """A conversation as other tools write it, {"messages": [{"role": ..., "content": ...}]}, in the one format: answers are targets."""
    if not isinstance(data, dict) or "parts" in data or not isinstance(data.get("messages"), list):
        return data
    said = [(row.get("role"), row.get("content")) if isinstance(row, dict) else (None, None) for row in data["messages"]]
    system = {"system": said[0][1]} if said and said[0][0] == "system" else {}
    known = all(role in ("user", "assistant") for role, _ in said[len(system) :])
    parts = [{"text": content, "target": role == "assistant"} for role, content in said[len(system) :]] if known else data["messages"]
    return {**{key: value for key, value in data.items() if key != "messages"}, **system, "parts": parts}


def parse_sample(data: Any, where: str, media: Callable[[str], Any]) -> Sample:
    """One sample from its JSON form.

    Args:
        data: {"parts": [{modality: value, "target": bool}, ...], ...}; other keys are kept in ``extra``. A conversation in text may also be
            {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello!"}]}.
        where: file and line, for errors.
        media: turns a medium's name into a path or bytes.

    Raises:
        MediaError: not the format; says where and what is wanted.
    """
    data = _from_messages(data)
    if not isinstance(data, dict) or not isinstance(data.get("parts"), list) or not data["parts"]:
        raise MediaError(f'{where}: got no parts; wanted {{"parts": [{{"image": "a.png"}}, {{"text": "a dog", "target": true}}]}}')
    parts = []
    for number, item in enumerate(data["parts"]):
        names = [name for name in MODALITIES if isinstance(item, dict) and name in item]
        if len(names) != 1 or not isinstance(item[names[0]], str) or not isinstance(item.get("target", False), bool):
            raise MediaError(f"{where}: part {number} is {str(item)[:80]}; wanted one of {MODALITIES} with text, and target true or false")
        name = names[0]
        value = Text(item[name]) if name == "text" else _MEDIA[name](media(item[name]))
        parts.append(Part(value, item.get("target", False)))
    return Sample(tuple(parts), {key: value for key, value in data.items() if key != "parts"})


def _parse_line(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise MediaError(f"{where}: not JSON ({error.msg}); wanted one sample a line") from error


class JsonLines:
    """A .jsonl file; media are paths relative to its folder and may not leave it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise MediaError(f"{self.path} is not a file; give the path of a .jsonl file")
        with open(self.path, encoding="utf-8") as file:
            self._lines = [line for line in file if line.strip()]

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Sample:
        where = f"{self.path.name}, sample {index + 1}"
        return parse_sample(_parse_line(self._lines[index], where), where, self._inside)

    def _inside(self, name: str) -> Path:
        folder = self.path.parent.resolve()
        path = (folder / name).resolve()
        if not path.is_relative_to(folder):
            raise MediaError(f"{self.path.name} names {name!r}, which is outside its folder; keep media beside the .jsonl file")
        return path


class Tar:
    """A webdataset tar: members of one sample share the name before the first dot; ``KEY.json`` holds the parts.

    A medium in the JSON is the rest of its member's name: {"image": "png"} is ``KEY.png``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with tarfile.open(self.path, "r:") as tar:
                self._places = {m.name: (m.offset_data, m.size) for m in tar if m.isfile()}
        except (OSError, tarfile.TarError) as error:
            raise MediaError(f"{self.path} is not a readable plain tar ({error}); wanted an uncompressed webdataset shard") from error
        self._keys = [name[: -len(".json")] for name in self._places if name.endswith(".json")]

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Sample:
        key = self._keys[index]
        where = f"{self.path.name}, {key}"
        data = _parse_line(self._read(f"{key}.json").decode("utf-8", errors="replace"), where)
        return parse_sample(data, where, lambda name: self._read(f"{key}.{name}"))

    def _read(self, name: str) -> bytes:
        if name not in self._places:
            raise MediaError(f"{self.path.name} has no member {name!r}, which a sample names; write the shard again")
        offset, size = self._places[name]
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(size)


class Parquet:
    """A parquet file with a text column ``sample`` (the JSON) and, for media, binary columns that the JSON names."""

    def __init__(self, path: str | Path) -> None:
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        self.path = Path(path)
        try:
            self._table = parquet.read_table(self.path, memory_map=True)
        except (OSError, arrow.ArrowException) as error:
            raise MediaError(f"{self.path} is not a readable parquet file ({str(error)[:80]})") from error
        if "sample" not in self._table.column_names:
            raise MediaError(f"{self.path.name} has columns {self._table.column_names}, wanted one named 'sample' with the JSON")

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index: int) -> Sample:
        where = f"{self.path.name}, row {index}"
        data = _parse_line(self._table["sample"][index].as_py(), where)
        return parse_sample(data, where, lambda name: self._cell(name, index))

    def _cell(self, name: str, index: int) -> bytes:
        if name not in self._table.column_names:
            raise MediaError(f"{self.path.name} has no column {name!r}, which a sample names; it has {self._table.column_names}")
        return self._table[name][index].as_py()


def open_source(path: str | Path) -> Source:
    """Open samples by the file's ending: .jsonl, .tar or .parquet."""
    kinds = {".jsonl": JsonLines, ".tar": Tar, ".parquet": Parquet}
    kind = kinds.get(Path(path).suffix)
    if kind is None:
        raise MediaError(f"{path} ends in {Path(path).suffix!r}, wanted one of {sorted(kinds)}")
    return kind(path)


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
