"""Data: parts as arrays -> segments -> packed batches, without leaks between samples.

Letters: B batch rows, T places in a row, L media, C channels, H W pixels.

    [picture] <embed> [question] <embed> <say> [answer] <end>          one sample laid out as a segment
    row 0: segment 0, segment 3     row 1: segment 1, segment 2, ...    segments share rows and never see each other
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from sensorium.types import MODALITIES, Batch, ConfigError, Layout, ModalityError, Written

__all__ = ["Arrays", "Packer", "Segment"]


@dataclass(frozen=True)
class Arrays:
    """A part after its codec: token ids, or a float CHW tensor."""

    modality: str
    value: list[int] | torch.Tensor
    target: bool = False


@dataclass
class Segment:
    """One sample as places in a row, before packing."""

    token: list[int] = field(default_factory=list)
    media: list[int] = field(default_factory=list)
    span: list[int] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    axes: list[tuple[int, int, int]] = field(default_factory=list)
    sees: list[int] = field(default_factory=list)
    inputs: list[tuple[str, torch.Tensor]] = field(default_factory=list)
    outputs: list[tuple[str, torch.Tensor, int, int]] = field(default_factory=list)
    embeds: list[int] = field(default_factory=list)
    latest: int = -1  # the last medium that enters by cross-attention: what the places from here on see

    def __len__(self) -> int:
        return len(self.token)


@dataclass(frozen=True)
class Packer:
    """Turns samples of arrays into packed batches.

    Args:
        places: modality -> tokens that a read medium takes; 0 enters by cross-attention and leaves only its marker, if it has one.
        row: most places in a row.
        embed: id put after every context part; its state is the joint embedding of all before it. None: none.
        say: id put before a target text. None: the text follows directly.
        end: id put after a target text.
        markers: modality -> id that stands for a medium which takes no places (Flamingo's <image>); without one it is simply seen from there on.
        axes: give every place (time, row, column) coordinates for multi-axis rotary positions.
    """

    places: dict[str, int] = field(default_factory=dict)
    row: int = 256
    embed: int | None = None
    say: int | None = None
    end: int | None = None
    markers: dict[str, int] = field(default_factory=dict)
    axes: bool = False

    def segment(self, parts: Sequence[Arrays], answer: bool = False) -> Segment:
        """Lay one sample out.

        Args:
            parts: the sample.
            answer: finish with ``say``, ready to be continued.

        Raises:
            ModalityError, ConfigError: a part that cannot be laid out, or a sample longer than a row.
        """
        out = Segment()
        for item in parts:
            if item.modality != "text" and item.target:
                state = out.embeds[-1] if out.embeds else -1
                out.outputs.append((item.modality, item.value, len(out), state))
                continue
            if item.modality == "text":
                self._text(out, item)
            else:
                self._medium(out, item)
            if self.embed is not None and not item.target:
                out.embeds.append(len(out))
                self._put(out, self.embed)
        if answer and self.say is not None:
            self._put(out, self.say)
        if len(out) > self.row:
            raise ConfigError(f"a sample takes {len(out)} places, but a row holds {self.row}; shorten it or raise Packer(row=...)")
        return out

    def _text(self, out: Segment, item: Arrays) -> None:
        ids = list(item.value)
        if not item.target:
            for token in ids:
                self._put(out, token)
            return
        if self.say is not None:
            self._put(out, self.say)
        if not len(out):
            raise ConfigError("a sample starts with a target text; put context before it, or set Packer(say=...)")
        for token in ids + ([self.end] if self.end is not None else []):
            out.label[-1] = token
            self._put(out, token)

    def _medium(self, out: Segment, item: Arrays) -> None:
        if item.modality not in self.places:
            raise ModalityError(f"the model reads {', '.join(['text', *self.places])}, not {item.modality}")
        out.inputs.append((item.modality, item.value))
        count = self.places[item.modality]
        if count == 0:
            out.latest = len(out.inputs) - 1
            if item.modality in self.markers:
                self._put(out, self.markers[item.modality])
            return
        start, side, span = len(out), max(round(count**0.5), 1), len(out.inputs)
        for index in range(count):
            self._put(out, 0, 1 + MODALITIES.index(item.modality), span, (start, start + index // side, start + index % side))

    @staticmethod
    def _put(out: Segment, token: int, media: int = 0, span: int = 0, axes: tuple[int, int, int] | None = None) -> None:
        place = len(out)
        out.token.append(token)
        out.media.append(media)
        out.span.append(span)
        out.label.append(-100)
        out.axes.append(axes or (place, place, place))
        out.sees.append(out.latest)

    def pack(self, segments: Sequence[Segment], pairs: dict[str, list[int]] | None = None, group: list[int] | None = None,
             alone: bool = False) -> Batch:
        """Put segments into as few rows as first fit finds, longest rows first filled.

        Args:
            segments: laid-out samples.
            pairs: modality -> for each pair, the segment whose first embedding stands for it.
            group: identity of each pair.
            alone: one segment a row (nothing shared; for comparison and for answering).
        """
        rows: list[list[int]] = []
        room: list[int] = []
        for index, segment in enumerate(segments):
            fit = next((r for r, free in enumerate(room) if free >= len(segment)), None) if not alone else None
            if fit is None:
                rows.append([])
                room.append(self.row)
                fit = len(rows) - 1
            rows[fit].append(index)
            room[fit] -= len(segment)
        return _Grid(segments, rows, self.axes).batch(pairs or {}, group)


class _Grid:
    """Segments placed in rows, on the way to a :class:`Batch`."""

    def __init__(self, segments: Sequence[Segment], rows: list[list[int]], axes: bool) -> None:
        self.segments, self.rows, self.axes = segments, rows, axes
        self.width = max([sum(len(segments[i]) for i in row) for row in rows] + [1])
        self.start: dict[int, tuple[int, int]] = {}
        for r, row in enumerate(rows):
            at = 0
            for i in row:
                self.start[i] = (r, at)
                at += len(segments[i])

    def _grid(self, name: str, fill: int, extra: tuple[int, ...] = ()) -> torch.Tensor:
        out = torch.full((len(self.rows), self.width, *extra), fill, dtype=torch.int64)
        for i, (r, at) in self.start.items():
            values = vars(self.segments[i])[name]
            if values:
                out[r, at : at + len(values)] = torch.tensor(values)
        return out

    def batch(self, pairs: dict[str, list[int]], group: list[int] | None) -> Batch:
        """Everything joined."""
        order = [i for row in self.rows for i in row]
        segment = torch.full((len(self.rows), self.width), -1, dtype=torch.int64)
        position, span, sees = torch.zeros_like(segment), self._grid("span", 0), self._grid("sees", -1)
        media: dict[str, list[torch.Tensor]] = {}
        written: dict[str, list[tuple[torch.Tensor, int, int, int, int]]] = {}
        count = 0
        for i in order:
            r, at = self.start[i]
            item = self.segments[i]
            stop = at + len(item)
            segment[r, at:stop] = i
            position[r, at:stop] = torch.arange(len(item))
            sees[r, at:stop] += (sees[r, at:stop] >= 0) * count
            count += len(item.inputs)
            for modality, value in item.inputs:
                media.setdefault(modality, []).append(value)
            for modality, value, place, state in item.outputs:
                flat = r * self.width + at + state if state >= 0 else -1
                written.setdefault(modality, []).append((value, r, i, place, flat))
        last = (segment >= 0).sum(dim=1).clamp(min=1) - 1
        sees = torch.where(segment >= 0, sees, sees.gather(1, last[:, None]))  # what is decoded after a row sees what its end saw
        layout = Layout(segment, position, span, self._grid("axes", 0, (3,)) if self.axes else None)
        index = {m: torch.tensor([self._flat(i) for i in chosen], dtype=torch.int64) for m, chosen in pairs.items()}
        return Batch(
            token_BT=self._grid("token", 0), media_BT=self._grid("media", 0), layout=layout, label_BT=self._grid("label", -100),
            media={m: torch.stack(values) for m, values in media.items()}, sees_BT=sees,
            written={m: _written(items) for m, items in written.items()}, pairs=index,
            group_L=None if group is None else torch.tensor(group, dtype=torch.int64), samples=len(self.segments))

    def _flat(self, segment: int) -> int:
        r, at = self.start[segment]
        if not self.segments[segment].embeds:
            raise ConfigError(f"segment {segment} has no embedding; set Packer(embed=...) and give it context")
        return r * self.width + at + self.segments[segment].embeds[0]


def _written(items: list[tuple[torch.Tensor, int, int, int, int]]) -> Written:
    value, row, segment, place, state = zip(*items, strict=True)
    numbers = [torch.tensor(x, dtype=torch.int64) for x in (row, segment, place, state)]
    return Written(torch.stack(value), *numbers, label_L=torch.full((len(items),), -1))

