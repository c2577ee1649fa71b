"""Folder: what all who build or read a corpus share: its list of concepts, and a bar that counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sensorium.files import read_lines
from sensorium.types import ConfigError

__all__ = ["concepts_of", "counting"]


def concepts_of(folder: str | Path) -> list[dict[str, Any]]:
    """The rows of a corpus's concepts.jsonl: id, en, zh, and keywords of both.

    Raises:
        ConfigError: no corpus there.
    """
    path = Path(folder) / "concepts.jsonl"
    if not path.is_file():
        raise ConfigError(f"{folder} holds no concepts.jsonl; build it with: python -m sensorium.corpus.build {folder}")
    return read_lines(path)


def counting(quiet: bool = False) -> Progress:
    """A progress bar that shows how many of how many, and how long it still takes."""
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), disable=quiet)
