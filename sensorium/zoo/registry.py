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
        batch: (numbers, alone=False) -> a toy batch of the samples with these numbers, packed or one a row; a number is always the same
            sample.
        parameters: published count at full size.
        source: paper and licence of the published weights.
        unread: how many of the published count are not weights here: layers that are never read, tables that are computed.
        rounded: share by which the count may differ where only a rounded one was published.
    """

    name: str
    full: Callable[[], Model]
    toy: Callable[[], Model]
    batch: Callable[..., Batch]
    parameters: int
    source: str
    unread: int = 0
    rounded: float = 0.0


ENTRIES: dict[str, Entry] = {}


def register(entry: Entry) -> Entry:
    """Add a family."""
    ENTRIES[entry.name] = entry
    return entry
