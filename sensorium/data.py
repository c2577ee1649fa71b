"""Data: samples on disk -> parts as arrays -> packed batches, each a function of (seed, step) so that a run resumes exactly.

Letters: B batch rows, T places in a row, L media, C channels, H W pixels.

    {"parts": [{"image": "dog.png"}, {"text": "a dog", "target": true}]}       one line, one sample

    open_source   jsonl + files, webdataset tar, parquet, each with random access
    Mixture       several sources by weight; place k of the stream is known without walking there
    Packer        parts -> segments -> rows without leaks between samples
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from sensorium.types import (MODALITIES, Audio, Batch, ConfigError, Image, Layout, MediaError, ModalityError, Part, Sample, Text, Video,
                             Written)

__all__ = ["Arrays", "JsonLines", "Mixture", "open_source", "Packer", "Parquet", "parse_sample", "Segment", "Source", "Tar"]

_MEDIA = {"image": Image, "audio": Audio, "video": Video}


class Source(Protocol):
    """Samples with random access."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def parse_sample(data: Any, where: str, media: Callable[[str], Any]) -> Sample:
    """One sample from its JSON form.

    Args:
        data: {"parts": [{modality: value, "target": bool}, ...], ...}; other keys are kept in ``extra``.
        where: file and line, for errors.
        media: turns a medium's name into a path or bytes.

    Raises:
        MediaError: not the format; says where and what is wanted.
    """
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


@dataclass(frozen=True)
class Arrays:
    """A part after its codec: token ids, or a float CHW tensor."""

    modality: str
    value: list[int] | torch.Tensor
    target: bool = False


@dataclass
class Segment:
    """One sample as places in a row, before packing."""

    token: list[int] = field(default_factory=list)
    media: list[int] = field(default_factory=list)
    span: list[int] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    axes: list[tuple[int, int, int]] = field(default_factory=list)
    sees: list[int] = field(default_factory=list)
    inputs: list[tuple[str, torch.Tensor]] = field(default_factory=list)
    outputs: list[tuple[str, torch.Tensor, int, int]] = field(default_factory=list)
    embeds: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.token)


