"""Data: parts as arrays -> segments -> packed batches, without leaks between samples.

Letters: B batch rows, T places in a row, L media, C channels, H W pixels.

    [picture] <embed> [question] <embed> <say> [answer] <end>          one sample laid out as a segment
    row 0: segment 0, segment 3     row 1: segment 1, segment 2, ...    segments share rows and never see each other
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from sensorium.types import MODALITIES, Batch, ConfigError, Layout, ModalityError, Patches, ShapeError, Written

__all__ = ["Arrays", "Packer", "Segment"]


@dataclass(frozen=True, eq=False)
class Arrays:
    """A part after its codec.

    Args:
        modality: of the part.
        value: token ids; a float CHW tensor; (L, C, H, W) tiles, each encoded by itself; or patches of a medium at its own size.
        target: the model learns to write it.
        pick: int64 (n,) which of the medium's aligned features, all tiles flattened, stand among the tokens, in order; -1 - k is the k-th
            learned vector of ``Splice``. None: all of them.
        axes: int64 (n, 3) time, row and column of each place, counted from the medium's start. None: as a square that is read row by row.
        after: how far the coordinate of the next token lies behind the medium's start. None: as many as it takes places.
    """

    modality: str
    value: list[int] | torch.Tensor | Patches
    target: bool = False
    pick: torch.Tensor | None = None
    axes: torch.Tensor | None = None
    after: int | None = None

    @property
    def tiles(self) -> int:
        """Pieces that are encoded one by one."""
        return len(self.value) if isinstance(self.value, torch.Tensor) and self.value.dim() == 4 else 1


@dataclass
class Segment:
    """One sample as places in a row, before packing."""

    token: list[int] = field(default_factory=list)
    media: list[int] = field(default_factory=list)
    span: list[int] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    axes: list[tuple[int, int, int]] = field(default_factory=list)
    sees: list[int] = field(default_factory=list)
    inputs: list[Arrays] = field(default_factory=list)
    outputs: list[tuple[str, torch.Tensor, int, int]] = field(default_factory=list)
    embeds: list[int] = field(default_factory=list)
    next: int = 0  # the coordinate of what follows, for multi-axis positions
    latest: int = -1  # the last medium that enters by cross-attention: what the places from here on see

    def __len__(self) -> int:
        return len(self.token)


@dataclass(frozen=True)
class Packer:
    """Turns samples of arrays into packed batches.

    Args:
        places: modality -> tokens that a read medium takes, or a tile of it; 0 enters by cross-attention and leaves only its marker, if it has one.
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

    def answered(self, segment: Segment, ids: Sequence[int]) -> Segment:
        """A segment that is ready to be answered, with the answer and its end to be learned."""
        for token in [*ids, *([self.end] if self.end is not None else [])]:
            segment.label[-1] = token
            self._put(segment, token)
        return segment

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
        out.inputs.append(item)
        if self.places[item.modality] == 0:
            if item.tiles != 1:
                raise ConfigError(f"a medium of {item.tiles} tiles cannot enter by cross-attention; give each as a part of its own")
            out.latest = len(out.inputs) - 1
            if item.modality in self.markers:
                self._put(out, self.markers[item.modality])
            return
        axes, start, span = self._axes(item), out.next, len(out.inputs)
        for time, row, column in axes:
            self._put(out, 0, 1 + MODALITIES.index(item.modality), span, (start + time, start + row, start + column))
        out.next = start + (len(axes) if item.after is None else item.after)

    def _axes(self, item: Arrays) -> list[list[int]]:
        """Time, row and column of every place of a medium."""
        features = self.features(item)
        count = features if item.pick is None else len(item.pick)
        if item.pick is not None and count and int(item.pick.max()) >= features:
            raise ShapeError(f"a medium's pick goes to {int(item.pick.max())}, but it has {features} features")
        if item.axes is None:
            side = max(round(count**0.5), 1)
            return [[0, index // side, index % side] for index in range(count)]
        if tuple(item.axes.shape) != (count, 3):
            raise ShapeError(f"a medium's axes have shape {tuple(item.axes.shape)}, wanted ({count}, 3)")
        return item.axes.tolist()

    def features(self, item: Arrays) -> int:
        """Aligned features of a medium, all its tiles together."""
        return item.value.places if isinstance(item.value, Patches) else item.tiles * self.places[item.modality]

    @staticmethod
    def _put(out: Segment, token: int, media: int = 0, span: int = 0, axes: tuple[int, int, int] | None = None) -> None:
        out.token.append(token)
        out.media.append(media)
        out.span.append(span)
        out.label.append(-100)
        out.axes.append(axes or (out.next, out.next, out.next))
        out.next += axes is None
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
        return _Grid(segments, rows, self).batch(pairs or {}, group)


class _Grid:
    """Segments placed in rows, on the way to a :class:`Batch`."""

    def __init__(self, segments: Sequence[Segment], rows: list[list[int]], packer: Packer) -> None:
        self.segments, self.rows, self.packer = segments, rows, packer
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
        media: dict[str, list[Arrays]] = {}
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
            for medium in item.inputs:
                media.setdefault(medium.modality, []).append(medium)
            for modality, value, place, state in item.outputs:
                flat = r * self.width + at + state if state >= 0 else -1
                written.setdefault(modality, []).append((value, r, i, place, flat))
        last = (segment >= 0).sum(dim=1).clamp(min=1) - 1
        sees = torch.where(segment >= 0, sees, sees.gather(1, last[:, None]))  # what is decoded after a row sees what its end saw
        axes = self._grid("axes", 0, (3,)) if self.packer.axes else None
        follows = [self.segments[row[-1]].next if row else 0 for row in self.rows]
        index = {m: torch.tensor([self._flat(i) for i in chosen], dtype=torch.int64) for m, chosen in pairs.items()}
        return Batch(
            token_BT=self._grid("token", 0), media_BT=self._grid("media", 0), layout=Layout(segment, position, span, axes),
            label_BT=self._grid("label", -100), media={m: _joined(items) for m, items in media.items()}, sees_BT=sees,
            pick={m: self._picked(items) for m, items in media.items() if any(item.pick is not None for item in items)},
            written={m: _written(items) for m, items in written.items()}, pairs=index,
            group_L=None if group is None else torch.tensor(group, dtype=torch.int64),
            next_B=None if axes is None else torch.tensor(follows, dtype=torch.int64), samples=len(self.segments))

    def _picked(self, items: list[Arrays]) -> torch.Tensor:
        """The picks of all media of a modality, counted from the first one's first feature."""
        out, before = [], 0
        for item in items:
            features = self.packer.features(item)
            pick = torch.arange(features) if item.pick is None else item.pick
            out.append(torch.where(pick < 0, pick, pick + before))
            before += features
        return torch.cat(out)

    def _flat(self, segment: int) -> int:
        r, at = self.start[segment]
        if not self.segments[segment].embeds:
            raise ConfigError(f"segment {segment} has no embedding; set Packer(embed=...) and give it context")
        return r * self.width + at + self.segments[segment].embeds[0]


def _joined(items: list[Arrays]) -> torch.Tensor | Patches:
    """The encoder's input for media and tiles, one after the other."""
    if isinstance(items[0].value, Patches):
        return Patches.joined([item.value for item in items])
    return torch.cat([item.value if item.value.dim() == 4 else item.value[None] for item in items])


def _written(items: list[tuple[torch.Tensor, int, int, int, int]]) -> Written:
    value, row, segment, place, state = zip(*items, strict=True)
    numbers = [torch.tensor(x, dtype=torch.int64) for x in (row, segment, place, state)]
    return Written(torch.stack(value), *numbers, label_L=torch.full((len(items),), -1))
