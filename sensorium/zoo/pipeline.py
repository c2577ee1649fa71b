"""Pipelines: a published folder of parts, each in a folder of its own, read as one model.

    model_index.json   which parts there are      unet/config.json + safetensors, vae/..., text_encoder/..., scheduler/scheduler_config.json

A part's settings stand under its name in the config, and its tensors begin with it: "unet.conv_in.weight".
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sensorium.formats import FORMATS, Format, LazyTensors, PublishedFiles, read_settings, sharded

__all__ = ["read_pipeline"]


def read_pipeline(path: Path) -> PublishedFiles:
    """All parts of the folder that have settings; those without tensors (schedulers, tokenizers) give settings alone."""
    index = read_settings(path / "model_index.json")
    config: dict[str, Any] = {"_class_name": index.get("_class_name")}
    makers: dict[str, Callable[[], torch.Tensor]] = {}
    for name in sorted(name for name, made in index.items() if isinstance(made, list) and (path / name).is_dir()):
        settings = read_settings(path / name / "config.json") or read_settings(path / name / "scheduler_config.json")
        if settings:
            config[name] = settings
        if (path / name / "config.json").is_file():
            makers |= {f"{name}.{tensor}": make for tensor, make in sharded(path / name).makers.items()}
    return PublishedFiles(config, LazyTensors(makers))


def _claims(path: Path) -> bool:
    return (path / "model_index.json").is_file()


FORMATS["pipeline"] = Format(_claims, read_pipeline)
