"""Reference models of the public libraries at toy size, saved in their own published layout."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

import sensorium as sn

CLOSE = dict(rtol=1e-4, atol=2e-5)  # float32, two orders of summing


def shaken(model: Any, seed: int = 0) -> Any:
    """Every weight drawn at random, so that nothing agrees by being zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def saved(model: Any, folder: Path) -> Path:
    """As the library itself saves it."""
    model.save_pretrained(folder)
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """What a saved folder holds."""
    (path,) = folder.glob("*.safetensors")
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def gradients_as_weights(model: Any, folder: Path) -> Path:
    """Save the gradients in place of the weights: loaded again, they stand at our own names."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter, source in zip(other.parameters(), model.parameters(), strict=True):
            parameter.copy_(torch.zeros_like(source) if source.grad is None else source.grad)
    return saved(other, folder)


def assert_same_gradients(ours: sn.ModelNet, reference: Any, folder: Path) -> None:
    """Every parameter's gradient against the reference's."""
    wanted = dict(sn.load(gradients_as_weights(reference, folder)).named_parameters())
    largest = max(float(value.detach().abs().max()) for value in wanted.values())
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        scale = max(float(wanted[name].detach().abs().max()), 1e-3 * largest)  # key biases: zero, but for rounding
        torch.testing.assert_close(parameter.grad / scale, wanted[name].detach() / scale, rtol=0, atol=1e-4,
                                   msg=lambda m, name=name: f"gradient of {name}: {m}")
