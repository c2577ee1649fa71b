"""A table of pictures and their points in a model's shared space, searched by text or by picture.

    files -> sha256 (known ones are skipped) -> embed, a chunk at a time -> LanceDB table in a folder; rows of replaced and vanished files go
    text or picture -> embed -> nearest rows
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import sensorium as sn
from sensorium.codecs.media import files_of

__all__ = ["Added", "Found", "Memory", "pictures_in"]

TABLE = "pictures"


@dataclass(frozen=True)
class Found:
    """One search result: the file and its cosine with the query."""

    path: Path
    score: float


@dataclass
class Added:
    """What one call of :meth:`Memory.add` did: files added, files already known, and files refused with the reason."""

    added: list[Path] = field(default_factory=list)
    known: list[Path] = field(default_factory=list)
    refused: list[tuple[Path, str]] = field(default_factory=list)


def pictures_in(folder: str | Path) -> list[Path]:
    """Every file below a folder that is a picture by its content (or the file itself), sorted; hidden ones are left out.

    Raises:
        MediaError: no such folder, or no pictures in it.
    """
    found = files_of(folder, "image").found
    if not found:
        raise sn.MediaError(f"{folder} holds no pictures; give a folder that has some")
    return list(found)


class Memory:
    """An embedded table of pictures.

    Args:
        folder: where the table lives; made when something is added.
        model: embeds pictures and queries. A table made with another model is refused.
        name: of the model, written in the table.
    """

    def __init__(self, folder: str | Path, model: sn.ModelNet, name: str) -> None:
        self.folder, self.model = Path(folder), model
        self.name = f"{name}-{_fingerprint(model)}"
        self._table = self._open() if self.folder.is_dir() else None
        if self._table is not None and len(self):
            made = self._table.search().limit(1).to_list()[0]["model"]
            if made != self.name:
                raise sn.ConfigError(f"{self.folder} was made with {made}, not {self.name}; index the pictures again into a new --table")

    def __len__(self) -> int:
        return 0 if self._table is None else self._table.count_rows()

    def _database(self) -> Any:
        import lancedb

        return lancedb.connect(str(self.folder))

    def _open(self) -> Any:
        """The table, or None if the folder has none."""
        database = self._database()
        return database.open_table(TABLE) if TABLE in database.list_tables().tables else None

    def add(self, paths: Sequence[Path], chunk: int = 64, watch: Callable[[int], None] | None = None) -> Added:
        """Embed files and remember them; files whose content is known are skipped, unreadable ones are listed.

        What was remembered of a file's earlier content is forgotten, as are files that are gone from the folders of those given.

        Args:
            paths: picture files.
            chunk: files embedded and written at once; an interrupted call keeps what it had written.
            watch: called with the number of files finished.
        """
        report, known = Added(), set(self._rows())
        here: dict[str, str] = {}  # path -> the key of what the file holds now
        for start in range(0, len(paths), chunk):
            fresh: dict[str, Path] = {}
            for path in paths[start : start + chunk]:
                try:
                    key = f"{_sha256(path)}:{path.resolve()}"
                except OSError as error:
                    report.refused.append((path, f"{path} cannot be read ({error.strerror})"))
                    continue
                here[str(path.resolve())] = key
                (report.known.append(path) if key in known or key in fresh else fresh.setdefault(key, path))
            self._write(list(_readable(fresh, report)), report)
            known |= set(fresh)
            if watch is not None:
                watch(min(start + chunk, len(paths)))
        self._forget(here, {str(path.resolve().parent) for path in paths})
        return report

    def _forget(self, here: dict[str, str], folders: set[str]) -> None:
        """Drop rows of other content than a file ``here`` has, and of files that are gone from ``folders``."""
        stale = [key for key, path in self._rows().items()
                 if here.get(path, key) != key or (str(Path(path).parent) in folders and not Path(path).is_file())]
        for start in range(0, len(stale), 256):
            names = ", ".join("'" + key.replace("'", "''") + "'" for key in stale[start : start + 256])
            self._table.delete(f"key IN ({names})")

    def _write(self, items: list[tuple[str, Path, sn.Image]], report: Added) -> None:
        if not items:
            return
        points = sn.embed(self.model, [image for _, _, image in items]).numpy().astype(np.float32)
        rows = [{"key": key, "path": str(path.resolve()), "model": self.name, "vector": point}
                for (key, path, _), point in zip(items, points, strict=True)]
        if self._table is None:
            self._table = self._database().create_table(TABLE, rows)
        else:
            self._table.add(rows)
        report.added += [path for _, path, _ in items]

    def search(self, query: str | sn.Image, count: int = 10) -> list[Found]:
        """Pictures nearest to a text or a picture, best first; files that are gone are left out.

        Raises:
            ConfigError: nothing was indexed yet.
        """
        if self._table is None or not len(self):
            raise sn.ConfigError(f"{self.folder} holds no pictures yet; run: sensorium index FOLDER")
        point = sn.embed(self.model, [query])[0].numpy()
        asked = count
        while True:  # more rows, until enough of their files are there
            rows = self._table.search(point).distance_type("cosine").limit(asked).to_list()
            found = [Found(Path(row["path"]), 1.0 - row["_distance"]) for row in rows]
            found = [item for item in found if item.path.is_file()]
            if len(found) >= count or len(rows) < asked:
                return found[:count]
            asked *= 4

    def _rows(self) -> dict[str, str]:
        """Key -> path of all that is remembered."""
        if not len(self):
            return {}
        table = self._table.search().select(["key", "path"]).limit(len(self)).to_arrow()
        return dict(zip(table["key"].to_pylist(), table["path"].to_pylist(), strict=True))


def _readable(fresh: dict[str, Path], report: Added) -> Iterator[tuple[str, Path, sn.Image]]:
    """Files that decode, as pictures; the others go into the report."""
    from sensorium.codecs.vision import load_image

    for key, path in fresh.items():
        try:
            yield key, path, sn.Image(load_image(path))
        except (sn.MediaError, sn.ConfigError) as error:  # broken, or the library that decodes its kind is not installed
            report.refused.append((path, str(error)))


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fingerprint(model: sn.ModelNet) -> str:
    """Eight hex digits of the weights' first bytes and the spec: tables of different weights do not mix."""
    digest = hashlib.sha256(model.spec.to_json().encode())
    for parameter in model.parameters():
        digest.update(parameter.detach().flatten()[:16].float().numpy().tobytes())
    return digest.hexdigest()[:8]
