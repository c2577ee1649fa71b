"""How published files name the tensors of a transformer stack and the settings of a picture, so that each family's map stays one screen.

    ours  decoder.read.blocks.3.attention.query.weight      theirs  model.layers.3.self_attn.q_proj.weight
"""

from __future__ import annotations

from typing import Any

from sensorium.checkpoint import Rule
from sensorium.codecs.vision import VisionCodec
from sensorium.types import ConfigError

__all__ = ["CLIP_LAYER", "filled", "LLAMA_LAYER", "picture_codec", "renamed", "stack_names"]

CLIP_LAYER = {
    "attention_norm": "layer_norm1", "attention.query": "self_attn.q_proj", "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj", "attention.out": "self_attn.out_proj", "mlp_norm": "layer_norm2",
    "mlp.up": "mlp.fc1", "mlp.down": "mlp.fc2",
}
LLAMA_LAYER = {
    "attention_norm": "input_layernorm", "attention.query": "self_attn.q_proj", "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj", "attention.out": "self_attn.o_proj", "mlp_norm": "post_attention_layernorm",
    "mlp.gate": "mlp.gate_proj", "mlp.up": "mlp.up_proj", "mlp.down": "mlp.down_proj",
}


def stack_names(ours: str, theirs: str, depth: int, layer: dict[str, str], suffixes: tuple[str, ...] = ("weight", "bias")) -> dict[str, str]:
    """Our name -> their name for every tensor of ``depth`` layers.

    Args:
        ours, theirs: paths of the stacks; layers are ``ours.blocks.0`` and ``theirs.0``.
        layer: part of our layer -> part of theirs.
        suffixes: what each part has.
    """
    return {f"{ours}.blocks.{i}.{mine}.{suffix}": f"{theirs}.{i}.{other}.{suffix}"
            for i in range(depth) for mine, other in layer.items() for suffix in suffixes}


def renamed(names: dict[str, str]) -> dict[str, Rule]:
    """Rules that take each tensor as it is."""
    return {mine: Rule((other,)) for mine, other in names.items()}


def filled(config: dict[str, Any], defaults: dict[str, Any], fixed: dict[str, Any] | None = None) -> dict[str, Any]:
    """A published config with its library's defaults filled in.

    Args:
        fixed: settings whose other values this project does not build.

    Raises:
        ConfigError: a fixed setting has another value.
    """
    out = {**defaults, **config}
    for key, wanted in (fixed or {}).items():
        if out.get(key, wanted) != wanted:
            raise ConfigError(f"config.json sets {key} to {out[key]!r}; only {wanted!r} is built")
    return out


def picture_codec(size: int, fit: str, settings: dict[str, Any]) -> VisionCodec:
    """Pictures as a published preprocessor_config.json has them resized and normalised.

    Args:
        size, fit: of what the model looks at, as ``VisionCodec`` has them.
    """
    kinds = {1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}
    c = filled(settings, {"resample": 3, "image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)},
               {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255})
    if c["resample"] not in kinds:
        raise ConfigError(f"preprocessor_config.json sets resample to {c['resample']!r}; only {kinds} are built")
    return VisionCodec(size=size, fit=fit, resample=kinds[c["resample"]], mean=tuple(c["image_mean"]), std=tuple(c["image_std"]))
