"""How DeepSeek's published files name their tensors, expert by expert, and in which order they hold what is turned."""

from __future__ import annotations

from typing import Any

import torch

import sensorium as sn
from sensorium.checkpoint import Rule
from sensorium.zoo.llama import llama_equals, tied_head
from sensorium.zoo.published import LLAMA_LAYER, renamed

__all__ = ["deepseek_equals", "deepseek_rules", "unneeded"]

ATTENTION = {"attention.compress.weight": "kv_a_proj_with_mqa.weight", "attention.compress.bias": "kv_a_proj_with_mqa.bias",
             "attention.norm.weight": "kv_a_layernorm.weight", "attention.expand.weight": "kv_b_proj.weight",
             "attention.out.weight": "o_proj.weight", "attention.out.bias": "o_proj.bias"}
DIRECT = {"attention.query.weight": "q_proj.weight"}
LOW = {"attention.query.0.weight": "q_a_proj.weight", "attention.query.0.bias": "q_a_proj.bias", "attention.query.1.weight": "q_a_layernorm.weight",
       "attention.query.2.weight": "q_b_proj.weight"}

PLAIN = {f"{part}.weight": f"{other.removeprefix('self_attn.')}.weight" for part, other in LLAMA_LAYER.items() if part.startswith("attention.")}


def _layer(ours: str, theirs: str, stack: sn.Stack, dense: bool, interleaved: bool) -> dict[str, Rule]:
    """Rules of one layer."""
    latent, experts = stack.latent, stack.experts
    attention = PLAIN if latent is None else ATTENTION | (LOW if latent.query_rank else DIRECT)
    names = {mine: f"self_attn.{other}" for mine, other in attention.items() if latent and latent.bias or not mine.endswith(".bias")}
    names |= {f"{part}.weight": f"{LLAMA_LAYER[part]}.weight" for part in ("attention_norm", "mlp_norm")}
    shared = {f"mlp.{part}.weight": f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")}
    names |= shared if dense else {mine.replace("mlp.", "mlp.shared."): other.replace("mlp.", "mlp.shared_experts.") for mine, other in shared.items()
                                   if experts.shared} | {"mlp.router.weight": "mlp.gate.weight"}
    names |= {"mlp.router.bias": "mlp.gate.e_score_correction_bias"} if experts.biased and not dense else {}
    rules = {mine: Rule((f"{theirs}.{other}",)) for mine, other in names.items()}
    if not dense:
        rules |= {f"mlp.{part}": Rule(tuple(f"{theirs}.mlp.experts.{x}.{part}_proj.weight" for x in range(experts.count)),
                                      lambda *matrices: torch.stack(matrices)) for part in ("gate", "up", "down")}
    for mine in rules if interleaved and latent else ():
        if mine in ("attention.query.weight", "attention.query.2.weight"):
            rules[mine] = Rule(rules[mine].source, lambda w: _halves(w, latent.plain + latent.turned, latent.turned))
        elif mine.startswith("attention.compress."):
            rules[mine] = Rule(rules[mine].source, lambda w: _halves(w, len(w), latent.turned))
    return {f"{ours}.{mine}": rule for mine, rule in rules.items()}


def _halves(weight: torch.Tensor, head: int, turned: int) -> torch.Tensor:
    """The file turns neighbours (0 1)(2 3) at the end of each head, ours turn halves (0 2)(1 3): another order of the same numbers."""
    rows = torch.arange(head)
    rows = torch.cat([rows[: head - turned], rows[head - turned :: 2], rows[head - turned + 1 :: 2]])
    return weight.unflatten(0, (-1, head))[:, rows].flatten(0, 1)


def deepseek_rules(spec: sn.Model, config: dict[str, Any]) -> dict[str, Rule]:
    """How a published file's tensors become ours."""
    stack, turns = spec.decoder.read, config.get("rope_interleave", True)
    rules = renamed({"encoders.text.token.weight": "model.embed_tokens.weight", "heads.text.out.weight": "lm_head.weight",
                     "decoder.read.norm.weight": "model.norm.weight"})
    for i in range(stack.depth):
        rules |= _layer(f"decoder.read.blocks.{i}", f"model.layers.{i}", stack, i < stack.dense, turns)
    if "ahead" in spec.heads:
        last = f"model.layers.{stack.depth}"
        rules |= _layer("heads.ahead.stack.blocks.0", last, stack, False, turns)
        rules |= renamed({f"heads.ahead.{mine}.weight": f"{last}.{other}.weight" for mine, other in (
            ("next_norm", "enorm"), ("state_norm", "hnorm"), ("join", "eh_proj"), ("stack.norm", "shared_head.norm"))})
    return rules


def unneeded(name: str) -> str | None:
    """Why a tensor that no rule asks for is not needed, or None."""
    if name.endswith((".shared_head.head.weight", ".embed_tokens.weight")):  # beside the lookahead: the model's own again
        return "the embeddings, or the scores, again"
    return tied_head(name)


def deepseek_equals(spec: sn.Model, name: str) -> str | torch.Tensor | None:
    """What a tensor of :func:`unneeded` must hold."""
    before, _, _ = name.partition("model.layers.")
    if name.endswith(".shared_head.head.weight"):
        return f"{before}lm_head.weight"
    return f"{before}model.embed_tokens.weight" if ".layers." in name and name.endswith(".embed_tokens.weight") else llama_equals(spec, name)
