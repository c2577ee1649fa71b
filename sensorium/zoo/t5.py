"""T5's text tower, as Stable Diffusion 3 and Wan read prompts with it: settings and names of the published files.

Source: 1910.10683; google/t5-v1_1-xxl, Apache-2.0; umT5 2304.09151, google/umt5-xxl, Apache-2.0.
"""

from __future__ import annotations

from typing import Any

import sensorium as sn
from sensorium.settings import CONFIG, Keys
from sensorium.zoo.published import filled, stack_names

__all__ = ["empty_text", "T5_KEYS", "t5_names", "t5_tower", "XXL"]

DEFAULTS = {"vocab_size": 32_128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "relative_attention_num_buckets": 32,
            "relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-6, "pad_token_id": 0, "eos_token_id": 1}
XXL = {"d_model": 4096, "d_ff": 10_240, "num_layers": 24, "num_heads": 64}
FIXED = {"feed_forward_proj": "gated-gelu"}
T5_KEYS = CONFIG | Keys(
    built=(*DEFAULTS, "model_type"), only=FIXED | {"is_encoder_decoder": (True, False), "quantization_config": None}, harmless={
        **dict.fromkeys(("num_decoder_layers", "decoder_start_token_id", "tie_word_embeddings", "scale_decoder_outputs", "n_positions",
                         "output_past"), "of the decoder, which is not read"),
        **dict.fromkeys(("dense_act_fn", "is_gated_act"), "feed_forward_proj says it"), "dropout_rate": "none here",
        "scalable_attention": "how the published program computes"})
LAYER = {"attention_norm": "layer.0.layer_norm", "attention.query": "layer.0.SelfAttention.q", "attention.key": "layer.0.SelfAttention.k",
         "attention.value": "layer.0.SelfAttention.v", "attention.out": "layer.0.SelfAttention.o", "mlp_norm": "layer.1.layer_norm",
         "mlp.gate": "layer.1.DenseReluDense.wi_0", "mlp.up": "layer.1.DenseReluDense.wi_1", "mlp.down": "layer.1.DenseReluDense.wo"}


def t5_tower(config: dict[str, Any], seen: bool = False) -> sn.RelativeEncoder:
    """The tower; ``seen``: padding is looked at like any token."""
    c = filled(config, DEFAULTS, FIXED)
    return sn.RelativeEncoder(
        vocab=c["vocab_size"], width=c["d_model"], depth=c["num_layers"], heads=c["num_heads"], head_width=c["d_kv"], hidden=c["d_ff"],
        buckets=c["relative_attention_num_buckets"], far=c["relative_attention_max_distance"], eps=c["layer_norm_epsilon"],
        shared=c.get("model_type") != "umt5", pad=None if seen else c["pad_token_id"])


def empty_text(marks: dict[str, int], config: dict[str, Any], length: int) -> tuple[int, ...]:
    """Ids of a text that says nothing: the end, and padding up to ``length``.

    Args:
        marks: of its tokenizer, as ``pipeline.read_pipeline`` gives them; where there is none, the tower's own settings say them.
    """
    c = filled(config, DEFAULTS)
    return (marks.get("eos", c["eos_token_id"]), *[marks.get("pad", c["pad_token_id"])] * (length - 1))


def t5_names(tower: sn.RelativeEncoder, ours: str, theirs: str) -> dict[str, str]:
    """Our name -> theirs."""
    names = {name.replace(".blocks.", ".layers."): other for name, other in stack_names(ours, f"{theirs}encoder.block", tower.depth, LAYER,
                                                                                       ("weight",)).items()}
    biased = range(1) if tower.shared else range(tower.depth)
    names |= {f"{ours}.layers.{i}.distance.weight": f"{theirs}encoder.block.{i}.layer.0.SelfAttention.relative_attention_bias.weight" for i in biased}
    return names | {f"{ours}.token.weight": f"{theirs}shared.weight", f"{ours}.norm.weight": f"{theirs}encoder.final_layer_norm.weight"}
