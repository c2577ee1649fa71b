"""BERT: every word sees every other; as MiniLM, the mean of a sentence's words is its point on the unit sphere.

    ids -> embeddings + places + kind -> norm -> bidirectional transformer (post-norm) -> mean -> unit sphere -> softmax contrastive

Source: 1810.04805; sentence embeddings 1908.10084, MiniLM 2002.10957; weights sentence-transformers/all-MiniLM-L6-v2, Apache-2.0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

import sensorium as sn
from sensorium.checkpoint import PUBLISHED, Published, Rule
from sensorium.settings import CONFIG, NOTES, Keys, because
from sensorium.types import Batch
from sensorium.zoo.published import NO_HEAD, activation, filled, renamed, stack_names
from sensorium.zoo.registry import Entry, register

__all__ = ["bert", "minilm_l6"]

DEFAULTS = {"vocab_size": 30_522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
            "hidden_act": "gelu", "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0}
FIXED = {"position_embedding_type": "absolute", "is_decoder": False}
KEYS = CONFIG | Keys(built=tuple(DEFAULTS), only=FIXED, harmless=NO_HEAD | dict.fromkeys(
    ("pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type", "directionality"),
    "of a layer over the first position, which a mean over all has no use for"))
SENTENCES = {
    "sentence_bert_config.json": Keys(built=("max_seq_length",), only={"do_lower_case": False}, harmless={
        **because("how the published program is called", "transformer_task", "modality_config", "module_output_name", "processing_kwargs",
                  "unpad_inputs")}),
    "config_sentence_transformers.json": NOTES | Keys(only={"default_prompt_name": None}, harmless={
        **because("whoever embeds a text puts its prompt before it", "prompts"),
        **because("vectors are compared on the unit sphere", "similarity_fn_name"),
        **because("who wrote the file, and with what", "__version__", "model_type")})}
TEMPERATURE = 0.05
"""That all-MiniLM-L6-v2 was trained with; its files do not hold it."""
LAYER = {"attention.query": "attention.self.query", "attention.key": "attention.self.key", "attention.value": "attention.self.value",
         "attention.out": "attention.output.dense", "attention_norm": "attention.output.LayerNorm", "mlp.up": "intermediate.dense",
         "mlp.down": "output.dense", "mlp_norm": "output.LayerNorm"}


def bert(vocab: int, context: int, width: int, depth: int, heads: int, hidden: int | None = None, kinds: int = 2, pad: int = 0,
         act: str = "gelu", eps: float = 1e-12, pool: str = "mean") -> sn.Model:
    """A sentence encoder; ``pool``: its positions are averaged ("mean"), or the first stands for all ("first")."""
    return sn.Model(
        encoders={"text": sn.TextEncoder(vocab=vocab, context=context, width=width, depth=depth, heads=heads, hidden=hidden, act=act, eps=eps,
                                         causal=False, pad=pad, kinds=kinds, post_norm=True)},
        align={"text": sn.Pool(width, pool)},
        heads={"embed": sn.Unit()},
        objectives=(sn.Contrastive("text", "text/other", temperature=TEMPERATURE),))


def minilm_l6() -> sn.Model:
    """all-MiniLM-L6-v2, 23M parameters."""
    return bert(30_522, 512, 384, 6, 12)


def _toy() -> sn.Model:
    return bert(60, 16, 24, 2, 2)


def sentences(samples: Sequence[int], alone: bool = False) -> Batch:
    """A toy batch of two sentences that belong together; sample ``i`` is always the same."""
    views = []
    for view in (0, 1):
        rows = torch.zeros(len(samples), 16, dtype=torch.int64)
        for row, number in zip(rows, samples, strict=True):
            generator = torch.Generator().manual_seed(2 * number + view)
            length = 4 + (number + view) % 9
            row[:length] = torch.randint(2, 60, (length,), generator=generator)
        views.append(rows)
    return Batch(pairs={"text": views[0], "text/other": views[1]}, samples=len(samples))


def _spec(config: dict[str, Any]) -> sn.Model:
    c = filled(config, DEFAULTS, FIXED)
    hidden = None if c["intermediate_size"] == 4 * c["hidden_size"] else c["intermediate_size"]
    return bert(c["vocab_size"], c["max_position_embeddings"], c["hidden_size"], c["num_hidden_layers"], c["num_attention_heads"], hidden,
                c["type_vocab_size"], c["pad_token_id"], activation(c["hidden_act"]), c["layer_norm_eps"], c.get("pooling", "mean"))


def _rules(spec: sn.Model, config: dict[str, Any]) -> dict[str, Rule]:
    text = "encoders.text"
    names = {f"{text}.token.weight": "embeddings.word_embeddings.weight", f"{text}.position": "embeddings.position_embeddings.weight",
             f"{text}.kind": "embeddings.token_type_embeddings.weight", f"{text}.norm.weight": "embeddings.LayerNorm.weight",
             f"{text}.norm.bias": "embeddings.LayerNorm.bias"}
    rules = renamed(names | stack_names(f"{text}.stack", "encoder.layer", spec.encoders["text"].depth, LAYER))
    return rules | {"objectives.0.log_scale": Rule((), lambda: torch.tensor(-math.log(TEMPERATURE)))}


def _ignored(name: str) -> str | None:
    if name.startswith("pooler."):
        return "a layer over the first position, which a mean over all has no use for"
    if name.startswith("cls."):
        return "the head that guesses words or next sentences"
    return "counts 0, 1, 2, ..." if name.endswith("position_ids") else None


PUBLISHED["bert"] = Published(_spec, _rules, _ignored, lambda name: name.removeprefix("bert."), keys={"config.json": KEYS, **SENTENCES})
register(Entry(name="bert", full=minilm_l6, toy=_toy, batch=sentences, parameters=22_713_216,
               unread=384 * 384 + 384 - 1,  # the pooler, less the temperature
               source="all-MiniLM-L6-v2, 1908.10084; sentence-transformers/all-MiniLM-L6-v2, Apache-2.0"))
