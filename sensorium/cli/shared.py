"""What the commands share: consoles, a bar and options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

out, err = Console(), Console(stderr=True)

ModelName = Annotated[str, typer.Option("--model", "-m", help="A model by name (see [b]sensorium models[/b]) or a model's folder.")]
TableFolder = Annotated[Path, typer.Option("--table", help="Folder of the search table.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")]
DEFAULT_TABLE = Path(".sensorium/table")


def bar() -> Progress:
    """A bar that counts, on the error stream; it goes away when done."""
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=err, transient=True)


def write_json(path: Path, data: Any) -> None:
    """Write figures to a file in one step."""
    from sensorium.files import write_file

    write_file(path, json.dumps(data, indent=1, ensure_ascii=False, default=str).encode())
