"""DiT: a transformer denoises patches of a latent picture; the class and the time modulate every layer.

    noisy latent -> patches -> bidirectional transformer (adaLN-Zero) -> noise (and its variance)
    class + time -> condition ----^

Source: 2212.09748; weights facebook/DiT-XL-2-256 (CC-BY-NC-4.0, not shipped here), in diffusers' layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

import sensorium as sn
from sensorium.checkpoint import PUBLISHED, Published, Rule
from sensorium.settings import NOTES, Keys
from sensorium.types import Batch, CheckpointError, Written
from sensorium.zoo.published import filled, renamed, stack_names
from sensorium.zoo.registry import Entry, register

__all__ = ["dit", "dit_xl2"]

DEFAULTS = {"num_attention_heads": 16, "attention_head_dim": 72, "in_channels": 4, "out_channels": None, "num_layers": 28, "sample_size": 32,
            "patch_size": 2, "num_embeds_ada_norm": 1000, "norm_eps": 1e-5}
FIXED = {"activation_fn": "gelu-approximate", "norm_type": "ada_norm_zero", "attention_bias": True, "norm_elementwise_affine": False}
KEYS = NOTES | Keys(built=tuple(DEFAULTS), only=FIXED, harmless={
    "dropout": "none here", "upcast_attention": "how precisely the published program computes", "norm_num_groups": "of pictures in place of patches"})
OLDER = {"attention_head_dim": 88, "in_channels": None, "num_layers": 1, "sample_size": None, "patch_size": None, "num_embeds_ada_norm": None,
         "activation_fn": "geglu", "norm_type": "layer_norm", "attention_bias": False, "norm_elementwise_affine": True}
LAYER = {"attention.query": "attn1.to_q", "attention.key": "attn1.to_k", "attention.value": "attn1.to_v", "attention.out": "attn1.to_out.0",
         "mlp.up": "ff.net.0.proj", "mlp.down": "ff.net.2", "modulate": "norm1.linear"}


def dit(size: int, patch: int, width: int, depth: int, heads: int, classes: int, channels: int = 4, out_channels: int | None = 8,
        predict: str = "noise", shift: int = 0, mlp_eps: float | None = None) -> sn.Model:
    """A class-conditional denoiser of ``channels`` x ``size`` x ``size`` latents.

    Args:
        shift: of the time's sinusoids; diffusers' edition has 1, the paper's code 0.
        mlp_eps: of the norm before each MLP, where it differs from 1e-6 (diffusers: 1e-5).
    """
    return sn.Model(
        encoders={"label": sn.LabelEncoder(classes, width)},
        fuse={"condition": sn.Condition(width, label=width, shift=shift)},
        decoder=sn.Decoder(sn.Stack(width=width, depth=depth, heads=heads, act="gelu_tanh", eps=1e-6, mlp_eps=mlp_eps, norm_affine=False,
                                    adaln=width, final_norm=False)),
        heads={"image": sn.Flow(width, size=size, patch=patch, channels=channels, predict=predict, condition=width, out_channels=out_channels)},
        objectives=(sn.Denoise(path=sn.Diffusion()),))


def dit_xl2() -> sn.Model:
    """DiT-XL/2 for 256-pixel pictures, 675M parameters."""
    return dit(32, 2, 1152, 28, 16, 1000)


def _toy() -> sn.Model:
    return dit(8, 2, 32, 2, 2, 10)


def _latents(samples: Sequence[int], alone: bool = False) -> Batch:
    """A toy batch of labelled latents; sample ``i`` is always the same."""
    value = torch.stack([torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(number)) for number in samples])
    none, zero = torch.full((len(value),), -1), torch.zeros(len(value), dtype=torch.int64)
    return Batch(written={"image": Written(value, none, none, zero, none, torch.tensor([n % 10 for n in samples]))}, samples=len(value))


def _spec(config: dict[str, Any]) -> sn.Model:
    c = filled(config, DEFAULTS, FIXED)
    eps = None if c["norm_eps"] == 1e-6 else c["norm_eps"]
    return dit(c["sample_size"], c["patch_size"], c["num_attention_heads"] * c["attention_head_dim"], c["num_layers"], c["num_attention_heads"],
               c["num_embeds_ada_norm"], c["in_channels"], c["out_channels"] or c["in_channels"], shift=1, mlp_eps=eps)


def _same(first: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    """The file repeats the embedders of time and class in every layer; this project has one."""
    if any(not torch.equal(first, other) for other in others):
        raise CheckpointError("the layers' embedders of time or class differ; wanted equal copies, as in every published DiT")
    return first


def _rules(spec: sn.Model, config: dict[str, Any]) -> dict[str, Rule]:
    depth = spec.decoder.depth
    out = renamed(stack_names("decoder.read", "transformer_blocks", depth, LAYER))
    copies = {"encoders.label.label.weight": "class_embedder.embedding_table.weight"}
    copies |= {f"fuse.condition.time.{mine}.{suffix}": f"timestep_embedder.{other}.{suffix}"
               for mine, other in (("up", "linear_1"), ("down", "linear_2")) for suffix in ("weight", "bias")}
    for mine, other in copies.items():
        out[mine] = Rule(tuple(f"transformer_blocks.{i}.norm1.emb.{other}" for i in range(depth)), _same)
    out["heads.image.inside.weight"] = Rule(("pos_embed.proj.weight",), lambda w: w.permute(0, 2, 3, 1).flatten(1))
    out["heads.image.inside.bias"] = Rule(("pos_embed.proj.bias",))
    for mine, other in (("modulate", "proj_out_1"), ("out", "proj_out_2")):
        out |= {f"heads.image.{mine}.{suffix}": Rule((f"{other}.{suffix}",)) for suffix in ("weight", "bias")}
    return out


PUBLISHED["DiTTransformer2DModel"] = Published(
    _spec, _rules, lambda name: "sinusoids of the grid" if name == "pos_embed.pos_embed" else None, keys={"config.json": KEYS})
PUBLISHED["Transformer2DModel"] = replace(  # the class that the published file names
    PUBLISHED["DiTTransformer2DModel"], spec=lambda config: _spec(OLDER | config),
    keys={"config.json": KEYS | Keys(only={"attention_type": "default"})})
register(Entry(name="dit", full=dit_xl2, toy=_toy, batch=_latents, parameters=675_129_632, unread=294_912,
               source="DiT-XL/2, 2212.09748; facebook/DiT-XL-2-256, CC-BY-NC-4.0"))
