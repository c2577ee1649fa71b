"""How published files name the tensors of a transformer stack and the settings of a picture, so that each family's map stays one screen.

    ours  decoder.read.blocks.3.attention.query.weight      theirs  model.layers.3.self_attn.q_proj.weight
"""

from __future__ import annotations

from typing import Any

from sensorium.checkpoint import Rule
from sensorium.codecs.vision import VisionCodec
from sensorium.settings import CONFIG, NOTES, Keys, because
from sensorium.types import ConfigError

__all__ = ["activation", "CLIP_LAYER", "CLIP_PICTURES", "DEFAULT_ROPE", "filled", "fit_of", "GELU_TANH", "LLAMA_LAYER", "NO_HEAD", "picture_codec",
           "processor_keys", "renamed", "rope_keys", "SILU", "stack_names", "TOWER"]

ACTIVATIONS = {"gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_python_tanh": "gelu_tanh",
               "gelu_accurate": "gelu_tanh", "gelu_fast": "gelu_tanh", "quick_gelu": "quick_gelu", "relu": "relu", "silu": "silu", "swish": "silu"}
SILU, GELU_TANH = (tuple(name for name, ours in ACTIVATIONS.items() if ours == wanted) for wanted in ("silu", "gelu_tanh"))
DEFAULT_ROPE = Keys(built=("rope_theta",), only=dict.fromkeys(("rope_type", "type"), "default") | {"partial_rotary_factor": (1.0, None)})
NO_HEAD = {"tie_word_embeddings": "there is no head of words that could be tied"}
CLIP_PICTURES = {"image_mean": (0.48145466, 0.4578275, 0.40821073), "image_std": (0.26862954, 0.26130258, 0.27577711)}
"""What pictures are normalised by where a file does not say it and the published program is CLIP's."""
TOWER = CONFIG | Keys(built=("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels", "image_size",
                             "patch_size", "layer_norm_eps", "hidden_act"),
                      harmless=NO_HEAD)
"""Of a picture tower."""

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


def activation(name: str) -> str:
    """What the published name of an activation is called here.

    Raises:
        ConfigError: one that is not built.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(f"config.json sets an activation to {name!r}; only {', '.join(ACTIVATIONS)} are built")
    return ACTIVATIONS[name]


def rope_keys(*kinds: str, more: tuple[str, ...] = ()) -> Keys:
    """The keys that say how rotary positions turn, in any edition.

    Args:
        kinds: ways of scaling that are built besides "default".
        more: keys of these ways besides those of "linear" and "llama3".
    """
    rope = Keys(built=("rope_theta", "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings", *more),
                only={"rope_type": ("default", *kinds), "type": ("default", *kinds), "partial_rotary_factor": (1.0, None)},
                harmless={"finetuned": "a remark"})
    return Keys(built=("rope_theta", "original_max_position_embeddings"), only={"partial_rotary_factor": (1.0, None)},
                parts={"rope_parameters": rope, "rope_scaling": rope})


def filled(config: dict[str, Any], defaults: dict[str, Any], fixed: dict[str, Any] | None = None) -> dict[str, Any]:
    """A published config with its library's defaults filled in.

    Args:
        fixed: settings whose other values this project does not build; a tuple holds several that are.

    Raises:
        ConfigError: a fixed setting has another value.
    """
    out = {**defaults, **config}
    for key, wanted in (fixed or {}).items():
        built = wanted if isinstance(wanted, tuple) else (wanted,)
        if key in out and out[key] not in built:
            raise ConfigError(f"config.json sets {key} to {out[key]!r}; only {' or '.join(map(repr, built))} is built")
    return out


def processor_keys(pictures: Keys, videos: Keys | None = None, more: Keys | None = None) -> dict[str, Keys]:
    """The files that say how pictures (and videos) become arrays, in either edition, and their keys.

    Args:
        more: further keys of processor_config.json.
    """
    same = "config.json or the settings of pictures say it"
    outer = NOTES | Keys(built=("chat_template",), parts={"image_processor": pictures, **({"video_processor": videos} if videos else {})},
                         harmless=because(
        same, "image_seq_len", "image_seq_length", "image_token", "image_token_id", "video_token", "patch_size", "num_additional_image_tokens",
        "vision_feature_select_strategy", "downsample_factor", "img_size", "num_image_tokens", "processor_class"))
    files = {"preprocessor_config.json": pictures, "processor_config.json": outer | more if more else outer}
    return {**files, "video_preprocessor_config.json": videos} if videos else files


def fit_of(settings: dict[str, Any], size: int, crops: bool = True) -> str:
    """How a picture is brought to a square of ``size``: "crop" (shorter side resized, middle cut out) or "squash".

    Args:
        crops: what the published program does where the settings do not say it.

    Raises:
        ConfigError: another size, or cut otherwise.
    """
    cut, wanted, inner = settings.get("do_center_crop", crops), settings.get("size"), settings.get("crop_size") or size
    wanted = wanted or ({"shortest_edge": size} if crops else {"height": size, "width": size})
    sides = {"shortest_edge": wanted} if isinstance(wanted, int) else wanted
    inner = {"height": inner, "width": inner} if isinstance(inner, int) else inner
    fit = "squash" if set(sides) == {"height", "width"} else "crop" if set(sides) == {"shortest_edge"} and cut else None
    if fit is None or set(sides.values()) != {size} or cut and set(inner.values()) != {size}:
        raise ConfigError(f"the settings of pictures set size to {wanted}, crop_size to {settings.get('crop_size')} and do_center_crop to {cut}; "
                          f"only the tower's {size} pixels are built, as height and width, or as shortest_edge with its middle cut out")
    return fit


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
