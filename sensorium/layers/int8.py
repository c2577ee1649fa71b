"""Int8: linear layers and convolutions that multiply in 8 bits, for many rows at once: about half the time of bfloat16.

Letters: L media, N rows of x, D width in, O width out, C channels, H W pixels.

    weights       (O, ...) -> codes -127..127 (on processors without VNNI -63..63), by each output's largest magnitude; laid out once
    activations   (N, D)   -> codes 0..255, by each row's (of pictures: each one's) range, anew every time
    codes x codes -> whole numbers -> times both scales, plus bias, in x's format

This is for running alone: it has no gradient, and is neither saved nor moved. To store weights in few bits see ``layers.packed``.

Source: LLM.int8 (2208.07339), section 2, without its decomposition; the products are oneDNN's.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cache

import torch
from torch import nn

from sensorium.layers import kernels
from sensorium.layers.swap import put, sharing
from sensorium.types import ConfigError, ShapeError

__all__ = ["in_int8", "Int8Conv", "Int8Linear", "round_rows"]

ZERO, LEAST = 128, 64


def round_rows(x_ND: torch.Tensor, even: bool = True) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows to codes.

    Args:
        even: as far to both sides of ``ZERO``; False: from each row's least value to its greatest, which is finer where one side is longer.

    Returns:
        uint8 (N, D); float32 (N,), what one step is worth; int32 (N,), the code that is 0.
    """
    made = kernels.library()
    if made is None or x_ND.dtype != torch.bfloat16:
        least_N, most_N = (limit.float().clamp(*sides) for limit, sides in ((x_ND.amin(dim=1), (None, 0)), (x_ND.amax(dim=1), (0, None))))
        scale_N = torch.maximum(-least_N, most_N) / 127 if even else (most_N - least_N) / 255
        inverse_N = torch.where(scale_N > 0, 1 / scale_N, 0)
        zero_N = torch.full_like(scale_N, ZERO) if even else (-least_N * inverse_N).round()
        code_ND = (x_ND.float() * inverse_N[:, None]).add_(zero_N[:, None] + 0.5).clamp_(max=255).to(torch.uint8)
        return code_ND, scale_N, zero_N.int()
    x_ND = x_ND.contiguous()
    code_ND, scale_N = torch.empty(x_ND.shape, dtype=torch.uint8), torch.empty(len(x_ND))
    zero_N = torch.full((len(x_ND),), ZERO, dtype=torch.int32)
    made.sensorium_round_rows(x_ND.data_ptr(), *x_ND.shape, code_ND.data_ptr(), scale_N.data_ptr(), None if even else zero_N.data_ptr(),
                              torch.get_num_threads())
    return code_ND, scale_N, zero_N


@cache
def _most() -> int:
    """The largest code of a weight. Without VNNI two products are added in 16 bits, which do not hold 2 x 255 x 127: the sum stops at their end."""
    code_ND, weight_OD = torch.full((LEAST, LEAST), 255, dtype=torch.uint8), torch.full((LEAST, LEAST), 127, dtype=torch.int8)
    ones_O, zero_O = torch.ones(LEAST), torch.zeros(LEAST, dtype=torch.int32)
    weight = torch.ops.onednn.qlinear_prepack(weight_OD, None)
    sum_NO = torch.ops.onednn.qlinear_pointwise(code_ND, 1.0, 0, weight, ones_O, zero_O, None, 1.0, 0, torch.float32, "none", [], "")
    return 127 if torch.equal(sum_NO, torch.full_like(sum_NO, LEAST * 255 * 127)) else 63


