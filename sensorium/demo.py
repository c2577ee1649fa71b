"""The demo: name, find and draw with the packaged model, talk with the models at hand, and one page that shows inputs, outputs and timings."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from rich.console import Console

import sensorium as sn
from sensorium.conversions import Converter, voice_of
from sensorium.demo_look import look
from sensorium.demo_talk import talk
from sensorium.engine import QUESTIONS
from sensorium.files import write_file
from sensorium.matrix import add_matrix, example_inputs
from sensorium.memory import Memory, pictures_in
from sensorium.page import Page, image_data
from sensorium.types import MODALITIES

__all__ = ["examples", "make_demo"]

SEARCHES = ("something to eat", "animal", "吃的东西", "a house", "在水里")
REQUESTS = ("Draw a red apple", "画一个苹果", "Draw a cat", "Draw the sun", "画一朵玫瑰", "Draw a house", "Draw a fish", "Draw a red heart",
            "Draw a pizza", "Draw a soccer ball", "Draw a tree", "画一只熊猫")


def make_demo(folder: Path, model: sn.ModelNet, name: str, console: Console, pictures: Path | None = None) -> Path:
    """Run the main job on real pictures and write ``folder/index.html``.

    Args:
        folder: made if missing; drawings and the search table go there too.
        model, name: an any-to-any model and what to call it.
        pictures: folder of pictures; None is the repository's examples.
    """
    begin = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    pictures = pictures or examples() / "pictures"
    paths, page = pictures_in(pictures), Page()
    _name(page, model, paths, console)
    _find(page, model, name, paths, folder, console)
    _draw(page, model, folder, console)
    look(page, examples(), console)
    if set(MODALITIES) <= set(model.spec.reads) & set(model.spec.writes):
        add_matrix(page, folder / "matrix", Converter(model, name, voice_of(model, name)), example_inputs(examples()), console)
    talk(page, folder, paths[0], console)
    seconds = time.perf_counter() - begin
    size = sum(p.numel() for p in model.parameters()) / 1e6
    lead = (f"One model of {size:.1f} million parameters ({name}) looked at {len(paths)} pictures, named them in two "
            f"languages, found them by meaning and drew {len(REQUESTS)} of its own, on this computer's CPU, in {seconds:.1f} s. "
            "Right or wrong, everything is shown as it came out.")
    write_file(folder / "index.html", page.html("Sensorium: see, find, draw, hear and speak", lead).encode())
    return folder / "index.html"


def examples() -> Path:
    """The folder of examples.

    Raises:
        MediaError: it is not here.
    """
    for place in (Path("examples"), Path(__file__).parent.parent / "examples"):
        if (place / "pictures").is_dir():
            return place
    raise sn.MediaError("examples/pictures is missing; run this in the project's folder")


def _name(page: Page, model: sn.ModelNet, paths: list[Path], console: Console) -> None:
    cells = []
    for path in paths:
        start, answers = time.perf_counter(), []
        for question in QUESTIONS.values():
            answers.append(sn.respond(model, sn.Request([sn.user(sn.Image(path), question)])).text)
        spent = time.perf_counter() - start
        console.print(f"  {path.name:<18} {answers[0]} / {answers[1]}  [dim]{spent:.2f} s[/]", highlight=False)
        cells.append((image_data(sn.Image(path)), f"{answers[0]} · {answers[1]}", f"{path.stem}, {spent:.2f} s"))
    page.section("Naming", f"Asked of each picture: {' and '.join(QUESTIONS.values())} The art style of each was never seen for that thing. "
                           "Small print: the file's name and the time for both answers.")
    page.grid(cells)


def _find(page: Page, model: sn.ModelNet, name: str, paths: list[Path], folder: Path, console: Console) -> None:
    shutil.rmtree(folder / "table", ignore_errors=True)
    start = time.perf_counter()
    memory = Memory(folder / "table", model, name)
    memory.add(paths)
    page.section("Finding", f"{len(paths)} pictures were indexed in {time.perf_counter() - start:.2f} s. Each row: what was asked for, "
                            "and the four nearest pictures, best first. The last rows ask with a picture.")
    for query in [*SEARCHES, *[sn.Image(path) for path in paths[:2]]]:
        start = time.perf_counter()
        found = memory.search(query, 4)
        spent = time.perf_counter() - start
        title = query if isinstance(query, str) else f"like {Path(query.source).stem}"
        console.print(f"  {title:<18} {', '.join(item.path.stem for item in found)}  [dim]{spent:.2f} s[/]", highlight=False)
        page.row(title, f"{spent * 1000:.0f} ms", [(image_data(sn.Image(item.path)), f"{item.path.stem} {item.score:.2f}") for item in found])


def _draw(page: Page, model: sn.ModelNet, folder: Path, console: Console) -> None:
    cells = []
    for number, request in enumerate(REQUESTS):
        start = time.perf_counter()
        image = sn.respond(model, sn.Request([sn.user(request)], want=["image"], seed=number)).image
        spent = time.perf_counter() - start
        image.save(folder / f"drawing-{number + 1:02d}.png")
        console.print(f"  {request:<18} drawing-{number + 1:02d}.png  [dim]{spent:.2f} s[/]", highlight=False)
        cells.append((image_data(image), request, f"{spent:.2f} s"))
    page.section("Drawing", "Drawn from noise at 64 pixels, enlarged. Below each: what was asked for, and the time.")
    page.grid(cells)
