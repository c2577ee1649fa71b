"""The zoo: published families, each one sentence of the same parts."""

from sensorium.zoo.registry import ENTRIES, Entry

__all__ = ["ENTRIES", "Entry"]
