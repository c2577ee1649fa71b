"""Llama: the plain causal language model, and what speaks its layout: Llama 1 to 3, SmolLM2.

    ids -> vocabulary -> causal decoder (RMS norms, rotary positions, grouped queries, gated MLP) -> next token

Source: 2302.13971, 2307.09288, 2407.21783; SmolLM2 2502.02737, weights HuggingFaceTB/SmolLM2-135M-Instruct, Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import sensorium as sn
from sensorium.checkpoint import PUBLISHED, Published, Rule
from sensorium.layers.positions import Rope, RopeScaling
from sensorium.settings import CONFIG, Keys
from sensorium.types import Batch, ConfigError
from sensorium.zoo.gguf import FILE as GGUF_FILE
from sensorium.zoo.gguf import KEYS as GGUF
from sensorium.zoo.published import LLAMA_LAYER, SILU, filled, renamed, rope_keys, stack_names
from sensorium.zoo.registry import Entry, register

__all__ = ["llama", "llama3_8b", "llama_decoder", "llama_equals", "llama_names", "published_decoder", "rope_context", "rope_settings",
           "smollm2_135m", "tied_head"]

DEFAULTS = {"vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32, "num_attention_heads": 32,
            "rms_norm_eps": 1e-6, "tie_word_embeddings": False}
FIXED = {"hidden_act": SILU}
KEYS = CONFIG | rope_keys("linear", "llama3") | Keys(
    built=(*DEFAULTS, "num_key_value_heads", "head_dim", "attention_bias", "mlp_bias", "max_position_embeddings"), only=FIXED,
    harmless={"max_sequence_length": "max_position_embeddings by an older name"})


def llama_decoder(width: int, depth: int, heads: int, hidden: int, kv_heads: int | None = None, eps: float = 1e-5, theta: float = 1e4,
                  head_width: int | None = None, scaling: RopeScaling | None = None, attention_bias: bool = False,
                  bias: bool = False) -> sn.Decoder:
    """The decoder of Llama and its kin; ``bias`` is of the MLP."""
    return sn.Decoder(sn.Stack(
        width=width, depth=depth, heads=heads, kv_heads=kv_heads, head_width=head_width, hidden=hidden, act="silu", gated=True, bias=bias,
        attention_bias=attention_bias, norm="rms", eps=eps, rope_theta=theta, rope_scaling=scaling, rule="causal"))


def llama(decoder: sn.Decoder, vocab: int, tied: bool = False) -> sn.Model:
    """A vocabulary, a decoder and its scores."""
    return sn.Model(encoders={"text": sn.Vocabulary(vocab, decoder.width)}, decoder=decoder,
                    heads={"text": sn.Tokens(decoder.width, vocab, tied=tied)}, objectives=(sn.NextToken(),))


def smollm2_135m() -> sn.Model:
    """SmolLM2, 135M parameters."""
    return llama(llama_decoder(576, 30, 9, 1536, kv_heads=3, theta=1e5), 49_152, tied=True)


def llama3_8b() -> sn.Model:
    """Llama 3.1, 8B parameters."""
    return llama(llama_decoder(4096, 32, 32, 14_336, kv_heads=8, theta=5e5, scaling=RopeScaling(8.0, context=8192)), 128_256)


def _toy() -> sn.Model:
    return llama(llama_decoder(32, 2, 4, 48, kv_heads=2), 60, tied=True)


def _toy3() -> sn.Model:
    return llama(llama_decoder(32, 2, 4, 48, kv_heads=1, head_width=12, scaling=RopeScaling(8.0, context=16)), 60)


def texts(samples: Sequence[int], alone: bool = False) -> Batch:
    """A toy batch of a question and an answer; sample ``i`` is always the same."""
    packer = sn.Packer(row=48, end=3)
    segments = []
    for number in samples:
        generator = torch.Generator().manual_seed(number)
        ask, answer = (torch.randint(8, 60, (length,), generator=generator).tolist() for length in (3 + number % 3, 5))
        segments.append(packer.segment([sn.Arrays("text", [1, *ask]), sn.Arrays("text", answer, target=True)]))
    return packer.pack(segments, alone=alone)


def published_decoder(config: dict[str, Any]) -> sn.Decoder:
    """The decoder that a published config (with its defaults filled in) describes."""
    width, heads, head_width = config["hidden_size"], config["num_attention_heads"], config.get("head_dim")
    return llama_decoder(
        width, config["num_hidden_layers"], heads, config["intermediate_size"], kv_heads=config.get("num_key_value_heads"),
        eps=config["rms_norm_eps"], head_width=None if head_width and head_width * heads == width else head_width,
        attention_bias=config.get("attention_bias", False), bias=config.get("mlp_bias", False), **rope_settings(config))


def rope_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Base and scaling of the rotary positions, in any edition of the config."""
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}  # where both stand there, the older name counts
    kind = rope.get("rope_type", rope.get("type", "default"))
    theta = rope.get("rope_theta", config.get("rope_theta", 1e4))
    if kind == "default":
        return {"theta": theta}
    if kind == "linear":
        return {"theta": theta, "scaling": RopeScaling(rope["factor"])}
    if kind == "llama3":
        return {"theta": theta, "scaling": RopeScaling(rope["factor"], context=rope_context(config, rope), low=rope["low_freq_factor"],
                                                       high=rope["high_freq_factor"])}
    raise ConfigError(f"config.json scales rotary positions by {rope}; only 'default', 'linear' and 'llama3' are built")


