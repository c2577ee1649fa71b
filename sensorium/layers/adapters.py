"""Adapters: small trained changes of frozen linear layers, LoRA and DoRA; several on one model, each on, off or in part.

Letters: D width in, O width out, R rank.

    x_D --> layer, in floats or few bits -----------------------------------+--> out_O
       \\--> dropout --> down (R, D) --> up (O, R) --> alpha / R --> strength /

Adapters hang on their layer, under its own path, so that nothing else of the model is renamed: ``LAYER.adapters.NAME.up``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.layers.packed import PackedLinear
from sensorium.spec import Spec
from sensorium.types import ConfigError

__all__ = ["adapted_layers", "Adapters", "add_adapter", "Layer", "linear_layers", "Lora", "LoraNet", "patterns_of", "remove_adapter", "sizes"]

Layer = nn.Linear | PackedLinear


@dataclass(frozen=True, repr=False)
class Lora(Spec):
    """Which linear layers are changed, by a product of two thin matrices each.

    Args:
        rank: R, of the product.
        alpha: the product is multiplied by alpha / rank.
        paths: patterns of the layers' paths in the model; ``*`` stands for anything.
        dropout: share of the inputs of ``down`` left out while training.
        dora: learn also how long each row of the changed matrix is; its direction and length then change apart.
        rslora: multiply by alpha / sqrt(rank), so that high ranks learn as fast as low ones.

    Source: LoRA 2106.09685; DoRA 2402.09353, section 4; rsLoRA 2312.03732. Over packed layers it is what QLoRA, 2305.14314, does.
    """

    rank: int = 16
    alpha: float = 32.0
    paths: tuple[str, ...] = ("decoder.*.attention.*", "decoder.*.mlp.*")
    dropout: float = 0.0
    dora: bool = False
    rslora: bool = False

    def check(self) -> list[str]:
        problems = [] if self.rank >= 1 else [f"rank is {self.rank}, wanted 1 or more"]
        problems += [] if self.alpha > 0 else [f"alpha is {self.alpha}, wanted more than 0"]
        problems += [] if 0 <= self.dropout < 1 else [f"dropout is {self.dropout}, wanted 0 to less than 1"]
        if isinstance(self.paths, str) or not self.paths:
            problems.append(f"paths is {self.paths!r}, wanted patterns such as ('decoder.*.attention.query',)")
        return problems

    @property
    def scale(self) -> float:
        """What the product is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)


class LoraNet(nn.Module):
    """One adapter of one layer: the module of :class:`Lora`. It begins as no change at all.

    Args:
        spec: of the adapter.
        layer: what it changes.
    """

    def __init__(self, spec: Lora, layer: Layer) -> None:
        super().__init__()
        self.spec = spec
        rows, columns = sizes(layer)
        dtype = torch.float32 if isinstance(layer, PackedLinear) else torch.promote_types(layer.weight.dtype, torch.float32)
        self.down = nn.Parameter(torch.empty(spec.rank, columns, dtype=dtype))
        self.up = nn.Parameter(torch.zeros(rows, spec.rank, dtype=dtype))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)
        self.magnitude = nn.Parameter(torch.linalg.vector_norm(layer.weight.detach().to(dtype), dim=1)) if spec.dora else None

    def forward(self, x: torch.Tensor, out: torch.Tensor, layer: Layer, strength: float = 1.0) -> torch.Tensor:
        """What is added to ``out``, the layer's output for ``x``; factors go where the numbers are few."""
        dropping = self.training and self.spec.dropout > 0
        dropped = F.dropout(x, self.spec.dropout) if dropping else x
        inner = F.linear(dropped.to(self.down.dtype), self.down) * (self.spec.scale * strength)
        if self.magnitude is None:
            return F.linear(inner, self.up).to(out.dtype)
        weight = layer.weight
        plain = F.linear(dropped, weight.to(x.dtype)) if dropping else out if layer.bias is None else out - layer.bias
        gain = self.magnitude / self._length(weight)
        return ((gain - 1) * strength * plain + F.linear(inner, gain[:, None] * self.up)).to(out.dtype)

    @torch.no_grad()
    def change(self, weight_OD: torch.Tensor) -> torch.Tensor:
        """What it adds to the layer's matrix, (O, D)."""
        product = self.up @ self.down * self.spec.scale
        if self.magnitude is None:
            return product
        return (self.magnitude / self._length(weight_OD))[:, None] * (weight_OD + product) - weight_OD

    @torch.no_grad()
    def _length(self, weight_OD: torch.Tensor) -> torch.Tensor:
        """Of each row of the changed matrix; a constant to the gradient (2402.09353, section 4.3)."""
        return torch.linalg.vector_norm(weight_OD + self.up @ self.down * self.spec.scale, dim=1)


