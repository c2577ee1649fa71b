"""The one transformer decoder: causal, bidirectional or mixed masks, with experts for reading and for writing.

Letters: B batch, T length, D width.

    read    text and understood media; causal, but full inside a medium
    write   media being denoised; they look back at what was read (through the cache) and at themselves

Both experts have the same depth and heads, so one can attend to what the other remembered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sensorium.layers.cache import Cache
from sensorium.layers.stack import Stack
from sensorium.spec import Spec
from sensorium.types import Enter, Layout

__all__ = ["Decoder", "DecoderNet"]


@dataclass(frozen=True, repr=False)
class Decoder(Spec):
    """A stack for reading, and perhaps another for writing media.

    Args:
        read: the stack; its ``rule`` says who sees whom.
        write: separate weights for media being written (experts by modality, 2411.04996); None shares ``read``.
    """

    read: Stack
    write: Stack | None = None

    @property
    def width(self) -> int:
        return self.read.width

    @property
    def depth(self) -> int:
        return self.read.depth

    @property
    def writer(self) -> Stack:
        """The stack that writes media."""
        return self.write or self.read

    def check(self) -> list[str]:
        if self.write is None:
            return []
        problems = []
        for name in ("depth", "heads", "kv_heads", "rope_theta", "rope_axes", "rope_scaling", "windows", "window_theta"):
            one, other = vars(self.read)[name], vars(self.write)[name]
            if one != other:
                problems.append(f"read.{name} is {one} and write.{name} is {other}; experts attend to each other, make them equal")
        if self.read.block.attention.head != self.write.block.attention.head:
            problems.append("read and write have different head widths; set head_width so that they are equal")
        return problems

    def build(self) -> DecoderNet:
        return DecoderNet(self)


class DecoderNet(nn.Module):
    """The module of :class:`Decoder`."""

    def __init__(self, spec: Decoder) -> None:
        super().__init__()
        self.spec = spec
        self.read = spec.read.build()
        self.write = spec.write.build() if spec.write else None

    def forward(
        self, x_BTD: torch.Tensor, layout: Layout | None = None, cache: Cache | None = None, keep: bool = True,
        writing: bool = False, condition_BD: torch.Tensor | None = None, enter: Enter | None = None, memory: Any = None,
    ) -> torch.Tensor:
        """Run one expert over its tokens; see ``StackNet.forward``."""
        stack = self.write if writing and self.write is not None else self.read
        return stack(x_BTD, layout, cache=cache, keep=keep, condition_BD=condition_BD, enter=enter, memory=memory)
