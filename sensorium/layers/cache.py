"""What decoding remembers: keys, values and where they stood. The only state a forward may change.

Letters: B batch, S source length, K kv heads, E head width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from sensorium.types import Layout

__all__ = ["Cache", "seen_later"]


class Cache:
    """Keys and values of every layer, with the layout they came from, so that masks stay data while decoding.

    Layers that see no further than a window remember no further: what no later token can see is forgotten as it is read.
    Gradients flow through it: training writes pictures against the keys and values of the text read just before.
    """

    def __init__(self) -> None:
        self.layout: Layout | None = None
        self.memory: Any = None  # what cross-attention looks at, made once when the prompt is read; knows its ``rows`` as this does
        self._near: dict[int, Layout] = {}  # window -> where stands what its layers still remember
        self._window: dict[int, int] = {}  # layer -> its window
        self._keys: dict[int, torch.Tensor] = {}
        self._values: dict[int, torch.Tensor] = {}

    @property
    def length(self) -> int:
        """Places remembered."""
        return 0 if self.layout is None else self.layout.position_BT.shape[1]

    def layout_with(self, new: Layout, window: int | None = None) -> Layout:
        """Where the tokens that layers with this window remember, and then ``new`` ones, stand."""
        old = self.layout if window is None else self._near.get(window)
        if old is None:
            return new
        if (old.axes_BTA is None) == (new.axes_BTA is None):
            axes = None if new.axes_BTA is None else torch.cat([old.axes_BTA, new.axes_BTA], dim=1)
        else:
            axes = None  # keys carry their angles already; the coordinates of the past are not needed again
        return Layout(
            torch.cat([old.segment_BT, new.segment_BT], dim=1),
            torch.cat([old.position_BT, new.position_BT], dim=1),
            torch.cat([old.span_BT, new.span_BT], dim=1),
            axes,
        )

    def extend(self, layer: int, key_BSKE: torch.Tensor, value_BSKE: torch.Tensor, keep: bool,
               window: int | None = None, place_S: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Remembered keys and values of ``layer`` followed by new ones; remembered from now on if ``keep``.

        Args:
            window: how far the layer sees; None: everything.
            place_S: with a window, the places worth remembering (``seen_later``).
        """
        if layer in self._keys:
            key_BSKE = torch.cat([self._keys[layer], key_BSKE], dim=1)
            value_BSKE = torch.cat([self._values[layer], value_BSKE], dim=1)
        if keep and window is None:
            self._keys[layer], self._values[layer] = key_BSKE, value_BSKE
        elif keep:
            self._window[layer] = window
            self._keys[layer], self._values[layer] = key_BSKE[:, place_S], value_BSKE[:, place_S]
        return key_BSKE, value_BSKE

    def keep(self, new: Layout, place_S: dict[int, torch.Tensor]) -> None:
        """Remember where ``new`` tokens stand, when all layers are through; ``place_S``: of each window, as ``extend`` got it."""
        near = {window: _picked(self.layout_with(new, window), place) for window, place in place_S.items()}
        self.layout, self._near = self.layout_with(new), near

    def rows(self, index_L: torch.Tensor) -> Cache:
        """A cache that holds rows ``index_L`` of this one, in that order (to branch, or to write several media from one row)."""
        out = Cache()
        out.memory = None if self.memory is None else self.memory.rows(index_L)
        out.layout = None if self.layout is None else _picked(self.layout, index_L, dim=0)
        out._near = {window: _picked(layout, index_L, dim=0) for window, layout in self._near.items()}
        out._window = dict(self._window)
        out._keys = {layer: key[index_L] for layer, key in self._keys.items()}
        out._values = {layer: value[index_L] for layer, value in self._values.items()}
        return out

    def cut(self, length: int) -> int:
        """Forget every place from ``length`` on; what stands before stays, and so does ``memory``.

        Returns:
            How many places are left of each row that had them: ``length``, or 0 where a window has forgotten what the next token would see.
        """
        if self.layout is None:
            return length
        for window, layout in self._near.items():
            real_BT, newest_BT = layout.segment_BT >= 0, _newest(layout)
            first_BT = torch.where(real_BT, layout.position_BT, newest_BT + 1).amin(dim=1, keepdim=True)
            if length and bool((real_BT & (newest_BT >= length) & (first_BT > max(length - window + 1, 0))).any()):
                return self.cut(0)
        count: dict[int | None, int] = {}
        for window, layout in [(None, self.layout), *self._near.items()]:
            kept_BT = (layout.segment_BT >= 0) & (layout.position_BT < length)
            place = kept_BT.any(dim=0).nonzero()
            count[window] = int(place[-1]) + 1 if len(place) else 0
            layout = replace(layout, segment_BT=layout.segment_BT.where(kept_BT, -1))  # shorter rows forget what stands among longer rows' places
            layout = _picked(layout, torch.arange(count[window], device=kept_BT.device))
            if window is None:
                self.layout = layout
            else:
                self._near[window] = layout
        self._keys = {layer: key[:, : count[self._window.get(layer)]] for layer, key in self._keys.items()}
        self._values = {layer: value[:, : count[self._window.get(layer)]] for layer, value in self._values.items()}
        return length

    def bytes(self) -> int:
        """Memory held, in bytes."""
        return sum(x.numel() * x.element_size() for x in (*self._keys.values(), *self._values.values()))


def seen_later(layout: Layout, window: int) -> torch.Tensor:
    """Which places of a layout some token still to come may see through ``window``, (S,) int64: the newest of each segment and the
    ``window`` - 2 before it. Padding is not among them."""
    needed_BT = (layout.segment_BT >= 0) & (layout.position_BT > _newest(layout) + 1 - window)
    return needed_BT.any(dim=0).nonzero()[:, 0]


def _newest(layout: Layout) -> torch.Tensor:
    """The greatest position in each place's own segment, (B, T)."""
    segment_BT = layout.segment_BT + 1  # padding is a segment of its own
    most_BX = torch.zeros(len(segment_BT), int(segment_BT.max()) + 1, dtype=layout.position_BT.dtype, device=segment_BT.device)
    return most_BX.scatter_reduce(1, segment_BT, layout.position_BT, "amax").gather(1, segment_BT)


def _picked(layout: Layout, index: torch.Tensor, dim: int = 1) -> Layout:
    """Rows or places of a layout."""
    axes = None if layout.axes_BTA is None else layout.axes_BTA.index_select(dim, index)
    return Layout(*(x.index_select(dim, index) for x in (layout.segment_BT, layout.position_BT, layout.span_BT)), axes)