def _coded(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (O, ...) to int8 codes and float32 scales (O,)."""
    scale_O = (weight.detach().float().flatten(1).abs().amax(dim=1) / _most()).clamp(min=1e-12)
    return (weight.detach().float() / scale_O.view(-1, *[1] * (weight.dim() - 1))).round_().to(torch.int8), scale_O


class Int8Linear(nn.Module):
    """A linear layer's values, multiplied in 8 bits."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        code_OD, self.scale_O = _coded(layer.weight)
        self.columns, self.rows = layer.in_features, layer.out_features
        self.weight = torch.ops.onednn.qlinear_prepack(code_OD, None)
        self.zero_O, self.bias = torch.zeros(self.rows, dtype=torch.int32), None if layer.bias is None else layer.bias.detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., D) -> (..., O)."""
        if x.shape[-1] != self.columns:
            raise ShapeError(f"the layer got {tuple(x.shape)}, wanted (..., {self.columns})")
        code_ND, scale_N, _ = round_rows(x.reshape(-1, self.columns))
        out_NO = torch.ops.onednn.qlinear_pointwise(code_ND, 1.0, ZERO, self.weight, self.scale_O, self.zero_O, None, 1.0, 0, x.dtype, "none", [], "")
        scale_N1 = scale_N.to(x.dtype)[:, None]
        out_NO = out_NO.mul_(scale_N1) if self.bias is None else torch.addcmul(self.bias.to(x.dtype), out_NO, scale_N1)
        return out_NO.unflatten(0, x.shape[:-1])

    def extra_repr(self) -> str:
        return f"{self.columns} -> {self.rows}"


class Int8Conv(nn.Module):
    """A convolution's values, multiplied in 8 bits, picture by picture."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.code, self.scale_O = _coded(layer.weight)
        self.ways = [list(layer.stride), list(layer.padding), list(layer.dilation), layer.groups]
        self.zero_O = torch.zeros(layer.out_channels, dtype=torch.int32)
        self.bias = None if layer.bias is None else layer.bias.detach().float()
        self.prepared: dict[tuple[int, ...], torch.Tensor] = {}

    def forward(self, x_LCHW: torch.Tensor) -> torch.Tensor:
        """(L, C, H, W) -> (L, O, H', W'), channels last in memory."""
        x_LHWC = x_LCHW.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
        shape = (1, *x_LCHW.shape[1:])
        if shape not in self.prepared:
            self.prepared[shape] = torch.ops.onednn.qconv_prepack(self.code, self.scale_O, 1.0, ZERO, *self.ways, list(shape))
        code_LN, scale_L, zero_L = round_rows(x_LHWC.flatten(1), even=False)
        code_LCHW, each = code_LN.view(x_LHWC.shape).permute(0, 3, 1, 2), []
        for code_CHW, scale, zero in zip(code_LCHW, scale_L.tolist(), zero_L.tolist(), strict=True):
            each.append(torch.ops.onednn.qconv_pointwise(code_CHW[None], scale, zero, self.prepared[shape], self.scale_O, self.zero_O, self.bias,
                                                         *self.ways, 1.0, 0, x_LCHW.dtype, "none", [], ""))
        return torch.cat(each) if len(each) > 1 else each[0]


def in_int8(model: nn.Module, paths: Sequence[str] = ("decoder.*", "encoders.*"), but: Sequence[str] = ("*.short",)) -> nn.Module:
    """A model like this one that multiplies in 8 bits; what it does not is shared with it.

    Args:
        model: on the processor; float32 or bfloat16.
        paths: patterns of the layers' paths. Of those named, linear layers and convolutions of at least ``LEAST`` channels in and out, ungrouped.
        but: patterns of the paths of those that stay as they are: a residual block's shortcut carries the sum of all before it, whose range is wide.

    Raises:
        ConfigError: on another device, no layer fits, or this torch has no oneDNN.
    """
    if any(parameter.device.type != "cpu" for parameter in model.parameters()):
        raise ConfigError("multiplying in 8 bits is made for the processor, and the model is elsewhere; move it: model.cpu()")
    if not torch.backends.mkldnn.is_available():
        raise ConfigError("this torch was built without oneDNN, which multiplies in 8 bits; install the usual build")
    chosen = {path: layer for path, layer in model.named_modules() if _fits(layer) and _named(path, paths) and not _named(path, but)}
    if not chosen:
        raise ConfigError(f"no linear layer or convolution of {LEAST} channels or more lies under {', '.join(paths)}; see model.named_modules()")
    out = sharing(model)
    for path, layer in chosen.items():
        put(out, path, Int8Linear(layer) if isinstance(layer, nn.Linear) else Int8Conv(layer))
    return out.eval()


def _fits(layer: nn.Module) -> bool:
    if type(layer) is nn.Linear:
        return min(layer.in_features, layer.out_features) >= LEAST
    return type(layer) is nn.Conv2d and min(layer.in_channels, layer.out_channels) >= LEAST and layer.groups == 1


def _named(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)
