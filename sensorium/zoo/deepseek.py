"""DeepSeek-V2 and V3: latent attention, many small experts of which each token uses a few, and in V3 a layer that guesses one token further.

    ids -> vocabulary -> causal decoder (latent attention; after the first layers, shared and routed experts) -> next token
                                                                                                 (V3: -> lookahead -> the token after)

Source: 2405.04434, 2412.19437; weights deepseek-ai/DeepSeek-V2, -V2-Lite, -V3, DeepSeek model licence (V3: also MIT).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import sensorium as sn
from sensorium.checkpoint import PUBLISHED, Published
from sensorium.layers.positions import RopeScaling
from sensorium.settings import CONFIG, Keys, because
from sensorium.types import ConfigError
from sensorium.zoo.deepseek_layout import deepseek_equals, deepseek_rules, unneeded
from sensorium.zoo.llama import rope_context, rope_settings, texts
from sensorium.zoo.published import SILU, filled, rope_keys
from sensorium.zoo.registry import Entry, register

__all__ = ["deepseek", "deepseek_spec", "deepseek_stack", "deepseek_v2", "deepseek_v2_lite", "deepseek_v3", "yarn"]

COMMON = {"q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "rms_norm_eps": 1e-6,
          "n_group": None, "topk_group": None, "norm_topk_prob": False, "routed_scaling_factor": 1.0, "tie_word_embeddings": False,
          "first_k_dense_replace": 0, "n_shared_experts": None, "attention_bias": False, "rope_interleave": True}
FIXED = {"hidden_act": SILU, "mlp_bias": False, "moe_layer_freq": 1}


def _keys(only: dict[str, Any]) -> Keys:
    """The keys of a config.json; ``only``: what is built of one of the two alone."""
    built = (*COMMON, "vocab_size", "hidden_size", "intermediate_size", "moe_intermediate_size", "num_hidden_layers", "num_attention_heads",
             "num_key_value_heads", "n_routed_experts", "num_experts_per_tok", "topk_method", "max_position_embeddings")
    ropes = rope_keys("linear", "llama3", "yarn", more=("beta_fast", "beta_slow", "mscale", "mscale_all_dim"))
    return CONFIG | ropes | Keys(tuple(key for key in built if key not in only), {**FIXED, **only}, harmless={
        **because("for training", "aux_loss_alpha", "seq_aux", "router_aux_loss_coef"),
        "qk_head_dim": "qk_nope_head_dim + qk_rope_head_dim", "head_dim": "qk_rope_head_dim", "use_mla": "kv_lora_rank is null without it",
        "num_nextn_predict_layers": "the tensors that are there say it"})


V2, V3 = _keys({"scoring_func": "softmax", "norm_topk_prob": False}), _keys({"scoring_func": "sigmoid"})


def deepseek(stack: sn.Stack, vocab: int, tied: bool = False, ahead: bool = False, balance: sn.Balance | None = None) -> sn.Model:
    """A vocabulary, a decoder and its scores; ``ahead``: a layer that guesses the token after the next."""
    heads: dict[str, Any] = {"text": sn.Tokens(stack.width, vocab, tied=tied)}
    if ahead:
        heads["ahead"] = sn.Lookahead(replace(stack, depth=1, dense=0))
    objectives = (sn.NextToken(), *([sn.Ahead()] if ahead else []), balance or sn.Balance())
    return sn.Model(encoders={"text": sn.Vocabulary(vocab, stack.width)}, decoder=sn.Decoder(stack), heads=heads, objectives=objectives)


def deepseek_stack(width: int, depth: int, heads: int, hidden: int, latent: sn.Latent | None, experts: sn.Experts, dense: int, theta: float = 1e4,
                   scaling: RopeScaling | None = None, gain: float = 1.0, eps: float = 1e-6) -> sn.Stack:
    """The decoder's stack; ``gain``: scores are multiplied by its square besides. Without ``latent``, plain attention."""
    head = latent.plain + latent.turned if latent else width // heads
    return sn.Stack(width=width, depth=depth, heads=heads, hidden=hidden, act="silu", gated=True, bias=False, norm="rms", eps=eps, rope_theta=theta,
                    rope_scaling=scaling, score_scale=gain**2 * head**-0.5, rule="causal", latent=latent,
                    experts=experts, dense=dense)


def yarn(factor: float, context: int, fast: float = 32, slow: float = 1, scale: float = 0.0, scale_all: float = 0.0) -> dict[str, Any]:
    """``scaling`` and ``gain`` of positions that are stretched ``factor`` times from ``context`` places.

    Source: YaRN (2309.00071), section 3; the two scales are DeepSeek's.
    """
    def grown(by: float) -> float:
        return 0.1 * by * math.log(factor) + 1.0 if factor > 1 else 1.0

    turned = grown(scale) / grown(scale_all) if scale and scale_all else grown(1.0)
    scaling = RopeScaling(factor, context=context, low=slow, high=fast, even=True, gain=turned)
    return {"scaling": scaling, "gain": grown(scale_all) if scale_all else 1.0}


def deepseek_v2() -> sn.Model:
    """DeepSeek-V2, 236B parameters, of which a token uses 21B."""
    experts = sn.Experts(5120, 1536, count=160, top=6, shared=2, groups=8, top_groups=3, scale=16.0)
    return deepseek(deepseek_stack(5120, 60, 128, 12_288, sn.Latent(rank=512, query_rank=1536, plain=128, turned=64, value=128), experts, 1,
                                   **yarn(40, 4096, scale=0.707, scale_all=0.707)), 102_400)


