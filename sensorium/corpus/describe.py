"""Tables of the documentation, made from the package list and a built corpus's manifest.

    python -m sensorium.corpus.describe FOLDER docs/data.md      rewrites each table between its two markers

    <!-- table: packages --> ... <!-- end -->                    from ``sources``: always what the code fetches
    <!-- table: styles -->, relatives, clipart                   from FOLDER/manifest.json
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sensorium.corpus.sources import CLIPART, PACKAGES, STYLES
from sensorium.corpus.split import SPLITS
from sensorium.types import ConfigError

__all__ = ["fill", "package_table", "tables"]

_MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


def package_table() -> str:
    """What is fetched: package, version, licence, credit, and what is taken out of it."""
    rows = [("npm", package) for package in PACKAGES.values()] + [("Debian", CLIPART)]
    return _table(("package", "version", "licence", "credit", "taken"), (
        (f"{kind} `{package.name}`", package.version, package.licence, package.attribution, package.takes) for kind, package in rows))


def tables(manifest: dict[str, Any]) -> dict[str, str]:
    """Every table by its marker's name.

    Args:
        manifest: of a corpus built from all sources.

    Raises:
        ConfigError: a source is missing in it, or it was built with a limit.
    """
    sources = manifest["sources"]
    if {"emoji", "clipart"} - set(sources) or any(made["limit"] for made in sources.values()):
        raise ConfigError("the manifest is of a part of the corpus; build all of it: python -m sensorium.corpus.build FOLDER")
    emoji, clipart = sources["emoji"], sources["clipart"]
    styles = [(style.name, style.family, PACKAGES[style.package].licence, emoji["styles"][style.name]) for style in STYLES]
    rows = [(name, family, licence, made["pictures"], *(made[split] for split in SPLITS)) for name, family, licence, made in styles]
    total = ("all", "", "", sum(row[3] for row in rows), *(emoji["samples"][split] for split in SPLITS))
    relative = emoji["held_out_with_relative"]
    return {
        "packages": package_table(),
        "styles": _table(("style", "family", "licence", "pictures", *SPLITS), [*rows, total]),
        "relatives": _table(("split", "pictures", "a relative in training", "none"), (
            (split, emoji["samples"][split], relative[split], emoji["samples"][split] - relative[split]) for split in relative)),
        "clipart": _table(("pictures", "titles", "train", "test"), [
            (clipart["pictures"], clipart["titles"], clipart["samples"]["train"], clipart["samples"]["test"])]),
    }


def fill(text: str, made: dict[str, str]) -> str:
    """``text`` with each marked table replaced.

    Raises:
        ConfigError: a marker names no table.
    """
    unknown = sorted({name for _, name, _ in _MARKED.findall(text)} - set(made))
    if unknown:
        raise ConfigError(f"got markers for tables {unknown}, wanted some of {sorted(made)}; correct the marker")
    return _MARKED.sub(lambda found: found[1] + made[found[2]] + found[3], text)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m sensorium.corpus.describe", description="Rewrite the tables of a document.")
    parser.add_argument("folder", type=Path, help="of a built corpus")
    parser.add_argument("document", type=Path, help="the Markdown file with the markers")
    options = parser.parse_args(arguments)
    manifest = json.loads((options.folder / "manifest.json").read_text(encoding="utf-8"))
    text = fill(options.document.read_text(encoding="utf-8"), tables(manifest))
    part = options.document.with_name(options.document.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, options.document)


if __name__ == "__main__":
    main()
