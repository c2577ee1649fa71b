"""Tables: samples in rows: JSON lines and lists, CSV, parquet and arrow; several files as one.

    file -> rows, plain dicts in memory or columns on disk -> a row by its number -> layouts -> Sample

A row's media are names of files beside the table, or bytes in it.
"""

from __future__ import annotations

import bisect
import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

from sensorium.files import open_file
from sensorium.layouts import ENDINGS, inside, medium, parse_sample
from sensorium.types import MediaError, Sample

__all__ = ["Columns", "CommaSeparated", "downloads", "Joined", "JsonLines", "parse_json", "parse_named", "Source", "unpacked"]

_PACKED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}


class Source(Protocol):
    """Samples with random access.

    Attributes:
        notes: sentences about what the files hold and no sample shows.
    """

    notes: Sequence[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def parse_json(text: bytes | str, where: str) -> Any:
    """JSON of somebody else's file.

    Raises:
        MediaError: not UTF-8, not JSON, or an object that says a thing twice.
    """
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        if twice:
            raise MediaError(f"{where}: holds {twice[0]!r} twice, and only one of them would count; keep one")
        return dict(pairs)

    try:
        return json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text, object_pairs_hook=once)
    except UnicodeDecodeError as error:
        raise MediaError(f"{where}: byte {error.start + 1} is not UTF-8; save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise MediaError(f"{where}: not JSON ({error.msg} at character {error.pos + 1}); wanted one sample a line") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, and lists in lists without end
        raise MediaError(f"{where}: not JSON that can be read ({str(error)[:80]})") from error


def parse_named(data: Any, where: str, held: Mapping[str, Callable[[], Any]], folder: Path | None = None) -> Sample:
    """A sample whose media are named things beside its JSON: columns, or members of a shard. What it does not name is kept in ``extra``.

    Args:
        held: name -> gives the thing.
        folder: where files lie that a thing names; None where all things are bytes.
    """
    used = set()

    def media(name: str) -> Any:
        known = name if name in held else name.lower()
        if known not in held:
            raise MediaError(f"{where} has no {name!r}, which its parts name; it has {', '.join(held) or 'nothing beside them'}")
        used.add(known)
        return medium(held[known](), where, lambda other: media(other) if folder is None else inside(folder, other, where))

    sample = parse_sample(data, where, media)
    return Sample(sample.parts, {**{name: name for name in held if name not in used}, **sample.extra})


def unpacked(path: Path) -> bytes:
    """A file's bytes, unpacked where its ending says that it is packed.

    Raises:
        MediaError: missing or broken.
    """
    try:
        if path.suffix.lower() not in _PACKED:
            with open_file(path, "a file of samples") as file:
                return file.read()
        import pyarrow as arrow

        with arrow.input_stream(path, compression=_PACKED[path.suffix.lower()]) as stream:
            return stream.read()
    except OSError as error:
        raise MediaError(f"{path} cannot be read ({error.strerror or error}); wanted a file of samples") from error


def _named_files(row: Any) -> Any:
    """A row whose ``file_name`` and ``NAME_file_name`` (as in metadata.jsonl of a folder of media) stand under what they are."""
    if not isinstance(row, dict):
        return row
    out = {}
    for key, value in row.items():
        ends = next((end for end in ("file_names", "file_name") if key == end or key.endswith(f"_{end}")), None)
        first = value[0] if isinstance(value, list) and value else value
        kind = ENDINGS.get(str(first).rpartition(".")[2].lower()) if ends else None
        name = key.removesuffix(ends).rstrip("_") or kind if kind else key
        out[name if name not in row else key] = value
    return out


class JsonLines:
    """A .jsonl file, or a .json file that holds a list; media are paths relative to its folder and may not leave it."""

    def __init__(self, path: str | Path) -> None:
        self.path, self.notes = Path(path), ()
        data = unpacked(self.path)
        self._rows: list[Any] | None = None
        if ".json" in (suffix.lower() for suffix in self.path.suffixes) and (rows := _listed(data, self.path.name)) is not None:
            self._rows = rows
            return
        lines = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._lines = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]

    def __len__(self) -> int:
        return len(self._lines if self._rows is None else self._rows)

    def __getitem__(self, index: int) -> Sample:
        where = f"{self.path.name}, sample {index + 1}"
        if self._rows is None:
            number, line = self._lines[index]
            where = where if number == index + 1 else f"{self.path.name}, line {number}, sample {index + 1}"
            row = parse_json(line, where)
        else:
            row = self._rows[index]
        return parse_sample(_named_files(row), where, lambda name: inside(self.path.parent, name, where))


def _listed(data: bytes, name: str) -> list[Any] | None:
    """The list that is a whole file; None where it holds a sample a line."""
    if not data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        return None
    rows = parse_json(data, name)
    return None if rows and not isinstance(rows[0], dict) else rows


