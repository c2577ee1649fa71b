"""Commands that remember pictures and find them: index, search."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

import sensorium as sn
from sensorium.catalog import CATALOG
from sensorium.cli.shared import DEFAULT_TABLE, JsonFile, ModelName, TableFolder, bar, err, out, write_json
from sensorium.cli.words import value
from sensorium.codecs.media import files_of, kind_of
from sensorium.codecs.questions import foreign, written_in

SHOWN = 10  # files of one kind that are named


def index(
    folder: Annotated[Path, typer.Argument(help="A folder of pictures (or one picture).")],
    table: TableFolder = DEFAULT_TABLE,
    model: ModelName = "nano",
) -> None:
    """Remember pictures, so that they can be found by meaning. Pictures already known are skipped; it can be stopped and run again.

    Every file below the folder is looked at, whatever its name; what is no picture is listed.
    """
    from sensorium.memory import Memory
    from sensorium.named import open_model

    listing = files_of(folder, "image")
    paths = list(listing.found)
    _passed_over(listing.passed)
    if not paths:
        raise sn.MediaError(f"{folder} holds no pictures; give a folder that has some")
    memory = Memory(table, open_model(model), model)
    with bar() as progress:
        task = progress.add_task("indexing", total=len(paths))
        report = memory.add(paths, watch=lambda done: progress.update(task, completed=done))
    for path, reason in report.refused:
        err.print(f"[yellow]left out[/] {escape(f'{path}: {reason}')}", highlight=False, soft_wrap=True)
    out.print(f"{len(report.added)} new, {len(report.known)} already known, {len(report.refused)} left out, {len(listing.passed)} passed over; "
              f"{len(memory)} pictures in {table}", soft_wrap=True)


def _passed_over(passed: Sequence[tuple[Path, str]]) -> None:
    """What is no picture: each by name, of many the first of each kind and their number."""
    kinds: dict[str, list[Path]] = {}
    for path, reason in passed:
        kinds.setdefault(reason, []).append(path)
    for reason, paths in kinds.items():
        for path in paths[:SHOWN]:
            err.print(f"[dim]passed over {escape(f'{path}: {reason}')}[/]", highlight=False, soft_wrap=True)
        if len(paths) > SHOWN:
            err.print(f"[dim]passed over {len(paths) - SHOWN} more: {escape(reason)}[/]", highlight=False)


def search(
    query: Annotated[str, typer.Argument(help="Words, or a picture, sound or film to find what is like it.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="How many results.")] = 5,
    table: TableFolder = DEFAULT_TABLE,
    model: ModelName = "nano",
    json_file: JsonFile = None,
) -> None:
    """Find indexed pictures by words or by a picture.

    [dim]sensorium search "something to eat"[/dim]    [dim]sensorium search cat.png[/dim]
    """
    from sensorium.memory import Memory
    from sensorium.named import open_model

    start = time.perf_counter()
    net = open_model(model)
    found = Memory(table, net, model).search(_query(query, net, model), count)
    seconds = time.perf_counter() - start
    for item in found:
        out.print(f"{item.score:.3f}  {item.path}", highlight=False, soft_wrap=True)
    if json_file is not None:
        write_json(json_file, {"query": query, "seconds": seconds, "found": [{"path": str(i.path), "score": i.score} for i in found]})


def _query(query: str, model: Any, name: str) -> Any:
    """A word as what is looked for: of a moving picture, for a model that knows only stills, the first frame."""
    what = value(query)
    if what.modality == "text":
        entry = CATALOG.get(name)
        if warning := foreign(name, entry.only if entry else None, written_in(what.text)):
            err.print(f"[dim]{escape(warning)}: what it finds may make no sense[/]", highlight=False, soft_wrap=True)
        return what.text
    if what.modality == "video" and "video" not in model.spec.reads and kind_of(what.source).moving:
        return sn.Image(what.source)
    if what.modality not in model.spec.reads:
        raise sn.ModalityError(f"{query} is {kind_of(what.source)}, and the table's model reads {', '.join(model.spec.reads)}; ask with one of these")
    return what
