"""Experts: a router sends each token to a few of many MLPs; some MLPs may serve all.

Letters: N tokens, D width, X experts, K experts a token, H hidden width, S samples.

    x_D -> router -> scores_X -> the K best (of the best groups) -> sum of share x expert(x) + shared(x)

Source: DeepSeekMoE (2401.06066); groups: DeepSeek-V2 (2405.04434), section 2.2.2; sigmoid scores and a bias that balances without a loss:
DeepSeek-V3 (2412.19437), section 2.1.2; top-2 of 8 as in Grok-1 and Mixtral (2401.04088).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.layers.blocks import ACTIVATIONS, MLP
from sensorium.spec import Spec

__all__ = ["active", "Experts", "ExpertsNet", "rebalance", "Routed", "Router", "watch_routing"]


@dataclass(frozen=True, repr=False)
class Experts(Spec):
    """Many gated MLPs, of which each token uses a few.

    Args:
        width: D.
        hidden: H, of each expert.
        count, top: X and K.
        shared: experts that serve every token, in one MLP of ``shared`` times H.
        act: between the layers.
        score: "softmax" over all experts, or each its own "sigmoid".
        groups, top_groups: experts stand in so many groups, and only the best groups are chosen from.
        group_by: how good a group is: its best expert ("max") or its two best together ("top2").
        normalise: the shares of the chosen sum to one.
        scale: the shares are multiplied by this.
        biased: add a number an expert to the scores when choosing (not to the shares), which balances the load; see :func:`rebalance`.
    """

    width: int
    hidden: int
    _: KW_ONLY
    count: int
    top: int
    shared: int = 0
    act: str = "silu"
    score: str = "softmax"
    groups: int = 1
    top_groups: int = 1
    group_by: str = "max"
    normalise: bool = False
    scale: float = 1.0
    biased: bool = False

    def check(self) -> list[str]:
        problems = [] if 1 <= self.top <= self.count else [f"top is {self.top} of {self.count} experts"]
        problems += [] if self.score in ("softmax", "sigmoid") else [f"score {self.score!r} is not known; use 'softmax' or 'sigmoid'"]
        problems += [] if self.group_by in ("max", "top2") else [f"group_by {self.group_by!r} is not known; use 'max' or 'top2'"]
        if self.count % self.groups or not 1 <= self.top_groups <= self.groups:
            problems.append(f"{self.count} experts in {self.groups} groups, of which {self.top_groups} are chosen; groups must divide the experts")
        elif self.top > self.top_groups * (self.count // self.groups):
            problems.append(f"{self.top} experts cannot be chosen from {self.top_groups} groups of {self.count // self.groups}")
        return problems

    @property
    def unused(self) -> int:
        """Parameters of the experts that a token does not use."""
        return (self.count - self.top) * 3 * self.width * self.hidden

    def build(self) -> ExpertsNet:
        return ExpertsNet(self)


@dataclass(frozen=True)
class Routed:
    """What a router decided.

    Args:
        share_NK: what each chosen expert's answer is multiplied by.
        index_NK: int64, which were chosen.
        score_NX: how well each suits, float32 (float64 for such a model).
    """

    share_NK: torch.Tensor
    index_NK: torch.Tensor
    score_NX: torch.Tensor


class Router(nn.Module):
    """Tokens to experts."""

    def __init__(self, spec: Experts) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.randn(spec.count, spec.width) * spec.width**-0.5)
        self.register_buffer("bias", torch.zeros(spec.count) if spec.biased else None)

    def forward(self, x_ND: torch.Tensor) -> Routed:
        """Choose; the scores are worked out in float32 at least."""
        spec, wide = self.spec, torch.promote_types(x_ND.dtype, torch.float32)
        with torch.autocast(x_ND.device.type, enabled=False):
            logit_NX = F.linear(x_ND.to(wide), self.weight.to(wide))
        score_NX = logit_NX.softmax(dim=-1) if spec.score == "softmax" else logit_NX.sigmoid()
        choice_NX = score_NX.detach() if self.bias is None else score_NX.detach() + self.bias.to(wide)
        if spec.groups > 1:
            grouped = choice_NX.unflatten(-1, (spec.groups, -1))
            good_NG = grouped.amax(dim=-1) if spec.group_by == "max" else grouped.topk(2, dim=-1).values.sum(dim=-1)
            chosen_NG = torch.zeros_like(good_NG, dtype=torch.bool).scatter(1, good_NG.topk(spec.top_groups, dim=-1).indices, True)
            choice_NX = grouped.masked_fill(~chosen_NG[..., None], float("-inf")).flatten(1)
        index_NK = choice_NX.topk(spec.top, dim=-1).indices
        share_NK = score_NX.gather(1, index_NK)
        if spec.normalise:
            share_NK = share_NK / (share_NK.sum(dim=-1, keepdim=True) + 1e-20)
        return Routed(share_NK * spec.scale, index_NK, score_NX)


class ExpertsNet(nn.Module):
    """The module of :class:`Experts`: matrices of all experts stacked, each expert given its own tokens at once."""

    def __init__(self, spec: Experts) -> None:
        super().__init__()
        self.spec = spec
        self.router = Router(spec)
        wide, deep = (spec.count, spec.hidden, spec.width), (spec.count, spec.width, spec.hidden)
        self.gate, self.up = (nn.Parameter(torch.randn(wide) * spec.width**-0.5) for _ in range(2))
        self.down = nn.Parameter(torch.randn(deep) * spec.hidden**-0.5)
        self.shared = MLP(spec.width, spec.shared * spec.hidden, act=spec.act, gated=True, bias=False).build() if spec.shared else None
        self.act = ACTIVATIONS[spec.act]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape ending in the width."""
        x_ND = x.reshape(-1, self.spec.width)
        routed = self.router(x_ND)
        order = routed.index_NK.flatten().argsort(stable=True)  # chosen experts, token by token -> expert by expert
        counts = routed.index_NK.flatten().bincount(minlength=self.spec.count).tolist()
        token, share = order // self.spec.top, routed.share_NK.flatten()[order].to(x.dtype)
        parts, start = [], 0
        for expert, count in enumerate(counts):
            if count:
                mine = x_ND[token[start : start + count]]
                hidden = self.act(F.linear(mine, self.gate[expert])) * F.linear(mine, self.up[expert])
                parts.append(F.linear(hidden, self.down[expert]))
                start += count
        found = torch.cat(parts) * share[:, None]
        out = torch.zeros_like(x_ND, dtype=found.dtype).index_add(0, token, found).view(x.shape)
        return out if self.shared is None else out + self.shared(x)


def active(model: nn.Module) -> int:
    """Parameters that one token uses: all but those of the experts it is not sent to."""
    unused = sum(module.spec.unused for module in model.modules() if isinstance(module, ExpertsNet))
    return sum(p.numel() for p in model.parameters()) - unused


@contextmanager
def watch_routing(model: nn.Module) -> Iterator[list[tuple[Router, Routed]]]:
    """While open, the list fills with what each router of the model decides."""
    seen: list[tuple[Router, Routed]] = []
    handles = [module.register_forward_hook(lambda router, given, routed: seen.append((router, routed)))
               for module in model.modules() if isinstance(module, Router)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def rebalance(seen: list[tuple[Router, Routed]], kept_N: torch.Tensor, speed: float) -> None:
    """Raise the bias of every expert that had less than its part of the tokens, and lower the others', by ``speed``.

    Source: 2408.15664; DeepSeek-V3, section 2.1.2.
    """
    for router, routed in seen:
        if router.bias is not None:
            load_X = routed.index_NK[kept_N].flatten().bincount(minlength=router.spec.count).to(router.bias.dtype)
            router.bias.add_((load_X.mean() - load_X).sign(), alpha=speed)
