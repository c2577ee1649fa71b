"""Figures: a measured share with its 95 % interval, the count behind it, the seed and the commit it came from."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from sensorium.types import ConfigError

__all__ = ["as_a_whole", "commit", "Figure", "ranks", "share", "show", "wilson"]

Z = 1.959963984540054  # of a two-sided 95 % interval


@dataclass(frozen=True)
class Figure:
    """One measured share.

    Args:
        name: what was measured.
        value: 0..1.
        low, high: its 95 % interval.
        n: items behind it.
        seed: of whatever was drawn at random.
        commit: of the code that measured.
        beside: baselines, name -> value.
    """

    name: str
    value: float
    low: float
    high: float
    n: int
    seed: int
    commit: str
    beside: dict[str, float]


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's score interval for a share, 95 %.

    Source: E. B. Wilson, 1927; right also near 0 and 1, where the normal interval is not.
    """
    if n == 0:
        return 0.0, 1.0
    share, shrink = hits / n, 1 + Z * Z / n
    middle = (share + Z * Z / (2 * n)) / shrink
    half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n)) / shrink
    return max(middle - half, 0.0), min(middle + half, 1.0)


def as_a_whole(name: str, only: Sequence[str] | None) -> None:
    """Refuse to measure parts of what has none.

    Raises:
        ConfigError: ``only`` names some.
    """
    if only:
        raise ConfigError(f"{name} is measured as a whole; leave out --only {', '.join(only)}")


@lru_cache(maxsize=1)
def commit() -> str:
    """The commit of this checkout, with "+" if it was changed since; "unknown" outside one."""
    here = Path(__file__).parent
    try:
        name = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "--", "."], cwd=here, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name + ("+" if changed.strip() else "")


def ranks(scores_LC: torch.Tensor, wanted_L: torch.Tensor) -> torch.Tensor:
    """Place of the wanted column in each row, 0 the best; a tie counts against it.

    Letters: L items, C candidates.
    """
    own = scores_LC.gather(1, wanted_L[:, None])
    return (scores_LC >= own).sum(dim=1) - 1


def share(name: str, hits: Sequence[bool], seed: int = 0, **beside: float) -> Figure:
    """A figure from one yes or no an item.

    Args:
        beside: baselines by name, e.g. ``chance=0.01``.
    """
    n, good = len(hits), sum(map(bool, hits))
    low, high = wilson(good, n)
    return Figure(name, good / n if n else 0.0, low, high, n, seed, commit(), beside)


def show(figures: Sequence[Figure], console: Console) -> None:
    """Print a table, a line a figure."""
    table = Table("figure", "value", "95 % interval", "n", "beside it")
    for figure in figures:
        beside = ", ".join(f"{name.replace('_', ' ')} {value:.2%}" for name, value in figure.beside.items())
        table.add_row(figure.name, f"{figure.value:.1%}", f"{figure.low:.1%} .. {figure.high:.1%}", f"{figure.n:,}", beside)
    console.print(table)