def deepseek_v2_lite() -> sn.Model:
    """DeepSeek-V2-Lite, 16B parameters, of which a token uses 2.4B."""
    return deepseek(deepseek_stack(2048, 27, 16, 10_944, sn.Latent(rank=512, plain=128, turned=64, value=128),
                                   sn.Experts(2048, 1408, count=64, top=6, shared=2), 1, **yarn(40, 4096, scale=0.707, scale_all=0.707)), 102_400)


def deepseek_v3(ahead: bool = False) -> sn.Model:
    """DeepSeek-V3, 671B parameters, of which a token uses 37B; ``ahead``: with the layer that guesses one token further (14B more)."""
    experts = sn.Experts(7168, 2048, count=256, top=8, shared=1, score="sigmoid", groups=8, top_groups=4, group_by="top2", normalise=True, scale=2.5,
                         biased=True)
    stack = deepseek_stack(7168, 61, 128, 18_432, sn.Latent(rank=512, query_rank=1536, plain=128, turned=64, value=128), experts, 3,
                           **yarn(40, 4096, scale=1.0, scale_all=1.0))
    return deepseek(stack, 129_280, ahead=ahead, balance=sn.Balance(weight=1e-4, speed=1e-3))


def _toy(v3: bool) -> sn.Model:
    experts = sn.Experts(32, 12, count=4, top=2, shared=1, groups=2, top_groups=2, scale=1.5,
                         **(dict(score="sigmoid", group_by="top2", normalise=True, biased=True) if v3 else {}))
    latent = sn.Latent(rank=12, query_rank=10 if v3 else None, plain=8, turned=4, value=6)
    return deepseek(deepseek_stack(32, 2, 4, 48, latent, experts, 1, **yarn(4, 8, scale=0.7, scale_all=0.7)), 60, ahead=v3)


def _positions(config: dict[str, Any]) -> dict[str, Any]:
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "yarn":
        return rope_settings(config)
    if not rope.get("truncate", True) or rope.get("attention_factor") is not None:
        raise ConfigError(f"config.json scales rotary positions by {rope}; attention_factor and truncate=false are not built")
    context = rope_context(config, rope)
    factor = rope.get("factor") or config["max_position_embeddings"] / context
    return {"theta": rope.get("rope_theta", config.get("rope_theta", 1e4)), **yarn(
        factor, context, rope.get("beta_fast") or 32, rope.get("beta_slow") or 1, rope.get("mscale") or 0.0, rope.get("mscale_all_dim") or 0.0)}


def deepseek_spec(config: dict[str, Any], v3: bool) -> sn.Model:
    """The sentence that a published config describes, with V3's way of choosing experts or with V2's."""
    c = filled(config, COMMON, FIXED)
    limited = v3 or c.get("topk_method", "greedy") == "group_limited_greedy"
    if not v3 and c.get("topk_method", "greedy") not in ("greedy", "group_limited_greedy"):
        raise ConfigError(f"config.json chooses experts by {c['topk_method']!r}; only 'greedy' and 'group_limited_greedy' are built")
    experts = sn.Experts(
        c["hidden_size"], c["moe_intermediate_size"], count=c["n_routed_experts"], top=c["num_experts_per_tok"], shared=c["n_shared_experts"] or 0,
        groups=(c["n_group"] or 1) if limited else 1, top_groups=(c["topk_group"] or 1) if limited else 1, scale=c["routed_scaling_factor"],
        **(dict(score="sigmoid", group_by="top2", normalise=c["norm_topk_prob"], biased=True) if v3 else {}))
    latent = None if c["kv_lora_rank"] is None else sn.Latent(
        rank=c["kv_lora_rank"], query_rank=c["q_lora_rank"], plain=c["qk_nope_head_dim"], turned=c["qk_rope_head_dim"], value=c["v_head_dim"],
        bias=c["attention_bias"])
    depth, heads = c["num_hidden_layers"], c["num_attention_heads"]
    if (c.get("num_key_value_heads") or heads) != heads:
        raise ConfigError(f"config.json sets num_key_value_heads to {c['num_key_value_heads']}; only as many as num_attention_heads are built")
    stack = deepseek_stack(c["hidden_size"], depth, heads, c["intermediate_size"], latent, experts,
                           min(c["first_k_dense_replace"], depth), eps=c["rms_norm_eps"], **_positions(c))
    return deepseek(stack, c["vocab_size"], c["tie_word_embeddings"], f"model.layers.{depth}.eh_proj.weight" in c["tensor_names"])


for _kind, _v3 in (("deepseek_v2", False), ("deepseek_v3", True)):
    PUBLISHED[_kind] = Published(lambda config, v3=_v3: deepseek_spec(config, v3), deepseek_rules, unneeded, equals=deepseek_equals,
                                 keys={"config.json": V3 if _v3 else V2})
register(Entry(name="deepseek_v2", full=deepseek_v2, toy=lambda: _toy(False), batch=texts, parameters=235_741_434_880,
               source="DeepSeek-V2, 2405.04434; deepseek-ai/DeepSeek-V2, DeepSeek model licence"))
register(Entry(name="deepseek_v2_lite", full=deepseek_v2_lite, toy=lambda: _toy(False), batch=texts, parameters=15_706_484_224,
               source="DeepSeek-V2-Lite, 2405.04434; deepseek-ai/DeepSeek-V2-Lite, DeepSeek model licence"))
register(Entry(name="deepseek_v3", full=deepseek_v3, toy=lambda: _toy(True), batch=texts, parameters=671_026_404_352,
               source="DeepSeek-V3, 2412.19437; deepseek-ai/DeepSeek-V3, MIT and DeepSeek model licence"))
