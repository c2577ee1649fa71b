"""Evals of models that see, by what their sentence of parts can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

import sensorium as sn
from sensorium import chart
from sensorium.catalog import CATALOG, find
from sensorium.evals import fewshot, nano, see, senses
from sensorium.evals.figures import Figure, as_a_whole
from sensorium.named import open_model
from sensorium.types import ConfigError, Image

__all__ = ["evaluate_pictures", "picture_of"]


def evaluate_pictures(name: str, data: Path, limit: int | None, seed: int, console: Console, only: Sequence[str] | None = None) -> list[Figure]:
    """Measure a model of the catalog or a folder.

        one that cross-attends       games that only the examples in the prompt explain
        one that chats               names, kinds, and questions about scenes
        any other                    nano's figures: naming, finding, drawing

    Args:
        data: the corpus.
        limit: at most this many items a figure.
        only: of nano's parts these; None is all.

    Raises:
        ConfigError: a part that is not known, or of a model that has none.
    """
    parts = (*nano.PARTS, *senses.PARTS)
    if unknown := sorted(set(only or ()) - set(parts)):
        raise ConfigError(f"the eval has no part {', '.join(unknown)}; wanted some of {', '.join(parts)}")
    model = open_model(name) if name in CATALOG else sn.load(find(name))

    def watch(text: str) -> None:
        console.print(f"[dim]{text}[/]", highlight=False)

    if "cross" not in model.fuse and ("embed" in model.heads or "image" in model.heads):
        points = nano.Points(model, nano.Held(data, limit, seed), console)
        return nano.evaluate(points, only=only or parts) + senses.evaluate_senses(points, name, only or parts)
    as_a_whole(name, only)
    if "cross" in model.fuse:
        return fewshot.evaluate_shots(_answers(model), limit or 1000, seed, watch=watch)
    ask = _answers(model)

    def answer(asked: Sequence[tuple[Image, str]]) -> list[str]:
        return ask([list(pair) for pair in asked])

    return see.evaluate_seeing(answer, nano.Held(data, limit, seed), limit or 1000, seed, watch=watch)[0]


def _answers(model: sn.ModelNet) -> Callable[[Sequence], list[str]]:
    return lambda prompts: sn.write_texts(model, prompts, max_tokens=16, chunk=32)


def picture_of(title: str, figures: Sequence[Figure]) -> str:
    """Figures as SVG: lines by number of examples, else bars."""
    if all("seeing_all" in figure.beside for figure in figures):
        return fewshot.shots_chart(figures)
    return chart.bars(title, [(figure.name, figure.value, figure.low, figure.high, figure.beside) for figure in figures])