class CommaSeparated:
    """A .csv or .tsv file whose first row names the columns; media are paths, as in a .jsonl file."""

    def __init__(self, path: str | Path) -> None:
        self.path, self.notes = Path(path), ()
        try:
            text = unpacked(self.path).decode("utf-8-sig")
            tab = ".tsv" in (suffix.lower() for suffix in self.path.suffixes)
            self._rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if tab else ",", strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            raise MediaError(f"{self.path} is not a readable table ({str(error)[:80]}); wanted UTF-8 with commas, in .tsv tabs") from error

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        row, where = self._rows[index], f"{self.path.name}, row {index + 1}"
        if None in row or None in row.values():
            raise MediaError(f"{where} has {'more' if None in row else 'fewer'} cells than the first row names; quote cells that hold separators")
        return parse_sample(_named_files(row), where, lambda name: inside(self.path.parent, name, where))


class Columns:
    """A parquet or arrow file, as ``datasets`` and img2dataset write them: a column a key of the sample, a medium as bytes or struct<bytes, path>.

    Or with a text column ``sample`` (the JSON) and, for media, columns that the JSON names. Rows of media that were never downloaded are left out.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._table = _table(self.path)
        self._names, self._media = _features(self._table.schema.metadata or {})
        failed = self._failed()
        self._rows = [row for row in range(self._table.num_rows) if row not in failed]
        counts = Counter(failed.values())
        self.notes = tuple(f"{self.path.name}: {count} of {self._table.num_rows} rows left out, {why}" for why, count in counts.items())

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        row = self._rows[index]
        where = f"{self.path.name}, row {row}"
        if "sample" in self._table.column_names:
            held = {name: (lambda name=name: self._table[name][row].as_py()) for name in self._table.column_names
                    if name != "sample" and self._table[name][row].is_valid}
            text = self._table["sample"][row].as_py()
            if not isinstance(text, str):
                raise MediaError(f"{where}: the cell 'sample' is {str(text)[:60]}; wanted JSON as text")
            return parse_named(parse_json(text, where), where, held, self.path.parent)
        cells = self._table.slice(row, 1).to_pylist()[0]
        for name, classes in self._names.items():
            if isinstance(cells.get(name), int) and 0 <= cells[name] < len(classes):
                cells[name] = classes[cells[name]]
        cells = {self._media.get(name, name): value for name, value in cells.items()}
        return parse_sample(_named_files(cells), where, lambda name: inside(self.path.parent, name, where))

    def _failed(self) -> dict[int, str]:
        """Rows that img2dataset says it has no medium of, and why."""
        media = [name for name in self._table.column_names if name in ENDINGS]
        if "status" not in self._table.column_names or not media:
            return {}
        states = self._table["status"].to_pylist()
        empty = [not any(cells) for cells in zip(*(self._table[name].is_valid().to_pylist() for name in media), strict=True)]
        return {row: str(state) for row, (state, gone) in enumerate(zip(states, empty, strict=True)) if gone and state != "success"}


def downloads(path: Path) -> tuple[str, ...]:
    """What img2dataset's table beside a shard says about media that were never downloaded."""
    table = _table(path)
    states = table["status"].to_pylist() if "status" in table.column_names else []
    counts = Counter(str(state) for state in states if state != "success")
    return tuple(f"{path.name}: {count} of {len(states)} rows left out, {why}" for why, count in counts.items())


def _table(path: Path) -> Any:
    """A parquet file, or one of arrow's two own kinds."""
    import pyarrow as arrow
    from pyarrow import ipc, parquet

    try:
        if path.suffix.lower() == ".parquet":
            return parquet.ParquetFile(path, memory_map=True).read()
        with arrow.memory_map(str(path)) as file:
            whole = file.read(6) == b"ARROW1"
            file.seek(0)
            return (ipc.open_file(file) if whole else ipc.open_stream(file)).read_all()
    except (OSError, arrow.ArrowException) as error:
        raise MediaError(f"{path} is not a readable {path.suffix[1:]} file ({str(error)[:80]})") from error


def _features(metadata: Mapping[bytes, bytes]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """What ``datasets`` wrote into the schema: column -> names of its classes, and the only column of a medium -> what that is."""
    if b"huggingface" not in metadata:
        return {}, {}
    features = parse_json(metadata[b"huggingface"], "the schema's huggingface note").get("info", {}).get("features", {})
    kinds = {name: kind for name, kind in features.items() if isinstance(kind, dict)}
    named = {name: str(kind.get("feature", kind).get("_type")).lower() for name, kind in kinds.items() if isinstance(kind.get("feature", {}), dict)}
    alone = {name: kind for name, kind in named.items() if kind in ENDINGS.values() and list(named.values()).count(kind) == 1}
    return {name: kind["names"] for name, kind in kinds.items() if named.get(name) == "classlabel" and kind.get("names")}, alone


class Joined:
    """Several sources, one after the other."""

    def __init__(self, sources: Sequence[Source], notes: Sequence[str] = ()) -> None:
        self._sources = sources
        self._ends = list(accumulate(len(source) for source in sources))
        self.notes = (*notes, *(note for source in sources for note in source.notes))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:
        which = bisect.bisect_right(self._ends, index)
        return self._sources[which][index - (self._ends[which - 1] if which else 0)]
