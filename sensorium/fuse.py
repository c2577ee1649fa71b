"""Fuse: how aligned features enter the decoder.

Letters: B batch, T length, S source length, D width, L media, P patches.

    Splice        features take places of their own among the tokens (LLaVA, nano)
    CrossAttend   layers between the decoder's own look at the features (Flamingo; ungated: Whisper)
    Condition     one vector modulates every layer (DiT, and nano while it draws)
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn

from sensorium.layers.attention import Attention, attend
from sensorium.layers.blocks import MLP
from sensorium.layers.norms import Norm
from sensorium.layers.positions import sinusoids
from sensorium.spec import Spec
from sensorium.types import ShapeError

__all__ = ["Condition", "CrossAttend", "CrossMemory", "Splice"]


@dataclass(frozen=True, repr=False)
class Splice(Spec):
    """Features of the named modalities stand among the text tokens, each at a place of its own.

    Args:
        modalities: what is spliced in.
    """

    modalities: tuple[str, ...] = ("image",)

    def build(self) -> SpliceNet:
        return SpliceNet(self)


class SpliceNet(nn.Module):
    """The module of :class:`Splice`; it has no weights."""

    def __init__(self, spec: Splice) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, x_BTD: torch.Tensor, here_BT: torch.Tensor, features_LPD: torch.Tensor) -> torch.Tensor:
        """Put the features, in order, where ``here_BT`` is True."""
        flat = features_LPD.reshape(-1, features_LPD.shape[-1])
        places = int(here_BT.sum())
        if places != len(flat):
            raise ShapeError(f"splice got {len(flat)} features for {places} places; the batch and the encoder disagree")
        return x_BTD.masked_scatter(here_BT[..., None], flat.to(x_BTD.dtype))


@dataclass(frozen=True)
class CrossMemory:
    """What cross-attention looks at: features (B, S, D) and who may see them (B, T, S), True where allowed."""

    source_BSD: torch.Tensor
    mask_BTS: torch.Tensor


@dataclass(frozen=True, repr=False)
class CrossAttend(Spec):
    """Cross-attention layers before every ``every``-th decoder layer; a token sees the latest medium before it.

    Args:
        modality: whose features are looked at.
        width, source: widths of decoder and features.
        layers: depth of the decoder.
        every: one cross-attention layer before each ``every`` decoder layers.
        heads, head_width, hidden, act: sizes.
        gate: "tanh" starts closed, so that a frozen language model is unharmed at the start; None adds plainly.
        norm, eps: kind of norm.

    Source: Flamingo (2204.14198), section 2.2 and figure 4.
    """

    modality: str
    _: KW_ONLY
    width: int
    source: int
    layers: int
    every: int = 1
    heads: int = 8
    head_width: int | None = None
    hidden: int | None = None
    act: str = "gelu"
    gate: str | None = "tanh"
    eps: float = 1e-5

    def check(self) -> list[str]:
        return [] if self.gate in (None, "tanh") else [f"gate {self.gate!r} is not known; use 'tanh' or None"]

    def build(self) -> CrossAttendNet:
        return CrossAttendNet(self)


class _CrossLayer(nn.Module):
    """One gated cross-attention layer and its MLP."""

    def __init__(self, spec: CrossAttend) -> None:
        super().__init__()
        self.norm = Norm(spec.width, eps=spec.eps).build()
        self.attention = Attention(spec.width, spec.heads, head_width=spec.head_width, source_width=spec.source).build()
        self.mlp_norm = Norm(spec.width, eps=spec.eps).build()
        self.mlp = MLP(spec.width, spec.hidden or 4 * spec.width, act=spec.act, bias=False).build()
        gated = spec.gate is not None
        self.gate = nn.Parameter(torch.zeros(1)) if gated else None
        self.mlp_gate = nn.Parameter(torch.zeros(1)) if gated else None

    def forward(self, x_BTD: torch.Tensor, memory: CrossMemory) -> torch.Tensor:
        query, key, value = self.attention.project(self.norm(x_BTD), memory.source_BSD)
        sees_BT1 = memory.mask_BTS.any(dim=-1, keepdim=True)  # a token with nothing to see gets nothing, not an average
        found = self.attention.finish(attend(query, key, value, memory.mask_BTS | ~sees_BT1)) * sees_BT1
        x_BTD = x_BTD + (found if self.gate is None else found * self.gate.tanh())
        more = self.mlp(self.mlp_norm(x_BTD))
        return x_BTD + (more if self.mlp_gate is None else more * self.mlp_gate.tanh())


class CrossAttendNet(nn.Module):
    """The module of :class:`CrossAttend`; what the decoder calls between its layers (``types.Enter``)."""

    def __init__(self, spec: CrossAttend) -> None:
        super().__init__()
        self.spec = spec
        self.layers = nn.ModuleDict({str(i): _CrossLayer(spec) for i in range(0, spec.layers, spec.every)})

    def enter(self, x_BTD: torch.Tensor, layer: int, memory: CrossMemory | None) -> torch.Tensor:
        """Let the features in before decoder layer ``layer``."""
        if layer % self.spec.every or memory is None:
            return x_BTD
        return self.layers[str(layer)](x_BTD, memory)


@dataclass(frozen=True, repr=False)
class Condition(Spec):
    """A vector for adaLN: the time of the noise, plus what is known about the picture.

    Args:
        width: of the condition.
        state: width of the joint embedding that conditions, or None.
        label: width of a class embedding that conditions, or None; added as it is.
        frequencies, shift: sinusoids of the time; see ``layers.positions.sinusoids``.
        scale: times 0..1 are multiplied by this before the sinusoids (published DiTs count 1000 steps).
        detach: the picture's loss does not bend the joint embedding.

    Source: DiT (2212.09748), section 3.2; conditioning on a joint embedding: unCLIP (2204.06125).
    """

    width: int
    _: KW_ONLY
    state: int | None = None
    label: int | None = None
    frequencies: int = 256
    shift: int = 0
    scale: float = 1000.0
    detach: bool = True

    def check(self) -> list[str]:
        if self.label is not None and self.label != self.width:
            return [f"label width {self.label} is added to the condition; wanted {self.width}"]
        return []

    def build(self) -> ConditionNet:
        return ConditionNet(self)


class ConditionNet(nn.Module):
    """The module of :class:`Condition`."""

    def __init__(self, spec: Condition) -> None:
        super().__init__()
        self.spec = spec
        self.time = MLP(spec.frequencies, spec.width, act="silu", out=spec.width).build()
        self.state = MLP(spec.state, spec.width, act="silu", out=spec.width).build() if spec.state else None
        self.nothing = nn.Parameter(torch.randn(spec.state)) if spec.state else None

    def forward(
        self, t_L: torch.Tensor, state_LD: torch.Tensor | None = None, known_L: torch.Tensor | None = None,
        label_L1D: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(L,) times and what is known -> (L, width). Rows whose ``known_L`` is False get the learned "nothing"."""
        time = sinusoids(t_L * self.spec.scale, self.spec.frequencies, shift=self.spec.shift).to(self.time.up.weight.dtype)
        out = self.time(time)
        if self.state is not None:
            state = state_LD.detach() if self.spec.detach else state_LD
            state = state * self.spec.state**0.5  # a unit vector's entries are small; give them variance one
            out = out + self.state(torch.where(known_L[:, None], state, self.nothing))
        if label_L1D is not None:
            out = out + label_L1D[:, 0]
        return out
