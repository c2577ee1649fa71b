"""Commands that remember pictures and find them: index, search."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from sensorium.cli.shared import DEFAULT_TABLE, JsonFile, ModelName, TableFolder, bar, err, out, value, write_json


def index(
    folder: Annotated[Path, typer.Argument(help="A folder of pictures (or one picture).")],
    table: TableFolder = DEFAULT_TABLE,
    model: ModelName = "nano",
) -> None:
    """Remember pictures, so that they can be found by meaning. Pictures already known are skipped; it can be stopped and run again."""
    from sensorium.memory import Memory, pictures_in
    from sensorium.named import open_model

    paths = pictures_in(folder)
    memory = Memory(table, open_model(model), model)
    with bar() as progress:
        task = progress.add_task("indexing", total=len(paths))
        report = memory.add(paths, watch=lambda done: progress.update(task, completed=done))
    for path, reason in report.refused:
        err.print(f"[yellow]left out[/] {path}: {reason}", highlight=False)
    out.print(f"{len(report.added)} new, {len(report.known)} already known, {len(report.refused)} left out; {len(memory)} pictures in {table}")


def search(
    query: Annotated[str, typer.Argument(help="Words, or a picture to find similar ones.")],
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
    found = Memory(table, open_model(model), model).search(_query(query), count)
    seconds = time.perf_counter() - start
    for item in found:
        out.print(f"{item.score:.3f}  {item.path}", highlight=False, soft_wrap=True)
    if json_file is not None:
        write_json(json_file, {"query": query, "seconds": seconds, "found": [{"path": str(i.path), "score": i.score} for i in found]})


def _query(query: str) -> Any:
    what = value(query)
    return what if what.modality == "image" else what.text
