"""Captions: a transcript as text, as subtitles (srt, vtt) or as JSON.

    segments -> captions of two short lines, cut at words where their times are known -> the file's text
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from sensorium.hear import Heard, Hearing
from sensorium.types import ConfigError

__all__ = ["FORMATS", "plain", "write"]

FORMATS = ("text", "srt", "vtt", "json")
WIDE = 42  # characters of a line
LINES = 2
LONGEST_S = 7.0
SHORTEST_S = 0.1  # of a caption; nothing is read faster


def write(heard: Hearing | Sequence[Heard], form: str = "text") -> str:
    """A transcript in one of ``FORMATS``; it ends with a line end, unless nothing was heard and the form has no header.

    Raises:
        ConfigError: another form.
    """
    segments = heard.segments if isinstance(heard, Hearing) else tuple(heard)
    if form == "text":
        return "".join(f"{segment.text.strip()}\n" for segment in segments)
    if form == "json":
        language = next((segment.language for segment in segments), "")
        whole = {"language": language, "text": plain(segments), "segments": [asdict(segment) for segment in segments]}
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
    return "".join(segment.text for segment in segments).strip()


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
        pieces = [(word.start_s, word.end_s, word.text) for word in segment.words]
    else:
        pieces = list(_even(segment))
    held: list[tuple[float, float, str]] = []
    for piece in pieces:
        text = "".join(part[2] for part in held) + piece[2]
        if held and (len(_lines(text)) > LINES or piece[1] - held[0][0] > LONGEST_S):
            yield held[0][0], held[-1][1], "".join(part[2] for part in held)
            held = []
        held.append(piece)
    if held:
        yield held[0][0], held[-1][1], "".join(part[2] for part in held)


def _even(segment: Heard) -> Iterator[tuple[float, float, str]]:
    text = segment.text.strip()
    spaced = " " in text
    pieces = [f" {word}" for word in text.split()] if spaced else list(text)
    total, done, span = sum(map(len, pieces)), 0, segment.end_s - segment.start_s
    if len(_lines(text)) <= LINES and span <= LONGEST_S:
        pieces = [text]
        total = len(text)
    for piece in pieces:
        start = segment.start_s + span * done / max(total, 1)
        done += len(piece)
        yield start, segment.start_s + span * done / max(total, 1), piece


def _lines(text: str) -> list[str]:
    """Lines of about equal length, none wider than ``WIDE``; wide characters count twice."""
    text = " ".join(text.split())
    wide = WIDE // 2 if sum(letter > "\u2e7f" for letter in text) > len(text) / 2 else WIDE
    lines = textwrap.wrap(text, wide, break_on_hyphens=False)
    if len(lines) > 1:  # even lines are read more easily than a full one and a word
        for width in range(len(text) // len(lines), wide):
            even = textwrap.wrap(text, width, break_on_hyphens=False)
            if len(even) == len(lines):
                return even
    return lines
