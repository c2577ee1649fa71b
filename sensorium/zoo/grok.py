"""Grok-1: eight large experts of which each token uses two, norms before and after each half, scores bent to stay within 30.

    ids -> vocabulary, scaled -> causal decoder (sandwich norms, grouped queries, capped scores, experts) -> scaled scores -> next token

Source: the released code and weights, github.com/xai-org/grok-1, Apache-2.0; there is no paper.
"""

from __future__ import annotations

import sensorium as sn
from sensorium.zoo.llama import texts
from sensorium.zoo.registry import Entry, register

__all__ = ["grok", "grok_1"]


def grok(width: int, depth: int, heads: int, kv_heads: int, head_width: int, vocab: int, experts: sn.Experts, scale: float, scores: float,
         cap: float = 30.0) -> sn.Model:
    """The model.

    Args:
        scale, scores: what embeddings and scores are multiplied by; the scores' table is that of the embeddings.
        cap: within what the attention's scores stay.
    """
    stack = sn.Stack(width=width, depth=depth, heads=heads, kv_heads=kv_heads, head_width=head_width, bias=False, norm="rms", score_cap=cap,
                     rope_theta=1e4, rule="causal", sandwich=True, experts=experts)
    return sn.Model(encoders={"text": sn.Vocabulary(vocab, width, scale=scale)}, decoder=sn.Decoder(stack),
                    heads={"text": sn.Tokens(width, vocab, tied=True, scale=scores)}, objectives=(sn.NextToken(), sn.Balance()))


def grok_1() -> sn.Model:
    """Grok-1, 314B parameters, of which a token uses 84B."""
    return grok(6144, 64, 48, 8, 128, 131_072, sn.Experts(6144, 32_768, count=8, top=2, act="gelu_tanh"), 6144**0.5, 3**-0.5)


def _toy() -> sn.Model:
    return grok(32, 2, 4, 2, 12, 60, sn.Experts(32, 16, count=4, top=2, act="gelu_tanh"), 32**0.5, 3**-0.5, cap=2.0)


register(Entry(name="grok1", full=grok_1, toy=_toy, batch=texts, parameters=314_000_000_000, rounded=0.02,
               source="Grok-1, github.com/xai-org/grok-1, Apache-2.0"))
