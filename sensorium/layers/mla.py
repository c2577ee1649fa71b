"""Latent attention: keys and values of all heads are made of one short vector a place, and that vector is all that is remembered.

Letters: B batch, T target length, S source length, D width, N heads, R rank of keys and values, E head width that is not turned, G head
width that is turned, V value width.

    x_D -> (down -> norm ->) query N x (E + G)                      the last G numbers of every head are turned
    x_D -> compress -> R + G: latent -> norm, and one turned key    remembered, R + G numbers a place instead of N (E + G + V)
    latent -> expand -> N x (E + V): key and value of each head

Two forms that give the same: keys and values are expanded (a text read at once), or the queries are carried into the latent space instead
("absorbed": few targets and many sources, as in decoding), where all heads look at the same R + G numbers.

Source: DeepSeek-V2 (2405.04434), section 2.1; the absorbed form is at its end.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn

from sensorium.layers.attention import attend
from sensorium.layers.norms import RMSNorm
from sensorium.layers.positions import apply_rope
from sensorium.spec import Spec

__all__ = ["Latent", "LatentAttention", "LatentAttentionNet"]


@dataclass(frozen=True, repr=False)
class Latent(Spec):
    """Sizes of latent attention.

    Args:
        rank: R, of what keys and values are made of.
        query_rank: of what queries are made of; None makes them directly.
        plain, turned, value: E, G and V, a head.
        bias: on what goes down (``down``, ``compress``) and on the output.
        eps: of the norms of the ranks.
    """

    _: KW_ONLY
    rank: int
    query_rank: int | None = None
    plain: int
    turned: int
    value: int
    bias: bool = False
    eps: float = 1e-6

    @property
    def remembered(self) -> int:
        """Numbers kept a place, of all heads together."""
        return self.rank + self.turned


@dataclass(frozen=True, repr=False)
class LatentAttention(Spec):
    """Attention of ``heads`` heads through a latent vector.

    Args:
        width, heads: D and N.
        latent: the sizes inside.
        scale: what scores are multiplied by; None is (E + G)**-0.5.
    """

    width: int
    heads: int
    latent: Latent
    scale: float | None = None

    @property
    def head(self) -> int:
        """Width of a query's head."""
        return self.latent.plain + self.latent.turned

    def build(self) -> LatentAttentionNet:
        return LatentAttentionNet(self)


class LatentAttentionNet(nn.Module):
    """The module of :class:`LatentAttention`, in the same halves as ``AttentionNet``: what ``project`` gives as key is the latent and the turned
    key of a place, and as value nothing."""

    def __init__(self, spec: LatentAttention) -> None:
        super().__init__()
        self.spec = spec
        sizes, queries = spec.latent, spec.heads * spec.head
        if sizes.query_rank is None:
            self.query: nn.Module = nn.Linear(spec.width, queries, bias=False)
        else:
            self.query = nn.Sequential(nn.Linear(spec.width, sizes.query_rank, bias=sizes.bias), RMSNorm(sizes.query_rank, eps=sizes.eps),
                                       nn.Linear(sizes.query_rank, queries, bias=False))
        self.compress = nn.Linear(spec.width, sizes.remembered, bias=sizes.bias)
        self.norm = RMSNorm(sizes.rank, eps=sizes.eps)
        self.expand = nn.Linear(sizes.rank, spec.heads * (sizes.plain + sizes.value), bias=False)
        self.out = nn.Linear(spec.heads * sizes.value, spec.width, bias=sizes.bias)

    def project(self, x_BTD: torch.Tensor, source_BSD: torch.Tensor | None = None,
                angles: tuple[torch.Tensor, torch.Tensor] | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries (B, T, N, E + G); what is remembered (B, S, 1, R + G); and nothing (B, S, 1, 0)."""
        sizes = self.spec.latent
        plain, turned = self.query(x_BTD).unflatten(-1, (self.spec.heads, -1)).split([sizes.plain, sizes.turned], dim=-1)
        latent, key = self.compress(x_BTD if source_BSD is None else source_BSD).split([sizes.rank, sizes.turned], dim=-1)
        key = key[:, :, None]
        if angles is not None:
            turned, key = apply_rope(turned, angles), apply_rope(key, angles)
        kept = torch.cat([self.norm(latent)[:, :, None], key], dim=-1)
        return torch.cat([plain, turned], dim=-1), kept, kept[..., :0]

    def look(self, query_BTNE: torch.Tensor, key_BSKE: torch.Tensor, value_BSKE: torch.Tensor, mask_BTS: torch.Tensor | None = None,
             causal: bool = False, absorbed: bool | None = None) -> torch.Tensor:
        """What each query finds, (B, T, N, V).

        Args:
            absorbed: which of the two forms; None takes the one that is less work.
        """
        if absorbed is None:
            absorbed = query_BTNE.shape[1] < key_BSKE.shape[1] and not torch.is_grad_enabled()
        scale = self.spec.head**-0.5 if self.spec.scale is None else self.spec.scale
        form = self._absorbed if absorbed else self._expanded
        return form(query_BTNE, key_BSKE, mask_BTS, causal, scale)

    def _expanded(self, query: torch.Tensor, kept_BS1R: torch.Tensor, mask: torch.Tensor | None, causal: bool, scale: float) -> torch.Tensor:
        sizes = self.spec.latent
        latent, turned = kept_BS1R.split([sizes.rank, sizes.turned], dim=-1)
        plain, value = self.expand(latent[:, :, 0]).unflatten(-1, (self.spec.heads, -1)).split([sizes.plain, sizes.value], dim=-1)
        key = torch.cat([plain, turned.expand(-1, -1, self.spec.heads, -1)], dim=-1)
        return attend(query, key, value, mask, causal, scale)

    def _absorbed(self, query: torch.Tensor, kept_BS1R: torch.Tensor, mask: torch.Tensor | None, causal: bool, scale: float) -> torch.Tensor:
        sizes = self.spec.latent
        key_NER, value_NVR = self.expand.weight.unflatten(0, (self.spec.heads, -1)).split([sizes.plain, sizes.value], dim=1)
        plain, turned = query.split([sizes.plain, sizes.turned], dim=-1)
        query = torch.cat([torch.einsum("btne,ner->btnr", plain, key_NER), turned], dim=-1)
        found_BTNR = attend(query, kept_BS1R, kept_BS1R[..., : sizes.rank], mask, causal, scale)
        return torch.einsum("btnr,nvr->btnv", found_BTNR, value_NVR)

    def finish(self, mixed_BTNV: torch.Tensor) -> torch.Tensor:
        """Heads back to width."""
        return self.out(mixed_BTNV.flatten(2))