class Adapters(nn.Module):
    """The adapters of one layer, by name.

    Attributes:
        strength: name -> what its change is multiplied by; 0 is off, and costs nothing.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.strength: dict[str, float] = {}
        self.handle = layer.register_forward_hook(_changed)

    def forward(self, x: torch.Tensor, out: torch.Tensor, layer: Layer) -> torch.Tensor:
        """The layer's output with every change that is on; each is a change of the bare layer, whatever else is on."""
        changes = [net(x, out, layer, self.strength[name]) for name, net in self.named_children() if self.strength[name]]
        return sum(changes, start=out)

    def weight(self, weight_OD: torch.Tensor) -> torch.Tensor:
        """The layer's matrix with every change that is on."""
        changes = [self.strength[name] * net.change(weight_OD) for name, net in self.named_children() if self.strength[name]]
        return sum(changes, start=weight_OD.detach())


def _changed(layer: nn.Module, inputs: tuple[Any, ...], out: torch.Tensor) -> torch.Tensor:
    return layer.adapters(inputs[0], out, layer)


def sizes(layer: Layer) -> tuple[int, int]:
    """Rows and columns of a layer's matrix, which is not unpacked for it."""
    return (layer.rows, layer.columns) if isinstance(layer, PackedLinear) else tuple(layer.weight.shape)


def linear_layers(model: nn.Module) -> dict[str, Layer]:
    """Every layer that can be adapted, by path."""
    return {path: layer for path, layer in model.named_modules() if isinstance(layer, (nn.Linear, PackedLinear))}


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, Layer, Adapters]]:
    """Path, layer and adapters of every layer that has some."""
    for path, module in list(model.named_modules()):
        if isinstance(module, Adapters):
            where = path.rpartition(".")[0]
            yield where, model.get_submodule(where), module


def add_adapter(model: nn.Module, name: str, lora: Lora) -> None:
    """Hang an adapter, switched on, on every layer that it names.

    Raises:
        ConfigError: a name that cannot be, or a pattern that fits no linear layer; says which there are.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or name in (*dir(nn.Module), "handle", "strength", "training"):
        raise ConfigError(f"an adapter is named {name!r}; wanted another name, of letters, digits, _ and -")
    layers, known = linear_layers(model), {path: adapters for path, _, adapters in adapted_layers(model)}
    lost = [pattern for pattern in lora.paths if not any(fnmatchcase(path, pattern) for path in layers)]
    if lost:
        raise ConfigError(f"adapter {name!r}: {', '.join(map(repr, lost))} fits no linear layer; there are {', '.join(patterns_of(layers, layers))}")
    for path, layer in layers.items():
        if any(fnmatchcase(path, pattern) for pattern in lora.paths):
            if path not in known:
                layer.adapters = Adapters(layer)
            layer.adapters.add_module(name, LoraNet(lora, layer))
            layer.adapters.strength[name] = 1.0


def remove_adapter(model: nn.Module, name: str) -> None:
    """Take an adapter off every layer; a layer without adapters is as it was before."""
    for _, layer, adapters in adapted_layers(model):
        if adapters.strength.pop(name, None) is not None:
            delattr(adapters, name)
        if not adapters.strength:
            adapters.handle.remove()
            del layer.adapters


def patterns_of(paths: Collection[str], among: Collection[str]) -> tuple[str, ...]:
    """Few patterns that fit exactly these paths of all those ``among`` which they stand: a layer's number becomes ``*`` where that is right."""
    wanted, whole = set(paths), {}
    wides = {path: ".".join("*" if step.isdigit() else step for step in path.split(".")) for path in paths}
    for wide in set(wides.values()):
        whole[wide] = {path for path in among if fnmatchcase(path, wide)} <= wanted
    return tuple(dict.fromkeys(wide if whole[wide] else path for path, wide in wides.items()))
