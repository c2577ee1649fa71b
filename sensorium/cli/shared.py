"""What the commands share: consoles, a bar, options, and how a word of the command line becomes a value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sensorium.codecs.pictures import ENDINGS as PICTURE_ENDINGS

out, err = Console(), Console(stderr=True)

ModelName = Annotated[str, typer.Option("--model", "-m", help="A model by name (see [b]sensorium models[/b]) or a model's folder.")]
TableFolder = Annotated[Path, typer.Option("--table", help="Folder of the search table.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")]
DEFAULT_TABLE = Path(".sensorium/table")
SOUND_ENDINGS = (".wav", ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aiff", ".wma")
VIDEO_ENDINGS = (".mp4", ".mkv", ".webm", ".mov", ".avi")


def bar() -> Progress:
    """A bar that counts, on the error stream; it goes away when done."""
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=err, transient=True)


def value(text: str) -> Any:
    """A word of the command line: a sound or a picture if it names one, else text."""
    import sensorium as sn

    ending = Path(text).suffix.lower()
    if ending in SOUND_ENDINGS or ending in VIDEO_ENDINGS:  # of a film, what is said in it
        return sn.Audio(text)
    if ending in PICTURE_ENDINGS or (len(text) < 1024 and "\n" not in text and "\0" not in text and Path(text).exists() and ending):
        return sn.Image(text)
    return sn.Text(text)


def moving_value(text: str) -> Any:
    """The same, but a film, or a picture that moves, is a video."""
    import sensorium as sn
    from sensorium.codecs.frames import read_animation

    ending = Path(text).suffix.lower()
    moves = ending in VIDEO_ENDINGS or (ending in (".webp", ".gif", ".png") and Path(text).is_file() and len(read_animation(text)) > 1)
    return sn.Video(text) if moves else value(text)


def write_json(path: Path, data: Any) -> None:
    """Write figures to a file in one step."""
    from sensorium.files import write_file

    write_file(path, json.dumps(data, indent=1, ensure_ascii=False, default=str).encode())
