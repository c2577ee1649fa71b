"""Qwen2 and 2.5: Llama's decoder with biases on queries, keys and values.

    ids -> vocabulary -> causal decoder (RMS norms, rotary positions, grouped queries, gated MLP) -> next token

Source: Qwen2 2407.10671, Qwen2.5 2412.15115; weights Qwen/Qwen2.5-0.5B-Instruct, Apache-2.0 (not shipped here).
"""

from __future__ import annotations

from typing import Any

import sensorium as sn
from sensorium.checkpoint import PUBLISHED, Published, Rule
from sensorium.settings import CONFIG, Keys
from sensorium.types import ConfigError
from sensorium.zoo.llama import llama, llama_equals, rope_settings, texts, tied_head
from sensorium.zoo.published import LLAMA_LAYER, SILU, filled, renamed, rope_keys, stack_names
from sensorium.zoo.registry import Entry, register

__all__ = ["published_qwen", "qwen25_500m", "qwen25_7b", "qwen_decoder", "qwen_names"]

DEFAULTS = {"vocab_size": 151_936, "hidden_size": 4096, "intermediate_size": 22_016, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 32, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "use_sliding_window": False, "sliding_window": 4096,
            "max_window_layers": 28}
FIXED = {"hidden_act": SILU}
KEYS = CONFIG | rope_keys("linear", "llama3") | Keys(
    built=(*DEFAULTS, "head_dim", "layer_types", "max_position_embeddings"), only=FIXED, harmless={"use_mrope": "rope_scaling says it"})
BIASED = ("attention.query", "attention.key", "attention.value")


def qwen_decoder(width: int, depth: int, heads: int, kv_heads: int, hidden: int, eps: float = 1e-6, theta: float = 1e6,
                 axes: tuple[int, ...] = (), windows: tuple[int | None, ...] = (), **rope: Any) -> sn.Decoder:
    """The decoder of Qwen2 and its kin; ``axes``: rotary frequencies of time, row and column, where it looks at pictures."""
    return sn.Decoder(sn.Stack(
        width=width, depth=depth, heads=heads, kv_heads=kv_heads, hidden=hidden, act="silu", gated=True, bias=False, attention_bias=True,
        attention_out_bias=False, norm="rms", eps=eps, rope_theta=theta, rope_axes=axes, windows=windows, rule="causal", **rope))


def qwen25_500m() -> sn.Model:
    """Qwen2.5 0.5B."""
    return llama(qwen_decoder(896, 24, 14, 2, 4864), 151_936, tied=True)


def qwen25_7b() -> sn.Model:
    """Qwen2.5 7B."""
    return llama(qwen_decoder(3584, 28, 28, 4, 18_944), 152_064)


def _toy() -> sn.Model:
    return llama(qwen_decoder(32, 2, 4, 2, 48, theta=1e4), 60, tied=True)


def published_qwen(config: dict[str, Any], axes: tuple[int, ...] = (), defaults: dict[str, Any] | None = None) -> sn.Model:
    """The language model that a published config describes."""
    c = filled(config, defaults or DEFAULTS, FIXED)
    depth, first = c["num_hidden_layers"], c["max_window_layers"]
    window = c["sliding_window"] if c["use_sliding_window"] else None
    kinds = c.get("layer_types") or ["full_attention" if layer < first else "sliding_attention" for layer in range(depth)]
    windows = tuple(window if kind == "sliding_attention" else None for kind in kinds)
    head_width = c.get("head_dim")
    if head_width and head_width * c["num_attention_heads"] != c["hidden_size"]:
        raise ConfigError(f"config.json sets head_dim to {head_width}; only hidden_size / num_attention_heads is built")
    rope = rope_settings(c)
    decoder = qwen_decoder(
        c["hidden_size"], depth, c["num_attention_heads"], c["num_key_value_heads"] or c["num_attention_heads"], c["intermediate_size"],
        eps=c["rms_norm_eps"], theta=rope["theta"], axes=axes, windows=windows if any(windows) else (), rope_scaling=rope.get("scaling"))
    return llama(decoder, c["vocab_size"], tied=c["tie_word_embeddings"])


def qwen_names(spec: sn.Model, prefix: str = "") -> dict[str, str]:
    """Names of a published Qwen2's tensors, each with ``prefix`` before it."""
    stack, layers = spec.decoder.read, f"{prefix}model.layers"
    names = {"encoders.text.token.weight": f"{prefix}model.embed_tokens.weight", "heads.text.out.weight": f"{prefix}lm_head.weight",
             "decoder.read.norm.weight": f"{prefix}model.norm.weight"}
    names |= stack_names("decoder.read", layers, stack.depth, LLAMA_LAYER, ("weight",))
    return names | stack_names("decoder.read", layers, stack.depth, {part: LLAMA_LAYER[part] for part in BIASED}, ("bias",))


def _rules(spec: sn.Model, config: dict[str, Any]) -> dict[str, Rule]:
    return renamed(qwen_names(spec))


PUBLISHED["qwen2"] = Published(published_qwen, _rules, tied_head, equals=llama_equals, keys={"config.json": KEYS})
register(Entry(name="qwen2", full=qwen25_500m, toy=_toy, batch=texts, parameters=494_032_768,
               source="Qwen2.5 0.5B, 2412.15115; Qwen/Qwen2.5-0.5B-Instruct, Apache-2.0"))
register(Entry(name="qwen2_7b", full=qwen25_7b, toy=_toy, batch=texts, parameters=7_615_616_512,
               source="Qwen2.5 7B, 2412.15115; Qwen/Qwen2.5-7B-Instruct, Apache-2.0"))
