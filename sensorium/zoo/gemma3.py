"""Gemma 3: five layers that see a window of the text to each that sees all of it, and norms on both sides of every half.

    ids -> vocabulary (scaled) -> causal decoder (sandwich norms, normalised queries and keys, GELU-gated MLP) -> next token
                                  windows: positions turn fast (base 1e4); all of the text: slowly (base 1e6)

Source: 2503.19786; weights google/gemma-3-1b-pt, Gemma terms of use. The text part of the larger ones is built too, without their eyes.
"""

from __future__ import annotations

from typing import Any

import torch

import sensorium as sn
from sensorium.checkpoint import PUBLISHED, Published, Rule
from sensorium.layers.positions import RopeScaling
from sensorium.settings import CONFIG, Keys
from sensorium.types import ConfigError
from sensorium.zoo.llama import llama_equals, rope_settings, texts, tied_head
from sensorium.zoo.published import DEFAULT_ROPE, LLAMA_LAYER, filled, renamed, rope_keys, stack_names
from sensorium.zoo.registry import Entry, register

__all__ = ["gemma3", "gemma3_decoder", "gemma3_sized", "layer_windows", "SIZES"]

DEFAULTS = {"vocab_size": 262_208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
            "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 4096, "query_pre_attn_scalar": 256, "tie_word_embeddings": True,
            "final_logit_softcapping": None}
FIXED = {"hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6, "attention_bias": False, "use_bidirectional_attention": False,
         "attn_logit_softcapping": None}
ROPE = rope_keys("linear", "llama3")
KEYS = CONFIG | ROPE | Keys(
    built=(*DEFAULTS, "layer_types", "sliding_window_pattern", "_sliding_window_pattern", "max_position_embeddings", "rope_local_base_freq"),
    only=FIXED, harmless={"hidden_act": "hidden_activation is the one that counts"},
    parts={"rope_parameters": Keys(parts={"full_attention": ROPE.parts["rope_scaling"], "sliding_attention": DEFAULT_ROPE})})
LAYER = {**LLAMA_LAYER, "attention_after": "post_attention_layernorm", "mlp_norm": "pre_feedforward_layernorm",
         "mlp_after": "post_feedforward_layernorm", "attention.query_norm": "self_attn.q_norm", "attention.key_norm": "self_attn.k_norm"}
SIZES = {  # width, depth, heads, kv heads, head width, hidden, window, query scale, slower positions, vocabulary
    "270m": (640, 18, 4, 1, 256, 2048, 512, 256, None, 262_144),
    "1b": (1152, 26, 4, 1, 256, 6912, 512, 256, None, 262_144),
    "4b": (2560, 34, 8, 4, 256, 10_240, 1024, 256, 8.0, 262_208),
    "12b": (3840, 48, 16, 8, 256, 15_360, 1024, 256, 8.0, 262_208),
    "27b": (5376, 62, 32, 16, 128, 21_504, 1024, 168, 8.0, 262_208),
}


def layer_windows(depth: int, window: int, every: int) -> tuple[int | None, ...]:
    """``every``-th layers see everything, the others a window."""
    return tuple(None if (layer + 1) % every == 0 else window for layer in range(depth))


def gemma3_decoder(width: int, depth: int, heads: int, kv_heads: int, head_width: int, hidden: int, windows: tuple[int | None, ...],
                   query: float = 256, theta: float = 1e6, window_theta: float = 1e4, scaling: RopeScaling | None = None) -> sn.Decoder:
    """The decoder; scores are multiplied by ``query`` ** -0.5."""
    return sn.Decoder(sn.Stack(
        width=width, depth=depth, heads=heads, kv_heads=kv_heads, head_width=head_width, hidden=hidden, act="gelu_tanh", gated=True, bias=False,
        norm="rms", eps=1e-6, qk_norm=True, score_scale=query**-0.5, rope_theta=theta, rope_scaling=scaling, rule="causal",
        windows=windows, window_theta=window_theta, sandwich=True))


def gemma3(decoder: sn.Decoder, vocab: int, tied: bool = True, cap: float | None = None) -> sn.Model:
    """A vocabulary whose embeddings are scaled by the root of their width, a decoder and its scores."""
    width = decoder.width
    return sn.Model(encoders={"text": sn.Vocabulary(vocab, width, scale=width**0.5)}, decoder=decoder,
                    heads={"text": sn.Tokens(width, vocab, tied=tied, cap=cap)}, objectives=(sn.NextToken(),))


def gemma3_sized(size: str) -> sn.Model:
    """The text model of one of ``SIZES``."""
    width, depth, heads, kv_heads, head_width, hidden, window, query, factor, vocab = SIZES[size]
    return gemma3(gemma3_decoder(width, depth, heads, kv_heads, head_width, hidden, layer_windows(depth, window, 6), query,
                                 scaling=RopeScaling(factor) if factor else None), vocab)


def _toy() -> sn.Model:
    return gemma3(gemma3_decoder(32, 3, 4, 2, 12, 48, (4, None, 3), query=10, scaling=RopeScaling(8.0)), 60)


def _spec(config: dict[str, Any]) -> sn.Model:
    c = filled(config, DEFAULTS, FIXED)
    rope, depth, window = c.get("rope_parameters") or {}, c["num_hidden_layers"], c["sliding_window"]
    near = rope.get("sliding_attention") or {}
    if near.get("rope_type", "default") != "default":
        raise ConfigError(f"config.json scales the rotary positions of windows by {near}; only 'default' is built")
    far = {**(rope.get("full_attention") or {}), **(c.get("rope_scaling") or {})}
    far = rope_settings({**c, "rope_scaling": None, "rope_parameters": far, "rope_theta": c.get("rope_theta", 1e6)})
    kinds = c.get("layer_types")
    every = c.get("sliding_window_pattern", c.get("_sliding_window_pattern", 6))
    windows = tuple(window if kind == "sliding_attention" else None for kind in kinds) if kinds else layer_windows(depth, window, every)
    decoder = gemma3_decoder(
        c["hidden_size"], depth, c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"], c["intermediate_size"], windows,
        c["query_pre_attn_scalar"], window_theta=near.get("rope_theta", c.get("rope_local_base_freq", 1e4)), **far)
    return gemma3(decoder, c["vocab_size"], c["tie_word_embeddings"], c["final_logit_softcapping"])


def _raised(weight: torch.Tensor) -> torch.Tensor:
    """The file holds what norms scale by, less one."""
    return weight.float() + 1


def _rules(spec: sn.Model, config: dict[str, Any]) -> dict[str, Rule]:
    names = {"encoders.text.token.weight": "model.embed_tokens.weight", "heads.text.out.weight": "lm_head.weight",
             "decoder.read.norm.weight": "model.norm.weight"}
    names |= stack_names("decoder.read", "model.layers", spec.decoder.depth, LAYER, ("weight",))
    return {mine: Rule(rule.source, _raised) if "norm." in rule.source[0] else rule for mine, rule in renamed(names).items()}


PUBLISHED["gemma3_text"] = Published(_spec, _rules, tied_head, equals=llama_equals, keys={"config.json": KEYS})
register(Entry(name="gemma3", full=lambda: gemma3_sized("1b"), toy=_toy, batch=texts, parameters=999_885_952,
               source="Gemma 3 1B, 2503.19786; google/gemma-3-1b-pt, Gemma terms of use"))
