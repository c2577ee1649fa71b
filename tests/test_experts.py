"""Experts: tokens grouped by expert give what each token alone gives; groups, shares, and what cannot be."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import sensorium as sn
from sensorium.layers.experts import active, watch_routing

KINDS = {
    "plain": {}, "shared": dict(shared=2), "normalised": dict(normalise=True), "sigmoid": dict(score="sigmoid", biased=True, scale=2.5),
    "groups by best": dict(groups=4, top_groups=2), "groups by two": dict(groups=2, top_groups=1, group_by="top2", score="sigmoid", biased=True)}


@pytest.mark.parametrize("kind", KINDS)
def test_together_as_token_by_token(kind: str) -> None:
    spec = sn.Experts(12, 8, count=8, top=3, **KINDS[kind])
    net = spec.build().double()
    if spec.biased:
        net.router.bias.copy_(torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 0.3)
    x = torch.randn(2, 7, 12, dtype=torch.float64, requires_grad=True)
    whole, wanted = net(x), []
    for token in x.flatten(0, 1):
        score = F.linear(token, net.router.weight)
        score = score.softmax(0) if spec.score == "softmax" else score.sigmoid()
        suits = score.detach() + (net.router.bias if spec.biased else 0)
        groups = suits.view(spec.groups, -1)
        good = groups.max(1).values if spec.group_by == "max" else groups.sort(1).values[:, -2:].sum(1)
        allowed = {g * groups.shape[1] + i for g in good.argsort()[-spec.top_groups :].tolist() for i in range(groups.shape[1])}
        chosen = [i for i in suits.argsort(descending=True).tolist() if i in allowed][: spec.top]
        share = score[chosen] / score[chosen].sum() if spec.normalise else score[chosen]
        found = sum(s * spec.scale * net.down[i] @ (F.silu(net.gate[i] @ token) * (net.up[i] @ token)) for s, i in zip(share, chosen, strict=True))
        wanted.append(found + net.shared(token) if spec.shared else found)
    wanted = torch.stack(wanted).view(2, 7, 12)
    torch.testing.assert_close(whole, wanted, rtol=1e-10, atol=1e-12)
    weights = (x, *net.parameters())
    for ours, theirs in zip(torch.autograd.grad(whole.square().sum(), weights), torch.autograd.grad(wanted.square().sum(), weights), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def test_what_is_used_is_counted_and_seen() -> None:
    net = sn.Experts(12, 8, count=8, top=3, shared=1).build()
    assert sum(p.numel() for p in net.parameters()) - active(net) == 5 * 3 * 12 * 8
    with watch_routing(net) as seen:
        net(torch.randn(5, 12))
    assert len(seen) == 1 and seen[0][1].index_NK.shape == (5, 3) and seen[0][1].score_NX.shape == (5, 8)
    net(torch.randn(5, 12))
    assert len(seen) == 1


@pytest.mark.parametrize("wrong, says", [(dict(top=9), "top is 9"), (dict(groups=3), "groups must divide"), (dict(score="hard"), "hard"),
                                         (dict(groups=4, top_groups=1), "cannot be chosen")])
def test_what_cannot_be_is_refused(wrong: dict, says: str) -> None:
    with pytest.raises(sn.ConfigError, match=says):
        sn.Experts(12, 8, **{"count": 8, "top": 3, **wrong})
