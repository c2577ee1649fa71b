"""The two-pass experts, packed, give the same losses and gradients as the plain single pass over padded rows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import sensorium as sn

from .toys import toy_nano

sys.path.insert(0, str(Path(__file__).parent.parent / "bench"))
from plain import plain_losses  # noqa: E402


def segments(packer: sn.Packer) -> list:
    generator = torch.Generator().manual_seed(3)
    reading, writing = [], []
    for length in (1, 4, 2):
        picture = torch.rand(3, 32, 32, generator=generator, dtype=torch.float64) * 2 - 1
        name = torch.randint(10, 300, (length,), generator=generator).tolist()
        reading.append(packer.segment([sn.Arrays("image", picture), sn.Arrays("text", [5, 6]), sn.Arrays("text", name, target=True)]))
        writing.append(packer.segment([sn.Arrays("text", name), sn.Arrays("image", picture, target=True)]))
    return reading + writing


def test_packed_experts_equal_the_plain_pass() -> None:
    """Float64; 1e-9 is some thousand roundings of sums of a few hundred terms."""
    packer = sn.Packer(places={"image": 4}, row=32, embed=1, say=2, end=3, axes=True)
    pairs, group = {"image": [0, 1, 2], "text": [3, 4, 5]}, [0, 1, 1]
    model = toy_nano().build(seed=1).double()
    for parameter in model.parameters():  # zero-initialised gates would hide a difference
        parameter.data.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())) * 0.05)
    alone = packer.pack(segments(packer), pairs, group, alone=True)
    fast, slow = model.losses(alone, torch.Generator().manual_seed(0)), plain_losses(model, alone, torch.Generator().manual_seed(0))
    assert fast.keys() == slow.keys()
    for name in fast:
        assert fast[name].item() == pytest.approx(slow[name].item(), rel=1e-9), name
    gradients = [torch.autograd.grad(model.total(losses), list(model.parameters()), retain_graph=True) for losses in (fast, slow)]
    for (name, _), one, other in zip(model.named_parameters(), *gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-7, atol=1e-10), name
