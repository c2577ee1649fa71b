"""ViT against transformers: scores, loss and gradients from its own saved folder, and the pixels that its processor makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image as Pillow

import sensorium as sn

from .reference import CLOSE, assert_same_gradients, saved, shaken


def reference(**changes: Any) -> Any:
    config = transformers.ViTConfig(**{**dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, image_size=16,
                                              patch_size=8, num_labels=7), **changes})
    return shaken(transformers.ViTForImageClassification(config))


@pytest.mark.parametrize("labels", [2, 7])
def test_forward_and_backward(labels: int, tmp_path: Path) -> None:
    theirs, report = reference(num_labels=labels), sn.Coverage()
    model = sn.load(saved(theirs, tmp_path / "model"), report=report)
    assert not report.ignored and model.spec.writes == ("class",)
    image, label = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)), torch.tensor([1, 0, labels - 1])
    out = theirs(pixel_values=image, labels=label)
    torch.testing.assert_close(model.classify("image", image), out.logits, **CLOSE)
    ours = model.losses(sn.Batch(pairs={"image": image}, class_L=label))["classify"]
    torch.testing.assert_close(ours, out.loss, **CLOSE)
    ours.backward()
    out.loss.backward()
    assert_same_gradients(model, theirs, tmp_path / "gradients")


def test_pixels() -> None:
    """The published processor resizes both sides, by bilinear steps, and maps 0..255 to -1..1."""
    processor = transformers.ViTImageProcessorPil()
    codec = sn.VisionCodec(size=224, fit="squash", resample="bilinear")
    values = np.random.default_rng(0).integers(0, 256, (50, 301, 3), dtype=np.uint8)
    wanted = processor(images=Pillow.fromarray(values), return_tensors="pt").pixel_values[0]
    ours = codec.encode(sn.Image(torch.from_numpy(values).permute(2, 0, 1).float() / 255))
    torch.testing.assert_close(ours, wanted, **CLOSE)


def test_what_is_not_built_is_refused(tmp_path: Path) -> None:
    folder = saved(reference(), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "qkv_bias": False}))
    with pytest.raises(sn.ConfigError, match="qkv_bias"):
        sn.load(folder)


def test_what_does_not_fit_is_said() -> None:
    tower = sn.VisionEncoder(size=16, patch=8, width=24, depth=1, heads=2, only_first=True)
    with pytest.raises(sn.ConfigError, match="'class'"):
        sn.Model(encoders={"image": tower}, objectives=(sn.Classify("image"),))
    with pytest.raises(sn.ConfigError, match="24"):
        sn.Model(encoders={"image": tower}, heads={"class": sn.Classes(25, 3)}, objectives=(sn.Classify("image"),))
