"""Grok-1 against its released formulas, written out with plain tensors: no library at hand has it."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from sensorium.layers.experts import active
from sensorium.zoo.grok import _toy, grok_1

from .reference import CLOSE, shaken
from .test_llama import GIVEN, packed


def rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def turned(x_TNE: torch.Tensor) -> torch.Tensor:
    half = x_TNE.shape[-1] // 2
    angle = torch.arange(len(x_TNE))[:, None] * 1e4 ** (-torch.arange(half) / half)
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    a, b = x_TNE[..., :half], x_TNE[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def layer(x_TD: torch.Tensor, block: torch.nn.Module) -> torch.Tensor:
    h, a = rms(x_TD, block.attention_norm.weight), block.attention
    query, key = (turned((h @ w.weight.T).view(len(h), -1, 12)) for w in (a.query, a.key))
    value = (h @ a.value.weight.T).view(len(h), -1, 12)
    out = []
    for head in range(4):  # two heads share keys and values
        score = query[:, head] @ key[:, head // 2].T / 12**0.5
        score = (2.0 * torch.tanh(score / 2.0)).masked_fill(torch.ones(len(h), len(h)).triu(1).bool(), float("-inf"))
        out.append(score.softmax(-1) @ value[:, head // 2])
    x_TD = x_TD + rms(torch.cat(out, -1) @ a.out.weight.T, block.attention_after.weight)
    h, m, found = rms(x_TD, block.mlp_norm.weight), block.mlp, []
    for token in h:
        share = (m.router.weight @ token).softmax(0)
        two = share.topk(2)
        found.append(sum(s * (m.down[i] @ (F.gelu(m.gate[i] @ token, approximate="tanh") * (m.up[i] @ token)))
                         for s, i in zip(two.values, two.indices.tolist(), strict=True)))
    return x_TD + rms(torch.stack(found), block.mlp_after.weight)


def test_forward_is_the_released_formulas() -> None:
    model, batch = shaken(_toy().build(seed=0)), packed(GIVEN)
    logits, table = model.logits(model.read(batch)), model.encoders["text"].token.weight
    for number in range(2):
        here = batch.layout.segment_BT == number
        x_TD = table[batch.token_BT[here]] * 32**0.5
        for block in model.decoder.read.blocks:
            x_TD = layer(x_TD, block)
        wanted = rms(x_TD, model.decoder.read.norm.weight) @ table.T * 3**-0.5
        torch.testing.assert_close(logits[here], wanted, **CLOSE)


def test_a_token_uses_a_quarter() -> None:
    assert abs(active(grok_1().build(device="meta")) / 1e9 - 84) < 3