@dataclass(frozen=True)
class Packer:
    """Turns samples of arrays into packed batches.

    Args:
        places: modality -> tokens that a read medium takes; 0 enters by cross-attention and leaves only its marker.
        row: most places in a row.
        embed: id put after every context part; its state is the joint embedding of all before it. None: none.
        say: id put before a target text. None: the text follows directly.
        end: id put after a target text.
        markers: modality -> id that stands for a medium which takes no places (Flamingo's <image>).
        axes: give every place (time, row, column) coordinates for multi-axis rotary positions.
    """

    places: dict[str, int] = field(default_factory=dict)
    row: int = 256
    embed: int | None = None
    say: int | None = None
    end: int | None = None
    markers: dict[str, int] = field(default_factory=dict)
    axes: bool = False

    def segment(self, parts: Sequence[Arrays], answer: bool = False) -> Segment:
        """Lay one sample out.

        Args:
            parts: the sample.
            answer: finish with ``say``, ready to be continued.

        Raises:
            ModalityError, ConfigError: a part that cannot be laid out, or a sample longer than a row.
        """
        out = Segment()
        for item in parts:
            if item.modality != "text" and item.target:
                state = out.embeds[-1] if out.embeds else -1
                out.outputs.append((item.modality, item.value, len(out), state))
                continue
            if item.modality == "text":
                self._text(out, item)
            else:
                self._medium(out, item)
            if self.embed is not None and not item.target:
                out.embeds.append(len(out))
                self._put(out, self.embed)
        if answer and self.say is not None:
            self._put(out, self.say)
        if len(out) > self.row:
            raise ConfigError(f"a sample takes {len(out)} places, but a row holds {self.row}; shorten it or raise Packer(row=...)")
        return out

    def _text(self, out: Segment, item: Arrays) -> None:
        ids = list(item.value)
        if not item.target:
            for token in ids:
                self._put(out, token)
            return
        if self.say is not None:
            self._put(out, self.say)
        if not len(out):
            raise ConfigError("a sample starts with a target text; put context before it, or set Packer(say=...)")
        for token in ids + ([self.end] if self.end is not None else []):
            out.label[-1] = token
            self._put(out, token)

    def _medium(self, out: Segment, item: Arrays) -> None:
        if item.modality not in self.places:
            raise ModalityError(f"the model reads {', '.join(['text', *self.places])}, not {item.modality}")
        out.inputs.append((item.modality, item.value))
        count = self.places[item.modality]
        if count == 0:
            self._put(out, self.markers.get(item.modality, 0), sees=len(out.inputs) - 1)
            return
        start, side, span = len(out), max(round(count**0.5), 1), len(out.inputs)
        for index in range(count):
            self._put(out, 0, 1 + MODALITIES.index(item.modality), span, (start, start + index // side, start + index % side))

    @staticmethod
    def _put(out: Segment, token: int, media: int = 0, span: int = 0, axes: tuple[int, int, int] | None = None,
             sees: int | None = None) -> None:
        place = len(out)
        before = out.sees[-1] if out.sees else -1
        out.token.append(token)
        out.media.append(media)
        out.span.append(span)
        out.label.append(-100)
        out.axes.append(axes or (place, place, place))
        out.sees.append(before if sees is None else sees)

    def pack(self, segments: Sequence[Segment], pairs: dict[str, list[int]] | None = None, group: list[int] | None = None,
             alone: bool = False) -> Batch:
        """Put segments into as few rows as first fit finds, longest rows first filled.

        Args:
            segments: laid-out samples.
            pairs: modality -> for each pair, the segment whose first embedding stands for it.
            group: identity of each pair.
            alone: one segment a row (nothing shared; for comparison and for answering).
        """
        rows: list[list[int]] = []
        room: list[int] = []
        for index, segment in enumerate(segments):
            fit = next((r for r, free in enumerate(room) if free >= len(segment)), None) if not alone else None
            if fit is None:
                rows.append([])
                room.append(self.row)
                fit = len(rows) - 1
            rows[fit].append(index)
            room[fit] -= len(segment)
        return _Grid(segments, rows, self.axes).batch(pairs or {}, group)


class _Grid:
    """Segments placed in rows, on the way to a :class:`Batch`."""

    def __init__(self, segments: Sequence[Segment], rows: list[list[int]], axes: bool) -> None:
        self.segments, self.rows, self.axes = segments, rows, axes
        self.width = max([sum(len(segments[i]) for i in row) for row in rows] + [1])
        self.start: dict[int, tuple[int, int]] = {}
        for r, row in enumerate(rows):
            at = 0
            for i in row:
                self.start[i] = (r, at)
                at += len(segments[i])

    def _grid(self, name: str, fill: int, extra: tuple[int, ...] = ()) -> torch.Tensor:
        out = torch.full((len(self.rows), self.width, *extra), fill, dtype=torch.int64)
        for i, (r, at) in self.start.items():
            values = vars(self.segments[i])[name]
            if values:
                out[r, at : at + len(values)] = torch.tensor(values)
        return out

    def batch(self, pairs: dict[str, list[int]], group: list[int] | None) -> Batch:
        """Everything joined."""
        order = [i for row in self.rows for i in row]
        segment = torch.full((len(self.rows), self.width), -1, dtype=torch.int64)
        position, span, sees = torch.zeros_like(segment), self._grid("span", 0), self._grid("sees", -1)
        media: dict[str, list[torch.Tensor]] = {}
        written: dict[str, list[tuple[torch.Tensor, int, int, int, int]]] = {}
        count = 0
        for i in order:
            r, at = self.start[i]
            item = self.segments[i]
            stop = at + len(item)
            segment[r, at:stop] = i
            position[r, at:stop] = torch.arange(len(item))
            sees[r, at:stop] += (sees[r, at:stop] >= 0) * count
            count += len(item.inputs)
            for modality, value in item.inputs:
                media.setdefault(modality, []).append(value)
            for modality, value, place, state in item.outputs:
                flat = r * self.width + at + state if state >= 0 else -1
                written.setdefault(modality, []).append((value, r, i, place, flat))
        layout = Layout(segment, position, span, self._grid("axes", 0, (3,)) if self.axes else None)
        index = {m: torch.tensor([self._flat(i) for i in chosen], dtype=torch.int64) for m, chosen in pairs.items()}
        return Batch(
            token_BT=self._grid("token", 0), media_BT=self._grid("media", 0), layout=layout, label_BT=self._grid("label", -100),
            media={m: torch.stack(values) for m, values in media.items()}, sees_BT=sees,
            written={m: _written(items) for m, items in written.items()}, pairs=index,
            group_L=None if group is None else torch.tensor(group, dtype=torch.int64), samples=len(self.segments))

    def _flat(self, segment: int) -> int:
        r, at = self.start[segment]
        if not self.segments[segment].embeds:
            raise ConfigError(f"segment {segment} has no embedding; set Packer(embed=...) and give it context")
        return r * self.width + at + self.segments[segment].embeds[0]


def _written(items: list[tuple[torch.Tensor, int, int, int, int]]) -> Written:
    value, row, segment, place, state = zip(*items, strict=True)
    numbers = [torch.tensor(x, dtype=torch.int64) for x in (row, segment, place, state)]
    return Written(torch.stack(value), *numbers, label_L=torch.full((len(items),), -1))

