"""Swap: other layers in the places of a model's own, in a copy that shares every number."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

__all__ = ["put", "sharing"]

Net = TypeVar("Net", bound=nn.Module)


def sharing(model: Net) -> Net:
    """Other modules around the same parameters and buffers."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


def put(model: nn.Module, path: str, layer: nn.Module) -> None:
    """Put a layer in the place at ``path``, such as "decoder.layers.0.mlp.up"."""
    parent, _, name = path.rpartition(".")
    model.get_submodule(parent).register_module(name, layer)
