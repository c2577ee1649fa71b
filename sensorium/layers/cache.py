"""What decoding remembers: keys, values and where they stood. The only state a forward may change.

Letters: B batch, S source length, K kv heads, E head width.
"""

from __future__ import annotations

from typing import Any

import torch

from sensorium.types import Layout

__all__ = ["Cache"]


class Cache:
    """Keys and values of every layer, with the layout they came from, so that masks stay data while decoding.

    Gradients flow through it: training writes pictures against the keys and values of the text read just before.
    """

    def __init__(self) -> None:
        self.layout: Layout | None = None
        self.memory: Any = None  # what cross-attention looks at, made once when the prompt is read; knows its ``rows`` as this does
        self._keys: dict[int, torch.Tensor] = {}
        self._values: dict[int, torch.Tensor] = {}

    @property
    def length(self) -> int:
        """Places remembered."""
        return 0 if self.layout is None else self.layout.position_BT.shape[1]

    def layout_with(self, new: Layout) -> Layout:
        """Where the remembered tokens and then ``new`` ones stand."""
        if self.layout is None:
            return new
        old = self.layout
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

    def extend(self, layer: int, key_BSKE: torch.Tensor, value_BSKE: torch.Tensor, keep: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Remembered keys and values of ``layer`` followed by new ones; remembered from now on if ``keep``."""
        if layer in self._keys:
            key_BSKE = torch.cat([self._keys[layer], key_BSKE], dim=1)
            value_BSKE = torch.cat([self._values[layer], value_BSKE], dim=1)
        if keep:
            self._keys[layer], self._values[layer] = key_BSKE, value_BSKE
        return key_BSKE, value_BSKE

    def rows(self, index_L: torch.Tensor) -> Cache:
        """A cache that holds rows ``index_L`` of this one, in that order (to branch, or to write several media from one row)."""
        out = Cache()
        out.memory = None if self.memory is None else self.memory.rows(index_L)
        if self.layout is not None:
            old = self.layout
            axes = None if old.axes_BTA is None else old.axes_BTA[index_L]
            out.layout = Layout(old.segment_BT[index_L], old.position_BT[index_L], old.span_BT[index_L], axes)
        out._keys = {layer: key[index_L] for layer, key in self._keys.items()}
        out._values = {layer: value[index_L] for layer, value in self._values.items()}
        return out

    def cut(self, length: int) -> None:
        """Forget every place from ``length`` on; what stands before stays, and so does ``memory``."""
        if self.layout is None:
            return
        old = self.layout
        kept_BT = (old.segment_BT >= 0) & (old.position_BT < length)
        held = int((kept_BT.any(dim=0) * torch.arange(1, kept_BT.shape[1] + 1, device=kept_BT.device)).max())
        self._keys = {layer: key[:, :held] for layer, key in self._keys.items()}
        self._values = {layer: value[:, :held] for layer, value in self._values.items()}
        axes = None if old.axes_BTA is None else old.axes_BTA[:, :held]
        segment_BT = old.segment_BT.where(kept_BT, -1)[:, :held]  # shorter rows forget what stands among the longer rows' places
        self.layout = Layout(segment_BT, old.position_BT[:, :held], old.span_BT[:, :held], axes)

    def bytes(self) -> int:
        """Memory held, in bytes."""
        return sum(x.numel() * x.element_size() for x in (*self._keys.values(), *self._values.values()))
