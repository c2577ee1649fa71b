"""CLIP and SigLIP against transformers: embeddings, loss, gradients, from their own saved folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import sensorium as sn

from .reference import CLOSE, assert_same_gradients, saved, shaken

SIZES = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2)


def clip() -> Any:
    return shaken(transformers.CLIPModel(transformers.CLIPConfig(
        text_config=dict(vocab_size=60, max_position_embeddings=12, eos_token_id=59, bos_token_id=58, pad_token_id=1, **SIZES),
        vision_config=dict(image_size=16, patch_size=8, **SIZES), projection_dim=20)))


def siglip() -> Any:
    model = transformers.SiglipModel(transformers.SiglipConfig(
        text_config=dict(vocab_size=60, max_position_embeddings=12, **SIZES), vision_config=dict(image_size=16, patch_size=8, **SIZES)))
    model = shaken(model)
    with torch.no_grad():
        model.logit_scale.fill_(4.9)  # above ln 100, as published SigLIP scales are
        model.logit_bias.fill_(-3.0)
    return model


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(2, 58, (3, 12), generator=generator)
    for row, length in enumerate((4, 11, 7)):
        ids[row, length] = 59
        ids[row, length + 1 :] = 1
    return torch.randn(3, 3, 16, 16, generator=generator), ids


@pytest.mark.parametrize("make", [clip, siglip])
def test_forward_and_backward(make: Any, tmp_path: Path) -> None:
    reference = make()
    report = sn.Coverage()
    model = sn.load(saved(reference, tmp_path / "model"), report=report)
    assert len(report.used) == len(reference.state_dict()) - sum("position_ids" in n for n in reference.state_dict())
    image, ids = inputs()
    theirs = reference(pixel_values=image, input_ids=ids, return_loss=True)
    torch.testing.assert_close(model.tower("image", image), theirs.image_embeds, **CLOSE)
    torch.testing.assert_close(model.tower("text", ids), theirs.text_embeds, **CLOSE)
    losses = model.losses(sn.Batch(pairs={"image": image, "text": ids}, samples=3))
    torch.testing.assert_close(losses["contrastive"], theirs.loss, **CLOSE)
    theirs.loss.backward()
    losses["contrastive"].backward()
    assert_same_gradients(model, reference, tmp_path / "gradients")


def test_an_early_config_that_calls_the_end_token_2(tmp_path: Path) -> None:
    reference = clip()
    reference.config.text_config.eos_token_id = reference.text_model.config.eos_token_id = reference.text_model.eos_token_id = 2
    model = sn.load(saved(reference, tmp_path))
    image, ids = inputs()
    torch.testing.assert_close(model.tower("text", ids), reference(pixel_values=image, input_ids=ids).text_embeds, **CLOSE)


def test_bfloat16_weights_load_into_bfloat16(tmp_path: Path) -> None:
    model = sn.load(saved(clip().bfloat16(), tmp_path), dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.tower("image", inputs()[0]).shape == (3, 20)
