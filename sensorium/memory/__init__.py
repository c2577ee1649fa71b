"""Memory: what was seen, found again by meaning."""

from sensorium.memory.table import Found, Memory, pictures_in

__all__ = ["Found", "Memory", "pictures_in"]
