"""Captions: a transcript as text, as subtitles (srt, vtt) or as JSON.

    segments -> captions of two short lines, cut at words where their times are known -> the file's text
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from sensorium.hear import Heard, Hearing, joined, main_language
from sensorium.languages import cells, pieces
from sensorium.types import ConfigError

__all__ = ["FORMATS", "plain", "write"]

FORMATS = ("text", "srt", "vtt", "json")
WIDE = 42  # columns of a line
LINES = 2
LONGEST_S = 7.0
PAUSE_S = 1.0  # between words that ends a caption
SHORTEST_S = 0.1  # of a caption; nothing is read faster


def write(heard: Hearing | Sequence[Heard], form: str = "text") -> str:
    """A transcript in one of ``FORMATS``; it ends with a line end, unless nothing was heard and the form has no header.

    Raises:
        ConfigError: another form.
    """
    segments = tuple(segment for segment in (heard.segments if isinstance(heard, Hearing) else heard) if segment.text.strip())
    if form == "text":
        return "".join(f"{' '.join(segment.text.split())}\n" for segment in segments)
    if form == "json":
        whole = {"language": main_language(segments), "text": plain(segments), "segments": [asdict(segment) for segment in segments]}
        return json.dumps(whole, ensure_ascii=False, indent=1) + "\n"
    if form == "srt":
        return "\n".join(f"{number}\n{_time(start, ',')} --> {_time(end, ',')}\n{text}\n"
                         for number, (start, end, text) in enumerate(_captions(segments), 1))
    if form == "vtt":
        shown = (f"\n{_time(start, '.')} --> {_time(end, '.')}\n{_escaped(text)}\n" for start, end, text in _captions(segments))
        return "WEBVTT\n" + "".join(shown)
    raise ConfigError(f"a transcript was wanted as {form!r}; wanted one of {', '.join(FORMATS)}")


def plain(segments: Sequence[Heard]) -> str:
    """All of the text on one line."""
    return joined(segments)


def _time(seconds: float, point: str) -> str:
    """hours:minutes:seconds and thousandths."""
    thousandths = round(max(seconds, 0.0) * 1000)
    return f"{thousandths // 3_600_000:02}:{thousandths // 60_000 % 60:02}:{thousandths // 1000 % 60:02}{point}{thousandths % 1000:03}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _captions(segments: Sequence[Heard]) -> Iterator[tuple[float, float, str]]:
    """(start, end, lines), never before the one before it."""
    last = 0.0
    for segment in segments:
        for start, end, text in _cut(segment):
            start = max(start, last)
            last = max(end, start + SHORTEST_S)
            yield start, last, "\n".join(_lines(text))


def _cut(segment: Heard) -> Iterator[tuple[float, float, str]]:
    """A segment in pieces that fit a caption: at words, with their times if there are any, else in proportion to the letters."""
    if segment.words:
        parts = [(word.start_s, word.end_s, word.text) for word in segment.words]
    else:
        parts = list(_even(segment))
    held: list[tuple[float, float, str]] = []
    for part in parts:
        text = "".join(one[2] for one in held) + part[2]
        if held and (len(_lines(text)) > LINES or part[1] - held[0][0] > LONGEST_S or part[0] - held[-1][1] >= PAUSE_S):
            yield held[0][0], held[-1][1], "".join(one[2] for one in held)
            held = []
        held.append(part)
    if held:
        yield held[0][0], held[-1][1], "".join(one[2] for one in held)


def _even(segment: Heard) -> Iterator[tuple[float, float, str]]:
    """Text that fits one caption is one, and stays no longer than any; more is shared out evenly over the time."""
    text, span = segment.text.strip(), segment.end_s - segment.start_s
    if len(_lines(text)) <= LINES:
        yield segment.start_s, segment.start_s + min(span, LONGEST_S), text
        return
    done = 0
    for piece in pieces(text):
        start = segment.start_s + span * done / len(text)
        done += len(piece)
        yield start, segment.start_s + span * done / len(text), piece


def _lines(text: str) -> list[str]:
    """Lines of about equal length, none wider than ``WIDE`` columns; what is wider without a place to break is broken anywhere."""
    whole = pieces(" ".join(text.split()))
    small = [chunk for piece in whole for chunk in ([piece] if cells(piece.strip()) <= WIDE else _chunks(piece))]
    lines = _wrapped(small, WIDE)
    if len(lines) > 1:  # even lines are read more easily than a full one and a word
        for width in range(cells(text) // len(lines), WIDE):
            even = _wrapped(small, width)
            if len(even) == len(lines):
                return even
    return lines


def _wrapped(small: Sequence[str], width: int) -> list[str]:
    """As many pieces on each line as fit, at least one."""
    lines: list[str] = []
    for piece in small:
        if lines and cells(lines[-1] + piece) <= width:
            lines[-1] += piece
        else:
            lines.append(piece.strip())
    return lines


def _chunks(piece: str) -> list[str]:
    """A piece that is wider than a line, in parts that are not."""
    out = [""]
    for letter in piece:
        if cells(out[-1] + letter) > WIDE:
            out.append("")
        out[-1] += letter
    return out
