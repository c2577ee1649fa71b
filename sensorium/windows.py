"""Windows: a recording of any length as pieces that a speech model reads at once, each knowing when it was.

    blocks of samples -> spans of speech -> as many spans as fit one window, long pauses left out -> samples and their times

Letters: T samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from sensorium.pauses import RATE_HZ, Pauses, Span, SpanMaker, SpeechFinder, find_quiet

__all__ = ["cut_windows", "Window"]

JOIN_S = 1.0  # a pause up to this length stays in the window; of a longer one, what pads the speech around it


@dataclass(frozen=True, eq=False)
class Window:
    """Speech to be read at once.

    Args:
        x_T: float32 samples at 16 kHz.
        pieces: (start in the recording, length), in seconds, of the stretches that follow each other in ``x_T``.
        pad_s: what was kept around speech; between two pieces nobody speaks for so long before and after the join.
        led: it begins with so much, too.
    """

    x_T: torch.Tensor
    pieces: tuple[Span, ...]
    pad_s: float = 0.0
    led: bool = False

    @property
    def start_s(self) -> float:
        """Where it begins in the recording."""
        return self.pieces[0][0]

    @property
    def end_s(self) -> float:
        """Where it ends in the recording."""
        return self.pieces[-1][0] + self.pieces[-1][1]

    @property
    def length_s(self) -> float:
        """Seconds to be read."""
        return len(self.x_T) / RATE_HZ

    @cached_property
    def pauses(self) -> tuple[Span, ...]:
        """Places (start, end) in the window where nobody speaks: around the joins, and where it is quiet for long.

        What was left out of the recording lies in the middle of one:

            recording   ##speech####______________________####speech##
            window          ##speech####_____|_____####speech##
                                        [  pause  ]
        """
        found, join_s = [(-self.pad_s, self.pad_s)] if self.led else [], 0.0
        for _, length_s in self.pieces[:-1]:
            join_s += length_s
            found.append((join_s - self.pad_s, join_s + self.pad_s))
        joins = tuple(found)
        found += [quiet for quiet in find_quiet(self.x_T) if all(quiet[1] < start or end < quiet[0] for start, end in joins)]
        return tuple(sorted(found))

    def crossed(self, start_s: float, end_s: float) -> list[Span]:
        """The pauses that lie between two places, with speech on both sides."""
        return [(start, end) for start, end in self.pauses if start_s < start and end < end_s]

    def spoken(self, start_s: float, end_s: float) -> Span:
        """Two places, moved out of the pauses that they stand in, or on one side of them: nobody speaks over a pause."""
        for start, end in self.pauses:
            if end <= start_s or end_s <= start:
                continue
            before, after = start - start_s, end_s - end
            if before <= 0 and after <= 0:  # within it: on one side of the middle, where something may have been left out
                middle = (start + end) / 2
                start_s, end_s = (start_s, min(end_s, middle)) if start_s + end_s < 2 * middle else (max(start_s, middle), end_s)
            elif before >= after:
                end_s = start
            else:
                start_s = end
        return start_s, end_s

    def time(self, offset_s: float, late: bool = False) -> float:
        """The recording's time of a place in the window.

        Args:
            late: at a join, the beginning of the later stretch and not the end of the earlier one (for a start).
        """
        left = max(offset_s, 0.0)
        for start_s, length_s in self.pieces:
            if left < length_s or (left == length_s and not late):
                return start_s + left
            left -= length_s
        return self.end_s

    def after(self, offset_s: float) -> Window:
        """What follows a place in the window."""
        pieces, skip = [], offset_s
        for start_s, length_s in self.pieces:
            if skip < length_s:
                pieces.append((start_s + skip, length_s - skip))
            skip = max(skip - length_s, 0.0)
        return Window(self.x_T[int(offset_s * RATE_HZ) :], tuple(pieces), self.pad_s)


def cut_windows(blocks: Iterable[torch.Tensor], finder: SpeechFinder | None, pauses: Pauses | None = None, longest_s: float = 30.0,
                ) -> Iterator[Window]:
    """Cut a stream of float (T,) blocks at 16 kHz into windows, in order; holds little more than a window and a block.

    Args:
        finder: of speech; None takes everything that sounds for speech and cuts at quiet places.
        longest_s: of a window.
    """
    pauses = pauses or Pauses()
    spans, buffer, base = SpanMaker(finder, pauses), torch.zeros(0), 0
    waiting = _Waiting(pauses.pad_s)
    for block in blocks:
        buffer = torch.cat([buffer, block])
        for span in spans.push(block):
            yield from waiting.add(span, buffer, base, longest_s)
        used = min(max(int((spans.since_s - 2 * JOIN_S) * RATE_HZ) - base, 0), len(buffer))
        buffer, base = buffer[used:].clone(), base + used
    for span in spans.finish():
        yield from waiting.add(span, buffer, base, longest_s)
    yield from waiting.flush()


class _Waiting:
    """Spans that wait for more to fill their window."""

    def __init__(self, pad_s: float) -> None:
        self.pad_s, self.end_s, self.led = pad_s, 0.0, False
        self.pieces: list[Span] = []
        self.samples: list[torch.Tensor] = []

    def add(self, span: Span, buffer: torch.Tensor, base: int, longest_s: float) -> Iterator[Window]:
        start, end = int(span[0] * RATE_HZ), int(span[1] * RATE_HZ)
        joined = bool(self.pieces) and span[0] - sum(self.pieces[-1]) <= JOIN_S
        if joined:  # the pause between belongs to the window
            start = round(sum(self.pieces[-1]) * RATE_HZ)
        held = sum(len(x) for x in self.samples)
        if held and held + end - start > longest_s * RATE_HZ:
            yield from self.flush()
            joined, start = False, int(span[0] * RATE_HZ)
        x_T = buffer[start - base : end - base].clone()
        if joined:
            first, length = self.pieces.pop()
            self.pieces.append((first, length + len(x_T) / RATE_HZ))
        else:
            self.led = span[0] > self.end_s if not self.pieces else self.led
            self.pieces.append((start / RATE_HZ, len(x_T) / RATE_HZ))
        self.end_s = span[1]
        self.samples.append(x_T)

    def flush(self) -> Iterator[Window]:
        if self.samples:
            yield Window(torch.cat(self.samples), tuple(self.pieces), self.pad_s, self.led)
        self.pieces, self.samples = [], []
