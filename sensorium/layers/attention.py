"""Attention: self, cross and grouped-query, with masks as data; a fast path and its naive twin.

Letters: B batch, T target length, S source length, D width, N heads, K kv heads, E head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.layers import kernels
from sensorium.layers.norms import Norm
from sensorium.layers.positions import apply_rope
from sensorium.spec import Spec
from sensorium.types import ShapeError

__all__ = ["attend", "attend_naive", "Attention", "AttentionNet"]

MANY = 256  # of targets and of sources: from here on laying the sources out anew for the kernel pays


def attend(
    query_BTNE: torch.Tensor, key_BSKE: torch.Tensor, value_BSKE: torch.Tensor,
    mask_BTS: torch.Tensor | None = None, causal: bool = False, scale: float | None = None, cap: float | None = None,
) -> torch.Tensor:
    """Softmax attention, fast path.

    Args:
        query_BTNE, key_BSKE, value_BSKE: N a multiple of K; each kv head serves N / K query heads.
        mask_BTS: bool, True where a target may look; (B, 1, S) and (B, T, S) both serve. None is everywhere.
        causal: target t sees sources up to t; only without a mask and with T == S.
        scale: what scores are multiplied by; None is E**-0.5.
        cap: scores are bent to stay within -cap and cap; the fast path knows none, so that they take the naive one.

    Returns:
        (B, T, N, E).
    """
    if query_BTNE.device.type == "cpu" and torch.is_autocast_enabled("cpu"):  # its bfloat16 backward is five times slower here
        with torch.autocast("cpu", enabled=False):
            return attend(query_BTNE.float(), key_BSKE.float(), value_BSKE.float(), mask_BTS, causal, scale, cap)
    if cap is not None:
        return attend_naive(query_BTNE, key_BSKE, value_BSKE, mask_BTS, causal, scale, cap)
    given = (query_BTNE, key_BSKE, value_BSKE)
    if (mask_BTS is None and not causal and min(query_BTNE.shape[1], key_BSKE.shape[1]) >= MANY
            and not (torch.is_grad_enabled() and any(x.requires_grad for x in given))):
        found_BTNE = kernels.attend(*given, query_BTNE.shape[-1] ** -0.5 if scale is None else scale)
        if found_BTNE is not None:
            return found_BTNE
    mask = None if mask_BTS is None else mask_BTS[:, None]
    grouped = query_BTNE.shape[2] != key_BSKE.shape[2]
    query, key, value = (x.transpose(1, 2) for x in given)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, enable_gqa=grouped,
                                          scale=scale).transpose(1, 2)


def attend_naive(
    query_BTNE: torch.Tensor, key_BSKE: torch.Tensor, value_BSKE: torch.Tensor,
    mask_BTS: torch.Tensor | None = None, causal: bool = False, scale: float | None = None, cap: float | None = None,
) -> torch.Tensor:
    """The twin of :func:`attend`, written as the formula reads."""
    repeats = query_BTNE.shape[2] // key_BSKE.shape[2]
    key, value = (x.repeat_interleave(repeats, dim=2) for x in (key_BSKE, value_BSKE))
    score_BNTS = torch.einsum("btne,bsne->bnts", query_BTNE, key) * (query_BTNE.shape[-1] ** -0.5 if scale is None else scale)
    if cap is not None:
        score_BNTS = cap * torch.tanh(score_BNTS / cap)
    if causal:
        mask_BTS = torch.ones(score_BNTS.shape[-2:], dtype=torch.bool, device=score_BNTS.device).tril()[None]
    if mask_BTS is not None:
        score_BNTS = score_BNTS.masked_fill(~mask_BTS[:, None], float("-inf"))
    return torch.einsum("bnts,bsne->btne", score_BNTS.softmax(dim=-1), value)


@dataclass(frozen=True, repr=False)
class Attention(Spec):
    """Multi-head attention with its four projections.

    Args:
        width: D, of the targets and the output.
        heads: query heads N.
        kv_heads: key/value heads K; None is N (plain multi-head), 1 is multi-query.
        head_width: E; None is D / N.
        source_width: width of the sources, for cross-attention; None is D.
        bias: on query, key and value.
        key_bias: on the key alone; None is as ``bias``. (Whisper has none: it moves all scores of a query alike.)
        out_bias: on the output; None is as ``bias``.
        qk_norm: normalise queries and keys per head: True or "rms", or "layer" (keeps small models stable at high learning rates); "whole" is
            root-mean-square over all heads at once.
        qk_eps: of that norm.
        scale, cap: what scores are multiplied by, and within what they are bent to stay; see :func:`attend`.

    Source: 1706.03762; grouped queries 2305.13245; query/key norm 2302.05442; caps 2408.00118, section 2.
    """

    width: int
    heads: int
    kv_heads: int | None = None
    head_width: int | None = None
    source_width: int | None = None
    bias: bool = False
    key_bias: bool | None = None
    out_bias: bool | None = None
    qk_norm: bool | str = False
    scale: float | None = None
    cap: float | None = None
    qk_eps: float = 1e-6

    def check(self) -> list[str]:
        problems = [] if self.qk_norm in (False, True, "rms", "layer", "whole") else [
            f"qk_norm {self.qk_norm!r} is not known; use 'rms', 'layer', 'whole' or False"]
        if min(self.width, self.heads, self.kv_heads or 1) < 1:
            return [f"width {self.width}, heads {self.heads} and kv_heads {self.kv_heads}: wanted at least 1 of each"]
        if self.head_width is None and self.width % self.heads:
            problems.append(f"width {self.width} does not divide into {self.heads} heads; set head_width or change heads")
        if self.kv_heads is not None and self.heads % self.kv_heads:
            problems.append(f"{self.heads} heads cannot share {self.kv_heads} kv_heads; kv_heads must divide heads")
        return problems

    @property
    def head(self) -> int:
        """Head width E."""
        return self.head_width or self.width // self.heads

    def build(self) -> AttentionNet:
        return AttentionNet(self)


class AttentionNet(nn.Module):
    """The module of :class:`Attention`. ``project`` and ``finish`` are its halves, for callers that keep a cache."""

    def __init__(self, spec: Attention) -> None:
        super().__init__()
        self.spec = spec
        kv_heads = spec.kv_heads or spec.heads
        source = spec.source_width or spec.width
        key_bias, out_bias = (spec.bias if bias is None else bias for bias in (spec.key_bias, spec.out_bias))
        self.query = nn.Linear(spec.width, spec.heads * spec.head, bias=spec.bias)
        self.key = nn.Linear(source, kv_heads * spec.head, bias=key_bias)
        self.value = nn.Linear(source, kv_heads * spec.head, bias=spec.bias)
        self.out = nn.Linear(spec.heads * spec.head, spec.width, bias=out_bias)
        kind, whole = "layer" if spec.qk_norm == "layer" else "rms", spec.qk_norm == "whole"
        self.query_norm, self.key_norm = (
            Norm(heads * spec.head if whole else spec.head, kind=kind, eps=spec.qk_eps).build() if spec.qk_norm else nn.Identity()
            for heads in (spec.heads, kv_heads))

    def project(
        self, x_BTD: torch.Tensor, source_BSD: torch.Tensor | None = None,
        angles: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Query, key and value, split into heads, normalised and turned."""
        query, (key, value) = self.ask(x_BTD), self.offer(x_BTD if source_BSD is None else source_BSD)
        if angles is not None:
            query, key = apply_rope(query, angles), apply_rope(key, angles)
        return query, key, value

    def ask(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Queries of the targets."""
        return self._heads(self.query(x_BTD), self.query_norm)

    def offer(self, source_BSD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the sources."""
        return self._heads(self.key(source_BSD), self.key_norm), self.value(source_BSD).unflatten(-1, (-1, self.spec.head))

    def _heads(self, x_BTD: torch.Tensor, norm: nn.Module) -> torch.Tensor:
        """Split into heads and normalised, each alone or all at once."""
        if self.spec.qk_norm == "whole":
            return norm(x_BTD).unflatten(-1, (-1, self.spec.head))
        return norm(x_BTD.unflatten(-1, (-1, self.spec.head)))

    def look(self, query_BTNE: torch.Tensor, key_BSKE: torch.Tensor, value_BSKE: torch.Tensor,
             mask_BTS: torch.Tensor | None = None, causal: bool = False) -> torch.Tensor:
        """What each query finds, (B, T, N, E)."""
        return attend(query_BTNE, key_BSKE, value_BSKE, mask_BTS, causal, self.spec.scale, self.spec.cap)

    def finish(self, mixed_BTNE: torch.Tensor) -> torch.Tensor:
        """Heads back to width."""
        return self.out(mixed_BTNE.flatten(2))

    def forward(
        self, x_BTD: torch.Tensor, source_BSD: torch.Tensor | None = None, mask_BTS: torch.Tensor | None = None,
        causal: bool = False, angles: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Attend from ``x_BTD`` to ``source_BSD`` (itself if None)."""
        if x_BTD.dim() != 3 or x_BTD.shape[-1] != self.spec.width:
            raise ShapeError(f"attention got {tuple(x_BTD.shape)}, wanted (B, T, {self.spec.width})")
        return self.finish(self.look(*self.project(x_BTD, source_BSD, angles), mask_BTS, causal))
