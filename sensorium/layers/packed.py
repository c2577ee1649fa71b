"""Packed: linear layers and embeddings stored in 4 or 8 bits, and the spec that says which.

Letters: B batch, N rows of x, D width in, O width out, V vocabulary, G groups of 32 along the input.

    float matrix (O, D) -> blocks of 16 rows x groups of 32 columns -> codes, and float16 scale and low of each row's group
    4 bits: code * scale + low, from the group's least and greatest      8 bits: (code - 128) * scale, from its largest magnitude

The blocks lie as the kernels read them (``kernels.h``). Without kernels, or where a gradient is wanted, the matrix is unpacked for the moment.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.layers import kernels
from sensorium.layers.swap import put, sharing
from sensorium.spec import Spec
from sensorium.types import ConfigError

__all__ = [
    "HEAR", "INT4", "INT8", "pack", "pack_matrix", "PackedEmbedding", "PackedLinear", "PackedMatrix", "Packing", "PACKINGS", "replace_layers",
    "unpack_matrix",
]

GROUP, BLOCK = 32, 16


@dataclass(frozen=True, repr=False)
class Packing(Spec):
    """Which linear layers and embeddings are stored in few bits.

    Args:
        rules: (pattern of the layer's path in the model, bits 4 or 8); the first pattern that fits decides, and a layer that none fits
            stays as it is. ``*`` stands for anything.
    """

    rules: tuple[tuple[str, int], ...]

    def check(self) -> list[str]:
        wrong = [f"{pattern!r}: {bits} bits" for pattern, bits in self.rules if bits not in (4, 8)]
        return [f"rules hold {', '.join(wrong)}; wanted 4 or 8 bits"] if wrong else []

    def bits(self, path: str) -> int | None:
        """Bits of the layer at ``path``; None leaves it alone."""
        return next((bits for pattern, bits in self.rules if fnmatchcase(path, pattern)), None)


_TABLES = (("encoders.text.token", 8), ("heads.text.out", 8))
INT4 = Packing(rules=(*_TABLES, ("encoders.audio.*", 8), ("fuse.cross.*", 8), ("decoder.*", 4)))
"""Decoder in 4 bits, the vocabulary and what hears in 8: small differences there cost more than their size."""
INT8 = Packing(rules=(*_TABLES, ("encoders.audio.*", 8), ("fuse.cross.*", 8), ("decoder.*", 8)))
"""Everything that decoding reads in 8 bits."""
HEAR = Packing(rules=tuple(rule for rule in INT8.rules if rule[0] != "encoders.audio.*"))
"""What writes in 8 bits, what hears in floats: bfloat16 multiplies many rows at once more quickly than 8 bits do."""
PACKINGS = {"int4": INT4, "int8": INT8, "hear": HEAR}
"""Packings by name."""


def pack_matrix(weight_OD: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes, scale and low of a matrix.

    Args:
        weight_OD: float, finite. Worked through in slices, so that a large table needs little memory beside itself.
        bits: 4 or 8.

    Returns:
        codes (blocks, G, 64 * bits) uint8; scale and low (blocks, G, 16), int16 that hold float16 bit for bit, so that changing the
        number format of a model leaves them alone. In 8 bits low is empty.
    """
    made = kernels.library() if weight_OD.device.type == "cpu" else None
    if made is None:
        parts = [_pack_slice(part.float(), bits) for part in weight_OD.split(256 * BLOCK)]
        codes, scale, low = (torch.cat(part) for part in zip(*parts, strict=True))
        return codes, scale.view(torch.int16), low.view(torch.int16)
    (rows, columns), source = weight_OD.shape, weight_OD.float().contiguous()
    blocks, groups = -(-rows // BLOCK), -(-columns // GROUP)
    codes = torch.empty(blocks, groups, 64 * bits, dtype=torch.uint8)
    scale, low = (torch.empty(count, groups, BLOCK, dtype=torch.int16) for count in (blocks, blocks if bits == 4 else 0))
    made.sensorium_pack(source.data_ptr(), rows, columns, bits, *map(kernels.pointer, (codes, scale, low)), torch.get_num_threads())
    return codes, scale, low


def _pack_slice(weight_OD: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    more_rows, more_columns = -len(weight_OD) % BLOCK, -weight_OD.shape[1] % GROUP
    if more_columns:  # the last column again, so that no range grows
        weight_OD = torch.cat([weight_OD, weight_OD[:, -1:].expand(-1, more_columns)], dim=1)
    x = F.pad(weight_OD, (0, 0, 0, more_rows)).unflatten(0, (-1, BLOCK)).unflatten(-1, (-1, GROUP)).transpose(1, 2)  # block, G, 16, 32
    if bits == 8:
        scale = (x.abs().amax(dim=-1) / 127).half()
        code = (x * _inverse(scale)).round_().clamp_(-127, 127).add_(128).to(torch.uint8)
        return code.unflatten(-1, (8, 4)).transpose(2, 3).flatten(2).contiguous(), scale.contiguous(), scale[:0, :, :]
    low = x.amin(dim=-1)
    scale, low = ((x.amax(dim=-1) - low) / 15).half(), low.half()
    code = ((x - low.float()[..., None]) * _inverse(scale)).round_().clamp_(0, 15).to(torch.uint8)
    halves = code.unflatten(-1, (2, 4, 4)).permute(0, 1, 3, 4, 2, 5)  # block, G, half, four, 16, 4
    return (halves[:, :, 0] | halves[:, :, 1] << 4).flatten(2).contiguous(), scale.contiguous(), low.contiguous()


def _inverse(scale: torch.Tensor) -> torch.Tensor:
    return torch.where(scale > 0, 1 / scale.float(), 0)[..., None]


def unpack_matrix(codes: torch.Tensor, scale: torch.Tensor, low: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """The float32 matrix (rows, columns) that packed parts stand for."""
    scale = scale.view(torch.float16).float()[..., None]
    if len(low):
        halves = torch.stack([codes & 15, codes >> 4], dim=2).unflatten(-1, (4, BLOCK, 4))  # block, G, half, four, 16, 4
        value = halves.permute(0, 1, 4, 2, 3, 5).flatten(3).float() * scale + low.view(torch.float16).float()[..., None]
    else:
        value = (codes.unflatten(-1, (8, BLOCK, 4)).transpose(2, 3).flatten(3).float() - 128) * scale
    return value.transpose(1, 2).flatten(2).flatten(0, 1)[:rows, :columns]


class PackedMatrix(nn.Module):
    """A matrix in few bits, without gradient of its own; what packed layers share.

    Args:
        rows, columns: of the matrix, O x D.
        bits: 4 or 8.
        device: None is the current one.
    """

    PARTS = ("codes", "scale", "low")
    codes: torch.Tensor
    scale: torch.Tensor
    low: torch.Tensor

    def __init__(self, rows: int, columns: int, bits: int, device: torch.device | None = None) -> None:
        super().__init__()
        self.rows, self.columns, self.bits = rows, columns, bits
        blocks, groups = -(-rows // BLOCK), -(-columns // GROUP)
        self.register_buffer("codes", torch.zeros(blocks, groups, 64 * bits, dtype=torch.uint8, device=device))
        self.register_buffer("scale", torch.zeros(blocks, groups, BLOCK, dtype=torch.int16, device=device))
        self.register_buffer("low", torch.zeros(blocks if bits == 4 else 0, groups, BLOCK, dtype=torch.int16, device=device))

    def packed(self, weight_OD: torch.Tensor) -> dict[str, torch.Tensor]:
        """A float matrix as this layer would store it, by the names of its parts."""
        return dict(zip(self.PARTS, pack_matrix(weight_OD.detach(), self.bits), strict=True))

    def fill(self, weight_OD: torch.Tensor) -> None:
        """Store this float matrix; one without numbers (of device "meta") leaves room for them."""
        if not weight_OD.is_meta:
            self.codes, self.scale, self.low = self.packed(weight_OD).values()

    @property
    def weight(self) -> torch.Tensor:
        """The float32 matrix (rows, columns), unpacked for the moment."""
        return unpack_matrix(self.codes, self.scale, self.low, self.rows, self.columns)

    def described(self, bias: torch.Tensor | None = None) -> kernels.CLinear:
        """The matrix as the kernels read it; module and bias must outlive it."""
        return kernels.CLinear(self.bits, self.rows, self.codes.shape[1], *map(kernels.pointer, (self.codes, self.scale, self.low, bias)))

    def multiply(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """x (..., D) times the matrix, plus bias: (..., O) in x's format. Through the kernels, x is rounded to 12 bits by groups of 32."""
        if torch.is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad)):
            out = _Product.apply(x, self)
            return out if bias is None else out + bias
        made = kernels.library() if x.device.type == "cpu" and self.codes.device.type == "cpu" else None
        if made is None:
            return F.linear(x, self.weight.to(x.dtype), bias)
        rows = x.reshape(-1, self.columns).float().contiguous()
        out = torch.empty(len(rows), self.rows)
        bias = None if bias is None else bias.detach().float().contiguous()
        made.sensorium_linear(ctypes.byref(self.described(bias)), rows.data_ptr(), len(rows), self.columns, out.data_ptr(), torch.get_num_threads())
        return out.to(x.dtype).unflatten(0, x.shape[:-1])

    def extra_repr(self) -> str:
        return f"{self.columns} -> {self.rows}, {self.bits} bits"


class _Product(torch.autograd.Function):
    """x times the unpacked matrix, which is unpacked again for the gradient instead of being kept."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, matrix: PackedMatrix) -> torch.Tensor:
        ctx.matrix = matrix
        return F.linear(x, matrix.weight.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient @ ctx.matrix.weight.to(gradient.dtype), None


class PackedLinear(PackedMatrix):
    """A linear layer whose matrix is in few bits; the bias stays as it was."""

    def __init__(self, rows: int, columns: int, bits: int, bias: bool = False, device: torch.device | None = None) -> None:
        super().__init__(rows, columns, bits, device)
        self.bias = nn.Parameter(torch.zeros(rows, device=device)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., D) -> (..., O)."""
        return self.multiply(x, self.bias)


class PackedEmbedding(PackedMatrix):
    """An embedding table in few bits; a tied head scores with the same codes."""

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        """Ids of any shape -> float32 rows."""
        flat = index.flatten()
        block, lane = flat // BLOCK, flat % BLOCK
        scale = self.scale.view(torch.float16)[block, :, lane].float()[..., None]
        codes = self.codes.unflatten(-1, (-1, BLOCK, 4))[block, :, :, lane].flatten(2)
        if self.bits == 4:
            low = self.low.view(torch.float16)[block, :, lane].float()[..., None]
            value = torch.cat([codes & 15, codes >> 4], dim=-1).float() * scale + low
        else:
            value = (codes.float() - 128) * scale
        return value.flatten(1)[:, : self.columns].unflatten(0, index.shape)


def replace_layers(model: nn.Module, packing: Packing) -> None:
    """Put packed layers, holding the same values in few bits, in the place of those that ``packing`` names."""
    found = False
    for path, layer in list(model.named_modules()):
        bits = packing.bits(path) if type(layer) in (nn.Linear, nn.Embedding) else None
        if bits is None:
            continue
        found = True
        rows, columns = layer.weight.shape
        if isinstance(layer, nn.Linear):
            packed: PackedMatrix = PackedLinear(rows, columns, bits, layer.bias is not None, layer.weight.device)
            packed.bias = layer.bias
        else:
            packed = PackedEmbedding(rows, columns, bits, layer.weight.device)
        packed.fill(layer.weight)
        put(model, path, packed)
    if not found:
        raise ConfigError(f"{packing} fits no linear layer or embedding of the model; see the paths in model.named_modules()")


def pack(model: nn.Module, packing: Packing) -> nn.Module:
    """A model like this one with the layers that ``packing`` names in few bits; what stays in floats is shared with it."""
    if model.spec.packed is not None:
        raise ConfigError("the model is packed already; load its float weights to pack them in another way")
    if model.spec.adapters:
        raise ConfigError("the model has adapters; pack the model they were made for and load them onto that, or merge them first")
    out = sharing(model)
    replace_layers(out, packing)
    out.spec = replace(model.spec, packed=packing)
    return out
