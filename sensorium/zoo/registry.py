"""The zoo's register: every family by name, at its published size and at toy size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sensorium.model import Model
from sensorium.types import Batch

__all__ = ["ENTRIES", "Entry", "register"]


@dataclass(frozen=True)
class Entry:
    """One family.

    Args:
        name: as the command line knows it.
        full: the published size.
        toy: the same sentence, small enough for tests.
        batch: seed -> a batch for the toy, of several samples.
        parameters: published count at full size.
        source: paper and licence of the published weights.
    """

    name: str
    full: Callable[[], Model]
    toy: Callable[[], Model]
    batch: Callable[[int], Batch]
    parameters: int
    source: str


ENTRIES: dict[str, Entry] = {}


def register(entry: Entry) -> Entry:
    """Add a family."""
    ENTRIES[entry.name] = entry
    return entry
