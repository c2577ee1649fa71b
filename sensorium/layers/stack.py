"""A stack of transformer blocks: the body of every encoder and of the decoder.

Letters: B batch, T target length, S source length, D width, A position axes.

    x_BTD -> [enter] -> attention -> [enter] -> MLP -> [enter] -> attention -> ... -> norm
              features may enter between layers and in their middle (fuse), keys and values may be remembered (cache)
              layers of one window share what they see, how positions turn, and what is worth remembering
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from sensorium.layers.attention import Attention
from sensorium.layers.blocks import MLP, Block
from sensorium.layers.cache import Cache, seen_later
from sensorium.layers.experts import Experts
from sensorium.layers.masks import visible
from sensorium.layers.mla import Latent, LatentAttention
from sensorium.layers.norms import Norm
from sensorium.layers.positions import Rope, RopeScaling
from sensorium.spec import Spec
from sensorium.types import Enter, Layout, ShapeError

__all__ = ["arange_layout", "Stack", "StackNet"]


@dataclass(frozen=True, repr=False)
class Stack(Spec):
    """``depth`` equal blocks and a last norm.

    Args:
        width, depth, heads, kv_heads, head_width: sizes; see ``Attention``.
        hidden: MLP width; None is 4 D.
        act, gated, bias: of the MLP; ``bias`` also of the attention unless ``attention_bias``, ``key_bias`` and ``attention_out_bias`` differ.
        norm, eps, norm_affine, norm_bias: kind of every norm; mlp_eps: of the norm before the MLP, where it differs.
        qk_norm: normalise queries and keys; see ``Attention``.
        score_scale, score_cap: of the attention's scores; see ``Attention``.
        rope_theta: rotary positions with this base; None has none.
        rope_axes: frequencies for each axis of multi-axis rotary positions; () is one axis. rope_restart: each has a whole range of them.
        rope_scaling: slower turning for longer texts, or None.
        rule: who sees whom: "causal", "mixed" or "full"; see ``layers.masks``.
        windows: how many places back each layer sees, itself among them; None is all of them, and () is all of them in every layer.
        window_theta: base of the rotary positions of layers with a window, which nothing slows; None: as in the other layers.
        adaln: None, or the width of the condition; adaln_shared: one modulation for all layers (see ``Block``).
        post_norm: normalise after each half is added, not before (see ``Block``).
        sandwich, parallel: where else norms stand, or where the MLP's does not (see ``Block``).
        final_norm: normalise the output.
        latent: keys and values made of one short vector a place (``layers.mla``); head_width and kv_heads then say nothing.
        experts: many MLPs of which each token uses a few (``layers.experts``), in place of the one MLP; dense: first layers that keep it.
    """

    width: int
    depth: int
    heads: int
    kv_heads: int | None = None
    head_width: int | None = None
    hidden: int | None = None
    act: str = "gelu"
    gated: bool = False
    bias: bool = True
    attention_bias: bool | None = None
    key_bias: bool | None = None
    attention_out_bias: bool | None = None
    norm: str = "layer"
    eps: float = 1e-5
    mlp_eps: float | None = None
    norm_affine: bool = True
    norm_bias: bool = True
    qk_norm: bool | str = False
    score_scale: float | None = None
    score_cap: float | None = None
    rope_theta: float | None = None
    rope_axes: tuple[int, ...] = ()
    rope_restart: bool = False
    rope_scaling: RopeScaling | None = None
    rule: str = "full"
    windows: tuple[int | None, ...] = ()
    window_theta: float | None = None
    adaln: int | None = None
    adaln_shared: bool = False
    post_norm: bool = False
    sandwich: bool = False
    parallel: bool = False
    final_norm: bool = True
    latent: Latent | None = None
    experts: Experts | None = None
    dense: int = 0

    def layer(self, index: int) -> Block:
        """The spec of one layer."""
        return self.block if self.experts is None or index < self.dense else replace(self.block, mlp=self.experts)

    @property
    def remembered(self) -> int:
        """Numbers that a cache keeps of one place, all layers together; layers with windows forget theirs again."""
        attention = self.block.attention
        return self.depth * (self.latent.remembered if self.latent else 2 * (attention.kv_heads or attention.heads) * attention.head)

    @property
    def block(self) -> Block:
        """The spec of a layer with one MLP."""
        attention_bias = self.bias if self.attention_bias is None else self.attention_bias
        if self.latent is None:
            attention: Spec = Attention(
                self.width, self.heads, kv_heads=self.kv_heads, head_width=self.head_width, bias=attention_bias, key_bias=self.key_bias,
                out_bias=self.attention_out_bias, qk_norm=self.qk_norm, scale=self.score_scale, cap=self.score_cap)
        else:
            attention = LatentAttention(self.width, self.heads, self.latent, scale=self.score_scale)
        return Block(
            attention=attention, mlp=MLP(self.width, self.hidden or 4 * self.width, act=self.act, gated=self.gated, bias=self.bias),
            norm=self._norm(self.eps), mlp_norm=None if self.mlp_eps is None else self._norm(self.mlp_eps),
            adaln=self.adaln, adaln_shared=self.adaln_shared, post_norm=self.post_norm, sandwich=self.sandwich, parallel=self.parallel)

    def _norm(self, eps: float) -> Norm:
        return Norm(self.width, kind=self.norm, eps=eps, affine=self.norm_affine, bias=self.norm_bias)

    @property
    def rope(self) -> Rope | None:
        """Rotary positions of layers that see everything, if any."""
        if self.rope_theta is None:
            return None
        return Rope(self._turned, theta=self.rope_theta, axes=self.rope_axes, scaling=self.rope_scaling, restart=self.rope_restart)

    @property
    def _turned(self) -> int:
        """Width of what is turned in each head."""
        return self.latent.turned if self.latent else self.head_width or self.width // self.heads

    @property
    def window_rope(self) -> Rope | None:
        """Rotary positions of layers with a window, if any."""
        if self.window_theta is None:
            return self.rope
        return Rope(self._turned, theta=self.window_theta, axes=self.rope_axes)

    def check(self) -> list[str]:
        problems = [] if self.depth >= 0 else [f"depth is {self.depth}, wanted 0 or more"]
        if self.windows and (len(self.windows) != self.depth or any(window is not None and window < 2 for window in self.windows)):
            problems.append(f"windows are {self.windows}, wanted one for each of {self.depth} layers, each None or at least 2")
        if self.windows and self.rule == "full":
            problems.append("windows look back, and rule 'full' knows no back; use 'causal' or 'mixed'")
        if self.latent and (self.qk_norm or self.score_cap is not None or self.bias or self.attention_bias):
            problems.append("latent attention has no qk_norm, score_cap or bias of its own; leave them out, or set Latent(bias=True)")
        return problems

    def build(self) -> StackNet:
        return StackNet(self)


@dataclass(frozen=True)
class _View:
    """What the layers of one window share.

    Args:
        mask_BTS, causal: who sees whom; see ``attend``.
        angles: of the rotary positions, or None.
        place_S: which places their caches remember; None: not said, as there is no window.
    """

    mask_BTS: torch.Tensor | None
    causal: bool
    angles: tuple[torch.Tensor, torch.Tensor] | None
    place_S: torch.Tensor | None


class StackNet(nn.Module):
    """The module of :class:`Stack`."""

    def __init__(self, spec: Stack) -> None:
        super().__init__()
        self.spec = spec
        self.rope, self.window_rope = spec.rope, spec.window_rope
        self.windows = spec.windows or (None,) * spec.depth
        self.blocks = nn.ModuleList(spec.layer(index).build() for index in range(spec.depth))
        self.norm = Norm(spec.width, kind=spec.norm, eps=spec.eps, bias=spec.norm_bias).build() if spec.final_norm else nn.Identity()
        self.shared = None
        if spec.adaln is not None and spec.adaln_shared:
            self.shared = nn.Sequential(nn.SiLU(), nn.Linear(spec.adaln, 6 * spec.width))

    def forward(
        self, x_BTD: torch.Tensor, layout: Layout | None = None, mask_BTS: torch.Tensor | None = None,
        cache: Cache | None = None, keep: bool = True, condition_BD: torch.Tensor | None = None,
        enter: Enter | None = None, memory: Any = None, targets: int | None = None,
    ) -> torch.Tensor:
        """Run the layers.

        Args:
            x_BTD: float.
            layout: where each token stands; None is one unpadded sample a row, counted from 0 (or from the cache's end).
            mask_BTS: bool, replaces the mask made from the layout (encoders with padded input).
            cache: read, and written if ``keep``; a caller that branches passes ``keep=False``.
            condition_BD: for adaLN.
            enter, memory: features entering between layers and in their middle.
            targets: how many places, from the first, the caller wants; the last layer is worked out for these alone. None is all.

        Returns:
            (B, T, D), or (B, targets, D).
        """
        if x_BTD.dim() != 3 or x_BTD.shape[-1] != self.spec.width:
            raise ShapeError(f"the stack got {tuple(x_BTD.shape)}, wanted (B, T, {self.spec.width})")
        plain = layout is None and cache is None
        layout = layout or arange_layout(x_BTD, cache.length if cache else 0)
        views = {window: self._view(window, layout, mask_BTS, cache, plain, keep) for window in dict.fromkeys(self.windows)}
        if self.shared is not None:
            condition_BD = self.shared(condition_BD)
        for index, (block, window) in enumerate(zip(self.blocks, self.windows, strict=True)):
            between, view = None, views[window]
            mask_BTS = view.mask_BTS
            if enter is not None:
                x_BTD = enter.enter(x_BTD, index, memory, middle=False)
                between = partial(enter.enter, layer=index, memory=memory, middle=True)
            modulation = block.modulation(condition_BD)
            query, key, value = block.first(x_BTD, modulation, view.angles)
            if cache is not None:
                key, value = cache.extend(index, key, value, keep, window, view.place_S)
            if targets is not None and block is self.blocks[-1]:
                x_BTD, query = x_BTD[:, :targets], query[:, :targets]
                mask_BTS = None if mask_BTS is None else mask_BTS[:, :targets]
            x_BTD = block.second(x_BTD, block.attention.look(query, key, value, mask_BTS, view.causal), modulation, between)
        if cache is not None and keep:
            cache.keep(layout, {window: view.place_S for window, view in views.items() if window is not None})
        return self.norm(x_BTD)

    def _view(self, window: int | None, layout: Layout, mask_BTS: torch.Tensor | None, cache: Cache | None, plain: bool, keep: bool) -> _View:
        """What layers with this window share while ``layout`` is read; ``plain``: one unpadded sample a row, with nothing before it."""
        source = cache.layout_with(layout, window) if cache else layout
        narrow = window is not None and layout.position_BT.shape[1] > window
        causal = plain and mask_BTS is None and self.spec.rule != "full" and not narrow
        if mask_BTS is None and (narrow or not plain):
            mask_BTS = visible(layout, source, self.spec.rule, window)
        rope = self.rope if window is None else self.window_rope
        angles = rope.angles(layout.position_BT, layout.axes_BTA) if rope else None
        return _View(mask_BTS, causal, angles, seen_later(source, window) if window and cache and keep else None)


def arange_layout(x_BTD: torch.Tensor, start: int = 0) -> Layout:
    """One sample a row, no padding, places counted from ``start``."""
    batch, length = x_BTD.shape[:2]
    place = torch.arange(start, start + length, device=x_BTD.device).expand(batch, length)
    zero = torch.zeros_like(place)
    return Layout(zero, place, zero)
