"""The demo: name, find and draw with a packaged model, and one self-contained page that shows inputs, outputs and timings."""

from __future__ import annotations

import base64
import html
import io
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

import sensorium as sn
from sensorium.files import write_file
from sensorium.memory import Memory, pictures_in

__all__ = ["make_demo"]

QUESTIONS = ("What is this?", "这是什么？")
SEARCHES = ("something to eat", "animal", "吃的东西", "a house", "在水里")
REQUESTS = ("Draw a red apple", "画一个苹果", "Draw a cat", "Draw the sun", "画一朵玫瑰", "Draw a house", "Draw a fish", "Draw a red heart",
            "Draw a pizza", "Draw a soccer ball", "Draw a tree", "画一只熊猫")
STYLE = """
:root{--ink:#1f2430;--soft:#667085;--line:#e4e7ec;--paper:#fff;--back:#f7f8fa;--hit:#2f6fed}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaf0;--soft:#98a2b3;--line:#2b3240;--paper:#171b24;--back:#0f1218;--hit:#7aa7ff}}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:16px/1.5 system-ui,"Noto Sans SC",sans-serif}
main{max-width:1060px;margin:0 auto;padding:40px 20px 80px}h1{font-size:30px;margin:0 0 4px}h2{font-size:20px;margin:44px 0 4px}
p{color:var(--soft);margin:0 0 16px;max-width:70ch}.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:14px}
figure{margin:0;background:var(--paper);border:1px solid var(--line);border-radius:14px;padding:14px;text-align:center}
figure img{width:104px;height:104px;object-fit:contain;background:#fff;border-radius:8px}
figcaption{font-size:14px;margin-top:8px;overflow-wrap:anywhere}
small{color:var(--soft);display:block}.row{display:flex;gap:10px;align-items:center;
background:var(--paper);border:1px solid var(--line);
border-radius:14px;padding:10px 14px;margin-bottom:10px;flex-wrap:wrap}
.row b{width:150px}.row img{width:64px;height:64px;border-radius:6px;background:#fff}
"""


@dataclass
class _Page:
    """The page as it grows."""

    parts: list[str] = field(default_factory=list)

    def section(self, title: str, text: str) -> None:
        self.parts.append(f"<h2>{html.escape(title)}</h2><p>{html.escape(text)}</p>")

    def grid(self, cells: list[tuple[str, str, str]]) -> None:
        """Cells of (picture data, caption, small print)."""
        figures = "".join(f'<figure><img src="{data}" alt="{html.escape(caption)}"><figcaption>{html.escape(caption)}'
                          f"<small>{html.escape(small)}</small></figcaption></figure>" for data, caption, small in cells)
        self.parts.append(f'<div class="grid">{figures}</div>')

    def row(self, title: str, small: str, pictures: list[tuple[str, str]]) -> None:
        """One search: the query and what it found, each (picture data, alternative text)."""
        images = "".join(f'<img src="{data}" alt="{html.escape(alt)}" title="{html.escape(alt)}">' for data, alt in pictures)
        self.parts.append(f'<div class="row"><b>{html.escape(title)}<small>{html.escape(small)}</small></b>{images}</div>')

    def html(self, title: str, lead: str) -> str:
        return (f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
                f"<title>{html.escape(title)}</title><style>{STYLE}</style><main><h1>{html.escape(title)}</h1><p>{html.escape(lead)}</p>"
                f"{''.join(self.parts)}</main></html>")


def make_demo(folder: Path, model: sn.ModelNet, name: str, console: Console, pictures: Path | None = None) -> Path:
    """Run the main job on real pictures and write ``folder/index.html``.

    Args:
        folder: made if missing; drawings and the search table go there too.
        model, name: an any-to-any model and what to call it.
        pictures: folder of pictures; None is the repository's examples.
    """
    begin = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    pictures = pictures or _examples()
    paths, page = pictures_in(pictures), _Page()
    _name(page, model, paths, console)
    _find(page, model, name, paths, folder, console)
    _draw(page, model, folder, console)
    seconds = time.perf_counter() - begin
    size = sum(p.numel() for p in model.parameters()) / 1e6
    lead = (f"One model of {size:.1f} million parameters ({name}) looked at {len(paths)} pictures, named them in two "
            f"languages, found them by meaning and drew {len(REQUESTS)} of its own, on this computer's CPU, in {seconds:.1f} s. "
            "Right or wrong, everything is shown as it came out.")
    write_file(folder / "index.html", page.html("Sensorium: see, name, find and draw", lead).encode())
    return folder / "index.html"


def _examples() -> Path:
    for place in (Path("examples/pictures"), Path(__file__).parent.parent / "examples" / "pictures"):
        if place.is_dir():
            return place
    raise sn.MediaError("examples/pictures is missing; run the demo in the project's folder")


def _name(page: _Page, model: sn.ModelNet, paths: list[Path], console: Console) -> None:
    cells = []
    for path in paths:
        start, answers = time.perf_counter(), []
        for question in QUESTIONS:
            answers.append(sn.respond(model, sn.Request([sn.user(sn.Image(path), question)])).text)
        spent = time.perf_counter() - start
        console.print(f"  {path.name:<18} {answers[0]} / {answers[1]}  [dim]{spent:.2f} s[/]", highlight=False)
        cells.append((_data(sn.Image(path)), f"{answers[0]} · {answers[1]}", f"{path.stem}, {spent:.2f} s"))
    page.section("Naming", f"Asked of each picture: {QUESTIONS[0]} and {QUESTIONS[1]} The art style of each was never seen for that thing. "
                           "Small print: the file's name and the time for both answers.")
    page.grid(cells)


def _find(page: _Page, model: sn.ModelNet, name: str, paths: list[Path], folder: Path, console: Console) -> None:
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
        page.row(title, f"{spent * 1000:.0f} ms", [(_data(sn.Image(item.path)), f"{item.path.stem} {item.score:.2f}") for item in found])


def _draw(page: _Page, model: sn.ModelNet, folder: Path, console: Console) -> None:
    cells = []
    for number, request in enumerate(REQUESTS):
        start = time.perf_counter()
        image = sn.respond(model, sn.Request([sn.user(request)], want=["image"], seed=number)).image
        spent = time.perf_counter() - start
        image.save(folder / f"drawing-{number + 1:02d}.png")
        console.print(f"  {request:<18} drawing-{number + 1:02d}.png  [dim]{spent:.2f} s[/]", highlight=False)
        cells.append((_data(image), request, f"{spent:.2f} s"))
    page.section("Drawing", "Drawn from noise at 64 pixels, enlarged. Below each: what was asked for, and the time.")
    page.grid(cells)


def _data(image: sn.Image) -> str:
    """A picture as a data address, so that the page needs no other file."""
    from PIL import Image as Pillow

    from sensorium.codecs.vision import load_image

    pixels = (load_image(image) * 255).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
