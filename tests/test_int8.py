"""Layers that multiply in 8 bits: close to what they stand for, each row and picture by itself, and a model's own weights left alone."""

from __future__ import annotations

import pytest
import torch

import sensorium as sn
from sensorium.layers import kernels
from sensorium.layers.int8 import ZERO, Int8Conv, Int8Linear, in_int8, round_rows
from sensorium.unet import UNet

FORMATS = (torch.float32, torch.bfloat16)


def near(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Error as a share of what is wanted, root mean square."""
    return float((found.detach().float() - wanted.detach().float()).norm() / wanted.detach().float().norm())


@pytest.mark.parametrize("even", (True, False))
def test_rows_keep_their_values(even: bool) -> None:
    x = torch.randn(5, 97, generator=torch.Generator().manual_seed(0)).bfloat16() * torch.tensor([[1e-3], [1], [100], [0], [1]])
    x[4] = x[4].abs()
    code, step, zero = round_rows(x, even)
    back = (code.float() - zero[:, None]) * step[:, None]
    assert ((back - x.float()).abs() <= step[:, None] * 0.502).all() and (back[3] == 0).all()
    assert (zero == ZERO).all() if even else zero[4] == 0
    if not even:
        assert step[4] < round_rows(x)[1][4] * 0.51, "one side alone is half as long"


@pytest.mark.parametrize("even", (True, False))
def test_the_kernel_and_its_twin_agree(even: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(33, 200, generator=torch.Generator().manual_seed(1)).bfloat16()
    found = round_rows(x, even)
    monkeypatch.setattr(kernels, "library", lambda: None)
    for one, other in zip(found, round_rows(x, even), strict=True):
        assert (one.float() - other.float()).abs().max() <= (1 if one.dtype == torch.uint8 else 1e-6)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("bias", (True, False))
def test_a_linear_layer(dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(2)
    layer, x = torch.nn.Linear(96, 160, bias=bias).to(dtype), torch.randn(3, 7, 96).to(dtype)
    quick = Int8Linear(layer)
    out = quick(x)
    assert out.dtype == dtype and out.shape == (3, 7, 160) and near(out, layer(x)) < 0.02
    loud = x.clone()
    loud[0, 0] *= 1000
    assert torch.equal(quick(loud)[1:], out[1:]), "a loud row leaves the others as they are"
    with pytest.raises(sn.ShapeError, match="wanted \\(..., 96\\)"):
        quick(x[..., :90])


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize(("kernel", "stride", "padding"), ((3, 1, 1), (3, 2, 1), (1, 1, 0)))
def test_a_convolution(dtype: torch.dtype, kernel: int, stride: int, padding: int) -> None:
    torch.manual_seed(3)
    layer = torch.nn.Conv2d(64, 96, kernel, stride, padding).to(dtype)
    x = torch.nn.functional.silu(torch.randn(2, 64, 9, 8)).to(dtype)
    quick = Int8Conv(layer)
    out = quick(x)
    assert out.dtype == dtype and out.shape == layer(x).shape and near(out, layer(x)) < 0.02
    x[0] *= 50
    assert torch.equal(quick(x)[1], out[1]), "pictures are rounded one by one"
    wide = torch.randn(1, 64, 12, 16).to(dtype)
    assert near(quick(wide), layer(wide)) < 0.02, "another size is laid out anew"


def test_a_model_is_left_as_it_was() -> None:
    spec = UNet((64, 128), looks=(0, 1), heads=(2, 4), source=64, condition=64)
    model = spec.build().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quick = in_int8(model, paths=("*",))
    kinds = [type(layer) for layer in quick.modules()]
    assert kinds.count(Int8Conv) > 10 and kinds.count(Int8Linear) > 10
    assert not any(isinstance(layer, (Int8Conv, Int8Linear)) for layer in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert quick.middle[0].first_norm.weight is model.middle[0].first_norm.weight, "what stays is shared"
    assert type(quick.up[0].blocks[0].short) is torch.nn.Conv2d
    with torch.inference_mode():
        given = torch.randn(2, 64, 8, 8), torch.randn(2, 64), torch.randn(2, 5, 64)
        assert near(quick(*given), model(*given)) < 0.05


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(sn.ConfigError, match="no linear layer or convolution of 64 channels"):
        in_int8(torch.nn.Sequential(torch.nn.Linear(8, 8)), paths=("*",))
    with pytest.raises(sn.ConfigError, match="model.cpu"):
        in_int8(torch.nn.Linear(64, 64, device="meta"), paths=("*",))