def rope_context(config: dict[str, Any], rope: dict[str, Any]) -> int:
    """Places that the rotary positions were trained for before they were scaled."""
    key = "original_max_position_embeddings"
    return config.get(key) or rope.get(key) or config["max_position_embeddings"]


def llama_names(spec: sn.Model, prefix: str = "") -> dict[str, str]:
    """Names of a published Llama's tensors, each with ``prefix`` before it."""
    stack, layers = spec.decoder.read, f"{prefix}model.layers"
    names = {"encoders.text.token.weight": f"{prefix}model.embed_tokens.weight", "heads.text.out.weight": f"{prefix}lm_head.weight",
             "decoder.read.norm.weight": f"{prefix}model.norm.weight"}
    for part, bias in (("attention", stack.attention_bias), ("mlp", stack.bias)):
        layer = {mine: other for mine, other in LLAMA_LAYER.items() if mine.startswith(f"{part}.")}
        names |= stack_names("decoder.read", layers, stack.depth, layer, ("weight", "bias") if bias else ("weight",))
    norms = {mine: other for mine, other in LLAMA_LAYER.items() if mine.endswith("_norm")}
    return names | stack_names("decoder.read", layers, stack.depth, norms, ("weight",))


def tied_head(name: str) -> str | None:
    """Why a tensor that no rule asks for is not needed, or None."""
    if name.endswith("lm_head.weight"):  # an untied head asks for it
        return "the embeddings again"
    if name == "rope_freqs.weight":
        return "what rotary positions are slowed by, which the settings say"
    return "counts 0, 1, 2, ..." if name.endswith("rotary_emb.inv_freq") else None


def llama_equals(spec: sn.Model, name: str) -> str | torch.Tensor | None:
    """What a tensor of :func:`tied_head` must hold."""
    if name.endswith("lm_head.weight"):
        return name.replace("lm_head", "model.embed_tokens")
    stack = spec.decoder.read
    if not name.endswith("rotary_emb.inv_freq") or stack.rope_theta is None:
        return None
    return Rope(stack.block.attention.head, theta=stack.rope_theta).frequencies()


def _spec(config: dict[str, Any]) -> sn.Model:
    c = filled(config, DEFAULTS, FIXED)
    return llama(published_decoder(c), c["vocab_size"], tied=c["tie_word_embeddings"])


def _rules(spec: sn.Model, config: dict[str, Any]) -> dict[str, Rule]:
    return renamed(llama_names(spec))


PUBLISHED["llama"] = Published(_spec, _rules, tied_head, equals=llama_equals, keys={"config.json": KEYS, GGUF_FILE: GGUF})
register(Entry(name="llama", full=smollm2_135m, toy=_toy, batch=texts, parameters=134_515_008,
               source="SmolLM2 135M, 2502.02737; HuggingFaceTB/SmolLM2-135M-Instruct, Apache-2.0"))
register(Entry(name="llama3", full=llama3_8b, toy=_toy3, batch=texts, parameters=8_030_261_248,
               source="Llama 3.1 8B, 2407.21783; meta-llama/Llama-3.1-8B, Llama 3.1 licence"))
