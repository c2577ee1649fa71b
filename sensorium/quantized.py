"""Quantized: published weights stored in few bits, turned back into floats where they are read, or refused by the name of their method.

    quantization_config -> method -> "fp8": each weight times the scale of its block; any other: one line that says what to take instead
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from sensorium.settings import Keys, check_settings
from sensorium.types import CheckpointError

__all__ = ["FP8_KEYS", "unscaled"]

SCALE = "_scale_inv"
FP8_KEYS = Keys(
    built=("quant_method", "weight_block_size"), only={"fmt": ("e4m3", None), "activation_scheme": ("dynamic", None)},
    harmless={"modules_to_not_convert": "the tensors with a scale are the ones that are converted", "scale_fmt": "scales are read as they are stored",
              "dequantize": "what is read is always turned back", "ignored_layers": "the tensors with a scale are the ones that are converted"})
"""quantization_config of the one method that is read."""


def unscaled(makers: Mapping[str, Callable[[], torch.Tensor]], config: Mapping[str, Any]) -> dict[str, Callable[[], torch.Tensor]]:
    """What makes each tensor as floats, when the settings say that weights are stored in few bits.

    Args:
        makers: name -> what makes the tensor as it is stored.
        config: config.json.

    Raises:
        CheckpointError: a method that is not read.
        ConfigError: a setting of the method that is not built.

    Source: DeepSeek-V3 (2412.19437), section 3.3; "weight_scale_inv" is what a block is multiplied by.
    """
    said = [part[key] for part in (config, *(config.get(f"{name}_config") for name in ("text", "vision", "language"))) if isinstance(part, Mapping)
            for key in ("quantization_config", "compression_config") if part.get(key)]
    if not said:
        return dict(makers)
    method = said[0].get("quant_method") if isinstance(said[0], Mapping) else said[0]
    if method != "fp8":
        raise CheckpointError(f"config.json says that the weights are stored by {method!r} (quantization_config); only 'fp8' in blocks is read: take "
                              "the model's float weights, or its GGUF, and store these in few bits with load(packed=...)")
    check_settings({"config.json": {"quantization_config": said[0]}}, {"config.json": Keys(parts={"quantization_config": FP8_KEYS})})
    block = said[0].get("weight_block_size")
    if block is not None and (not isinstance(block, list) or len(block) != 2 or not all(isinstance(side, int) and side > 0 for side in block)):
        raise CheckpointError(f"config.json sets weight_block_size to {block!r}; wanted rows and columns, as [128, 128]")
    return {name: partial(_floats, name, make, makers[f"{name}{SCALE}"], block) if f"{name}{SCALE}" in makers else make
            for name, make in makers.items() if not (name.endswith(SCALE) and name.removesuffix(SCALE) in makers)}


def _floats(name: str, weight: Callable[[], torch.Tensor], scale: Callable[[], torch.Tensor], block: list[int] | None) -> torch.Tensor:
    """(R, C) stored numbers, each times the scale of the block it stands in, float32; the last block of a row or column may be smaller."""
    weight_RC, scale_rc = weight().float(), scale().float()
    if block is None:
        block = list(weight_RC.shape[-2:])
        scale_rc = scale_rc.reshape(1, 1)
    wanted = tuple(-(-size // side) for size, side in zip(weight_RC.shape[-2:], block, strict=True))
    if tuple(scale_rc.shape) != wanted:
        raise CheckpointError(f"{name}{SCALE} has shape {tuple(scale_rc.shape)}, wanted {wanted} for blocks of {block}; fetch the model again")
    rows, columns = weight_RC.shape
    return weight_RC * scale_rc.repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :columns]
