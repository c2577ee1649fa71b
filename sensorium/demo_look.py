"""The demo's questions about pictures: drawings in styles that were never seen, scenes of pairs that were never shown, and real photographs."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

import sensorium as sn
from sensorium.catalog import ready
from sensorium.evals.see import judge, scenes
from sensorium.memory import pictures_in
from sensorium.named import open_model
from sensorium.page import Page, image_data

__all__ = ["look"]

NAME = "see"
QUESTION = "What is in this picture?"
KINDS = ("presence", "colour", "count", "position", "side", "shape")


def look(page: Page, examples: Path, console: Console) -> None:
    """Ask the model that looks, and show what it says as it came.

    Args:
        examples: the folder that holds ``pictures`` and ``photos``.
    """
    if not ready(NAME):
        page.section("Asked about pictures", f"{NAME} answers through a language model that is not at hand: sensorium pull {NAME}")
        return
    with console.status("asking about pictures"):
        model = open_model(NAME)
        drawn = [(sn.Image(path), QUESTION, path.stem) for path in pictures_in(examples / "pictures")[:6]]
        photos = [(sn.Image(path), QUESTION, path.stem) for path in pictures_in(examples / "photos")]
        asked = [scenes(kind, 1, seed=7)[0] for kind in KINDS]
        said = sn.write_texts(model, [[picture, question] for picture, question, _ in drawn + photos] + [[item.picture, item.text] for item in asked])
    page.section("Asked about pictures", f"{NAME} is SmolLM2 looking through nano's eyes and small ones of its own: at drawings in styles not "
                 "seen for them, scenes whose pairs of shape and colour were never shown, and photographs, which it knows nothing of.")
    page.grid([(image_data(picture), answer, question) for (picture, question, _), answer in zip(drawn, said[: len(drawn)], strict=True)])
    page.grid([(image_data(item.picture), answer, f"{item.text} {'✓' if judge(item, answer) else f'✗ {item.keys[0]}'}")
               for item, answer in zip(asked, said[-len(asked) :], strict=True)])
    page.grid([(image_data(picture), answer, f"a photograph: {name}")
               for (picture, _, name), answer in zip(photos, said[len(drawn) : -len(asked)], strict=True)])
