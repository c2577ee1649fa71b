"""DiT against diffusers: one look, gradients, DDIM, from its own saved folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

import sensorium as sn
from sensorium.denoise import Solver, draw
from sensorium.types import Written

from .reference import CLOSE, gradients_as_weights, saved, shaken, tensors


def reference() -> Any:
    model = shaken(diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=8, num_layers=3, sample_size=8, num_embeds_ada_norm=10))
    first = model.transformer_blocks[0].norm1.emb.state_dict()
    for block in model.transformer_blocks:
        block.norm1.emb.load_state_dict(first)
    return model


def batch(labels: list[int], seed: int = 0) -> sn.Batch:
    value = torch.randn(len(labels), 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    none, zero = torch.full((len(labels),), -1), torch.zeros(len(labels), dtype=torch.int64)
    return sn.Batch(written={"image": Written(value, none, none, zero, none, torch.tensor(labels))}, samples=len(labels))


def test_forward_and_backward(tmp_path: Path) -> None:
    theirs = reference()
    model = sn.load(saved(theirs, tmp_path / "model"))
    given, steps = batch([3, 7, 0]), torch.tensor([10, 500, 999])
    x = given.written["image"].value_LCHW
    wanted = theirs(x, timestep=steps, class_labels=torch.tensor([3, 7, 0])).sample
    ours = model.write("image", x, steps / 1000, given.written["image"], torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(ours, wanted, **CLOSE)
    empty = theirs(x, timestep=steps, class_labels=torch.tensor([10, 10, 10])).sample  # the class that means none
    torch.testing.assert_close(model.write("image", x, steps / 1000, given.written["image"], torch.zeros(3, dtype=torch.bool)), empty, **CLOSE)

    weigh = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1))
    (wanted * weigh).mean().backward()
    (ours * weigh).mean().backward()
    from sensorium.checkpoint import PUBLISHED

    found = tensors(gradients_as_weights(theirs, tmp_path / "gradients"))
    for name, rule in PUBLISHED["DiTTransformer2DModel"].rules(model.spec, {}).items():
        values = [found[source] for source in rule.source]
        grad = sum(values) if len(values) > 1 else values[0] if rule.make is None else rule.make(*values)  # copies of one weight: their sum
        scale = max(float(grad.abs().max()), 1e-4)
        torch.testing.assert_close(model.get_parameter(name).grad / scale, grad / scale, rtol=0, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


def test_ddim(tmp_path: Path) -> None:
    theirs = reference()
    model = sn.load(saved(theirs, tmp_path))
    labels = torch.tensor([2, 5])
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear", clip_sample=False)
    scheduler.set_timesteps(10)
    x = noise
    with torch.no_grad():
        for step in scheduler.timesteps:
            both = theirs(torch.cat([x, x]), timestep=step.expand(4), class_labels=torch.cat([labels, torch.tensor([10, 10])])).sample[:, :4]
            known, unknown = both.chunk(2)
            x = scheduler.step(unknown + 4.0 * (known - unknown), step, x).prev_sample
    ours = draw(model, batch([2, 5]), Solver("ddim", steps=10, guidance=4.0, interval=(0.0, 1.0)), noise_LCHW=noise)
    torch.testing.assert_close(ours, x, rtol=1e-3, atol=1e-3)


def test_unequal_copies_are_refused(tmp_path: Path) -> None:
    theirs = reference()
    with torch.no_grad():
        theirs.transformer_blocks[1].norm1.emb.class_embedder.embedding_table.weight[0, 0] += 1
    with pytest.raises(sn.CheckpointError, match="copies"):
        sn.load(saved(theirs, tmp_path))
