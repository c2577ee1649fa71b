"""Cohere2: attention and MLP side by side behind one norm; windows with rotary positions, and every fourth layer sees all without any.

    ids -> vocabulary -> causal decoder (parallel halves, norms without shift, gated MLP) -> scaled scores -> next token

Source: Command R7B (2504.00698); windows and their positions 2501.18795; weights CohereLabs/c4ai-command-r7b-12-2024, CC-BY-NC-4.0.
"""

from __future__ import annotations

from typing import Any

import torch

import sensorium as sn
from sensorium.checkpoint import PUBLISHED, Published, Rule
from sensorium.settings import CONFIG, Keys
from sensorium.types import ConfigError
from sensorium.zoo.gemma3 import layer_windows
from sensorium.zoo.llama import llama_equals, llama_names, rope_settings, texts, tied_head
from sensorium.zoo.published import SILU, filled, renamed, rope_keys
from sensorium.zoo.registry import Entry, register

__all__ = ["cohere2", "cohere2_7b", "cohere2_decoder", "cohere2_rules", "DEFAULTS", "published_cohere2"]

DEFAULTS = {"vocab_size": 256_000, "hidden_size": 8192, "intermediate_size": 22_528, "num_hidden_layers": 40, "num_attention_heads": 64,
            "layer_norm_eps": 1e-5, "sliding_window": 4096, "logit_scale": 0.0625, "tie_word_embeddings": True, "attention_bias": False}
FIXED = {"hidden_act": SILU, "use_qk_norm": False, "rotary_pct": 1.0, "use_parallel_block": True, "use_gated_activation": True}
KEYS = CONFIG | rope_keys() | Keys(
    built=(*DEFAULTS, "num_key_value_heads", "head_dim", "layer_types", "sliding_window_pattern", "_sliding_window_pattern",
           "max_position_embeddings"),
    only={**FIXED, "position_embedding_type": "rope_gptj", "order_of_interleaved_layers": "local_attn_first"},
    harmless={"layer_switch": "sliding_window_pattern by an older name, which is not read",
              "use_embedding_sharing": "tie_word_embeddings is the one that counts",
              "use_parallel_embedding": "how the published program spreads it over machines"})


def cohere2_decoder(width: int, depth: int, heads: int, kv_heads: int | None, hidden: int, windows: tuple[int | None, ...],
                    theta: float = 5e4, eps: float = 1e-5, attention_bias: bool = False) -> sn.Decoder:
    """The decoder; ``theta`` is of the layers with a window, the others have no positions."""
    return sn.Decoder(sn.Stack(
        width=width, depth=depth, heads=heads, kv_heads=kv_heads, hidden=hidden, act="silu", gated=True, bias=False, attention_bias=attention_bias,
        eps=eps, norm_bias=False, rule="causal", windows=windows, window_theta=theta, parallel=True))


def cohere2(decoder: sn.Decoder, vocab: int, scale: float = 0.25, tied: bool = True) -> sn.Model:
    """A vocabulary, a decoder and its scores, multiplied by ``scale``."""
    return sn.Model(encoders={"text": sn.Vocabulary(vocab, decoder.width)}, decoder=decoder,
                    heads={"text": sn.Tokens(decoder.width, vocab, tied=tied, scale=scale)}, objectives=(sn.NextToken(),))


def cohere2_7b() -> sn.Model:
    """Command R7B, 8.0B parameters."""
    return cohere2(cohere2_decoder(4096, 32, 32, 8, 14_336, layer_windows(32, 4096, 4)), 256_000)


def _toy() -> sn.Model:
    return cohere2(cohere2_decoder(32, 3, 4, 2, 48, (4, None, 3), theta=100.0), 60, scale=0.5)


def published_cohere2(config: dict[str, Any]) -> sn.Model:
    """The model that a published config describes."""
    c = filled(config, DEFAULTS, FIXED)
    depth, window, kinds = c["num_hidden_layers"], c["sliding_window"], c.get("layer_types")
    windows = tuple(window if kind == "sliding_attention" else None for kind in kinds) if kinds else layer_windows(
        depth, window, c.get("sliding_window_pattern", c.get("_sliding_window_pattern", 4)))
    rope, heads = rope_settings(c), c["num_attention_heads"]
    filled(rope, {}, {"scaling": None})
    if c.get("head_dim") and c["head_dim"] * heads != c["hidden_size"]:
        raise ConfigError(f"config.json sets head_dim to {c['head_dim']}; only hidden_size / num_attention_heads is built")
    decoder = cohere2_decoder(c["hidden_size"], depth, heads, c.get("num_key_value_heads"), c["intermediate_size"], windows,
                              rope["theta"], c["layer_norm_eps"], c["attention_bias"])
    return cohere2(decoder, c["vocab_size"], c["logit_scale"], c["tie_word_embeddings"])


def cohere2_rules(spec: sn.Model, prefix: str = "") -> dict[str, Rule]:
    """How a published file's tensors, each with ``prefix`` before its name, become ours."""
    rules = renamed({mine: name for mine, name in llama_names(spec, prefix).items() if ".mlp_norm." not in mine})
    head = spec.decoder.read.block.attention.head
    for mine, rule in rules.items():
        if ".attention.query." in mine or ".attention.key." in mine:
            rules[mine] = Rule(rule.source, lambda w: _halves(w, head))
    return rules


def _halves(weight: torch.Tensor, head: int) -> torch.Tensor:
    """The file turns neighbours (0 1)(2 3), ours turn halves (0 2)(1 3): another order of the same numbers in each head."""
    return weight.unflatten(0, (-1, head // 2, 2)).transpose(1, 2).flatten(0, 2)


PUBLISHED["cohere2"] = Published(published_cohere2, lambda spec, config: cohere2_rules(spec), tied_head, equals=llama_equals,
                                 keys={"config.json": KEYS})
register(Entry(name="cohere2", full=cohere2_7b, toy=_toy, batch=texts, parameters=8_028_033_024,
               source="Command R7B, 2504.00698; CohereLabs/c4ai-command-r7b-12-2024, CC-BY-NC-4.0"))
