"""Chart: shares with their 95 % intervals as one SVG picture that needs nothing to be shown, in light and in dark.

    lines("few-shot", "examples", {"nano": [(0, 0.5, 0.47, 0.53), ...]})      shares by a number
    bars("nano", [("naming", 0.77, 0.75, 0.79, {"chance": 0.01}), ...])       shares by name, each beside its baselines
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

__all__ = ["bars", "lines", "Point"]

WIDTH = 760
COLOURS = ("#2f6fed", "#e0682b", "#7aa7ff", "#f0a77c", "#98a2b3", "#667085")
STYLE = ("text{font:13px system-ui,sans-serif;fill:#344054}.title{font-size:16px;font-weight:600}.small{font-size:11px}.rule{stroke:#d0d5dd}"
         ".paper{fill:#fff}@media(prefers-color-scheme:dark){text{fill:#d0d5dd}.rule{stroke:#344054}.paper{fill:#171b24}}")

Point = tuple[float, float, float, float]
"""A number, a share, and the low and high end of its interval."""


def lines(title: str, across: str, named: Mapping[str, Sequence[Point]], dashed: Sequence[str] = ()) -> str:
    """Shares by number.

    Args:
        across: what the numbers are.
        named: name -> points (number, share, low and high end of its interval); the numbers stand at equal distances.
        dashed: names of lines that are there to compare with; their intervals are not drawn.
    """
    numbers = sorted({point[0] for points in named.values() for point in points})
    left, top, wide, high = 56.0, 48.0, WIDTH - 76.0, 260.0
    x = {number: left + wide * (i + 0.5) / len(numbers) for i, number in enumerate(numbers)}

    def y(value: float) -> float:
        return top + high * (1 - value)

    parts = []
    for value in (0, 0.2, 0.4, 0.6, 0.8, 1):
        parts += [_line(left, y(value), left + wide, y(value), 'class="rule"'), _text(f"{value:.0%}", left - 8, y(value) + 4, 'text-anchor="end"')]
    parts += [_text(f"{number:g}", x[number], top + high + 20, 'text-anchor="middle"') for number in numbers]
    parts.append(_text(across, left + wide / 2, top + high + 42, 'text-anchor="middle"'))
    for number, (name, points) in enumerate(named.items()):
        ink, dash = COLOURS[number % len(COLOURS)], ' stroke-dasharray="5 5"' if name in dashed else ""
        path = " ".join(f"{x[point[0]]:.1f},{y(point[1]):.1f}" for point in points)
        parts.append(f'<polyline fill="none" stroke="{ink}" stroke-width="2.5" points="{path}"{dash}/>')
        if not dash:
            for where, value, low, top_end in points:
                parts += [_line(x[where], y(low), x[where], y(top_end), f'stroke="{ink}" stroke-width="1.5"'),
                          f'<circle fill="{ink}" cx="{x[where]:.1f}" cy="{y(value):.1f}" r="4"/>']
        down = top + high + 70 + 20 * number
        parts += [_line(left, down - 4, left + 20, down - 4, f'stroke="{ink}" stroke-width="2.5"{dash}'), _text(name, left + 28, down)]
    return _whole(title, parts, top + high + 70 + 20 * len(named))


def bars(title: str, rows: Sequence[tuple[str, float, float, float, Mapping[str, float]]]) -> str:
    """Shares by name: a bar with its interval, and a mark with a name for each baseline.

    Args:
        rows: name, share, low and high end of its interval, baselines.
    """
    left, wide, parts, down = 300.0, WIDTH - 370.0, [], 56.0
    for name, value, low, high, beside in rows:
        parts += [_text(name, left - 10, down + 12, 'text-anchor="end"'), _text(f"{value:.1%}", left + wide + 10, down + 12),
                  f'<rect fill="{COLOURS[0]}" x="{left}" y="{down:.1f}" width="{max(wide * value, 1):.1f}" height="16" rx="2"/>',
                  _line(left + wide * low, down + 8, left + wide * high, down + 8, f'stroke="{COLOURS[1]}" stroke-width="3"')]
        for other in beside.values():
            parts.append(_line(left + wide * other, down - 3, left + wide * other, down + 19, f'stroke="{COLOURS[5]}" stroke-width="2"'))
        parts.append(_text("; ".join(f"{label.replace('_', ' ')} {other:.1%}" for label, other in beside.items()), left, down + 31, 'class="small"'))
        down += 48
    return _whole(title, parts, down)


def _line(x1: float, y1: float, x2: float, y2: float, look: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {look}/>'


def _text(words: str, x: float, y: float, look: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{html.escape(words)}</text>'


def _whole(title: str, parts: Sequence[str], high: float) -> str:
    name = html.escape(title)
    paper = f'<rect class="paper" width="{WIDTH}" height="{high:.0f}" rx="12"/>'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {high:.0f}" role="img" aria-label="{name}"><style>{STYLE}</style>'
            f'{paper}<text class="title" x="20" y="28">{name}</text>{"".join(parts)}</svg>\n')
