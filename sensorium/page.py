"""Page: one self-contained HTML page of pictures, sounds, videos and captions, as it grows."""

from __future__ import annotations

import base64
import html
import io
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import sensorium as sn

__all__ = ["audio_data", "image_data", "media_data", "Page", "video_data"]

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
.said{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr);gap:14px}.said>div{background:var(--paper);border:1px solid var(--line);
border-radius:14px;padding:14px;margin-bottom:10px}.said audio{width:100%;margin-top:8px;display:block}.said img{width:96px;border-radius:8px}
@media(max-width:640px){.said{grid-template-columns:1fr}}
.cells{display:grid;grid-template-columns:repeat(5,minmax(0,1fr));gap:8px;margin-bottom:22px}.cells>div{background:var(--paper);
border:1px solid var(--line);border-radius:12px;padding:10px;font-size:14px;overflow-wrap:anywhere;min-height:56px}
.cells>div.head{background:none;border:none;color:var(--soft);min-height:0;padding:4px 10px}.cells>div.given{border:2px solid var(--hit)}
.cells img{width:100%;max-width:128px;border-radius:8px;background:#fff;display:block}.cells audio{width:100%;display:block}
@media(max-width:760px){.cells{grid-template-columns:repeat(2,minmax(0,1fr))}}
.row b{width:150px}.row img{width:64px;height:64px;border-radius:6px;background:#fff}
"""


@dataclass
class Page:
    """The page as it grows; everything shown is inside it, so that it needs no other file."""

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

    def exchange(self, sides: list[tuple[str, str, str, str]]) -> None:
        """What was asked beside what came back: sides of (small title, text, sound or picture data or "", small print)."""
        cells = "".join(f"<div><small>{html.escape(title)}</small>{html.escape(text)}{_player(data)}<small>{html.escape(small)}</small></div>"
                        for title, text, data, small in sides)
        self.parts.append(f'<div class="said">{cells}</div>')

    def cells(self, heads: list[str], rows: list[list[tuple[str, str, str]]]) -> None:
        """A table: titles of the columns, and rows of (text, sound, picture or video data or "", small print); the first of a row was given."""
        parts = [f'<div class="head">{html.escape(head)}</div>' for head in heads]
        for row in rows:
            for place, (text, data, small) in enumerate(row):
                kind = ' class="given"' if place == 0 else ""
                parts.append(f"<div{kind}>{_player(data)}{html.escape(text)}<small>{html.escape(small)}</small></div>")
        self.parts.append(f'<div class="cells">{"".join(parts)}</div>')

    def html(self, title: str, lead: str) -> str:
        return (f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
                f"<title>{html.escape(title)}</title><style>{STYLE}</style><main><h1>{html.escape(title)}</h1><p>{html.escape(lead)}</p>"
                f"{''.join(self.parts)}</main></html>")


def _player(data: str) -> str:
    if data.startswith("data:audio"):
        return f'<audio controls preload="none" src="{data}"></audio>'
    return f'<br><img src="{data}" alt="">' if data else ""


def image_data(image: sn.Image) -> str:
    """A picture as a data address, so that the page needs no other file."""
    from PIL import Image as Pillow

    from sensorium.codecs.vision import load_image

    pixels = (load_image(image) * 255).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def audio_data(audio: sn.Audio) -> str:
    """A sound as a data address (Ogg, a tenth of the size of WAV)."""
    with tempfile.TemporaryDirectory() as folder:
        return "data:audio/ogg;base64," + base64.b64encode(audio.save(Path(folder) / "sound.ogg").read_bytes()).decode()


def video_data(video: sn.Video) -> str:
    """A video as a data address: an animated picture, which every browser plays."""
    with tempfile.TemporaryDirectory() as folder:
        return "data:image/webp;base64," + base64.b64encode(video.save(Path(folder) / "video.webp").read_bytes()).decode()


def media_data(value: sn.Text | sn.Media) -> str:
    """Any medium as a data address; "" for a text."""
    makers = {"image": image_data, "audio": audio_data, "video": video_data}
    return makers[value.modality](value) if value.modality in makers else ""
